"""The serial ports of this computer: what the operating system tells of them, and the discovery built on it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from mcumgrx.plugin_api import Address, Discovered, ReportDiscovered, in_thread

# Linux and Windows end the place of a composite device's port with its interface: 1-1.2:1.0, 1-1.2:x.0.
_INTERFACE = re.compile(r":(?:\d+|x)\.(\d+)\Z")


@dataclass(frozen=True, slots=True)
class Port:
    """A serial port. What is not known, or is of USB and this is no USB port, is None or empty.

    Attributes:
        path: its name for opening.
        interface: number of the USB interface, which tells the ports of one device apart.
    """

    path: str
    description: str = ""
    manufacturer: str = ""
    vendor: int | None = None
    product: int | None = None
    serial_number: str = ""
    interface: int | None = None

    @property
    def usb_id(self) -> str | None:
        """Vendor and product as in an address, `2fe3:0004`."""
        return None if self.vendor is None or self.product is None else f"{self.vendor:04x}:{self.product:04x}"


Lister = Callable[[], list[Port]]


def list_ports() -> list[Port]:
    """The ports of this computer by name. Takes some milliseconds, so not for the event loop."""
    from serial.tools import list_ports  # late: few openings need it

    # pyserial fails in several ways on a device that goes away while it is looked at; the next look does not see it.
    found = None
    for _ in range(3):
        with suppress(OSError, TypeError, ValueError, AttributeError):
            found = sorted(list_ports.comports())
            break
    ports: list[Port] = []
    for info in found or ():
        interface = _INTERFACE.search(info.location or "")
        ports.append(
            Port(
                path=info.device,
                description="" if info.description in (None, "n/a") else info.description,
                manufacturer=info.manufacturer or "",
                vendor=info.vid,
                product=info.pid,
                serial_number=info.serial_number or "",
                interface=int(interface[1]) if interface is not None else None,
            )
        )
    return ports


async def discover(timeout_s: float, lister: Lister = list_ports) -> list[Discovered]:
    """All serial ports. They are neither opened nor asked: what is behind them is not known."""
    async with asyncio.timeout(timeout_s):
        ports = await in_thread(lister)
    several = [port.usb_id for port in ports]
    found: list[Discovered] = []
    for port in ports:
        details: dict[str, object] = {}
        if port.usb_id is not None:
            details["usb"] = port.usb_id
            if port.serial_number:
                details["serial_number"] = port.serial_number
            if port.interface is not None and several.count(port.usb_id) > 1:
                details["interface"] = port.interface
            details["usb_address"] = str(_usb_address(port, alone=several.count(port.usb_id) == 1))
        if port.manufacturer:
            details["manufacturer"] = port.manufacturer
        name = port.description if port.description != os.path.basename(port.path) else ""
        found.append(Discovered(str(Address("serial", port.path)), name, details))
    return found


async def watch(timeout_s: float, report: ReportDiscovered, lister: Lister = list_ports) -> None:
    """Report each serial port once, and return without waiting for others: a scan of ports alone is done at once."""
    for one in await discover(timeout_s, lister):
        report(one)


def _usb_address(port: Port, *, alone: bool) -> Address:
    """The address that still finds the port after a reset has given it another name."""
    target = f"{port.usb_id}:{port.serial_number}" if port.serial_number else f"{port.usb_id}"
    options = {} if alone or port.interface is None else {"interface": str(port.interface)}
    return Address("usb", target, options)
