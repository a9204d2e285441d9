"""The trailer at the end of a slot, which says what the bootloader is to do with it, and the room it takes.

Source: MCUboot `bootutil/src/bootutil_misc.c`, `docs/design.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from mcumgrx.errors import UsageError
from mcumgrx.mcuboot.file_bytes import FileBytes
from mcumgrx.mcuboot.kinds import filled

__all__ = [
    "MAGIC_BYTES",
    "TRAILER_ALIGNMENTS",
    "Padding",
    "TrailerLayout",
    "TrailerVariant",
    "padding_of",
    "trailer_magic",
]

MAGIC_BYTES = 16
_MAGIC_ALIGN_8 = bytes.fromhex("77c295f360d2ef7f3552500f2cb67980")
_MAGIC_TAIL = bytes.fromhex("2de15d29410b8d77679c110f1f8a")
TRAILER_ALIGNMENTS = (8, 16, 32)


def trailer_magic(max_align: int) -> bytes:
    """The last 16 bytes of a slot with a trailer; any alignment but 8 is named by the magic itself."""
    return _MAGIC_ALIGN_8 if max_align == 8 else max_align.to_bytes(2, "little") + _MAGIC_TAIL


class TrailerVariant(Enum):
    """What decides the size of the trailer's lower part."""

    SWAP = "swap"
    """Scratch and move; overwrite, direct XIP and RAM load leave the same room."""
    SWAP_OFFSET = "swap offset"
    SINGLE = "single slot"


@dataclass(frozen=True, slots=True)
class TrailerLayout:
    """Where the fields of a slot's trailer lie, as distances in bytes from the end of the slot.

    `max_align` is 8 for write sizes of 1 to 8, else the write size (16 or 32); `write_size` that of the flash;
    `max_sectors` what the bootloader was built with (`BOOT_MAX_IMG_SECTORS`, 128 by default). Encryption puts two keys
    of `key_bytes` each below `swap_size`; 0 without.
    """

    max_align: int = 8
    write_size: int = 4
    max_sectors: int = 128
    variant: TrailerVariant = TrailerVariant.SWAP
    key_bytes: int = 0

    def __post_init__(self) -> None:
        if self.max_align not in TRAILER_ALIGNMENTS or not 1 <= self.write_size <= self.max_align:
            raise UsageError(
                f"no trailer has alignment {self.max_align} with write size {self.write_size}",
                hint="max_align is 8, 16 or 32 and not below the write size",
            )
        if self.max_sectors < 1:
            raise UsageError("max_sectors must be at least 1")

    @classmethod
    def for_write_size(
        cls, write_size: int, max_sectors: int = 128, variant: TrailerVariant = TrailerVariant.SWAP
    ) -> TrailerLayout:
        """The layout of a flash with this write size, as MCUboot chooses it."""
        return cls(max(8, write_size), write_size, max_sectors, variant)

    def align(self, size: int) -> int:
        """`size` rounded up to `max_align`."""
        return -(-size // self.max_align) * self.max_align

    @property
    def magic(self) -> bytes:
        return trailer_magic(self.max_align)

    @property
    def magic_offset(self) -> int:
        return MAGIC_BYTES

    @property
    def image_ok_offset(self) -> int:
        return self.align(MAGIC_BYTES) + self.max_align

    @property
    def copy_done_offset(self) -> int:
        return self.image_ok_offset + self.max_align

    @property
    def swap_info_offset(self) -> int:
        return self.copy_done_offset + self.max_align

    @property
    def tlv_sizes_offset(self) -> int | None:
        """Swap using offset keeps the unprotected TLV sizes of both images here; the others have no such field."""
        return self.swap_info_offset + self.max_align if self.variant is TrailerVariant.SWAP_OFFSET else None

    @property
    def swap_size_offset(self) -> int:
        return (self.tlv_sizes_offset or self.swap_info_offset) + self.max_align

    @property
    def status_end_offset(self) -> int:
        """The upper end of the swap progress, below the keys if there are any."""
        return self.swap_size_offset + 2 * self.align(self.key_bytes)

    @property
    def status_states(self) -> int:
        """Progress records per sector."""
        return {TrailerVariant.SWAP: 3, TrailerVariant.SWAP_OFFSET: 2, TrailerVariant.SINGLE: 0}[self.variant]

    @property
    def status_size(self) -> int:
        """Bytes of swap progress."""
        return self.status_states * self.max_sectors * self.write_size

    @property
    def status_offset(self) -> int:
        """The first byte of the swap progress."""
        return self.status_end_offset + self.status_size

    @property
    def size(self) -> int:
        """The whole trailer."""
        return self.status_offset


class Padding(NamedTuple):
    """What lies behind the TLVs: whether it ends in a trailer, whether that says confirmed, and its alignment."""

    padded: bool = False
    confirmed: bool = False
    max_align: int | None = None


def padding_of(data: bytes | FileBytes, end: int) -> tuple[Padding, str | None]:
    """What lies behind the TLVs, which end at `end`, and what to warn of."""
    size = len(data) - end
    if not size:
        return Padding(), None
    last = data[max(end, len(data) - MAGIC_BYTES) :]
    for max_align in TRAILER_ALIGNMENTS:
        if last == trailer_magic(max_align):
            break
    else:
        filler = last[-1:]
        if filler in (b"\xff", b"\x00") and filled(data, end, filler) == size:
            return Padding(), f"{size:,} bytes of padding without a trailer follow the image"
        count = "1 byte that does" if size == 1 else f"{size:,} bytes that do"
        return Padding(), f"{count} not belong to the image follow{'s' if size == 1 else ''} it"
    at = len(data) - TrailerLayout(max_align, max_align).image_ok_offset
    confirmed = at >= end and data[at : at + 1] == b"\x01"
    effect = "marked confirmed: the device will swap it in for good" if confirmed else "the device will test it"
    warning = f"the file is padded to {size:,} bytes past the image, with a trailer ({effect})"
    return Padding(True, confirmed, max_align), warning
