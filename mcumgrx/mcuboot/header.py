"""The 32 bytes at the start of an image, and the version in them. Source: MCUboot `bootutil/image.h`."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from enum import IntFlag
from typing import NamedTuple

from mcumgrx.errors import ImageError, UsageError
from mcumgrx.mcuboot.kinds import Content

__all__ = ["HEADER_BYTES", "IMAGE_MAGIC", "ImageFlag", "ImageHeader", "Version", "parse_header"]

IMAGE_MAGIC = 0x96F3B83D

_HEADER = struct.Struct("<IIHHIIBBHII")
HEADER_BYTES = _HEADER.size


class ImageFlag(IntFlag):
    """`ih_flags` of the header; other bits are kept as they are."""

    PIC = 0x00000001
    ENCRYPTED_AES128 = 0x00000004
    ENCRYPTED_AES256 = 0x00000008
    NON_BOOTABLE = 0x00000010
    RAM_LOAD = 0x00000020
    ROM_FIXED = 0x00000100
    COMPRESSED_LZMA1 = 0x00000200
    COMPRESSED_LZMA2 = 0x00000400
    COMPRESSED_ARM_THUMB_FLT = 0x00000800


_VERSION = re.compile(r"(\d{1,10})(?:\.(\d{1,10}))?(?:\.(\d{1,10}))?(?:[.+](\d{1,10}))?", re.ASCII)


class Version(NamedTuple):
    """A semantic version as the header holds it: 8, 8, 16 and 32 bits. Ordered, the build number last."""

    major: int
    minor: int = 0
    revision: int = 0
    build: int = 0

    def __str__(self) -> str:
        """`1.2.3` or `1.2.3+4`, as imgtool writes it."""
        text = f"{self.major}.{self.minor}.{self.revision}"
        return f"{text}+{self.build}" if self.build else text

    @property
    def device_text(self) -> str:
        """`1.2.3` or `1.2.3.4`, as servers write it in the image list."""
        return str(self).replace("+", ".")

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read `1.2.3+4` (imgtool) or `1.2.3.4` (servers); parts left out are 0.

        Raises `UsageError` (a `ValueError`) for anything else and for numbers that the header cannot hold.
        """
        found = _VERSION.fullmatch(text.strip())
        if found is None:
            raise UsageError(f"not a version: {text!r}", hint="versions look like 1.2.3 or 1.2.3+4")
        version = cls(*(int(part or 0) for part in found.groups()))
        for value, bits, name in zip(version, (8, 8, 16, 32), cls._fields, strict=True):
            if value >> bits:
                raise UsageError(
                    f"version {text!r}: {name} {value} does not fit {bits} bits",
                    hint="the image header has 8 bits each for major and minor, 16 for revision, 32 for build",
                )
        return version


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The 32 bytes at the start of an image; sizes in bytes."""

    load_address: int
    header_size: int
    """Offset of the payload: the whole reserved header, not 32."""
    protected_tlv_size: int
    """The whole protected TLV area with its info header; 0 if there is none."""
    image_size: int
    """The payload alone."""
    flags: ImageFlag
    version: Version

    @property
    def tlv_offset(self) -> int:
        """Where the first TLV area begins."""
        return self.header_size + self.image_size

    @property
    def hashed_size(self) -> int:
        """How much of the file the image hash covers: header, payload and protected TLVs."""
        return self.tlv_offset + self.protected_tlv_size

    def pack(self) -> bytes:
        """The header's 32 bytes."""
        return _HEADER.pack(
            IMAGE_MAGIC,
            self.load_address,
            self.header_size,
            self.protected_tlv_size,
            self.image_size,
            self.flags,
            *self.version,
            0,
        )


def parse_header(data: Content) -> ImageHeader:
    """Read the 32 header bytes and nothing else.

    Raises `ImageError` when they are too few or not an image header; what the bytes are instead is left to
    `parse_image`.
    """
    if len(data) < HEADER_BYTES:
        raise ImageError(f"{len(data)} bytes are too few for an image header ({HEADER_BYTES})")
    magic, load, header_size, protected, size, flags, *version, _ = _HEADER.unpack(data[:HEADER_BYTES])
    if magic != IMAGE_MAGIC:
        raise ImageError(f"no MCUboot image header: magic is 0x{magic:08x}, not 0x{IMAGE_MAGIC:08x}")
    return ImageHeader(load, header_size, protected, size, ImageFlag(flags), Version(*version))
