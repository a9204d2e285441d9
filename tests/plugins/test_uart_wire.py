"""When bytes have left a line, and what is too much to be an answer; time is a number here."""

from __future__ import annotations

import pytest

from mcumgrx_plugins.uart.framing import PromptFraming
from mcumgrx_plugins.uart.wire import Noise, Wire

FIRST, SECOND = [b"first"], [b"second"]


def test_bytes_leave_one_after_the_other() -> None:
    wire = Wire(1000)  # 100 bytes/s
    wire.takes(50, 0.0)
    assert wire.left_s(0.0) == pytest.approx(0.5)
    wire.takes(50, 0.25)
    assert wire.left_s(0.25) == pytest.approx(0.75)
    assert wire.left_s(5.0) == 0.0
    wire.takes(10, 5.0)
    assert wire.ends_at == pytest.approx(5.1)


def test_without_a_rate_nothing_is_known_to_wait() -> None:
    wire = Wire(None)
    wire.takes(1_000_000, 3.0)
    assert (wire.left_s(3.0), wire.ends_at) == (0.0, 3.0)


def test_an_answer_tells_that_all_up_to_its_message_has_left() -> None:
    wire = Wire(1000)
    for writes in (FIRST, SECOND):
        wire.begins(writes, 50)
        wire.takes(50, 0.0)
    assert not wire.answered(FIRST, 0.4)  # a little early: clocks differ
    assert wire.left_s(0.4) == pytest.approx(0.5)
    assert wire.answered(SECOND, 1.0)
    assert not wire.answered(SECOND, 1.0), "it was answered before"
    assert wire.baud == 1000


def test_an_answer_that_cannot_be_so_early_refutes_the_rate_until_it_is_opened_again() -> None:
    wire = Wire(1000)
    wire.begins(FIRST, 50)
    wire.takes(50, 0.0)
    assert wire.answered(FIRST, 0.1)
    assert wire.baud is None
    assert wire.left_s(0.1) == 0.0
    wire.opened()
    assert wire.baud == 1000
    assert not wire.answered(FIRST, 9.0)


def test_messages_that_are_never_answered_are_forgotten_in_the_end() -> None:
    wire = Wire(None)
    kept = [[b"x"] for _ in range(200)]
    for writes in kept:
        wire.begins(writes, 1)
    assert not wire.answered(kept[0], 1.0)
    assert wire.answered(kept[-1], 1.0)


def test_a_burst_is_read_at_once_and_a_stream_of_noise_is_not() -> None:
    noise = Noise()
    assert noise.pause_s(1.0) <= 0
    noise.brought(256 * 1024, 1.0)
    assert noise.pause_s(1.0) <= 0
    noise.brought(100_000, 1.0)
    assert noise.pause_s(1.0) == pytest.approx(0.05)  # 100,000 bytes at 2 MB/s
    noise.brought(10, 1.05)
    assert noise.pause_s(2.0) <= 0


def test_what_does_not_end_leaves_half_of_the_processor() -> None:
    noise, now = Noise(), 10.0
    for _ in range(10):
        noise.pause_s(now)
        noise.brought(4096, now)
        now += 0.01  # to digest it
    assert noise.pause_s(now) == pytest.approx(0.01)
    noise.brought(100, now)  # a gap
    assert noise.pause_s(now + 0.01) <= 0


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_prompt_is_seen_however_it_arrives(cut: int) -> None:
    framing, text = PromptFraming(127, None), b"\r\nuart:~$ "
    for piece in (text[:cut], text[cut:]):
        assert not framing.has_shell
        framing.feed(piece)
        assert framing.take_text() == piece
    assert framing.has_shell


@pytest.mark.parametrize("known", [True, False])
def test_what_the_address_says_counts(known: bool) -> None:
    framing = PromptFraming(127, known)
    framing.feed(b"uart:~$ " if not known else b"nothing")
    framing.take_text()
    assert framing.has_shell is known
