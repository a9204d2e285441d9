"""Paced windows: networks of which the latency is many times the work of a device that has room for little."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from mcumgrx.transfer.flight import Flight
from mcumgrx.transfer.window import MOST_IN_FLIGHT, PacedWindow
from tests.support.thinned import thinned


@dataclass
class Network:
    """A path of `latency_s` each way to a device with room for `room` requests, each of which takes it `service_s`.

    Requests are lost by chance (`loss`), or because the device has no room, which it has not yet in the moment in which
    it is done with one (`narrow`). `jitter_s` delays answers by up to that; none overtakes another.
    """

    latency_s: float
    service_s: float
    room: int
    loss: float = 0.0
    jitter_s: float = 0.0
    narrow: bool = False
    lost: int = 0
    answered: int = 0
    free_at: list[float] = field(default_factory=list)
    arrives_at: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(7))

    def carry(self, now: float) -> float | None:
        """When the answer to a request comes that leaves now; None if it was lost."""
        if self.chance.random() < self.loss:
            return None
        arrival = now + self.latency_s
        self.free_at = [at for at in self.free_at if at > arrival or (self.narrow and at > arrival - 1e-9)]
        if len(self.free_at) >= self.room:
            self.lost += 1
            return None
        done = max([arrival, *self.free_at]) + self.service_s
        self.free_at.append(done)
        self.arrives_at = max(self.arrives_at, done + self.latency_s + self.chance.random() * self.jitter_s)
        return self.arrives_at

    def run(
        self, window: PacedWindow[int], seconds: float, change: Callable[[float], None] = lambda now: None
    ) -> float:
        """Keep it as busy as the window allows; answers per second in the second half. `change` is told the time."""
        now, half = 0.0, 0
        arriving: list[tuple[float, int, Flight[int]]] = []
        while now < seconds:
            change(now)
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

    @property
    def alone_s(self) -> float:
        return 2 * self.latency_s + self.service_s

    @property
    def most(self) -> float:
        """Answers per second, whatever the window."""
        return min(1 / self.service_s, MOST_IN_FLIGHT / self.alone_s)


# Short or not, service and latency in ms, room.
NETWORKS = list(itertools.product([False, True], [1, 5, 20], [5, 20, 50, 100], [1, 2, 3, 7]))


@pytest.mark.parametrize(("short", "service_ms", "latency_ms", "room"), thinned(NETWORKS, "networks", part=5))
def test_a_network_is_filled_although_the_device_has_little_room(
    room: int, latency_ms: int, service_ms: int, short: bool
) -> None:
    network = Network(latency_ms / 1000, service_ms / 1000, room)
    min_rtt_s = 2 * network.latency_s + 0.0005 if short else None
    rate = network.run(PacedWindow(room, min_rtt_s=min_rtt_s), 20.0)
    assert rate >= 0.95 * network.most
    assert network.lost <= 0.05 * network.answered


@pytest.mark.parametrize("service_ms", [0.9, 1.0])
def test_a_loss_at_the_beginning_of_the_first_pace_starts_no_slow_search(service_ms: float) -> None:
    network = Network(0.02, service_ms / 1000, 3, narrow=True)
    assert network.run(PacedWindow(3), 1.2) >= 0.95 * network.most
    assert network.lost > 0


@pytest.mark.parametrize("room", [1, 3])
@pytest.mark.parametrize("latency_ms", [5, 20, 50])
def test_chance_losses_change_the_pace_little(room: int, latency_ms: int) -> None:
    network = Network(latency_ms / 1000, 0.005, room, loss=0.01)
    assert network.run(PacedWindow(room), 20.0) >= 0.85 * network.most


@pytest.mark.parametrize("room", [1, 3])
@pytest.mark.parametrize("slower", [True, False])
def test_the_pace_follows_a_device_that_becomes_slower_or_faster(room: int, slower: bool) -> None:
    network = Network(0.02, 0.005 if slower else 0.01, room)

    def change(now: float) -> None:
        if now >= 5.0:
            network.service_s = 0.01 if slower else 0.005

    rate = network.run(PacedWindow(room), 80.0, change)
    assert rate >= 0.95 * network.most
    assert network.lost <= 0.05 * network.answered


@pytest.mark.parametrize("room", [1, 3])
def test_the_pace_survives_a_way_that_becomes_longer(room: int) -> None:
    network = Network(0.02, 0.005, room)

    def change(now: float) -> None:
        if now >= 5.0:
            network.latency_s = 0.06

    assert network.run(PacedWindow(room), 40.0, change) >= 0.9 * network.most


@pytest.mark.parametrize("room", [1, 3])
def test_jitter_leaves_it_far_faster_than_one_at_a_time(room: int) -> None:
    network = Network(0.02, 0.005, room, jitter_s=0.02)
    assert network.run(PacedWindow(room), 20.0) >= 2 / (network.alone_s + network.jitter_s / 2)


def test_little_is_lost_where_there_is_room() -> None:
    """What has begun to wait tells the pace before anything gets lost."""
    network = Network(0.02, 0.01, 7)
    network.run(PacedWindow(7), 20.0)
    assert network.lost <= 0.005 * network.answered


def test_a_device_that_is_near_needs_no_pace() -> None:
    window: PacedWindow[int] = PacedWindow(3)
    network = Network(0.0001, 0.001, 3)
    assert network.run(window, 2.0) >= 0.99 / network.service_s
    assert window.pacing.gap_s is None
    assert network.lost == 0


@pytest.mark.parametrize(("room", "most"), [(1, 4), (3, 4), (3, 2)])
def test_as_many_are_on_their_way_as_the_caller_wants(room: int, most: int) -> None:
    window: PacedWindow[int] = PacedWindow(room, most=most)
    seen: set[int] = set()
    Network(0.05, 0.001, room).run(window, 5.0, lambda now: seen.add(window.in_flight))
    assert max(seen) <= most
    assert window.size == most


def test_one_at_a_time_is_as_fast_as_the_answers_whatever_the_pace() -> None:
    """With a single buffer in the device, requests that take no time are not held back by the pace of others."""
    window: PacedWindow[int] = PacedWindow(1)
    network = Network(0.004, 0.02, 1)

    def change(now: float) -> None:
        if now >= 5.0:
            network.service_s = 0.0001

    assert network.run(window, 10.0, change) >= 0.99 / 0.0081


def test_requests_beyond_the_room_leave_at_the_pace() -> None:
    network, window = Network(0.05, 0.01, 1), PacedWindow[int](1)
    left: list[float] = []
    carry = network.carry

    def noted(now: float) -> float | None:
        left.append(now)
        return carry(now)

    network.carry = noted  # type: ignore[method-assign]
    network.run(window, 10.0)
    assert window.pacing.gap_s is not None
    gaps = [later - earlier for earlier, later in pairwise(left[-50:])]
    assert gaps == pytest.approx([window.pacing.gap_s] * 49, rel=0.1)
    assert window.pacing.gap_s == pytest.approx(network.service_s, rel=0.05)
