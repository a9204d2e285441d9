"""Windows: growth, losses, what an answer tells of those before it, time-outs, and the pace on networks."""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.protocol.window import MOST_IN_FLIGHT, Flight, PacedWindow, Window


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
    assert window.answer_s == 1.0  # nothing is known yet
    (flight,) = fill(window, 0.0)
    assert window.deadline() == 1.0
    answer(window, flight, 0.1)
    assert window.answer_s == pytest.approx(0.2)
    for step in range(1, 40):
        for flight in fill(window, step):
            answer(window, flight, step + 0.001)
    assert window.answer_s == 0.05  # never less than what a busy host can be late
    slow = fill(window, 50.0)[0]
    answer(window, slow, 52.0)
    assert window.answer_s == pytest.approx(4.0)


def test_those_in_front_may_take_as_long_each() -> None:
    window: Window[int] = Window(3)
    (flight,) = fill(window, 0.0)
    answer(window, flight, 0.1)
    fill(window, 1.0)
    assert window.in_flight == 2
    assert window.answer_s == pytest.approx(0.4)


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
        waits.append(window.answer_s / window.in_flight)
        window.time_out()
        window.lost(step)
        window.clear()
    assert waits == sorted(waits)
    assert waits[-1] > 10 * waits[0]
    (flight,) = fill(window, 20.0)
    answer(window, flight, 20.1)
    assert window.answer_s == pytest.approx(0.2)


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


# -- paced ------------------------------------------------------------------------------------------------------------


@dataclass
class Network:
    """A path of `latency_s` each way to a device with room for `room` requests, each of which takes it `service_s`."""

    latency_s: float
    service_s: float
    room: int
    loss: float = 0.0
    lost: int = 0
    answered: int = 0
    free_at: list[float] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def carry(self, now: float) -> float | None:
        """When the answer to a request comes that leaves now; None if it was lost."""
        if self.chance.random() < self.loss:
            return None
        arrival = now + self.latency_s
        self.free_at = [at for at in self.free_at if at > arrival]
        if len(self.free_at) >= self.room:
            self.lost += 1
            return None
        done = max([arrival, *self.free_at]) + self.service_s
        self.free_at.append(done)
        return done + self.latency_s

    def run(self, window: Window[int], seconds: float) -> float:
        """Keep it as busy as the window allows; answers per second in the second half."""
        now, half = 0.0, 0
        arriving: list[tuple[float, int, Flight[int]]] = []
        while now < seconds:
            while (wait_s := window.wait_s(now)) == 0.0:
                flight = window.sent(0, now)
                if (at := self.carry(now)) is not None:
                    heapq.heappush(arriving, (at, flight.number, flight))
            deadline = window.deadline()
            times = [at for at in (arriving[0][0] if arriving else None, deadline) if at is not None]
            if wait_s is not None:
                times.append(now + wait_s)
            now = min(times)
            if arriving and arriving[0][0] <= now:
                flight = heapq.heappop(arriving)[2]
                if flight.number < (window._flights[0].number if window._flights else 0):
                    continue
                if window.answered(flight, now):
                    window.lost(now)
                self.answered += 1
                window.advanced(now)
                half += now >= seconds / 2
            elif deadline is not None and deadline <= now:
                window.time_out()
                window.lost(now)
                window.expire(now + window.patience_s)
        return half / (seconds / 2)


@pytest.mark.parametrize("room", [1, 3])
@pytest.mark.parametrize("latency_ms", [5, 20, 50, 100])
@pytest.mark.parametrize("service_ms", [1, 5, 20])
def test_a_network_is_filled_although_the_device_has_little_room(room: int, latency_ms: int, service_ms: int) -> None:
    network = Network(latency_ms / 1000, service_ms / 1000, room)
    rate = network.run(PacedWindow(room), 20.0)
    at_once = room / (2 * network.latency_s + network.service_s)  # what the device's room alone would give
    most = min(1 / network.service_s, MOST_IN_FLIGHT / (2 * network.latency_s + network.service_s))
    assert rate >= 0.98 * min(at_once, most)
    assert rate >= 0.7 * most
    assert network.lost <= 0.03 * network.answered


@pytest.mark.parametrize("room", [1, 3])
@pytest.mark.parametrize("latency_ms", [5, 20, 50])
def test_chance_losses_leave_it_faster_than_the_rooms_worth(room: int, latency_ms: int) -> None:
    network = Network(latency_ms / 1000, 0.001, room, loss=0.01)
    rate = network.run(PacedWindow(room), 20.0)
    assert rate >= room / (2 * network.latency_s + network.service_s)


def test_it_stays_at_what_the_caller_wants() -> None:
    window: PacedWindow[int] = PacedWindow(3, most=2)
    Network(0.05, 0.001, 3).run(window, 5.0)
    assert window.size <= 2


def test_requests_beyond_the_room_are_spread_over_a_round_trip() -> None:
    window: PacedWindow[int] = PacedWindow(1)
    (flight,) = fill(window, 0.0)
    answer(window, flight, 0.1)
    window.size = 4.0
    assert len(fill(window, 1.0)) == 1
    assert window.wait_s(1.0) == pytest.approx(0.025)
    assert len(fill(window, 1.025)) == 1
