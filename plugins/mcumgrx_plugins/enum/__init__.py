"""Command group 10: which command groups the device has."""

from __future__ import annotations

from mcumgrx.plugin_api import CliCommand, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.enum.commands:"

ENUM = GroupPlugin(
    10,
    "enum",
    "Enumeration of groups",
    load="mcumgrx_plugins.enum.group:EnumGroup",
    errors="mcumgrx_plugins.enum.messages:EnumErrorCode",
)


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [ENUM]


@hookimpl
def mcumgrx_commands() -> list[CliCommand]:
    return [
        CliCommand("enum list", "List the command groups of the device", load=_LOAD + "list_groups"),
        CliCommand("enum count", "Say how many command groups the device has", load=_LOAD + "count"),
        CliCommand("enum show", "Show what the device tells of its command groups", load=_LOAD + "show"),
    ]
