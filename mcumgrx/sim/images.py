"""Images for the simulated device: made here for demonstrations and tests, and read back to know how one behaves.

A payload has no code. A line of text in it says how its application would behave; a payload without that line, such
as that of any real image, behaves well.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from mcumgrx.errors import ImageError, UsageError
from mcumgrx.mcuboot import (
    HEADER_BYTES,
    INSTALLER,
    TLV_INFO_MAGIC,
    TLV_PROT_INFO_MAGIC,
    ImageFlag,
    ImageHeader,
    TlvType,
    Version,
    parse_header,
    parse_image,
)
from mcumgrx.sim.signature import PUBLIC_KEY_DER, sign

__all__ = [
    "B0_SLOTS",
    "Application",
    "Health",
    "build_bootloaders",
    "build_image",
    "build_installer",
    "build_package",
    "read_application",
]

_MARK = b"mcumgrx-sim-app: "
_TLV = struct.Struct("<HH")  # type or magic, length
_DEPENDENCY = struct.Struct("<B3xBBHI")  # image number, version
DEFAULT_PAYLOAD_BYTES = 48 * 1024


class Health(Enum):
    """How the application of an image behaves once it runs."""

    HEALTHY = "healthy"
    CRASH = "crash"
    """It never answers; the watchdog resets the device, and an unconfirmed image is then reverted."""


@dataclass(frozen=True, slots=True)
class Application:
    """What the simulator knows of the application inside an image; `loader` is what an installer installs."""

    health: Health = Health.HEALTHY
    loader: bytes = b""


def build_image(
    version: str | Version,
    *,
    payload_size: int = DEFAULT_PAYLOAD_BYTES,
    payload: bytes | None = None,
    header_size: int = 0x200,
    health: Health | str = Health.HEALTHY,
    flags: int = 0,
    load_address: int = 0,
    image: int = 0,
    needs: Mapping[int, str | Version] | None = None,
    tlvs: Mapping[int, bytes] | None = None,
    manifest: Sequence[bytes] = (),
    signed: bool = True,
) -> bytes:
    """A valid image, with its SHA-256 and, if `signed`, a signature by the key that everybody knows (`signature`).

    The payload is `payload`, or `payload_size` bytes that look random and are the same each time for the same version
    and health, and `image`, the number of the image that it is for. The line that tells of an unhealthy application is
    laid over its start (which a `payload` of one's own must leave room for). `needs` are the versions at least that
    other images must have, by their numbers; `manifest` are all other images, to be named by their hashes; `tlvs` are
    other protected records, by their types. Raises `UsageError`
    or `ImageError` for what no header or payload can hold.
    """
    version = Version.parse(version) if isinstance(version, str) else version
    health = Health(health)
    if not HEADER_BYTES <= header_size <= 0xFFFF:
        raise UsageError(f"a header of {header_size} bytes cannot be: it has 16 bits and needs {HEADER_BYTES} bytes")
    if payload is None:
        payload = _noise(f"{version} {health.value}" + (f" image {image}" if image else ""), payload_size)
    if health is not Health.HEALTHY:
        line = _MARK + json.dumps({"health": health.value}).encode() + b"\n"
        if len(line) > len(payload):
            raise ImageError(f"a payload of {len(payload)} bytes has no room for its {len(line)} byte mark")
        payload = line + payload[len(line) :]
    protected = _protected_area([*_dependencies(needs or {}), *_manifest(manifest), *(tlvs or {}).items()])
    header = ImageHeader(load_address, header_size, len(protected), len(payload), ImageFlag(flags), version)
    body = header.pack().ljust(header_size, b"\x00") + payload + protected
    digest = hashlib.sha256(body).digest()
    records = {TlvType.SHA256: digest}
    if signed:
        records[TlvType.KEYHASH] = hashlib.sha256(PUBLIC_KEY_DER).digest()
        records[TlvType.ED25519] = sign(digest)
    area = b"".join(_TLV.pack(kind, len(value)) + value for kind, value in records.items())
    return body + _TLV.pack(TLV_INFO_MAGIC, _TLV.size + len(area)) + area


def build_installer(version: str | Version, loader: bytes, *, marked: bool = True) -> bytes:
    """An installer image of Nordic's bare-metal SDK: as an application it puts `loader` into slot 1, and goes.

    `marked`: it says what it is, as those of today do (TLV 0x00A0).
    """
    line = _MARK + json.dumps({"health": Health.HEALTHY.value, "loader": len(loader)}).encode() + b"\n"
    return build_image(version, payload=line + loader, tlvs=dict([INSTALLER]) if marked else None)


def _dependencies(needs: Mapping[int, str | Version]) -> Iterator[tuple[int, bytes]]:
    for number, version in needs.items():
        wanted = Version.parse(version) if isinstance(version, str) else version
        yield TlvType.DEPENDENCY, _DEPENDENCY.pack(number, *wanted)


def _manifest(images: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    if images:
        hashes = [parse_image(image).hash for image in images]
        yield TlvType.MANIFEST, struct.pack("<II", 1, len(hashes)) + b"".join(hashes)


def _protected_area(tlvs: Sequence[tuple[int, bytes]]) -> bytes:
    """The protected TLV area with these records; nothing where there are none."""
    records = b"".join(_TLV.pack(kind, len(value)) + value for kind, value in tlvs)
    return _TLV.pack(TLV_PROT_INFO_MAGIC, _TLV.size + len(records)) + records if records else b""


B0_SLOTS = (range(0x8000, 0x1_4000), range(0x1_4000, 0x2_0000))
"""Where the two slots of the bootloader itself begin and end, beneath an immutable one."""


def build_bootloaders(version: str | Version) -> bytes:
    """A `dfu_mcuboot.zip` with a bootloader for each of its two slots, as sdk-nrf's `b0_packaging.cmake` makes it."""
    stream = io.BytesIO()
    entries = []
    with zipfile.ZipFile(stream, "w") as archive:
        for slot, where in enumerate(B0_SLOTS):
            table = struct.pack("<4I", 0x2000_8000, *(where.start + 0x401 + 4 * number for number in range(3)))
            image = build_image(version, payload=table + _noise(f"bootloader {version} {slot}", 8192))
            file = f"signed_by_mcuboot_and_b0_s{slot}_image.bin"
            entries.append({"type": "mcuboot", "size": len(image), "file": file, "slot": str(slot)})
            archive.writestr(zipfile.ZipInfo(file), image)
        archive.writestr(zipfile.ZipInfo("manifest.json"), json.dumps({"format-version": 1, "files": entries}))
    return stream.getvalue()


def build_package(images: Mapping[int, bytes], *, board: str = "") -> bytes:
    """A `dfu_application.zip` of these images, by their numbers, with the keys that sdk-nrf's `generate_zip.py` writes.

    `board` is the one that it is built for, as `nrf5340dk`.
    """
    entries = [
        {
            "type": "application",
            **({"board": board} if board else {}),
            "size": len(image),
            "file": "app.signed.bin" if number == 0 else f"image_{number}.signed.bin",
            "image_index": str(number),
            "version_MCUBOOT": str(parse_header(image).version),
        }
        for number, image in images.items()
    ]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for entry, image in zip(entries, images.values(), strict=True):
            archive.writestr(zipfile.ZipInfo(str(entry["file"])), image)
        manifest = {"format-version": 1, "time": 0, "files": entries}
        archive.writestr(zipfile.ZipInfo("manifest.json"), json.dumps(manifest, indent=4))
    return stream.getvalue()


def read_application(image: bytes | bytearray | memoryview) -> Application:
    """How the application of this image (a file, or a slot that begins with one) behaves.

    Healthy unless its payload says otherwise in a way that is understood.
    """
    try:
        header = parse_header(image)
    except ImageError:
        return Application()
    payload = bytes(image[header.header_size : header.tlv_offset])
    at = payload.find(_MARK)
    if at < 0:
        return Application()
    line, _, rest = payload[at + len(_MARK) :].partition(b"\n")
    try:
        told = json.loads(line)
        return Application(Health(told["health"]), rest[: told.get("loader", 0)])
    except (ValueError, KeyError, TypeError):
        return Application()


def _noise(seed: str, size: int) -> bytes:
    """`size` bytes that look random and depend on `seed` alone."""
    return hashlib.shake_128(seed.encode()).digest(size)
