"""Serial ports, USB devices by their numbers, and TCP sockets that lead to a UART: SMP in console or raw framing."""

from __future__ import annotations

from mcumgrx.plugin_api import TransportPlugin, hookimpl


@hookimpl
def mcumgrx_transports() -> list[TransportPlugin]:
    return [
        TransportPlugin(
            "serial",
            "Serial port: UART or USB CDC ACM, with a console or shell beside SMP or without",
            load="mcumgrx_plugins.uart.serial_port:SerialTransport",
            aliases=("uart",),
            example="serial:/dev/ttyACM0,baud=115200",
            discover="mcumgrx_plugins.uart.ports:discover",
            watch="mcumgrx_plugins.uart.ports:watch",
        ),
        TransportPlugin(
            "usb",
            "Serial port of a USB device, found by its vendor and product id",
            load="mcumgrx_plugins.uart.usb:UsbTransport",
            example="usb:2fe3:0004",
        ),
        TransportPlugin(
            "tcp",
            "TCP socket to a UART: terminal server or emulator",
            load="mcumgrx_plugins.uart.tcp:TcpTransport",
            example="tcp:192.0.2.7:4001",
        ),
    ]
