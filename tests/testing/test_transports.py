"""Our own transports keep the contract that authors of others can test theirs against. `ble:` does in `tests/ble`."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from mcumgrx.address import Address
from mcumgrx.plugin_api import ConsoleFraming, Framing, StreamFraming
from mcumgrx.sim import loop as virtual
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport
from mcumgrx.testing.transports import EchoDevice, LinkUnderTest, TransportContract
from mcumgrx_plugins.sim.transport import SimTransport
from mcumgrx_plugins.uart.ports import Port
from mcumgrx_plugins.uart.serial_port import SerialTransport
from mcumgrx_plugins.uart.tcp import TcpTransport
from mcumgrx_plugins.uart.usb import UsbTransport
from mcumgrx_plugins.udp.transport import UdpTransport

from ..support import proactor

# -- in this process --------------------------------------------------------------------------------------------------


class Simulated(TransportContract):
    def run(self, main: Coroutine[Any, Any, None]) -> None:
        virtual.run(main)

    buf_size = 384
    model: Callable[[], LinkModel]

    @asynccontextmanager
    async def link(self) -> AsyncIterator[LinkUnderTest]:
        device = SimulatedDevice(DeviceConfig(timing=INSTANT), name="desk")
        device.install(build_image("1.0.0", payload_size=1000))
        device.settle()
        transport = SimulatedTransport(device, type(self).model())
        yield LinkUnderTest(transport, transport.cut)


class TestIdeal(Simulated):
    model = staticmethod(LinkModel.ideal)


class TestSimulatedBle(Simulated):
    model = staticmethod(LinkModel.ble)


class TestSimulatedUart(Simulated):
    model = staticmethod(LinkModel.uart)


class TestSimulatedShell(Simulated):
    model = staticmethod(LinkModel.shell)


class TestSimulatedDatagrams(Simulated):
    model = staticmethod(LinkModel.datagram)


class TestSim(TransportContract):
    def run(self, main: Coroutine[Any, Any, None]) -> None:
        virtual.run(main)

    buf_size = 384

    @asynccontextmanager
    async def link(self) -> AsyncIterator[LinkUnderTest]:
        transport = SimTransport(Address.parse("sim:desk,link=uart"))
        yield LinkUnderTest(transport, transport.cut)


# -- sockets ----------------------------------------------------------------------------------------------------------


class UdpEnd(threading.Thread):
    """Answers at a UDP port, whatever event loop there is at the other end."""

    def __init__(self, family: socket.AddressFamily = socket.AF_INET, host: str = "127.0.0.1") -> None:
        super().__init__(daemon=True)
        self._echo = EchoDevice()
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self.where = self._socket.getsockname()

    def run(self) -> None:
        with self._socket:
            while True:
                data, sender = self._socket.recvfrom(65536)
                if sender[:2] == self.where[:2]:
                    return
                for write in self._echo.feed(data):
                    self._socket.sendto(write, sender)

    def stop(self) -> None:
        self._socket.sendto(b"stop", self.where)
        self.join()


class TestUdp(TransportContract):
    """Silence never ends it."""

    family, host = socket.AF_INET, "127.0.0.1"
    buf_size = 2048

    @asynccontextmanager
    async def link(self) -> AsyncIterator[LinkUnderTest]:
        end = UdpEnd(self.family, self.host)
        end.start()
        host = f"[{self.host}]" if ":" in self.host else self.host
        yield LinkUnderTest(UdpTransport(Address.parse(f"udp:{host}:{end.where[1]}")))
        end.stop()


class TestUdp6(TestUdp):
    family, host = socket.AF_INET6, "::1"


class TestUdpOnAProactor(TestUdp):
    def run(self, main: Coroutine[Any, Any, None]) -> None:
        proactor.run(main)


class TestTcp(TransportContract):
    framing: Callable[..., Framing] = ConsoleFraming
    options = ""

    @asynccontextmanager
    async def link(self) -> AsyncIterator[LinkUnderTest]:
        writers: list[asyncio.StreamWriter] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            echo = EchoDevice(type(self).framing)
            while data := await reader.read(4096):
                writer.writelines(echo.feed(data))
            writer.close()

        def cut() -> None:
            for writer in writers:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        yield LinkUnderTest(TcpTransport(Address.parse(f"tcp:127.0.0.1:{port}{self.options}")), cut)
        cut()
        server.close()
        await server.wait_closed()


class TestRawTcp(TestTcp):
    framing = StreamFraming
    options = ",framing=raw"


class TestTcpOnAProactor(TestTcp):
    def run(self, main: Coroutine[Any, Any, None]) -> None:
        proactor.run(main)


# -- a pseudo-terminal ------------------------------------------------------------------------------------------------

if sys.platform != "win32":
    import tty

    class PtyEnd(threading.Thread):
        """Answers at the other end of a pseudo-terminal, whatever event loop there is at this one."""

        def __init__(self, echo: EchoDevice) -> None:
            super().__init__(daemon=True)
            self._echo = echo
            self._master, self._slave = os.openpty()
            tty.setraw(self._slave)
            # A name of its own: the next pseudo-terminal, perhaps of another test, gets the number of this one.
            self._folder = tempfile.TemporaryDirectory()
            self.path = f"{self._folder.name}/port"
            os.symlink(os.ttyname(self._slave), self.path)
            self._end, self._tell = os.pipe()

        def run(self) -> None:
            while self._end not in select.select([self._master, self._end], [], [])[0]:
                for write in self._echo.feed(os.read(self._master, 65536)):
                    os.write(self._master, write)
            for file in (self._slave, self._master, self._end):
                os.close(file)

        def vanish(self) -> None:
            if self.is_alive():
                os.write(self._tell, b"x")
                self.join()
                os.close(self._tell)
                self._folder.cleanup()

    class TestSerial(TransportContract):
        framing: Callable[..., Framing] = ConsoleFraming
        options = ""

        @asynccontextmanager
        async def link(self) -> AsyncIterator[LinkUnderTest]:
            end = PtyEnd(EchoDevice(type(self).framing))
            end.start()
            yield LinkUnderTest(SerialTransport(Address.parse(f"serial:{end.path}{self.options}")), end.vanish)
            end.vanish()

    class TestRawSerial(TestSerial):
        framing = StreamFraming
        options = ",framing=raw"

    class TestFoundFraming(TestSerial):
        options = ",framing=auto"

    class TestSerialOnAProactor(TestSerial):
        def run(self, main: Coroutine[Any, Any, None]) -> None:
            proactor.run(main)

    class TestUsb(TestSerial):
        """Found by its id; its serial number tells that it is the same one."""

        @asynccontextmanager
        async def link(self) -> AsyncIterator[LinkUnderTest]:
            end = PtyEnd(EchoDevice(type(self).framing))
            end.start()
            ports = [Port(end.path, vendor=0x2FE3, product=4, serial_number="A1")]
            yield LinkUnderTest(UsbTransport(Address.parse("usb:2fe3:0004"), lambda: ports), end.vanish)
            end.vanish()
