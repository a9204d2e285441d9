"""`EnumGroup`: the commands of group 10 over a client."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from mcumgrx.plugin_api import DeviceError, Group, Hint, Run, SmpError, UsageError, explaining

from .messages import (
    CountGroups,
    EnumErrorCode,
    GroupAt,
    GroupCount,
    GroupDetails,
    GroupDetailsList,
    GroupList,
    ListGroups,
    ReadGroupAt,
    ReadGroupDetails,
)

_LARGEST_GROUP = 0xFFFF
_NOT_BUILT = (
    "its firmware was built without CONFIG_MCUMGR_GRP_ENUM (Zephyr 4.0 or later); to find out, ask each group for "
    "something harmless, such as 'os params', 'image list', 'stat list' or 'raw GROUP 0': code 8 says that it is not "
    "there"
)
_NO_DETAILS = Hint(
    "its firmware was built without CONFIG_MCUMGR_GRP_ENUM_DETAILS, in which case ",
    Run("enum list"),
    " has at least the numbers, or without CONFIG_MCUMGR_GRP_ENUM",
)
# An answer that does not fit is 9 in this group of Zephyr (seen with buffers of 96 bytes), and 7 everywhere else.
_TOO_LARGE = (SmpError.MESSAGE_SIZE, SmpError.CORRUPT)
_TOO_MANY = (EnumErrorCode.TOO_MANY_GROUP_ENTRIES, EnumErrorCode.INSUFFICIENT_HEAP_FOR_ENTRIES)
_SMALL_BUFFER = "the answer does not fit CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE of its firmware"


class EnumGroup(Group):
    """Group 10 of a connected device. Every method raises the errors of `Client.request`."""

    async def count(self) -> GroupCount:
        """How many command groups there are."""
        with _explained():
            return await self.request(CountGroups())

    async def groups(self) -> GroupList:
        """The numbers of the command groups, asked one by one where a list of all does not fit an answer."""
        with _explained():
            try:
                return await self.request(ListGroups())
            except DeviceError as error:
                if not error.says(*_TOO_LARGE):
                    raise
            return GroupList(await self._one_by_one())

    async def at(self, index: int) -> GroupAt:
        """The group at `index`, counted from 0 in the device's order."""
        with _explained():
            return await self.request(ReadGroupAt(index))

    async def details(self, groups: Sequence[int] = ()) -> GroupDetailsList:
        """Names and sizes of these groups, as far as there are any; of all groups, when none is named.

        Where that is too much for one request or answer they are asked for one by one.
        """
        for number in groups:
            if not 0 <= number <= _LARGEST_GROUP:
                raise UsageError(f"{number} is no command group", hint=f"they have numbers from 0 to {_LARGEST_GROUP}")
        wanted = tuple(dict.fromkeys(groups))
        with _explained(_NO_DETAILS):
            try:
                return await self.request(ReadGroupDetails(wanted))
            except DeviceError as error:
                if not _too_much(error, len(wanted)):
                    raise
            found: list[GroupDetails] = []
            for number in wanted or (await self.groups()).groups:
                with explaining((_TOO_LARGE, _SMALL_BUFFER)):
                    found += (await self.request(ReadGroupDetails((number,)))).groups
            return GroupDetailsList(tuple(found))

    async def _one_by_one(self) -> tuple[int, ...]:
        found: list[int] = []
        end = False
        while not end and len(found) <= _LARGEST_GROUP:
            try:
                one = await self.request(ReadGroupAt(len(found)))
            except DeviceError as error:
                # Only a device that never said which one is the last.
                if found and error.says(SmpError.UNKNOWN, EnumErrorCode.INDEX_TOO_LARGE):
                    break
                raise
            found.append(one.group)
            end = one.end
        return tuple(found)


def _too_much(error: DeviceError, asked: int) -> bool:
    """Whether a request that named `asked` groups may have been refused because of their number."""
    # In SMP version 1, "too many" is the code for any bad value.
    return error.says(*_TOO_MANY, *_TOO_LARGE) or (error.says(SmpError.INVALID) and asked > 1)


def _explained(hint: str = _NOT_BUILT) -> AbstractContextManager[None]:
    """What raises "not supported" inside gets this hint."""
    return explaining((SmpError.NOT_SUPPORTED, hint))
