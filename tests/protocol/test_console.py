"""Console framing: frames worked by hand, what real servers were recorded with, and any mixture with text."""

from __future__ import annotations

import base64
import binascii
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.errors import MessageTooLarge
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.console import _MAX_TEXT, ConsoleFraming
from mcumgrx.protocol.framing import RawMessage
from mcumgrx.protocol.header import REPLY_OPS, REQUEST_OPS, Op

pytestmark = pytest.mark.codec

GOLDEN = Path(__file__).parent.parent / "golden"
ANY_OP = REPLY_OPS | REQUEST_OPS

# (message, lines); zephyr 4.4 on the wire, and the same by hand
WORKED = {
    "v2 echo": (
        "0a 00 00 09 00 00 2a 00 a1 61 64 65 68 65 6c 6c 6f",
        b"\x06\x09ABMKAAAJAAAqAKFhZGVoZWxsbwo4\n",
    ),
    "v1 echo": (
        "02 00 00 09 00 00 2a 00 a1 61 64 65 68 65 6c 6c 6f",
        b"\x06\x09ABMCAAAJAAAqAKFhZGVoZWxsb40o\n",
    ),
    "answer with padding": (
        "0b 00 00 0a 00 00 2a 00 bf 61 72 65 68 65 6c 6c 6f ff",
        b"\x06\x09ABQLAAAKAAAqAL9hcmVoZWxsb/+Esw==\n",
    ),
}

ECHO = build_message(Op.WRITE_REPLY, 1, 0, 0, 7, 0, b"\xbfarehello\xff")
LONG = build_message(Op.READ_REPLY, 1, 0, 1, 8, 0, bytes(range(256)) + b"\x06\x09\x04\x14\n" * 20)


def parsed(message: bytes) -> RawMessage:
    """What `feed` returns for `message`."""
    group = int.from_bytes(message[4:6], "big")
    return (message[0] & 7, message[0] >> 3 & 3, message[1], group, message[6], message[7], message[8:])


def frame(message: bytes, **options: int) -> bytes:
    (write,) = ConsoleFraming(**options).encode(message)
    return write


def feed(data: bytes, *, cuts: list[int] | None = None, ops: int = ANY_OP) -> tuple[list[RawMessage], bytes, int]:
    """(messages, text, discarded) of `data`, fed in pieces; the rest is flushed by a reset."""
    framing = ConsoleFraming(ops=ops)
    messages: list[RawMessage] = []
    text = b""
    edges = [0, *sorted(cuts or []), len(data)]
    for start, end in pairwise(edges):
        messages += framing.feed(data[start:end])
        text += framing.take_text()
    framing.reset()
    return messages, text + framing.take_text(), framing.discarded


# -- the frames ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKED)
def test_worked_frames_both_ways(name: str) -> None:
    text, wire = WORKED[name]
    message = bytes.fromhex(text)
    assert ConsoleFraming().encode(message) == [wire]
    assert feed(wire) == ([parsed(message)], b"", 0)


def test_two_lines() -> None:
    message = bytes.fromhex("0a 00 00 69 00 00 01 00 a1 61 64 78 64") + 100 * b"A"
    first, second, rest = frame(message).split(b"\n")
    assert first.startswith(b"\x06\x09AHMKAABpAAABAKFhZHhkQUFBQUFB")
    assert len(first) + 1 == 127
    assert second == b"\x04\x14QUFBQUFBQUFBQUFBQUFBQUFBQUFBQWEz"
    assert rest == b""
    assert feed(frame(message)) == ([parsed(message)], b"", 0)


@pytest.mark.parametrize(
    ("packet", "characters", "lines"),
    [(89, 124, 1), (90, 128, 2), (252, 344, 3), (380, 512, 5), (1020, 1368, 12), (2044, 2732, 23), (2471, 3300, 27)],
)
def test_line_arithmetic(packet: int, characters: int, lines: int) -> None:
    written = frame(build_message(Op.WRITE, 1, 0, 1, 1, 1, bytes(packet - 8)))
    parts = written.split(b"\n")[:-1]
    assert len(parts) == lines
    assert len(written) == characters + 3 * lines
    assert max(map(len, parts)) + 1 <= 127
    assert all(len(part[2:]) % 4 == 0 for part in parts)
    assert not any(b"=" in part for part in parts[:-1])
    assert b"\r" not in written


@pytest.mark.parametrize(("line_length", "one_line"), [(127, 89), (128, 89), (131, 92), (512, 377), (7, -1)])
def test_one_line_is_the_largest_message_of_one_line(line_length: int, one_line: int) -> None:
    framing = ConsoleFraming(line_length=line_length)
    assert framing.one_line == one_line
    if one_line >= 8:
        (write,) = framing.encode(build_message(Op.WRITE, 1, 0, 1, 1, 1, bytes(one_line - 8)))
        assert write.count(b"\n") == 1
        assert len(write) <= line_length
        (write,) = framing.encode(build_message(Op.WRITE, 1, 0, 1, 1, 1, bytes(one_line - 7)))
        assert write.count(b"\n") == 2


def test_a_line_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="line_length of 6"):
        ConsoleFraming(line_length=6)


def test_a_link_with_a_write_limit_gets_pieces() -> None:
    pieces = ConsoleFraming().encode(LONG, 20)
    assert max(map(len, pieces)) == 20
    assert b"".join(pieces) == frame(LONG)


def test_largest_message_both_ways() -> None:
    largest = build_message(Op.READ_REPLY, 1, 0, 1, 1, 1, bytes(ConsoleFraming.MAX_MESSAGE - 8))
    assert feed(frame(largest)) == ([parsed(largest)], b"", 0)
    with pytest.raises(MessageTooLarge) as caught:
        ConsoleFraming().encode(largest + b"\0")
    assert (caught.value.size, caught.value.limit) == (65534, 65533)


# -- recorded from real servers --------------------------------------------------------------------------------------


def recorded() -> list[Any]:
    rows = []
    for path in sorted(GOLDEN.glob("zephyr-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "wire_response" in row:
                rows.append(pytest.param(row, id=f"{path.name.split('.', 1)[1][:-6]}: {row['name']}"))
    return rows


@pytest.mark.parametrize("row", recorded())
def test_recorded_bytes(row: dict[str, Any]) -> None:
    wire = bytes.fromhex(row["wire_response"])
    if "request_hex" in row:
        request = bytes.fromhex(row["request_hex"])
        assert ConsoleFraming().encode(request) == [bytes.fromhex(row["wire_request"])]
        assert feed(bytes.fromhex(row["wire_request"]), ops=REQUEST_OPS)[0] == [parsed(request)]
        expected = [row["response_hex"]]
    else:
        expected = [response["hex"] for response in row["responses"]]
    messages, text, discarded = feed(wire, ops=REPLY_OPS)
    assert messages == [parsed(bytes.fromhex(answer)) for answer in expected]
    assert discarded == 0
    # What is neither marker, base64 of a frame nor its newline is text: nothing of it is lost.
    if not expected:
        assert text == wire
    assert feed(wire, cuts=list(range(len(wire))), ops=REPLY_OPS) == (messages, text, discarded)


# -- shapes of other senders -----------------------------------------------------------------------------------------


def lines_of(message: bytes, *sizes: int) -> list[bytes]:
    """The frame with `sizes` raw bytes in its first lines and all the rest in the last."""
    raw = (len(message) + 2).to_bytes(2, "big") + message + binascii.crc_hqx(message, 0).to_bytes(2, "big")
    lines: list[bytes] = []
    for size in (*sizes, len(raw)):
        if raw:
            lines.append((b"\x04\x14" if lines else b"\x06\x09") + base64.b64encode(raw[:size]) + b"\n")
            raw = raw[size:]
    return lines


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(b"".join(lines_of(LONG, 93, 90, 90)), id="120 characters in the lines that follow"),
        pytest.param(b"".join(lines_of(LONG, 93, 93, 93)), id="124 in all"),
        pytest.param(b"".join(lines_of(LONG)), id="one long line"),
        pytest.param(b"".join(lines_of(LONG, *[3] * 100)), id="four characters a line"),
        pytest.param(b"".join(lines_of(LONG, len(LONG) + 1)), id="only the end of the CRC in the last line"),
        pytest.param(b"".join(lines_of(LONG, 1, 50)), id="the length cut in two, padding in every line"),
        pytest.param(frame(LONG).replace(b"\n", b"\r\n"), id="CR LF"),
        pytest.param(frame(LONG).replace(b"\n", b" \t noise\n"), id="rest of a line"),
        pytest.param(b"uart:~$ " + frame(LONG), id="behind a prompt"),
        pytest.param(b"\x06\x06\x04" + frame(LONG), id="behind half markers"),
        pytest.param(frame(LONG).replace(b"\n\x04", b"\n[00:00:01.000] <inf> net: up\n\n\x04"), id="text in between"),
        pytest.param(frame(LONG).replace(b"\n\x04", b"\nhalf a line\x04"), id="text before the marker"),
        pytest.param(frame(ECHO)[:-5] + frame(LONG), id="a new message restarts"),
        pytest.param(frame(LONG)[:200] + frame(LONG), id="restart in a continuation line"),
        pytest.param(b"\x04\x14QUFB\n" + frame(LONG), id="a continuation of nothing"),
        pytest.param(b"\x06\x09\n" + frame(LONG), id="an empty frame"),
        pytest.param(frame(LONG).replace(b"\n\x04", b"\n\x04\x14\n\x04", 1), id="an empty line in it"),
    ],
)
def test_shapes_that_are_accepted(wire: bytes) -> None:
    messages, text, discarded = feed(wire)
    assert messages == [parsed(LONG)]
    assert feed(wire, cuts=list(range(len(wire)))) == (messages, text, discarded)


def test_a_line_ended_by_log_text_still_counts() -> None:
    messages, text, discarded = feed(frame(ECHO)[:-1] + b"[00:01] boom\n" + frame(LONG))
    assert messages == [parsed(ECHO), parsed(LONG)]
    assert (text, discarded) == (b"[00:01] boom\n", 0)


def with_length(message: bytes, length: int) -> bytes:
    raw = length.to_bytes(2, "big") + message + binascii.crc_hqx(message, 0).to_bytes(2, "big")
    return b"\x06\x09" + base64.b64encode(raw) + b"\n"


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(frame(ECHO).replace(b"ABQ", b"ABP"), id="shorter than its data"),
        pytest.param(with_length(ECHO, 0), id="length 0"),
        pytest.param(with_length(ECHO[:7], 9), id="no room for a header"),
        pytest.param(with_length(ECHO[:-1], len(ECHO) + 1), id="cut, header says more"),
        pytest.param(frame(ECHO).replace(b"hc", b"hd"), id="wrong CRC"),
        pytest.param(frame(ECHO)[:-2] + b"\n", id="not a multiple of four"),
        pytest.param(frame(ECHO)[:10] + b"=" + frame(ECHO)[11:], id="padding in the middle"),
        pytest.param(frame(ECHO)[:12] + b"[1] log\n" + frame(ECHO)[12:], id="log text inside"),
        pytest.param(frame(build_message(Op.READ, 1, 0, 0, 1, 0, b"\xa0")), id="an echo of our own request"),
        pytest.param(b"\x06\x09" + 100_000 * b"QUFB" + b"\n", id="endless base64"),
        pytest.param(frame(ECHO)[:-2], id="no end"),
    ],
)
def test_shapes_that_are_dropped(wire: bytes) -> None:
    framing = ConsoleFraming()
    assert framing.feed(wire) == []
    framing.reset()
    assert framing.discarded > 0
    assert framing.feed(b"\n" + frame(ECHO)) == [parsed(ECHO)]


def test_a_payload_over_the_limit_is_dropped() -> None:
    framing = ConsoleFraming(max_length=len(ECHO) - 8)
    assert framing.feed(frame(LONG)) == []
    assert framing.feed(frame(ECHO)) == [parsed(ECHO)]
    assert framing.feed(frame(ECHO[:3] + bytes([ECHO[3] + 1]) + ECHO[4:] + b"\0")) == []


def test_two_messages_in_one_frame() -> None:
    assert feed(frame(ECHO + LONG))[0] == [parsed(ECHO), parsed(LONG)]


def test_reset_forgets_a_message_and_swallows_the_rest_of_its_line() -> None:
    framing = ConsoleFraming()
    wire = frame(LONG)
    assert framing.feed(wire[:150]) == []
    framing.reset()
    assert framing.feed(wire[150:] + frame(ECHO)) == [parsed(ECHO)]
    assert framing.take_text() == b""
    assert framing.discarded == len(wire) - wire.count(b"\n")


# -- text ------------------------------------------------------------------------------------------------------------


def test_text_comes_without_waiting_for_the_end_of_its_line() -> None:
    framing = ConsoleFraming()
    framing.feed(b"*** Booting Zephyr OS ***\r\n\x1b[1;32muart:~$ \x1b[m")
    assert framing.take_text() == b"*** Booting Zephyr OS ***\r\n\x1b[1;32muart:~$ \x1b[m"
    assert framing.take_text() == b""


def test_text_that_nobody_takes_is_bounded_and_its_end_kept() -> None:
    framing = ConsoleFraming()
    for number in range(50):
        framing.feed(b"%06d\n" % number * 1000)
    text = framing.take_text()
    assert len(text) == _MAX_TEXT
    assert text.endswith(b"000049\n")


# -- any cut, any noise ----------------------------------------------------------------------------------------------

payloads = st.binary(max_size=400)
messages_strategy = st.builds(
    lambda op, sequence, payload: build_message(op, 1, 0, 0, sequence, 0, payload),
    st.sampled_from([Op.READ_REPLY, Op.WRITE_REPLY]),
    st.integers(0, 255),
    payloads,
)
log_lines = st.one_of(
    st.sampled_from([b"uart:~$ ", b"\n", b"\r\n", b"[00:01] <wrn> x\n", b"\x1b[0m\0\xff", b"\x06", b"\x04", b"===="]),
    st.binary(max_size=30),
)
noise = st.one_of(
    log_lines,
    st.sampled_from([b"\x06\x09", b"\x04\x14", b"\x06\x09ABMK", b"\x04\x14QUFB\n", b"\r"]),
    st.sampled_from([frame(ECHO)[:-3], frame(LONG)[:140]]),
)


@given(st.lists(st.one_of(messages_strategy.map(frame), noise), max_size=8).map(b"".join), st.data())
def test_any_cut_gives_the_same(wire: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=12))
    whole = feed(wire)
    assert feed(wire, cuts=cuts) == whole
    assert feed(wire, cuts=list(range(len(wire)))) == whole


@given(st.lists(st.tuples(noise, messages_strategy), max_size=4), st.integers(7, 300))
def test_whole_messages_survive_any_noise_before_them(parts: list[tuple[bytes, bytes]], line_length: int) -> None:
    """Noise may hold the beginning of a frame or make one of its own, but never costs a whole message behind it."""
    wire = b"".join(garbage + frame(message, line_length=line_length) for garbage, message in parts)
    found = iter(feed(wire)[0])
    for _, message in parts:
        assert parsed(message) in found


@given(messages_strategy, st.lists(log_lines.filter(lambda line: not (b"\x06" in line or b"\x04" in line)), max_size=4))
def test_text_between_the_lines_is_kept_and_harmless(message: bytes, texts: list[bytes]) -> None:
    lines = frame(message).splitlines(keepends=True)
    wire = b""
    for index, line in enumerate(lines):
        wire += line + (texts[index] if index < len(texts) else b"")
    messages, text, discarded = feed(wire)
    assert messages == [parsed(message)]
    assert text == b"".join(texts[: len(lines)])
    assert discarded == 0


@given(st.binary(max_size=300).map(lambda tail: frame(LONG)[:50] + tail), st.integers(0, 350))
def test_nothing_the_line_carries_raises(wire: bytes, cut: int) -> None:
    _messages, text, discarded = feed(wire, cuts=[min(cut, len(wire))])
    assert len(text) + discarded <= len(wire)


@pytest.mark.parametrize(
    ("wire", "garbled"),
    [
        (b"", 0),
        (b"[00:01] text\n", 0),
        (frame(ECHO), 0),
        (frame(LONG), 0),
        (frame(ECHO)[:8] + b"Z" + frame(ECHO)[9:], 1),  # its check fails
        (frame(ECHO)[:8] + b"!" + frame(ECHO)[9:], 1),  # not even base64
        (frame(ECHO)[:9] + b"!" + frame(ECHO)[10:], 1),
        (frame(LONG)[:20] + b"!" + frame(LONG)[21:], 1),  # one message, though all its lines are dropped
        (frame(LONG)[:20] + b"Z" + frame(LONG)[21:], 1),
        (frame(LONG)[:100] + frame(ECHO), 1),  # cut short by another
        (frame(ECHO).replace(b"\x06\x09", b"\x06\x0a"), 0),  # nobody can tell that it was one
        (b"\x04\x14AAAA\n", 0),  # what goes on had no beginning
    ],
)
def test_answers_that_come_damaged_are_counted(wire: bytes, garbled: int) -> None:
    for cut in range(1, len(wire) + 1, 7):
        framing = ConsoleFraming(ops=ANY_OP)
        framing.feed(wire[:cut])
        framing.feed(wire[cut:])
        framing.reset()
        assert framing.garbled == garbled, cut


def test_a_message_of_ours_that_comes_back_is_not_damaged() -> None:
    framing = ConsoleFraming(ops=REPLY_OPS)
    assert framing.feed(frame(build_message(Op.WRITE, 1, 0, 0, 7, 0, b"\xa0"))) == []
    assert framing.garbled == 0


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("length", range(12))
@pytest.mark.parametrize("line_length", [15, 127])
def test_a_message_is_complete_without_the_end_of_its_line(size: int, length: int, line_length: int) -> None:
    sender, receiver = ConsoleFraming(line_length=line_length, ops=0xFF), ConsoleFraming(ops=0xFF)
    messages = [build_message(Op.READ_REPLY, 1, 0, 1, number, 0, bytes(length)) for number in range(3)]
    wire = b"".join(b"".join(sender.encode(message))[:-1] for message in messages) + b"\r\ntext"
    found = [each for start in range(0, len(wire), size) for each in receiver.feed(wire[start : start + size])]
    assert [sequence for _, _, _, _, sequence, _, _ in found] == [0, 1, 2]
    assert (receiver.take_text(), receiver.discarded) == (b"text", 0)


def test_the_answer_is_there_before_the_end_of_its_line() -> None:
    framing = ConsoleFraming()
    wire = frame(ECHO)
    assert framing.feed(wire[:-2]) == []
    assert len(framing.feed(wire[-2:-1])) == 1
    assert framing.feed(b"\r") == framing.feed(b"\n") == []
    assert framing.take_text() == b""
