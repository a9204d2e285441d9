"""Bluetooth LE: SMP over GATT, with bleak, on Linux, Windows and macOS."""

from __future__ import annotations

from mcumgrx.plugin_api import TransportPlugin, hookimpl


@hookimpl
def mcumgrx_transports() -> list[TransportPlugin]:
    return [
        TransportPlugin(
            "ble",
            "Bluetooth LE, by name or address",
            load="mcumgrx_plugins.ble.transport:BleTransport",
            example="ble:Widget",
            discover="mcumgrx_plugins.ble.discovery:discover",
            watch="mcumgrx_plugins.ble.discovery:watch",
        )
    ]
