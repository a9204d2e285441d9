"""How long a busy device is waited for; time is a number."""

from __future__ import annotations

from mcumgrx.protocol.waiting import BUSY_S, Waiting


def test_pauses_grow_up_to_a_bound() -> None:
    waiting, now, pauses = Waiting(), 100.0, []
    while (pause_s := waiting.pause_s(now)) is not None:
        pauses.append(pause_s)
        now += pause_s
    assert pauses[:6] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]
    assert set(pauses[5:]) == {2.0}
    assert BUSY_S <= now - 100.0 < BUSY_S + 2.0
    assert 10 <= BUSY_S <= 30  # SMP's own rule


def test_it_is_told_once_and_not_at_once() -> None:
    waiting = Waiting()
    waiting.pause_s(0.0)
    assert [waiting.tell(until) for until in (0.1, 1.9, 2.0, 5.0)] == [False, False, True, False]


def test_once_it_goes_on_the_next_time_counts_anew() -> None:
    waiting = Waiting(10.0)
    assert waiting.pause_s(0.0) == 0.1
    waiting.end()
    assert waiting.pause_s(50.0) == 0.1
    assert waiting.seconds(55.0) == 5.0
    assert not waiting.tell(51.0)
