"""`SerialTransport`: SMP in console framing over a serial port.

Here: options, limits, the order of things after opening, and pyserial's errors in our words. The waiting is done in
`reader`; what a message looks like on the line is `ConsoleFraming`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Sequence

import serial

from mcumgrx.plugin_api import (
    Address,
    ConnectFailed,
    ConsoleFraming,
    DeviceNotFound,
    Limits,
    LinkLost,
    OptionReader,
    Transport,
    TransportError,
    UsageError,
)

from .reader import PortEnded, ThreadedPort

if sys.platform != "win32":
    import grp

__all__ = ["SerialTransport"]

# A start, eight data bits and a stop.
_BITS_PER_BYTE = 10

# A newline ends rubbish in the device's line buffer; a shell takes a frame that follows it within 50 ms for more text.
# 10 ms more for drivers that send in USB frames and timer ticks.
_WAKE = b"\n"
_WAKE_S = 0.06

# Beyond the time on the wire a driver takes its bytes at once, unless flow control or a device that no longer reads its
# USB endpoint holds them. After this long nothing will.
_STALLED_S = 10.0


class SerialTransport(Transport):
    """`serial:PORT[,baud=115200][,line=127][,rtscts=no][,dtr=yes][,rts=yes]`

    * `baud`: bits per second; without meaning on USB CDC ACM.
    * `line`: longest line to send, in bytes; more than 127 only for a device built with larger line buffers.
    * `rtscts`: hardware flow control.
    * `dtr`, `rts`: state of these lines while the port is open. Some USB devices only talk with DTR on; some boards are
      reset by it.

    Nothing is sent by opening: after a reset the first byte may hold the device in its bootloader. The newline that
    clears the device's line buffer goes out in front of the first message.
    """

    quiet_after_reset_s: float = 3.0
    silent_boot: bool = True

    def __init__(self, address: Address) -> None:
        if not address.target:
            raise UsageError(f"{address} names no port", hint="for example serial:/dev/ttyACM0 or serial:COM3")
        self._address = str(address)
        self._path = address.target
        options = OptionReader(address)
        self._baud = options.integer("baud", 115200, minimum=1)
        self._line_length = options.integer("line", 127, minimum=32, maximum=0xFFFF)
        self._rtscts = options.flag("rtscts", False)
        self._dtr = options.flag("dtr", True)
        self._rts = options.flag("rts", True)
        options.finish()
        self._limits = Limits(
            safe_message=ConsoleFraming(line_length=self._line_length).one_line,
            max_message=ConsoleFraming.MAX_MESSAGE,
            buffer_overhead=ConsoleFraming.OVERHEAD,
        )
        self._port: ThreadedPort | None = None
        self._identity: str | None = None
        self._awake = False
        self._sent_at = 0.0  # loop time when the last byte handed over will have left

    def __repr__(self) -> str:
        return f"<SerialTransport {self._address}>"

    async def open(self, timeout_s: float) -> None:
        await self.close()
        loop = asyncio.get_running_loop()
        # Beside the opening, because listing the ports takes as long again.
        identity = loop.run_in_executor(None, _usb_serial_number, self._path)
        port = ThreadedPort(self._unopened())
        try:
            await port.open(timeout_s)
        except TimeoutError as error:
            raise ConnectFailed(
                f"{self._path} could not be opened in {timeout_s:g} s",
                address=self._address,
                hint="its driver does not answer; unplug the device and plug it in again",
            ) from error
        except Exception as error:  # OSError, ValueError, termios.error: all that pyserial lets out means the same
            raise await loop.run_in_executor(None, self._translated, error) from error
        self._port = port
        self._awake = False
        self._sent_at = 0.0
        self._identity = await identity

    def _unopened(self) -> serial.Serial:
        port = serial.Serial(timeout=None, write_timeout=None, exclusive=True)
        port.port = self._path
        port.baudrate = self._baud
        port.rtscts = self._rtscts
        port.dtr = self._dtr
        port.rts = self._rts
        return port

    async def close(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await port.close()

    async def send(self, writes: Sequence[bytes]) -> None:
        port = self._open_port()
        try:
            if not self._awake:
                await self._write(port, _WAKE)
                await asyncio.sleep(_WAKE_S)
                self._awake = True
            await self._write(port, b"".join(writes))
        except PortEnded as end:
            raise self._lost(end) from end.__cause__

    async def _write(self, port: ThreadedPort, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._sent_at = max(self._sent_at, loop.time()) + len(data) * _BITS_PER_BYTE / self._baud
        try:
            await port.write(data, self.queued_s() + _STALLED_S)
        except TimeoutError:
            stalled = TimeoutError(f"it has taken no more bytes for {_STALLED_S:g} s")
            await port.close(stalled)
            raise PortEnded from stalled

    async def receive(self) -> bytes:
        try:
            return await self._open_port().read()
        except PortEnded as end:
            raise self._lost(end) from end.__cause__

    @property
    def limits(self) -> Limits:
        return self._limits

    def framing(self) -> ConsoleFraming:
        return ConsoleFraming(line_length=self._line_length)

    def queued_s(self) -> float:
        return max(0.0, self._sent_at - asyncio.get_running_loop().time())

    @property
    def identity(self) -> str | None:
        return self._identity

    # -- errors ------------------------------------------------------------------------------------------------------

    def _open_port(self) -> ThreadedPort:
        if self._port is None:
            raise LinkLost(f"{self._path} is not open", address=self._address)
        return self._port

    def _lost(self, end: PortEnded) -> LinkLost:
        if end.__cause__ is None:
            return LinkLost(f"{self._path} was closed", address=self._address)
        return LinkLost(
            f"the serial link over {self._path} has ended: {end.__cause__}",
            address=self._address,
            hint="the device was unplugged, has reset its USB interface, or holds the line by flow control",
        )

    def _translated(self, error: Exception) -> TransportError:
        """What pyserial's exception on opening means. May look at ports and groups, so not for the event loop."""
        number = _errno(error)
        if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR):
            ports = ", ".join(sorted(info.device for info in _list_ports()))
            return DeviceNotFound(
                f"there is no serial port {self._path}",
                address=self._address,
                hint=f"the ports of this computer are: {ports}" if ports else "this computer has no serial port now",
            )
        if number in (errno.EACCES, errno.EPERM):
            said = "may not be opened by you"
            group = _group_of(self._path)
            hint = f"join the group that owns it: sudo usermod -aG {group} $USER, then log in again"
        elif number in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK):
            said = "is in use by another program"
            hint = "close the terminal or tool that has it open; ModemManager may hold a new port for half a minute"
        elif number in (errno.ENOTTY, errno.EINVAL, errno.EISDIR):
            said = "is not a serial port"
            hint = "name the port's device file"
        elif number == errno.EIO:
            said = "has no hardware behind it"
            hint = "name another port"
        elif isinstance(error, ValueError | OverflowError):
            said = f"does not take baud={self._baud}"
            hint = "use a baud rate that its driver knows"
        else:
            said, hint = f"could not be opened ({error})", None
        return ConnectFailed(f"{self._path} {said}", address=self._address, hint=hint)


def _errno(error: BaseException) -> int | None:
    """The number behind an exception of pyserial, which gives it in three ways."""
    # termios.error is no OSError and comes as the context of a SerialException without a number.
    for cause in (error, error.__context__):
        number = getattr(cause, "errno", None) or (cause.args[0] if cause is not None and cause.args else None)
        if isinstance(number, int):
            return number
    # Windows: pyserial writes the repr of the OSError into its own text. Access is denied there to a port in use.
    text = str(error)
    return errno.ENOENT if "FileNotFoundError" in text else errno.EBUSY if "PermissionError" in text else None


def _list_ports() -> list[serial.tools.list_ports_common.ListPortInfo]:
    from serial.tools import list_ports  # late: only some openings need it

    return list(list_ports.comports())


def _usb_serial_number(path: str) -> str | None:
    """Serial number of the USB device that is the port `path`, or None when it is no USB device or has none."""
    # A link such as /dev/serial/by-id/… is resolved; on macOS each port has two names.
    wanted = os.path.realpath(path).replace("/dev/tty.", "/dev/cu.") if os.name == "posix" else path.upper()
    if os.name == "posix" and not os.path.basename(wanted).startswith(("tty", "cu.", "rfcomm")):
        return None  # a pseudo-terminal: not listed
    try:
        for info in _list_ports():
            if (info.device if os.name == "posix" else info.device.upper()) == wanted.removeprefix("\\\\.\\"):
                return info.serial_number or None
    except Exception:  # it is asked for by the way: no reason to refuse a port that opens
        return None
    return None


def _group_of(path: str) -> str:
    """Name of the group that owns `path`, for the hint; the usual one when it cannot be told."""
    if sys.platform != "win32":
        try:
            return grp.getgrgid(os.stat(path).st_gid).gr_name
        except (OSError, KeyError):
            pass
    return "dialout"
