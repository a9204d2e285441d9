"""Between whole SMP messages and the bytes of a link: one interface, one class for each way of delimiting.

* `DatagramFraming`: one message is one datagram (UDP).
* `StreamFraming`: messages follow each other, their end told by the header's length; used where a link splits
  (BLE notifications) or has no boundaries at all (raw UART).
* `ConsoleFraming` in `console`: text lines with base64 and CRC16, between which the device may print.

A framing belongs to one link. It never raises for what the device sends: bytes that make no sense are skipped and
counted, text is handed back by `take_text`.
"""

from __future__ import annotations

from typing import Protocol

from .codec import HEADER_SIZE, Reassembler, split_messages
from .header import REPLY_OPS

# Payloads that devices send are bounded by their buffers, a few KB; the length field alone would allow this much.
MAX_LENGTH = 0xFFFF

# op, version, flags, group, sequence, command, payload: as `codec.Reassembler.feed` returns it.
RawMessage = tuple[int, int, int, int, int, int, bytes]


class Framing(Protocol):
    """What every framing offers."""

    @property
    def discarded(self) -> int:
        """Bytes that were neither part of a message nor text, since the beginning."""

    @property
    def garbled(self) -> int:
        """Messages since the beginning that were sent, and arrived damaged; 0 where a link has no check of its own."""

    def encode(self, message: bytes, write_bytes: int | None = None) -> list[bytes]:
        """The writes that carry `message`; none of them longer than `write_bytes`, where the link has such a limit."""

    def feed(self, chunk: bytes) -> list[RawMessage]:
        """Take what the link delivered; return the messages that are complete now."""

    def reset(self) -> None:
        """Forget a message that is only partly there: after connecting, subscribing, or a time-out."""
        return

    def take_text(self) -> bytes:
        """What the device wrote beside its messages since the last call. Bounded: the oldest is dropped first."""
        return b""


class DatagramFraming(Framing):
    """One datagram, one message; a second message in the same datagram is taken as well, an incomplete one never is."""

    garbled = 0

    def __init__(self, *, ops: int = REPLY_OPS) -> None:
        self._ops = ops
        self._discarded = 0

    @property
    def discarded(self) -> int:
        return self._discarded

    def encode(self, message: bytes, write_bytes: int | None = None) -> list[bytes]:
        return [message]

    def feed(self, chunk: bytes) -> list[RawMessage]:
        messages, left = split_messages(chunk, self._ops)
        self._discarded += left
        return messages


class StreamFraming(Framing):
    """Messages back to back in any cut. A message longer than one write goes out as several, nothing in between.

    The receiver of fragments requires the whole header in the first one, so a `write_bytes` below eight is a mistake.
    """

    garbled = 0

    def __init__(self, *, max_length: int = MAX_LENGTH, ops: int = REPLY_OPS) -> None:
        self._reassembler = Reassembler(max_length, ops)

    @property
    def discarded(self) -> int:
        return self._reassembler.discarded

    def encode(self, message: bytes, write_bytes: int | None = None) -> list[bytes]:
        if write_bytes is None or len(message) <= write_bytes:
            return [message]
        if write_bytes < HEADER_SIZE:
            raise ValueError(f"write_bytes of {write_bytes} cannot carry a header")
        return [message[start : start + write_bytes] for start in range(0, len(message), write_bytes)]

    def feed(self, chunk: bytes) -> list[RawMessage]:
        return self._reassembler.feed(chunk)

    def reset(self) -> None:
        self._reassembler.reset()
