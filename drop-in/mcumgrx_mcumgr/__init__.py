"""The command `mcumgr` with the arguments and the text of Apache's, and `MCUmgr`, the helper of Zephyr's test harness.

A distribution of its own, because its program has the name of another one: who installs mcumgrx keeps the `mcumgr`
that is there. The names are resolved on first use, because the program needs none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .twister import MCUmgr, MCUmgrException, MCUmgrImage

__all__ = ["MCUmgr", "MCUmgrException", "MCUmgrImage"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import twister

    return getattr(twister, name)
