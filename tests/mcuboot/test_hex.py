"""Intel HEX: segments, images in them, and errors that name their line. The package intelhex is the oracle."""

from __future__ import annotations

import io
import time
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot import ImageRole, PackageKind, load_image, parse_image, parse_package, trailer_magic
from mcumgrx.mcuboot.hex import HexFile, read_hex
from mcumgrx.sim.images import build_image

intelhex = pytest.importorskip("intelhex")

APP = build_image("1.1.0", payload_size=3000)
VECTORS = b"\x00\x40\x00\x20" + b"".join((0x101 + 4 * index).to_bytes(4, "little") for index in range(15))
END = ":00000001FF\n"


def record(kind: int, offset: int, data: bytes) -> str:
    body = bytes([len(data)]) + offset.to_bytes(2, "big") + bytes([kind]) + data
    return f":{body.hex().upper()}{-sum(body) & 0xFF:02X}\n"


def lines(address: int, data: bytes, width: int = 16) -> Iterable[str]:
    """As linkers write it: an upper address with each 64 KiB."""
    upper = None
    while data:
        if address >> 16 != upper:
            upper = address >> 16
            yield record(4, 0, upper.to_bytes(2, "big"))
        count = min(width, len(data), 0x10000 - (address & 0xFFFF))
        yield record(0, address & 0xFFFF, data[:count])
        address, data = address + count, data[count:]


def text(*parts: tuple[int, bytes], width: int = 16) -> bytes:
    return ("".join(line for address, data in parts for line in lines(address, data, width)) + END).encode()


def bytes_of(file: HexFile) -> dict[int, int]:
    return {one.address + at: byte for one in file.segments for at, byte in enumerate(one.data)}


@given(st.dictionaries(st.integers(0, 0x2_0200), st.integers(0, 255), max_size=80), st.integers(1, 255), st.randoms())
def test_what_is_read_is_what_intelhex_reads(told: dict[int, int], width: int, random: object) -> None:
    written = intelhex.IntelHex(told)
    out = io.StringIO()
    written.write_hex_file(out, byte_count=width)
    shuffled = out.getvalue()
    assert bytes_of(read_hex(shuffled.encode())) == told
    read = intelhex.IntelHex(io.StringIO(shuffled))
    segments = [(one.address, one.end) for one in read_hex(shuffled.encode()).segments]
    assert segments == read.segments()


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(min_size=1, max_size=20)), max_size=12), st.booleans())
def test_out_of_order_and_overlapping_records(records: list[tuple[int, bytes]], linear: bool) -> None:
    records = [(offset, data[: 0x10000 - offset]) for offset, data in records]
    base = record(4 if linear else 2, 0, b"\x10\x00")
    whole = base + "".join(record(0, *one) for one in records) + END
    places = [offset + at for offset, data in records for at in range(len(data))]
    if len(set(places)) < len(places):
        with pytest.raises(ImageError, match=r"line \d+: it overlaps line \d+: both have data for address 0x"):
            read_hex(whole.encode())
        with pytest.raises(intelhex.AddressOverlapError):
            intelhex.IntelHex(io.StringIO(whole))
    else:
        assert bytes_of(read_hex(whole.encode())) == intelhex.IntelHex(io.StringIO(whole)).todict()


GOOD = [*lines(0xC000, bytes(range(64)))]

DAMAGED = [
    ("checksum", [*GOOD[:3], GOOD[3][:-3] + "00\n"], "line 4: the checksum is wrong: 00, not"),
    ("odd digits", [*GOOD[:2], GOOD[2][:-2] + "\n"], "line 3: an odd number of digits"),
    ("no digits", [*GOOD[:2], ":10C0zz"], "line 3: an odd number of digits, or something else"),
    ("short", [GOOD[0], ":00\n"], "line 2: it is cut"),
    ("length", [GOOD[0], ":02C0000000003E\n"[:-3] + "\n"], "line 2: "),
    (
        "length that lies",
        [GOOD[0], ":10C0000000\n"],
        "line 2: its length does not fit: it says 16 bytes of data and has 0",
    ),
    ("text", [*GOOD[:2], "hello\n"], "line 3: no record"),
    ("type", [*GOOD[:2], record(6, 0, b"")], "line 3: type 06"),
    ("upper address of 3 bytes", [record(4, 0, b"\0\0\0"), *GOOD], "line 1: a record of type 04 with 3 bytes"),
    ("segment's end", [record(2, 0, b"\0\0"), record(0, 0xFFFE, b"abc")], "line 2: the data run past the end"),
    ("4 GiB", [record(4, 0, b"\xff\xff"), record(0, 0xFFFE, b"abc")], "line 2: the data run past the end"),
    ("no end", GOOD, "is cut: no end record follows line 5"),
    ("two files", [*GOOD, END, *lines(0x20000, b"more")], "line 8: data behind the end record in line 6: two files"),
    ("long line", [*GOOD, ":" + "00" * 400, "\n"], "line 6: it has 801 characters"),
    ("endless line", [*GOOD, ":" + "00" * 200_000], "line 6: it has 65,"),
]


@pytest.mark.parametrize(("told", "message"), [pytest.param(*case[1:], id=case[0]) for case in DAMAGED])
def test_what_is_damaged_is_told_with_its_line(told: list[str], message: str) -> None:
    with pytest.raises(ImageError) as caught:
        read_hex("".join(told).encode())
    assert message in caught.value.message
    assert caught.value.hint


def test_what_people_do_to_such_files() -> None:
    plain = text((0xC000, APP))
    by_hand = b"\xef\xbb\xbf; made by hand\r\n\r\n# \xff\n" + plain.lower().replace(b"\n", b" \r\n")
    assert read_hex(by_hand).segments == read_hex(plain).segments
    assert read_hex(plain.replace(b"\n", b"\r\n").removesuffix(b"\r\n")).segments == read_hex(plain).segments
    started = "".join([record(3, 0, bytes(4)), record(5, 0, bytes(4))]).encode() + plain
    assert read_hex(started).segments == read_hex(plain).segments
    behind = read_hex(plain + plain.splitlines(keepends=True)[3] + b"trailing words\n")
    assert behind.segments == read_hex(plain).segments
    assert "what follows the end record" in behind.warnings[0]


def test_memory_goes_with_the_data_and_not_with_the_addresses() -> None:
    whole = text((0x1000, VECTORS), (0xC000, APP), (0x1000_1014, b"\0\0\xf0\xff"), (0xFFFF_FFF0, b"end"))
    tracemalloc.start()
    package = parse_package(whole)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert package.images[0].image.data == APP
    assert peak < 500_000


def test_it_is_faster_than_intelhex() -> None:
    whole = text((0, bytes(range(256)) * 1024), width=16)
    begin = time.process_time()
    ours = read_hex(whole)
    between = time.process_time()
    theirs = intelhex.IntelHex(io.StringIO(whole.decode()))
    end = time.process_time()
    assert ours.segments[0].data == theirs.tobinstr()
    assert between - begin < end - between


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", [1, 34, 36, 66_000])
def test_a_merged_file_gives_the_image_whatever_the_gap(gap: int) -> None:
    """The magic is in the bootloader as a literal, as it is in every one: only what begins a segment is an image."""
    bootloader = VECTORS + APP[:4] + b"code" + APP
    merged = text((0x8_0000 - gap - len(bootloader), bootloader), (0x8_0000, APP), (0x1000_1208, b"\xfe\xff\xff\xff"))
    package = parse_package(merged)
    (found,) = package.images
    assert (package.kind, found.address, found.image.data) == (PackageKind.HEX, 0x8_0000, APP)
    assert [note.partition(" at ")[0] for note in package.notes] == [
        "not sent: 4 bytes of UICR (settings of the chip)",
        f"not sent: {len(bootloader):,} bytes",
    ]
    assert package.choose(2).number == 2
    assert package.choose().number == 0


def test_without_a_gap_there_is_no_image() -> None:
    with pytest.raises(ImageError, match=r"of unsigned firmware: none of its segments \(1\) begins with an image"):
        parse_package(text((0, VECTORS + APP)))
    with pytest.raises(ImageError, match="of something else"):
        parse_package(text((0, b"settings")))
    with pytest.raises(ImageError, match="without a record of data"):
        parse_package(END.encode())


def test_a_broken_image_is_never_left_out() -> None:
    with pytest.raises(ImageError, match="the image at 0x84000: the image's hash"):
        parse_package(text((0xC000, APP), (0x8_4000, APP[:600] + b"?" + APP[601:])))
    with pytest.raises(ImageError, match="the image at 0xc000: the file is cut"):
        parse_package(text((0xC000, APP[:600]), (0xC000 + 601, APP[601:])))


def test_two_cores_and_two_slots() -> None:
    network = bytearray(VECTORS)
    network[4:8] = (0x0100_8B01).to_bytes(4, "little")
    core = build_image("2.0.0", payload=bytes(network))
    package = parse_package(text((0xC000, APP), (0x0100_8800, core)))
    assert [(one.index, one.slot, one.role) for one in package.images] == [
        (0, None, ImageRole.APPLICATION),
        (1, None, ImageRole.NETWORK_CORE),
    ]
    assert package.choose(1).image == parse_image(core)
    assert [one.number for one in package.choose_all()] == [0, 1]
    with pytest.raises(ImageError, match="this is an Intel HEX of 2 images") as caught:
        package.choose()
    assert "--image 0 or 1" in (caught.value.hint or "")
    slots = parse_package(text((0xC000, APP), (0x8_4000, APP)))
    assert [(one.index, one.slot) for one in slots.images] == [(0, 0), (0, 1)]
    with pytest.raises(ImageError, match="2 files for image 0, linked for different slots"):
        slots.choose()
    assert [(one.number, one.slot) for one in slots.choose_all(0)] == [(0, 0), (0, 1)]


@pytest.mark.parametrize("align", [8, 16, 32])
@pytest.mark.parametrize("apart", [False, True])
def test_a_trailer_at_the_end_of_the_slot_belongs_to_the_image(align: int, apart: bool) -> None:
    end, ok_at = 0xC000 + 0x8000, (16 + align - 1) // align * align + align
    magic = (end - 16, trailer_magic(align))
    good = (end - ok_at, b"\x01" if apart else b"\x01".ljust(ok_at - 16, b"\xff"))
    image = load_image(text((0xC000, APP), good, magic))
    assert (image.size, image.padded, image.pad_confirmed, image.padding_align) == (0x8000, True, True, align)
    assert image.trimmed() == APP
    image = load_image(text((0xC000, APP), magic))
    assert (image.padded, image.pad_confirmed) == (True, False)
