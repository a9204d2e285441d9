"""Group 2 of the simulated device: groups of counters, whose values come from the configuration or the device itself.

Source: Zephyr `subsys/mgmt/mcumgr/grp/stat_mgmt/src/stat_mgmt.c`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar

from mcumgrx.errors import UsageError
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import GroupId, Op
from mcumgrx.sim.groups import Call, Device, GroupError, GroupServer, Refused

Counter = Callable[["Device", float], int]
"""The present value of a counter, from the device and the seconds since it started."""


class StatErrorCode(IntEnum):
    """Codes of group 2 (Zephyr `stat_mgmt.h`)."""

    UNKNOWN = 1
    INVALID_GROUP = 2
    INVALID_STAT_NAME = 3
    INVALID_STAT_SIZE = 4
    WALK_ABORTED = 5


@dataclass(frozen=True, slots=True)
class StatGroup:
    """One group of counters, in this order. A counter is a number, or a function that gives it.

    `counter_bytes` is the size of each counter in the device; values wrap there.
    """

    name: str
    fields: Mapping[str, int | Counter]
    counter_bytes: int = 4

    def __post_init__(self) -> None:
        if self.counter_bytes not in (2, 4, 8):
            raise UsageError(f"counters have 2, 4 or 8 bytes, not {self.counter_bytes}")


_GROUPS = (
    StatGroup("smp_svr_stats", {"ticks": lambda device, uptime_s: int(uptime_s)}),
    StatGroup(
        "smp",
        {"requests": lambda device, uptime_s: device.requests, "boots": lambda device, uptime_s: device.boots},
    ),
    StatGroup(
        "flash",
        {
            "writes": lambda device, uptime_s: device.flash.writes,
            "erases": lambda device, uptime_s: device.flash.erases,
        },
    ),
)


@dataclass(frozen=True, slots=True)
class StatConfig:
    """Which statistics there are.

    Attributes:
        groups: in the order in which they are listed.
        field_names: false on builds without `CONFIG_STATS_NAMES`: fields are called `s0`, `s1` and so on.
        name_max: bytes of the longest name that can be asked for, its terminator included.
    """

    groups: tuple[StatGroup, ...] = field(default=_GROUPS)
    field_names: bool = True
    name_max: int = 32


class StatServer(GroupServer):
    """The statistics group."""

    group: ClassVar[int] = GroupId.STATISTICS
    name = "stat mgmt"
    legacy_codes: ClassVar[Mapping[int, int]] = {
        StatErrorCode.INVALID_GROUP: SmpError.NO_ENTRY,
        StatErrorCode.INVALID_STAT_NAME: SmpError.NO_ENTRY,
        StatErrorCode.INVALID_STAT_SIZE: SmpError.INVALID,
    }

    def __init__(self, config: StatConfig | None = None) -> None:
        super().__init__({(Op.READ, 0): self.show, (Op.READ, 1): self.list_groups})
        self.config = config if config is not None else StatConfig()
        self._since: float | None = None

    def restarted(self) -> None:
        self._since = None

    def show(self, call: Call) -> dict[str, Any]:
        name: str = call.read(name="text").get("name", "")
        if not 1 <= len(name.encode("utf-8", "surrogateescape")) < self.config.name_max:
            raise Refused(SmpError.INVALID)
        found = next((group for group in self.config.groups if group.name == name.partition("\0")[0]), None)
        if found is None:
            raise GroupError(StatErrorCode.INVALID_STAT_NAME)  # not INVALID_GROUP, which no server was seen to send
        if self._since is None or call.now < self._since:
            self._since = call.now  # the first look since the start stands for the start
        uptime_s = call.now - self._since
        fields = {}
        for number, (field_name, counter) in enumerate(found.fields.items()):
            value = counter(call.device, uptime_s) if callable(counter) else counter
            fields[field_name if self.config.field_names else f"s{number}"] = value % (1 << 8 * found.counter_bytes)
        return {"name": name, "fields": fields}

    def list_groups(self, call: Call) -> dict[str, Any]:
        return {"stat_list": [group.name for group in self.config.groups]}
