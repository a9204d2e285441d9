"""UDP: one datagram is one message. Small enough to be copied out as the start of a transport of your own."""

from __future__ import annotations

from mcumgrx.plugin_api import TransportPlugin, hookimpl


@hookimpl
def mcumgrx_transports() -> list[TransportPlugin]:
    return [
        TransportPlugin(
            "udp",
            "UDP over IPv4 or IPv6, port 1337",
            load="mcumgrx_plugins.udp.transport:UdpTransport",
            example="udp:192.0.2.7",
        )
    ]
