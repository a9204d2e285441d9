"""One slot of the flash as MCUboot sees it: an image at its start, a trailer at its end.

Reads and writes the trailer's fields one at a time, in the units the flash demands; what they mean for the next boot
is decided in `bootloader`.
"""

from __future__ import annotations

import struct
from enum import Enum, IntEnum

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot import (
    IMAGE_MAGIC,
    MAGIC_BYTES,
    ImageFlag,
    ImageHeader,
    TrailerLayout,
    Version,
    parse_header,
    parse_tlvs,
    trailer_magic,
)
from mcumgrx.sim.flash import ERASED, Flash, FlashError

# In an image header.
_FLAGS_OFFSET = 16
_VERSION_OFFSET = 20
_VERSION = struct.Struct("<BBHI")

COPY_BYTES = 1024
"""MCUboot copies through a buffer of this size (BOOT_TMPBUF_SZ by default): one write each."""


class SwapType(IntEnum):
    """What the next boot does, with bootutil's numbers (`BOOT_SWAP_TYPE_*`)."""

    NONE = 1
    TEST = 2
    PERM = 3
    REVERT = 4
    FAIL = 5
    PANIC = 0xFF


class Mark(Enum):
    """The state of the magic or of a flag in a trailer."""

    UNSET = "unset"
    SET = "set"
    BAD = "bad"
    """Neither: damaged, or written by somebody else."""


class Slot:
    """`size` bytes of flash at `offset`, with a trailer as `trailer` describes it."""

    def __init__(self, flash: Flash, offset: int, size: int, trailer: TrailerLayout, name: str) -> None:
        self.flash = flash
        self.offset = offset
        self.size = size
        self.trailer = trailer
        self.name = name

    def __repr__(self) -> str:
        return f"<Slot {self.name}: {self.size} bytes at 0x{self.offset:x}>"

    # --- bytes and sectors ---

    @property
    def sector_size(self) -> int:
        return self.flash.sector_size

    @property
    def sectors(self) -> int:
        return self.size // self.flash.sector_size

    @property
    def trailer_sectors(self) -> int:
        """How many sectors at the end the trailer touches."""
        return -(-self.trailer.size // self.sector_size)

    def read(self, offset: int, length: int) -> bytes:
        return self.flash.read(self.offset + offset, length)

    def content(self) -> bytes:
        return self.read(0, self.size)

    def write(self, offset: int, data: bytes) -> None:
        """Write, filled up with erased bytes to whole write units. Raises `FlashError` beyond the end of the slot."""
        unit = self.flash.write_size
        if offset + len(data) > self.size:
            raise FlashError(f"{len(data)} bytes at {offset} do not fit the {self.name} slot of {self.size} bytes")
        self.flash.write(self.offset + offset, data.ljust(-(-len(data) // unit) * unit, bytes([ERASED])))

    def erase_sector(self, index: int) -> None:
        self.flash.erase(self.offset + index * self.sector_size, self.sector_size)

    def erase(self) -> None:
        """Erase everything, from the start."""
        self.flash.erase(self.offset, self.size)

    def erase_trailer(self) -> None:
        """Erase the sectors of the trailer, the last one first: without its magic the rest means nothing."""
        for index in range(self.sectors - 1, self.sectors - 1 - self.trailer_sectors, -1):
            self.erase_sector(index)

    def copy_from(self, source: Slot, source_offset: int, offset: int, length: int) -> None:
        """Copy bytes of another (or this) slot to erased flash."""
        for at in range(0, length, COPY_BYTES):
            chunk = min(COPY_BYTES, length - at)
            self.write(offset + at, source.read(source_offset + at, chunk))

    # --- the image ---

    def header(self, offset: int = 0) -> ImageHeader | None:
        """The image header at `offset`, or None where there is none."""
        try:
            return parse_header(self.read(offset, 32))
        except ImageError:
            return None

    def header_erased(self, offset: int = 0) -> bool:
        """Whether nothing stands where the header's magic would be."""
        return self.flash.is_erased(self.offset + offset, 4)

    def flagged_not_bootable(self, offset: int = 0) -> bool:
        """Whether a header there would have the flag NON_BOOTABLE; bootutil asks before it looks at the magic."""
        flags = int.from_bytes(self.read(offset + _FLAGS_OFFSET, 4), "little")
        return bool(flags & ImageFlag.NON_BOOTABLE)

    def version_bytes(self, offset: int = 0) -> Version:
        """What a header at `offset` would have for a version, be it one or not."""
        return Version(*_VERSION.unpack(self.read(offset + _VERSION_OFFSET, _VERSION.size)))

    def has_magic(self, offset: int = 0) -> bool:
        return self.read(offset, 4) == IMAGE_MAGIC.to_bytes(4, "little")

    def image_bytes(self, offset: int = 0) -> bytes | None:
        """The image at `offset` from its header to its last TLV, or None if its lengths lead nowhere."""
        header = self.header(offset)
        if header is None or header.hashed_size > self.size:
            return None
        data = self.read(offset, self.size - offset)
        try:
            _, end = parse_tlvs(data, header)
        except ImageError:
            return None
        return data[:end]

    # --- the trailer ---

    @property
    def magic(self) -> Mark:
        if not self.size:
            return Mark.UNSET
        found = self.read(self.size - MAGIC_BYTES, MAGIC_BYTES)
        if found == self.trailer.magic:
            return Mark.SET
        return Mark.UNSET if not found.strip(bytes([ERASED])) else Mark.BAD

    @property
    def image_ok(self) -> Mark:
        return self._flag(self.trailer.image_ok_offset)

    @property
    def copy_done(self) -> Mark:
        return self._flag(self.trailer.copy_done_offset)

    @property
    def swap_info(self) -> int:
        """The raw byte: swap type in the low half, image number in the high one; 0xFF if unset."""
        return self.read(self.size - self.trailer.swap_info_offset, 1)[0]

    @property
    def swap_size(self) -> int:
        """Bytes of the larger of the two images being swapped; 0xFFFFFFFF if unset."""
        return int.from_bytes(self.read(self.size - self.trailer.swap_size_offset, 4), "little")

    @property
    def tlv_sizes(self) -> tuple[int, int]:
        """Swap using offset only: unprotected TLV bytes of both images, as written when the swap began."""
        distance = self.trailer.tlv_sizes_offset
        assert distance is not None
        found = self.read(self.size - distance, 4)
        return int.from_bytes(found[:2], "little"), int.from_bytes(found[2:], "little")

    def write_magic(self) -> None:
        # Where the alignment is larger than the magic, the write begins before it.
        magic = trailer_magic(self.trailer.max_align)
        length = self.trailer.align(MAGIC_BYTES) if self.flash.write_size > MAGIC_BYTES else MAGIC_BYTES
        self.write(self.size - length, magic.rjust(length, bytes([ERASED])))

    def write_image_ok(self) -> None:
        self._write_field(self.trailer.image_ok_offset, b"\x01")

    def write_copy_done(self) -> None:
        self._write_field(self.trailer.copy_done_offset, b"\x01")

    def write_swap_info(self, kind: SwapType, image_number: int = 0) -> None:
        self._write_field(self.trailer.swap_info_offset, bytes([image_number << 4 | kind]))

    def write_swap_size(self, size: int) -> None:
        self._write_field(self.trailer.swap_size_offset, size.to_bytes(4, "little"))

    def write_tlv_sizes(self, primary: int, secondary: int) -> None:
        """Swap using offset only: unprotected TLV bytes of both images."""
        distance = self.trailer.tlv_sizes_offset
        assert distance is not None
        self._write_field(distance, primary.to_bytes(2, "little") + secondary.to_bytes(2, "little"))

    def write_progress(self, record: int, count: int = 1) -> None:
        """Note that `count` steps of a swap from `record` on are done, at once."""
        # bootutil writes the state number that follows; only that it is not erased matters.
        states = max(1, self.trailer.status_states)
        unit = self.flash.write_size
        offset = self.size - self.trailer.status_offset + record * unit
        noted = [bytes([number % states + 1]).ljust(unit, bytes([ERASED])) for number in range(record, record + count)]
        self.write(offset, b"".join(noted))

    def progress(self) -> int:
        """How many steps of a swap are done: the highest record written, counted from 1; 0 if there is none."""
        start = self.size - self.trailer.status_offset
        unit = self.flash.write_size
        used = self.read(start, self.trailer.status_size).rstrip(bytes([ERASED]))
        return -(-len(used) // unit)

    def _flag(self, distance: int) -> Mark:
        value = self.read(self.size - distance, 1)[0]
        return {1: Mark.SET, ERASED: Mark.UNSET}.get(value, Mark.BAD)

    def _write_field(self, distance: int, value: bytes) -> None:
        self.write(self.size - distance, value)
