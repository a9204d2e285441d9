"""The TLV areas behind an image's payload. Sources: MCUboot `bootutil/image.h`, `docs/design.md`."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot.header import ImageHeader, Version
from mcumgrx.mcuboot.kinds import Content

__all__ = [
    "HASH_ALGORITHMS",
    "INSTALLER",
    "MAX_FILE_BYTES",
    "SIGNATURES",
    "TLV_INFO_BYTES",
    "TLV_INFO_MAGIC",
    "TLV_PROT_INFO_MAGIC",
    "Dependency",
    "Tlv",
    "TlvType",
    "cut",
    "parse_tlvs",
]

TLV_INFO_MAGIC = 0x6907
TLV_PROT_INFO_MAGIC = 0x6908

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Larger files are not read at all: the largest flash that MCUboot images live in is a fraction of it, and a file of
this size is a mistake (a disk image, a core dump)."""

_TLV_INFO = struct.Struct("<HH")
_TLV = struct.Struct("<HH")
_DEPENDENCY = struct.Struct("<BB2xBBHI")
TLV_INFO_BYTES = _TLV_INFO.size


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
    MANIFEST = 0x76  # nRF Connect SDK alone
    ANY = 0xFFFF


_TLV_TYPES = frozenset(TlvType)

INSTALLER = 0x00A0, b"\x01"
"""The vendor's type and value in an installer image of Nordic's bare-metal SDK (`image_signing_installer.cmake`)."""

HASH_ALGORITHMS: dict[int, tuple[str, int]] = {
    TlvType.SHA256: ("sha256", 32),
    TlvType.SHA384: ("sha384", 48),
    TlvType.SHA512: ("sha512", 64),
}
"""Hash TLV type → hashlib name and length in bytes."""

SIGNATURES = frozenset({TlvType.RSA2048_PSS, TlvType.ECDSA224, TlvType.ECDSA_SIG, TlvType.RSA3072_PSS, TlvType.ED25519})


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

    @classmethod
    def read(cls, value: bytes) -> Dependency | None:
        """From the value of its TLV; None where that has a wrong length."""
        if len(value) != _DEPENDENCY.size:
            return None
        number, slot, *version = _DEPENDENCY.unpack(value)
        return cls(number, Version(*version), slot)

    def met_by(self, version: Version) -> bool:
        """Whether an image of this version is enough: the build number does not count (MCUboot `loader.c`)."""
        return version[:3] >= self.minimum[:3]


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


def cut(have: int, need: int) -> ImageError:
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
        raise cut(len(data), offset + _TLV_INFO.size)
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
        raise cut(len(data), end)
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
