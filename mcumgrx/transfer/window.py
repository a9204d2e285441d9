"""How many requests may be on their way, and for how long: the flow control of bulk transfers. No I/O and no clock.

A server works on one request at a time and keeps the others in buffers, of which it has few. What finds none is lost
without a word, and on a serial line of Zephyr 4.4 it is the device that is lost. But a link that idles while an answer
travels is lost time. So:

* A `Window` begins with one request and grows with the answers, up to the receive buffers of the device. It is halved
  when something gets lost (RFC 5681); a width that fails again soon is not tried again for a while.
* On a network the latency can be many times what the device works on a request. A `PacedWindow` has more requests on
  their way than the device has room for, and sends them one by one, at the pace of the answers.
* Servers answer in the order of the requests (seen on all that were measured), so an answer tells that what was sent
  before it and has no answer is lost. Only where nothing comes behind does time have to tell it (`rto`).
* A request whose time is up may still lie in the device. Where one too many does harm (`strict`) it counts until that
  cannot be any more.
* A line that damages bytes loses requests and answers by chance (`line`). An answer that comes damaged was one all the
  same, and its request lies in the device no more. There a silence of a few round trips is a loss, and no reason to
  send less at once.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from .flight import Flight
from .line import LineQuality
from .pacing import Pacing
from .rto import Rto

T = TypeVar("T")

MOST_IN_FLIGHT = 128
"""Half of all sequence numbers, so that those of late answers stay unused long enough."""

# A width at which something gets lost again and again, each time within so many answers, is left alone for as many as
# follow, then for twice as many. What gets lost by chance does not do so three times in a row.
_SOON = 8
_AGAIN = 3
_LATER = 128

# What is lost by chance is silent after so many times the slowest answer so far. Where there is room for one only, a
# device that is busy for once would be harmed by the second one, so it is given more time.
_SILENT = 4
_LEAST_SILENT_S = 0.15
_LEAST_SILENT_ALONE_S = 1.0

# Timers come that late. What a pace loses by it is made up for, where the device has room for more than one.
_LATE_S = 0.002


class Ceiling:
    """How wide a window may become, below what device and caller allow, for what got lost. `at`: requests."""

    def __init__(self, at: int) -> None:
        self.at = at
        self._lost_at = -_SOON  # counted in answers
        self._lost_again = 0
        self._raise_at = 0
        self._raise_after = _LATER

    def lost(self, size: float, answers: int) -> None:
        """Something got lost at this size."""
        self._lost_again = self._lost_again + 1 if answers - self._lost_at < _SOON else 1
        if size > 1 and self._lost_again >= _AGAIN:
            self._lost_again = 0
            self.at = max(1, int(size) - 1)
            self._raise_at = answers + self._raise_after
            self._raise_after *= 2
        self._lost_at = answers

    def grow(self, widest: int, answers: int) -> None:
        """All up to it is on its way, and goes well."""
        if self.at < widest and answers >= self._raise_at:
            self.at += 1


class Window(Generic[T]):
    """The requests of one transfer that are on their way, and how many there may be.

    Arguments:
        buffers: receive buffers of the device: requests that it has room for at once, at least 1.
        most: on their way at once, if that is less.
        strict: one more than there is room for does harm, so that what may still lie in the device counts as well.
        patience_s: after so many seconds a request certainly lies in the device no more.

    Attributes:
        size: requests that may be on their way now; `widest`: at most.
        most_unanswered: requests that may lie in the device, or be lost.
        air_s: seconds that an answer takes on the link; to be set when that is known.
        losses: gaps, refusals for want of a buffer, and time-outs, since the beginning.
        numbers: that of the next request.
        unread: of what is on its way, so many have been answered, though not readably; which ones is not known.
    """

    def __init__(self, buffers: int, *, most: int | None = None, strict: bool = True, patience_s: float = 5.0) -> None:
        self.buffers = max(1, buffers)
        self.widest = self.buffers if most is None else max(1, min(self.buffers, most))
        self.patience_s = patience_s
        self.air_s = 0.0
        self.size = 1.0
        self.losses = 0
        # One on top is lost, where that is all that happens.
        self.most_unanswered = self.buffers if strict else 2 * self.buffers + 1
        self.numbers = 0
        self.line = LineQuality()
        self.rto = Rto(patience_s)
        self._ceiling = Ceiling(self.widest)
        self.unread = 0
        self._flights: deque[Flight[T]] = deque()
        self._late = 0
        self.strict = strict
        self._last_answered = -1
        self._reacted_before = 0  # to losses of requests with lower numbers

    # -- whether to send -----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Requests that are waited for, which those are not whose time is up."""
        return max(0, len(self._flights) - self._late - self.unread)

    @property
    def unanswered(self) -> int:
        """Requests that may still lie in the device."""
        return len(self._flights) - self.unread

    @property
    def silenced(self) -> bool:
        """All that is waited for has been answered, and none of it readably."""
        return self.unread > 0 and self._late < len(self._flights) <= self._late + self.unread

    def wait_s(self, now: float) -> float | None:
        """0 if a request may be sent at `now`, else the seconds until it may, or None as long as no answer comes."""
        unanswered = len(self._flights) - self.unread
        if unanswered - self._late >= self.size or unanswered >= self.most_unanswered:
            return None
        return 0.0

    def sent(self, item: T, now: float, *, measured: bool = True) -> Flight[T]:
        """A request leaves at `now`. `measured` is false where its round trip tells nothing of the next one's, because
        the device erases, for example.
        """
        flights, number = self._flights, self.numbers
        flight = Flight(item, number, now, measured)
        flight.depth = len(flights) - self._late
        self.numbers = number + 1
        flights.append(flight)
        return flight

    # -- what happened -------------------------------------------------------------------------------------------------

    def answered(self, flight: Flight[T], now: float) -> list[Flight[T]]:
        """The answer to `flight` has come. Returns what was sent before it and will have no answer any more.

        On a network that reorders, one may come all the same; it is of no use then.
        """
        overtaken: list[Flight[T]] = []
        flights, line, number = self._flights, self.line, flight.number
        while flights and flights[0].number <= number:
            first = flights.popleft()
            self._late -= first.late
            if first is not flight:
                overtaken.append(first)
                line.outcomes.append(True)
                if first.late and not first.depth and first.measured and self.strict:
                    line.lost_alone()
        if self.unread:
            self.unread = min(max(0, self.unread - len(overtaken)), len(flights))
        line.outcomes.append(False)
        line.answers += 1
        if number > self._last_answered:
            self._last_answered = number
        if flight.measured:
            self.rto.measure(now - flight.sent_at, flight.depth)
        return overtaken

    def garbled(self) -> None:
        """An answer has come of which nothing can be read; most likely the one to what was sent first."""
        self.line.damaged()
        self.unread = min(self.unread + 1, len(self._flights))

    def advanced(self, now: float) -> None:
        """An answer has brought the transfer on."""
        self.rto.backoff = 1.0
        if self.size < self._ceiling.at:
            self.size += 1
        else:
            self._ceiling.grow(self.widest, self.line.answers)

    def lost(self, now: float) -> None:
        """Something was lost. Others that were on their way with it are no news."""
        if self._last_answered >= self._reacted_before or self.in_flight == 0:
            self._reacted_before = self.numbers
            self.losses += 1
            self._narrow(now)

    def _narrow(self, now: float) -> None:
        if self.line.dirty:
            # By chance, and not because it was too much. With two on their way the answer to one tells of the other,
            # and a third place is left for when both are lost.
            self.size = max(1.0 if self.buffers < 3 else min(2.0, self.widest), self.size // 2)
            return
        self._ceiling.lost(self.size, self.line.answers)
        self.size = max(1.0, self.size // 2)

    # -- time ----------------------------------------------------------------------------------------------------------

    @property
    def rto_s(self) -> float:
        """Seconds in which the request that was sent last must be answered, after it has left."""
        in_flight = self.in_flight
        # Answers come one after the other.
        return self.air_s * max(1, in_flight) + self.rto.seconds(in_flight, dirty=self.line.dirty)

    def deadline(self) -> float | None:
        """When nothing more is to be expected of what is waited for, unless an answer comes; None if nothing is."""
        first = next((flight for flight in self._flights if not flight.late), None)
        return None if first is None else first.left_at + self.rto_s

    def leaves_after(self, at: float) -> float | None:
        """When the first of what is on its way has left, or will, if that is after `at`."""
        return min((left_at for flight in self._flights if (left_at := flight.left_at) > at), default=None)

    def time_out(self) -> list[Flight[T]]:
        """The time of all that is on its way is up; returns it, the oldest first.

        An answer that comes late is as good as any, and `answered` takes it. The next time-out comes later.
        """
        gone = [flight for flight in self._flights if not flight.late]
        for flight in gone:
            flight.late = True
        self._late = len(self._flights)
        if not self.line.dirty:
            self.rto.backoff *= 2
        return gone

    def expires_at(self) -> float | None:
        """When the oldest request whose time is up lies in the device no more; None where there is none."""
        first = self._flights[0] if self._flights else None
        if first is None or not first.late:
            return None
        return first.left_at + self.air_s + self._stays_s()

    def _stays_s(self) -> float:
        """How long a request may lie in the device."""
        if not self.strict or self._late < len(self._flights) or self.unanswered < self.most_unanswered:
            return self.patience_s
        if not self.line.loses_all(self.buffers):
            return self.patience_s
        least_s = _LEAST_SILENT_ALONE_S if self.buffers == 1 else _LEAST_SILENT_S
        return min(self.patience_s, max(least_s, _SILENT * self.rto.slowest_s))

    def expire(self, now: float) -> list[Flight[T]]:
        """Forget what lies in the device no more; returns it."""
        gone: list[Flight[T]] = []
        while (at := self.expires_at()) is not None and at <= now:
            gone.append(self._flights.popleft())
            self._late -= 1
            self.unread = max(0, self.unread - 1)
            self.line.outcomes.append(True)
        return gone

    def clear(self) -> list[Flight[T]]:
        """Forget all that is on its way; returns it."""
        gone = list(self._flights)
        self._flights.clear()
        self._late = self.unread = 0
        return gone


class PacedWindow(Window[T]):
    """A window that may be wider than the device has buffers for, because the link holds what is beyond that.

    It is for links on which what finds no buffer is lost and does no other harm. Up to `buffers` requests go out at
    once; those beyond that leave one by one, each when the device is done with those before it as it arrives. See
    `Pacing`.

    Arguments:
        most: on their way at once, whatever the link would take.
        min_rtt_s: a round trip that costs the device next to nothing, where it is known.
    """

    def __init__(
        self, buffers: int, *, most: int = MOST_IN_FLIGHT, patience_s: float = 5.0, min_rtt_s: float | None = None
    ) -> None:
        super().__init__(min(buffers, most), strict=False, patience_s=patience_s)
        self.widest = max(self.buffers, min(most, MOST_IN_FLIGHT))
        self.most_unanswered = self.widest + self.buffers + 1
        self.pacing = Pacing(self.buffers, self.widest, min_rtt_s)
        self._next_at = 0.0

    def wait_s(self, now: float) -> float | None:
        unanswered = len(self._flights) - self.unread
        in_flight = unanswered - self._late
        if in_flight >= self.size or unanswered >= self.most_unanswered:
            return None
        return 0.0 if in_flight < self.pacing.at_once else max(0.0, self._next_at - now)

    def sent(self, item: T, now: float, *, measured: bool = True) -> Flight[T]:
        flight = super().sent(item, now, measured=measured)
        pacing = self.pacing
        pacing.numbers = self.numbers
        if (gap_s := pacing.gap_s) is not None:
            made_up_s = min(_LATE_S, (self.buffers - 1) * gap_s)
            # The device is not busy for longer than with all that is on its way.
            self._next_at = min(max(now - made_up_s, self._next_at) + gap_s, now + self.in_flight * gap_s)
        return flight

    def answered(self, flight: Flight[T], now: float) -> list[Flight[T]]:
        overtaken, pacing = super().answered(flight, now), self.pacing
        if self.size >= self.buffers:
            pacing.answered(flight.number, now, now - flight.sent_at if flight.measured else None)
            if pacing.gap_s is not None:
                self.size = pacing.size
        return overtaken

    def advanced(self, now: float) -> None:
        self.rto.backoff = 1.0
        self.pacing.advances += 1
        if self.size < self.buffers:
            self.size += 1

    def _narrow(self, now: float) -> None:
        if self.pacing.gap_s is None:
            super()._narrow(now)
            return
        before_s = self.pacing.gap_s
        self.pacing.lost(now, all_of_them=not self.in_flight)
        # The one that left last keeps the device busy for longer than was thought.
        self._next_at += max(0.0, self.pacing.gap_s - before_s)
        self.size = self.pacing.size
