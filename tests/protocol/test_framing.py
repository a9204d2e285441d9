"""Datagram and stream framing, and what all framings have in common."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.console import ConsoleFraming
from mcumgrx.protocol.framing import DatagramFraming, Framing, StreamFraming
from mcumgrx.protocol.header import REPLY_OPS, REQUEST_OPS, Op

FRAMINGS: dict[str, Callable[..., Framing]] = {
    "datagram": DatagramFraming,
    "stream": StreamFraming,
    "console": ConsoleFraming,
}
REPLY = build_message(Op.WRITE_REPLY, 1, 0, 64, 7, 3, b"\xa0")
REQUEST = build_message(Op.WRITE, 1, 0, 64, 7, 3, b"\xa0")
PARSED = (Op.WRITE_REPLY, 1, 0, 64, 7, 3, b"\xa0")

pytestmark = pytest.mark.codec


@pytest.mark.parametrize("make", FRAMINGS.values(), ids=FRAMINGS)
@given(payload=st.binary(max_size=600), write_bytes=st.none() | st.integers(8, 700))
def test_what_one_side_encodes_the_other_reads(
    make: Callable[..., Framing], payload: bytes, write_bytes: int | None
) -> None:
    client, server = make(ops=REPLY_OPS), make(ops=REQUEST_OPS)
    if make is DatagramFraming:
        write_bytes = None  # a datagram is never cut
    for op, sender, receiver in ((Op.READ, client, server), (Op.READ_REPLY, server, client)):
        writes = sender.encode(build_message(op, 1, 0, 1, 2, 3, payload), write_bytes)
        assert write_bytes is None or max(map(len, writes)) <= write_bytes
        assert [message for write in writes for message in receiver.feed(write)] == [(op, 1, 0, 1, 2, 3, payload)]
        assert receiver.take_text() == b""
    assert client.discarded == server.discarded == 0


@pytest.mark.parametrize("make", FRAMINGS.values(), ids=FRAMINGS)
def test_ops_of_the_other_direction_are_not_taken(make: Callable[..., Framing]) -> None:
    framing = make()
    (write,) = framing.encode(REQUEST)
    assert framing.feed(write) == []
    assert framing.discarded > 0


@pytest.mark.parametrize("make", FRAMINGS.values(), ids=FRAMINGS)
def test_reset_forgets_what_is_only_partly_there(make: Callable[..., Framing]) -> None:
    framing = make()
    (write,) = framing.encode(REPLY)
    framing.feed(write[:-3])
    framing.reset()
    assert framing.feed(write) == [PARSED]


@pytest.mark.parametrize("make", FRAMINGS.values(), ids=FRAMINGS)
@given(chunks=st.lists(st.binary(max_size=100), max_size=10))
def test_no_bytes_make_it_raise(make: Callable[..., Framing], chunks: list[bytes]) -> None:
    framing = make(ops=0xFF)
    for chunk in chunks:
        for *_, payload in framing.feed(chunk):
            assert len(payload) <= sum(map(len, chunks))
    framing.reset()
    assert framing.discarded + len(framing.take_text()) <= sum(map(len, chunks))


def test_two_messages_in_one_datagram() -> None:
    framing = DatagramFraming()
    assert framing.feed(REPLY + REPLY + REPLY[:-1]) == [PARSED, PARSED]
    assert framing.discarded == len(REPLY) - 1


def test_a_datagram_never_continues_the_one_before() -> None:
    framing = DatagramFraming()
    assert framing.feed(REPLY[:-1]) == []
    assert framing.feed(REPLY[-1:]) == []
    assert framing.discarded == len(REPLY)


def test_fragments_of_a_stream_may_have_any_size() -> None:
    message = build_message(Op.READ_REPLY, 1, 0, 1, 3, 0, bytes(134))
    framing = StreamFraming()
    found = [framing.feed(message[start : start + 62]) for start in (0, 62, 124)]
    assert [len(messages) for messages in found] == [0, 0, 1]
    assert framing.feed(message + message[:5]) == [(1, 1, 0, 1, 3, 0, bytes(134))]
    assert framing.feed(message[5:]) == [(1, 1, 0, 1, 3, 0, bytes(134))]


def test_the_first_fragment_must_hold_the_header() -> None:
    with pytest.raises(ValueError, match="cannot carry a header"):
        StreamFraming().encode(REPLY, 7)


def test_a_stream_is_bounded() -> None:
    framing = StreamFraming(max_length=100)
    assert framing.feed(build_message(Op.READ_REPLY, 1, 0, 1, 3, 0, b"\xff" * 101)) == []
    framing.reset()
    assert framing.feed(REPLY) == [PARSED]
