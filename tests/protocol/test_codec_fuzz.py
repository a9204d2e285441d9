"""The compiled codec against the reference: equal results and equal exceptions for anything, in any cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx import _pycodec as reference
from mcumgrx.errors import MalformedReply
from mcumgrx.messages.message import decode_body

compiled = pytest.importorskip("mcumgrx._codec", reason="the compiled codec is not built")

RESPONSES = 1 << 1 | 1 << 3

numbers = st.integers(-2, 9) | st.integers(-1, 0x10001) | st.integers()
anything = numbers | st.booleans() | st.none() | st.floats() | st.text(max_size=2)
chunk_kinds = st.sampled_from([bytes, bytearray, memoryview])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Good messages, damaged ones and garbage in a row, with many bytes that look like the beginning of a header."""
    parts = []
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["message", "cut", "noise", "like a header"]))
        if kind == "noise":
            parts.append(draw(st.binary(max_size=20)))
        elif kind == "like a header":
            parts.append(bytes(draw(st.lists(st.sampled_from([0x00, 0x01, 0x09, 0x0B, 0x20, 0x40]), max_size=24))))
        else:
            message = reference.build_message(
                draw(st.sampled_from([1, 3, 1, 3, 0, 7])),
                draw(st.integers(0, 3)),
                draw(st.sampled_from([0, 0, 1, 0xFF])),
                draw(st.sampled_from([0, 1, 64, 0xFFFF])),
                draw(st.integers(0, 0xFF)),
                draw(st.integers(0, 0xFF)),
                draw(st.binary(max_size=70)),
            )
            parts.append(message[: draw(st.integers(0, len(message)))] if kind == "cut" else message)
    return b"".join(parts)


CONSOLE_PIECES = [b"\6", b"\x09", b"\4", b"\x14", b"\6\x09", b"\4\x14", b"\r", b"\n", b"=", b"AAQB", b"AA", b"/"]


@st.composite
def console_streams(draw: st.DrawFn) -> bytes:
    """Frames, whole, cut and damaged, with text and everything that means something on a console line between."""
    parts = []
    for _ in range(draw(st.integers(0, 7))):
        kind = draw(st.sampled_from(["frame", "frame", "cut", "damaged", "text", "pieces"]))
        if kind == "text":
            parts.append(draw(st.binary(max_size=20)))
        elif kind == "pieces":
            parts.append(b"".join(draw(st.lists(st.sampled_from(CONSOLE_PIECES), max_size=12))))
        else:
            message = draw(streams() | st.binary(max_size=12))
            frame = reference.build_console_frame(message, draw(st.sampled_from([4, 8, 60, 124])))
            if draw(st.booleans()):
                frame = frame.replace(b"\n", draw(st.sampled_from([b"\r\n", b"\n\n", b" log\n", b"\n> ", b""])))
            if kind == "cut":
                frame = frame[: draw(st.integers(0, len(frame)))]
            if kind == "damaged":
                at = draw(st.integers(0, len(frame)))
                frame = frame[:at] + draw(st.binary(min_size=1, max_size=1)) + frame[at + draw(st.integers(0, 1)) :]
            parts.append(frame)
    return b"".join(parts)


@st.composite
def cut_streams(draw: st.DrawFn, kind: st.SearchStrategy[bytes] = streams()) -> list[bytes]:  # noqa: B008
    """A stream cut at random places."""
    stream = draw(kind)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    return [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def outcome(call: Callable[..., Any], *arguments: object) -> tuple[object, ...]:
    """What a call gives: its value with the types of its parts, or its exception."""
    try:
        value = call(*arguments)
    except ValueError as error:
        return ValueError, str(error)
    except (TypeError, BufferError) as error:
        return (type(error),)  # CPython's own words differ from call to call
    parts = value if isinstance(value, tuple) else (value,)
    return value, [type(part) for part in parts]


@given(st.tuples(*[anything] * 7))
def test_pack_header(fields: tuple[Any, ...]) -> None:
    assert outcome(compiled.pack_header, *fields) == outcome(reference.pack_header, *fields)


@given(st.binary(max_size=24), anything, chunk_kinds)
def test_unpack_header(data: bytes, offset: Any, kind: Callable[[bytes], Any]) -> None:
    assert outcome(compiled.unpack_header, kind(data), offset) == outcome(reference.unpack_header, kind(data), offset)


@given(st.integers(0, 7), st.integers(0, 3), *[st.integers(0, 0xFF)] * 2, st.integers(0, 0xFFFF), st.binary())
def test_headers_read_back(op: int, version: int, flags: int, command: int, group: int, payload: bytes) -> None:
    message = reference.build_message(op, version, flags, group, 7, command, payload)
    assert compiled.build_message(op, version, flags, group, 7, command, payload) == message
    assert compiled.unpack_header(message) == (op, version, flags, len(payload), group, 7, command)
    assert reference.Reassembler(0xFFFF, 0xFF).feed(message) == [(op, version, flags, group, 7, command, payload)]


@given(st.tuples(*[numbers] * 6), st.binary(max_size=20) | anything)
def test_build_message(fields: tuple[int, ...], payload: Any) -> None:
    assert outcome(compiled.build_message, *fields, payload) == outcome(reference.build_message, *fields, payload)


@given(anything, anything)
def test_reassembler_arguments(max_length: Any, ops: Any) -> None:
    def state(module: Any) -> Callable[[Any, Any], tuple[int, int]]:
        def make(*arguments: Any) -> tuple[int, int]:
            made = module.Reassembler(*arguments)
            return made.pending, made.discarded

        return make

    assert outcome(state(compiled), max_length, ops) == outcome(state(reference), max_length, ops)


@given(
    cut_streams(),
    st.sampled_from([0, 1, 7, 40, 70, 0xFFFF]),
    st.sampled_from([RESPONSES, 1 << 0 | 1 << 2, 0xFF, 1 << 3]),
    chunk_kinds,
    st.data(),
)
def test_reassembler(
    chunks: list[bytes], max_length: int, ops: int, kind: Callable[[bytes], Any], data: st.DataObject
) -> None:
    ours = compiled.Reassembler(max_length, ops)
    theirs = reference.Reassembler(max_length, ops)
    whole = reference.Reassembler(max_length, ops)
    stream = b"".join(chunks)
    resets = data.draw(st.sets(st.integers(0, len(chunks)), max_size=1) if max_length != 40 else st.just(set()))

    messages = []
    for index, chunk in enumerate(chunks):
        if index in resets:
            ours.reset()
            theirs.reset()
        got = ours.feed(kind(chunk))
        assert got == theirs.feed(kind(chunk))
        assert (ours.pending, ours.discarded) == (theirs.pending, theirs.discarded)
        assert ours.pending < 8 + max_length
        messages += got

    taken = sum(8 + len(message[-1]) for message in messages)
    assert taken + ours.pending + ours.discarded == len(stream)
    if not resets:
        assert messages == whole.feed(stream)
        assert (ours.pending, ours.discarded) == (whole.pending, whole.discarded)


@given(streams() | st.binary(max_size=20), st.integers(-1, 0x101) | anything, chunk_kinds)
def test_split_messages(data: bytes, ops: Any, kind: Callable[[bytes], Any]) -> None:
    expected = outcome(reference.split_messages, data, ops)
    assert outcome(compiled.split_messages, kind(data), ops) == expected
    if isinstance(expected[0], tuple):
        messages, left = expected[0]
        assert sum(8 + len(message[-1]) for message in messages) + left == len(data)


@given(
    st.binary(max_size=700) | st.integers(65_520, 65_540).map(bytes),
    st.integers(0, 60).map(lambda groups: 4 * groups) | st.sampled_from([87_380, 87_384, 87_388]) | anything,
    chunk_kinds,
)
def test_build_console_frame(message: bytes, characters: Any, kind: Callable[[bytes], Any]) -> None:
    expected = outcome(reference.build_console_frame, message, characters)
    assert outcome(compiled.build_console_frame, kind(message), characters) == expected


@given(anything, anything, anything)
def test_console_decoder_arguments(max_length: Any, ops: Any, max_text: Any) -> None:
    def discarded(module: Any) -> Callable[..., int]:
        def make(*arguments: Any) -> int:
            count: int = module.ConsoleDecoder(*arguments).discarded
            return count

        return make

    arguments = (max_length, ops, max_text)
    assert outcome(discarded(compiled), *arguments) == outcome(discarded(reference), *arguments)


@given(
    cut_streams(console_streams()),
    st.sampled_from([0, 1, 7, 40, 70, 200, 0xFFFF]),
    st.sampled_from([RESPONSES, 0xFF, 1 << 3]),
    st.sampled_from([0, 5, 100_000]),
    chunk_kinds,
    st.data(),
)
def test_console_decoder(
    chunks: list[bytes], max_length: int, ops: int, max_text: int, kind: Callable[[bytes], Any], data: st.DataObject
) -> None:
    ours = compiled.ConsoleDecoder(max_length, ops, max_text)
    theirs = reference.ConsoleDecoder(max_length, ops, max_text)
    action_lists = st.lists(st.sampled_from(["", "", "text", "reset"]), min_size=len(chunks), max_size=len(chunks))
    actions = data.draw(action_lists)
    messages: list[Any] = []
    text = b""
    for chunk, action in zip(chunks, actions, strict=True):
        if action == "reset":
            ours.reset()
            theirs.reset()
        if action == "text":
            taken = ours.take_text()
            assert taken == theirs.take_text()
            text += taken
        got = ours.feed(kind(chunk))
        assert got == theirs.feed(kind(chunk))
        assert (ours.pending, ours.discarded, ours.garbled) == (theirs.pending, theirs.discarded, theirs.garbled)
        messages += got
    rest = ours.take_text()
    assert rest == theirs.take_text()
    text += rest

    stream = b"".join(chunks)
    assert ours.pending + ours.discarded + len(text) <= len(stream)
    if "reset" not in actions:
        for module in (compiled, reference):
            whole = module.ConsoleDecoder(max_length, ops, max_text)
            assert whole.feed(stream) == messages
            assert (whole.pending, whole.discarded, whole.garbled) == (ours.pending, ours.discarded, ours.garbled)
            if max_text > len(stream):
                assert whole.take_text() == text


upload_numbers = st.integers(0, 300) | st.integers(0, 1 << 33) | anything
upload_strings = st.binary(max_size=300) | st.integers(65_530, 65_540).map(bytes)


@given(
    upload_numbers,
    upload_strings | anything,
    st.none() | upload_numbers,
    st.none() | upload_numbers,
    st.none() | upload_strings | anything,
    anything,
    chunk_kinds,
)
def test_build_upload(
    offset: Any, data: Any, length: Any, image: Any, sha: Any, upgrade: Any, kind: Callable[[bytes], Any]
) -> None:
    expected = outcome(reference.build_upload, offset, data, length, image, sha, upgrade)
    ours = kind(data) if isinstance(data, bytes) else data
    assert outcome(compiled.build_upload, offset, ours, length, image, sha, upgrade) == expected
    if isinstance(expected[0], bytes):
        body = {"image": image, "len": length, "off": offset, "sha": sha, "upgrade": bool(upgrade), "data": data}
        entered = {key: value for key, value in body.items() if value is not None and value is not False}
        assert expected[0] == cbor2.dumps(entered)


OFF_ENTRIES = [b"\x63off\x05", b"\x63off\x18\xff", b"\x63off\x19\1\x80", b"\x63off\x1a\0\1\2\3", b"\x63off\x20"]
entries = st.sampled_from([*OFF_ENTRIES, b"\x62rc\0", b"\x62rc\3", b"\x65match\xf5"])
upload_answers = st.builds(
    lambda head, items, tail: b"".join((head, *items, tail)),
    st.sampled_from([b"\xa0", b"\xa1", b"\xa1", b"\xa2", b"\xa2", b"\xa3", b"\xbf", b"\xbf", b"\xb8\1"]),
    st.lists(entries | st.binary(max_size=9), max_size=3),
    st.sampled_from([b"", b"\xff", b"\xff", b"\0"]),
)


@given(upload_answers | st.binary(max_size=20), chunk_kinds)
def test_read_upload_offset(payload: bytes, kind: Callable[[bytes], Any]) -> None:
    offset = compiled.read_upload_offset(kind(payload))
    assert offset == reference.read_upload_offset(payload)
    if offset is not None:
        body = decode_body(payload)
        assert body == {"off": offset} | ({"rc": 0} if "rc" in body else {})
        return
    try:
        body = decode_body(payload)
    except MalformedReply:
        return
    # The plainest answers are never left to others.
    off = body.get("off")
    if type(off) is int and off >= 0:
        assert payload not in (cbor2.dumps({"off": off}), cbor2.dumps({"rc": 0, "off": off}))


cbor_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda values: (
        st.lists(values, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 9) | st.binary(max_size=2), values, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def cbor_items(draw: st.DrawFn) -> bytes:
    """What an encoder lays, and what is nearly that."""
    data = bytearray(cbor2.dumps(draw(cbor_values)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(
            st.sampled_from([0x9F, 0xBF, 0x5F, 0x7F, 0xFF, 0xC2, 0xD8, 0xF8, 0xF9, 0x1B]) | st.integers(0, 255)
        )
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


@given(cbor_items() | st.binary(max_size=40), st.integers(1, 6), chunk_kinds)
def test_decode_item(data: bytes, depth: int, kind: Callable[[bytes], Any]) -> None:
    # As text: what is not a number does not even equal itself.
    expected = repr(outcome(reference.decode_item, data, depth))
    assert repr(outcome(compiled.decode_item, kind(data), depth)) == expected


@given(cbor_values)
def test_decode_item_reads_what_an_encoder_lays(value: Any) -> None:
    data = cbor2.dumps(value)
    assert repr(reference.decode_item(data, 32)) == repr(cbor2.loads(data)) == repr(value)
