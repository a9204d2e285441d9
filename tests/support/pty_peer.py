"""The device's end of a pseudo-terminal, in the process of the test."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable

from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.console import ConsoleFraming
from mcumgrx.protocol.framing import Framing, RawMessage
from mcumgrx.protocol.header import REQUEST_OPS, Op

if sys.platform != "win32":
    import tty

REQUEST = build_message(Op.WRITE, 1, 0, 0, 7, 0, b"\xa1adehello")
REPLY = build_message(Op.WRITE_REPLY, 1, 0, 0, 7, 0, b"\xa1arehello")
PARSED = (Op.WRITE_REPLY, 1, 0, 0, 7, 0, b"\xa1arehello")


class Peer:
    """The device's end of a pseudo-terminal: keeps what comes, and answers what `answer` says."""

    def __init__(self, framing: Framing | None = None) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self.received = b""
        self.arrived_at: list[float] = []
        self.answer: Callable[[RawMessage], bytes | None] | None = None
        self.framing: Framing = ConsoleFraming(ops=REQUEST_OPS) if framing is None else framing
        self.messages: list[RawMessage] = []
        self.silence_s: float | None = None  # after so much of it the beginning of a message is forgotten
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._loop.add_reader(self.master, self._read)

    def _read(self) -> None:
        data = os.read(self.master, 65536)
        self.received += data
        if self.silence_s is not None and self.arrived_at and self._loop.time() - self.arrived_at[-1] > self.silence_s:
            self.framing.reset()
        self.arrived_at.append(self._loop.time())
        for message in self.framing.feed(data):
            self.messages.append(message)
            reply = self.answer(message) if self.answer else None
            if reply is not None:
                self.write(reply)
        self._news.set()

    def write(self, data: bytes) -> None:
        os.write(self.master, data)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()

    def deaf(self) -> None:
        """No longer read, so that the buffers fill up."""
        self._loop.remove_reader(self.master)

    def hear(self) -> None:
        """Read again."""
        self._loop.add_reader(self.master, self._read)

    def hang_up(self) -> None:
        if self.master >= 0:
            self._loop.remove_reader(self.master)
            os.close(self.master)
            self.master = -1

    def close(self) -> None:
        self.hang_up()
        os.close(self._slave)


def bare_echo(message: RawMessage) -> bytes:
    """The answer to an echo, without framing."""
    op, version, flags, group, sequence, command, payload = message
    body = payload.replace(b"\xa1ad", b"\xa1ar", 1)
    return build_message(op | 1, version, flags, group, sequence, command, body)


def echo(message: RawMessage) -> bytes:
    """The same in console framing."""
    (write,) = ConsoleFraming().encode(bare_echo(message))
    return write
