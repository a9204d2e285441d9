"""Both codecs, by tables read both ways and by cases; the comparison on random bytes is in test_codec_fuzz.py."""

from __future__ import annotations

import array
import base64
import importlib.util
import inspect
import os
import random
import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Any

import cbor2
import pytest

import mcumgrx
from mcumgrx import _pycodec as reference
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


class TestSplitMessages:
    @each_message
    def test_one(self, codec: ModuleType, wire: bytes, fields: tuple[object, ...]) -> None:
        assert codec.split_messages(wire, ANY_OP) == ([fields], 0)

    @pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=lambda make: make.__name__)
    def test_two_and_what_is_left(self, codec: ModuleType, make: type) -> None:
        for size in range(len(ANSWER)):
            found = codec.split_messages(make(RESET + ANSWER + ANSWER[:size]), RESPONSES)
            assert found == ([RESET_FIELDS, ANSWER_FIELDS], size)

    def test_ends_at_a_foreign_op(self, codec: ModuleType) -> None:
        request, _ = WIRE["params"]
        assert codec.split_messages(RESET + request + RESET, RESPONSES) == ([RESET_FIELDS], len(request + RESET))
        assert codec.split_messages(request, RESPONSES) == ([], len(request))

    def test_reserved_bits_are_ignored(self, codec: ModuleType) -> None:
        assert codec.split_messages(bytes([RESET[0] | 0xE0]) + RESET[1:], RESPONSES) == ([RESET_FIELDS], 0)

    def test_wrong_arguments(self, codec: ModuleType) -> None:
        assert codec.split_messages(b"", RESPONSES) == ([], 0)
        for ops in (-1, 0, 0x100, 1 << 70):
            with pytest.raises(ValueError, match=rf"^ops must be 1\.\.255, not {ops}$"):
                codec.split_messages(RESET, ops)
        with pytest.raises(TypeError):
            codec.split_messages("text", RESPONSES)
        with pytest.raises(BufferError):
            codec.split_messages(memoryview(RESET)[::2], RESPONSES)


# (message, characters in a line, frame)
FRAMES = {
    "v2 echo": (WIRE["v2 echo"][0], 124, b"\x06\x09ABMKAAAJAAAqAKFhZGVoZWxsbwo4\n"),
    "v1 echo": (WIRE["v1 echo"][0], 124, b"\x06\x09ABMCAAAJAAAqAKFhZGVoZWxsb40o\n"),
    "padding": (WIRE["v2 echo answer, indefinite map"][0], 124, b"\x06\x09ABQLAAAKAAAqAL9hcmVoZWxsb/+Esw==\n"),
    "line just full": (WIRE["v2 echo"][0], 28, b"\x06\x09ABMKAAAJAAAqAKFhZGVoZWxsbwo4\n"),
    "last line of one group": (WIRE["v2 echo"][0], 24, b"\x06\x09ABMKAAAJAAAqAKFhZGVoZWxs\n\x04\x14bwo4\n"),
    "a group in each line": (
        WIRE["reset answer"][0],
        4,
        b"\x06\x09AAwL\n\x04\x14AAAC\n\x04\x14AAAI\n\x04\x14Bb//\n\x04\x145Zc=\n",
    ),
}
each_frame = pytest.mark.parametrize(("message", "characters", "frame"), FRAMES.values(), ids=FRAMES)


def parsed(message: bytes) -> tuple[object, ...]:
    return (message[0] & 7, message[0] >> 3, message[1], *message[5:8], message[8:])


class TestBuildConsoleFrame:
    @each_frame
    @pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=lambda make: make.__name__)
    def test_build(self, codec: ModuleType, message: bytes, characters: int, frame: bytes, make: type) -> None:
        assert codec.build_console_frame(make(message), characters) == frame

    @pytest.mark.parametrize(
        ("message", "base64_text"),
        [(b"", b"AAIAAA=="), (b"\x01", b"AAMBECE="), (b"123456789", b"AAsxMjM0NTY3ODkxww==")],
    )
    def test_messages_without_a_header(self, codec: ModuleType, message: bytes, base64_text: bytes) -> None:
        # The last is the check value of the CRC: 31 C3.
        assert codec.build_console_frame(message, 124) == b"\x06\x09" + base64_text + b"\n"

    @pytest.mark.parametrize("characters", [4, 8, 120, 124, 128, 87384])
    def test_lines_of_every_size(self, codec: ModuleType, characters: int) -> None:
        for size in (*range(400), 4096, 0xFFFF - 2):
            message = random.Random(size).randbytes(size)
            first, *rest, end = codec.build_console_frame(message, characters).split(b"\n")
            assert end == b""
            assert first[:2] == b"\x06\x09"
            assert all(line[:2] == b"\x04\x14" and len(line) > 2 for line in rest)
            texts = [line[2:] for line in (first, *rest)]
            assert all(len(text) == characters for text in texts[:-1])
            assert len(texts[-1]) <= characters
            assert base64.b64decode(b"".join(texts), validate=True)[2:-2] == message
            if size == 399 and characters < 120:
                break  # in short lines the long messages take their time

    @pytest.mark.parametrize("characters", [-4, 0, 3, 87385, 87388, 1 << 70])
    def test_characters_out_of_range(self, codec: ModuleType, characters: int) -> None:
        with pytest.raises(ValueError, match=rf"^characters must be 4\.\.87384, not {characters}$"):
            codec.build_console_frame(b"", characters)

    def test_wrong_arguments(self, codec: ModuleType) -> None:
        with pytest.raises(ValueError, match=r"^characters must be a multiple of four, not 126$"):
            codec.build_console_frame(b"", 126)
        with pytest.raises(ValueError, match=r"^message must be 0\.\.65533 bytes, not 65534$"):
            codec.build_console_frame(bytes(65534), 124)
        for wrong in ("text", 5, None):
            with pytest.raises(TypeError):
                codec.build_console_frame(wrong, 124)
        with pytest.raises(TypeError):
            codec.build_console_frame(b"", 124.0)
        with pytest.raises(BufferError):
            codec.build_console_frame(memoryview(bytes(16))[::2], 124)


class TestConsoleDecoder:
    @each_frame
    @pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
    def test_decode(self, codec: ModuleType, message: bytes, characters: int, frame: bytes, size: int) -> None:
        decoder = codec.ConsoleDecoder(400, ANY_OP, 100)
        wire = b"> " + frame + b"log\n" + frame
        found = [each for start in range(0, len(wire), size) for each in decoder.feed(wire[start : start + size])]
        assert found == [parsed(message)] * 2
        assert decoder.take_text() == b"> log\n"
        assert (decoder.take_text(), decoder.pending, decoder.discarded) == (b"", 0, 0)

    @pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=lambda make: make.__name__)
    def test_kinds_of_bytes(self, codec: ModuleType, make: type) -> None:
        decoder = codec.ConsoleDecoder(400, RESPONSES, 100)
        chunk = make(codec.build_console_frame(ANSWER, 8) + b"text")
        assert decoder.feed(chunk) == [ANSWER_FIELDS]
        assert decoder.take_text() == b"text"
        assert decoder.feed(memoryview(array.array("H", codec.build_console_frame(RESET, 8)[:20]))) == []
        assert decoder.pending == 19  # a newline less

    def test_every_byte_is_accounted_for(self, codec: ModuleType) -> None:
        decoder = codec.ConsoleDecoder(400, RESPONSES, 100)
        frame = codec.build_console_frame(ANSWER, 8)
        for end in range(len(frame)):
            decoder.feed(frame[end : end + 1])
            newlines = frame.count(b"\n", 0, end + 1)
            if end == 0:
                assert (decoder.pending, decoder.take_text()) == (0, b"")  # half a marker
            elif end < len(frame) - 2 and frame[end] != 0x04:
                assert decoder.pending == end + 1 - newlines
        assert (decoder.pending, decoder.discarded) == (0, 0)

    def test_longest_message_and_one_byte_more(self, codec: ModuleType) -> None:
        for size in range(40, 49):
            decoder = codec.ConsoleDecoder(size, RESPONSES, 100)
            fits = codec.build_message(1, 1, 0, 1, 2, 3, bytes(size))
            longer = codec.build_message(1, 1, 0, 1, 2, 3, bytes(size + 1))
            for characters in (4, 8, 124):
                assert decoder.feed(codec.build_console_frame(longer, characters)) == []
                assert decoder.feed(codec.build_console_frame(fits, characters)) == [parsed(fits)]

    def test_longest_message_of_all(self, codec: ModuleType) -> None:
        message = codec.build_message(1, 1, 0, 1, 2, 3, random.Random(1).randbytes(0xFFFF - 10))
        decoder = codec.ConsoleDecoder(0xFFFF, RESPONSES, 0)
        for characters in (124, 87384):
            assert decoder.feed(codec.build_console_frame(message, characters)) == [parsed(message)]

    @pytest.mark.parametrize(
        ("text", "good"),
        [
            (b"AAgBAAAAAAAAAA==", False),  # a CRC of other bytes
            (b"AAoBAAAAAAAAAEfT", True),
            (b"AAoBAAAAAAAAAEfT=", True),  # what stands behind the message is text
            (b"AAoBAAAAAAAAAEfT====", True),
            (b"AAoBAAAAAAAAAEf=", False),
            (b"AAoBAAAAAAAAAEf", False),
            (b"AAoBAAAAAAAAAD==", False),
            (b"A===", False),
            (b"====", False),
        ],
    )
    def test_groups_and_padding(self, codec: ModuleType, text: bytes, good: bool) -> None:
        for size in (1, 100):
            decoder = codec.ConsoleDecoder(400, RESPONSES, 100)
            wire = b"\x06\x09" + text + b"\n"
            found = [each for start in range(0, len(wire), size) for each in decoder.feed(wire[start : start + size])]
            decoder.reset()
            assert found == ([(1, 0, 0, 0, 0, 0, b"")] if good else [])
            assert decoder.discarded == (0 if good else len(wire) - 1)

    def test_padding_in_every_line(self, codec: ModuleType) -> None:
        packet = base64.b64decode(codec.build_console_frame(ANSWER, 124)[2:])
        wire = b""
        for start in range(0, len(packet), 4):
            wire += (b"\x04\x14" if start else b"\x06\x09") + base64.b64encode(packet[start : start + 4]) + b"\r\n"
        assert codec.ConsoleDecoder(400, RESPONSES, 100).feed(wire) == [ANSWER_FIELDS]

    def test_text_is_bounded_and_its_end_kept(self, codec: ModuleType) -> None:
        decoder = codec.ConsoleDecoder(400, RESPONSES, 10)
        decoder.feed(b"abc")
        decoder.feed(b"0123456789")
        decoder.feed(b"x")
        assert decoder.take_text() == b"123456789x"
        silent = codec.ConsoleDecoder(400, RESPONSES, 0)
        silent.feed(b"text\x06")
        silent.reset()
        silent.feed(b"more")
        assert silent.take_text() == b""

    def test_memory_is_bounded_whatever_comes(self, codec: ModuleType) -> None:
        decoder = codec.ConsoleDecoder(1000, RESPONSES, 1000)
        endless = b"QUFB" * 10_000
        short = b"\x04\x14" + b"QUFB" * 30 + b"\n"
        tracemalloc.start()
        try:
            decoder.feed(b"\x06\x09")
            for _ in range(30):
                decoder.feed(endless)
            decoder.feed(b"\n\x06\x09//8A\n")
            for _ in range(3000):
                decoder.feed(short)
            for _ in range(30):
                decoder.feed(b"." * 40_000)
            held, _peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert held < 8000 if codec.__name__ == "mcumgrx._codec" else held < 80_000  # a bytearray keeps what it had

    def test_reset_inside_a_line(self, codec: ModuleType) -> None:
        decoder = codec.ConsoleDecoder(400, RESPONSES, 100)
        frame = codec.build_console_frame(ANSWER, 124)
        decoder.feed(frame[:20])
        decoder.reset()
        assert (decoder.pending, decoder.discarded) == (0, 20)
        assert decoder.feed(frame[20:] + frame) == [ANSWER_FIELDS]
        assert (decoder.take_text(), decoder.discarded) == (b"", len(frame) - 1)
        decoder.feed(b"\x06")
        decoder.reset()
        assert decoder.feed(b"\x09") == []
        assert decoder.take_text() == b"\x06\x09"

    @pytest.mark.parametrize("held", [0, 1, 3, 10, 30])
    def test_wrong_type_changes_nothing(self, codec: ModuleType, held: int) -> None:
        decoder = codec.ConsoleDecoder(400, RESPONSES, 100)
        frame = codec.build_console_frame(ANSWER, 8)
        decoder.feed(b"?" + frame[:held])
        for wrong in ("text", 5, None, [0x06]):
            with pytest.raises(TypeError):
                decoder.feed(wrong)
        with pytest.raises(BufferError):
            decoder.feed(memoryview(frame)[::2])
        assert decoder.feed(frame[held:]) == [ANSWER_FIELDS]
        assert decoder.take_text() == b"?"

    def test_the_chunk_is_released_and_not_kept(self, codec: ModuleType) -> None:
        decoder = codec.ConsoleDecoder(400, RESPONSES, 100)
        chunk = bytearray(codec.build_console_frame(ANSWER, 8))
        messages = decoder.feed(chunk)
        chunk[:] = bytes(len(chunk))
        chunk.extend(b"not refused because of an export")
        assert messages == [ANSWER_FIELDS]

    def test_arguments(self, codec: ModuleType) -> None:
        for wrong in (-1, 0x10000, 1 << 70):
            with pytest.raises(ValueError, match=rf"^max_length must be 0\.\.65535, not {wrong}$"):
                codec.ConsoleDecoder(wrong, RESPONSES, 100)
        for wrong in (-1, 0, 0x100):
            with pytest.raises(ValueError, match=rf"^ops must be 1\.\.255, not {wrong}$"):
                codec.ConsoleDecoder(400, wrong, 100)
        for wrong in (-1, 1 << 31, 1 << 70):
            with pytest.raises(ValueError, match=rf"^max_text must be 0\.\.2147483647, not {wrong}$"):
                codec.ConsoleDecoder(400, RESPONSES, wrong)
        for arguments in ((), (400, RESPONSES), (400, "1", 100), (4.0, 1, 1), (400, 1, None)):
            with pytest.raises(TypeError):
                codec.ConsoleDecoder(*arguments)


HASH = bytes(range(32))
HASH_HEX = HASH.hex()
LARGEST = 0xFFFFFFFF
# (arguments, map, bytes)
UPLOADS = {
    "continuing": ((100_000, b"\1\2"), {"off": 100_000, "data": b"\1\2"}, "a2 636f6666 1a000186a0 6464617461 420102"),
    "continuing, no data": ((23, b""), {"off": 23, "data": b""}, "a2 636f6666 17 6464617461 40"),
    "first": (
        (0, b"\1", 4096, 0, HASH),
        {"image": 0, "len": 4096, "off": 0, "sha": HASH, "data": b"\1"},
        f"a5 65696d616765 00 636c656e 191000 636f6666 00 63736861 5820 {HASH_HEX} 6464617461 4101",
    ),
    "first, all of it": (
        (0, b"\1", 65_536, 1, b"\7", True),
        {"image": 1, "len": 65_536, "off": 0, "sha": b"\7", "upgrade": True, "data": b"\1"},
        "a6 65696d616765 01 636c656e 1a00010000 636f6666 00 63736861 4107 6775706772616465 f5 6464617461 4101",
    ),
    "first, little of it": (
        (0, b"\1", 1),
        {"len": 1, "off": 0, "data": b"\1"},
        "a3 636c656e 01 636f6666 00 6464617461 4101",
    ),
}
each_upload = pytest.mark.parametrize(("arguments", "body", "text"), UPLOADS.values(), ids=UPLOADS)


class TestBuildUpload:
    @each_upload
    def test_both_ways(self, codec: ModuleType, arguments: tuple[object, ...], body: object, text: str) -> None:
        assert codec.build_upload(*arguments) == bytes.fromhex(text)
        assert cbor2.loads(bytes.fromhex(text)) == body

    def test_arguments_by_name(self, codec: ModuleType) -> None:
        named = codec.build_upload(offset=0, data=b"\1", length=2, image=3, sha=b"\4", upgrade=True)
        assert named == codec.build_upload(0, b"\1", 2, 3, b"\4", True)

    @pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=lambda make: make.__name__)
    def test_kinds_of_bytes(self, codec: ModuleType, make: type) -> None:
        expected = cbor2.dumps({"off": 0, "sha": HASH, "data": b"data"})
        assert codec.build_upload(0, make(b"data"), sha=make(HASH)) == expected
        halves = memoryview(array.array("H", b"data"))
        assert codec.build_upload(0, halves) == cbor2.dumps({"off": 0, "data": b"data"})

    @pytest.mark.parametrize("number", [0, 23, 24, 255, 256, 65_535, 65_536, LARGEST])
    def test_heads_of_every_size(self, codec: ModuleType, number: int) -> None:
        body = {"image": number, "len": number, "off": number, "data": b""}
        assert codec.build_upload(number, b"", number, number) == cbor2.dumps(body)
        if number <= 0xFFFF:
            data = bytes(number)
            assert codec.build_upload(0, data, sha=data) == cbor2.dumps({"off": 0, "sha": data, "data": data})

    @pytest.mark.parametrize("wrong", [-1, LARGEST + 1, 1 << 70, -(1 << 70), True, 1.0, "1"])
    def test_numbers_that_are_left_to_others(self, codec: ModuleType, wrong: object) -> None:
        assert codec.build_upload(wrong, b"") is None
        assert codec.build_upload(0, b"", wrong) is None
        assert codec.build_upload(0, b"", None, wrong) is None

    def test_an_offset_is_needed(self, codec: ModuleType) -> None:
        assert codec.build_upload(None, b"") is None

    def test_strings_that_are_left_to_others(self, codec: ModuleType) -> None:
        assert codec.build_upload(0, bytes(0x10000)) is None
        assert codec.build_upload(0, b"", sha=bytes(0x10000)) is None

    def test_no_bytes(self, codec: ModuleType) -> None:
        for wrong in ("text", 5, None):
            with pytest.raises(TypeError):
                codec.build_upload(0, wrong)
        for wrong in ("text", 5):
            with pytest.raises(TypeError):
                codec.build_upload(0, b"", sha=wrong)
        with pytest.raises(BufferError):
            codec.build_upload(0, memoryview(b"1234")[::2])
        with pytest.raises(BufferError):
            codec.build_upload(0, b"", sha=memoryview(b"1234")[::2])

    def test_the_buffers_are_released(self, codec: ModuleType) -> None:
        data, sha = bytearray(b"1"), bytearray(b"2")
        codec.build_upload(0, data, None, None, sha)
        assert codec.build_upload(-1, data, None, None, sha) is None
        data.extend(b"not refused")
        sha.extend(b"because of an export")


OFF = "63 6f 66 66"
RC = "62 72 63"
ANSWERS = {
    f"a1 {OFF} 00": 0,
    f"a1 {OFF} 17": 23,
    f"a1 {OFF} 18 18": 24,
    f"a1 {OFF} 19 01 80": 384,
    f"a1 {OFF} 1a 00 01 86 a0": 100_000,
    f"a1 {OFF} 1b 00 00 00 00 00 01 86 a0": 100_000,  # longer than needed
    f"a1 {OFF} 1b ff ff ff ff ff ff ff ff": (1 << 64) - 1,
    f"bf {OFF} 19 01 80 ff": 384,
    f"bf {RC} 00 {OFF} 19 01 80 ff": 384,  # Zephyr with CONFIG_MCUMGR_SMP_LEGACY_RC_BEHAVIOUR, MCUboot
    f"bf {OFF} 19 01 80 {RC} 00 ff": 384,
    f"a2 {RC} 00 {OFF} 05": 5,
    f"a2 {OFF} 05 {RC} 00": 5,
    f"bf {OFF} 18 ff ff": 255,
}
OTHER_ANSWERS = [
    "",
    "a0",
    "bf ff",
    f"a1 {RC} 00",
    f"a1 {RC} 03",
    f"bf {RC} 03 ff",
    f"a2 {RC} 03 {OFF} 05",  # an error beside the offset
    f"a2 {RC} 18 00 {OFF} 05",
    f"bf {OFF} 19 01 80 65 6d 61 74 63 68 f5 ff",  # with "match"
    f"a2 {OFF} 05 {OFF} 06",
    f"bf {RC} 00 {RC} 00 {OFF} 05 ff",
    f"a2 {OFF} 05",  # an entry is missing
    f"a1 {OFF} 05 {RC} 00",  # and one too many
    f"a1 {OFF} 05 00",  # bytes behind the map
    f"bf {OFF} 05",
    f"bf {OFF} 05 ff ff",
    f"bf {OFF} 18 ff",  # the end of the map is the number's
    f"a1 {OFF} 20",  # negative
    f"a1 {OFF} 1c 05",
    f"a1 {OFF} 19 01",
    f"a1 {OFF} 1b 01 02 03 04 05 06 07",
    f"a1 {OFF} f9 3c 00",  # 1.0
    f"a1 {OFF} f4",
    "a1 63 4f 66 66 05",
    "a1 78 03 6f 66 66 05",  # a longer head than needed
    f"b8 01 {OFF} 05",
    f"81 {OFF} 05",
    f"a3 {RC} 00 {OFF} 05 00 00",
]


class TestReadUploadOffset:
    @pytest.mark.parametrize(("text", "offset"), ANSWERS.items())
    @pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=lambda make: make.__name__)
    def test_usual_answers(self, codec: ModuleType, text: str, offset: int, make: type) -> None:
        payload = bytes.fromhex(text)
        assert codec.read_upload_offset(make(payload)) == offset == cbor2.loads(payload)["off"]

    @pytest.mark.parametrize("text", OTHER_ANSWERS)
    def test_answers_left_to_others(self, codec: ModuleType, text: str) -> None:
        assert codec.read_upload_offset(bytes.fromhex(text)) is None

    @pytest.mark.parametrize("text", ANSWERS)
    def test_cut_answers(self, codec: ModuleType, text: str) -> None:
        payload = bytes.fromhex(text)
        for size in range(len(payload)):
            assert codec.read_upload_offset(payload[:size]) is None

    def test_no_bytes(self, codec: ModuleType) -> None:
        for wrong in ("text", 5, None):
            with pytest.raises(TypeError):
                codec.read_upload_offset(wrong)
        with pytest.raises(BufferError):
            codec.read_upload_offset(memoryview(bytes(16))[::2])


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

    def test_both_take_the_same_arguments(self, codec: ModuleType) -> None:
        """The types are those of the reference."""

        def parameters(function: Any) -> list[tuple[str, Any]]:
            return [(one.name, one.default) for one in inspect.signature(function).parameters.values()]

        for name in reference.__all__:
            ours, theirs = getattr(codec, name), getattr(reference, name)
            if inspect.isclass(theirs):
                shown = {method for method in vars(theirs) if not method.startswith("_")}
                assert shown == {method for method in vars(ours) if not method.startswith("_")}
                for method in shown:
                    assert callable(getattr(ours, method)) == callable(getattr(theirs, method))
                    if callable(getattr(theirs, method)):
                        assert parameters(getattr(ours, method)) == parameters(getattr(theirs, method)), method
            elif callable(theirs):
                assert parameters(ours) == parameters(theirs), name
        codec.Reassembler(max_length=100, ops=255)
        codec.ConsoleDecoder(max_length=100, ops=255, max_text=100)


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


# -- CBOR of answers ------------------------------------------------------------------------------------------------

ITEMS: list[tuple[str, object]] = [
    ("00", 0),
    ("1bffffffffffffffff", 2**64 - 1),
    ("3bffffffffffffffff", -(2**64)),
    ("5f 42 0102 40 41 03 ff", b"\x01\x02\x03"),
    ("7f 61c3 61bc ff", "ü"),
    ("62 61ff", "a\ufffd"),
    ("9f 01 80 9f ff ff", [1, [], []]),
    ("bf 6161 01 20 02 4101 03 ff", {"a": 1, -1: 2, b"\x01": 3}),
    ("84 f4 f5 f6 f7", [False, True, None, None]),
    ("83 f93e00 fa3fc00000 fb3ff8000000000000", [1.5, 1.5, 1.5]),
    ("01 ff", 1),
]

NO_ITEMS: list[tuple[str, str]] = [
    ("", "is cut off: it ends after 0 bytes, inside a value"),
    ("18", "is cut off: it ends after 1 bytes, inside a value"),
    ("42 01", "is cut off: it ends after 2 bytes, inside a value"),
    ("9f 01", "is cut off"),
    ("9b ffffffffffffffff 01", "is cut off"),
    ("bb 7fffffffffffffff 01", "is cut off"),
    ("a1 01", "is cut off"),
    ("c2 41 01", "has a tag at byte 0, which SMP does not know"),
    ("82 00 d81c 00", "has a tag at byte 2"),
    ("1c", "has the byte 1c at 0, where a value should begin"),
    ("1f", "has the byte 1f at 0"),
    ("ff", "has the byte ff at 0"),
    ("f8 20", "has the byte f8 at 0"),
    ("81 e0", "has the byte e0 at 1"),
    ("7f 41 61 ff", "has the byte 41 at 1"),
    ("a1 80 00", "has a key at byte 1 that is neither text nor a number"),
    ("a1 f5 00", "has a key at byte 1"),
    ("81" * 9 + "00", "is nested more than 8 levels deep"),
]


class TestDecodeItem:
    @pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=lambda make: make.__name__)
    @pytest.mark.parametrize(("text", "value"), ITEMS)
    def test_what_smp_consists_of(self, codec: Any, text: str, value: object, make: Callable[[bytes], Any]) -> None:
        assert codec.decode_item(make(bytes.fromhex(text)), 8) == value

    @pytest.mark.parametrize(("text", "why"), NO_ITEMS)
    def test_anything_else(self, codec: Any, text: str, why: str) -> None:
        with pytest.raises(ValueError, match=re.escape(why)):
            codec.decode_item(bytes.fromhex(text), 8)

    def test_arguments(self, codec: Any) -> None:
        for wrong in ("text", 5, None):
            with pytest.raises(TypeError):
                codec.decode_item(wrong, 8)
        for depth in (0, 257, -1):
            with pytest.raises(ValueError, match="max_depth must be"):
                codec.decode_item(b"\0", depth)
        assert codec.decode_item(b"\x81" * 256 + b"\0", 256)
