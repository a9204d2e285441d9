"""`mcumgrx sim serve`: offers a simulated device to other programs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mcumgrx.plugin_api import Address, Argument, CliContext, McumgrError, Note, Option, UsageError, cli_command

if TYPE_CHECKING:
    from mcumgrx.sim.device import SimulatedDevice

_DEFAULT_DEVICE = "sim:desk"
_LOOPBACK = ("127.", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Listening(Note):
    """The device is offered now; `address` is what `-d` takes."""

    address: str = ""


@dataclass(frozen=True, slots=True)
class Served:
    """What the device did meanwhile.

    Attributes:
        resets: how often it started again.
        version: of the image that ran last.
        lost: requests, and lines of console framing, that found no buffer: the client sent more than the device takes.
    """

    requests: int
    resets: int
    version: str | None
    lost: int

    def lines(self) -> list[str]:
        resets = f"restarted {self.resets} time{'' if self.resets == 1 else 's'}"
        lost = f", lost {self.lost} that found no buffer" if self.lost else ""
        return [f"carried out {self.requests} requests{lost}, {resets}; version {self.version or 'unknown'} ran last"]


@cli_command(
    Argument("device", f"the simulated device, as sim:NAME,key=value…; default: {_DEFAULT_DEVICE}", required=False),
    Option("--udp", "Serve on this UDP port, a datagram a message; 0 for one that is free.", type=int, metavar="PORT"),
    Option("--tcp", "Serve on this TCP port, with console framing; 0 for one that is free.", type=int, metavar="PORT"),
    Option("--pty", "Serve on a pseudo-terminal (not on Windows).", type=bool, default=False),
    Option(
        "--host",
        "Address to listen on. There is no authentication: whoever reaches it can do everything.",
        default="127.0.0.1",
        metavar="ADDRESS",
    ),
    Option(
        "--baud",
        "Speed of TCP and the pseudo-terminal, 0 for no limit; default: 115200, no limit with --instant.",
        type=int,
        metavar="N",
    ),
    Option("--instant", "Let flash and requests take no time, and lose no lines of a burst.", type=bool, default=False),
    Option("--link", "Make this symbolic link to the pseudo-terminal.", type=Path, metavar="FILE"),
    needs_device=False,
    epilog="""
Examples:
  mcumgrx sim serve --udp 1337                         a device for udp:127.0.0.1
  mcumgrx sim serve --pty --link /tmp/desk             a serial port for any program
  mcumgrx sim serve sim:,board=nrf5340 --udp 1337      its two cores have an image each
  mcumgrx sim serve sim:desk,state=desk.json,latency=0.01 --udp 0 --tcp 4001 --json
""",
)
async def serve(
    context: CliContext,
    device: str | None,
    udp: int | None,
    tcp: int | None,
    pty: bool,
    host: str,
    baud: int | None,
    instant: bool,
    link: Path | None,
) -> Served:
    """Offer a simulated device with all its command groups to any client, until Ctrl-C.

    It behaves as a device on that link does: flash takes its time, buffers
    are few, and what comes during a reset is lost. Several links can be
    offered at once; they lead to the same device.
    """
    from .serve import DeviceServer

    for port in (udp, tcp):
        if port is not None and not 0 <= port <= 0xFFFF:
            raise UsageError(f"{port} is not a port", hint="a port is a number from 1 to 65535, or 0 for a free one")
    if udp is None and tcp is None and not pty:
        raise UsageError("nothing to serve on is given", hint="add --udp PORT, --tcp PORT or --pty")
    if link is not None and not pty:
        raise UsageError("--link is for a pseudo-terminal", hint="add --pty")

    server = DeviceServer(_address(context, device), baud=baud, instant=instant)
    starts = 0
    try:
        async with server:
            starts = server.device.boots
            offered: list[Address] = []
            if udp is not None:
                offered.append(await server.udp(host, udp))
            if tcp is not None:
                offered.append(await server.tcp(host, tcp))
            if pty:
                offered.append(server.pty(link))
            if not host.startswith(_LOOPBACK) and (udp is not None or tcp is not None):
                text = f"whoever can reach {host} can read and change the simulated device"
                context.progress(Note(text, warning=True))
            for address in offered:
                context.progress(Listening(f"the simulated device is at {address}", address=str(address)))
            _tell_power(context, server.device)
            await server.run()
    except asyncio.CancelledError:
        pass  # Ctrl-C is the way to end this, and no failure
    ran = server.device.boot_result
    version = str(ran.version) if ran is not None and ran.version is not None else None
    return Served(server.device.requests, server.device.boots - starts, version, server.lost)


def _address(context: CliContext, text: str | None) -> Address:
    if text is not None:
        return Address.parse(text)
    try:
        named = Address.parse(context.device.address)
    except McumgrError:
        named = None
    # -d may be set in the environment, for a real device.
    return named if named is not None and named.scheme == "sim" else Address.parse(_DEFAULT_DEVICE)


def _tell_power(context: CliContext, device: SimulatedDevice) -> None:
    from mcumgrx.sim.device import Power

    def tell(power: Power) -> None:
        result = device.boot_result
        version = result.version if result is not None else None
        text = {
            Power.BOOTING: "the device restarts",
            Power.RUNNING: f"the device runs version {version}",
            Power.RECOVERY: "the device is in its bootloader's recovery",
            Power.HUNG: f"the application of version {version} has crashed",
            Power.DEAD: "the bootloader found no image to run",
        }.get(power)
        if text is not None:
            context.progress(Note(text))

    device.listeners.append(tell)
    if device.power is not Power.RUNNING:
        tell(device.power)
