"""Group 10 of the simulated device: which groups it has, worked out from those that are registered.

Source: Zephyr `subsys/mgmt/mcumgr/grp/enum_mgmt/src/enum_mgmt.c`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar

from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import GroupId, Op
from mcumgrx.sim.groups import Call, GroupError, GroupServer, Handler, Refused

LINK_ORDER = (10, 8, 1, 0, 3, 9, 2, 63)
"""The order in which Zephyr's own groups are registered: that of their names at link time."""
MAX_INDEX = 65535


class EnumErrorCode(IntEnum):
    """Codes of group 10 (Zephyr `enum_mgmt.h`)."""

    UNKNOWN = 1
    TOO_MANY_GROUP_ENTRIES = 2
    INSUFFICIENT_HEAP_FOR_ENTRIES = 3
    INDEX_TOO_LARGE = 4


@dataclass(frozen=True, slots=True)
class EnumConfig:
    """How the group was built.

    Attributes:
        groups: exactly these, in this order, as far as the device has them; None for all in the order in which Zephyr
            links its own, then the others as they were added.
        handlers: sizes of handler tables that differ from what the registered commands tell (the last id and one).
        details: answers the query for details, with names and handler counts.
        entries_max: groups that one request for details may name.
    """

    groups: tuple[int, ...] | None = None
    handlers: Mapping[int, int] = field(default_factory=dict)
    details: bool = True
    entries_max: int = 16


class EnumServer(GroupServer):
    """The enumeration group."""

    group: ClassVar[int] = GroupId.ENUMERATION
    name = "enum mgmt"
    legacy_codes: ClassVar[Mapping[int, int]] = {EnumErrorCode.TOO_MANY_GROUP_ENTRIES: SmpError.INVALID}

    def __init__(self, config: EnumConfig | None = None) -> None:
        self.config = config if config is not None else EnumConfig()
        handlers: dict[tuple[Op, int], Handler] = {
            (Op.READ, 0): self.count,
            (Op.READ, 1): self.list_groups,
            (Op.READ, 2): self.single,
        }
        if self.config.details:
            handlers[Op.READ, 3] = self.show
        super().__init__(handlers)

    def _groups(self, call: Call) -> list[GroupServer]:
        there = call.device.served
        order = self.config.groups
        if order is None:
            order = (*LINK_ORDER, *(number for number in there if number not in LINK_ORDER))
        return [there[number] for number in order if number in there]

    def count(self, call: Call) -> dict[str, Any]:
        return {"count": len(self._groups(call))}

    def list_groups(self, call: Call) -> dict[str, Any]:
        return {"groups": [server.group for server in self._groups(call)]}

    def single(self, call: Call) -> dict[str, Any]:
        index: int = call.read(index="uint").get("index", 0)
        if index > MAX_INDEX:
            raise Refused(SmpError.INVALID)
        groups = self._groups(call)
        if index >= len(groups):
            raise GroupError(EnumErrorCode.INDEX_TOO_LARGE)
        answer: dict[str, Any] = {"group": groups[index].group}
        if index == len(groups) - 1:
            answer["end"] = True
        return answer

    def show(self, call: Call) -> dict[str, Any]:
        wanted = call.read(groups="any").get("groups", [])
        if not isinstance(wanted, list):
            wanted = []  # as if nothing was said: seen of text, and the decoder treats all other types alike
        if len(wanted) > self.config.entries_max:
            raise GroupError(EnumErrorCode.TOO_MANY_GROUP_ENTRIES)
        if not all(type(number) is int and 0 <= number < 1 << 32 for number in wanted):
            raise Refused(SmpError.INVALID)
        chosen = {number & 0xFFFF for number in wanted}
        shown = [server for server in self._groups(call) if not wanted or server.group in chosen]
        return {"groups": [self._details(server) for server in shown]}

    def _details(self, server: GroupServer) -> dict[str, Any]:
        counted = 1 + max((command for _, command in server.handlers), default=-1)
        return {
            "group": server.group,
            "name": server.name,
            "handlers": self.config.handlers.get(server.group, counted),
        }
