"""What a file is that is no signed MCUboot image, and which file to take instead.

Everything is told by the first bytes, but for binaries that have an image somewhere behind their beginning. Sources:
the formats' own documents.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot.file_bytes import FileBytes

__all__ = [
    "SIGNED_HINT",
    "filled",
    "is_hex",
    "is_multi_image",
    "is_vector_table",
    "kind_of",
    "not_an_image",
    "pieces",
]

Content: TypeAlias = bytes | bytearray | memoryview | FileBytes

SIGNED_HINT = "upload the signed binary, in Zephyr's build directory zephyr/zephyr.signed.bin"
_SIGN_HINT = f"{SIGNED_HINT}, or sign this file: imgtool sign --header-size 0x200 --align 4 --slot-size … --version …"
_BIN_HINT = "upload the .bin beside it, in Zephyr zephyr/zephyr.signed.bin"
_UNPACK = "unpack it first, and take the signed .bin"
_DOWNLOAD = "the download went wrong; it may have needed a login"

_PIECE = 64 * 1024
"""What is looked at at once."""

_IMAGE_MAGIC = b"\x3d\xb8\xf3\x96"

# The first bytes, what begins so, and what to do.
_KINDS: Sequence[tuple[bytes, str, str]] = (
    (b"\x7fELF", "an ELF file", SIGNED_HINT),
    (b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (b"PK\x05\x06", "an empty ZIP archive", SIGNED_HINT),
    (b"\x1f\x8b", "a gzip file", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz file", _UNPACK),
    (b"BZh", "a bzip2 file", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a zstd file", _UNPACK),
    (b"\x04\x22\x4d\x18", "an lz4 file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"UF2\n", "a UF2 file", SIGNED_HINT),
    (b"DfuSe", "a DfuSe file", SIGNED_HINT),
    (b"\xd8\x6b", "a SUIT envelope", "devices with MCUboot do not take it: " + SIGNED_HINT),
    (b"\x96\xf3\xb8\x3d", "a big-endian MCUboot image", "sign it little-endian, without imgtool's '-e big'"),
    (b"\x27\x05\x19\x56", "a U-Boot image", SIGNED_HINT),
    (b"\xd0\x0d\xfe\xed", "a device tree or FIT image", SIGNED_HINT),
    (b"MZ", "a Windows program", SIGNED_HINT),
    (b"\xcf\xfa\xed\xfe", "a macOS program", SIGNED_HINT),
    (b"Salted__", "a file that OpenSSL has encrypted", "decrypt it first; a device takes only what imgtool encrypts"),
    (b"age-encryption.org/", "a file that age has encrypted", "decrypt it first"),
    (b"-----BEGIN PGP", "a file that PGP has encrypted or signed", "decrypt it first"),
    (b"-----BEGIN ", "a key or certificate (PEM)", SIGNED_HINT),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (b"\xff\xfe", "a text file (UTF-16)", SIGNED_HINT),
    (b"\xfe\xff", "a text file (UTF-16)", SIGNED_HINT),
    (b"%PDF", "a PDF document", SIGNED_HINT),
    (b"\x89PNG", "a picture", SIGNED_HINT),
    (b"\xff\xd8\xff", "a picture", SIGNED_HINT),
)

_HEX_RECORD = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t]*(?:[;#][^\n]*)?\r?\n)*[ \t]*:[0-9A-Fa-f]{10}")
_S_RECORD = re.compile(rb"S[0-9][0-9A-Fa-f]{6}")
_TI_TEXT = re.compile(rb"@[0-9A-Fa-f]{4,8}\s*\n[0-9A-Fa-f]{2} ")
_HTML = re.compile(rb"\s*<(!doctype|html)", re.IGNORECASE)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml")
_MULTI_IMAGE = re.compile(rb"..\xa1\x63img[\x80-\x9f]", re.DOTALL)


def is_hex(start: bytes) -> bool:
    """Whether an Intel HEX text begins with these bytes."""
    return _HEX_RECORD.match(start) is not None


def is_multi_image(start: bytes) -> bool:
    """Whether a `dfu_multi_image.bin` begins with these bytes."""
    return _MULTI_IMAGE.match(start) is not None


def kind_of(start: bytes) -> tuple[str, str] | None:
    """What begins with these bytes (some hundred are enough), and what to do; None for what has no such beginning."""
    for magic, what, hint in _KINDS:
        if start.startswith(magic):
            return what, hint
    if is_hex(start):
        return "an Intel HEX text", _BIN_HINT
    if _S_RECORD.match(start):
        return "a Motorola S-record text", _BIN_HINT
    if _TI_TEXT.match(start):
        return "a TI-TXT text", _BIN_HINT
    if _HTML.match(start):
        return "a web page", _DOWNLOAD
    if _XML.match(start):
        return "an XML document", _DOWNLOAD
    if is_multi_image(start):
        return (
            "a package of several images (dfu_multi_image.bin)",
            "bring its images one by one, with --image: their signed .bin files are in dfu_application.zip",
        )
    if start[257:262] == b"ustar":
        return "a tar archive", _UNPACK
    # Number of segments, flash mode, then the magic of the application's description [esp-idf: esp_app_format.h].
    if start[:1] == b"\xe9" and len(start) > 3 and 1 <= start[1] <= 16 and start[2] <= 5:
        return "an ESP-IDF image", "for Espressif's own bootloader; Zephyr with MCUboot needs zephyr.signed.bin"
    return None


def not_an_image(data: Content) -> ImageError:
    """The error that says what `data`, which does not begin like an image, is."""
    if not len(data):
        return ImageError("the file is empty", hint="the build or the copy has failed")
    start = bytes(data[:4096])

    def not_signed(what: str, hint: str) -> ImageError:
        return ImageError(f"this is {what}, not a signed MCUboot image", hint=hint)

    kind = kind_of(start)
    if kind is not None:
        return not_signed(*kind)
    inside = _image_inside(data)
    if inside is not None:
        return not_signed(
            f"a binary with an MCUboot image {inside:,} bytes behind its beginning, as bootloader and application "
            "together are",
            "upload the signed .bin of the application alone, in Zephyr zephyr/zephyr.signed.bin",
        )
    if is_vector_table(data, 0):
        return not_signed("an unsigned Cortex-M binary (zephyr.bin)", _SIGN_HINT)
    filler = start[:1]
    if filler in (b"\x00", b"\xff") and start[:32] == filler * len(start[:32]):
        body = filled(data, 0, filler)
        if body == len(data):
            what = f"nothing but {len(data):,} bytes of 0x{filler.hex()}"
            return not_signed(what, "this may be a dump of erased flash; " + SIGNED_HINT)
        # Zephyr leaves room for the header (CONFIG_ROM_START_OFFSET), which imgtool fills in.
        core = " Cortex-M" if is_vector_table(data, body // 4 * 4) else ""
        return not_signed(f"an unsigned{core} binary with room for a header (zephyr.bin)", _SIGN_HINT)
    if all(byte in b"\t\r\n\x0c" or 0x20 <= byte < 0x7F for byte in start[:256].removeprefix(b"\xef\xbb\xbf")):
        return not_signed("a text file", SIGNED_HINT)
    return not_signed(f"an unknown file (it begins with {start[:4].hex(' ')})", SIGNED_HINT)


def is_vector_table(data: Content, offset: int) -> bool:
    """Whether a Cortex-M vector table can start here: a stack in RAM, then handlers in code, all odd (Thumb)."""
    if len(data) < offset + 16:
        return False
    stack, *handlers = struct.unpack("<4I", data[offset : offset + 16])
    in_ram = 0x1000_0000 <= stack < 0x4000_0000 and stack % 4 == 0
    return in_ram and all(handler % 2 == 1 and handler < 0x4000_0000 for handler in handlers)


_SLOT_STEP = 0x200  # slots begin at pages of the flash, and no page is smaller


def _image_inside(data: Content) -> int | None:
    """Where an image begins behind the beginning: its header is there, and a TLV area where that says."""
    for at in range(_SLOT_STEP, len(data) - 16, _SLOT_STEP):
        if data[at : at + 4] == _IMAGE_MAGIC:
            header_size, _, size = struct.unpack("<HHI", data[at + 8 : at + 16])
            tlvs = at + header_size + size
            if data[tlvs : tlvs + 2] in (b"\x07\x69", b"\x08\x69"):
                return at
    return None


# --- bytes, wherever they are -----------------------------------------------------------------------------------------


def pieces(data: Content, start: int, end: int) -> Iterator[bytes | bytearray | memoryview]:
    """`data` from `start` to `end`."""
    if isinstance(data, bytes):
        data = memoryview(data)
    while start < end:
        stop = min(end, start + _PIECE)
        yield data[start:stop]
        start = stop


def filled(data: Content, start: int, filler: bytes) -> int:
    """How many bytes from `start` on are `filler`."""
    count = 0
    for piece in pieces(data, start, len(data)):
        rest = len(bytes(piece).lstrip(filler))
        count += len(piece) - rest
        if rest:
            break
    return count
