"""Messages of group 63, Zephyr basic (`basic_mgmt.c`; MCUboot's recovery can have the same)."""

from __future__ import annotations

from dataclasses import dataclass

from mcumgrx.plugin_api import ErrorCode, Op, SmpCommand

from . import ZEPHYR


class ZephyrErrorCode(ErrorCode):
    """Codes of group 63 (Zephyr `zephyr_basic.h`)."""

    UNKNOWN = 1, "unknown error"
    FLASH_OPEN_FAILED = 2, "the storage partition cannot be opened", "does the device have a storage_partition?"
    FLASH_CONFIG_QUERY_FAIL = 3, "the layout of the flash cannot be read"
    FLASH_ERASE_FAILED = 4, "erasing the flash failed", "what was stored may be gone in part: try again"


@dataclass(frozen=True, slots=True)
class EraseStorage(SmpCommand[None], group=ZEPHYR, number=0, op=Op.WRITE, what="erase of the storage", timeout_s=30.0):
    """Erase the partition `storage_partition`: settings, bonds, and whatever else the application keeps there.

    Never repeated: what the application has stored since would be lost. It blocks the device meanwhile.
    """
