"""NOR flash in memory: sectors, write units, bits that only an erase sets again, time spent, and power that fails.

What lies in the flash is no concern of this module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mcumgrx.errors import McumgrError

ERASED = 0xFF
_ERASED_PIECE = bytes([ERASED]) * 65536


class FlashError(McumgrError):
    """An access that the flash cannot do: outside of it, or not aligned to its sectors or write units."""


class PowerCut(Exception):
    """Power was lost at this operation; the flash keeps what it held. Not an error of anybody's."""

    def __init__(self, operation: Operation) -> None:
        super().__init__(f"power lost at flash {operation}")
        self.operation = operation


class OperationKind(Enum):
    WRITE = "write"
    ERASE = "erase"


@dataclass(frozen=True, slots=True)
class Operation:
    """One change of the flash; offset and length in bytes, `number` counts from 1 since the flash was made."""

    number: int
    kind: OperationKind
    offset: int
    length: int

    def __str__(self) -> str:
        return f"operation {self.number}: {self.kind.value} of {self.length} bytes at 0x{self.offset:x}"


@dataclass(frozen=True, slots=True)
class FlashTiming:
    """How long the flash is busy. The defaults are those of an nRF52840: 85 ms per page, 41 µs per 4 bytes."""

    erase_s_per_sector: float = 0.085
    write_s_per_byte: float = 0.041e-3 / 4
    operation_s: float = 0.0
    """On top of each operation; external flash has this cost on its bus."""


INSTANT = FlashTiming(0.0, 0.0, 0.0)


class Flash:
    """`size` bytes of NOR flash in sectors of `sector_size` bytes, written in units of `write_size` bytes.

    A write can only clear bits: writing over bytes that were not erased leaves the AND of both, as the hardware does,
    and is counted in `writes_over_data` if that is not what was written. Nothing here waits: `take_busy_s` tells how
    long it would have taken.
    """

    def __init__(
        self, size: int, *, sector_size: int = 4096, write_size: int = 4, timing: FlashTiming = INSTANT
    ) -> None:
        if min(size, sector_size, write_size) < 1 or size % sector_size or sector_size % write_size:
            raise FlashError(f"no flash has {size} bytes in sectors of {sector_size} written by {write_size}")
        self.size = size
        self.sector_size = sector_size
        self.write_size = write_size
        self.timing = timing
        self.writes = 0
        self.erases = 0
        self.writes_over_data = 0
        self.busy_s = 0.0
        """Time taken since `take_busy_s` was last called, in seconds."""
        self.watch: Callable[[Operation], None] | None = None
        """Called with each operation before it is done; what it raises stops the operation."""
        self._cut_before: int | None = None
        self._cut_torn = False

    @functools.cached_property
    def _data(self) -> bytearray:
        # Made when it is first needed: devices of 128 MB are made to look at their options, and thrown away.
        return bytearray([ERASED]) * self.size

    def __repr__(self) -> str:
        return f"<Flash {self.size} bytes, {self.operations} operations>"

    @property
    def operations(self) -> int:
        """Writes and erases done so far."""
        return self.writes + self.erases

    def take_busy_s(self) -> float:
        """The time taken since the last call, in seconds; starts again at 0."""
        taken, self.busy_s = self.busy_s, 0.0
        return taken

    def read(self, offset: int, length: int) -> bytes:
        """Raises `FlashError` outside of the flash."""
        self._check(offset, length, 1, "read")
        return bytes(self._data[offset : offset + length])

    def is_erased(self, offset: int, length: int) -> bool:
        """Whether all these bytes are erased."""
        self._check(offset, length, 1, "read")
        return self._erased(offset, offset + length)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write whole units; raises `FlashError` if offset or length are not aligned, `PowerCut` if that is due."""
        length = len(data)
        self._check(offset, length, self.write_size, "write")
        if length:
            self._operate(OperationKind.WRITE, offset, length, bytes(data))

    def erase(self, offset: int, length: int) -> None:
        """Erase whole sectors, each an operation of its own; raises as `write` does."""
        self._check(offset, length, self.sector_size, "erase")
        for sector in range(offset, offset + length, self.sector_size):
            self._operate(OperationKind.ERASE, sector, self.sector_size, None)

    def cut_power(self, after: int, *, torn: bool = False) -> None:
        """Let the power fail once `after` more operations are done: the next one raises `PowerCut`.

        It is not even begun, or half done if `torn` (in whole write units, which are never torn). The flash then works
        again, as after power has come back.
        """
        self._cut_before = self.operations + after + 1
        self._cut_torn = torn

    def keep_power(self) -> None:
        """Take a `cut_power` back that has not happened yet."""
        self._cut_before = None

    def snapshot(self) -> bytes:
        """All bytes, to be kept elsewhere."""
        return bytes(self._data)

    def restore(self, content: bytes | bytearray | memoryview) -> None:
        """Put a snapshot back, whatever was there; no operation, no time. Raises `FlashError` if the size differs."""
        if len(content) != self.size:
            raise FlashError(f"a snapshot of {len(content)} bytes does not fit a flash of {self.size}")
        self._data[:] = content

    def poke(self, offset: int, data: bytes) -> None:
        """Set bytes by force, past all rules of the flash: for programming a device before it is switched on."""
        self._check(offset, len(data), 1, "poke")
        self._data[offset : offset + len(data)] = data

    def _check(self, offset: int, length: int, unit: int, what: str) -> None:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise FlashError(f"{what} of {length} bytes at 0x{offset:x} is outside of the flash ({self.size} bytes)")
        if offset % unit or length % unit:
            raise FlashError(f"{what} of {length} bytes at 0x{offset:x} is not aligned to {unit} bytes")

    def _erased(self, start: int, end: int) -> bool:
        # Comparing copies is what Python does fastest: 64 MB in 10 ms, where counting takes 300.
        for at in range(start, end, len(_ERASED_PIECE)):
            piece = self._data[at : min(at + len(_ERASED_PIECE), end)]
            if piece != _ERASED_PIECE[: len(piece)]:
                return False
        return True

    def _operate(self, kind: OperationKind, offset: int, length: int, data: bytes | None) -> None:
        cut: Operation | None = None
        if self.watch is not None or self._cut_before is not None:
            operation = Operation(self.operations + 1, kind, offset, length)
            if self.watch is not None:
                self.watch(operation)
            if self._cut_before is not None and operation.number >= self._cut_before:
                cut = operation
                self._cut_before = None
                unit = self.write_size  # the least that the hardware does at once
                length = length // 2 // unit * unit if self._cut_torn else 0
                if not length:
                    raise PowerCut(operation)
        end = offset + length
        timing = self.timing
        if data is None:
            self.erases += 1
            self._data[offset:end] = bytes([ERASED]) * length
            self.busy_s += timing.operation_s + timing.erase_s_per_sector
        else:
            self.writes += 1
            self.busy_s += timing.operation_s + timing.write_s_per_byte * length
            data = data[:length]
            if not self._erased(offset, end):
                old = int.from_bytes(self._data[offset:end], "little")
                left = (old & int.from_bytes(data, "little")).to_bytes(length, "little")
                self.writes_over_data += left != data
                data = left
            self._data[offset:end] = data
        if cut is not None:
            raise PowerCut(cut)
