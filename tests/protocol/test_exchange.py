"""Sequence numbers, matching and expiry, with several requests in flight."""

from __future__ import annotations

import logging
import random

import pytest

from mcumgrx.errors import MessageTooLarge, ProtocolError
from mcumgrx.protocol import codec
from mcumgrx.protocol.exchange import Exchange
from mcumgrx.protocol.framing import DatagramFraming, StreamFraming
from mcumgrx.protocol.header import Op
from mcumgrx.protocol.message import Request, encode_body

pytestmark = pytest.mark.codec

READ = Request(Op.READ, 0, 6, encode_body({}), "buffer query", True)
WRITE = Request(Op.WRITE, 1, 1, encode_body({"off": 0, "data": b"x"}), "image upload", True)


def reply_to(request: Request, sequence: int, body: dict[str, object] | None = None, **changes: int) -> bytes:
    fields = {"op": request.op.reply, "version": 1, "flags": 0, "group": request.group, "command": request.command}
    fields.update(changes)
    return codec.build_message(
        fields["op"],
        fields["version"],
        fields["flags"],
        fields["group"],
        sequence,
        fields["command"],
        encode_body(body or {}),
    )


def test_a_request_is_laid_out_with_its_number() -> None:
    exchange = Exchange(DatagramFraming())
    assert exchange.send(READ).writes == [bytes.fromhex("0800000100000006a0")]
    assert exchange.send(READ).writes == [bytes.fromhex("0800000100000106a0")]
    assert exchange.send(READ, version=0).writes == [bytes.fromhex("0000000100000206a0")]


def test_replies_find_their_requests_in_any_order() -> None:
    exchange = Exchange(StreamFraming())
    first, second = exchange.send(READ), exchange.send(WRITE)
    chunk = reply_to(WRITE, second.sequence, {"off": 1}) + reply_to(READ, first.sequence, {"buf_size": 384})
    answered = exchange.receive(chunk)
    assert [(sequence, reply.body()) for sequence, reply in answered] == [
        (second.sequence, {"off": 1}),
        (first.sequence, {"buf_size": 384}),
    ]
    assert exchange.in_flight == 0


@pytest.mark.parametrize(
    "changes",
    [{"group": 2}, {"command": 7}, {"op": Op.WRITE_REPLY}],
    ids=["another group", "another command", "another op"],
)
def test_a_reply_must_match_in_everything(changes: dict[str, int]) -> None:
    exchange = Exchange(DatagramFraming())
    sent = exchange.send(READ)
    assert exchange.receive(reply_to(READ, sent.sequence, **changes)) == []
    assert exchange.ignored == 1
    assert exchange.in_flight == 1
    assert len(exchange.receive(reply_to(READ, sent.sequence))) == 1


def test_flags_and_version_of_a_reply_do_not_matter() -> None:
    exchange = Exchange(DatagramFraming())
    sent = exchange.send(READ)
    [(_, reply)] = exchange.receive(reply_to(READ, sent.sequence, flags=1, version=0))
    assert (reply.flags, reply.version) == (1, 0)


def test_duplicates_and_strangers_are_counted_and_dropped() -> None:
    exchange = Exchange(DatagramFraming())
    sent = exchange.send(READ)
    reply = reply_to(READ, sent.sequence)
    assert len(exchange.receive(reply)) == 1
    assert exchange.receive(reply) == []
    assert exchange.receive(reply_to(READ, 200)) == []
    assert exchange.receive(READ.encode(1, 7)) == []  # our own request coming back: a shell's echo
    assert exchange.ignored == 2
    assert exchange.discarded == READ.size


def test_what_expires_is_told_once_and_may_still_be_answered() -> None:
    exchange = Exchange(DatagramFraming())
    early = exchange.send(READ, deadline=1.0)
    late = exchange.send(READ, deadline=2.0)
    assert exchange.next_deadline() == 1.0
    assert exchange.expire(0.5) == []
    assert exchange.expire(1.0) == [early.sequence]
    assert exchange.expire(1.5) == []
    assert exchange.in_flight == 1
    assert exchange.next_deadline() == 2.0
    [(sequence, _)] = exchange.receive(reply_to(READ, early.sequence))
    assert sequence == early.sequence
    assert exchange.expire(3.0) == [late.sequence]
    assert exchange.next_deadline() is None


def test_a_forgotten_request_is_not_answered() -> None:
    exchange = Exchange(DatagramFraming())
    sent = exchange.send(READ)
    exchange.forget(sent.sequence)
    exchange.forget(sent.sequence)
    assert exchange.receive(reply_to(READ, sent.sequence)) == []
    assert exchange.in_flight == 0


def test_a_number_in_use_or_just_given_up_is_skipped() -> None:
    exchange = Exchange(DatagramFraming())
    held = exchange.send(READ).sequence
    given_up = exchange.send(READ).sequence
    exchange.forget(given_up)
    seen = []
    for _ in range(254 + 254 + 1):
        sent = exchange.send(READ)
        seen.append(sent.sequence)
        exchange.receive(reply_to(READ, sent.sequence))
    assert held not in seen
    # Met once and passed over, so not used again before the round after the next.
    assert seen.count(given_up) == 1
    assert seen.index(given_up) == 508


def test_at_most_256_requests_can_wait() -> None:
    exchange = Exchange(DatagramFraming())
    assert len({exchange.send(READ).sequence for _ in range(256)}) == 256
    with pytest.raises(ProtocolError, match="256"):
        exchange.send(READ)


def test_a_partial_message_is_dropped_when_nothing_is_expected_any_more() -> None:
    exchange = Exchange(StreamFraming())
    lost = exchange.send(READ, deadline=1.0)
    exchange.receive(reply_to(READ, lost.sequence, {"buf_size": 384})[:-3])
    assert exchange.expire(1.0) == [lost.sequence]
    sent = exchange.send(READ, deadline=2.0)
    assert len(exchange.receive(reply_to(READ, sent.sequence))) == 1


def test_a_partial_message_is_kept_while_another_request_may_get_it() -> None:
    exchange = Exchange(StreamFraming())
    exchange.send(READ, deadline=1.0)
    other = exchange.send(READ, deadline=2.0)
    reply = reply_to(READ, other.sequence, {"buf_size": 384})
    exchange.receive(reply[:5])
    exchange.expire(1.0)
    assert len(exchange.receive(reply[5:])) == 1


def test_a_message_longer_than_the_length_field_is_refused() -> None:
    exchange = Exchange(DatagramFraming())
    with pytest.raises(MessageTooLarge) as caught:
        exchange.send(Request(Op.WRITE, 1, 1, bytes(70_000)))
    assert (caught.value.size, caught.value.limit) == (70_008, 65_543)


def test_fragments_go_out_in_writes_of_the_link() -> None:
    exchange = Exchange(StreamFraming())
    sent = exchange.send(Request(Op.WRITE, 1, 1, bytes(50)), write_bytes=20)
    assert [len(write) for write in sent.writes] == [20, 20, 18]


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_and_any_garbage_between_gives_the_same_replies(seed: int) -> None:
    random_ = random.Random(seed)
    exchange = Exchange(StreamFraming())
    stream, expected = b"", []
    for _ in range(20):
        sent = exchange.send(READ)
        stream += reply_to(READ, sent.sequence, {"n": sent.sequence})
        expected.append((sent.sequence, {"n": sent.sequence}))
        stream += bytes([0xFF]) * random_.randrange(4)  # no header begins so
    got = []
    while stream:
        cut = random_.randrange(1, 30)
        got += [(sequence, reply.body()) for sequence, reply in exchange.receive(stream[:cut])]
        stream = stream[cut:]
    assert got == expected


def test_what_is_exchanged_is_logged_on_demand(caplog: pytest.LogCaptureFixture) -> None:
    exchange = Exchange(DatagramFraming())
    with caplog.at_level(logging.INFO, "mcumgrx.protocol"):
        exchange.receive(reply_to(READ, exchange.send(READ).sequence))
        assert caplog.messages == []
    with caplog.at_level(logging.DEBUG, "mcumgrx.protocol"):
        reply = reply_to(READ, exchange.send(READ).sequence)
        exchange.receive(reply + reply)
    sent, answered, ignored = caplog.messages
    assert sent.startswith(f"{READ.what} {READ.group}/{READ.command} seq 1 ")
    assert answered.startswith(f"reply {READ.group}/{READ.command} seq 1 ")
    assert ignored == f"ignored {answered}"
