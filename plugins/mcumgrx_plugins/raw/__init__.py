"""Any command of any group, in JSON: for groups that no plugin knows, and to look at what a device really says."""

from __future__ import annotations

from mcumgrx.plugin_api import CliCommand, hookimpl


@hookimpl
def mcumgrx_commands() -> list[CliCommand]:
    return [
        CliCommand("raw", "Send any command of any group, in JSON", load="mcumgrx_plugins.raw.commands:raw"),
    ]
