"""`TcpTransport`: a TCP socket whose other end is a UART, as terminal servers and emulators offer it."""

from __future__ import annotations

import asyncio
import errno
import socket
from asyncio.staggered import staggered_race
from contextlib import suppress
from functools import partial
from itertools import zip_longest
from typing import Any

from mcumgrx.plugin_api import (
    Address,
    ConnectFailed,
    LinkLost,
    OptionReader,
    TransportError,
    resolve,
    system_says,
)

from .stream import MAX_READ, StreamEnded
from .transport import UartTransport

# How long closing waits for what is not sent yet.
_LINGER_S = 1.0

# A terminal server that has lost its power says nothing. Keep-alive finds that out within half a minute.
_KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}

# After so long without a connection the next address is tried as well (RFC 8305, section 5).
_NEXT_S = 0.25


class TcpTransport(UartTransport):
    """`tcp:HOST:PORT[,framing=console][,line=127][,pause=0][,shell=auto]`; an IPv6 address stands in brackets.

    The socket carries the UART's bytes and nothing else: no telnet, no RFC 2217. Options: see `UartTransport`.
    """

    def __init__(self, address: Address) -> None:
        self._host, self._port = address.endpoint()
        self._tried: list[str] = []  # addresses of the host
        super().__init__(address, OptionReader(address))

    async def _open_stream(self, timeout_s: float) -> _SocketStream:
        self._tried = []
        end = asyncio.get_running_loop().time() + timeout_s
        found = await resolve(self._host, self._port, socket.SOCK_STREAM, timeout_s)
        try:
            async with asyncio.timeout_at(end):
                return await self._connect(found)
        except TimeoutError as error:
            raise self._silent(timeout_s) from error

    async def _connect(self, found: list[Any]) -> _SocketStream:
        """A connection to the first of the host's addresses that takes one (RFC 8305, "happy eyeballs")."""
        # `asyncio.open_connection` races in the same way, but tells neither number nor kind of several errors.
        begin = asyncio.get_running_loop().time()
        attempts = (partial(self._connect_to, *one) for one in _in_turn(found))
        link, _, failures = await staggered_race(attempts, _NEXT_S)
        if link is None:
            failure = failures[0]
            if isinstance(failure, TimeoutError):
                raise self._silent(asyncio.get_running_loop().time() - begin) from failure
            if isinstance(failure, OSError):
                raise self._refused(failure) from failure
            raise failure or AssertionError("a name without addresses")
        try:
            _keep_alive(link)
            return _SocketStream(*await asyncio.open_connection(sock=link))
        except BaseException:
            link.close()
            raise

    async def _connect_to(
        self, family: int, kind: int, protocol: int, name: str, where: tuple[Any, ...]
    ) -> socket.socket:
        self._tried.append(str(where[0]))
        link = socket.socket(family, kind, protocol)
        try:
            link.setblocking(False)
            await asyncio.get_running_loop().sock_connect(link, where)
        except BaseException:
            link.close()
            raise
        return link

    def _silent(self, waited_s: float) -> ConnectFailed:
        return ConnectFailed(
            f"{self._named()} did not answer in {round(waited_s, 1):g} s",
            hint="check the address, the network, and what stands in between",
        )

    def _named(self) -> str:
        """The target, with all addresses that were tried, where its host is a name."""
        tried = ", ".join(dict.fromkeys(self._tried))
        return self._name if tried in ("", self._host) else f"{self._name} ({tried})"

    def _refused(self, error: OSError) -> TransportError:
        if error.errno == errno.ECONNREFUSED:
            said, hint = "refuses the connection", "nothing listens on that port, or its one connection is taken"
        elif error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL):
            said, hint = "cannot be reached", "no route leads there: check the address and the network"
        else:
            said, hint = f"could not be connected to ({system_says(error)})", "check the address and the network"
        return ConnectFailed(f"{self._named()} {said}", hint=hint)

    def _lost(self, cause: BaseException) -> LinkLost:
        return LinkLost(
            f"the connection to {self._name} has ended: {system_says(cause)}",
            hint="the emulator or terminal server has closed it, or gives its port to one client at a time",
        )


class _SocketStream:
    """A connected socket as `ByteStream`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._closed = False
        self._failure: Exception | None = None

    async def read(self) -> bytes:
        try:
            data = await self._reader.read(MAX_READ)
        except OSError as error:
            raise StreamEnded from error
        if not data:
            self._raise_ended()
        return data

    async def write(self, data: bytes, timeout_s: float) -> None:
        if self._closed or self._reader.at_eof():
            self._raise_ended()
        try:
            async with asyncio.timeout(timeout_s):
                self._writer.write(data)
                await self._writer.drain()
        except TimeoutError:
            raise
        except OSError as error:
            raise StreamEnded from (self._failure if self._closed else error)

    def offer(self, data: bytes) -> bool:
        if self._closed or self._reader.at_eof():
            self._raise_ended()
        if self._writer.transport.is_closing() or self._writer.transport.get_write_buffer_size():
            return False
        self._writer.write(data)
        return True

    async def close(self, failure: Exception | None = None) -> None:
        self._failure = self._failure or failure
        self._closed = True
        # What was written last may still be in a buffer, and may be a reset: it is sent, if the other end takes it.
        self._writer.close() if failure is None else self._writer.transport.abort()
        try:
            async with asyncio.timeout(_LINGER_S):
                await self._writer.wait_closed()
        except TimeoutError:
            self._writer.transport.abort()
        except OSError:
            pass

    def _raise_ended(self) -> None:
        cause = self._failure
        if not self._closed:
            cause = ConnectionError("the other end has closed it")
        raise StreamEnded from cause


def _keep_alive(link: socket.socket) -> None:
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            with suppress(OSError):
                link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _in_turn(found: list[Any]) -> list[Any]:
    """Addresses of one family and another by turns, in the system's order (RFC 8305, section 4)."""
    families: dict[int, list[Any]] = {}
    for one in found:
        families.setdefault(one[0], []).append(one)
    return [one for turn in zip_longest(*families.values()) for one in turn if one is not None]
