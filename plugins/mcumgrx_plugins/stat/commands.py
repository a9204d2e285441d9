"""The commands `mcumgrx stat …`. Imports nothing heavy: help must stay quick."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mcumgrx.plugin_api import Argument, CliContext, DeviceError, Hint, Option, Run, UsageError, cli_command, value_text

if TYPE_CHECKING:
    from .messages import Counters

_DEVICE_REFUSED = 5
"""The exit code where some of the counters are missing, as for any refusal by the device."""


# -- list -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ListResult:
    """The names of the groups of counters."""

    names: tuple[str, ...]
    extra: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        extra = [f"{key}: {value_text(value)}" for key, value in self.extra.items()]
        return [*(self.names or ["the device keeps no statistics"]), *extra]


@cli_command(epilog="mcumgrx stat list -d serial:/dev/ttyACM0")
async def list_groups(context: CliContext) -> ListResult:
    """List the groups of counters that the device keeps."""
    from .group import StatGroup

    async with context.connect() as client:
        found = await client.group(StatGroup).names()
    return ListResult(found.names, found.extra)


# -- show -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal:
    """A group that the device did not give: why, and the code."""

    name: str
    message: str
    hint: str | None
    group: int | None
    rc: int


@dataclass(frozen=True, slots=True)
class ShowResult:
    """The counters that were asked for, and with `--all` those that the device refused."""

    groups: tuple[Counters, ...]
    refused: tuple[Refusal, ...] = ()

    @property
    def exit_code(self) -> int:
        return _DEVICE_REFUSED if self.refused else 0

    def lines(self) -> list[str]:
        lines: list[str] = []
        for group in self.groups:
            kind = f" ({group.group})" if group.group else ""
            lines += [f"{group.name}{kind}"]
            width = max((len(name) for name in group.counters), default=0)
            lines += [f"  {name:<{width}}  {value}" for name, value in group.counters.items()] or ["  no counters"]
            lines += [f"  {key}: {value_text(value)}" for key, value in group.extra.items()]
        for refusal in self.refused:
            lines += [refusal.name, f"  not shown: {refusal.message}"]
            lines += [Hint("  (", refusal.hint, ")")] if refusal.hint else []
        return lines or ["the device keeps no statistics"]


@cli_command(
    Argument("name", "the group of counters, as 'stat list' shows it", required=False),
    Option("--all", "Show all groups, one after the other.", type=bool, default=False),
    epilog="""
    mcumgrx stat show smp_svr_stats -d serial:/dev/ttyACM0
    mcumgrx stat show --all --json -d serial:/dev/ttyACM0
    """,
)
async def show(context: CliContext, name: str | None, all: bool) -> ShowResult:
    """Show the counters of the group NAME, or with --all those of every group.

    With --all a group that the device refuses, most often because it does not fit one answer, does not keep the
    others from being shown; the exit code is then 5.
    """
    from .group import StatGroup

    if (name is None) != all:
        raise UsageError(
            "give either the NAME of a group, or --all",
            hint=Hint("see ", Run("stat list"), " for the names in the device"),
        )
    async with context.connect() as client:
        group = client.group(StatGroup)
        if name is not None:
            return ShowResult((await group.read(name),))
        found: list[Counters] = []
        refused: list[Refusal] = []
        for one in (await group.names()).names:
            try:
                found.append(await group.read(one))
            except DeviceError as error:
                refused.append(Refusal(one, error.message, error.hint, error.group, error.rc))
    return ShowResult(tuple(found), tuple(refused))
