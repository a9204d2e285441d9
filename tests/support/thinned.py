"""Long tables of cases: all of them where all is checked (`MCUMGRX_CI`), a part of them in every other run.

The parts of neighbouring tables differ, so that together they still touch each place.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from typing import TypeVar

__all__ = ["thinned"]

T = TypeVar("T")


def thinned(cases: Iterable[T], *key: object, part: int = 3) -> list[T]:
    """Each `part`-th of `cases`, beginning at one that depends on `key`; always the same for the same key."""
    found = list(cases)
    if os.environ.get("MCUMGRX_CI", "") not in ("", "0"):
        return found
    return found[zlib.crc32(repr(key).encode()) % part :: part]
