"""The plugins that come with mcumgrx, one package each, and the groups of theirs for scripts.

Each has the shape of a third party's: an entry point in the group `mcumgrx`, hooks that only describe, and imports of
nothing but `mcumgrx.plugin_api` (`mcumgrx.sim` and `mcumgrx.testing` where simulation is the subject). Any of them can
be copied out as the start of a distribution of its own. They do not import each other.

The groups are public here, and nowhere else: `from mcumgrx_plugins import FsGroup`, `client.group(FsGroup)`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .enum.group import EnumGroup
    from .fs.group import FsGroup
    from .image.group import ImageGroup
    from .os.group import OsGroup
    from .settings.group import SettingsGroup
    from .shell.group import ShellGroup
    from .stat.group import StatGroup
    from .zephyr.group import ZephyrGroup

__all__ = [
    "EnumGroup",
    "FsGroup",
    "ImageGroup",
    "OsGroup",
    "SettingsGroup",
    "ShellGroup",
    "StatGroup",
    "ZephyrGroup",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{name.removesuffix('Group').lower()}.group"), name)
