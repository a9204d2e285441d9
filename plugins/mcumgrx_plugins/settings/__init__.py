"""Command group 3: settings of Zephyr, named values of the application; reads those of Apache Mynewt too."""

from __future__ import annotations

from mcumgrx.plugin_api import CliCommand, GroupPlugin, hookimpl

_LOAD = "mcumgrx_plugins.settings.commands:"

SETTINGS = GroupPlugin(
    3,
    "settings",
    "Settings",
    load="mcumgrx_plugins.settings.group:SettingsGroup",
    errors="mcumgrx_plugins.settings.messages:SettingsErrorCode",
    fills="SettingsGroup",
)


@hookimpl
def mcumgrx_groups() -> list[GroupPlugin]:
    return [SETTINGS]


@hookimpl
def mcumgrx_commands() -> list[CliCommand]:
    return [
        CliCommand("settings get", "Show the value of a setting", load=_LOAD + "get"),
        CliCommand("settings set", "Give a setting another value, for the time being", load=_LOAD + "set_value"),
        CliCommand("settings delete", "Take a setting out of the device's storage", load=_LOAD + "delete"),
        CliCommand("settings commit", "Let the application use what has been set", load=_LOAD + "commit"),
        CliCommand("settings load", "Read all settings from the device's storage", load=_LOAD + "load"),
        CliCommand("settings save", "Write settings to the device's storage", load=_LOAD + "save"),
    ]
