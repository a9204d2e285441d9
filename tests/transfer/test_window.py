"""Windows: growth, losses, what an answer tells of those before it, and time-outs. For networks see `test_pacing`."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.transfer.flight import Flight
from mcumgrx.transfer.window import Window


def fill(window: Window[int], now: float) -> list[Flight[int]]:
    flights = []
    while window.wait_s(now) == 0.0:
        flights.append(window.sent(window.numbers, now))
    return flights


def answer(window: Window[int], flight: Flight[int], now: float) -> list[int]:
    overtaken = window.answered(flight, now)
    window.advanced(now)
    return [other.item for other in overtaken]


def test_it_grows_with_the_answers_up_to_the_room() -> None:
    window: Window[int] = Window(3)
    sizes = []
    for step in range(4):
        flights = fill(window, step)
        sizes.append(len(flights))
        for flight in flights:
            answer(window, flight, step + 0.5)
    assert sizes == [1, 2, 3, 3]


@pytest.mark.parametrize(("room", "most", "expected"), [(3, 2, 2), (3, 9, 3), (0, None, 1), (3, 0, 1)])
def test_it_never_exceeds_the_room_nor_what_the_caller_wants(room: int, most: int | None, expected: int) -> None:
    window: Window[int] = Window(room, most=most)
    for step in range(5):
        for flight in fill(window, step):
            answer(window, flight, step + 0.5)
    assert len(fill(window, 9)) == expected


def grown(window: Window[int], now: float = 0.0) -> list[Flight[int]]:
    """All that may be on its way at once."""
    for _ in range(window.widest):
        for flight in fill(window, now):
            answer(window, flight, now + 0.1)
    return fill(window, now)


def test_an_answer_tells_of_all_that_was_sent_before() -> None:
    window: Window[int] = Window(3)
    first, second, third = grown(window)
    assert answer(window, second, 1.0) == [first.item]
    assert window.unanswered == 1
    assert window.answered(first, 1.1) == []  # it was only late: nothing new
    assert answer(window, third, 1.2) == []
    assert window.unanswered == 0


def test_a_loss_halves_it() -> None:
    window: Window[int] = Window(8)
    grown(window)
    window.lost(1.0)
    assert (window.size, window.losses) == (4.0, 1)


def test_a_width_that_fails_again_and_again_is_left_alone_for_a_while() -> None:
    # A shell takes two at once, whatever its buffers are.
    window: Window[int] = Window(3)
    widths = []
    for step in range(300):
        flights = fill(window, step)
        widths.append(len(flights))
        for flight in flights[:2]:
            answer(window, flight, step + 0.5)
        if len(flights) > 2:
            window.lost(step + 0.6)
            window.clear()
    assert 3 <= widths.count(3) <= 9
    assert widths.count(2) > 250
    assert 3 in widths[20:]  # but it is tried again


def test_chance_does_not_narrow_it_for_good() -> None:
    window: Window[int] = Window(3)
    chance = random.Random(1)
    wide = 0
    for step in range(2000):
        flights = fill(window, step)
        wide += len(flights) == 3
        for flight in flights:
            answer(window, flight, step + 0.5)
        if chance.random() < 0.03:
            window.lost(step + 0.6)
    assert wide > 1700


def test_time_outs_follow_the_round_trips() -> None:
    window: Window[int] = Window(3)
    assert window.rto_s == 1.0  # nothing is known yet
    (flight,) = fill(window, 0.0)
    assert window.deadline() == 1.0
    answer(window, flight, 0.1)
    assert window.rto_s == pytest.approx(0.2)
    for step in range(1, 40):
        for flight in fill(window, step):
            answer(window, flight, step + 0.001)
    assert window.rto_s == 0.05  # never less than what a busy host can be late
    slow = fill(window, 50.0)[0]
    answer(window, slow, 52.0)
    assert window.rto_s == pytest.approx(4.0)


def test_those_in_front_may_take_as_long_each() -> None:
    window: Window[int] = Window(3)
    (flight,) = fill(window, 0.0)
    answer(window, flight, 0.1)
    fill(window, 1.0)
    assert window.in_flight == 2
    assert window.rto_s == pytest.approx(0.4)


def test_what_is_believed_to_leave_later_is_waited_for_longer() -> None:
    window: Window[int] = Window(3)
    (flight,) = fill(window, 0.0)
    flight.queued_s = 3.0
    assert window.deadline() == 4.0


def test_a_time_out_comes_later_each_time_and_the_first_progress_forgets_that() -> None:
    window: Window[int] = Window(3, strict=False)
    (flight,) = fill(window, 0.0)
    answer(window, flight, 0.1)
    waits = []
    for step in range(1, 7):
        fill(window, step)
        waits.append(window.rto_s / window.in_flight)
        window.time_out()
        window.lost(step)
        window.clear()
    assert waits == sorted(waits)
    assert waits[-1] > 10 * waits[0]
    (flight,) = fill(window, 20.0)
    answer(window, flight, 20.1)
    assert window.rto_s == pytest.approx(0.2)


def test_an_answer_that_comes_late_is_taken() -> None:
    window: Window[int] = Window(3)
    first, second, third = grown(window)
    assert window.time_out() == [first, second, third]
    assert (window.in_flight, window.unanswered) == (0, 3)
    assert window.deadline() is None
    assert answer(window, second, 3.0) == [first.item]
    assert window.unanswered == 1


def test_on_a_strict_link_what_may_lie_in_the_device_counts() -> None:
    window: Window[int] = Window(3, patience_s=5.0)
    flights = grown(window, 0.0)
    window.time_out()
    window.lost(1.0)
    assert window.wait_s(1.0) is None
    assert window.expires_at() == 5.0
    assert window.expire(4.9) == []
    assert window.expire(5.0) == flights
    assert window.wait_s(5.0) == 0.0


def test_elsewhere_it_is_sent_again_at_once() -> None:
    window: Window[int] = Window(3, strict=False)
    grown(window, 0.0)
    window.time_out()
    window.lost(1.0)
    assert len(fill(window, 1.0)) == 1


@given(st.integers(1, 6), st.booleans(), st.lists(st.integers(0, 5), max_size=60))
def test_whatever_happens_the_room_is_never_exceeded(room: int, strict: bool, events: list[int]) -> None:
    window: Window[int] = Window(room, strict=strict, patience_s=5.0)
    now = 0.0
    for event in events:
        now += 0.3
        flights = list(window._flights)
        if event <= 1:
            fill(window, now)
        elif event == 2 and flights:
            answer(window, flights[-1], now)
        elif event == 3:
            window.lost(now)
        elif event == 4:
            window.time_out()
        else:
            window.expire(now)
        assert window.unanswered <= (room if strict else 2 * room + 1)
        assert 0 <= window.in_flight <= room
        assert 1 <= window.size <= room
