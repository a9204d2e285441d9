"""Command group 9: command lines for the shell of the device."""

from __future__ import annotations

from mcumgrx.plugin_api import CommandPlugin, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.shell.commands:"


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [GroupPlugin(9, "shell", "Shell", load="mcumgrx_plugins.shell.group:ShellGroup")]


@hookimpl
def mcumgrx_commands() -> list[CommandPlugin]:
    return [
        CommandPlugin("shell run", "Run a command in the device's shell", load=_LOAD + "run"),
        CommandPlugin("shell open", "Type commands for the device's shell", load=_LOAD + "open_shell"),
    ]
