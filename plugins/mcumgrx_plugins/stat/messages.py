"""Messages of group 2, statistics (Zephyr `stat_mgmt.c`, Mynewt `stat`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from mcumgrx.plugin_api import Body, ErrorCode, Fields, Hint, Run, SmpCommand

from . import STAT

_SEE_LIST = Hint("see ", Run("stat list"), " for the names in the device")


class StatErrorCode(ErrorCode):
    """Codes of group 2 (Zephyr `stat_mgmt.h`)."""

    UNKNOWN = 1, "unknown error"
    INVALID_GROUP = 2, "there are no statistics of this name", _SEE_LIST
    # What Zephyr sends for a group that it does not have, whatever the name of the code says.
    INVALID_STAT_NAME = 3, "there are no such statistics", _SEE_LIST
    INVALID_STAT_SIZE = 4, "a counter has a size that the server does not know"
    WALK_ABORTED = 5, "going through the counters was broken off"


@dataclass(frozen=True, slots=True)
class StatisticsList:
    """The names of the groups of counters, in the device's order."""

    names: tuple[str, ...]
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListStatistics(SmpCommand[StatisticsList], group=STAT, number=1, what="statistics list", repeatable=True):
    """Which groups of counters there are."""

    def parse(self, fields: Fields) -> StatisticsList:
        listed = fields.entries("stat_list")
        body = fields.extra()
        if odd := [name for name in listed if not isinstance(name, str)]:
            body["stat_list"] = odd
        return StatisticsList(tuple(name for name in listed if isinstance(name, str)), body)


@dataclass(frozen=True, slots=True)
class Counters:
    """One group of counters and their values, in the device's order. What is no whole number is in `extra`.

    Builds without `CONFIG_STATS_NAMES` call the counters `s0`, `s1` and so on. Values count up and wrap at the
    counter's size; old servers send the low 32 bits of a 64-bit counter. `group` is a word that only Mynewt adds.
    """

    name: str
    counters: dict[str, int]
    group: str | None = None
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadStatistics(SmpCommand[Counters], group=STAT, number=0, what="statistics query", repeatable=True):
    """The counters of one group. There is no way to ask for some of them: they fit one answer, or are refused."""

    name: str

    def parse(self, fields: Fields) -> Counters:
        values = fields.map("fields")
        name, kind = fields.lenient.text("name", self.name), fields.lenient.text("group", "") or None
        extra = fields.extra()
        counters = {key: value for key, value in values.items() if type(value) is int}
        if odd := {key: value for key, value in values.items() if key not in counters}:
            extra["fields"] = odd
        return Counters(name, counters, kind, extra)
