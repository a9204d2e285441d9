# cython: language_level=3, boundscheck=False, wraparound=False, annotation_typing=False, auto_pickle=False
"""The reading of CBOR as far as SMP has it: one source, run as it is or compiled to `mcumgrx._cbor`.

`mcumgrx/_cbor.pxd` gives its names the types of C; in Python nothing is to be seen of them. So this is Python of a
narrow kind: no index is negative or beyond the end, and what is counted fits 64 bits, but for what `number` holds.
"""

from __future__ import annotations

import struct

__all__ = ["decode_item"]

_MAX_DEPTH = 256  # of `max_depth`: far below what Python and C can stack

_half = struct.Struct(">e").unpack
_single = struct.Struct(">f").unpack
_double = struct.Struct(">d").unpack


def decode_item(data: bytes | bytearray | memoryview, max_depth: int) -> object:
    """The first CBOR item of `data`; what stands behind it is ignored, as servers do.

    Answers come from a device that nobody vouches for, so this reads what SMP consists of, and nothing that a general
    decoder has beside it: integers of 64 bits, byte and text strings in one piece or several, lists and maps with or
    without a length, true, false, null, and floating point numbers, which vendors use. No tags: big numbers, shared
    references, dates or patterns are never built. `undefined` is read as null. Bytes in a text that are not UTF-8, such
    as those of a character that was cut, become U+FFFD. Equal keys make a `Repeating`.

    The memory that is taken is bounded by the bytes that are there: a length is believed only as far as they go.

    Raises ValueError, whose text goes on from "it": for an end inside an item, lists and maps of more than `max_depth`
    levels, a tag, a first byte without meaning, and a key that is no number, text or byte string.
    """
    if type(data) is not bytes:
        view = memoryview(data)
        if not view.c_contiguous:
            raise BufferError("the bytes are not C-contiguous")
        data = bytes(view)
    if not 1 <= max_depth <= _MAX_DEPTH:
        raise ValueError(f"max_depth must be 1..{_MAX_DEPTH}, not {max_depth}")
    items = Items()
    items.data = data
    items.size = len(data)
    items.at = 0
    items.max_depth = max_depth
    return items.item(0)


class Repeating(dict[object, object]):
    """A map in which keys come more than once: of each the last value, and in `pairs` all of them, in their order."""

    def __init__(self, found: dict[object, object], pairs: list[tuple[object, object]]) -> None:
        super().__init__(found)
        self.pairs = pairs


class Items:
    """Reads items one after the other (RFC 8949, section 3)."""

    # Not in a constructor: compiled, that would take longer than a short answer.
    data: bytes
    size: int
    at: int
    max_depth: int
    # Of the head that was read last: before anything else is read they are copied.
    major: int
    info: int  # 31: no length
    argument: int

    def item(self, depth: int) -> object:
        start = self.at
        self.head()
        major = self.major
        if major == 0:
            return self.argument
        if major == 1:
            number = self.argument
            return -1 - number
        if major == 2:
            return self.string(2, self.info, self.argument)
        if major == 3:
            return self.string(3, self.info, self.argument).decode("utf-8", "replace")
        if major == 6:
            raise ValueError(f"has a tag at byte {start}, which SMP does not know")
        if major == 7:
            return self.simple(start)
        if depth == self.max_depth:
            raise ValueError(f"is nested more than {self.max_depth} levels deep")
        if major == 4:
            return self.list_of(self.info, self.argument, depth + 1)
        return self.map_of(self.info, self.argument, depth + 1)

    def simple(self, start: int) -> object:
        info = self.info
        if info == 20:
            return False
        if info == 21:
            return True
        if info == 22 or info == 23:
            return None
        if info == 25:
            return _half(self.data[start + 1 : start + 3])[0]
        if info == 26:
            return _single(self.data[start + 1 : start + 5])[0]
        if info == 27:
            return _double(self.data[start + 1 : start + 9])[0]
        raise self.no_item(start)

    def head(self) -> None:
        """Read the head of the next item."""
        start = self.at
        if start == self.size:
            raise self.cut()
        first = self.data[start]
        self.major = first >> 5
        self.info = first & 0x1F
        self.at = start + 1
        if self.info < 24:
            self.argument = self.info
        elif self.info < 28:
            width = 1 << (self.info - 24)
            if self.size - self.at < width:
                raise self.cut()
            argument = 0
            for index in range(self.at, self.at + width):
                argument = argument << 8 | self.data[index]
            self.argument = argument
            self.at += width
        elif self.info == 31 and 2 <= self.major <= 5:
            self.argument = 0
        else:
            raise self.no_item(start)

    def string(self, major: int, info: int, argument: int) -> bytes:
        if info != 31:
            return self.take(argument)
        pieces = []
        while not self.at_break():
            start = self.at
            self.head()
            if self.major != major or self.info == 31:
                raise self.no_item(start)
            pieces.append(self.take(self.argument))
        return b"".join(pieces)

    def take(self, size: int) -> bytes:
        start = self.at
        left = self.size - start
        if size > left:
            raise self.cut()
        self.at = end = start + size
        return self.data[start:end]

    def list_of(self, info: int, count: int, depth: int) -> list[object]:
        found: list[object] = []
        if info == 31:
            while not self.at_break():
                found.append(self.item(depth))
            return found
        left = self.size - self.at
        if count > left:
            raise self.cut()
        while count:
            found.append(self.item(depth))
            count -= 1
        return found

    def map_of(self, info: int, count: int, depth: int) -> dict[object, object]:
        found: dict[object, object] = {}
        pairs: list[tuple[object, object]] | None = None
        left = (self.size - self.at) // 2
        if info == 31:
            count = 0
        elif count > left:
            raise self.cut()
        while not self.at_break() if info == 31 else count > 0:
            key = self.key(depth)
            value = self.item(depth)
            if pairs is None and key in found:
                pairs = list(found.items())
            if pairs is not None:
                pairs.append((key, value))
            found[key] = value
            if info != 31:
                count -= 1
        return found if pairs is None else Repeating(found, pairs)

    def key(self, depth: int) -> object:
        start = self.at
        # Others could be equal to a number (true, 1.0), or could not be looked up (lists).
        if start < self.size and self.data[start] >> 5 > 3:
            raise ValueError(f"has a key at byte {start} that is neither text nor a number")
        return self.item(depth)

    def at_break(self) -> bool:
        """Whether the end of an item without a length comes next; it is passed."""
        if self.at == self.size:
            raise self.cut()
        if self.data[self.at] != 0xFF:
            return False
        self.at += 1
        return True

    def cut(self) -> ValueError:
        return ValueError(f"is cut off: it ends after {self.size} bytes, inside a value")

    def no_item(self, start: int) -> ValueError:
        return ValueError(f"has the byte {self.data[start]:02x} at {start}, where a value should begin")
