"""Command group 0, of any device that speaks SMP: echo, reset, clock, threads, buffers, application and bootloader."""

from __future__ import annotations

from mcumgrx.plugin_api import CliCommand, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.os.commands:"

OS = GroupPlugin(
    0,
    "os",
    "Operating system",
    load="mcumgrx_plugins.os.group:OsGroup",
    errors="mcumgrx.plugin_api:OsErrorCode",
    fills="OsGroup",
)


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [OS]


@hookimpl
def mcumgrx_commands() -> list[CliCommand]:
    return [
        CliCommand("os echo", "Send a text and print what comes back", load=_LOAD + "echo"),
        CliCommand("os reset", "Restart the device", load=_LOAD + "reset"),
        CliCommand("os params", "Show the device's buffers for SMP", load=_LOAD + "params"),
        CliCommand("os info", "Show kernel, versions and board of the firmware", load=_LOAD + "info"),
        CliCommand("os bootloader", "Show which bootloader there is and how it updates", load=_LOAD + "bootloader"),
        CliCommand("os datetime", "Show or set the device's clock", load=_LOAD + "datetime"),
        CliCommand("os tasks", "Show the threads and their stacks", load=_LOAD + "tasks"),
        CliCommand("os pools", "Show the memory pools and how full they are", load=_LOAD + "pools"),
    ]
