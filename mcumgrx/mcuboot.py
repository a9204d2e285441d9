"""MCUboot image files: header, TLVs, hashes, trailer, and what a wrong file really is.

All that can be said about an image from its bytes alone lives here; nothing here talks to a device or checks a
signature (only the device knows its key). Everything is little-endian. Sources: MCUboot `bootutil/image.h`,
`docs/design.md` and imgtool's `image.py`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import struct
from dataclasses import dataclass, field
from enum import Enum, IntEnum, IntFlag
from functools import cached_property
from typing import BinaryIO, NamedTuple

from mcumgrx.errors import ImageError, UsageError
from mcumgrx.file_bytes import FileBytes, unreadable
from mcumgrx.file_kinds import SIGNED_HINT, Content, filled, kind_of, not_an_image, pieces

__all__ = [
    "HASH_ALGORITHMS",
    "IMAGE_MAGIC",
    "IN_MEMORY_BYTES",
    "MAX_FILE_BYTES",
    "Dependency",
    "FileBytes",
    "Image",
    "ImageFlag",
    "ImageHeader",
    "Tlv",
    "TlvType",
    "TrailerLayout",
    "TrailerVariant",
    "Version",
    "load_image",
    "parse_header",
    "parse_image",
    "parse_tlvs",
    "trailer_magic",
]

IMAGE_MAGIC = 0x96F3B83D
IMAGE_MAGIC_V1 = 0x96F3B83C
"""The layout of 2016, without 16-bit TLVs; today's servers refuse it."""

TLV_INFO_MAGIC = 0x6907
TLV_PROT_INFO_MAGIC = 0x6908

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Larger files are not read at all: the largest flash that MCUboot images live in is a fraction of it, and a file of
this size is a mistake (a disk image, a core dump)."""

IN_MEMORY_BYTES = 4 * 1024 * 1024
"""`load_image` reads files up to this size at once; larger ones stay on the disk."""

_HEADER = struct.Struct("<IIHHIIBBHII")
_TLV_INFO = struct.Struct("<HH")
_TLV = struct.Struct("<HH")
_DEPENDENCY = struct.Struct("<BB2xBBHI")

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


_ENCRYPTED = ImageFlag.ENCRYPTED_AES128 | ImageFlag.ENCRYPTED_AES256
_COMPRESSED = ImageFlag.COMPRESSED_LZMA1 | ImageFlag.COMPRESSED_LZMA2
_KNOWN_FLAGS = 0xF3D

_NRF5340_NETWORK = range(0x0100_0000, 0x0104_0000)
"""The flash of the nRF5340's network core, as that core sees it."""


class TlvType(IntEnum):
    """TLV types with a meaning of their own; 0x..A0 to 0x..FF are the vendor's."""

    KEYHASH = 0x01
    PUBKEY = 0x02
    SHA256 = 0x10
    SHA384 = 0x11
    SHA512 = 0x12
    RSA2048_PSS = 0x20
    ECDSA224 = 0x21
    ECDSA_SIG = 0x22
    RSA3072_PSS = 0x23
    ED25519 = 0x24
    SIG_PURE = 0x25
    ENC_RSA2048 = 0x30
    ENC_KW = 0x31
    ENC_EC256 = 0x32
    ENC_X25519 = 0x33
    ENC_X25519_SHA512 = 0x34
    DEPENDENCY = 0x40
    SEC_CNT = 0x50
    BOOT_RECORD = 0x60
    DECOMP_SIZE = 0x70
    DECOMP_SHA = 0x71
    DECOMP_SIGNATURE = 0x72
    COMP_DEC_SIZE = 0x73
    # docs/design.md says 0x80 and 0x81; image.h and imgtool use these.
    UUID_VID = 0x74
    UUID_CID = 0x75
    ANY = 0xFFFF


_TLV_TYPES = frozenset(TlvType)

HASH_ALGORITHMS: dict[int, tuple[str, int]] = {
    TlvType.SHA256: ("sha256", 32),
    TlvType.SHA384: ("sha384", 48),
    TlvType.SHA512: ("sha512", 64),
}
"""Hash TLV type → hashlib name and length in bytes."""

_SIGNATURES = frozenset(
    {TlvType.RSA2048_PSS, TlvType.ECDSA224, TlvType.ECDSA_SIG, TlvType.RSA3072_PSS, TlvType.ED25519}
)

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


@dataclass(frozen=True, slots=True)
class Tlv:
    """One record of a TLV area."""

    type: int
    """A `TlvType` where known, else the number."""
    value: bytes
    protected: bool = False

    @property
    def name(self) -> str:
        """The type's name as in MCUboot's `image.h` (without `IMAGE_TLV_`), or its number."""
        return self.type.name if isinstance(self.type, TlvType) else f"0x{self.type:02x}"


@dataclass(frozen=True, slots=True)
class Dependency:
    """The image needs image number `image` to have at least version `minimum`.

    `slot` tells which of its slots counts, in the nRF Connect SDK alone: 0 for the one that is active.
    """

    image: int
    minimum: Version
    slot: int = 0

    def met_by(self, version: Version) -> bool:
        """Whether an image of this version is enough: the build number does not count (MCUboot `loader.c`)."""
        return version[:3] >= self.minimum[:3]


@dataclass(frozen=True)
class Image:
    """A file that a device can take, with everything a client needs to know of it.

    Images are equal when their bytes are, wherever these lie (and all else is).
    """

    header: ImageHeader
    tlvs: tuple[Tlv, ...]
    hash: bytes = field(repr=False)
    """Value of the hash TLV: what the device lists and what test and confirm name. Not the hash of the file."""
    hash_type: TlvType
    content_size: int
    """Bytes up to the end of the unprotected TLVs; the file may be longer (padding, trailer)."""
    padded: bool
    """The file ends in a trailer magic (`imgtool --pad`): once uploaded it is pending without any command."""
    pad_confirmed: bool
    """The padding also marks the image as good (`imgtool --pad --confirm`): it would be swapped for ever."""
    data: bytes | FileBytes = field(repr=False, hash=False)
    """The whole file. `bytes`, but for a large file that `load_image` has left on the disk: `FileBytes`.

    Both have a length and give bytes by slices, which is all that an upload asks for; where it has to be `bytes`,
    `bytes(image.data)` makes them of either.
    """
    warnings: tuple[str, ...] = ()
    path: str | None = None
    padding_align: int | None = None
    """The alignment of the trailer's fields in a padded file: 8, 16 or 32; the device's flash must have the same."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.data)

    @property
    def version(self) -> Version:
        return self.header.version

    @property
    def flags(self) -> ImageFlag:
        return self.header.flags

    @property
    def load_address(self) -> int:
        return self.header.load_address

    @property
    def rom_address(self) -> int | None:
        """The slot address this image was linked for (direct XIP), or None if it says none."""
        return self.header.load_address if ImageFlag.ROM_FIXED in self.flags else None

    @property
    def bootable(self) -> bool:
        return ImageFlag.NON_BOOTABLE not in self.flags

    @property
    def encrypted(self) -> bool:
        """The payload is (or is marked as) encrypted: its hash cannot be checked here."""
        return bool(self.flags & _ENCRYPTED)

    @property
    def compressed(self) -> bool:
        return bool(self.flags & _COMPRESSED)

    @cached_property
    def file_sha256(self) -> bytes:
        """SHA-256 of the whole file: the `sha` of an upload request."""
        return self.data.sha256 if isinstance(self.data, FileBytes) else hashlib.sha256(self.data).digest()

    @property
    def signature_type(self) -> TlvType | None:
        """The kind of the first signature, or None for an image that carries none."""
        return next((TlvType(tlv.type) for tlv in self.tlvs if tlv.type in _SIGNATURES), None)

    @property
    def signature_name(self) -> str | None:
        """The signature as people call it: `ECDSA P-256`, `Ed25519 (pure)`; None for an image that carries none."""
        kind = self.signature_type
        if kind is TlvType.ECDSA_SIG:
            return "ECDSA P-384" if self.hash_type is TlvType.SHA384 else "ECDSA P-256"
        if kind is TlvType.ED25519:
            return "Ed25519 (pure)" if self.pure_signature else "Ed25519"
        names = {TlvType.RSA2048_PSS: "RSA-2048", TlvType.RSA3072_PSS: "RSA-3072", TlvType.ECDSA224: "ECDSA P-224"}
        return None if kind is None else names[kind]

    @property
    def pure_signature(self) -> bool:
        """The signature is over the image itself and not over its hash (`imgtool --pure`)."""
        return self.tlv_value(TlvType.SIG_PURE) == b"\x01"

    @property
    def hash_choices(self) -> tuple[int, ...]:
        """The lengths, in bits, that imgtool lets the hash of an image with this signature have."""
        if self.pure_signature:
            return (512,)
        match self.signature_type:
            case TlvType.ED25519:
                return (256, 512)
            case TlvType.ECDSA_SIG:
                return (384,) if self.hash_type is TlvType.SHA384 else (256,)
            case None:
                return (256, 384, 512)
        return (256,)

    @property
    def key_hash(self) -> bytes | None:
        """Hash of the public key that the image was signed with, if the file says it or holds the key itself."""
        told = self.tlv_value(TlvType.KEYHASH)
        key = self.tlv_value(TlvType.PUBKEY)
        if told is not None or key is None:
            return told
        return hashlib.new(HASH_ALGORITHMS[self.hash_type][0], key).digest()

    @property
    def unpacked_size(self) -> int | None:
        """Bytes of a compressed image's payload once it is unpacked, if the file says so."""
        value = self.tlv_value(TlvType.DECOMP_SIZE, protected=True) if self.compressed else None
        return int.from_bytes(value, "little") if value is not None and len(value) == 4 else None

    @property
    def for_network_core(self) -> bool:
        """Whether the payload runs on the network core of an nRF5340, as its reset vector tells."""
        if self.encrypted or self.compressed or self.header.image_size < 8:
            return False
        at = self.header.header_size + 4
        return int.from_bytes(self.data[at : at + 4], "little") & ~1 in _NRF5340_NETWORK

    @property
    def security_counter(self) -> int | None:
        value = self.tlv_value(TlvType.SEC_CNT, protected=True)
        return int.from_bytes(value, "little") if value is not None and len(value) == 4 else None

    @property
    def dependencies(self) -> tuple[Dependency, ...]:
        found = []
        for tlv in self.tlvs:
            if tlv.type == TlvType.DEPENDENCY and tlv.protected and len(tlv.value) == _DEPENDENCY.size:
                number, slot, *version = _DEPENDENCY.unpack(tlv.value)
                found.append(Dependency(number, Version(*version), slot))
        return tuple(found)

    @property
    def hashes_when_running(self) -> frozenset[bytes]:
        """The hashes a device may list for this image once it runs.

        A compressed image is unpacked into the primary slot and then goes by the hash of its unpacked form.
        """
        unpacked = self.tlv_value(TlvType.DECOMP_SHA, protected=True) if self.compressed else None
        return frozenset({self.hash} if unpacked is None else {self.hash, unpacked})

    def tlv_value(self, kind: int, *, protected: bool = False) -> bytes | None:
        """Value of the first TLV of this type in that area, or None."""
        return next((tlv.value for tlv in self.tlvs if tlv.type == kind and tlv.protected is protected), None)

    def trimmed(self) -> bytes:
        """The file without anything behind its unprotected TLVs: no padding and no trailer."""
        return self.data[: self.content_size]

    def without_padding(self) -> Image:
        """The same image without what follows it in its file."""
        return self if self.size == self.content_size else parse_image(self.trimmed(), path=self.path)


# --- the trailer ------------------------------------------------------------------------------------------------------

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


class _Padding(NamedTuple):
    """What lies behind the TLVs: whether it ends in a trailer, whether that says confirmed, and its alignment."""

    padded: bool = False
    confirmed: bool = False
    max_align: int | None = None


def _padding(data: bytes | FileBytes, end: int) -> tuple[_Padding, str | None]:
    """What lies behind the TLVs, which end at `end`, and what to warn of."""
    size = len(data) - end
    if not size:
        return _Padding(), None
    last = data[max(end, len(data) - MAGIC_BYTES) :]
    for max_align in TRAILER_ALIGNMENTS:
        if last == trailer_magic(max_align):
            break
    else:
        filler = last[-1:]
        if filler in (b"\xff", b"\x00") and filled(data, end, filler) == size:
            return _Padding(), f"{size:,} bytes of padding without a trailer follow the image"
        count = "1 byte that does" if size == 1 else f"{size:,} bytes that do"
        return _Padding(), f"{count} not belong to the image follow{'s' if size == 1 else ''} it"
    at = len(data) - TrailerLayout(max_align, max_align).image_ok_offset
    confirmed = at >= end and data[at : at + 1] == b"\x01"
    effect = "marked confirmed: the device will swap it in for good" if confirmed else "the device will test it"
    warning = f"the file is padded to {size:,} bytes past the image, with a trailer ({effect})"
    return _Padding(True, confirmed, max_align), warning


# --- the payload ------------------------------------------------------------------------------------------------------

_EMPTY_START = 64
"""So many equal bytes are no beginning of a program: every vector table and every entry point has something there."""


def _suspicious_payload(data: bytes | FileBytes, header: ImageHeader) -> list[str]:
    """What a payload begins with that no processor can run; the image is valid, and would crash for ever."""
    start = bytes(data[header.header_size : min(header.tlv_offset, header.header_size + 4096)])
    if start.startswith(IMAGE_MAGIC.to_bytes(4, "little")):
        return ["the payload begins with another image header: the file was signed twice, and will not run"]
    kind = kind_of(start)
    if kind is not None:
        return [f"the payload is {kind[0]}, which no device can run: sign the .bin instead"]
    filler = start[:1]
    if filler in (b"\x00", b"\xff") and len(start) - len(start.lstrip(filler)) >= min(_EMPTY_START, len(start)):
        empty = min(filled(data, header.header_size, filler), header.image_size)
        return [
            f"the payload begins with {empty:,} bytes of 0x{filler.hex()} where the vector table is due: was it signed "
            f"with a header of {header.header_size:,} bytes, and has room for a larger one? It will not run then"
        ]
    return []


# --- parsing ----------------------------------------------------------------------------------------------------------


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


def parse_tlvs(data: Content, header: ImageHeader) -> tuple[tuple[Tlv, ...], int]:
    """Read both TLV areas: the records and where the last one ends.

    Raises `ImageError` when an area is missing, inconsistent or cut.
    """
    offset = header.tlv_offset
    tlvs: list[Tlv] = []
    if header.protected_tlv_size:
        offset = _read_area(data, offset, TLV_PROT_INFO_MAGIC, tlvs, expected=header.protected_tlv_size)
    end = _read_area(data, offset, TLV_INFO_MAGIC, tlvs)
    return tuple(tlvs), end


def _cut(have: int, need: int) -> ImageError:
    missing = f"{need - have:,} byte{'s' if need - have != 1 else ''} missing"
    return ImageError(
        f"the file is cut: {missing} (it has {have:,} of at least {need:,})",
        hint="copy or build the file again; a download or copy was not complete"
        if need <= MAX_FILE_BYTES
        else "no device takes so much: its header is damaged; copy or build the file again",
    )


def _read_area(data: Content, offset: int, magic: int, tlvs: list[Tlv], expected: int | None = None) -> int:
    name = "protected" if magic == TLV_PROT_INFO_MAGIC else "unprotected"
    if len(data) < offset + _TLV_INFO.size:
        raise _cut(len(data), offset + _TLV_INFO.size)
    found: int
    total: int
    found, total = _TLV_INFO.unpack(data[offset : offset + _TLV_INFO.size])
    if found != magic:
        if found == TLV_PROT_INFO_MAGIC:
            raise ImageError(
                "the file has a protected TLV area that its header does not announce",
                hint="the header was changed after signing; sign the image again with imgtool",
            )
        raise ImageError(
            f"no {name} TLV area follows at offset {offset} (magic 0x{found:04x}, not 0x{magic:04x})",
            hint="the file is damaged, or only its header was made; sign it with imgtool",
        )
    if expected is not None and total != expected:
        raise ImageError(
            f"the protected TLV area is {total} bytes, but the header says {expected}",
            hint="the file is damaged; sign the image again with imgtool",
        )
    end = offset + total
    if total < _TLV_INFO.size:
        raise ImageError(f"the {name} TLV area claims a length of {total}", hint="the file is damaged")
    if len(data) < end:
        raise _cut(len(data), end)
    offset += _TLV_INFO.size
    while offset < end:
        if offset + _TLV.size > end:
            raise ImageError(f"the {name} TLV area ends inside a record", hint="the file is damaged")
        kind, length = _TLV.unpack(data[offset : offset + _TLV.size])
        offset += _TLV.size
        if offset + length > end:
            raise ImageError(
                f"TLV 0x{kind:02x} of {length} bytes does not fit the {name} TLV area", hint="the file is damaged"
            )
        if kind in _TLV_TYPES:  # others are the vendor's own, or newer than this table: kept by their number
            kind = TlvType(kind)
        tlvs.append(Tlv(kind, bytes(data[offset : offset + length]), magic == TLV_PROT_INFO_MAGIC))
        offset += length
    return end


def parse_image(data: Content, *, path: str | None = None) -> Image:
    """Check a signed image and say what is in it.

    Structure and hash are checked (the hash of an encrypted image cannot be); the signature is not. `path` is only
    carried along. `FileBytes` are read piece by piece, and kept as they are; anything else becomes `bytes`. Raises
    `ImageError`, which names what the bytes are when they are no image.
    """
    try:
        return _parse_image(data if isinstance(data, FileBytes) else bytes(data), path)
    except ImageError as error:
        error.path = path
        raise


def _parse_image(data: bytes | FileBytes, path: str | None) -> Image:
    warnings: list[str] = []
    if not data[:4] == IMAGE_MAGIC.to_bytes(4, "little"):
        raise _other_format(data)
    if len(data) < HEADER_BYTES:
        raise _cut(len(data), HEADER_BYTES)
    header = parse_header(data)
    if header.header_size < HEADER_BYTES:
        raise ImageError(
            f"the header claims a size of {header.header_size} bytes, less than its own {HEADER_BYTES}",
            hint="the file is damaged",
        )
    need = header.hashed_size + _TLV_INFO.size
    if len(data) < need:
        raise _cut(len(data), need)
    tlvs, end = parse_tlvs(data, header)

    # The server looks for its hash in the unprotected area only and wants exactly one [Zephyr img_mgmt.c].
    hashes = [tlv for tlv in tlvs if tlv.type in HASH_ALGORITHMS and not tlv.protected]
    if len(hashes) != 1:
        raise ImageError(
            "the image has no hash TLV" if not hashes else f"the image has {len(hashes)} hash TLVs, not one",
            hint="a server lists an image by its one hash; sign the image again with imgtool",
        )
    digest, hash_type = hashes[0].value, TlvType(hashes[0].type)
    algorithm, length = HASH_ALGORITHMS[hash_type]
    if len(digest) != length:
        raise ImageError(f"the {hash_type.name} TLV has {len(digest)} bytes, not {length}", hint="the file is damaged")
    if header.flags & _ENCRYPTED:
        # The hash covers the plain payload, which only the device can make.
        warnings.append("the image is encrypted: its hash cannot be checked here")
    elif _digest(data, header.hashed_size, algorithm) != digest:
        raise ImageError(
            f"the image's hash ({hash_type.name}) does not match its content",
            hint="the file was changed or damaged after signing; the bootloader would refuse it",
        )

    padding, warning = _padding(data, end)
    if warning is not None:
        warnings.append(warning)
    if not header.flags & (_ENCRYPTED | _COMPRESSED):
        warnings += _suspicious_payload(data, header)
    if hash_type is TlvType.SHA384:
        warnings.append(
            "its hash is SHA-384: firmware lists only images with the one hash that it was built for, and that is "
            "SHA-256 or SHA-512 in most"
        )
    if any(tlv.type == TlvType.DEPENDENCY and tlv.protected and len(tlv.value) != _DEPENDENCY.size for tlv in tlvs):
        warnings.append("a dependency has a wrong length: a bootloader of several images takes it for one never met")
    if not any(tlv.type in _SIGNATURES for tlv in tlvs):
        warnings.append("the image carries no signature: only a bootloader that checks none will run it")
    if header.flags & ~_KNOWN_FLAGS:
        warnings.append(f"unknown header flags 0x{header.flags & ~_KNOWN_FLAGS:08x}")
    if header.flags & ImageFlag.NON_BOOTABLE:
        warnings.append("the image is marked as not bootable")
    return Image(
        header,
        tlvs,
        digest,
        hash_type,
        end,
        padding.padded,
        padding.confirmed,
        data,
        tuple(warnings),
        path,
        padding.max_align,
    )


def _digest(data: bytes | FileBytes, end: int, algorithm: str) -> bytes:
    digest = hashlib.new(algorithm)
    for piece in pieces(data, 0, end):
        digest.update(piece)
    return digest.digest()


def _other_format(data: bytes | FileBytes) -> ImageError:
    """What to say of bytes that do not begin with the header of today's images."""
    if data[:4] == IMAGE_MAGIC_V1.to_bytes(4, "little"):
        return ImageError(
            "the image has the ancient header format (magic 0x96f3b83c), which no server accepts",
            hint="sign it again with a current imgtool",
        )
    return not_an_image(data)


# --- files ------------------------------------------------------------------------------------------------------------


def load_image(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO, *, max_bytes: int = MAX_FILE_BYTES
) -> Image:
    """Read and check an image from a path, from bytes or from an open binary file.

    A file that is named by its path and larger than `IN_MEMORY_BYTES` is not kept in memory but left where it is, as
    `FileBytes`, and stays open as long as the image is in use.

    Raises `ImageError` for files that cannot be read, that are larger than `max_bytes`, or that `parse_image` refuses.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return parse_image(source)
    data: bytes | FileBytes
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        try:
            _refuse_devices(path)
            with open(path, "rb") as stream:
                status = os.fstat(stream.fileno())
                size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                if size > max_bytes:
                    raise _too_large(path, max_bytes)
                # What is asked for takes memory at once, and not all files tell their size (/proc, pipes).
                data = stream.read(size or max_bytes + 1) if size <= IN_MEMORY_BYTES else FileBytes(path)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
            raise unreadable(path, error) from error
    else:
        name = getattr(source, "name", None)
        path = name if isinstance(name, str) else ""
        try:
            data = source.read(max_bytes + 1)
        except (OSError, ValueError) as error:  # ValueError: a closed file
            raise unreadable(path, error) from error
        if not isinstance(data, bytes):
            raise ImageError("the image file is open in text mode", path=path or None, hint='open it with mode "rb"')
    if len(data) > max_bytes:
        raise _too_large(path, max_bytes)
    try:
        return parse_image(data, path=path or None)
    except ImageError:
        if isinstance(data, FileBytes):
            data.close()  # now, however long somebody keeps the error
        raise


def _refuse_devices(path: str) -> None:
    """Devices are not even opened: that alone resets some boards, and reading one need not end."""
    with contextlib.suppress(OSError, ValueError):  # told when it is opened
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            hint = f"the file comes first, the device behind -d. {SIGNED_HINT[0].upper()}{SIGNED_HINT[1:]}"
            raise ImageError(f"{path} is a device, not an image file", path=path, hint=hint)
        if stat.S_ISSOCK(mode):
            raise ImageError(f"{path} is a socket, not an image file", path=path, hint=SIGNED_HINT)


def _too_large(path: str, max_bytes: int) -> ImageError:
    return ImageError(
        f"the file is larger than {max_bytes:,} bytes, too large for an image", path=path or None, hint=SIGNED_HINT
    )
