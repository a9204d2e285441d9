"""Command group 63: what only Zephyr has, erasing the storage partition."""

from __future__ import annotations

from mcumgrx.plugin_api import CliCommand, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.zephyr.commands:"

ZEPHYR = GroupPlugin(
    63,
    "zephyr",
    "Zephyr basic",
    load="mcumgrx_plugins.zephyr.group:ZephyrGroup",
    errors="mcumgrx_plugins.zephyr.messages:ZephyrErrorCode",
)


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [ZEPHYR]


@hookimpl
def mcumgrx_commands() -> list[CliCommand]:
    return [
        CliCommand("zephyr erase-storage", "Erase settings, bonds and all else stored", load=_LOAD + "erase_storage")
    ]
