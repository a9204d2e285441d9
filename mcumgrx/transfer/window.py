"""How many requests may be on their way, and for how long: the flow control of bulk transfers. No I/O and no clock.

A server works on one request at a time and keeps the others in buffers, of which it has few. What finds none is lost
without a word, and on a serial line of Zephyr 4.4 it is the device that is lost. But a link that idles while an answer
travels is lost time. So:

* A `Window` begins with one request and grows with the answers, up to what the device has room for. It is halved when
  something gets lost; a width that fails again soon is not tried again for a while.
* On a network the latency can be many times what the device works on a request. A `PacedWindow` has more requests on
  their way than the device has room for, and sends them one by one, at the pace of the answers.
* Servers answer in the order of the requests (seen on all that were measured), so an answer tells that what was sent
  before it and has no answer is lost. Only where nothing comes behind does time have to tell it; how much time follows
  from the round trips so far.
* A request whose time is up may still lie in the device. Where one too many does harm (`strict`) it counts until that
  cannot be any more.
* A line that damages bytes loses requests and answers by chance. An answer that comes damaged was one all the same, and
  its request lies in the device no more. It also tells what kind of line this is: there a silence of a few round trips
  is a loss, and no reason to send less at once.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Generic, TypeVar

from .pacing import Pace

__all__ = ["MOST_IN_FLIGHT", "Flight", "PacedWindow", "Window"]

T = TypeVar("T")

MOST_IN_FLIGHT = 128
"""Half of all sequence numbers, so that those of late answers stay unused long enough."""

# A busy host, or a device whose tick is 10 ms, can be that late: no time-out comes earlier.
_LEAST_WAIT_S = 0.05

# Before anything has been measured.
_FIRST_WAIT_S = 1.0

# Round trips that count for the time-out; twice the slowest of them is patience enough.
_RECENT = 32
_PATIENCE = 2.0

# A width at which something gets lost again and again, each time within so many answers, is left alone for as many as
# follow, then for twice as many. What gets lost by chance does not do so three times in a row.
_SOON = 8
_AGAIN = 3
_LATER = 128

# After an answer that came damaged, a line counts as dirty for so many answers. So it does after so many requests that
# were lost although nothing else was on its way.
_DIRTY = 512
_LONE = 2

# On a dirty line nothing but timers makes an answer late.
_LEAST_DIRTY_WAIT_S = 0.02

# How many of the latest requests tell how many get lost.
_OUTCOMES = 64

# All that the device has room for was sent, and is silent. If that many are lost by chance about as often as this, they
# are lost, after so many times the slowest answer so far. Where there is room for one only, a device that is busy for
# once would be harmed by the second one, so it is given more time.
_TELLING = 3  # so many losses tell how many there are
_LOST_ALL = 0.002
_LOST_ALL_DIRTY = 0.0002  # where it is certain that something gets lost by chance
_SILENT = 4
_LEAST_SILENT_S = 0.15
_LEAST_SILENT_ALONE_S = 1.0

# Timers come that late. What a pace loses by it is made up for, where the device has room for more than one.
_LATE_S = 0.002


class Flight(Generic[T]):
    """One request on its way.

    `queued_s`: how much later than `sent_at` it is believed to have left; `taken`: the link has said that it has it.
    `depth` counts those that were before it; `late` means that its time is up. `request`, its `size` in
    bytes, and `call`, by which the link knows it, are set by whoever sends it.
    """

    __slots__ = (
        "call",
        "depth",
        "item",
        "late",
        "measured",
        "number",
        "queued_s",
        "request",
        "sent_at",
        "size",
        "taken",
    )

    def __init__(self, item: T, number: int, sent_at: float, depth: int, measured: bool) -> None:
        self.item = item
        self.number = number
        self.sent_at = sent_at
        self.queued_s = 0.0
        self.depth = depth
        self.measured = measured
        self.taken = False
        self.late = False
        self.request: Any = None
        self.size = 0
        self.call: Any = None

    @property
    def left_at(self) -> float:
        """When it has left, as far as is known."""
        return self.sent_at + self.queued_s


class Window(Generic[T]):
    """The requests of one transfer that are on their way, and how many there may be.

    Arguments:
        room: requests that the device has room for at once, at least 1.
        most: on their way at once, if that is less.
        strict: one more than there is room for does harm, so that what may still lie in the device counts as well.
        patience_s: after so many seconds a request certainly lies in the device no more.
    """

    def __init__(self, room: int, *, most: int | None = None, strict: bool = True, patience_s: float = 5.0) -> None:
        self.room = max(1, room)
        self.widest = self.room if most is None else max(1, min(self.room, most))
        self.patience_s = patience_s
        self.air_s = 0.0
        """Seconds that an answer takes on the link; to be set when that is known."""
        self.size = 1.0
        self.losses = 0
        """Gaps, refusals for want of a buffer, and time-outs, since the beginning."""
        self.most_unanswered = self.room if strict else 2 * self.room + 1
        """Requests that may lie in the device, or be lost. One on top is lost, where that is all that happens."""
        self._flights: deque[Flight[T]] = deque()
        self._late = 0
        self._strict = strict
        self._gone = 0  # of these, so many have been answered, though not readably; which ones is not known
        self._dirty_until = 0  # counted in answers
        self._lone_losses = 0
        self._outcomes: deque[bool] = deque(maxlen=_OUTCOMES)  # of the latest requests: lost, or answered
        self._slowest_s = 0.0  # of all answers
        self.numbers = 0
        """That of the next request."""
        self._answers = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT)
        self._backoff = 1.0
        self._ceiling = self.widest
        self._last_answered = -1
        self._reacted_before = 0  # to losses of requests with lower numbers
        self._lost_at = -_SOON  # counted in answers
        self._lost_again = 0
        self._raise_at = 0
        self._raise_after = _LATER

    # -- whether to send -----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests that are waited for, which those are not whose time is up."""
        return max(0, len(self._flights) - self._late - self._gone)

    @property
    def unanswered(self) -> int:
        """Requests that may still lie in the device."""
        return len(self._flights) - self._gone

    @property
    def silenced(self) -> bool:
        """All that is waited for has been answered, and none of it readably."""
        return self._gone > 0 and self._late < len(self._flights) <= self._late + self._gone

    @property
    def dirty(self) -> bool:
        """The line damages bytes."""
        return self._answers < self._dirty_until

    @property
    def lost_share(self) -> float:
        """Of the latest requests, how many were lost, or their answers; 0 to 1."""
        return sum(self._outcomes) / len(self._outcomes) if self._outcomes else 0.0

    def sizes_changed(self) -> None:
        """Requests are of another size from now on: what got lost of the others says little."""
        self._outcomes.clear()
        self._lone_losses = 0

    @property
    def outcomes(self) -> int:
        """Requests that `lost_share` counts."""
        return len(self._outcomes)

    def wait_s(self, now: float) -> float | None:
        """0 if a request may be sent at `now`, else the seconds until it may, or None as long as no answer comes."""
        unanswered = len(self._flights) - self._gone
        if unanswered - self._late >= self.size or unanswered >= self.most_unanswered:
            return None
        return 0.0

    def sent(self, item: T, now: float, *, measured: bool = True) -> Flight[T]:
        """A request leaves at `now`. `measured` is false where its round trip tells nothing of the next one's, because
        the device erases, for example.
        """
        flight = Flight(item, self.numbers, now, len(self._flights) - self._late, measured)
        self.numbers += 1
        self._flights.append(flight)
        return flight

    # -- what happened -------------------------------------------------------------------------------------------------

    def answered(self, flight: Flight[T], now: float) -> list[Flight[T]]:
        """The answer to `flight` has come. Returns what was sent before it and will have no answer any more.

        On a network that reorders, one may come all the same; it is of no use then.
        """
        overtaken: list[Flight[T]] = []
        while self._flights and self._flights[0].number <= flight.number:
            first = self._flights.popleft()
            self._late -= first.late
            if first is not flight:
                overtaken.append(first)
                self._outcomes.append(True)
                if first.late and not first.depth and first.measured and self._strict:
                    self._lost_alone()
        self._gone = min(max(0, self._gone - len(overtaken)), len(self._flights))
        self._outcomes.append(False)
        self._answers += 1
        self._last_answered = max(self._last_answered, flight.number)
        if flight.measured:
            self._measure(flight, now - flight.sent_at)
        return overtaken

    def garbled(self) -> None:
        """An answer has come of which nothing can be read; most likely the one to what was sent first."""
        self._dirty_until = self._answers + _DIRTY
        self._gone = min(self._gone + 1, len(self._flights))

    def _lost_alone(self) -> None:
        self._lone_losses += 1
        if self._lone_losses >= _LONE:
            self._dirty_until = self._answers + _DIRTY

    def advanced(self, now: float) -> None:
        """An answer has brought the transfer on."""
        self._backoff = 1.0
        if self.size < self._ceiling:
            self.size += 1
        elif self._ceiling < self.widest and self._answers >= self._raise_at:
            self._ceiling += 1

    def lost(self, now: float) -> None:
        """Something was lost. Others that were on their way with it are no news."""
        if self._last_answered >= self._reacted_before or self.in_flight == 0:
            self._reacted_before = self.numbers
            self.losses += 1
            self._narrow(now)

    def _narrow(self, now: float) -> None:
        if self.dirty:
            # By chance, and not because it was too much. With two on their way the answer to one tells of the other,
            # and a third place is left for when both are lost.
            self.size = max(1.0 if self.room < 3 else min(2.0, self.widest), self.size // 2)
            return
        self._lost_again = self._lost_again + 1 if self._answers - self._lost_at < _SOON else 1
        if self.size > 1 and self._lost_again >= _AGAIN:
            self._lost_again = 0
            self._ceiling = max(1, int(self.size) - 1)
            self._raise_at = self._answers + self._raise_after
            self._raise_after *= 2
        self._lost_at = self._answers
        self.size = max(1.0, self.size // 2)

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def answer_s(self) -> float:
        """Seconds in which the request that was sent last must be answered, after it has left."""
        # Answers come one after the other.
        air_s = self.air_s * max(1, self.in_flight)
        if not self._recent:
            return air_s + min(self.patience_s, _FIRST_WAIT_S * self._backoff)
        slowest = max(seconds for seconds, _ in self._recent)
        # Where it was measured with fewer in front, those now in front may take as long, each.
        deepest = 1 + max(depth for _, depth in self._recent)
        slowest *= max(1.0, self.in_flight / deepest)
        least_s = _LEAST_DIRTY_WAIT_S if self.dirty else _LEAST_WAIT_S
        return air_s + min(self.patience_s, max(least_s, _PATIENCE * slowest) * self._backoff)

    def deadline(self) -> float | None:
        """When nothing more is to be expected of what is waited for, unless an answer comes; None if nothing is."""
        first = next((flight for flight in self._flights if not flight.late), None)
        return None if first is None else first.sent_at + first.queued_s + self.answer_s

    def leaves_after(self, at: float) -> float | None:
        """When the first of what is on its way has left, or will, if that is after `at`."""
        return min(
            (left_at for flight in self._flights if (left_at := flight.sent_at + flight.queued_s) > at), default=None
        )

    def time_out(self) -> list[Flight[T]]:
        """The time of all that is on its way is up; returns it, the oldest first.

        An answer that comes late is as good as any, and `answered` takes it. The next time-out comes later.
        """
        gone = [flight for flight in self._flights if not flight.late]
        for flight in gone:
            flight.late = True
        self._late = len(self._flights)
        if not self.dirty:
            self._backoff *= 2
        return gone

    def expires_at(self) -> float | None:
        """When the oldest request whose time is up lies in the device no more; None where there is none."""
        first = self._flights[0] if self._flights else None
        if first is None or not first.late:
            return None
        return first.sent_at + first.queued_s + self.air_s + self._stays_s()

    def _stays_s(self) -> float:
        """How long a request may lie in the device."""
        if not self._strict or self._late < len(self._flights) or self.unanswered < self.most_unanswered:
            return self.patience_s
        enough = _LOST_ALL_DIRTY if self.dirty else _LOST_ALL
        if sum(self._outcomes) < _TELLING or self.lost_share**self.room < enough:
            return self.patience_s
        least_s = _LEAST_SILENT_ALONE_S if self.room == 1 else _LEAST_SILENT_S
        return min(self.patience_s, max(least_s, _SILENT * self._slowest_s))

    def expire(self, now: float) -> list[Flight[T]]:
        """Forget what lies in the device no more; returns it."""
        gone: list[Flight[T]] = []
        while (at := self.expires_at()) is not None and at <= now:
            gone.append(self._flights.popleft())
            self._late -= 1
            self._gone = max(0, self._gone - 1)
            self._outcomes.append(True)
        return gone

    def clear(self) -> list[Flight[T]]:
        """Forget all that is on its way; returns it."""
        gone = list(self._flights)
        self._flights.clear()
        self._late = self._gone = 0
        return gone

    def _measure(self, flight: Flight[T], seconds: float) -> None:
        self._recent.append((seconds, flight.depth))
        self._slowest_s = max(self._slowest_s, seconds)


class PacedWindow(Window[T]):
    """A window that may be wider than the device has room for, because the link holds what is beyond that.

    It is for links on which what finds no buffer is lost and does no other harm. Up to `room` requests go out at once;
    those beyond that leave one by one, each when the device is done with those before it as it arrives. See `Pace`.

    Arguments:
        most: on their way at once, whatever the link would take.
        short_s: a round trip that costs the device next to nothing, where it is known.
    """

    def __init__(
        self, room: int, *, most: int = MOST_IN_FLIGHT, patience_s: float = 5.0, short_s: float | None = None
    ) -> None:
        super().__init__(min(room, most), strict=False, patience_s=patience_s)
        self.widest = max(self.room, min(most, MOST_IN_FLIGHT))
        self.most_unanswered = self.widest + self.room + 1
        self.pace = Pace(self.room, self.widest, short_s)
        self._next_at = 0.0

    @property
    def saturated(self) -> bool:
        """A faster pace did not make the answers come faster."""
        return self.pace.saturated

    def wait_s(self, now: float) -> float | None:
        wait_s = super().wait_s(now)
        if wait_s is None or self.in_flight < self.pace.at_once:
            return wait_s
        return max(0.0, self._next_at - now)

    def sent(self, item: T, now: float, *, measured: bool = True) -> Flight[T]:
        flight = super().sent(item, now, measured=measured)
        self.pace.sent(flight.number)
        if (gap_s := self.pace.gap_s) is not None:
            made_up_s = min(_LATE_S, (self.room - 1) * gap_s)
            # The device is not busy for longer than with all that is on its way.
            self._next_at = min(max(now - made_up_s, self._next_at) + gap_s, now + self.in_flight * gap_s)
        return flight

    def answered(self, flight: Flight[T], now: float) -> list[Flight[T]]:
        overtaken = super().answered(flight, now)
        if self.size >= self.room:
            self.pace.answered(flight.number, now, now - flight.sent_at if flight.measured else None)
            self._keep_pace()
        return overtaken

    def advanced(self, now: float) -> None:
        self._backoff = 1.0
        self.pace.advanced()
        if self.size < self.room:
            self.size += 1

    def _narrow(self, now: float) -> None:
        if self.pace.gap_s is None:
            super()._narrow(now)
            return
        before_s = self.pace.gap_s
        self.pace.lost(now, all_of_them=not self.in_flight)
        # The one that left last keeps the device busy for longer than was thought.
        self._next_at += max(0.0, self.pace.gap_s - before_s)
        self._keep_pace()

    def _keep_pace(self) -> None:
        if self.pace.gap_s is not None:
            self.size = self.pace.size
