"""A link of the tests' own making, as small as the contract allows; works in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from mcumgrx.errors import LinkLost
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.framing import Framing, StreamFraming
from mcumgrx.protocol.header import REQUEST_OPS
from mcumgrx.transport import Limits, Transport

__all__ = ["Wire"]


class Wire(Transport):
    """No more than a transport needs. Its far end answers each echo after `delay_s`, unless it is `silent`."""

    def __init__(self, delay_s: float = 0.01) -> None:
        self.delay_s = delay_s
        self.silent = False
        self.sent: list[Sequence[bytes]] = []
        self.opened = 0
        self.arriving: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: the end
        self.heard: Callable[[bytes], None] = self.arriving.put_nowait
        self.device = StreamFraming(ops=REQUEST_OPS)

    async def open(self, timeout_s: float) -> None:
        self.opened += 1
        self.arriving = asyncio.Queue()
        self.heard = self.arriving.put_nowait

    async def close(self) -> None: ...

    async def send(self, writes: Sequence[bytes]) -> None:
        self.take(writes)

    def take(self, writes: Sequence[bytes]) -> None:
        self.sent.append(writes)
        for op, version, _, group, sequence, command, payload in self.device.feed(b"".join(writes)):
            answer = build_message(op | 1, version, 0, group, sequence, command, payload.replace(b"\x61d", b"\x61r", 1))
            if not self.silent:
                asyncio.get_running_loop().call_later(self.delay_s, self.heard, answer)

    async def receive(self) -> bytes:
        chunk = await self.arriving.get()
        if chunk is None:
            self.arriving.put_nowait(None)
            raise LinkLost("unplugged")
        return chunk

    def lose(self) -> None:
        self.arriving.put_nowait(None)

    @property
    def limits(self) -> Limits:
        return Limits(2048)

    def framing(self) -> Framing:
        return StreamFraming()
