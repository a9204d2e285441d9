"""Command group 0, of any device that speaks SMP: echo, reset, clock, threads, buffers, application and bootloader."""

from __future__ import annotations

from mcumgrx.plugin_api import CommandPlugin, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.os.commands:"


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [GroupPlugin(0, "os", "Operating system", load="mcumgrx_plugins.os.group:OsGroup", fills="OsGroup")]


@hookimpl
def mcumgrx_commands() -> list[CommandPlugin]:
    return [
        CommandPlugin("os echo", "Send a text and print what comes back", load=_LOAD + "echo"),
        CommandPlugin("os reset", "Restart the device", load=_LOAD + "reset"),
        CommandPlugin("os params", "Show the device's buffers for SMP", load=_LOAD + "params"),
        CommandPlugin("os info", "Show kernel, versions and board of the firmware", load=_LOAD + "info"),
        CommandPlugin("os bootloader", "Show which bootloader there is and how it updates", load=_LOAD + "bootloader"),
        CommandPlugin("os datetime", "Show or set the device's clock", load=_LOAD + "datetime"),
        CommandPlugin("os tasks", "Show the threads and their stacks", load=_LOAD + "tasks"),
        CommandPlugin("os pools", "Show the memory pools and how full they are", load=_LOAD + "pools"),
    ]
