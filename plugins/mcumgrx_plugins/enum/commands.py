"""The commands `mcumgrx enum …`. Imports nothing heavy: help must stay quick."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mcumgrx.plugin_api import Argument, CliContext, DeviceError, aligned, cli_command, value_text

if TYPE_CHECKING:
    from .messages import GroupDetails

_WHAT = {
    0: "operating system",
    1: "images",
    2: "statistics",
    3: "settings",
    4: "log (Mynewt)",
    5: "crash (Mynewt)",
    6: "split image (Mynewt)",
    7: "run tests (Mynewt)",
    8: "file system",
    9: "shell",
    10: "enumeration",
    11: "transport",
    63: "Zephyr basic",
}
_FIRST_OF_APPLICATIONS = 64


def _words(context: CliContext, groups: Iterable[int | None]) -> dict[int, str]:
    """What each of these groups is, as plugins know it or SMP itself."""
    known = {number: f"{one.name}: {one.summary}" for number, one in context.groups.items()} | _WHAT
    unknown = "not known to mcumgrx"
    return {
        one: known.get(one, "of the application" if one >= _FIRST_OF_APPLICATIONS else unknown)
        for one in groups
        if one is not None
    }


# -- list and count ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListResult:
    """The numbers of the command groups, in the device's order, and what each is."""

    groups: tuple[int, ...]
    extra: dict[str, object] = field(default_factory=dict)
    what: dict[int, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        rows = [(str(group), self.what.get(group, "")) for group in self.groups]
        extra = [f"{key}: {value_text(value)}" for key, value in self.extra.items()]
        return [*(aligned(rows) or ["the device lists no command group"]), *extra]


@cli_command(epilog="mcumgrx enum list -d serial:/dev/ttyACM0")
async def list_groups(context: CliContext) -> ListResult:
    """List the command groups of the device (Zephyr 4.0 or later), in the order of its firmware."""
    from .group import EnumGroup

    async with context.connect() as client:
        found = await client.group(EnumGroup).groups()
    return ListResult(found.groups, found.extra, _words(context, found.groups))


@dataclass(frozen=True, slots=True)
class CountResult:
    """The number of command groups."""

    count: int
    extra: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        return [str(self.count), *(f"{key}: {value_text(value)}" for key, value in self.extra.items())]


@cli_command(epilog="mcumgrx enum count -d serial:/dev/ttyACM0")
async def count(context: CliContext) -> CountResult:
    """Say how many command groups the device has (Zephyr 4.0 or later)."""
    from .group import EnumGroup

    async with context.connect() as client:
        found = await client.group(EnumGroup).count()
    return CountResult(found.count, found.extra)


# -- show -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ShowResult:
    """What the device tells of its groups. `absent` are those that were asked for and are not there.

    Without `details` the device has told the numbers and no more.
    """

    groups: tuple[GroupDetails, ...]
    absent: tuple[int, ...]
    details: bool
    extra: dict[str, object] = field(default_factory=dict)
    what: dict[int, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        names = list(dict.fromkeys(key for one in self.groups for key in one.extra))
        rows = [("group", "", "name", "handlers", *names)]
        for one in self.groups:
            rows.append(
                (
                    "?" if one.group is None else str(one.group),
                    "" if one.group is None else self.what.get(one.group, ""),
                    one.name or "",
                    "" if one.handlers is None else str(one.handlers),
                    *(value_text(one.extra[name]) if name in one.extra else "" for name in names),
                )
            )
        lines = aligned(rows) if self.groups else []
        lines += [f"{group}: the device has no such group" for group in self.absent]
        if not self.details:
            lines.append("(its firmware tells no more: it was built without CONFIG_MCUMGR_GRP_ENUM_DETAILS)")
        lines += [f"{key}: {value_text(value)}" for key, value in self.extra.items()]
        return lines or ["the device lists no command group"]


@cli_command(
    Argument("groups", "numbers of groups; all when there is none", type=int, required=False, many=True),
    epilog="""
    mcumgrx enum show -d serial:/dev/ttyACM0
    mcumgrx enum show 0 1 64 -d serial:/dev/ttyACM0
    """,
)
async def show(context: CliContext, groups: Sequence[int]) -> ShowResult:
    """Show what the device tells of its command groups: names, and how many handlers of commands each has.

    The number of handlers is the highest command id and one, gaps included. A device that tells no details is asked
    for the list.
    """
    from mcumgrx.plugin_api import SmpError

    from .group import EnumGroup
    from .messages import GroupDetails

    asked = tuple(dict.fromkeys(groups))
    async with context.connect() as client:
        group = client.group(EnumGroup)
        try:
            found = await group.details(asked)
        except DeviceError as error:
            if not error.says(SmpError.NOT_SUPPORTED):
                raise
            known = await group.groups()
            listed = tuple(GroupDetails(one) for one in known.groups if not asked or one in asked)
            told, extra = False, known.extra
        else:
            listed, told, extra = found.groups, True, found.extra
    there = {one.group for one in listed}
    what = _words(context, [one.group for one in listed])
    return ShowResult(listed, tuple(one for one in asked if one not in there), told, extra, what)
