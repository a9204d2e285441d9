"""`UdpTransport`: SMP over UDP, as Zephyr's `CONFIG_MCUMGR_TRANSPORT_UDP` serves it.

There is no connection: a device that is silent, restarting or gone looks the same, and only an ICMP answer tells more.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from mcumgrx.plugin_api import (
    Address,
    ConnectFailed,
    DatagramFraming,
    DeviceNotFound,
    Flow,
    Limits,
    LinkLost,
    OptionReader,
    Transport,
    TransportError,
)

__all__ = ["UdpTransport"]

log = logging.getLogger("mcumgrx.udp")

_PORT = 1337  # CONFIG_MCUMGR_TRANSPORT_UDP_PORT

# CONFIG_MCUMGR_TRANSPORT_UDP_MTU is 1500 whatever the buffers are, and a datagram should not become IP fragments on
# Ethernet: 1500 less the headers of IP and UDP.
_MAX_MESSAGE = {socket.AF_INET: 1500 - 20 - 8, socket.AF_INET6: 1500 - 40 - 8}

# Devices with UDP have buffers of 2048 bytes by default, without it 384; 256 is the smallest that builds use.
_SAFE_MESSAGE = 256

_LIMITS = {
    family: Limits(safe_message=_SAFE_MESSAGE, max_message=max_message) for family, max_message in _MAX_MESSAGE.items()
}

# Datagrams that nobody has read; a client reads at once, so more are a flood, of which the rest is dropped.
_MAX_UNREAD = 256

# An ICMP message says so; Windows tells it as a reset.
_NOBODY_LISTENS = (ConnectionRefusedError, ConnectionResetError)


_Where = tuple[socket.AddressFamily, tuple[Any, ...]]


class UdpTransport(Transport):
    """`udp:HOST[:PORT]`; an IPv6 address stands in brackets, `udp:[2001:db8::7]:1337`.

    Of a name's addresses the first one to which a route leads is used; if that refuses before it has ever answered, the
    next. Silence never ends the link, a refusal does: nothing listens there.
    """

    quiet_after_reset_s: float = 1.0

    def __init__(self, address: Address) -> None:
        self._address = str(address)
        self._host, self._port = address.endpoint(_PORT)
        OptionReader(address).finish()
        self._socket: _Socket | None = None
        self._others: list[_Where] = []  # addresses of the host still to be tried
        self._last_sent: bytes | None = None

    def __repr__(self) -> str:
        return f"<UdpTransport {self._address}>"

    async def open(self, timeout_s: float) -> None:
        await self.close()
        self._last_sent = None
        self._others = await self._resolve(timeout_s)
        self._socket = await self._next_socket()

    async def close(self) -> None:
        opened, self._socket = self._socket, None
        if opened is not None:
            await opened.close()

    def offer(self, writes: Sequence[bytes]) -> bool:
        opened = self._opened()
        if opened.refused and not self._may_move(opened):
            raise self._refused()
        self._last_sent = writes[0] if len(writes) == 1 else b"".join(writes)
        if not opened.send_now(self._last_sent):
            return False
        self._raise_trouble(opened)
        return True

    async def send(self, writes: Sequence[bytes]) -> None:
        if self.offer(writes):
            return
        opened = self._opened()
        await opened.send(b"".join(writes))
        self._raise_trouble(opened)

    def _raise_trouble(self, opened: _Socket) -> None:
        if opened.trouble is None:
            return
        trouble, opened.trouble = opened.trouble, None
        # Wi-Fi that roams, a cable pulled for a moment: this message is not sent, but nothing has ended.
        raise TransportError(
            f"{self._shown()} cannot be reached: {_said(trouble)}",
            address=self._address,
            hint="check the address and the network",
        )

    async def receive(self) -> bytes:
        while True:
            opened = self._opened()
            data = await opened.read()
            if data is not None:
                return data
            if opened is not self._socket:
                raise LinkLost(f"{self._shown()} was closed", address=self._address)
            if not self._may_move(opened):
                raise self._refused()
            await self._move(opened)

    @property
    def limits(self) -> Limits:
        return _LIMITS[self._socket.family if self._socket is not None else socket.AF_INET6]

    @property
    def flow(self) -> Flow:
        # What finds no buffer is dropped (measured), so one by one more may be on their way.
        return Flow(
            strict=False, paced=True, faster="a path that loses and delays less: a cable, or better radio reception"
        )

    def framing(self) -> DatagramFraming:
        return DatagramFraming()

    # -- addresses of the host -----------------------------------------------------------------------------------------

    async def _resolve(self, timeout_s: float) -> list[_Where]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
        except TimeoutError as error:
            raise DeviceNotFound(
                f"the name {self._host!r} was not resolved in {timeout_s:g} s",
                address=self._address,
                hint="check the name service, or give an IP address",
            ) from error
        except (OSError, UnicodeError) as error:  # UnicodeError: no name can be like that
            raise DeviceNotFound(
                f"no host is known as {self._host!r} ({_said(error)})",
                address=self._address,
                hint="check the name, or give an IP address",
            ) from error
        return [(family, where) for family, _, _, _, where in found if family in _MAX_MESSAGE]

    async def _next_socket(self) -> _Socket:
        failure: OSError | None = None
        while self._others:
            family, where = self._others.pop(0)
            try:
                return await _Socket.open(family, where)
            except OSError as error:
                failure = failure or error
        raise ConnectFailed(
            f"no route leads to {self._shown()}" + ("" if failure is None else f" ({_said(failure)})"),
            address=self._address,
            hint="check the address, and that the network is up",
        ) from failure

    def _may_move(self, opened: _Socket) -> bool:
        """Whether a refusal may mean that the device serves another of the host's addresses."""
        return bool(self._others) and not opened.heard

    async def _move(self, opened: _Socket) -> None:
        """Take the next address, and send there what was refused."""
        log.info("%s refuses at its address %s; trying the next", self._shown(), opened.where[0])
        other = await self._next_socket()
        if self._socket is not opened:  # closed meanwhile
            await other.close()
            return
        self._socket = other
        await opened.close()
        if self._last_sent is not None:
            await other.send(self._last_sent)

    # -- errors --------------------------------------------------------------------------------------------------------

    def _opened(self) -> _Socket:
        if self._socket is None:
            raise LinkLost(f"{self._shown()} is not open", address=self._address)
        return self._socket

    def _refused(self) -> LinkLost:
        return LinkLost(
            f"{self._shown()} refuses: nothing listens there",
            address=self._address,
            hint="check the port; a device that has just restarted may not serve it yet",
        )

    def _shown(self) -> str:
        return f"UDP port {self._port} of {self._host}"


class _Socket(asyncio.DatagramProtocol):
    """One connected socket, thrown away when it has ended.

    Read and written directly where the event loop watches sockets, through asyncio's datagrams where it does not
    (Windows): those cost a turn of the loop and some objects for each datagram.

    Attributes:
        heard: a datagram has come from there.
        refused: an ICMP message has told that nothing listens there.
        trouble: any other error of the system, until somebody takes note of it.
    """

    def __init__(self, family: socket.AddressFamily, where: tuple[Any, ...]) -> None:
        self.family = family
        self.where = where
        self.heard = False
        self.refused = False
        self.trouble: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._unread: deque[bytes] = deque()
        self._news: asyncio.Future[None] | None = None
        self._closed = asyncio.Event()
        self._bare: socket.socket | None = None
        self._transport: asyncio.DatagramTransport | None = None
        self._buffer = bytearray(0xFFFF)

    @classmethod
    async def open(cls, family: socket.AddressFamily, where: tuple[Any, ...]) -> _Socket:
        """Raises `OSError` where no route leads there."""
        opened = cls(family, where)
        bare = socket.socket(family, socket.SOCK_DGRAM)
        try:
            bare.setblocking(False)
            bare.connect(where)  # at once: it only chooses a route
            try:
                opened._loop.add_reader(bare, opened._readable)
                opened._bare = bare
            except NotImplementedError:
                opened._transport, _ = await opened._loop.create_datagram_endpoint(lambda: opened, sock=bare)
        except BaseException:
            bare.close()
            raise
        return opened

    def send_now(self, data: bytes) -> bool:
        """Send, unless the system's buffer is full."""
        if self._bare is None:
            if self._transport is not None:
                self._transport.sendto(data)
            return True
        try:
            self._bare.send(data)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self.error_received(error)
        return True

    async def send(self, data: bytes) -> None:
        if self.send_now(data) or self._bare is None:
            return
        try:
            await self._loop.sock_sendall(self._bare, data)
        except OSError as error:
            self.error_received(error)

    async def read(self) -> bytes | None:
        """The next datagram; None when it is closed or was refused."""
        while not self._unread:
            if self.refused or self._closed.is_set():
                return None
            self._news = self._loop.create_future()
            try:
                await self._news
            finally:
                self._news = None
        return self._unread.popleft()

    async def close(self) -> None:
        if self._bare is not None:
            self._loop.remove_reader(self._bare)
            self._loop.remove_writer(self._bare)
            self._bare.close()
            self._bare = None
            self.connection_lost(None)
        if self._transport is not None:
            self._transport.abort()
        await self._closed.wait()

    def _readable(self) -> None:
        """Take what has arrived, but not for ever: others want their turn, too."""
        bare, buffer = self._bare, self._buffer
        for _ in range(_MAX_UNREAD):
            if bare is None:
                return
            try:
                size = bare.recv_into(buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.error_received(error)
                return
            self.datagram_received(bytes(memoryview(buffer)[:size]), self.where)

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # -- called by asyncio, or as it would -----------------------------------------------------------------------------

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.heard = True
        if data and len(self._unread) < _MAX_UNREAD:
            self._unread.append(data)
            self._tell()

    def error_received(self, exc: Exception) -> None:
        if isinstance(exc, _NOBODY_LISTENS):
            self.refused = True
            self._tell()
        else:
            log.info("%s: %s", self.where[0], _said(exc))
            self.trouble = exc

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()
        self._tell()


def _said(error: BaseException) -> str:
    """What the system says, without its number."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
