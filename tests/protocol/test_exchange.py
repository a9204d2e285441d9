"""Sequence numbers, matching and expiry, with several requests in flight."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import pytest

from mcumgrx.errors import MessageTooLarge, ProtocolError
from mcumgrx.protocol import codec
from mcumgrx.protocol.console import ConsoleFraming
from mcumgrx.protocol.exchange import Exchange
from mcumgrx.protocol.framing import DatagramFraming, Framing, StreamFraming
from mcumgrx.protocol.header import Op
from mcumgrx.protocol.message import Request, encode_body
from mcumgrx.protocol.standard import Echo

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


def test_a_number_in_use_is_skipped() -> None:
    exchange = Exchange(DatagramFraming())
    held = exchange.send(READ).sequence
    seen = [_asked_and_answered(exchange) for _ in range(255 + 255)]
    assert held not in seen
    assert seen[:255] == seen[255:]


def _asked_and_answered(exchange: Exchange, now: float = 0.0) -> int:
    sent = exchange.send(READ, now=now)
    assert len(exchange.receive(reply_to(READ, sent.sequence))) == 1
    return sent.sequence


def test_a_number_that_was_given_up_rests_by_the_clock_however_many_requests_there_are() -> None:
    exchange = Exchange(DatagramFraming())
    given_up = exchange.send(READ, now=10.0).sequence
    exchange.forget(given_up, now=20.0)
    assert given_up not in [_asked_and_answered(exchange, now=139.0) for _ in range(2000)]
    assert given_up in [_asked_and_answered(exchange, now=140.0) for _ in range(256)]


def test_where_all_numbers_rest_the_one_that_has_rested_longest_is_used() -> None:
    exchange = Exchange(DatagramFraming())
    for number in range(256):
        exchange.forget(exchange.send(READ, now=number / 100).sequence, now=number / 100)
    assert [exchange.send(READ, now=3.0).sequence for _ in range(300 - 44)] == list(range(256))


def test_a_request_that_was_never_sent_leaves_its_number_free() -> None:
    exchange = Exchange(DatagramFraming())
    for _ in range(1000):
        exchange.withdraw(exchange.send(READ).sequence)
    assert exchange.in_flight == 0


def test_a_late_reply_is_kept_apart_with_the_version_it_was_asked_in() -> None:
    exchange = Exchange(DatagramFraming())
    first = exchange.send(READ, version=0).sequence
    exchange.forget(first)
    exchange.receive(reply_to(READ, first, {"late": 1}))
    exchange.receive(reply_to(WRITE, first))
    [(version, reply)] = exchange.take_late()
    assert (version, reply.body()) == (0, {"late": 1})
    assert exchange.take_late() == []
    assert exchange.ignored == 2


@pytest.mark.parametrize("cut", [1, 5, 1000])
@pytest.mark.parametrize(
    "framing", [DatagramFraming, StreamFraming, ConsoleFraming], ids=["datagram", "stream", "console"]
)
def test_ones_own_request_that_comes_back_is_noticed(framing: Callable[[], Framing], cut: int) -> None:
    exchange = Exchange(framing())
    exchange.send(READ)
    echo = b"> " + b"".join(exchange.send(Echo("hello, is anybody there?").request()).writes)
    echo = echo.replace(b"\x06\x09", b"^F\t").replace(b"\n", b"\r\n") if framing is ConsoleFraming else echo
    assert not exchange.echoed
    for start in range(0, len(echo), cut):
        exchange.receive(echo[start : start + cut])
    assert exchange.echoed


def test_once_something_was_answered_nobody_looks_for_an_echo() -> None:
    exchange = Exchange(DatagramFraming())
    _asked_and_answered(exchange)
    exchange.receive(b"".join(exchange.send(READ).writes))
    assert not exchange.echoed


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
