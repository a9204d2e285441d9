"""Group 63 of the simulated device: erasing the storage partition.

Source: Zephyr `subsys/mgmt/mcumgr/grp/zephyr_basic/src/basic_mgmt.c`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Protocol, runtime_checkable

from mcumgrx.errors import UsageError
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import GroupId, Op
from mcumgrx.sim.groups import Call, GroupError, GroupServer


class ZephyrErrorCode(IntEnum):
    """Codes of group 63 (Zephyr `zephyr_basic.h`)."""

    UNKNOWN = 1
    FLASH_OPEN_FAILED = 2
    FLASH_CONFIG_QUERY_FAIL = 3
    FLASH_ERASE_FAILED = 4


@runtime_checkable
class StorageUser(Protocol):
    """A group of the device that keeps something in the storage partition."""

    def storage_erased(self) -> None:
        """It is gone."""


@dataclass(frozen=True, slots=True)
class ZephyrConfig:
    """The storage partition: its size and sectors in bytes, and the code that erasing it ends in, if it fails."""

    storage_size: int = 32 * 1024
    sector_size: int = 4096
    fault: ZephyrErrorCode | None = None

    def __post_init__(self) -> None:
        if self.storage_size < 0 or self.sector_size < 1:
            raise UsageError(f"no storage has {self.storage_size} bytes in sectors of {self.sector_size}")


class ZephyrServer(GroupServer):
    """The Zephyr basic group. Erasing takes as long as the device's flash needs for so many sectors."""

    group: ClassVar[int] = GroupId.ZEPHYR_BASIC
    name = "zephyr basic mgmt"
    # Two codes become 0, for which Zephyr sends an answer without a header: garbage, or silence.
    legacy_codes: ClassVar[Mapping[int, int]] = {
        ZephyrErrorCode.FLASH_OPEN_FAILED: SmpError.NO_ENTRY,
        ZephyrErrorCode.FLASH_CONFIG_QUERY_FAIL: SmpError.OK,
        ZephyrErrorCode.FLASH_ERASE_FAILED: SmpError.OK,
    }

    def __init__(self, config: ZephyrConfig | None = None) -> None:
        super().__init__({(Op.WRITE, 0): self.erase_storage})
        self.config = config if config is not None else ZephyrConfig()
        self.erases = 0
        """How often the storage has been erased."""

    def erase_storage(self, call: Call) -> dict[str, Any]:
        if self.config.fault is not None:
            raise GroupError(self.config.fault)
        timing = call.device.config.timing
        sectors = -(-self.config.storage_size // self.config.sector_size)
        call.device.flash.busy_s += sectors * (timing.operation_s + timing.erase_s_per_sector)
        for group in call.device.groups.values():
            if isinstance(group, StorageUser):
                group.storage_erased()
        self.erases += 1
        return {}
