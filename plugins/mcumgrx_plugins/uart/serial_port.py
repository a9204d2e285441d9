"""`SerialTransport`: a serial port of this computer, by its name. And pyserial's errors in our words."""

from __future__ import annotations

import asyncio
import errno
import os
import sys

import serial

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
from .permission import port_advice
from .ports import Lister, list_ports
from .reader import ThreadedPort
from .transport import UartTransport

# macOS polls terminals as well, but not all of them.
_PORT: type[LoopPort] | type[ThreadedPort] = LoopPort if sys.platform == "linux" else ThreadedPort

# How long the ports may be listed, at least, once the wanted one is open.
_LISTING_S = 0.5


class SerialTransport(UartTransport):
    """`serial:PORT[,baud=115200][,framing=console][,line=127][,pause=0][,shell=auto][,rtscts=no][,dtr=yes][,rts=yes]`

    * `baud`: bits per second; without meaning on USB CDC ACM.
    * `rtscts`: hardware flow control.
    * `dtr`, `rts`: state of these lines while the port is open. Some USB devices only talk with DTR on; some boards are
      reset by it.
    * `framing`, `line`, `pause`, `shell`: see `UartTransport`.

    No other program can open the port meanwhile. `lister` tells the ports of this computer.
    """

    def __init__(self, address: Address, lister: Lister = list_ports) -> None:
        options = OptionReader(address)
        self._baud = options.integer("baud", 115200, minimum=1)
        self._rtscts = options.flag("rtscts", False)
        self._dtr = options.flag("dtr", True)
        self._rts = options.flag("rts", True)
        self._lister = lister
        self._identity: str | None = None
        self._read_target(address, options)
        super().__init__(address, options, baud=self._baud)

    def _read_target(self, address: Address, options: OptionReader) -> None:
        if not address.target:
            raise UsageError(f"{address} names no port", hint="for example serial:/dev/ttyACM0 or serial:COM3")

    @property
    def identity(self) -> str | None:
        return self._identity

    async def _open_stream(self, timeout_s: float) -> LoopPort | ThreadedPort:
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        # Beside the opening, because listing the ports takes as long again.
        looking = asyncio.create_task(in_thread(self._serial_number_of, self._name))
        try:
            port = await self._open_port(self._name, timeout_s)
            await self._wait_for(looking, port, end)
        finally:
            looking.cancel()
        self._identity = None if looking.cancelled() or not looking.done() else looking.result()
        return port

    @staticmethod
    async def _wait_for(looking: asyncio.Task[str | None], port: LoopPort | ThreadedPort, end: float) -> None:
        """Until the ports are listed, or it has taken too long: one that works is not refused for it."""
        try:
            await asyncio.wait([looking], timeout=max(_LISTING_S, end - asyncio.get_running_loop().time()))
        except BaseException:
            await port.close()
            raise

    async def _open_port(self, path: str, timeout_s: float) -> LoopPort | ThreadedPort:
        port = (_PORT if _watched_by_loop() else ThreadedPort)(self._unopened(path))
        try:
            await port.open(timeout_s)
        except TimeoutError as error:
            raise ConnectFailed(
                f"{path} could not be opened in {timeout_s:g} s",
                hint="its driver does not answer; unplug the device and plug it in again",
            ) from error
        except Exception as error:  # OSError, ValueError, termios.error: all that pyserial lets out means the same
            raise await in_thread(self._translated, path, error) from error
        return port

    def _unopened(self, path: str) -> serial.Serial:
        port = serial.Serial(timeout=None, write_timeout=None, exclusive=True)
        port.port = path
        port.baudrate = self._baud
        port.rtscts = self._rtscts
        port.dtr = self._dtr
        port.rts = self._rts
        return port

    def _lost(self, cause: BaseException) -> LinkLost:
        return LinkLost(
            f"the serial link over {self._name} has ended: {cause}",
            hint="the device was unplugged, has reset its USB interface, or holds the line by flow control",
        )

    def _translated(self, path: str, error: Exception) -> TransportError:
        """What pyserial's exception on opening means. May look at ports and groups, so not for the event loop."""
        number = _errno(error)
        if number in (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.ENOTDIR):
            ports = ", ".join(port.path for port in self._lister())
            return DeviceNotFound(
                f"there is no serial port {path}",
                hint=f"the ports of this computer are: {ports}" if ports else "this computer has no serial port now",
            )
        hint: str | None
        if number in (errno.EACCES, errno.EPERM):
            said = "may not be opened by you"
            hint = port_advice(path)
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
        return ConnectFailed(f"{path} {said}", hint=hint)

    def _serial_number_of(self, path: str) -> str | None:
        """Serial number of the USB device that is the port `path`, or None when it is no USB device or has none."""
        # A link such as /dev/serial/by-id/… is resolved; on macOS each port has two names.
        wanted = os.path.realpath(path).replace("/dev/tty.", "/dev/cu.") if os.name == "posix" else path.upper()
        if os.name == "posix" and not os.path.basename(wanted).startswith(("tty", "cu.", "rfcomm")):
            return None  # a pseudo-terminal: not listed
        try:
            for port in self._lister():
                if (port.path if os.name == "posix" else port.path.upper()) == wanted.removeprefix("\\\\.\\"):
                    return port.serial_number or None
        except Exception:  # it is asked for by the way: no reason to refuse a port that opens
            return None
        return None


def _watched_by_loop() -> bool:
    """Whether the event loop watches files; a proactor does not."""
    loop = asyncio.get_running_loop()
    try:
        reading, writing = os.pipe()
    except OSError:  # too many open files: opening the port will say so
        return True
    try:
        loop.add_reader(reading, int)
        loop.remove_reader(reading)
    except NotImplementedError:
        return False
    finally:
        os.close(reading)
        os.close(writing)
    return True


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
