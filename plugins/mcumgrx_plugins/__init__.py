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
    from .enum.group import EnumGroup as EnumGroup
    from .enum.messages import GroupAt as GroupAt
    from .enum.messages import GroupCount as GroupCount
    from .enum.messages import GroupDetails as GroupDetails
    from .enum.messages import GroupDetailsList as GroupDetailsList
    from .enum.messages import GroupList as GroupList
    from .fs.group import FileTransfer as FileTransfer
    from .fs.group import FsGroup as FsGroup
    from .fs.messages import FileHash as FileHash
    from .fs.messages import HashType as HashType
    from .fs.target import Sink as Sink
    from .image.group import ImageGroup as ImageGroup
    from .os.group import ClockSet as ClockSet
    from .os.group import Farewell as Farewell
    from .os.group import OsGroup as OsGroup
    from .os.messages import DeviceTime as DeviceTime
    from .os.messages import Info as Info
    from .os.messages import MemoryPool as MemoryPool
    from .os.messages import MemoryPools as MemoryPools
    from .os.messages import Task as Task
    from .os.messages import Tasks as Tasks
    from .settings.group import SettingsGroup as SettingsGroup
    from .settings.group import Written as Written
    from .settings.messages import Setting as Setting
    from .shell.group import ShellGroup as ShellGroup
    from .shell.messages import ShellOutput as ShellOutput
    from .stat.group import StatGroup as StatGroup
    from .stat.messages import Counters as Counters
    from .stat.messages import StatisticsList as StatisticsList
    from .zephyr.group import ZephyrGroup as ZephyrGroup

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

if not TYPE_CHECKING:  # for which each `X as X` above says that it is public
    __all__ = sorted(_LATE)


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_LATE[name]}"), name)
