"""Command group 2: statistics, named counters that the firmware keeps."""

from __future__ import annotations

from mcumgrx.plugin_api import CommandPlugin, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.stat.commands:"


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [GroupPlugin(2, "stat", "Statistics", load="mcumgrx_plugins.stat.group:StatGroup")]


@hookimpl
def mcumgrx_commands() -> list[CommandPlugin]:
    return [
        CommandPlugin("stat list", "List the groups of counters", load=_LOAD + "list_groups"),
        CommandPlugin("stat show", "Show the counters of a group, or of all", load=_LOAD + "show"),
    ]
