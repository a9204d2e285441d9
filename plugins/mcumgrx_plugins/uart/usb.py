"""`UsbTransport`: the serial port of a USB device, found by vendor and product id each time it is opened."""

from __future__ import annotations

import asyncio
import re

from mcumgrx.plugin_api import (
    Address,
    ConnectFailed,
    DeviceNotFound,
    LinkLost,
    OptionReader,
    TransportError,
    UsageError,
    in_thread,
)

from .loop_port import LoopPort
from .ports import Port
from .reader import ThreadedPort
from .serial_port import SerialTransport

_ID = re.compile(r"(?:0x)?([0-9a-f]{1,4})", re.IGNORECASE)


class UsbTransport(SerialTransport):
    """`usb:VENDOR:PRODUCT[:SERIAL][,interface=N]`, ids in hexadecimal; and the options of `serial:`.

    The serial number tells devices of one kind apart, `interface` the ports of one device. After a reset the port is
    found again under whatever name it has then; once opened, only the device with the same serial number will do.
    """

    _vendor: int
    _product: int
    _wanted_serial: str
    _interface: int | None

    def _read_target(self, address: Address, options: OptionReader) -> None:
        vendor, _, rest = address.target.partition(":")
        product, _, self._wanted_serial = rest.partition(":")
        ids = [_ID.fullmatch(text) for text in (vendor, product)]
        if ids[0] is None or ids[1] is None:
            raise UsageError(
                f"{address} does not name a USB device",
                hint="give vendor and product id in hexadecimal, as usb:2fe3:0004; 'mcumgrx scan' shows them",
            )
        self._vendor, self._product = int(ids[0][1], 16), int(ids[1][1], 16)
        number = options.integer("interface", -1, minimum=-1, maximum=255)
        self._interface = None if number < 0 else number

    async def _open_stream(self, timeout_s: float) -> LoopPort | ThreadedPort:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                port = await in_thread(self._find)
        except TimeoutError as error:
            raise ConnectFailed(
                f"the USB ports of this computer could not be listed in {timeout_s:.3g} s",
                hint="unplug the devices that hang, or name the port itself, as serial:/dev/ttyACM0",
            ) from error
        self._name = port.path
        stream = await self._open_port(port.path, max(0.1, timeout_s - (loop.time() - begin)))
        self._identity = port.serial_number or None
        return stream

    def _find(self) -> Port:
        """The port that the address means. Raises `DeviceNotFound`, or `ConnectFailed` when there are several."""
        ports = self._lister()
        of_kind = [port for port in ports if (port.vendor, port.product) == (self._vendor, self._product)]
        # Windows shows serial numbers in capitals.
        serial = self._wanted_serial or self._identity or ""
        found = [port for port in of_kind if not serial or port.serial_number.casefold() == serial.casefold()]
        if self._interface is not None:
            found = [port for port in found if port.interface == self._interface]
        if not found:
            raise self._not_found(ports, of_kind, serial)
        if len(found) > 1:
            raise self._ambiguous(found)
        return found[0]

    def _not_found(self, ports: list[Port], of_kind: list[Port], serial: str) -> TransportError:
        usb_id = f"{self._vendor:04x}:{self._product:04x}"
        wanted = f" with serial number {serial}" if serial else ""
        wanted += f" with an interface {self._interface}" if self._interface is not None else ""
        if of_kind:
            there = ", ".join(_shown(port) for port in of_kind)
            hint = f"with these ids there are: {there}"
        else:
            others = ", ".join(dict.fromkeys(f"usb:{port.usb_id}" for port in ports if port.usb_id is not None))
            hint = f"the USB ports of this computer are: {others}" if others else "this computer has no USB port now"
        return DeviceNotFound(f"there is no USB serial port {usb_id}{wanted}", hint=hint)

    def _ambiguous(self, found: list[Port]) -> TransportError:
        serials = {port.serial_number for port in found}
        if len(serials) > 1:
            hint = f"add a serial number, as usb:{found[0].usb_id}:{max(serials)}"
        elif found[0].interface is not None:
            hint = f"add which interface, as usb:{found[0].usb_id},interface={found[0].interface}"
        else:
            hint = f"name the port itself, as serial:{found[0].path}"
        return ConnectFailed(
            f"{len(found)} ports fit {self.address}: {', '.join(_shown(port) for port in found)}", hint=hint
        )

    def _lost(self, cause: BaseException) -> LinkLost:
        lost = super()._lost(cause)
        lost.hint = "the device was unplugged or has reset"
        return lost


def _shown(port: Port) -> str:
    parts = [port.path]
    if port.serial_number:
        parts.append(f"serial number {port.serial_number}")
    if port.interface is not None:
        parts.append(f"interface {port.interface}")
    return parts[0] if len(parts) == 1 else f"{parts[0]} ({', '.join(parts[1:])})"
