"""Images for the simulated device: made here for demonstrations and tests, and read back to know how one behaves.

A payload has no code. A line of text in it says how its application would behave; a payload without that line, such
as that of any real image, behaves well.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from enum import Enum

from mcumgrx.errors import ImageError, UsageError
from mcumgrx.mcuboot import HEADER_BYTES, TLV_INFO_MAGIC, ImageFlag, ImageHeader, TlvType, Version, parse_header

__all__ = ["Application", "Health", "build_image", "read_application"]

_MARK = b"mcumgrx-sim-app: "
DEFAULT_PAYLOAD_BYTES = 48 * 1024


class Health(Enum):
    """How the application of an image behaves once it runs."""

    HEALTHY = "healthy"
    CRASH = "crash"
    """It never answers; the watchdog resets the device, and an unconfirmed image is then reverted."""


@dataclass(frozen=True, slots=True)
class Application:
    """What the simulator knows of the application inside an image."""

    health: Health = Health.HEALTHY


def build_image(
    version: str | Version,
    *,
    payload_size: int = DEFAULT_PAYLOAD_BYTES,
    payload: bytes | None = None,
    header_size: int = 0x200,
    health: Health | str = Health.HEALTHY,
    flags: int = 0,
    load_address: int = 0,
) -> bytes:
    """A valid image with a SHA-256 TLV and no signature.

    The payload is `payload`, or `payload_size` bytes that look random and are the same each time for the same version
    and health. The line that tells of an unhealthy application is laid over its start (which a `payload` of one's own
    must leave room for). Raises `UsageError` or `ImageError` for what no header or payload can hold.
    """
    version = Version.parse(version) if isinstance(version, str) else version
    health = Health(health)
    if not HEADER_BYTES <= header_size <= 0xFFFF:
        raise UsageError(f"a header of {header_size} bytes cannot be: it has 16 bits and needs {HEADER_BYTES} bytes")
    if payload is None:
        payload = _noise(f"{version} {health.value}", payload_size)
    if health is not Health.HEALTHY:
        line = _MARK + json.dumps({"health": health.value}).encode() + b"\n"
        if len(line) > len(payload):
            raise ImageError(f"a payload of {len(payload)} bytes has no room for its {len(line)} byte mark")
        payload = line + payload[len(line) :]
    header = ImageHeader(load_address, header_size, 0, len(payload), ImageFlag(flags), version)
    body = header.pack().ljust(header_size, b"\x00") + payload
    digest = hashlib.sha256(body).digest()
    record = struct.pack("<HH", TlvType.SHA256, len(digest)) + digest
    return body + struct.pack("<HH", TLV_INFO_MAGIC, 4 + len(record)) + record


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
    line = payload[at + len(_MARK) :].split(b"\n", 1)[0]
    try:
        return Application(Health(json.loads(line)["health"]))
    except (ValueError, KeyError, TypeError):
        return Application()


def _noise(seed: str, size: int) -> bytes:
    """`size` bytes that look random and depend on `seed` alone."""
    return hashlib.shake_128(seed.encode()).digest(size)
