"""`DeviceServer`: a simulated device on real links, for any client: UDP, TCP and a pseudo-terminal.

Here are only sockets and terminals. What is on them is a link of the simulator (`SimTransport`) whose other end is led
outside, so framing, line buffers, boot text, delays and the state file are the same as for `sim:` addresses.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from mcumgrx.plugin_api import Address, LinkLost, UsageError
from mcumgrx.sim.device import SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.link import Runner, runner_of

from .transport import NO_LIMIT, SimTransport

if sys.platform != "win32":
    import fcntl
    import termios
    import tty

log = logging.getLogger("mcumgrx.sim")

# What can be at the end of a pseudo-terminal or a TCP socket.
_UARTS = ("uart", "shell", "raw")

# As fast as computer and client can: the option `speed` of a link without a baud rate.
_NO_LIMIT = str(NO_LIMIT)

# Clients at once. A client of UDP never says that it has gone: beyond this, whoever has been silent for longest is
# forgotten, and connections over TCP are refused.
_MAX_CLIENTS = 32

# What a client sends ahead of a slow link: from here on datagrams are dropped.
_MAX_WAITING = 64 * 1024

_MAX_READ = 64 * 1024
# Reads in one go, before anything else in the loop has its turn. A pseudo-terminal gives 4 KB each.
_MAX_READS = 16

# Output that nobody reads: a UART loses it, and so does this, beyond a few of the largest messages.
_MAX_UNREAD = 256 * 1024

_OPEN_S = 10.0

# How often the server notes that it is alive, and what it has stood still for longer than: a process that was stopped,
# or a machine that had other things to do. A client sends nothing again as soon as this.
_BEAT_S = 0.05
_STALL_S = 0.1


class _ServedTransport(SimTransport):
    """A link to the served device; `instant` makes that a device that takes no time for anything but its start."""

    def __init__(self, address: Address, *, instant: bool) -> None:
        super().__init__(address)
        if instant:
            config = self.device.config
            fs = replace(config.fs, read_s_per_byte=0.0, write_s_per_byte=0.0, hash_s_per_byte=0.0)
            config = replace(config, timing=INSTANT, request_s=0.0, line_count=None, line_s=0.0, fs=fs)
            self.device = SimulatedDevice(config, name=self.device.name)


class _Heart:
    """Tells the device when this process has stood still, so that what came meanwhile does not overrun it."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._beat_at = runner.loop.time()
        self._timer = runner.loop.call_later(_BEAT_S, self._beat)

    def look(self) -> None:
        """Something has come in from outside, perhaps a while ago."""
        if self._runner.loop.time() - self._beat_at > _STALL_S:
            self._runner.held_up = True

    def stop(self) -> None:
        self._timer.cancel()

    def _beat(self) -> None:
        # A client that could not write any more goes on when it is read again, so one beat more is waited for.
        self._runner.held_up &= not self._runner.at_rest
        self.look()
        self._beat_at = self._runner.loop.time()
        self._timer = self._runner.loop.call_later(_BEAT_S, self._beat)


class _Wire:
    """A link whose host is outside: what comes from there is `put` in, what the device sends is written out.

    `write` takes bytes and never waits; it may be called while `put` is.
    """

    def __init__(self, transport: SimTransport, heart: _Heart, write: Callable[[bytes], None]) -> None:
        self._transport = transport
        self._heart = heart
        self._write = write
        self._early: list[bytes] | None = []  # what came before the link was open

    @property
    def full(self) -> bool:
        """Whether the link has too much to carry already."""
        bytes_per_s = self._transport.model.bytes_per_s
        return bytes_per_s is not None and self._transport.queued_s() * bytes_per_s >= _MAX_WAITING

    def put(self, data: bytes) -> float:
        """Bytes from outside, in the order they came; for so many seconds no more should come."""
        self._heart.look()
        if self._early is not None:
            self._early.append(data)
            return 0.0
        try:
            return self._transport.put(data)
        except LinkLost:
            return 0.0  # `run` ends with it

    async def run(self) -> None:
        """Carry bytes both ways, for ever. Raises `LinkLost` when the device can no longer be kept in its file."""
        await self._transport.open(_OPEN_S)
        try:
            self._transport.lead_out(self._write)
            early, self._early = self._early or (), None
            for data in early:
                self._transport.put(data)
            while True:
                await self._transport.receive()
        finally:
            await self._transport.close()


class DeviceServer:
    """Offers the simulated device at `address` (`sim:…`) on as many links as wanted, until it is closed.

    `link=` in the address (`uart`, `shell`, `raw`) says what is at the end of TCP and the pseudo-terminal.

    ::

        async with DeviceServer(Address.parse("sim:desk")) as server:
            print(await server.udp("127.0.0.1", 1337))
            await server.run()

    Each client has a link of its own to the one device, which has one set of buffers for all. Links stay open through
    resets; what comes meanwhile is lost, and on TCP and the pseudo-terminal the device prints as it starts.

    Arguments:
        baud: of TCP and the pseudo-terminal, in bits per second with 10 bits a byte; 0 for no limit, which overruns
            the device's line buffers as USB does. None: 115200, or no limit for an `instant` device.
        instant: flash and requests take no time, and no burst overruns the line buffers.

    There is no authentication: whoever reaches it can do everything.
    """

    def __init__(self, address: Address, *, baud: int | None = None, instant: bool = False) -> None:
        if address.scheme != "sim":
            raise UsageError(f"{address} is no simulated device", hint="for example sim:desk,state=device.json")
        kind = address.options.get("link", "uart")
        if kind not in _UARTS:
            raise UsageError(
                f"link={kind} cannot be served; TCP and pseudo-terminals can have {', '.join(_UARTS)}",
                hint="leave it out, or choose one of these",
            )
        if baud is not None and baud != 0 and not 300 <= baud <= 12_000_000:
            raise UsageError(f"a UART does not work with {baud} baud", hint="300 to 12000000, or 0 for no limit")
        self._instant = instant
        self.datagram = replace(address, options={"latency": "0", **address.options, "link": "datagram"})
        uart = {**address.options, "link": kind}
        if baud == 0 or (baud is None and instant and "baud" not in uart):
            uart.setdefault("speed", _NO_LIMIT)
        elif baud is not None:
            uart["baud"] = str(baud)
        self.uart = replace(address, options=uart)
        # Keeps the device running, and its file locked, while no client is there.
        self._keeper = self._new_transport(self.datagram)
        self._new_transport(self.uart)  # its options are checked before anything is opened
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = AsyncExitStack()  # of what has been opened
        self._failed: asyncio.Future[BaseException] | None = None
        self._heart: _Heart | None = None

    @property
    def device(self) -> SimulatedDevice:
        return self._keeper.device

    @property
    def lost(self) -> int:
        """Requests and lines that found no buffer."""
        runner = self.device.runner
        return runner.lost + runner.lost_lines if isinstance(runner, Runner) else 0

    async def __aenter__(self) -> Self:
        self._failed = asyncio.get_running_loop().create_future()
        await self._keeper.open(_OPEN_S)
        self._heart = _Heart(runner_of(self.device))
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._closing.aclose()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._heart is not None:
            self._heart.stop()
        await self._keeper.close()

    async def run(self) -> None:
        """Serve until cancelled. Raises what ended a link: the state file can no longer be written."""
        assert self._failed is not None
        raise await asyncio.shield(self._failed)

    # -- links ---------------------------------------------------------------------------------------------------------

    async def udp(self, host: str, port: int) -> Address:
        """One datagram is one message; port 0 takes any that is free. Returns the address for clients.

        Raises `UsageError` where the port cannot be had.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            link = _bound(found)
        except (OSError, UnicodeError) as error:
            raise _not_had("UDP", host, port, error) from error
        address = _endpoint("udp", link.getsockname())
        datagrams = _Datagrams(self)
        try:
            datagrams.listen(link)
        except NotImplementedError:  # the loop of Windows reads sockets in its own way only
            await loop.create_datagram_endpoint(lambda: datagrams, sock=link)
        self._closing.callback(datagrams.close)
        return address

    async def tcp(self, host: str, port: int) -> Address:
        """A stream of bytes, as a terminal server in front of a UART offers it; several clients at once.

        As `udp` otherwise.
        """
        loop = asyncio.get_running_loop()
        connections: set[_Connection] = set()
        try:
            server = await loop.create_server(lambda: _Connection(self, connections), host, port)
        except (OSError, UnicodeError) as error:
            raise _not_had("TCP", host, port, error) from error

        async def close() -> None:
            server.close()
            for connection in list(connections):
                connection.abort()
            await server.wait_closed()

        self._closing.push_async_callback(close)
        return _endpoint("tcp", server.sockets[0].getsockname())

    def pty(self, link: Path | None = None) -> Address:
        """A pseudo-terminal, as a serial port. `link` becomes a symbolic link to it, removed at the end.

        Raises `UsageError` where there are no pseudo-terminals, or `link` cannot be made.
        """
        if sys.platform != "win32":
            terminal = _Terminal(self)
            self._closing.callback(terminal.close)
            if link is not None:
                _make_link(link, terminal.path)
                self._closing.callback(_remove_link, link, terminal.path)
            return Address("serial", terminal.path if link is None else str(link.absolute()))
        raise UsageError("this system has no pseudo-terminals", hint="serve it with --tcp or --udp")

    # -- for the links -------------------------------------------------------------------------------------------------

    def connect(self, address: Address, write: Callable[[bytes], None]) -> tuple[_Wire, asyncio.Task[None]]:
        """A new link, at work: as `datagram` or `uart` has it."""
        assert self._heart is not None
        wire = _Wire(self._new_transport(address), self._heart, write)
        task = asyncio.get_running_loop().create_task(wire.run(), name="mcumgrx sim serve")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return wire, task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)

    def failed(self, error: BaseException) -> None:
        """A link has ended that should not have: `run` raises this."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(error)

    def _new_transport(self, address: Address) -> _ServedTransport:
        return _ServedTransport(address, instant=self._instant)


class _Datagrams(asyncio.DatagramProtocol):
    """The UDP socket: a link for each address that has sent something.

    Where the loop can watch a socket, all that has arrived is taken at once, which is several times as fast as a
    transport of asyncio; one is used elsewhere.
    """

    def __init__(self, server: DeviceServer) -> None:
        self._server = server
        self._clients: dict[tuple[Any, ...], tuple[_Wire, asyncio.Task[None]]] = {}
        self._transport: asyncio.DatagramTransport | None = None
        self._socket: socket.socket | None = None

    def listen(self, link: socket.socket) -> None:
        """Read the socket as long as this is open. Raises `NotImplementedError` where the loop cannot."""
        asyncio.get_running_loop().add_reader(link, self._readable)
        self._socket = link

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._transport is not None:
            self._transport.abort()

    def _readable(self) -> None:
        for _ in range(_MAX_READS):
            if self._socket is None:
                return
            try:
                data, address = self._socket.recvfrom(_MAX_READ)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.error_received(error)
                return
            self.datagram_received(data, address)

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        client = self._clients.pop(addr, None)
        if client is None:
            if len(self._clients) >= _MAX_CLIENTS:
                silent = next(iter(self._clients))
                self._clients.pop(silent)[1].cancel()
            client = self._server.connect(self._server.datagram, lambda message: self._send(message, addr))
        self._clients[addr] = client  # last, because it was heard last
        if data and not client[0].full:
            client[0].put(data)

    def _send(self, message: bytes, addr: tuple[Any, ...]) -> None:
        if self._socket is not None:
            try:
                self._socket.sendto(message, addr)
            except OSError as error:  # no room, which loses a datagram like any other
                self.error_received(error)
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(message, addr)

    def error_received(self, exc: Exception) -> None:
        log.debug("UDP: %s", exc)  # a client that has gone, or an answer too long for a datagram

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None


class _Connection(asyncio.Protocol):
    """One client over TCP."""

    def __init__(self, server: DeviceServer, connections: set[_Connection]) -> None:
        self._server = server
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._client: tuple[_Wire, asyncio.Task[None]] | None = None
        self._pause: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self._connections) >= _MAX_CLIENTS:
            transport.abort()
            return
        self._transport = transport
        self._connections.add(self)
        self._client = self._server.connect(self._server.uart, self._write)

    def data_received(self, data: bytes) -> None:
        if self._client is not None and self._transport is not None and (pause_s := self._client[0].put(data)) > 0:
            self._transport.pause_reading()
            self._pause = asyncio.get_running_loop().call_later(pause_s, self._transport.resume_reading)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._pause is not None:
            self._pause.cancel()
        self._connections.discard(self)
        if self._client is not None:
            self._client[1].cancel()
            self._client = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and self._transport.get_write_buffer_size() < _MAX_UNREAD:
            self._transport.write(data)


if sys.platform != "win32":

    class _Terminal:
        """A pseudo-terminal in raw mode. Its far end stays open here, so that clients may come and go."""

        def __init__(self, server: DeviceServer) -> None:
            self._server = server
            self._loop = asyncio.get_running_loop()
            self._near, self._far = os.openpty()
            tty.setraw(self._far)
            os.set_blocking(self._near, False)
            self.path = os.ttyname(self._far)
            self._unsent = bytearray()
            self._reading = False
            self._pause: asyncio.TimerHandle | None = None
            self._wire, self._task = server.connect(server.uart, self._write)
            self._listen()

        def close(self) -> None:
            self._task.cancel()
            if self._pause is not None:
                self._pause.cancel()
            self._loop.remove_reader(self._near)
            self._loop.remove_writer(self._near)
            os.close(self._near)
            os.close(self._far)
            self._near = -1

        def _listen(self) -> None:
            self._loop.add_reader(self._near, self._readable)

        def _readable(self) -> None:
            # What is there is one moment of the device: read as a whole, and answered by one write.
            pieces: list[bytes] = []
            try:
                for _ in range(_MAX_READS):
                    pieces.append(os.read(self._near, _MAX_READ))
            except BlockingIOError:
                pass
            except OSError as error:
                self._loop.remove_reader(self._near)
                self._server.failed(LinkLost(f"the pseudo-terminal {self.path} has failed: {error.strerror}"))
                return
            if not pieces:
                return
            with suppress(OSError):
                # A client's wish to be alone would outlive it, because the far end is never closed.
                fcntl.ioctl(self._far, termios.TIOCNXCL)
            self._reading = True
            try:
                pause_s = self._wire.put(b"".join(pieces))
            finally:
                self._reading = False
                self._flush()
            if pause_s > 0:
                self._loop.remove_reader(self._near)
                self._pause = self._loop.call_later(pause_s, self._listen)

        def _write(self, data: bytes) -> None:
            if self._near < 0 or len(self._unsent) >= _MAX_UNREAD:
                return
            waits = bool(self._unsent)  # `_flush` or `_writable` will come to it
            self._unsent += data
            if not self._reading and not waits:
                self._flush()

        def _flush(self) -> None:
            if self._unsent and self._near >= 0:
                del self._unsent[: self._write_some(bytes(self._unsent))]
                if self._unsent:
                    self._loop.add_writer(self._near, self._writable)

        def _writable(self) -> None:
            del self._unsent[: self._write_some(bytes(self._unsent))]
            if not self._unsent:
                self._loop.remove_writer(self._near)

        def _write_some(self, data: bytes) -> int:
            try:
                return os.write(self._near, data)
            except BlockingIOError:
                return 0


def _bound(found: Sequence[tuple[Any, ...]]) -> socket.socket:
    """A socket at the first of these addresses that can be had. Raises the `OSError` of the last that cannot."""
    for number, (family, kind, protocol, _, name) in enumerate(found, 1):
        link = socket.socket(family, kind, protocol)
        try:
            link.bind(name)
        except OSError:
            link.close()
            if number == len(found):
                raise
        else:
            link.setblocking(False)
            return link
    raise OSError("it has no address")


def _endpoint(scheme: str, name: tuple[Any, ...]) -> Address:
    host, port = name[:2]
    return Address(scheme, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _not_had(kind: str, host: str, port: int, error: OSError | UnicodeError) -> UsageError:
    if isinstance(error, socket.gaierror | UnicodeError):
        return UsageError(f"no address of this computer is known as {host!r}", hint="give an IP address of it")
    # asyncio puts a sentence of its own in front of what the system says.
    said = (error.strerror or str(error)).rpartition("): ")[2]
    return UsageError(f"{kind} port {port} of {host} cannot be had: {said}", hint="0 takes a port that is free")


def _target(link: Path) -> str | None:
    try:
        return os.readlink(link)
    except OSError:
        return None


def _make_link(link: Path, path: str) -> None:
    """Also over the link that a server left behind which was killed; over nothing else."""
    try:
        left = _target(link)
        if left is not None and os.path.dirname(left) == os.path.dirname(path):
            link.unlink()
        link.symlink_to(path)
    except OSError as error:
        raise UsageError(
            f"{link} cannot be made a link to {path}: {error.strerror}", hint="name a file that does not exist"
        ) from error


def _remove_link(link: Path, path: str) -> None:
    """If it still is ours."""
    if _target(link) == path:
        with suppress(OSError):
            link.unlink()
