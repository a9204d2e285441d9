"""Command group 63: what only Zephyr has, erasing the storage partition."""

from __future__ import annotations

from mcumgrx.plugin_api import CommandPlugin, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.zephyr.commands:"


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [GroupPlugin(63, "zephyr", "Zephyr basic", load="mcumgrx_plugins.zephyr.group:ZephyrGroup")]


@hookimpl
def mcumgrx_commands() -> list[CommandPlugin]:
    return [
        CommandPlugin("zephyr erase-storage", "Erase settings, bonds and all else stored", load=_LOAD + "erase_storage")
    ]
