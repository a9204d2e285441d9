"""`StatGroup`: the commands of group 2 over a client."""

from __future__ import annotations

from mcumgrx.plugin_api import Group, Hint, Run, SmpError, UsageError, explaining

from .messages import Counters, ListStatistics, ReadStatistics, StatErrorCode, StatisticsList

_NOT_BUILT = "its firmware was built without CONFIG_MCUMGR_GRP_STAT (which needs CONFIG_STATS)"
_TOO_LARGE = (
    "a group of counters comes in one answer or not at all: only a larger CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE in the "
    "device's firmware helps"
)
_LIST_TOO_LARGE = "ask for a group by its name; CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE decides how long a list can be"
_LONG_NAME = (
    "the device does not read names of this length: CONFIG_MCUMGR_GRP_STAT_MAX_NAME_LEN (32) less one is the longest"
)
# What stands for "no such group" in SMP version 1: Zephyr before 3.5 had no better code than 1.
_NO_SUCH_GROUP = (SmpError.NO_ENTRY, SmpError.UNKNOWN)


class StatGroup(Group):
    """Group 2 of a connected device. Every method raises the errors of `Client.request`."""

    async def names(self) -> StatisticsList:
        """The groups of counters that there are."""
        with explaining((SmpError.NOT_SUPPORTED, _NOT_BUILT), (SmpError.MESSAGE_SIZE, _LIST_TOO_LARGE)):
            return await self.request(ListStatistics())

    async def read(self, name: str) -> Counters:
        """The counters of the group `name`. Raises `UsageError` for a name that none can have."""
        if not name:
            raise UsageError("statistics have a name", hint=Hint("see ", Run("stat list")))
        with explaining(
            (SmpError.NOT_SUPPORTED, _NOT_BUILT),
            (SmpError.MESSAGE_SIZE, _TOO_LARGE),
            (_NO_SUCH_GROUP, StatErrorCode.INVALID_GROUP.hint),
            (SmpError.INVALID, _LONG_NAME),
        ):
            return await self.request(ReadStatistics(name))
