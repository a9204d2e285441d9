"""Packages and build directories: every key of a manifest, archives by hand, and archives that are made to do harm.

Archives are written by the standard library's `zipfile`; what that will not write is patched into them.
"""

from __future__ import annotations

import io
import json
import os
import stat
import struct
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot import ImageRole, Package, PackageKind, load_image, load_package, parse_image, parse_package
from mcumgrx.sim.images import build_image

APP = build_image("1.1.0", payload_size=3000)
OTHER = build_image("1.2.0", payload_size=2000)


def for_core(address: int, version: str = "1.1.0") -> bytes:
    """An image whose code starts at this address."""
    vectors = struct.pack("<16I", 0x2000_4000, *[address + 1 + 4 * index for index in range(15)])
    return build_image(version, payload=vectors + bytes(1000))


def archive(files: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return stream.getvalue()


def entry(file: str, **more: object) -> dict[str, object]:
    return {"file": file, "type": "application", **more}


def package(*entries: dict[str, object], files: Mapping[str, bytes] | None = None, **more: object) -> bytes:
    """A package of these entries, each with an image of its own unless `files` has it."""
    given = {str(one["file"]): APP for one in entries if isinstance(one.get("file"), str)} | dict(files or {})
    manifest = json.dumps({"format-version": 1, "time": 1, "files": entries, **more})
    return archive({**given, "manifest.json": manifest.encode()})


def refused(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        parse_package(data).choose()
    assert caught.value.hint
    assert caught.value.message.isprintable()
    return caught.value


def read_or_refused(data: bytes) -> None:
    """There is no third way."""
    try:
        found = parse_package(data).choose().image
    except ImageError as error:
        told = error.message
    else:
        told = ""
        assert found.data == APP
    assert not told or told.isprintable()


def told(found: Package) -> list[tuple[int | None, int | None, str]]:
    return [(one.index, one.slot, one.role.name) for one in found.images]


# -- manifests ---------------------------------------------------------------------------------------------------------

NUMBERS = [0, "0", "0x0", None]


@pytest.mark.parametrize("version", [0, 1, "1", None])
@pytest.mark.parametrize("index", NUMBERS)
@pytest.mark.parametrize("size", [len(APP), str(len(APP)), hex(len(APP)), None])
def test_numbers_are_numbers_or_text(version: object, index: object, size: object) -> None:
    keys = {"image_index": index, "size": size, "load_address": "0xc200", "slot_index_primary": "1", "modtime": 5}
    one = entry("a.bin", **{key: value for key, value in keys.items() if value is not None})
    found = parse_package(package(one, **{"format-version": version}))
    assert told(found) == [(0, None, "APPLICATION")]
    assert (found.kind, found.images[0].address, found.warnings) == (PackageKind.ARCHIVE, 0xC200, ())


def test_three_images_with_the_patch_of_the_wifi_chip() -> None:
    network = for_core(0x0100_8B00)
    found = parse_package(
        package(
            entry("app.bin", image_index="0", board="nrf7002dk/nrf5340/cpuapp", soc="nrf5340"),
            entry("ipc_radio.bin", image_index="1", board="nrf7002dk/nrf5340/cpunet", version="3"),
            entry("nrf70.bin", image_index="2", board="nrf7002dk/nrf5340/cpuapp", soc="nrf5340"),
            files={"ipc_radio.bin": network, "nrf70.bin": OTHER},
            name="sta",
        )
    )
    assert told(found) == [(0, None, "APPLICATION"), (1, None, "NETWORK_CORE"), (2, None, "WIFI")]
    assert (found.name, found.warnings, found.doubts) == ("sta", (), ())
    assert list(found.by_index) == [0, 1, 2]
    assert found.choose(2).image.data == OTHER
    assert "of 3 images" in refused(package(entry("a"), entry("b", image_index=1), entry("c", image_index=2))).message


@pytest.mark.parametrize(("image", "slots"), [(0, ("0", "1")), (1, ("2", "3")), (1, (0, 1)), (3, (6, "7"))])
def test_direct_xip_has_a_file_for_each_slot(image: int, slots: tuple[object, object]) -> None:
    entries = [
        entry(f"{slot}.bin", image_index=image, slot=slot, **{"version_MCUBOOT+XIP": "1.1.0+0"}) for slot in slots
    ]
    found = parse_package(package(*entries))
    assert told(found) == [(image, 0, "APPLICATION"), (image, 1, "APPLICATION")]
    assert len(found.by_index[image]) == 2
    assert f"with 2 files for image {image}, linked for different slots" in refused(package(*entries)).message


def test_type_decides_before_slots() -> None:
    both = [entry(name, type="mcuboot", slot=slot, version_B0="2") for name, slot in (("s0.bin", "0"), ("s1.bin", "1"))]
    for entries in (both, [{key: value for key, value in one.items() if key != "slot"} for one in both]):
        found = parse_package(package(*entries))
        assert told(found) == [(0, 0, "BOOTLOADER"), (0, 1, "BOOTLOADER")]
        assert "updates the bootloader" in refused(package(*entries)).message
    mixed = parse_package(package(entry("app.bin"), *both))
    assert mixed.choose().name == "app.bin"
    assert mixed.choose().role is ImageRole.APPLICATION


def test_versions_are_those_of_the_header_and_counters_are_not() -> None:
    counters = entry("a.bin", version="7", version_B0="2", version_MCUBOOT="1.1.0+0")
    assert parse_package(package(counters)).warnings == ()
    (warning,) = parse_package(package(entry("a.bin", version_MCUBOOT="2.0.0"))).warnings
    assert warning == "the manifest says 2.0.0 (version_MCUBOOT) for a.bin, which is 1.1.0"


def test_sources_that_were_not_committed_are_told() -> None:
    found = parse_package(
        package(entry("a.bin"), firmware={"zephyr": {"revision": "v4-dirty"}, "nrf": {"revision": None}})
    )
    assert found.notes == ("its sources of zephyr had changes that were not committed (v4-dirty)",)
    assert parse_package(package(entry("a.bin"), firmware=7)).notes == ()


def test_exchanged_files_are_shown_and_not_taken() -> None:
    one = entry("net.bin", image_index=0, board="nrf5340dk", soc="nrf5340", load_address=0x10200)
    other = entry("app.bin", image_index=1, board="nrf5340dk/nrf5340/cpunet", load_address=0x0100_8800)
    files = {"net.bin": for_core(0x0100_8B00), "app.bin": for_core(0x1_0300)}
    found = parse_package(package(one, other, files=files))
    assert "look exchanged: net.bin, image 0, is linked for 0x01008b01" in found.doubts[0]
    assert found.warnings == found.doubts
    assert "look exchanged" in refused(package(one, other, files=files)).message
    for index in (0, 1):
        with pytest.raises(ImageError, match="look exchanged"):
            found.choose(index)
    assert "is linked for 0x01008b01" in refused(package(one, files=files)).message
    # TF-M: the secure part lies below the address that the manifest names.
    tfm = entry("a.bin", board="nrf5340dk", soc="nrf5340", load_address=0x1_8000)
    assert parse_package(package(tfm, files={"a.bin": for_core(0x200)})).doubts == ()


MANIFESTS: dict[str, tuple[bytes, str]] = {
    "no JSON": (archive({"manifest.json": b"{'files': []}"}), "it is no JSON"),
    "no text": (archive({"manifest.json": b"\xff\xfe{\0}\0"}), "it is no JSON"),
    "deep": (archive({"manifest.json": b"[" * 60_000}), "it is no JSON"),
    "a list": (archive({"manifest.json": b"[]"}), "it is no list of files"),
    "no files": (archive({"a.bin": APP, "manifest.json": b'{"files": []}'}), "it lists no files"),
    "files is text": (archive({"manifest.json": b'{"files": "a.bin"}'}), "it lists no files"),
    "an entry is text": (archive({"manifest.json": b'{"files": ["a.bin"]}'}), "it lists no files"),
    "no name": (package({"type": "application"}), "an entry names no file"),
    "too many": (package(*[entry("a.bin", image_index=index) for index in range(40)]), "it lists 40 files"),
    "large": (archive({"manifest.json": b" " * 300_000}), "it has 300,000 bytes"),
    "missing": (package(entry("a.bin"), entry("b/c.bin", image_index=1)).replace(b"b/c.bin", b"b/d.bin", 1), ""),
    "negative": (package(entry("a.bin", image_index=-1)), "image_index is out of range or no number: -1"),
    "true": (package(entry("a.bin", image_index=True)), "image_index is out of range or no number: True"),
    "fraction": (package(entry("a.bin", image_index=0.5)), "image_index is out of range or no number: 0.5"),
    "NaN": (package(entry("a.bin", slot=float("nan"))), "slot is out of range or no number: nan"),
    "words": (package(entry("a.bin", slot="two")), "slot is out of range or no number: two"),
    "16": (package(entry("a.bin", image_index=16)), "image_index is out of range"),
    "slot of another": (package(entry("a.bin", image_index=0, slot=2)), "slot 2 is none of image 0"),
    "twice": (package(entry("a.bin"), entry("b.bin", image_index="0")), "two files for image 0: a.bin and b.bin"),
    "twice in a slot": (package(entry("a.bin", slot=1), entry("b.bin", slot=1)), "two files for image 0, slot 1"),
    "with slot and without": (package(entry("a.bin", slot=1), entry("b.bin")), "two files for image 0"),
    "key twice": (
        archive({"a.bin": APP, "b.bin": APP, "manifest.json": b'{"files": [{"file": "a.bin", "file": "b.bin"}]}'}),
        "it says file twice",
    ),
    "SUIT": (package(entry("root.suit", type="suit-envelope")), "a SUIT package"),
    "a cache": (package(entry("a.bin"), entry("c.bin", type="cache", partition="1")), "a SUIT package"),
    "older": (
        archive({"manifest.json": b'{"manifest": {"application": {"bin_file": "a.bin"}}}'}),
        "Nordic's older DFU",
    ),
    "B0 alone": (package(entry("a.bin", version_B0="3"), files={"a.bin": bytes(900)}), "immutable bootloader (NSIB)"),
    "broken": (package(entry("a.bin"), files={"a.bin": APP[:-3]}), "a.bin in the package: the file is cut: 3 bytes"),
    "no image": (
        package(entry("a.bin"), files={"a.bin": b"\x7fELF" + bytes(99)}),
        "a.bin in the package: this is an ELF",
    ),
    "much larger": (package(entry("a.bin", size=1000)), "says 1,000 bytes for a.bin, but it unpacks to 3,"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_that_are_refused(name: str) -> None:
    data, message = MANIFESTS[name]
    assert message in refused(data).message


def test_no_part_of_a_package_is_taken_alone() -> None:
    """Whatever is wrong with one image, the others are not taken either."""
    for broken in (APP[:-1], b"", bytes(500), APP[:1000] + b"?" + APP[1001:]):
        data = package(entry("a.bin"), entry("b.bin", image_index=1), files={"b.bin": broken})
        with pytest.raises(ImageError, match=r"b\.bin in the package"):
            parse_package(data)
    complete = archive(
        {"a.bin": APP, "manifest.json": json.dumps({"files": [entry("a.bin"), entry("b.bin")]}).encode()}
    )
    assert "the package is not complete: b.bin is missing" in refused(complete).message


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=4), st.data()
)
def test_whatever_a_manifest_says_is_read_or_refused(value: object, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(["file", "type", "image_index", "slot", "size", "load_address", "board", "soc"]))
    changed = {**entry("a.bin"), key: value}
    manifest = json.dumps({"files": [changed], "name": value, "firmware": value}).encode()
    whole = archive({"a.bin": APP, "manifest.json": manifest})
    read_or_refused(whole)


# -- archives by hand --------------------------------------------------------------------------------------------------

BY_HAND: dict[str, tuple[dict[str, bytes], str | None]] = {
    "one file": ({"zephyr.signed.bin": APP}, None),
    "in a folder": ({"x/y/app.BIN": APP, "x/readme.txt": b"?"}, None),
    "from macOS": ({"x/app.bin": APP, "__MACOSX/x/._app.bin": b"?", "x/.DS_Store": b"?", "x/._app.bin": b"?"}, None),
    "HEX": ({"app.hex": b":00000001FF\n"}, "app.hex in the ZIP archive: this is an Intel HEX text without"),
    "two": ({"a.bin": APP, "b.bin": APP}, "several images: a.bin, b.bin"),
    "many": ({f"{name}.bin": APP for name in "abcdef"}, "a.bin, b.bin, c.bin, d.bin and 2 more"),
    "another": ({"x/dfu_application.zip": archive({"a.bin": APP}), "log.txt": b"?"}, "another one in it"),
    "nothing": ({"readme.txt": b"?"}, "this is a ZIP archive, not a signed"),
    "unsigned": ({"zephyr.bin": bytes(range(256))}, "zephyr.bin in the ZIP archive: this is an unknown file"),
    "modem": ({"firmware.update.image.segments.0.hex": b"", "ipc_dfu.signed.ihex": b""}, "a package for the modem"),
    "two packages": ({"a/manifest.json": b"{}", "b/manifest.json": b"{}"}, "holds 2 packages"),
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_archives_without_a_manifest(name: str, method: int) -> None:
    files, message = BY_HAND[name]
    data = archive(files, method)
    if message is not None:
        assert message in refused(data).message
        return
    found = parse_package(data)
    assert told(found) == [(None, None, "APPLICATION")]
    assert found.choose(1).number == 1
    assert "the archive has no manifest" in found.notes[0]


def test_archives_that_were_packed_again() -> None:
    manifest = json.dumps({"files": [entry("app.bin")]}).encode()
    for folder in ("", "dfu_application/", "a/b/", "dfu\\"):
        files = {"__MACOSX/._manifest.json": b"?", f"{folder}manifest.json": manifest, f"{folder}app.bin": APP}
        assert told(parse_package(archive(files, zipfile.ZIP_DEFLATED))) == [(0, None, "APPLICATION")]
    decomposed = archive({"manifest.json": json.dumps({"files": [entry("u\u0308.bin")]}).encode(), "ü.bin": APP})
    assert parse_package(decomposed).images[0].image.data == APP


# -- archives that do harm ---------------------------------------------------------------------------------------------


def patched(data: bytes, central: int, value: bytes, local: int | None = None) -> bytes:
    """With a field of the first file changed in the directory, and in front of the file."""
    at = data.index(b"PK\x01\x02") + central
    data = data[:at] + value + data[at + len(value) :]
    return data if local is None else data[:local] + value + data[local + len(value) :]


def linked() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        link = zipfile.ZipInfo("a.bin")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    return stream.getvalue()


def doubled() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr("a.bin", APP)
        with pytest.warns(UserWarning, match="Duplicate name"):
            opened.writestr("a.bin", OTHER)
    return stream.getvalue()


PLAIN = archive({"a.bin": APP})
PACKED = archive({"a.bin": APP}, zipfile.ZIP_DEFLATED)
BOMB = archive({"a.bin": bytes(100_000_000)}, zipfile.ZIP_DEFLATED)

LARGE = build_image("1.0.0", payload=bytes(range(1, 251)) * 28_000)

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "out of it": (lambda: archive({"../a.bin": APP}), "unsafe name: ../a.bin"),
    "out of it, below": (lambda: archive({"x/../../a.bin": APP}), "unsafe name"),
    "out of it, Windows": (lambda: archive({"x\\..\\..\\a.bin": APP}), "unsafe name"),
    "absolute": (lambda: archive({"/a.bin": APP}), "unsafe name"),
    "a drive": (lambda: archive({"C:a.bin": APP}), "unsafe name"),
    "a share": (lambda: archive({"\\\\host\\a.bin": APP}), "unsafe name"),
    "a terminal": (lambda: archive({"\x1b[2Ja.bin": APP}), r"unsafe name: \x1b[2Ja.bin"),
    "right to left": (lambda: archive({"a\u202enib.bin": APP}), "unsafe name"),
    "link": (linked, "a.bin in the ZIP archive is a link"),
    "twice": (doubled, "holds a.bin twice"),
    "twice, by slashes": (lambda: archive({"x/a.bin": APP, "x\\a.bin": APP}), "holds x/a.bin twice"),
    "bomb": (lambda: BOMB, "unpacks to 100,000,000 bytes"),
    "bomb that lies": (lambda: patched(BOMB, 24, struct.pack("<I", 3000), 22), "does not have the 3,000 bytes"),
    "bombs in a package": (
        lambda: package(
            *[entry(f"{i}", image_index=i) for i in range(3)], files={f"{i}": bytes(12_000_000) for i in range(3)}
        ),
        "0 in the package: this is nothing but 12,000,000 bytes",
    ),
    "too much together": (
        lambda: package(*[entry(f"{i}", image_index=i) for i in range(3)], files=dict.fromkeys("012", LARGE)),
        "2 in the ZIP archive unpacks to 7,000,656 bytes: too much for firmware",
    ),
    "manifest bomb": (lambda: archive({"manifest.json": b" " * 50_000_000}, zipfile.ZIP_DEFLATED), "50,000,000 bytes"),
    "too short": (lambda: patched(PACKED, 24, struct.pack("<I", len(APP) + 1), 22), "does not have the"),
    "too long": (lambda: patched(PLAIN, 24, struct.pack("<I", len(APP) - 1), 22), "does not have the"),
    "packed size": (lambda: patched(PACKED, 20, struct.pack("<I", 1 << 30)), "a.bin is cut"),
    "checksum": (lambda: patched(PLAIN, 16, b"\0\0\0\0"), "the checksum of a.bin is wrong"),
    "garbage": (lambda: PACKED[:60] + bytes(40) + PACKED[100:], "cut or damaged: "),
    "elsewhere": (lambda: patched(PLAIN, 42, struct.pack("<I", 7)), "a.bin is not where it says"),
    "another name": (lambda: PLAIN.replace(b"a.bin", b"b.bin", 1), "a.bin has another name there"),
    "encrypted": (lambda: patched(PLAIN, 8, b"\x01\x00"), "a.bin in the ZIP archive is encrypted"),
    "method": (lambda: archive({"a.bin": APP}, zipfile.ZIP_LZMA), "packed with method 14"),
    "names that are none": (lambda: patched(archive({"é.bin": APP}), 46, b"\xff\xff"), "a name in it is no text"),
    "cut": (lambda: PLAIN[:-30], "cut or damaged: it has no end"),
    "more behind it": (lambda: PLAIN + b"x", "cut or damaged: something follows its end"),
    "end alone": (lambda: PLAIN[:4] + PLAIN[-22:], "its directory is not where it says"),
    "volumes": (lambda: PLAIN[:-18] + b"\1\0" + PLAIN[-16:], "one of several volumes"),
    "many files": (lambda: archive({f"{n}": b"" for n in range(3000)}), "holds 3,000 files"),
    "count": (lambda: PLAIN[:-14] + b"\2\0\2\0" + PLAIN[-10:], "its directory is cut"),
    "count of none": (lambda: PLAIN[:-14] + b"\0\0\0\0" + PLAIN[-10:], "longer than what it lists"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_archives_that_do_harm_are_refused_at_once(name: str) -> None:
    make, message = HOSTILE[name]
    data = make()
    begin = time.process_time()
    tracemalloc.start()
    try:
        error = refused(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message in error.message
    assert peak < 48_000_000
    assert time.process_time() - begin < 2


def test_a_large_archive_takes_no_more_than_the_image_in_it(tmp_path: Path) -> None:
    path = tmp_path / "ci.zip"
    path.write_bytes(archive({"build.log": os.urandom(8_000_000), "app.bin": APP}))
    load_image(path)
    tracemalloc.start()
    try:
        assert load_image(path).data == APP
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_archives_that_were_written_to_a_pipe() -> None:
    """The sizes follow each file then, and are in the directory alone."""

    class Pipe(io.RawIOBase):
        written = b""

        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            self.written += bytes(data)  # type: ignore[call-overload]
            return len(data)  # type: ignore[arg-type]

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("a.bin", APP)
    assert parse_package(pipe.written).images[0].image.data == APP


@given(st.data())
def test_whatever_is_changed_in_an_archive_it_is_read_or_refused(data: st.DataObject) -> None:
    whole = bytearray(package(entry("a.bin", image_index="0", size=len(APP)), files={"a.bin": APP}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    read_or_refused(bytes(whole))


# -- dfu_multi_image.bin -----------------------------------------------------------------------------------------------


def head(major: int, value: int) -> bytes:
    return bytes([major << 5 | value]) if value < 24 else bytes([major << 5 | 26]) + value.to_bytes(4, "big")


def contents(images: Mapping[int, bytes]) -> bytes:
    listed = b"\xa1\x63img" + head(4, len(images))
    for number, data in images.items():
        told = head(0, number) if number >= 0 else head(1, -1 - number)
        listed += b"\xa2\x62id" + told + b"\x64size" + head(0, len(data))
    return len(listed).to_bytes(2, "little") + listed


def multi(images: Mapping[int, bytes], align: int = 1) -> bytes:
    whole = contents(images)
    for data in images.values():
        whole += b"\xff" * (-len(whole) % align) + data
    return whole


@pytest.mark.parametrize("align", [1, 4, 16])
def test_multi_image_packages(align: int) -> None:
    found = parse_package(multi({0: APP, 1: for_core(0x0100_8B00), 3: OTHER}, align))
    assert told(found) == [(0, None, "APPLICATION"), (1, None, "NETWORK_CORE"), (3, None, "APPLICATION")]
    assert found.choose(3).image == parse_image(OTHER)
    assert load_image(multi({1: OTHER}, align)).data == OTHER
    other = parse_package(multi({-2: b"for something else", 0: APP}, 1))
    assert other.choose().image.data == APP
    assert other.notes == ("not sent: 18 bytes for target -2, which is none of MCUboot's images",)


MULTI: dict[str, tuple[bytes, str]] = {
    "cut": (multi({0: APP, 1: APP})[:-1], "it ends 1 bytes before image 1 does"),
    "more": (multi({0: APP}) + b"??", "2 bytes follow its images"),
    "twice": (contents({0: APP}).replace(b"\x81", b"\x82") + APP + APP, "its list of contents cannot be read"),
    "broken": (multi({0: APP, 1: APP[:-5]}), "image 1 in the package: the file is cut"),
    "no image": (multi({-1: b"x"}), "holds nothing for MCUboot"),
    "list cut": (b"\x40" + multi({0: APP})[1:60], "list of contents is cut"),
    "size of 4 GiB": (multi({0: APP}).replace(head(0, len(APP)), b"\x1a\xff\xff\xff\xff", 1), "before image 0 does"),
    "endless": (b"\x07\0\xa1\x63img\x9f" + APP, "its list of contents cannot be read"),
}


@pytest.mark.parametrize("name", MULTI)
def test_multi_image_packages_that_are_refused(name: str) -> None:
    data, message = MULTI[name]
    assert message in refused(data).message


# -- build directories -------------------------------------------------------------------------------------------------

CONFIG = 'CONFIG_BOARD="nrf52840dk"\nCONFIG_BOARD_TARGET="nrf52840dk/nrf52840"\nCONFIG_BOOTLOADER_MCUBOOT=y\n'


def build(root: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def domains(*names: str, default: str = "app", separator: str = "\n") -> str:
    told = [f"default: {default}", "build_dir: C:/Users/me/build", "domains:"]
    for name in names:
        told += [f"  - name: {name}", f"    build_dir: C:/Users/me/build/{name}"]
    return separator.join([*told, "flash_order:", "  - mcuboot", ""])


def test_a_plain_build(tmp_path: Path) -> None:
    files = {"zephyr/.config": CONFIG, "zephyr/zephyr.bin": bytes(900), "zephyr/zephyr.signed.confirmed.bin": b"?"}
    build(tmp_path, {**files, "zephyr/zephyr.signed.bin": APP, "zephyr/zephyr.signed.hex": b"?"})
    for folder in (tmp_path, tmp_path / "zephyr"):
        found = load_package(folder)
        assert (found.kind, told(found)) == (PackageKind.BUILD, [(None, None, "APPLICATION")])
        assert (found.images[0].board, found.images[0].image.data) == ("nrf52840dk/nrf52840", APP)
        assert found.images[0].image.path == str(tmp_path / "zephyr" / "zephyr.signed.bin")


@pytest.mark.parametrize("separator", ["\n", "\r\n"])
def test_a_build_of_sysbuild_on_another_machine(tmp_path: Path, separator: str) -> None:
    build(
        tmp_path,
        {
            "domains.yaml": domains("mcuboot", "app", separator=separator),
            "app/zephyr/.config": CONFIG + 'CONFIG_KERNEL_BIN_NAME="fw"\n',
            "app/zephyr/fw.signed.bin": APP,
            "app/zephyr/zephyr.signed.bin": b"of an older build",
            "mcuboot/zephyr/zephyr.bin": bytes(900),
            "mcuboot/zephyr/zephyr.signed.bin": b"not asked for",
        },
    )
    assert load_image(tmp_path).data == APP
    assert load_image(tmp_path / "app").data == APP


def test_what_an_encrypted_build_has(tmp_path: Path) -> None:
    build(tmp_path, {"zephyr/.config": CONFIG, "zephyr/zephyr.signed.encrypted.bin": APP})
    assert load_image(tmp_path).data == APP


def test_several_images_need_their_package(tmp_path: Path) -> None:
    files = {
        "domains.yaml": domains("app", "mcuboot", "ipc_radio"),
        "app/zephyr/.config": CONFIG,
        "app/zephyr/zephyr.signed.bin": APP,
        "ipc_radio/zephyr/zephyr.bin": bytes(900),
        "signed_by_mcuboot_and_b0_ipc_radio.bin": OTHER,
        "signed_by_mcuboot_and_b0_mcuboot.bin": OTHER,
    }
    build(tmp_path, files)
    with pytest.raises(
        ImageError, match=r"is a build of several images: app/zephyr/zephyr\.signed\.bin, signed_by_"
    ) as caught:
        load_package(tmp_path)
    assert "dfu_application.zip" in (caught.value.hint or "")
    both = package(entry("a.bin"), entry("b.bin", image_index=1), files={"b.bin": OTHER})
    build(tmp_path, {"dfu_application.zip": both})
    assert [one.image.data for one in load_package(tmp_path).images] == [APP, OTHER]


def test_a_package_that_is_older_than_its_image_is_not_taken(tmp_path: Path) -> None:
    build(tmp_path, {"domains.yaml": domains("app"), "app/zephyr/.config": CONFIG, "app/zephyr/zephyr.signed.bin": APP})
    packed = (
        build(tmp_path, {"dfu_application.zip": package(entry("a.bin"), files={"a.bin": OTHER})})
        / "dfu_application.zip"
    )
    assert load_image(tmp_path).data == OTHER
    os.utime(packed, (1, 1))
    found = load_package(tmp_path)
    assert found.images[0].image.data == APP
    assert found.warnings == ("app/zephyr/zephyr.signed.bin is newer than dfu_application.zip, and not in it",)
    packed.write_bytes(package(entry("a.bin"), entry("b.bin", image_index=1), files={"a.bin": OTHER}))
    assert len(load_package(tmp_path).images) == 2
    os.utime(packed, (1, 1))
    assert len(load_package(tmp_path).images) == 2  # it has that image, whatever the times say
    packed.write_bytes(
        package(entry("a.bin"), entry("b.bin", image_index=1), files=dict.fromkeys(("a.bin", "b.bin"), OTHER))
    )
    os.utime(packed, (1, 1))
    with pytest.raises(ImageError, match=r"is newer than dfu_application\.zip"):
        load_package(tmp_path)


BUILDS: dict[str, tuple[dict[str, bytes | str], str]] = {
    "empty": ({}, "is a directory, and no build of Zephyr's"),
    "not signed": ({"zephyr/.config": CONFIG.replace("MCUBOOT=y", "MCUBOOT=n")}, "made without MCUboot"),
    "not finished": ({"zephyr/.config": CONFIG, "zephyr/zephyr.signed.confirmed.bin": APP}, "has no signed image"),
    "sysbuild, not signed": (
        {"domains.yaml": domains("app"), "app/zephyr/.config": "CONFIG_BOARD=x\n", "app/zephyr/zephyr.bin": bytes(9)},
        "made without MCUboot",
    ),
    "names that lead out": (
        {"domains.yaml": domains("../../other", "app"), "app/zephyr/.config": 'CONFIG_KERNEL_BIN_NAME="../x"\n'},
        "made without MCUboot",
    ),
}


@pytest.mark.parametrize("name", BUILDS)
def test_builds_without_an_update(name: str, tmp_path: Path) -> None:
    files, message = BUILDS[name]
    build(tmp_path, files)
    with pytest.raises(ImageError, match=message) as caught:
        load_package(tmp_path)
    assert caught.value.hint
    assert caught.value.path == str(tmp_path)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (APP, package(entry("a.bin"))):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert load_image("-").data == APP
