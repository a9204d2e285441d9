"""Serial ports: UARTs, USB CDC ACM and pseudo-terminals, with SMP in console framing."""

from __future__ import annotations

from mcumgrx.plugin_api import TransportPlugin, hookimpl


@hookimpl
def mcumgrx_transports() -> list[TransportPlugin]:
    return [
        TransportPlugin(
            "serial",
            "Serial port: UART or USB CDC ACM, with a console or shell beside SMP or without",
            load="mcumgrx_plugins.uart.transport:SerialTransport",
            aliases=("uart",),
            example="serial:/dev/ttyACM0,baud=115200",
        )
    ]
