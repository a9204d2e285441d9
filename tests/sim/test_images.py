"""Images made for the simulator, and how their applications behave."""

from __future__ import annotations

import hashlib

import pytest

from mcumgrx.errors import ImageError, UsageError
from mcumgrx.mcuboot import ImageFlag, TlvType, Version, parse_image
from mcumgrx.sim.images import Application, Health, build_image, read_application
from mcumgrx.sim.signature import PUBLIC_KEY, PUBLIC_KEY_DER, sign


@pytest.mark.parametrize("health", list(Health))
@pytest.mark.parametrize("size", [64, 5000, 100_000])
def test_images_are_valid_and_tell_how_they_behave(health: Health, size: int) -> None:
    data = build_image("1.2.3+4", payload_size=size, health=health)
    image = parse_image(data)
    assert image.version == Version(1, 2, 3, 4)
    assert (image.header.image_size, image.header.header_size) == (size, 0x200)
    assert read_application(data) == Application(health)
    assert read_application(data + b"\xff" * 100) == Application(health)


def test_images_are_the_same_each_time_and_different_for_each_version() -> None:
    assert build_image("1.0.0") == build_image(Version(1))
    hashes = {parse_image(build_image(v, health=h)).hash for v in ("1.0.0", "1.1.0") for h in ("healthy", "crash")}
    assert len(hashes) == 4


def test_header_options() -> None:
    data = build_image("1.0.0", payload=b"abc", header_size=32, flags=ImageFlag.ROM_FIXED, load_address=0x10000)
    image = parse_image(data)
    assert image.rom_address == 0x10000
    assert data[32:35] == b"abc"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"ordinary code",
        b'mcumgrx-sim-app: {"health": "sleepy"}\n',
        b'mcumgrx-sim-app: {"health": ["crash"]}\n',
        b"mcumgrx-sim-app: {}\n",
        b"mcumgrx-sim-app: [1]\n",
        b"mcumgrx-sim-app: \xff\xfe\n",
        b"mcumgrx-sim-app: ",
    ],
)
def test_applications_are_healthy_unless_they_clearly_say_otherwise(payload: bytes) -> None:
    assert read_application(build_image("1.0.0", payload=payload)) == Application(Health.HEALTHY)


@pytest.mark.parametrize("data", [b"", b"\xff" * 1000, b"no image at all, but some text of at least 32 bytes"])
def test_an_application_without_an_image_is_healthy(data: bytes) -> None:
    assert read_application(data).health is Health.HEALTHY


def test_what_cannot_be_built() -> None:
    with pytest.raises(ImageError, match="no room"):
        build_image("1.0.0", payload=b"short", health="crash")
    with pytest.raises(UsageError):
        build_image("one")
    with pytest.raises(UsageError, match="header"):
        build_image("1.0.0", header_size=16)


# RFC 8032, section 7.1: the message of test 1 is empty.
SIGNATURE = bytes.fromhex(
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
    "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
)


def test_the_signature_is_that_of_the_document() -> None:
    assert sign(b"") == SIGNATURE


def test_an_image_is_signed_and_names_the_key() -> None:
    image = parse_image(build_image("1.1.0", payload_size=4000))
    assert image.warnings == ()
    assert image.tlv_value(TlvType.ED25519) == sign(image.hash)
    assert image.key_hash == hashlib.sha256(PUBLIC_KEY_DER).digest()
    plain = parse_image(build_image("1.1.0", payload_size=4000, signed=False))
    assert plain.hash == image.hash
    assert plain.key_hash is None


@pytest.mark.parametrize("message", [b"", b"\x00" * 32, bytes(range(256))])
def test_any_library_agrees_with_the_signature(message: bytes) -> None:
    ed25519 = pytest.importorskip(
        "cryptography.hazmat.primitives.asymmetric.ed25519", reason="checked with cryptography (comes with imgtool)"
    )
    ed25519.Ed25519PublicKey.from_public_bytes(PUBLIC_KEY).verify(sign(message), message)
