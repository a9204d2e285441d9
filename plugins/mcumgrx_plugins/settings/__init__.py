"""Command group 3: settings of Zephyr, named values of the application; reads those of Apache Mynewt too."""

from __future__ import annotations

from mcumgrx.plugin_api import CommandPlugin, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.settings.commands:"


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [GroupPlugin(3, "settings", "Settings", load="mcumgrx_plugins.settings.group:SettingsGroup")]


@hookimpl
def mcumgrx_commands() -> list[CommandPlugin]:
    return [
        CommandPlugin("settings get", "Show the value of a setting", load=_LOAD + "get"),
        CommandPlugin("settings set", "Give a setting another value, for the time being", load=_LOAD + "set_value"),
        CommandPlugin("settings delete", "Take a setting out of the device's storage", load=_LOAD + "delete"),
        CommandPlugin("settings commit", "Let the application use what has been set", load=_LOAD + "commit"),
        CommandPlugin("settings load", "Read all settings from the device's storage", load=_LOAD + "load"),
        CommandPlugin("settings save", "Write settings to the device's storage", load=_LOAD + "save"),
    ]
