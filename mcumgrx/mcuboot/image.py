"""An image and what its bytes tell: structure and hash are checked, the signature is not: only the device has the key.

Sources: MCUboot `bootutil/image.h`, `docs/design.md`, imgtool's `image.py`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot.file_bytes import FileBytes
from mcumgrx.mcuboot.header import HEADER_BYTES, IMAGE_MAGIC, ImageFlag, ImageHeader, Version, parse_header
from mcumgrx.mcuboot.kinds import Content, filled, is_vector_table, kind_of, not_an_image, pieces
from mcumgrx.mcuboot.tlv import (
    HASH_ALGORITHMS,
    INSTALLER,
    SIGNATURES,
    TLV_INFO_BYTES,
    Dependency,
    Tlv,
    TlvType,
    cut,
    parse_tlvs,
)
from mcumgrx.mcuboot.trailer import padding_of

__all__ = ["Image", "parse_image"]

IMAGE_MAGIC_V1 = 0x96F3B83C
"""The layout of 2016, without 16-bit TLVs; today's servers refuse it."""

_ENCRYPTED = ImageFlag.ENCRYPTED_AES128 | ImageFlag.ENCRYPTED_AES256
_COMPRESSED = ImageFlag.COMPRESSED_LZMA1 | ImageFlag.COMPRESSED_LZMA2
_KNOWN_FLAGS = 0xF3D
_MANIFEST = struct.Struct("<II")  # format, how many hashes follow

_NRF5340_NETWORK = range(0x0100_0000, 0x0104_0000)
"""The flash of the nRF5340's network core, as that core sees it."""


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
        return next((TlvType(tlv.type) for tlv in self.tlvs if tlv.type in SIGNATURES), None)

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
    def reset_vector(self) -> int | None:
        """Where its code starts, by the vector table of a Cortex-M; None without one, or where it cannot be read."""
        if self.encrypted or self.compressed or self.header.image_size < 8:
            return None
        at = self.header.header_size
        vector = int.from_bytes(self.data[at + 4 : at + 8], "little")
        return vector if vector & ~1 in _NRF5340_NETWORK or is_vector_table(self.data, at) else None

    @property
    def for_network_core(self) -> bool:
        """Whether the payload runs on the network core of an nRF5340, as its reset vector tells."""
        vector = self.reset_vector
        return vector is not None and vector & ~1 in _NRF5340_NETWORK

    @property
    def installer(self) -> bool:
        """It brings a SoftDevice and a firmware loader, as far as its vendor TLV tells, and removes itself then."""
        kind, value = INSTALLER
        return self.tlv_value(kind, protected=True) == value

    @property
    def security_counter(self) -> int | None:
        value = self.tlv_value(TlvType.SEC_CNT, protected=True)
        return int.from_bytes(value, "little") if value is not None and len(value) == 4 else None

    @property
    def dependencies(self) -> tuple[Dependency, ...]:
        return tuple(found for found in map(Dependency.read, _dependencies(self.tlvs)) if found is not None)

    @property
    def manifest(self) -> tuple[bytes, ...] | None:
        """The hashes of all other images, by their numbers, that run beside this one and no others do (nRF Connect SDK,
        `imgtool --manifest`); None for an image without such a list, or with one that cannot be read."""
        value = self.tlv_value(TlvType.MANIFEST, protected=True)
        if value is None or len(value) < _MANIFEST.size:
            return None
        version, count = _MANIFEST.unpack_from(value)
        hashes = value[_MANIFEST.size :]
        if version != 1 or not count or len(hashes) != count * len(self.hash):
            return None
        return tuple(hashes[at : at + len(self.hash)] for at in range(0, len(hashes), len(self.hash)))

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
    if not data[:4] == IMAGE_MAGIC.to_bytes(4, "little"):
        raise _other_format(data)
    if len(data) < HEADER_BYTES:
        raise cut(len(data), HEADER_BYTES)
    header = parse_header(data)
    if header.header_size < HEADER_BYTES:
        raise ImageError(
            f"the header claims a size of {header.header_size} bytes, less than its own {HEADER_BYTES}",
            hint="the file is damaged",
        )
    need = header.hashed_size + TLV_INFO_BYTES
    if len(data) < need:
        raise cut(len(data), need)
    tlvs, end = parse_tlvs(data, header)
    digest, hash_type = _hash_of(data, header, tlvs)
    padding, warning = padding_of(data, end)
    return Image(
        header,
        tlvs,
        digest,
        hash_type,
        end,
        padding.padded,
        padding.confirmed,
        data,
        tuple(_warnings(data, header, tlvs, hash_type, warning)),
        path,
        padding.max_align,
    )


def _hash_of(data: bytes | FileBytes, header: ImageHeader, tlvs: tuple[Tlv, ...]) -> tuple[bytes, TlvType]:
    """The image's hash, which its content must have, and the kind of it."""
    # The server looks for its hash in the unprotected area only and wants exactly one [Zephyr img_mgmt.c].
    hashes = [tlv for tlv in tlvs if tlv.type in HASH_ALGORITHMS and not tlv.protected]
    if len(hashes) != 1:
        raise ImageError(
            "the image has no hash TLV" if not hashes else f"the image has {len(hashes)} hash TLVs, not one",
            hint="a server lists an image by its one hash; sign the image again with imgtool",
        )
    found, kind = hashes[0].value, TlvType(hashes[0].type)
    algorithm, length = HASH_ALGORITHMS[kind]
    if len(found) != length:
        raise ImageError(f"the {kind.name} TLV has {len(found)} bytes, not {length}", hint="the file is damaged")
    # That of an encrypted image covers the plain payload, which only the device can make.
    if not header.flags & _ENCRYPTED and _digest(data, header.hashed_size, algorithm) != found:
        raise ImageError(
            f"the image's hash ({kind.name}) does not match its content",
            hint="the file was changed or damaged after signing; the bootloader would refuse it",
        )
    return found, kind


def _warnings(
    data: bytes | FileBytes, header: ImageHeader, tlvs: tuple[Tlv, ...], hash_type: TlvType, padding: str | None
) -> Iterator[str]:
    if header.flags & _ENCRYPTED:
        yield "the image is encrypted: its hash cannot be checked here"
    if padding is not None:
        yield padding
    if not header.flags & (_ENCRYPTED | _COMPRESSED):
        yield from _suspicious_payload(data, header)
    if hash_type is TlvType.SHA384:
        yield (
            "its hash is SHA-384: firmware lists only images with the one hash that it was built for, and that is "
            "SHA-256 or SHA-512 in most"
        )
    if None in map(Dependency.read, _dependencies(tlvs)):
        yield "a dependency has a wrong length: a bootloader of several images takes it for one never met"
    if not any(tlv.type in SIGNATURES for tlv in tlvs):
        yield "the image carries no signature: only a bootloader that checks none will run it"
    if header.flags & ~_KNOWN_FLAGS:
        yield f"unknown header flags 0x{header.flags & ~_KNOWN_FLAGS:08x}"
    if header.flags & ImageFlag.NON_BOOTABLE:
        yield "the image is marked as not bootable"


def _dependencies(tlvs: tuple[Tlv, ...]) -> Iterator[bytes]:
    return (tlv.value for tlv in tlvs if tlv.type == TlvType.DEPENDENCY and tlv.protected)


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
