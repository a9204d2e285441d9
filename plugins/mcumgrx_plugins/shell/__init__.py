"""Command group 9: command lines for the shell of the device."""

from __future__ import annotations

from mcumgrx.plugin_api import CliCommand, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.shell.commands:"

SHELL = GroupPlugin(
    9,
    "shell",
    "Shell",
    load="mcumgrx_plugins.shell.group:ShellGroup",
    errors="mcumgrx_plugins.shell.messages:ShellErrorCode",
)


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [SHELL]


@hookimpl
def mcumgrx_commands() -> list[CliCommand]:
    return [
        CliCommand("shell run", "Run a command in the device's shell", load=_LOAD + "run"),
        CliCommand("shell open", "Type commands for the device's shell", load=_LOAD + "open_shell"),
    ]
