"""Both codecs, by tables read both ways and by cases; the comparison on random bytes is in test_codec_fuzz.py."""

from __future__ import annotations

import array
import importlib.util
import os
import random
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

import pytest

import mcumgrx
from mcumgrx.protocol import codec as chosen

RESPONSES = 1 << 1 | 1 << 3
REQUESTS = 1 << 0 | 1 << 2
ANY_OP = 0xFF

# (bytes, (op, version, flags, group, sequence, command, payload))
MESSAGES = {
    "v2 echo": ("0a 00 00 09 00 00 2a 00 a1 61 64 65 68 65 6c 6c 6f", (2, 1, 0, 0, 0x2A, 0, b"\xa1adehello")),
    "v1 echo": ("02 00 00 09 00 00 2a 00 a1 61 64 65 68 65 6c 6c 6f", (2, 0, 0, 0, 0x2A, 0, b"\xa1adehello")),
    "v2 echo answer, indefinite map": (
        "0b 00 00 0a 00 00 2a 00 bf 61 72 65 68 65 6c 6c 6f ff",
        (3, 1, 0, 0, 0x2A, 0, b"\xbfarehello\xff"),
    ),
    "v2 echo answer, canonical": (
        "0b 00 00 09 00 00 2a 00 a1 61 72 65 68 65 6c 6c 6f",
        (3, 1, 0, 0, 0x2A, 0, b"\xa1arehello"),
    ),
    "params": ("08 00 00 01 00 00 01 06 a0", (0, 1, 0, 0, 1, 6, b"\xa0")),
    "params answer": (
        "09 00 00 19 00 00 01 06 bf 68 6275665f73697a65 19 0180 69 6275665f636f756e74 04 ff",
        (1, 1, 0, 0, 1, 6, b"\xbfhbuf_size\x19\x01\x80ibuf_count\x04\xff"),
    ),
    "reset with boot_mode": (
        "0a 00 00 0c 00 00 11 05 a1 69 626f6f745f6d6f6465 01",
        (2, 1, 0, 0, 0x11, 5, b"\xa1iboot_mode\x01"),
    ),
    "reset answer": ("0b 00 00 02 00 00 08 05 bf ff", (3, 1, 0, 0, 8, 5, b"\xbf\xff")),
    "no payload": ("01 00 00 00 00 01 00 00", (1, 0, 0, 1, 0, 0, b"")),
    "flags of a Mynewt server": ("01 01 00 01 00 00 00 02 a0", (1, 0, 1, 0, 0, 2, b"\xa0")),
    "every field large": ("1f ff 00 01 ff fe fd fc 00", (7, 3, 0xFF, 0xFFFE, 0xFD, 0xFC, b"\x00")),
    "bytes in order": ("0b 02 00 00 04 05 06 07", (3, 1, 2, 0x0405, 6, 7, b"")),
}
WIRE = {name: (bytes.fromhex(text), fields) for name, (text, fields) in MESSAGES.items()}
each_message = pytest.mark.parametrize(("wire", "fields"), WIRE.values(), ids=WIRE)

FIELD_LIMITS = {
    "op": 7,
    "version": 3,
    "flags": 0xFF,
    "length": 0xFFFF,
    "group": 0xFFFF,
    "sequence": 0xFF,
    "command": 0xFF,
}


class TestTables:
    @each_message
    def test_build(self, codec: ModuleType, wire: bytes, fields: tuple[object, ...]) -> None:
        assert codec.build_message(*fields) == wire

    @each_message
    def test_reassemble(self, codec: ModuleType, wire: bytes, fields: tuple[object, ...]) -> None:
        reassembler = codec.Reassembler(0xFFFF, ANY_OP)
        assert reassembler.feed(wire) == [fields]
        assert (reassembler.pending, reassembler.discarded) == (0, 0)

    @each_message
    def test_header_both_ways(self, codec: ModuleType, wire: bytes, fields: tuple[object, ...]) -> None:
        op, version, flags, group, sequence, command, payload = fields
        assert isinstance(payload, bytes)
        header = (op, version, flags, len(payload), group, sequence, command)
        assert codec.unpack_header(wire) == header
        assert codec.pack_header(*header) == wire[: codec.HEADER_SIZE]


class TestPackHeader:
    @pytest.mark.parametrize("name", FIELD_LIMITS)
    def test_limits(self, codec: ModuleType, name: str) -> None:
        low = dict.fromkeys(FIELD_LIMITS, 0)
        high = low | {name: FIELD_LIMITS[name]}
        assert codec.unpack_header(codec.pack_header(*high.values())) == tuple(high.values())
        for wrong in (-1, FIELD_LIMITS[name] + 1, 1 << 70, -(1 << 70)):
            with pytest.raises(ValueError, match=rf"^{name} must be 0\.\.{FIELD_LIMITS[name]}, not {wrong}$"):
                codec.pack_header(*(low | {name: wrong}).values())

    @pytest.mark.parametrize("wrong", [1.0, "1", None, b"1"])
    def test_not_an_integer(self, codec: ModuleType, wrong: object) -> None:
        for position in range(7):
            fields: list[object] = [0] * 7
            fields[position] = wrong
            with pytest.raises(TypeError):
                codec.pack_header(*fields)

    def test_first_wrong_field_is_named(self, codec: ModuleType) -> None:
        with pytest.raises(ValueError, match=r"^version must"):
            codec.pack_header(0, 4, 256, 0, 0, 0, 256)


class TestUnpackHeader:
    HEADER = bytes.fromhex("0b 02 00 03 04 05 06 07")
    FIELDS = (3, 1, 2, 3, 0x0405, 6, 7)

    @pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=lambda make: make.__name__)
    def test_kinds_of_bytes(self, codec: ModuleType, make: type) -> None:
        assert codec.unpack_header(make(self.HEADER)) == self.FIELDS
        assert codec.unpack_header(make(b"??" + self.HEADER + b"?"), 2) == self.FIELDS

    def test_contiguous_part_of_a_view(self, codec: ModuleType) -> None:
        assert codec.unpack_header(memoryview(b"?" + self.HEADER + b"?")[1:9]) == self.FIELDS

    def test_items_of_several_bytes(self, codec: ModuleType) -> None:
        data = array.array("H", self.HEADER)
        assert codec.unpack_header(memoryview(data)) == self.FIELDS

    def test_reserved_bits_are_ignored(self, codec: ModuleType) -> None:
        assert codec.unpack_header(b"\xeb" + self.HEADER[1:]) == self.FIELDS

    @pytest.mark.parametrize("size", range(8))
    def test_too_short(self, codec: ModuleType, size: int) -> None:
        with pytest.raises(ValueError, match=rf"no 8 header bytes at offset 0 of {size} bytes"):
            codec.unpack_header(self.HEADER[:size])

    @pytest.mark.parametrize("offset", [-1, -8, 1, 8, 9, sys.maxsize, 1 << 70, -(1 << 70)])
    def test_offset_out_of_range(self, codec: ModuleType, offset: int) -> None:
        with pytest.raises(ValueError, match=rf"no 8 header bytes at offset {offset} of 8 bytes"):
            codec.unpack_header(self.HEADER, offset)

    @pytest.mark.parametrize("wrong", ["12345678", 8, None, [1] * 8])
    def test_no_bytes(self, codec: ModuleType, wrong: object) -> None:
        with pytest.raises(TypeError):
            codec.unpack_header(wrong)
        with pytest.raises(TypeError):
            codec.unpack_header(self.HEADER, str(wrong))

    def test_not_contiguous(self, codec: ModuleType) -> None:
        with pytest.raises(BufferError):
            codec.unpack_header(memoryview(bytes(16))[::2])

    def test_the_buffer_is_released(self, codec: ModuleType) -> None:
        data = bytearray(self.HEADER)
        codec.unpack_header(data)
        with pytest.raises(ValueError, match="no 8 header bytes"):
            codec.unpack_header(data, 1)
        data.extend(b"not refused because of an export")


class TestBuildMessage:
    @pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=lambda make: make.__name__)
    @pytest.mark.parametrize("size", [0, 1, 400, 0xFFFF])
    def test_payloads(self, codec: ModuleType, make: type, size: int) -> None:
        payload = bytes(range(256)) * 256
        message = codec.build_message(2, 1, 0, 1, 5, 1, make(payload[:size]))
        assert message == bytes((0x0A, 0, size >> 8, size & 0xFF, 0, 1, 5, 1)) + payload[:size]

    def test_payload_too_long(self, codec: ModuleType) -> None:
        with pytest.raises(ValueError, match=r"^payload must be 0\.\.65535 bytes, not 65536$"):
            codec.build_message(2, 1, 0, 1, 5, 1, bytes(0x10000))

    @pytest.mark.parametrize("name", [name for name in FIELD_LIMITS if name != "length"])
    def test_limits(self, codec: ModuleType, name: str) -> None:
        fields = {key: 0 for key in FIELD_LIMITS if key != "length"} | {name: FIELD_LIMITS[name] + 1}
        with pytest.raises(ValueError, match=f"^{name} must be"):
            codec.build_message(*fields.values(), b"")

    def test_payload_without_bytes(self, codec: ModuleType) -> None:
        for wrong in ("a", 1, None):
            with pytest.raises(TypeError):
                codec.build_message(2, 1, 0, 1, 5, 1, wrong)
        with pytest.raises(BufferError):
            codec.build_message(2, 1, 0, 1, 5, 1, memoryview(b"1234")[::2])


ANSWER, ANSWER_FIELDS = WIRE["params answer"]
RESET, RESET_FIELDS = WIRE["reset answer"]


class TestReassembler:
    @pytest.mark.parametrize("size", [*range(1, 12), 32, 33, 34, 1000])
    def test_every_cut_gives_the_same(self, codec: ModuleType, size: int) -> None:
        stream = ANSWER + RESET + RESET + ANSWER
        reassembler = codec.Reassembler(400, RESPONSES)
        messages = [
            message
            for start in range(0, len(stream), size)
            for message in reassembler.feed(stream[start : start + size])
        ]
        assert messages == [ANSWER_FIELDS, RESET_FIELDS, RESET_FIELDS, ANSWER_FIELDS]
        assert (reassembler.pending, reassembler.discarded) == (0, 0)

    def test_each_byte_as_it_comes(self, codec: ModuleType) -> None:
        reassembler = codec.Reassembler(400, RESPONSES)
        for index in range(len(ANSWER) - 1):
            assert reassembler.feed(ANSWER[index : index + 1]) == []
            assert reassembler.pending == index + 1
        assert reassembler.feed(ANSWER[-1:]) == [ANSWER_FIELDS]
        assert reassembler.pending == 0

    def test_nothing(self, codec: ModuleType) -> None:
        reassembler = codec.Reassembler(400, RESPONSES)
        assert reassembler.feed(b"") == []
        reassembler.feed(ANSWER[:9])
        assert reassembler.feed(b"") == []
        assert reassembler.pending == 9
        assert reassembler.feed(memoryview(bytearray(ANSWER[9:]))) == [ANSWER_FIELDS]

    @pytest.mark.parametrize("size", [1, 3, 1000])
    @pytest.mark.parametrize(
        "garbage",
        [
            pytest.param(b"\xff" * 5, id="reserved bits"),
            pytest.param(bytes.fromhex("2b 00 00 0a 00 00 2a 00"), id="a header with a reserved bit"),
            pytest.param(b"\x0a\x08\x00\x02", id="ops of requests"),
            pytest.param(b"\x0c\x0d\x0e\x0f", id="ops of nobody"),
            pytest.param(b"\x0b\x00\x01\x91", id="length above the limit"),
            pytest.param(b"\x0b\x0b\xff\xff", id="two that look like a beginning"),
            pytest.param(b"*** Booting Zephyr OS build v4.4.0 ***\r\n", id="boot text"),
        ],
    )
    def test_garbage_before_a_message_is_skipped(self, codec: ModuleType, garbage: bytes, size: int) -> None:
        reassembler = codec.Reassembler(400, RESPONSES)
        stream = garbage + ANSWER + garbage + RESET
        messages = [
            message
            for start in range(0, len(stream), size)
            for message in reassembler.feed(stream[start : start + size])
        ]
        assert messages == [ANSWER_FIELDS, RESET_FIELDS]
        assert (reassembler.pending, reassembler.discarded) == (0, 2 * len(garbage))

    def test_implausible_as_soon_as_it_shows(self, codec: ModuleType) -> None:
        reassembler = codec.Reassembler(0x0190, RESPONSES)
        assert reassembler.feed(b"\x0a") == []
        assert (reassembler.pending, reassembler.discarded) == (0, 1)
        assert reassembler.feed(b"\x0b\x0b\x01") == []
        assert (reassembler.pending, reassembler.discarded) == (3, 1)
        assert reassembler.feed(b"\x91") == []  # 0b 0b 01 91 is too long by one byte
        assert (reassembler.pending, reassembler.discarded) == (3, 2)
        assert reassembler.feed(b"\x02") == []  # 0b 01 91 02 is far too long, 01 91 02 may go on well
        assert (reassembler.pending, reassembler.discarded) == (3, 3)

    def test_limit_is_the_payload_length(self, codec: ModuleType) -> None:
        message = codec.build_message(3, 1, 0, 1, 2, 3, b"\xff" * 100)
        assert len(codec.Reassembler(100, RESPONSES).feed(message)) == 1
        smaller = codec.Reassembler(99, RESPONSES)
        assert smaller.feed(message) == []
        assert smaller.discarded == len(message)
        assert len(codec.Reassembler(0, RESPONSES).feed(message[:2] + b"\0\0" + message[4:8])) == 1

    def test_ops_of_each_side(self, codec: ModuleType) -> None:
        for op in range(8):
            message = codec.build_message(op, 1, 0, 0, 0, 0, b"\xa0")
            assert len(codec.Reassembler(400, RESPONSES).feed(message)) == (op in (1, 3))
            assert len(codec.Reassembler(400, REQUESTS).feed(message)) == (op in (0, 2))
            assert len(codec.Reassembler(400, ANY_OP).feed(message)) == 1

    def test_reset(self, codec: ModuleType) -> None:
        reassembler = codec.Reassembler(400, RESPONSES)
        reassembler.feed(b"?" + ANSWER[:20])
        reassembler.reset()
        assert (reassembler.pending, reassembler.discarded) == (0, 21)
        reassembler.reset()
        assert (reassembler.pending, reassembler.discarded) == (0, 21)
        assert reassembler.feed(ANSWER) == [ANSWER_FIELDS]

    def test_a_message_does_not_change_with_the_chunk(self, codec: ModuleType) -> None:
        chunk = bytearray(RESET + ANSWER[:10])
        reassembler = codec.Reassembler(400, RESPONSES)
        messages = reassembler.feed(chunk)
        chunk[:] = bytes(len(chunk))
        assert messages == [RESET_FIELDS]
        assert reassembler.feed(ANSWER[10:]) == [ANSWER_FIELDS]

    @pytest.mark.parametrize("held", [0, 3, 10])
    def test_wrong_type_changes_nothing(self, codec: ModuleType, held: int) -> None:
        reassembler = codec.Reassembler(400, RESPONSES)
        reassembler.feed(b"?" + ANSWER[:held])
        for wrong in ("text", 5, None, [0x0B]):
            with pytest.raises(TypeError):
                reassembler.feed(wrong)
        with pytest.raises(BufferError):
            reassembler.feed(memoryview(ANSWER)[::2])
        assert (reassembler.pending, reassembler.discarded) == (held, 1)
        assert reassembler.feed(ANSWER[held:]) == [ANSWER_FIELDS]

    def test_the_chunk_is_released(self, codec: ModuleType) -> None:
        chunk = bytearray(ANSWER[:12])
        codec.Reassembler(400, RESPONSES).feed(chunk)
        chunk.extend(b"not refused because of an export")

    @pytest.mark.parametrize("max_length", [-1, 0x10000, 1 << 70])
    def test_max_length_out_of_range(self, codec: ModuleType, max_length: int) -> None:
        with pytest.raises(ValueError, match=r"^max_length must be 0\.\.65535, not"):
            codec.Reassembler(max_length, RESPONSES)

    @pytest.mark.parametrize("ops", [-1, 0, 0x100])
    def test_ops_out_of_range(self, codec: ModuleType, ops: int) -> None:
        with pytest.raises(ValueError, match=r"^ops must be 1\.\.255, not"):
            codec.Reassembler(400, ops)

    def test_arguments_are_needed_and_integers(self, codec: ModuleType) -> None:
        for wrong in ((), (400,), (400, "1"), (4.0, 1)):
            with pytest.raises(TypeError):
                codec.Reassembler(*wrong)

    def test_longest_message(self, codec: ModuleType) -> None:
        payload = random.Random(1).randbytes(0xFFFF)
        message = codec.build_message(1, 1, 0, 8, 9, 0, payload)
        reassembler = codec.Reassembler(0xFFFF, RESPONSES)
        for start in range(0, len(message) - 1, 4093):
            assert reassembler.feed(message[start : min(start + 4093, len(message) - 1)]) == []
        assert reassembler.pending == len(message) - 1
        assert reassembler.feed(message[-1:]) == [(1, 1, 0, 8, 9, 0, payload)]

    def test_holds_no_more_than_one_message(self, codec: ModuleType) -> None:
        reassembler = codec.Reassembler(64, RESPONSES)
        stream = random.Random(2).randbytes(100_000)
        for start in range(0, len(stream), 1000):
            reassembler.feed(stream[start : start + 1000])
            assert reassembler.pending < codec.HEADER_SIZE + 64


class TestChoice:
    """`mcumgrx.protocol.codec` takes the compiled one unless it must not or cannot."""

    def implementation(self, **environment: str) -> str:
        code = "from mcumgrx.protocol import codec; print(codec.IMPLEMENTATION, codec.FALLBACK_REASON, sep='|')"
        kept = {name: value for name, value in os.environ.items() if name != "MCUMGRX_PURE_PYTHON"}
        root = str(Path(mcumgrx.__path__[0]).parent)
        return subprocess.run(
            [sys.executable, "-c", code], env=kept | environment, cwd=root, check=True, capture_output=True, text=True
        ).stdout.strip()

    def test_an_extension_that_exists_is_used(self) -> None:
        if os.environ.get("MCUMGRX_PURE_PYTHON", "") not in ("", "0"):
            assert chosen.IMPLEMENTATION == "python"
            return
        built = [
            path
            for folder in mcumgrx.__path__
            for suffix in EXTENSION_SUFFIXES
            if (path := Path(folder) / f"_codec{suffix}").exists()
        ]
        in_use: str = chosen.IMPLEMENTATION
        assert in_use == ("compiled" if built else "python"), chosen.FALLBACK_REASON

    def test_the_environment_forces_the_reference(self) -> None:
        assert self.implementation(MCUMGRX_PURE_PYTHON="1") == "python|MCUMGRX_PURE_PYTHON is set"

    @pytest.mark.parametrize("off", ["", "0"])
    def test_the_environment_does_not_force_it(self, off: str) -> None:
        if importlib.util.find_spec("mcumgrx._codec") is None:
            assert self.implementation(MCUMGRX_PURE_PYTHON=off) == "python|No module named 'mcumgrx._codec'"
        else:
            assert self.implementation(MCUMGRX_PURE_PYTHON=off) == "compiled|"

    def test_the_names_are_those_of_the_codec(self, codec: ModuleType) -> None:
        assert set(codec.__all__) == set(chosen.__all__) - {"IMPLEMENTATION", "FALLBACK_REASON"}
        for name in codec.__all__:
            assert hasattr(chosen, name)
            assert hasattr(codec, name)


class TestAgainstSmp:
    """The header of the independent package `smp`, as a second opinion."""

    def test_random_requests_agree_both_ways(self, codec: ModuleType) -> None:
        if importlib.util.find_spec("smp") is None:
            pytest.skip("smp is not installed")
        from smp.header import OP, Header, Version

        rng = random.Random(20)
        for _ in range(10_000):
            op, version = rng.choice((0, 2)), rng.choice((0, 1))
            # Flags stay 0, which smp demands, and groups are those of applications, whose commands it leaves open.
            length, group = rng.randrange(0x10000), rng.randrange(64, 0x10000)
            sequence, command = rng.randrange(0x100), rng.randrange(0x100)
            ours = codec.pack_header(op, version, 0, length, group, sequence, command)
            theirs = Header(
                op=OP(op),
                version=Version(version),
                flags=0,
                length=length,
                group_id=group,
                sequence=sequence,
                command_id=command,
            )
            assert ours == bytes(theirs)
            loaded = Header.loads(ours)
            assert codec.unpack_header(bytes(theirs)) == (
                loaded.op,
                loaded.version,
                loaded.flags,
                loaded.length,
                loaded.group_id,
                loaded.sequence,
                loaded.command_id,
            )
