"""`sim:`: a simulated device in this process, as a transport."""

from __future__ import annotations

from mcumgrx.plugin_api import TransportPlugin, hookimpl


@hookimpl
def mcumgrx_transports() -> list[TransportPlugin]:
    return [
        TransportPlugin(
            "sim",
            "Simulated device in this process",
            load="mcumgrx_plugins.sim.transport:SimTransport",
            example="sim:desk,state=device.json",
        )
    ]
