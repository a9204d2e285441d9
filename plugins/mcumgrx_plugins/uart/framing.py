"""Which framing a UART speaks, and what its transport must hear of it.

`WatchedConsole` and `WatchedRaw` are the framings of the core that tell their transport when a request was not
answered, when one was, and, where there is any, what the device prints. `AutoFraming` finds out which of the two the
device speaks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from mcumgrx.plugin_api import ConsoleFraming, StreamFraming

__all__ = ["PROBE", "AutoFraming", "Kind", "Listener", "WatchedConsole", "WatchedRaw"]

# op, version, flags, group, sequence, command, payload: a message as every framing returns it.
RawMessage = tuple[int, int, int, int, int, int, bytes]

# Echo of nothing, as a read in SMP version 1: every server answers it, if only to say that it does not know it. No
# request of a client can be confused with it, because they echo with a write.
PROBE = bytes.fromhex("00000004 0000ff00 a1616460")
_PROBE_REPLY = (1, 0, 0xFF, 0)  # op, group, sequence, command

# So many requests in a row without an answer, and the device may have become another: its bootloader.
_DOUBT_AFTER = 2


class Kind(Enum):
    """How messages are told apart on a UART."""

    CONSOLE = "console"
    RAW = "raw"


class Listener(Protocol):
    """What a transport is told."""

    def unanswered(self) -> None:
        """A request was not answered: half of it may lie in the device's buffer, and must not spoil the next."""

    def answered(self, size: int, behind: int) -> None:
        """A request that took `size` bytes was answered, so it has left; `behind` bytes were laid out after it."""

    def printed(self, text: bytes) -> None:
        """The device has written this beside its messages."""


class _Ledger:
    """How many bytes each request took, and how many came behind it."""

    def __init__(self) -> None:
        self._total = 0
        self._laid: dict[int, tuple[int, int]] = {}  # sequence → bytes up to and with it, its own

    def lay(self, message: bytes, size: int) -> None:
        self._total += size
        self._laid[message[6]] = (self._total, size)

    def tell(self, messages: list[RawMessage], listener: Listener) -> None:
        laid = self._laid.pop(messages[-1][4], None)
        if laid is not None:
            listener.answered(laid[1], self._total - laid[0])


class WatchedConsole(ConsoleFraming):
    """Console framing with a listener."""

    def __init__(self, line_length: int, listener: Listener) -> None:
        super().__init__(line_length=line_length)
        self._listener = listener
        self._ledger = _Ledger()

    def encode(self, message: bytes, write_bytes: int | None = None) -> list[bytes]:
        writes = super().encode(message, write_bytes)
        self._ledger.lay(message, len(writes[0]))
        return writes

    def feed(self, chunk: bytes) -> list[RawMessage]:
        messages = super().feed(chunk)
        if messages:
            self._ledger.tell(messages, self._listener)
        return messages

    def reset(self) -> None:
        super().reset()
        self._listener.unanswered()

    def take_text(self) -> bytes:
        text = super().take_text()
        if text:
            self._listener.printed(text)
        return text


class WatchedRaw(StreamFraming):
    """Raw framing with a listener, which is told also when device and we disagree where a message begins.

    Nothing but the header's length marks an end, and there is no checksum: after a lost byte the device takes data for
    headers and answers what nobody has asked. It starts afresh after a silence, and so do we.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        self._ledger = _Ledger()
        self._asked: dict[int, tuple[int, int, int]] = {}  # sequence → op of the reply, group, command

    def encode(self, message: bytes, write_bytes: int | None = None) -> list[bytes]:
        self._asked[message[6]] = ((message[0] & 7) | 1, int.from_bytes(message[4:6], "big"), message[7])
        self._ledger.lay(message, len(message))
        return super().encode(message, write_bytes)

    def feed(self, chunk: bytes) -> list[RawMessage]:
        before = self.discarded
        messages = super().feed(chunk)
        if self.discarded > before or not all(self._is_ours(message) for message in messages):
            self._listener.unanswered()
        elif messages:
            self._ledger.tell(messages, self._listener)
        return messages

    def reset(self) -> None:
        super().reset()
        self._listener.unanswered()

    def _is_ours(self, message: RawMessage) -> bool:
        op, _, _, group, sequence, command, _ = message
        return self._asked.get(sequence) == (op, group, command)


class AutoFraming:
    """Console or raw, whichever the device answers first; undecided until then.

    Messages are given back by `encode` as they are: only when they are sent is it known how. `lay_out` does it then.
    """

    def __init__(self, line_length: int, listener: Listener) -> None:
        self.kind: Kind | None = None
        self._listener = listener
        self._console = WatchedConsole(line_length, _Filter(listener))
        self._raw = WatchedRaw(_Filter(listener, self._out_of_step))
        self._raw_asked = False  # an answer in raw framing may come
        self._misses = 0
        self._decided = asyncio.Event()

    @property
    def discarded(self) -> int:
        return self._raw.discarded if self.kind is Kind.RAW else self._console.discarded

    @property
    def garbled(self) -> int:
        return self._console.garbled

    def encode(self, message: bytes, write_bytes: int | None = None) -> list[bytes]:
        return [message]

    def lay_out(self, message: bytes, kind: Kind) -> bytes:
        """The bytes that carry `message` in framing `kind`."""
        if kind is Kind.RAW:
            self._raw_asked = True
            return b"".join(self._raw.encode(message))
        return b"".join(self._console.encode(message))

    async def decide(self, timeout_s: float) -> bool:
        """Wait for any answer; whether one came in `timeout_s` seconds."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._decided.wait()
        except TimeoutError:
            return False
        return True

    def feed(self, chunk: bytes) -> list[RawMessage]:
        messages: list[RawMessage] = []
        if self.kind is not Kind.RAW:
            messages += self._console.feed(chunk)
            if messages:
                self._decide(Kind.CONSOLE)
        if self.kind is Kind.RAW:
            messages += self._raw.feed(chunk)
        elif self.kind is None and self._raw_asked:
            # Console text can look like a header, so only the answer to our own question counts.
            found = self._raw.feed(chunk)
            if any((op, group, sequence, command) == _PROBE_REPLY for op, _, _, group, sequence, command, _ in found):
                self._decide(Kind.RAW)
                messages += found
        if messages:
            self._misses = 0
        return messages

    def reset(self) -> None:
        self._console.reset()
        self._raw.reset()
        self._misses += 1
        self._listener.unanswered()
        if self._misses >= _DOUBT_AFTER:
            self.kind = None
            self._raw_asked = False
            self._decided.clear()

    def take_text(self) -> bytes:
        if self.kind is None and self._raw_asked:
            return b""  # it may be the beginning of an answer in raw framing
        return self._console.take_text()

    def _decide(self, kind: Kind) -> None:
        if kind is Kind.RAW:
            self._console.reset()
            self._console.take_text()
        self.kind = kind
        self._decided.set()

    def _out_of_step(self) -> None:
        if self.kind is Kind.RAW:
            self._listener.unanswered()


class _Filter:
    """Passes on what one of the two framings tells, but for what its own resets mean: those are `AutoFraming`'s."""

    def __init__(self, listener: Listener, unanswered: Callable[[], None] = lambda: None) -> None:
        self.answered = listener.answered
        self.printed = listener.printed
        self.unanswered = unanswered
