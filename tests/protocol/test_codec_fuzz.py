"""The compiled codec against the reference: equal results and equal exceptions for anything, in any cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx import _pycodec as reference

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


@st.composite
def cut_streams(draw: st.DrawFn) -> list[bytes]:
    """A stream cut at random places."""
    stream = draw(streams())
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
