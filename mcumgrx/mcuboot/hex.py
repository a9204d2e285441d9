"""Intel HEX: what lies where in the flash. Source: Intel's "Hexadecimal Object File Format Specification" of 1988.

The text is never made into a picture of the flash: an nRF52's UICR alone would make that 256 MB. What is read are
segments, cut at every gap, because no gap is too small to lie between a bootloader and its application.
"""

from __future__ import annotations

from binascii import unhexlify
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot.kinds import Content, pieces

__all__ = ["MAX_DATA_BYTES", "HexFile", "Segment", "read_hex"]

MAX_DATA_BYTES = 24 * 1024 * 1024
"""So much data a text may hold; the largest flash that firmware is built for is a third of it."""

_MAX_LINES = 1_800_000
"""Those of `MAX_DATA_BYTES` in lines of 16 bytes, and some more: blank ones and comments."""

_MAX_LINE = 600  # of 255 bytes, with room for spaces and the end of the line
_MAX_RUNS = 20_000
"""Sections out of order are usual, thousands of them are none that a linker makes."""

_END, _SEGMENT, _START_SEGMENT, _LINEAR, _START_LINEAR = range(1, 6)  # 0 is data
_LENGTH_OF = {_END: 0, _SEGMENT: 2, _START_SEGMENT: 4, _LINEAR: 2, _START_LINEAR: 4}


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes without a gap, and where they lie."""

    address: int
    data: bytes = field(repr=False)

    @property
    def end(self) -> int:
        """The address behind the last byte."""
        return self.address + len(self.data)


@dataclass(frozen=True, slots=True)
class HexFile:
    """The segments, by address, and what to warn of."""

    segments: tuple[Segment, ...]
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Run:
    """Records that follow each other in the text and in memory."""

    address: int
    data: bytearray
    late: int = 0
    """The line that it begins in, where that is behind the end record."""

    @property
    def end(self) -> int:
        return self.address + len(self.data)


def read_hex(text: Content) -> HexFile:
    """Read all of an Intel HEX text.

    Blank lines, comments (`;`, `#`) and any case of digits are taken; `\\r\\n` is, too. Raises `ImageError`, which
    names the line, for anything that is not as it should be: checksums, lengths, two records for one address, data
    behind the end, no end.
    """
    reader = _Reader(text)
    reader.read()
    if not reader.ended:
        raise ImageError(
            f"the Intel HEX text is cut: no end record follows line {reader.number}",
            hint="copy or build the file again; a download or copy was not complete",
        )
    return HexFile(tuple(reader.segments()), tuple(reader.warnings))


class _Reader:
    def __init__(self, text: Content) -> None:
        self.text = text
        self.number = 0
        self.ended = 0
        """The line of the end record, 0 before it."""
        self.warnings: list[str] = []
        self._runs: list[_Run] = []
        self._base = 0
        self._room = 1 << 32
        """How far data may reach above it."""
        self._size = 0
        self._behind = 0

    # -- records ------------------------------------------------------------------------------------------------------

    def read(self) -> None:
        run = _Run(-1, bytearray())
        end = -1
        for address, data in self._data():
            if address != end or self.ended:
                run = _Run(address, bytearray(), self.ended and self.number)
                self._runs.append(run)
                if len(self._runs) > _MAX_RUNS:
                    self._refuse(f"more than {_MAX_RUNS:,} pieces of memory out of order")
                end = address
            run.data += data
            end += len(data)
            self._size += len(data)
            if self._size > MAX_DATA_BYTES:
                self._refuse(f"more than {MAX_DATA_BYTES:,} bytes of data, too many for firmware")
        if self._behind:
            self.warnings.append(f"what follows the end record (from line {self._behind} on) is not read")

    def _data(self) -> Iterator[tuple[int, bytes]]:
        """Address and data of each record that has some, all of it checked. The one loop that every line passes."""
        for line in self._lines():
            self.number += 1
            if line[:1] != b":":
                self._other(line.strip())
                continue
            try:
                record = unhexlify(line[1:].rstrip())
            except ValueError:
                self._no_digits(line)
                continue
            size = len(record) - 5
            if size < 0 or size != record[0]:
                self._refuse(
                    f"it is cut: {size + 5} bytes"
                    if size < 0
                    else f"its length does not fit: it says {record[0]} bytes of data and has {size}"
                )
            if sum(record) & 0xFF:
                self._refuse(f"the checksum is wrong: {record[-1]:02X}, not {-sum(record[:-1]) & 0xFF:02X}")
            if record[3]:
                self._control(record[3], record[4:-1])
            elif size:
                offset = record[1] << 8 | record[2]
                if offset + size > self._room:
                    self._refuse("the data run past the end of their segment")
                yield self._base + offset, record[4:-1]

    def _control(self, kind: int, data: bytes) -> None:
        if len(data) != _LENGTH_OF.get(kind):
            known = kind in _LENGTH_OF
            self._refuse(f"a record of type {kind:02X} with {len(data)} bytes" if known else f"type {kind:02X}")
        if kind == _END:
            self.ended = self.ended or self.number
        elif kind in (_SEGMENT, _LINEAR):
            self._base = int.from_bytes(data, "big") << (4 if kind == _SEGMENT else 16)
            self._room = 0x10000 if kind == _SEGMENT else (1 << 32) - self._base

    def _other(self, line: bytes) -> None:
        """A line that does not begin with a record."""
        if not line or line[:1] in b";#":
            return
        if not self.ended:
            self._refuse("no record: it does not begin with ':'")
        self._behind = self._behind or self.number

    def _no_digits(self, line: bytes) -> None:
        if not self.ended:
            self._refuse("an odd number of digits, or something else among them")
        self._behind = self._behind or self.number

    def _lines(self) -> Iterator[bytes]:
        """Without spaces before them, and none longer than a record can be."""
        rest = b""
        for view in pieces(self.text, 0, len(self.text)):
            piece = bytes(view) if self.number else bytes(view).removeprefix(b"\xef\xbb\xbf")
            *lines, rest = (rest + piece).split(b"\n")
            if max(map(len, lines), default=0) > _MAX_LINE:
                lines = [self._checked(line, count) for count, line in enumerate(lines, self.number + 1)]
            rest = self._checked(rest, self.number + len(lines) + 1)
            if b" " in piece or b"\t" in piece:
                lines = [line.lstrip() for line in lines]
            yield from lines
            if self.number > _MAX_LINES:
                self._refuse(f"more than {_MAX_LINES:,} lines")
        if rest:
            yield rest.lstrip()

    def _checked(self, line: bytes, number: int) -> bytes:
        """The line; of a comment no more than its beginning."""
        if len(line) <= _MAX_LINE:
            return line
        if line[:1] not in b";#":
            self._refuse(f"it has {len(line):,} characters, more than a record can have", number)
        return line[:1]

    def _refuse(self, what: str, line: int = 0) -> NoReturn:
        raise ImageError(
            f"the Intel HEX text is damaged, line {line or self.number}: {what}",
            hint="copy or build the file again",
        )

    # -- segments -----------------------------------------------------------------------------------------------------

    def segments(self) -> Iterator[Segment]:
        """The runs put together by address."""
        found: list[_Run] = []
        for run in sorted(self._runs, key=lambda one: (one.late > 0, one.address)):
            if run.late:
                self._check_late(found, run)
            elif found and run.address < found[-1].end:
                self._overlap(run.address)
            elif found and run.address == found[-1].end:
                found[-1].data += run.data
            else:
                found.append(run)
        for run in found:
            yield Segment(run.address, bytes(run.data))
            run.data = bytearray()

    def _check_late(self, found: list[_Run], run: _Run) -> None:
        """Data behind the end record may only repeat what is there: anything else is a second file behind the first."""
        at = bisect_right(found, run.address, key=lambda one: one.address) - 1
        skipped = run.address - found[at].address if at >= 0 else 0
        if at < 0 or found[at].data[skipped : skipped + len(run.data)] != run.data:
            self._refuse(f"data behind the end record in line {self.ended}: two files put together?", run.late)
        self._behind = min(self._behind or run.late, run.late)
        self.warnings = [f"what follows the end record (from line {self._behind} on) is not read"]

    def _overlap(self, address: int) -> NoReturn:
        """Reads once more, to name the lines."""
        self.number, self._base, self._room, self.ended = 0, 0, 1 << 32, 0
        first = 0
        for start, data in self._data():
            if start <= address < start + len(data):
                if first:
                    self._refuse(f"it overlaps line {first}: both have data for address 0x{address:08X}")
                first = self.number
        raise AssertionError("runs overlap, but no records do")
