"""Which framing a UART speaks, found out by `AutoFraming`; and whether a shell has it, which `PromptFraming` sees."""

from __future__ import annotations

import asyncio
import logging
import re
from enum import Enum

from mcumgrx.plugin_api import ConsoleFraming, StreamFraming

log = logging.getLogger("mcumgrx.uart")

# op, version, flags, group, sequence, command, payload: a message as every framing returns it.
RawMessage = tuple[int, int, int, int, int, int, bytes]

# Echo of nothing, as a read in SMP version 1: every server answers it, if only to say that it does not know it. No
# request of a client can be confused with it, because they echo with a write.
PROBE = bytes.fromhex("00000004 0000ff00 a1616460")
_PROBE_REPLY = (1, 0, 0xFF, 0)  # op, group, sequence, command

# The prompt of Zephyr's shells, whatever the board has made of its name: "uart:~$ ". The newline that goes out in front
# of the first message calls it forth.
_PROMPT = re.compile(rb"\w:~\$ ")
_PROMPT_BYTES = 5

# So many requests in a row without an answer, and the device may have become another: its bootloader.
_DOUBT_AFTER = 2


class Kind(Enum):
    """How messages are told apart on a UART."""

    CONSOLE = "console"
    RAW = "raw"


class PromptFraming(ConsoleFraming):
    """Console framing that tells whether a shell has the port. `known`: it has, or has not; None: a prompt tells."""

    def __init__(self, line_length: int, known: bool | None) -> None:
        super().__init__(line_length=line_length)
        self.has_shell = bool(known)
        self._known = known
        self._last = b""  # of what the device has printed

    def take_text(self) -> bytes:
        text = super().take_text()
        if text and self._known is None and not self.has_shell:
            seen = self._last + text
            self._last = seen[1 - _PROMPT_BYTES :]
            if _PROMPT.search(seen):
                log.info("the device is a shell")
                self.has_shell = True
        return text


class AutoFraming:
    """Console or raw, whichever the device answers first; undecided until then.

    Messages are given back by `encode` as they are: only when they are sent is it known how. `lay_out` does it then.
    """

    def __init__(self, console: PromptFraming) -> None:
        self.kind: Kind | None = None
        self._console = console
        self._raw = StreamFraming()
        self._raw_asked = False  # an answer in raw framing may come
        self._text_bytes = 0  # what the raw framing has discarded of console text
        self._misses = 0
        self._decided = asyncio.Event()

    @property
    def discarded(self) -> int:
        return self._console.discarded + (self._raw.discarded - self._text_bytes if self.kind is Kind.RAW else 0)

    @property
    def garbled(self) -> int:
        return self._console.garbled

    def encode(self, message: bytes, write_bytes: int | None = None) -> list[bytes]:
        return [message]

    def lay_out(self, message: bytes, kind: Kind) -> bytes:
        """The bytes that carry `message` in framing `kind`."""
        if kind is Kind.RAW:
            self._raw_asked = True
            return message
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
            if any(map(_answers_probe, found)):
                self._decide(Kind.RAW)
                messages += found
        if messages:
            self._misses = 0
        return [message for message in messages if not _answers_probe(message)]

    def reset(self) -> None:
        self._console.reset()
        self._raw.reset()
        self._misses += 1
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
            self._text_bytes = self._raw.discarded
        self.kind = kind
        self._decided.set()


def _answers_probe(message: RawMessage) -> bool:
    op, _, _, group, sequence, command, _ = message
    return (op, group, sequence, command) == _PROBE_REPLY
