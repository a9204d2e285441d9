"""Sequence numbers, matching and late answers, with several requests in flight; time is a number."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import pytest

from mcumgrx.errors import MessageTooLarge, ProtocolError
from mcumgrx.link.call import State
from mcumgrx.link.table import Table
from mcumgrx.messages.message import Request, encode_body
from mcumgrx.messages.standard import Echo, ReadParams, UploadChunk
from mcumgrx.protocol import codec
from mcumgrx.protocol.console import ConsoleFraming
from mcumgrx.protocol.framing import DatagramFraming, Framing, StreamFraming
from mcumgrx.protocol.header import Op

pytestmark = pytest.mark.codec

READ = ReadParams().request()
CHUNK = UploadChunk.facts
WRITE = Request(CHUNK, encode_body({"off": 0, "data": b"x"}))


def reply_to(request: Request, sequence: int, body: dict[str, object] | None = None, **changes: int) -> bytes:
    facts = request.facts
    fields = {"op": facts.op.reply, "version": 1, "flags": 0, "group": facts.group, "command": facts.number}
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
    table = Table(DatagramFraming())
    assert table.open(READ).writes == [bytes.fromhex("0800000100000006a0")]
    assert table.open(READ).writes == [bytes.fromhex("0800000100000106a0")]
    assert table.open(READ, version=0).writes == [bytes.fromhex("0000000100000206a0")]


def test_replies_find_their_requests_in_any_order() -> None:
    table = Table(StreamFraming())
    first, second = table.open(READ), table.open(WRITE)
    chunk = reply_to(WRITE, second.sequence, {"off": 1}) + reply_to(READ, first.sequence, {"buf_size": 384})
    answered = table.receive(chunk)
    assert [(call, reply.body()) for call, reply in answered] == [(second, {"off": 1}), (first, {"buf_size": 384})]
    assert first.state is second.state is State.ANSWERED
    assert table.in_flight == 0


@pytest.mark.parametrize(
    "changes",
    [{"group": 2}, {"command": 7}, {"op": Op.WRITE_REPLY}],
    ids=["another group", "another command", "another op"],
)
def test_a_reply_must_match_in_everything(changes: dict[str, int]) -> None:
    table = Table(DatagramFraming())
    sent = table.open(READ)
    assert table.receive(reply_to(READ, sent.sequence, **changes)) == []
    assert table.ignored == 1
    assert table.in_flight == 1
    assert len(table.receive(reply_to(READ, sent.sequence))) == 1


def test_flags_and_version_of_a_reply_do_not_matter() -> None:
    table = Table(DatagramFraming())
    sent = table.open(READ)
    [(_, reply)] = table.receive(reply_to(READ, sent.sequence, flags=1, version=0))
    assert (reply.flags, reply.version) == (1, 0)


def test_duplicates_and_strangers_are_counted_and_dropped() -> None:
    framing = DatagramFraming()
    table = Table(framing)
    sent = table.open(READ)
    reply = reply_to(READ, sent.sequence)
    assert len(table.receive(reply)) == 1
    assert table.receive(reply) == []
    assert table.receive(reply_to(READ, 200)) == []
    assert table.receive(READ.encode(1, 7)) == []  # our own request coming back: a shell's echo
    assert table.ignored == 2
    assert framing.discarded == READ.size


def test_an_answer_to_what_was_given_up_is_late() -> None:
    table = Table(DatagramFraming())
    early, other = table.open(READ, version=0), table.open(READ)
    table.give_up(early, 1.0)
    assert table.in_flight == 1
    for _ in range(2):  # its number rests on, so that the second one is nobody else's either
        [(call, reply)] = table.receive(reply_to(READ, early.sequence, {"late": 1}))
        assert (call, call.state, call.version, reply.body()) == (early, State.GIVEN_UP, 0, {"late": 1})
    assert table.receive(reply_to(WRITE, early.sequence)) == []
    assert table.ignored == 1
    assert list(table) == [early, other]


def test_what_is_answered_is_not_given_up() -> None:
    table = Table(DatagramFraming())
    call = table.open(READ)
    table.receive(reply_to(READ, call.sequence))
    table.give_up(call, 1.0)
    assert call.state is State.ANSWERED
    assert list(table) == []


def test_a_number_in_use_is_skipped() -> None:
    table = Table(DatagramFraming())
    held = table.open(READ).sequence
    seen = [_asked_and_answered(table) for _ in range(255 + 255)]
    assert held not in seen
    assert seen[:255] == seen[255:]


def _asked_and_answered(table: Table, now: float = 0.0) -> int:
    sent = table.open(READ, now=now)
    assert len(table.receive(reply_to(READ, sent.sequence))) == 1
    return sent.sequence


def test_a_number_that_was_given_up_rests_by_the_clock_however_many_requests_there_are() -> None:
    table = Table(DatagramFraming())
    call = table.open(READ, now=10.0)
    table.give_up(call, 20.0)
    table.give_up(call, 30.0)  # it is that already
    given_up = call.sequence
    assert given_up not in [_asked_and_answered(table, now=139.0) for _ in range(2000)]
    assert given_up in [_asked_and_answered(table, now=140.0) for _ in range(256)]


def test_where_all_numbers_rest_the_one_that_has_rested_longest_is_used() -> None:
    table = Table(DatagramFraming())
    for number in range(256):
        table.give_up(table.open(READ, now=number / 100), number / 100)
    assert [table.open(READ, now=3.0).sequence for _ in range(300 - 44)] == list(range(256))


def test_a_request_that_was_never_sent_leaves_its_number_free() -> None:
    table = Table(DatagramFraming())
    for _ in range(1000):
        table.withdraw(table.open(READ))
    assert list(table) == []


@pytest.mark.parametrize("cut", [1, 5, 1000])
@pytest.mark.parametrize(
    "framing", [DatagramFraming, StreamFraming, ConsoleFraming], ids=["datagram", "stream", "console"]
)
def test_ones_own_request_that_comes_back_is_noticed(framing: Callable[[], Framing], cut: int) -> None:
    table = Table(framing())
    table.open(READ)
    echo = b"> " + b"".join(table.open(Echo("hello, is anybody there?").request()).writes)
    echo = echo.replace(b"\x06\x09", b"^F\t").replace(b"\n", b"\r\n") if framing is ConsoleFraming else echo
    assert not table.echoed
    for start in range(0, len(echo), cut):
        table.receive(echo[start : start + cut])
    assert table.echoed


def test_once_something_was_answered_nobody_looks_for_an_echo() -> None:
    table = Table(DatagramFraming())
    _asked_and_answered(table)
    table.receive(b"".join(table.open(READ).writes))
    assert not table.echoed


def test_at_most_256_requests_can_wait() -> None:
    table = Table(DatagramFraming())
    assert len({table.open(READ).sequence for _ in range(256)}) == 256
    with pytest.raises(ProtocolError, match="256"):
        table.open(READ)


def test_a_partial_message_is_dropped_when_nothing_is_expected_any_more() -> None:
    framing = StreamFraming()
    table = Table(framing)
    lost = table.open(READ)
    table.receive(reply_to(READ, lost.sequence, {"buf_size": 384})[:-3])
    assert table.time_out(lost, 1.0)
    framing.reset()
    assert len(table.receive(reply_to(READ, table.open(READ).sequence))) == 1


def test_a_partial_message_is_kept_while_another_request_may_get_it() -> None:
    table = Table(StreamFraming())
    lost, other = table.open(READ), table.open(READ)
    reply = reply_to(READ, other.sequence, {"buf_size": 384})
    table.receive(reply[:5])
    assert not table.time_out(lost, 1.0)
    assert len(table.receive(reply[5:])) == 1


def test_a_message_longer_than_the_length_field_is_refused() -> None:
    table = Table(DatagramFraming())
    with pytest.raises(MessageTooLarge) as caught:
        table.open(Request(CHUNK, bytes(70_000)))
    assert (caught.value.size, caught.value.limit) == (70_008, 65_543)


def test_fragments_go_out_in_writes_of_the_link() -> None:
    table = Table(StreamFraming())
    sent = table.open(Request(CHUNK, bytes(50)), write_bytes=20)
    assert [len(write) for write in sent.writes] == [20, 20, 18]


@pytest.mark.parametrize("seed", range(20))
def test_any_cut_and_any_garbage_between_gives_the_same_replies(seed: int) -> None:
    random_ = random.Random(seed)
    table = Table(StreamFraming())
    stream, expected = b"", []
    for _ in range(20):
        sent = table.open(READ)
        stream += reply_to(READ, sent.sequence, {"n": sent.sequence})
        expected.append((sent.sequence, {"n": sent.sequence}))
        stream += bytes([0xFF]) * random_.randrange(4)  # no header begins so
    got = []
    while stream:
        cut = random_.randrange(1, 30)
        got += [(call.sequence, reply.body()) for call, reply in table.receive(stream[:cut])]
        stream = stream[cut:]
    assert got == expected


def test_what_is_exchanged_is_logged_on_demand(caplog: pytest.LogCaptureFixture) -> None:
    table = Table(DatagramFraming())
    with caplog.at_level(logging.INFO, "mcumgrx.link"):
        table.receive(reply_to(READ, table.open(READ).sequence))
        assert caplog.messages == []
    with caplog.at_level(logging.DEBUG, "mcumgrx.link"):
        reply = reply_to(READ, table.open(READ).sequence)
        table.receive(reply + reply)
    sent, answered, ignored = caplog.messages
    assert sent.startswith(f"{READ.what} {READ.facts.group}/{READ.facts.number} seq 1 ")
    assert answered.startswith(f"reply {READ.facts.group}/{READ.facts.number} seq 1 ")
    assert ignored == f"ignored {answered}"
