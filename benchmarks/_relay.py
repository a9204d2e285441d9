"""A wire with a delay and a rate between a client and a server, on this computer only. Used by `servers.py`.

`Relay` stands in an event loop between two ends. Each direction is a `Wire`: bytes leave one after the other at so many
bytes/s, and arrive the one-way delay later. Timers are as fine as the event loop's, about a millisecond, so what
arrives within that comes together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator

from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.console import ConsoleFraming

__all__ = ["DatagramEnd", "End", "Pseudoterminal", "Relay", "StreamEnd", "Wire"]

# Bytes of a stream that share a time of arrival: 2.8 ms at 115200 baud.
PIECE_BYTES = 32

ALL_OPS = 0xFF


class Wire:
    """One direction. `deliver` gets what arrives."""

    def __init__(self, deliver: Callable[[bytes], None], delay_s: float, bytes_per_s: float | None) -> None:
        self._deliver = deliver
        self.delay_s = delay_s
        self.bytes_per_s = bytes_per_s
        self._loop = asyncio.get_running_loop()
        self._free_at = 0.0
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.carried = 0
        """Bytes so far."""

    def put(self, data: bytes) -> None:
        now = self._loop.time()
        self.carried += len(data)
        if self.bytes_per_s is None:
            self._under_way.append((now + self.delay_s, data))
        else:
            self._free_at = max(self._free_at, now)
            for start in range(0, len(data), PIECE_BYTES):
                piece = data[start : start + PIECE_BYTES]
                self._free_at += len(piece) / self.bytes_per_s
                self._under_way.append((self._free_at + self.delay_s, piece))
        if self._timer is None:
            self._plan()

    def close(self) -> None:
        self._under_way.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        self._timer = self._loop.call_at(self._under_way[0][0], self._arrive) if self._under_way else None

    def _arrive(self) -> None:
        now = self._loop.time()
        while self._under_way and self._under_way[0][0] <= now:
            self._deliver(self._under_way.popleft()[1])
        self._plan()


class End(ABC):
    """Where bytes go in and out. `heard` is called with what comes."""

    heard: Callable[[bytes], None]

    @abstractmethod
    def send(self, data: bytes) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class Pseudoterminal(End):
    """For a client that wants a serial port, which is `name`. It stays when the client closes it."""

    def __init__(self) -> None:
        import pty
        import tty

        self._ours, self._theirs = pty.openpty()
        tty.setraw(self._theirs)
        os.set_blocking(self._ours, False)
        self.name = os.ttyname(self._theirs)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours, self._read)

    def _read(self) -> None:
        self.heard(os.read(self._ours, 65536))

    def send(self, data: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # nobody reads: a serial port loses it, too
            os.write(self._ours, data)

    def close(self) -> None:
        self._loop.remove_reader(self._ours)
        os.close(self._ours)
        os.close(self._theirs)


class StreamEnd(End):
    """A TCP connection to `port` on this computer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._task = asyncio.create_task(self._follow(reader))

    @classmethod
    async def open(cls, port: int) -> StreamEnd:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(reader, writer)

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        while data := await reader.read(65536):
            self.heard(data)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def close(self) -> None:
        self._task.cancel()
        self._writer.close()


class DatagramEnd(End):
    """A UDP socket. With `to` it sends there, without to whoever was the last to send to it; `port` is its own."""

    def __init__(self, to: int | None = None) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._peer = ("127.0.0.1", to) if to is not None else None
        self._answers_any = to is None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def _read(self) -> None:
        while True:
            try:
                data, peer = self._socket.recvfrom(65536)
            except OSError:  # nothing more, or told that nobody listens
                return
            if self._answers_any:
                self._peer = peer
            self.heard(data)

    def send(self, data: bytes) -> None:
        if self._peer is not None:
            self._socket.sendto(data, self._peer)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()


class Relay:
    """Two ends with a wire each way. `bridge` lays datagrams of the client as console lines for the server."""

    def __init__(
        self, client: End, server: End, *, delay_s: float, bytes_per_s: float | None = None, bridge: bool = False
    ) -> None:
        self._ends = client, server
        framing = ConsoleFraming(ops=ALL_OPS) if bridge else None

        def to_server(data: bytes) -> None:
            server.send(b"".join(framing.encode(data)) if framing is not None else data)

        def from_server(data: bytes) -> None:
            if framing is None:
                self.down.put(data)
                return
            for found in framing.feed(data):
                self.down.put(build_message(*found))
            framing.take_text()

        self.up = Wire(to_server, delay_s, bytes_per_s)
        self.down = Wire(client.send, delay_s, bytes_per_s)
        client.heard = self.up.put
        server.heard = from_server

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """No delay and no limit of the rate for a while, in which nothing is under way at first and in the end."""
        wires = self.up, self.down
        before = [(wire.delay_s, wire.bytes_per_s) for wire in wires]
        for wire in wires:
            wire.delay_s, wire.bytes_per_s = 0.0, None
        try:
            yield
        finally:
            for wire, (delay_s, bytes_per_s) in zip(wires, before, strict=True):
                wire.delay_s, wire.bytes_per_s = delay_s, bytes_per_s

    def close(self) -> None:
        self.up.close()
        self.down.close()
        for end in self._ends:
            end.close()
