"""Command group 2: statistics, named counters that the firmware keeps."""

from __future__ import annotations

from mcumgrx.plugin_api import CliCommand, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.stat.commands:"

STAT = GroupPlugin(
    2,
    "stat",
    "Statistics",
    load="mcumgrx_plugins.stat.group:StatGroup",
    errors="mcumgrx_plugins.stat.messages:StatErrorCode",
)


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [STAT]


@hookimpl
def mcumgrx_commands() -> list[CliCommand]:
    return [
        CliCommand("stat list", "List the groups of counters", load=_LOAD + "list_groups"),
        CliCommand("stat show", "Show the counters of a group, or of all", load=_LOAD + "show"),
    ]
