"""Messages of group 10, enumeration (Zephyr 4.0 and later, `enum_mgmt.c`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from mcumgrx.plugin_api import Body, ErrorCode, Fields, SmpCommand

from . import ENUM


class EnumErrorCode(ErrorCode):
    """Codes of group 10 (Zephyr `enum_mgmt.h`)."""

    UNKNOWN = 1, "unknown error"
    TOO_MANY_GROUP_ENTRIES = 2, "too many groups in one request", "ask for fewer at once"
    INSUFFICIENT_HEAP_FOR_ENTRIES = 3, "the device has no memory for so many groups", "ask for fewer at once"
    INDEX_TOO_LARGE = 4, "there are not so many groups"


@dataclass(frozen=True, slots=True)
class GroupCount:
    """How many command groups there are."""

    count: int
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CountGroups(SmpCommand[GroupCount], group=ENUM, number=0, what="count of command groups", repeatable=True):
    """The number of command groups."""

    def parse(self, fields: Fields) -> GroupCount:
        return GroupCount(fields.integer("count"), fields.extra())


@dataclass(frozen=True, slots=True)
class GroupList:
    """The numbers of the command groups, in the order in which the firmware registers them."""

    groups: tuple[int, ...]
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListGroups(SmpCommand[GroupList], group=ENUM, number=1, what="list of command groups", repeatable=True):
    """The numbers of all command groups."""

    def parse(self, fields: Fields) -> GroupList:
        listed = fields.entries("groups")
        extra = fields.extra()
        groups = tuple(one for one in listed if isinstance(one, int) and not isinstance(one, bool))
        if len(groups) < len(listed):
            extra["groups"] = [one for one in listed if isinstance(one, bool) or not isinstance(one, int)]
        return GroupList(groups, extra)


@dataclass(frozen=True, slots=True)
class GroupAt:
    """The number of one group, and whether it is the last."""

    group: int
    end: bool = False
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadGroupAt(SmpCommand[GroupAt], group=ENUM, number=2, what="query for a command group", repeatable=True):
    """The command group at an index; `INDEX_TOO_LARGE` is the answer behind the last one."""

    index: int = 0

    def parse(self, fields: Fields) -> GroupAt:
        return GroupAt(fields.integer("group"), fields.lenient.flag("end"), fields.extra())


@dataclass(frozen=True, slots=True)
class GroupDetails:
    """What the device tells of one group.

    `name` is the server's own (`os mgmt`). `handlers` is the length of its table of commands: the highest command id
    and one, gaps included. Builds may lack either. `extra` has what its application adds. `group` is None where the
    device tells no number.
    """

    group: int | None
    name: str | None = None
    handlers: int | None = None
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GroupDetailsList:
    """The groups that there are of those asked for, in the device's order."""

    groups: tuple[GroupDetails, ...]
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadGroupDetails(
    SmpCommand[GroupDetailsList],
    group=ENUM,
    number=3,
    what="query for details of command groups",
    repeatable=True,
):
    """Details of `groups`, or of all when there is none. Groups that the device lacks are left out of the answer."""

    groups: tuple[int, ...] = ()

    def body(self) -> Body:
        return {"groups": list(self.groups)} if self.groups else {}

    def parse(self, fields: Fields) -> GroupDetailsList:
        odd = [item for item in fields.entries("groups") if not isinstance(item, dict)]
        groups = tuple(
            GroupDetails(
                group=item.optional_integer("group"),
                name=item.text("name", "") or None,
                handlers=item.optional_integer("handlers"),
                extra=item.extra(),
            )
            for item in fields.maps("groups")
        )
        return GroupDetailsList(groups, {**fields.extra(), "groups": odd} if odd else fields.extra())
