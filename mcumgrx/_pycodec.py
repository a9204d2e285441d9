"""Readable reference of the compiled codec ``ext/_codec.pyx``.

Here: the SMP header (pack, unpack), one whole message in one allocation, and the reassembly of a stream of bytes into
messages. Not here: CBOR, line framing of serial ports, sequence numbers, any input or output.

The two modules have the same names, results and exceptions; the tests compare them. Import neither directly: take the
names from `mcumgrx.protocol.codec`, which picks one.

Header, eight bytes, multi-byte fields big-endian (``struct smp_hdr`` of Zephyr's ``mgmt/mcumgr/smp/smp.h``)::

    byte 0  bits 7..5 reserved, 4..3 version (0 = SMP v1, 1 = SMP v2), 2..0 op
    byte 1  flags
    2..3    length of the payload, header not counted
    4..5    group
    byte 6  sequence number
    byte 7  command
"""

from __future__ import annotations

import operator
import struct
from typing import TYPE_CHECKING, SupportsIndex, final

if TYPE_CHECKING:
    from typing import TypeAlias

    # What the tests feed: anything with a C-contiguous buffer.
    BytesLike: TypeAlias = bytes | bytearray | memoryview

__all__ = ["HEADER_SIZE", "Reassembler", "build_message", "pack_header", "unpack_header"]

HEADER_SIZE = 8

_HEADER = struct.Struct(">BBHHBB")
_MAX_PAYLOAD = 0xFFFF  # the length field has 16 bits


def _field(name: str, value: SupportsIndex, low: int, high: int) -> int:
    """The value as an integer; ValueError names the field when it is out of range."""
    number = operator.index(value)
    if not low <= number <= high:
        raise ValueError(f"{name} must be {low}..{high}, not {number}")
    return number


def _view(data: BytesLike) -> memoryview:
    """A view of the bytes; TypeError when there are none, BufferError when they do not lie in one piece."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the bytes are not C-contiguous")
    return view


def pack_header(op: int, version: int, flags: int, length: int, group: int, sequence: int, command: int) -> bytes:
    """The eight header bytes.

    Raises ValueError with the name of the first field that is out of range, TypeError when one is no integer.
    """
    op = _field("op", op, 0, 7)
    version = _field("version", version, 0, 3)
    flags = _field("flags", flags, 0, 0xFF)
    length = _field("length", length, 0, _MAX_PAYLOAD)
    group = _field("group", group, 0, 0xFFFF)
    sequence = _field("sequence", sequence, 0, 0xFF)
    command = _field("command", command, 0, 0xFF)
    return _HEADER.pack(version << 3 | op, flags, length, group, sequence, command)


def unpack_header(data: BytesLike, offset: int = 0) -> tuple[int, int, int, int, int, int, int]:
    """(op, version, flags, length, group, sequence, command) of the header at `offset`.

    The reserved bits of byte 0 are ignored, as the protocol asks of a receiver; so the values always pack again.
    Raises ValueError when the offset is negative or fewer than eight bytes follow it.
    """
    view = _view(data)
    start = operator.index(offset)
    if start < 0 or view.nbytes - start < HEADER_SIZE:
        raise ValueError(f"no {HEADER_SIZE} header bytes at offset {start} of {view.nbytes} bytes")
    first, flags, length, group, sequence, command = _HEADER.unpack_from(view, start)
    return first & 7, first >> 3 & 3, flags, length, group, sequence, command


def build_message(
    op: int, version: int, flags: int, group: int, sequence: int, command: int, payload: BytesLike
) -> bytes:
    """Header and payload in one piece; the length field is that of the payload.

    Raises ValueError as `pack_header` does, and for a payload of more than 65535 bytes.
    """
    header = pack_header(op, version, flags, 0, group, sequence, command)
    view = _view(payload)
    if view.nbytes > _MAX_PAYLOAD:
        raise ValueError(f"payload must be 0..{_MAX_PAYLOAD} bytes, not {view.nbytes}")
    return b"".join((header[:2], view.nbytes.to_bytes(2, "big"), header[4:], view))


@final
class Reassembler:
    """Cuts a stream of bytes into messages; any cut of the same bytes gives the same messages.

    `max_length` is the longest payload accepted, in bytes. `ops` is a bit mask of the op values accepted: a client
    passes ``1 << 1 | 1 << 3`` (the responses), a server ``1 << 0 | 1 << 2`` (the requests).

    A header is implausible when a reserved bit of byte 0 is set, its op is not in `ops` or its length is above
    `max_length`. Then one byte is skipped and the search goes on at the next, each rule as soon as its byte is there.
    So no more than one message that may still become complete is held: 8 + `max_length` bytes. Garbage never raises.

    Not for use by several threads at once.
    """

    __slots__ = ("_buffer", "_discarded", "_max_length", "_ops")

    def __init__(self, max_length: int, ops: int) -> None:
        """Raises ValueError when `max_length` is not 0..65535 or `ops` is not 1..255."""
        self._max_length = _field("max_length", max_length, 0, _MAX_PAYLOAD)
        self._ops = _field("ops", ops, 1, 0xFF)
        self._buffer = bytearray()
        self._discarded = 0

    @property
    def pending(self) -> int:
        """Bytes held: the beginning of a message that is not complete."""
        return len(self._buffer)

    @property
    def discarded(self) -> int:
        """Bytes skipped since the beginning, those dropped by `reset` included."""
        return self._discarded

    def reset(self) -> None:
        """Drop the incomplete message; its bytes count as discarded."""
        self._discarded += len(self._buffer)
        self._buffer.clear()

    def feed(self, chunk: BytesLike) -> list[tuple[int, int, int, int, int, int, bytes]]:
        """Take bytes; (op, version, flags, group, sequence, command, payload) of every message now complete.

        Raises TypeError for an object without bytes and BufferError for bytes that are not C-contiguous; both leave
        the state as it was.
        """
        buffer = self._buffer
        buffer += _view(chunk)
        messages = []
        start = skipped = 0
        while start < len(buffer):
            first = buffer[start]
            if first >> 5 or not self._ops >> (first & 7) & 1:
                start += 1
                skipped += 1
                continue
            if start + 4 > len(buffer):
                break  # the length is not there yet
            length = buffer[start + 2] << 8 | buffer[start + 3]
            if length > self._max_length:
                start += 1
                skipped += 1
                continue
            end = start + HEADER_SIZE + length
            if end > len(buffer):
                break
            _, flags, _, group, sequence, command = _HEADER.unpack_from(buffer, start)
            payload = bytes(buffer[start + HEADER_SIZE : end])
            messages.append((first & 7, first >> 3, flags, group, sequence, command, payload))
            start = end
        del buffer[:start]
        self._discarded += skipped
        return messages
