"""Command group 10: which command groups the device has."""

from __future__ import annotations

from mcumgrx.plugin_api import CommandPlugin, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.enum.commands:"


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [GroupPlugin(10, "enum", "Enumeration of groups", load="mcumgrx_plugins.enum.group:EnumGroup")]


@hookimpl
def mcumgrx_commands() -> list[CommandPlugin]:
    return [
        CommandPlugin("enum list", "List the command groups of the device", load=_LOAD + "list_groups"),
        CommandPlugin("enum count", "Say how many command groups the device has", load=_LOAD + "count"),
        CommandPlugin("enum show", "Show what the device tells of its command groups", load=_LOAD + "show"),
    ]
