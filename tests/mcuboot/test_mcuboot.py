"""Image files: made by imgtool, made by hand, damaged, and things that are no images at all."""

from __future__ import annotations

import copy
import gc
import hashlib
import io
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcumgrx.errors import ImageError, UsageError
from mcumgrx.mcuboot import (
    HASH_ALGORITHMS,
    IN_MEMORY_BYTES,
    Dependency,
    FileBytes,
    Image,
    ImageFlag,
    TlvType,
    TrailerLayout,
    TrailerVariant,
    Version,
    file_bytes,
    kinds,
    load_image,
    parse_image,
    trailer_magic,
)
from mcumgrx.sim.images import build_image

PAYLOAD = bytes(range(256)) * 8
SLOT_BYTES = 0x8000

# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version", "written", "on_device"),
    [
        ("1.2.3+4", Version(1, 2, 3, 4), "1.2.3+4", "1.2.3.4"),
        ("1.2.3.4", Version(1, 2, 3, 4), "1.2.3+4", "1.2.3.4"),
        ("1.2.3", Version(1, 2, 3), "1.2.3", "1.2.3"),
        ("1.2", Version(1, 2), "1.2.0", "1.2.0"),
        (" 7 ", Version(7), "7.0.0", "7.0.0"),
        ("255.255.65535+4294967295", Version(255, 255, 65535, 4294967295), None, None),
    ],
)
def test_version_text(text: str, version: Version, written: str | None, on_device: str | None) -> None:
    assert Version.parse(text) == version
    assert Version.parse(str(version)) == version
    assert Version.parse(version.device_text) == version
    if written is not None:
        assert (str(version), version.device_text) == (written, on_device)


@pytest.mark.parametrize(
    "text", ["", "one", "1.2.3.4.5", "1..2", "-1.0.0", "1.2.3-rc1", "1.2.3+", "1.2.3+4.5", "\u0663.0.0"]
)
def test_not_a_version(text: str) -> None:
    with pytest.raises(UsageError, match="not a version"):
        Version.parse(text)


@pytest.mark.parametrize("text", ["256.0.0", "0.256.0", "0.0.65536", "0.0.0+4294967296"])
def test_version_that_no_header_holds(text: str) -> None:
    with pytest.raises(UsageError, match="does not fit"):
        Version.parse(text)


def test_versions_are_ordered_by_number() -> None:
    texts = ["0.9.0", "1.0.0", "1.0.0+5", "1.0.2", "1.0.10", "1.2.0", "2.0.0"]
    versions = [Version.parse(text) for text in texts]
    assert sorted(reversed(versions)) == versions


# --- a file byte by byte ----------------------------------------------------------------------------------------------

# imgtool sign --header-size 0x200 --pad-header --slot-size 0x8000 --align 4 --version 1.2.3+4, of 1000 times "A".
BY_HAND = (
    bytes.fromhex("3db8f396 00000000 0002 0000 e8030000 00000000 01020300 04000000 00000000")
    + b"\xff" * (0x200 - 32)
    + b"A" * 1000
    + bytes.fromhex("07692800 10002000 79061d0128e4143e6ba1b8bfb1867a4e894ce1557e01e9b4463c302b029361c5")
)


def test_the_file_of_the_documentation() -> None:
    image = parse_image(BY_HAND)
    assert image.version == Version(1, 2, 3, 4)
    assert (image.header.header_size, image.header.image_size, image.header.protected_tlv_size) == (0x200, 1000, 0)
    assert image.hash.hex() == "79061d0128e4143e6ba1b8bfb1867a4e894ce1557e01e9b4463c302b029361c5"
    assert image.file_sha256.hex() == "daf56f25f57a3e5f02916cf86c8648cf5ab38a15872eeba47358c94c0125496c"
    assert image.hash_type is TlvType.SHA256
    assert (image.size, image.content_size) == (1552, 1552)
    assert image.header.pack() == BY_HAND[:32]
    assert [image.padded, image.pad_confirmed, image.encrypted, image.compressed] == [False] * 4
    assert image.bootable
    assert (image.signature_type, image.key_hash, image.security_counter, image.rom_address) == (None,) * 4
    assert image.dependencies == ()
    assert [tlv.name for tlv in image.tlvs] == ["SHA256"]
    assert len(image.warnings) == 1
    assert "no signature" in image.warnings[0]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_will_do(kind: Callable[[bytes], Any]) -> None:
    image = load_image(kind(BY_HAND))
    assert image == parse_image(BY_HAND)
    assert isinstance(image.data, bytes)


def test_images_are_values() -> None:
    image = parse_image(BY_HAND)
    assert hash(image) == hash(parse_image(bytearray(BY_HAND)))
    assert len(repr(image)) < 1000


# --- imgtool ----------------------------------------------------------------------------------------------------------


class Imgtool:
    """Real imgtool, in process; keys are made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.main = pytest.importorskip("imgtool.main", reason="imgtool is not installed").imgtool
        self.folder = folder
        (folder / "payload.bin").write_bytes(PAYLOAD)

    def run(self, *arguments: str) -> None:
        self.main(list(arguments), standalone_mode=False)

    def key(self, kind: str) -> str:
        path = self.folder / f"{kind}.pem"
        if not path.exists():
            self.run("keygen", "-t", kind, "-k", str(path))
        return str(path)

    def public_key(self, kind: str) -> str:
        path = self.folder / f"{kind}-pub.pem"
        if not path.exists():
            self.run("getpub", "-k", self.key(kind), "-e", "pem", "-o", str(path))
        return str(path)

    def sign(self, *options: str, key: str | None = None, payload: str = "payload.bin") -> Path:
        signed = self.folder / f"{hashlib.sha256(repr((options, key, payload)).encode()).hexdigest()[:16]}.bin"
        options = tuple(self.public_key(option[4:]) if option.startswith("pub:") else option for option in options)
        keys = ("-k", self.key(key)) if key is not None else ()
        fixed = ("--header-size", "0x200", "--pad-header", "--slot-size", str(SLOT_BYTES), "--version", "1.2.3+4")
        align = () if "--align" in options else ("--align", "4")
        self.run("sign", *keys, *fixed, *align, *options, str(self.folder / payload), str(signed))
        return signed

    def dump(self, path: Path) -> dict[str, Any]:
        yaml = pytest.importorskip("yaml")
        report = path.with_suffix(".yaml")
        self.run("dumpinfo", "-o", str(report), str(path))
        loaded: dict[str, Any] = yaml.safe_load(report.read_text())
        return loaded


@pytest.fixture(scope="session")
def imgtool(tmp_path_factory: pytest.TempPathFactory) -> Imgtool:
    return Imgtool(tmp_path_factory.mktemp("imgtool"))


CASES: list[tuple[str, str | None, tuple[str, ...], dict[str, Any]]] = [
    ("unsigned", None, (), {"signature_type": None}),
    ("ecdsa-p256", "ecdsa-p256", (), {"signature_type": TlvType.ECDSA_SIG}),
    ("ecdsa-p384", "ecdsa-p384", (), {"signature_type": TlvType.ECDSA_SIG, "hash_type": TlvType.SHA384}),
    ("rsa-2048", "rsa-2048", (), {"signature_type": TlvType.RSA2048_PSS}),
    ("ed25519", "ed25519", (), {"signature_type": TlvType.ED25519}),
    ("ed25519 sha512", "ed25519", ("--sha", "512"), {"hash_type": TlvType.SHA512}),
    ("ed25519 pure", "ed25519", ("--pure",), {"hash_type": TlvType.SHA512, "signature_type": TlvType.ED25519}),
    ("whole key", "ecdsa-p256", ("--public-key-format", "full"), {}),
    ("security counter", None, ("-s", "7"), {"security_counter": 7}),
    ("automatic counter", None, ("-s", "auto"), {"security_counter": (1 << 24) + (2 << 16) + 3}),
    (
        "dependencies",
        None,
        ("-d", "(1, 2.3.4+5), (2, 0.1.0)"),
        {"dependencies": (Dependency(1, Version(2, 3, 4, 5)), Dependency(2, Version(0, 1)))},
    ),
    ("RAM load", None, ("-L", "0x20001000"), {"load_address": 0x20001000, "flags": ImageFlag.RAM_LOAD}),
    ("fixed address", None, ("-F", "0x10000"), {"rom_address": 0x10000, "flags": ImageFlag.ROM_FIXED}),
    ("not bootable", None, ("--non-bootable",), {"bootable": False}),
    ("boot record", None, ("--boot-record", "CoFM"), {}),
    ("padded", None, ("--pad",), {"padded": True, "pad_confirmed": False, "size": SLOT_BYTES}),
    ("padded to test", None, ("--test",), {"padded": True, "pad_confirmed": False, "size": SLOT_BYTES}),
    ("padded, confirmed", None, ("--pad", "--confirm"), {"padded": True, "pad_confirmed": True, "size": SLOT_BYTES}),
    ("padded, align 16", None, ("--confirm", "--align", "16"), {"padded": True, "pad_confirmed": True}),
    ("padded, align 32", None, ("--confirm", "--align", "32"), {"padded": True, "pad_confirmed": True}),
    ("padded with zeros", None, ("--pad", "--erased-val", "0"), {"padded": True, "pad_confirmed": False}),
    (
        "encrypted",
        "ecdsa-p256",
        ("-E", "pub:ecdsa-p256"),
        {"encrypted": True, "flags": ImageFlag.ENCRYPTED_AES128},
    ),
    (
        "encrypted, 256 bits",
        "ed25519",
        ("-E", "pub:x25519", "--encrypt-keylen", "256"),
        {"encrypted": True, "flags": ImageFlag.ENCRYPTED_AES256},
    ),
    ("not yet encrypted", None, ("-E", "pub:ecdsa-p256", "--clear"), {"encrypted": True}),
    ("compressed", None, ("--compression", "lzma2"), {"compressed": True, "flags": ImageFlag.COMPRESSED_LZMA2}),
]


@pytest.mark.parametrize(("key", "options", "expected"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_files_of_imgtool(
    imgtool: Imgtool, key: str | None, options: tuple[str, ...], expected: dict[str, Any]
) -> None:
    path = imgtool.sign(*options, key=key)
    image = load_image(path)
    assert image.path == str(path)
    assert image.version == Version(1, 2, 3, 4)
    assert image.data == path.read_bytes()
    assert image.file_sha256 == hashlib.sha256(path.read_bytes()).digest()
    for name, value in expected.items():
        assert getattr(image, name) == value, name
    if key is not None and "key_hash" not in expected:
        assert image.key_hash is not None
        assert len(image.key_hash) in (32, 48, 64)
    assert parse_image(image.trimmed()).hash == image.hash
    assert not parse_image(image.trimmed()).padded

    dumped = imgtool.dump(path)
    header = dumped["header"]
    assert header["version"] == str(image.version)
    assert header["hdr_size"] == image.header.header_size
    assert header["img_size"] == image.header.image_size
    assert header["protected_tlv_size"] == image.header.protected_tlv_size
    areas = dumped["tlv_area"]
    assert [(tlv.type, tlv.value, tlv.protected) for tlv in image.tlvs] == [
        (entry["type"], entry["data"], area == "tlvs_prot")
        for area in ("tlvs_prot", "tlvs")
        for entry in areas.get(area) or []
    ]


def test_vendor_tlvs_are_kept(imgtool: Imgtool) -> None:
    image = load_image(imgtool.sign("--custom-tlv", "0xa1", "0x1234", "--custom-tlv", "0x1ff0", "text"))
    vendor = [tlv for tlv in image.tlvs if tlv.protected]
    assert [(tlv.type, tlv.name, tlv.value) for tlv in vendor] == [
        (0xA1, "0xa1", b"\x12\x34"),
        (0x1FF0, "0x1ff0", b"text"),
    ]
    assert image.tlv_value(0xA1, protected=True) == b"\x12\x34"
    assert image.tlv_value(0xA1) is None


def test_warnings_name_what_is_unusual(imgtool: Imgtool) -> None:
    def warnings(*options: str, key: str | None = "ecdsa-p256") -> str:
        return " / ".join(load_image(imgtool.sign(*options, key=key)).warnings)

    assert warnings() == ""
    assert "will test it" in warnings("--pad")
    assert "for good" in warnings("--pad", "--confirm")
    assert "encrypted" in warnings("-E", "pub:ecdsa-p256")
    assert "not bootable" in warnings("--non-bootable")
    assert "no signature" in warnings(key=None)


def test_a_compressed_image_runs_under_another_hash(imgtool: Imgtool) -> None:
    plain = load_image(imgtool.sign())
    packed = load_image(imgtool.sign("--compression", "lzma2"))
    assert packed.hash != plain.hash
    assert packed.hashes_when_running > {packed.hash}
    assert plain.hashes_when_running == {plain.hash}


def test_an_encrypted_payload_is_not_hashed(imgtool: Imgtool) -> None:
    image = load_image(imgtool.sign("-E", "pub:ecdsa-p256"))
    digest = hashlib.sha256(image.data[: image.header.hashed_size]).digest()
    assert image.hash != digest  # the hash is that of the plain payload


def test_big_endian_images_are_named(imgtool: Imgtool) -> None:
    with pytest.raises(ImageError, match="big-endian"):
        load_image(imgtool.sign("-e", "big"))


# --- bad images -------------------------------------------------------------------------------------------------------


def hash_record(body: bytes, kind: TlvType = TlvType.SHA256) -> bytes:
    digest = hashlib.new(HASH_ALGORITHMS[kind][0], body).digest()
    return struct.pack("<HH", kind, len(digest)) + digest


def with_tlvs(*records: bytes, body: bytes = BY_HAND[:1512], magic: int = 0x6907, total: int | None = None) -> bytes:
    area = b"".join(records)
    return body + struct.pack("<HH", magic, 4 + len(area) if total is None else total) + area


def changed(offset: int, value: bytes) -> bytes:
    return BY_HAND[:offset] + value + BY_HAND[offset + len(value) :]


BODY = BY_HAND[:1512]
GOOD = hash_record(BODY)

BAD_IMAGES = [
    ("payload changed", changed(0x300, b"B"), "does not match its content"),
    ("header filler changed", changed(0x100, b"B"), "does not match its content"),
    ("version changed", changed(20, b"\x02"), "does not match its content"),
    ("last byte missing", BY_HAND[:-1], "1 byte missing"),
    ("cut in the payload", BY_HAND[:1000], "516 bytes missing (it has 1,000 of at least 1,516)"),
    ("cut before the TLVs", BY_HAND[:1512], "4 bytes missing"),
    ("cut in the info header", BY_HAND[:1514], "2 bytes missing"),
    ("cut in the header", BY_HAND[:31], "1 byte missing"),
    ("header size too small", changed(8, b"\x1f\x00"), "less than its own 32"),
    ("payload of 2 GiB", changed(12, b"\x00\x00\x00\x80"), "of at least 2,147,484,164"),
    ("payload shorter than said", changed(12, b"\xe0\x03\x00\x00"), "no unprotected TLV area follows"),
    ("no hash", with_tlvs(struct.pack("<HH", TlvType.KEYHASH, 2) + b"ab"), "no hash TLV"),
    ("no TLV at all", with_tlvs(), "no hash TLV"),
    ("two hashes", with_tlvs(GOOD, GOOD), "2 hash TLVs"),
    ("two kinds of hash", with_tlvs(GOOD, hash_record(BODY, TlvType.SHA512)), "2 hash TLVs"),
    ("short hash", with_tlvs(struct.pack("<HH", TlvType.SHA256, 16) + GOOD[4:20]), "has 16 bytes, not 32"),
    ("other info magic", with_tlvs(GOOD, magic=0x6917), "no unprotected TLV area"),
    ("protected area unannounced", with_tlvs(GOOD, magic=0x6908), "does not announce"),
    ("protected area missing", changed(10, b"\x10\x00"), "no protected TLV area"),
    ("area ends in a record", with_tlvs(GOOD, b"\x01\x00"), "ends inside a record"),
    ("record too long", with_tlvs(GOOD, struct.pack("<HH", 1, 5) + b"abcd"), "does not fit"),
    ("area without room for itself", with_tlvs(GOOD, total=3), "claims a length of 3"),
    (
        "protected size disagrees",
        with_tlvs(GOOD, body=changed(10, b"\x08\x00")[:1512] + struct.pack("<HHHH", 0x6908, 12, 0x50, 0)),
        "12 bytes, but the header says 8",
    ),
]


@pytest.mark.parametrize(("data", "message"), [pytest.param(*case[1:], id=case[0]) for case in BAD_IMAGES])
def test_bad_images(data: bytes, message: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse_image(data, path="some.bin")
    assert message in caught.value.message
    assert caught.value.hint
    assert caught.value.path == "some.bin"


def a_zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("manifest.json", "{}")
    return stream.getvalue()


VECTORS = struct.pack("<16I", 0x2000_4000, *[0x0000_C101 + 4 * index for index in range(15)])

OTHER_FILES = [
    ("empty", b"", "the file is empty"),
    ("ELF", b"\x7fELF\x01\x01\x01" + bytes(100), "an ELF file"),
    ("S-record", b"S00F000068656C6C6F202020202000003C\n", "a Motorola S-record text"),
    ("ZIP", a_zip(), "a ZIP archive"),
    ("empty ZIP", b"PK\x05\x06" + bytes(18), "an empty ZIP archive"),
    ("gzip", b"\x1f\x8b\x08\x00" + bytes(40), "a gzip file"),
    ("xz", b"\xfd7zXZ\x00" + bytes(40), "an xz file"),
    ("UF2", b"UF2\nWQ]\x9e" + bytes(504), "a UF2 file"),
    ("web page", b"<!DOCTYPE html><html></html>", "a web page"),
    ("ancient header", b"\x3c\xb8\xf3\x96" + bytes(100), "ancient header format"),
    ("big-endian", b"\x96\xf3\xb8\x3d" + bytes(100), "a big-endian MCUboot image"),
    ("zephyr.bin", VECTORS + bytes(range(200)), "an unsigned Cortex-M binary"),
    ("zephyr.bin with room", bytes(0x200) + VECTORS, "an unsigned Cortex-M binary with room for a header"),
    ("other core with room", bytes(0x200) + b"\x6f\x00\x40\x00" * 20, "an unsigned binary with room for a header"),
    ("erased flash", b"\xff" * 4096, "nothing but 4,096 bytes of 0xff"),
    ("text", b"# Kconfig\nCONFIG_BOOTLOADER_MCUBOOT=y\n", "a text file"),
    ("hex with comments", b"\xef\xbb\xbf; made by hand\r\n\r\n  :020000040000FA\r\n", "no end record follows line 3"),
    ("TI-TXT", b"@C000\n3D B8 F3 96\nq\n", "a TI-TXT text"),
    ("zstd", b"\x28\xb5\x2f\xfd" + bytes(40), "a zstd file"),
    ("7-Zip", b"7z\xbc\xaf\x27\x1c" + bytes(40), "a 7-Zip archive"),
    ("tar", b"zephyr.signed.bin".ljust(257, b"\0") + b"ustar\0" + bytes(300), "a tar archive"),
    ("SUIT", bytes.fromhex("d86ba2025827815824822f5820") + bytes(300), "a SUIT envelope"),
    ("ESP-IDF", b"\xe9\x03\x02\x20" + bytes(60), "an ESP-IDF image"),
    ("no ESP-IDF", b"\xe9\x33\x22\x20" + bytes(60), "an unknown file (it begins with e9 33 22 20)"),
    ("multi image", b"\x20\0\xa1\x63img\x82\xa2\x62id\0" + bytes(40), "a package of several images"),
    ("Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of Git LFS"),
    ("UTF-16", "text".encode("utf-16"), "a text file (UTF-16)"),
    ("key", b"-----BEGIN PRIVATE KEY-----\n", "a key or certificate"),
    ("encrypted by others", b"Salted__" + bytes(range(40)), "a file that OpenSSL has encrypted"),
    ("web page, later", b"\n  <HTML><body>Sign in</body>", "a web page"),
    ("merged", VECTORS.ljust(0x8000, b"\xff") + BY_HAND, "an MCUboot image 32,768 bytes behind its beginning"),
    ("noise", bytes.fromhex("deadbeef") * 20, "an unknown file (it begins with de ad be ef)"),
    ("one byte", b"\x01", "an unknown file"),
]


@pytest.mark.parametrize(("data", "message"), [pytest.param(*case[1:], id=case[0]) for case in OTHER_FILES])
def test_other_files_are_named_for_what_they_are(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "update.bin"
    path.write_bytes(data)
    with pytest.raises(ImageError) as caught:
        load_image(path)
    assert message in caught.value.message
    assert caught.value.hint
    assert caught.value.path == str(path)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there are no device files")
@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_devices_are_not_read(path: str) -> None:
    with pytest.raises(ImageError, match=f"{path} is a device, not an image file"):
        load_image(path)


PAYLOADS = [
    ("good", VECTORS + bytes(2000), None),
    ("signed twice", build_image("1.0.0", payload_size=2000), "signed twice"),
    ("header of 32 over 0x200 reserved", bytes(0x1E0) + VECTORS + bytes(range(200)), "481 bytes of 0x00"),
    ("erased where it was reserved", b"\xff" * 0x100 + VECTORS, "256 bytes of 0xff"),
    ("nothing", bytes(3000), "3,000 bytes of 0x00"),
    ("ELF", b"\x7fELF\x01" + bytes(100), "the payload is an ELF file"),
    ("HEX", b":020000040000FA\n:10C00000004000200DC10000\n", "the payload is an Intel HEX text"),
    ("patch of a chip without vectors", bytes(range(1, 200)), None),
]


@pytest.mark.parametrize(("payload", "warning"), [pytest.param(*case[1:], id=case[0]) for case in PAYLOADS])
def test_payloads_that_no_processor_can_run(payload: bytes, warning: str | None) -> None:
    about = [text for text in parse_image(build_image("1.0.0", payload=payload)).warnings if "payload" in text]
    assert [warning in text for text in about] == ([] if warning is None else [True])
    encrypted = build_image("1.0.0", payload=payload, flags=ImageFlag.ENCRYPTED_AES128)
    assert not any("payload begins" in text for text in parse_image(encrypted).warnings)


def test_an_image_without_its_padding() -> None:
    padded = parse_image((BY_HAND + b"\xff" * 85) + trailer_magic(16))
    trimmed = padded.without_padding()
    assert (padded.padding_align, trimmed.padding_align) == (16, None)
    assert (trimmed.data, trimmed.padded, trimmed.hash) == (BY_HAND, False, padded.hash)
    assert trimmed.without_padding() is trimmed


def test_the_network_core_is_known_by_its_reset_vector() -> None:
    def image(reset: int, **more: int) -> Image:
        return parse_image(build_image("1.0.0", payload=struct.pack("<II", 0x2100_1000, reset) + bytes(64), **more))

    assert image(0x0100_8B01).for_network_core
    assert not image(0x0001_03C1).for_network_core
    assert not image(0x0100_8B01, flags=ImageFlag.ENCRYPTED_AES128).for_network_core


@pytest.mark.parametrize(
    ("tail", "padded", "warning"),
    [
        (b"\xff" * 100, False, "100 bytes of padding without a trailer"),
        (b"\x00" * 3, False, "3 bytes of padding"),
        (b"rest", False, "4 bytes that do not belong"),
        (trailer_magic(8), True, "will test it"),
        (b"\xff" * 84 + trailer_magic(16), True, "will test it"),
        (b"\xff" * 8 + b"\x01" + b"\xff" * 7 + trailer_magic(8), True, "for good"),
    ],
)
def test_what_follows_the_image(tail: bytes, padded: bool, warning: str) -> None:
    image = parse_image(BY_HAND + tail)
    assert image.padded is padded
    assert image.content_size == len(BY_HAND)
    assert any(warning in text for text in image.warnings)


def test_a_trailer_too_short_for_its_mark_confirms_nothing() -> None:
    ones = struct.pack("<HH", 0xA1, 8) + b"\x01" * 8
    image = parse_image(with_tlvs(GOOD, ones) + trailer_magic(8))
    assert (image.padded, image.pad_confirmed) == (True, False)


def test_unknown_flags_are_kept_and_reported() -> None:
    body = changed(16, b"\x00\x00\x00\x40")[:1512]
    image = parse_image(with_tlvs(hash_record(body), body=body))
    assert image.flags == 0x4000_0000
    assert any("0x40000000" in text for text in image.warnings)


PIECES = [BY_HAND, build_image("1.0.0", payload_size=64, header_size=32), with_tlvs(GOOD, GOOD)]


@given(
    base=st.sampled_from(PIECES),
    cut=st.integers(0, 1600),
    changes=st.lists(st.tuples(st.integers(0, 1600), st.binary(min_size=1, max_size=4)), max_size=4),
)
def test_no_damage_gives_anything_but_an_image_or_an_image_error(
    base: bytes, cut: int, changes: list[tuple[int, bytes]]
) -> None:
    data = bytearray(base[:cut] if cut < len(base) else base)
    for offset, value in changes:
        data[offset : offset + len(value)] = value
    try:
        image = parse_image(data)
    except ImageError:
        return
    assert isinstance(image, Image)


# --- files ------------------------------------------------------------------------------------------------------------


def test_paths_and_streams(tmp_path: Path) -> None:
    path = tmp_path / "app.bin"
    path.write_bytes(BY_HAND)
    assert load_image(path).path == load_image(str(path)).path == str(path)
    with open(path, "rb") as stream:
        assert load_image(stream).path == str(path)
    assert load_image(io.BytesIO(BY_HAND)).path is None


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such file") as missing:
        load_image(tmp_path / "missing.bin")
    assert missing.value.hint
    assert missing.value.path == str(tmp_path / "missing.bin")
    with pytest.raises(ImageError, match="is a directory"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="cannot read"):
        load_image("nul\0in.bin")
    with pytest.raises(ImageError, match="cannot read"):
        load_image(tmp_path / ("x" * 5000))


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root reads every file")
def test_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.bin"
    path.write_bytes(BY_HAND)
    path.chmod(0)
    with pytest.raises(ImageError, match="no permission"):
        load_image(path)


def test_files_are_not_read_without_bound(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(BY_HAND)
    with pytest.raises(ImageError, match="larger than 1,000 bytes"):
        load_image(path, max_bytes=1000)
    assert load_image(path, max_bytes=len(BY_HAND)).size == len(BY_HAND)


def test_streams_that_give_no_bytes(tmp_path: Path) -> None:
    path = tmp_path / "text.bin"
    path.write_text("text")
    with open(path) as text, pytest.raises(ImageError, match="text mode"):
        load_image(text)  # type: ignore[arg-type]
    closed = io.BytesIO(BY_HAND)
    closed.close()
    with pytest.raises(ImageError, match="cannot read"):
        load_image(closed)


# --- files that stay on the disk --------------------------------------------------------------------------------------


def outcome(data: bytes | FileBytes) -> Image | tuple[str, str | None]:
    try:
        return parse_image(data)
    except ImageError as error:
        return error.message, error.hint


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scratch") / "app.bin"


FILLED = st.builds(lambda byte, size: bytes([byte]) * size, st.sampled_from([0x00, 0xFF, 0x41]), st.integers(0, 700))


@given(
    base=st.sampled_from(
        [*PIECES, *(case[1] for case in BAD_IMAGES), *(case[1] for case in OTHER_FILES), b"", VECTORS]
    ),
    front=st.one_of(st.just(b""), FILLED),
    tail=st.one_of(st.just(b""), st.binary(max_size=64), FILLED),
    trailer=st.sampled_from([b"", *map(trailer_magic, (8, 16, 32)), b"\x01" + b"\xff" * 7 + trailer_magic(8)]),
    cut=st.integers(0, 3000),
    changes=st.lists(st.tuples(st.integers(0, 1600), st.binary(min_size=1, max_size=4)), max_size=3),
    block=st.sampled_from([1, 7, 64, 511, 16384]),
    piece=st.sampled_from([1, 5, 64, 1000, 65536]),
)
@example(bytes(0x200) + VECTORS, b"", b"", b"", 2900, [], 64, 64)  # with zeros behind the first that are none
@example(BY_HAND, b"", b"\xff" * 8 + b"B" + b"\xff" * 91, b"", 2900, [], 64, 5)
def test_what_an_image_is_does_not_depend_on_where_it_lies(
    scratch: Path,
    base: bytes,
    front: bytes,
    tail: bytes,
    trailer: bytes,
    cut: int,
    changes: list[tuple[int, bytes]],
    block: int,
    piece: int,
) -> None:
    data = bytearray((front + base + tail + trailer)[: cut if cut < 2900 else None])
    for offset, value in changes:
        data[offset : offset + len(value)] = value
    scratch.write_bytes(data)
    expected = outcome(bytes(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_bytes, "_BLOCK", block)
        patch.setattr(kinds, "_PIECE", piece)
        lying = FileBytes(scratch)
        found = outcome(lying)
        assert found == expected
        if isinstance(found, Image):
            assert found.data is lying
            assert isinstance(expected, Image)
            assert found.file_sha256 == expected.file_sha256
            assert found.trimmed() == expected.trimmed()


def test_images_are_values_wherever_they_lie(tmp_path: Path) -> None:
    path = tmp_path / "app.bin"
    path.write_bytes(BY_HAND)
    image, held = parse_image(FileBytes(path)), parse_image(BY_HAND)
    assert image == held
    assert held == image
    assert len({image, held}) == 1
    path.write_bytes(BY_HAND + b"\xff")
    assert image != parse_image(FileBytes(path))
    path.write_bytes(BY_HAND)
    for copied in (pickle.loads(pickle.dumps(image)), copy.deepcopy(image)):
        assert copied == image
        assert type(copied.data) is bytes
    assert len(repr(image)) < 1000


def test_only_large_files_stay_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "app.bin"
    path.write_bytes(BY_HAND.ljust(IN_MEMORY_BYTES, b"\xff"))
    assert type(load_image(path).data) is bytes
    path.write_bytes(BY_HAND.ljust(IN_MEMORY_BYTES + 1, b"\xff"))
    image = load_image(path)
    assert type(image.data) is FileBytes
    assert (image.path, image.size, image.content_size) == (str(path), IN_MEMORY_BYTES + 1, len(BY_HAND))
    assert image == load_image(str(path))
    with open(path, "rb") as stream:
        read = load_image(stream)
    assert type(read.data) is bytes
    assert read == image
    with pytest.raises(ImageError, match=f"larger than {IN_MEMORY_BYTES:,} bytes"):
        load_image(path, max_bytes=IN_MEMORY_BYTES)


@pytest.mark.parametrize(
    ("size", "most"),
    [(len(BY_HAND), 100_000), (IN_MEMORY_BYTES, 1.1 * IN_MEMORY_BYTES), (2 * IN_MEMORY_BYTES, 600_000)],
)
def test_memory_against_size(tmp_path: Path, size: int, most: float) -> None:
    path = tmp_path / "app.bin"
    path.write_bytes(BY_HAND.ljust(size, b"\xff"))
    load_image(path)  # what is made once
    gc.collect()
    tracemalloc.start()
    try:
        image = load_image(path)
        for start in range(0, image.size, 1000):
            image.data[start : start + 1000]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most


def test_a_file_that_is_no_image_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcumgrx.mcuboot.files.IN_MEMORY_BYTES", 100)
    files: list[io.FileIO] = []

    def noted(path: str, mode: str, buffering: int) -> io.FileIO:
        files.append(io.FileIO(path, mode))
        return files[-1]

    monkeypatch.setattr(file_bytes, "open", noted, raising=False)
    path = tmp_path / "app.bin"
    path.write_bytes(BY_HAND[:-1])
    with pytest.raises(ImageError, match="1 byte missing") as caught:
        load_image(path)
    assert caught.value.path == str(path)
    assert [file.closed for file in files] == [True]  # although the error, which is kept here, keeps its frames


# --- trailer ----------------------------------------------------------------------------------------------------------


def test_trailer_magic_names_its_alignment() -> None:
    assert trailer_magic(8).hex() == "77c295f360d2ef7f3552500f2cb67980"
    assert trailer_magic(16).hex() == "10002de15d29410b8d77679c110f1f8a"
    assert trailer_magic(32).hex() == "20002de15d29410b8d77679c110f1f8a"


@pytest.mark.parametrize(
    ("write_size", "variant", "fields", "size"),
    [
        (1, TrailerVariant.SWAP, (24, 32, 40, None, 48), 48 + 3 * 128),
        (4, TrailerVariant.SWAP, (24, 32, 40, None, 48), 1584),
        (8, TrailerVariant.SWAP, (24, 32, 40, None, 48), 3120),
        (16, TrailerVariant.SWAP, (32, 48, 64, None, 80), 6224),
        (32, TrailerVariant.SWAP, (64, 96, 128, None, 160), 12448),
        (8, TrailerVariant.SWAP_OFFSET, (24, 32, 40, 48, 56), 56 + 2 * 128 * 8),
        (16, TrailerVariant.SWAP_OFFSET, (32, 48, 64, 80, 96), 96 + 2 * 128 * 16),
        (4, TrailerVariant.SINGLE, (24, 32, 40, None, 48), 48),
    ],
)
def test_trailer_layouts(
    write_size: int, variant: TrailerVariant, fields: tuple[int, int, int, int | None, int], size: int
) -> None:
    layout = TrailerLayout.for_write_size(write_size, variant=variant)
    assert (
        layout.image_ok_offset,
        layout.copy_done_offset,
        layout.swap_info_offset,
        layout.tlv_sizes_offset,
        layout.swap_size_offset,
    ) == fields
    assert layout.size == size


def test_trailer_with_encryption_keys() -> None:
    assert TrailerLayout(8, 4, key_bytes=16).size == 1616


@pytest.mark.parametrize("arguments", [(4, 4), (8, 16), (64, 4), (8, 0), (8, 4, 0)])
def test_trailers_that_cannot_be(arguments: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        TrailerLayout(*arguments)  # type: ignore[arg-type]
