"""`sim:`: a simulated device in this process, as a transport."""

from __future__ import annotations

from mcumgrx.plugin_api import CliCommand, TransportPlugin, hookimpl


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


@hookimpl
def mcumgrx_commands() -> list[CliCommand]:
    return [
        CliCommand(
            "sim serve",
            "Offer a simulated device to any client over UDP, TCP or a pseudo-terminal",
            load="mcumgrx_plugins.sim.commands:serve",
        )
    ]
