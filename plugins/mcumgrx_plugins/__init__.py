"""The plugins that come with mcumgrx, one package each, and the groups of theirs for scripts.

Each has the shape of a third party's: an entry point in the group `mcumgrx`, hooks that only describe, and imports of
nothing but `mcumgrx.plugin_api` (`mcumgrx.sim` and `mcumgrx.testing` where simulation is the subject). Any of them can
be copied out as the start of a distribution of its own. They do not import each other.

The groups, and what they return, are public here and nowhere else: `from mcumgrx_plugins import FsGroup`,
`client.group(FsGroup)`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .enum.group import EnumGroup
    from .enum.messages import GroupAt, GroupCount, GroupDetails, GroupDetailsList, GroupList
    from .fs.group import FileTransfer, FsGroup
    from .fs.messages import FileHash, HashType
    from .fs.target import Sink
    from .image.group import ImageGroup
    from .os.group import ClockSet, Farewell, OsGroup
    from .os.messages import DeviceTime, Info, MemoryPool, MemoryPools, Task, Tasks
    from .settings.group import SettingsGroup, Written
    from .settings.messages import Setting
    from .shell.group import ShellGroup
    from .shell.messages import ShellOutput
    from .stat.group import StatGroup
    from .stat.messages import Counters, StatisticsList
    from .zephyr.group import ZephyrGroup

_LATE = {
    name: module
    for module, names in {
        "enum.group": "EnumGroup",
        "enum.messages": "GroupAt GroupCount GroupDetails GroupDetailsList GroupList",
        "fs.group": "FileTransfer FsGroup",
        "fs.messages": "FileHash HashType",
        "fs.target": "Sink",
        "image.group": "ImageGroup",
        "os.group": "ClockSet Farewell OsGroup",
        "os.messages": "DeviceTime Info MemoryPool MemoryPools Task Tasks",
        "settings.group": "SettingsGroup Written",
        "settings.messages": "Setting",
        "shell.group": "ShellGroup",
        "shell.messages": "ShellOutput",
        "stat.group": "StatGroup",
        "stat.messages": "Counters StatisticsList",
        "zephyr.group": "ZephyrGroup",
    }.items()
    for name in names.split()
}

__all__ = [
    "ClockSet",
    "Counters",
    "DeviceTime",
    "EnumGroup",
    "Farewell",
    "FileHash",
    "FileTransfer",
    "FsGroup",
    "GroupAt",
    "GroupCount",
    "GroupDetails",
    "GroupDetailsList",
    "GroupList",
    "HashType",
    "ImageGroup",
    "Info",
    "MemoryPool",
    "MemoryPools",
    "OsGroup",
    "Setting",
    "SettingsGroup",
    "ShellGroup",
    "ShellOutput",
    "Sink",
    "StatGroup",
    "StatisticsList",
    "Task",
    "Tasks",
    "Written",
    "ZephyrGroup",
]


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
