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
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

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

# Pacing at round trips below this would need finer timers than event loops have, and would gain little.
_LEAST_PACED_S = 0.004

# How a paced window grows: by this factor, as long as that makes the answers come faster by this one.
_GROWTH = 1.5
_FASTER = 1.05

# A loss by chance is followed by so many rounds without one.
_CHANCE_ROUNDS = 3

# Rounds without a loss before a paced window tries what lies between the widest that has passed and the narrowest that
# has not, or beyond, as the network may have changed; doubled each time that fails, for it costs a round or two.
_CALM_ROUNDS = 16

# How much wider it tries to be then, at least and at most.
_STEP = 1.05
_LEAP = 1.25


class Flight(Generic[T]):
    """One request on its way.

    `queued_s`: how much later than `sent_at` it is believed to have left. `depth` counts those that were before it;
    `late` means that its time is up.
    """

    __slots__ = ("depth", "item", "late", "measured", "number", "queued_s", "sent_at")

    def __init__(self, item: T, number: int, sent_at: float, depth: int, measured: bool) -> None:
        self.item = item
        self.number = number
        self.sent_at = sent_at
        self.queued_s = 0.0
        self.depth = depth
        self.measured = measured
        self.late = False


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
        self.size = 1.0
        self.losses = 0
        """Gaps, refusals for want of a buffer, and time-outs, since the beginning."""
        self.alone_s: float | None = None
        """The shortest round trip of a request that was alone on its way."""
        self.most_unanswered = self.room if strict else 2 * self.room + 1
        """Requests that may lie in the device, or be lost. One on top is lost, where that is all that happens."""
        self._flights: deque[Flight[T]] = deque()
        self._late = 0
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
        return len(self._flights) - self._late

    @property
    def unanswered(self) -> int:
        """Requests that may still lie in the device."""
        return len(self._flights)

    def wait_s(self, now: float) -> float | None:
        """0 if a request may be sent at `now`, else the seconds until it may, or None as long as no answer comes."""
        unanswered = len(self._flights)
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
        self._answers += 1
        self._last_answered = max(self._last_answered, flight.number)
        if flight.measured:
            self._measure(flight, now - flight.sent_at)
        return overtaken

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
        if not self._recent:
            return min(self.patience_s, _FIRST_WAIT_S * self._backoff)
        slowest = max(seconds for seconds, _ in self._recent)
        # Where it was measured with fewer in front, those now in front may take as long, each.
        deepest = 1 + max(depth for _, depth in self._recent)
        slowest *= max(1.0, self.in_flight / deepest)
        return min(self.patience_s, max(_LEAST_WAIT_S, _PATIENCE * slowest) * self._backoff)

    def deadline(self) -> float | None:
        """When nothing more is to be expected of what is waited for, unless an answer comes; None if nothing is."""
        first = next((flight for flight in self._flights if not flight.late), None)
        return None if first is None else first.sent_at + first.queued_s + self.answer_s

    def time_out(self) -> list[Flight[T]]:
        """The time of all that is on its way is up; returns it, the oldest first.

        An answer that comes late is as good as any, and `answered` takes it. The next time-out comes later.
        """
        gone = [flight for flight in self._flights if not flight.late]
        for flight in gone:
            flight.late = True
        self._late = len(self._flights)
        self._backoff *= 2
        return gone

    def expires_at(self) -> float | None:
        """When the oldest request whose time is up lies in the device no more; None where there is none."""
        first = self._flights[0] if self._flights else None
        return first.sent_at + first.queued_s + self.patience_s if first is not None and first.late else None

    def expire(self, now: float) -> list[Flight[T]]:
        """Forget what lies in the device no more; returns it."""
        gone: list[Flight[T]] = []
        while (at := self.expires_at()) is not None and at <= now:
            gone.append(self._flights.popleft())
            self._late -= 1
        return gone

    def clear(self) -> list[Flight[T]]:
        """Forget all that is on its way; returns it."""
        gone = list(self._flights)
        self._flights.clear()
        self._late = 0
        return gone

    def _measure(self, flight: Flight[T], seconds: float) -> None:
        self._recent.append((seconds, flight.depth))
        if flight.depth == 0 and (self.alone_s is None or seconds < self.alone_s):
            self.alone_s = seconds


class PacedWindow(Window[T]):
    """A window that may be wider than the device has room for, because the link holds what is beyond that.

    It is for links on which what finds no buffer is lost and does no other harm. Up to `room` requests go out together.
    Those beyond that are spread over a round trip, so that each arrives when the one before is done with. The window
    grows round by round, and stops where the answers come no faster, or where something gets lost.

    Arguments:
        most: on their way at once, whatever the link would take.
    """

    def __init__(self, room: int, *, most: int = MOST_IN_FLIGHT, patience_s: float = 5.0) -> None:
        super().__init__(min(room, most), strict=False, patience_s=patience_s)
        self.widest = max(self.room, min(most, MOST_IN_FLIGHT))
        self.most_unanswered = self.widest + self.room + 1
        self._next_at = 0.0
        self._growing = True
        self._good = float(self.room)  # the widest that has passed without a loss
        self._bad = float(self.widest + 1)  # the narrowest that has not
        self._rate = 0.0  # answers per second at that
        self._round_ends = 0  # with the answer to this number
        self._round_at = 0.0
        self._round_answers = 0
        self._filling = True  # what is answered in this round was sent at another width
        self._calm = 0  # rounds
        self._calm_enough = _CALM_ROUNDS

    @property
    def saturated(self) -> bool:
        """More on its way did not make the answers come faster, and nothing was lost of it."""
        return not self._growing and not self.losses

    def wait_s(self, now: float) -> float | None:
        wait_s = super().wait_s(now)
        if wait_s is None or self.in_flight < self.room:
            return wait_s
        return max(0.0, self._next_at - now)

    def sent(self, item: T, now: float, *, measured: bool = True) -> Flight[T]:
        if self.size > self.room and self.alone_s is not None:
            self._next_at = max(now, self._next_at) + self.alone_s / self.size
        return super().sent(item, now, measured=measured)

    def answered(self, flight: Flight[T], now: float) -> list[Flight[T]]:
        overtaken = super().answered(flight, now)
        self._round_answers += 1
        if flight.number >= self._round_ends:
            self._end_round(now)
        return overtaken

    def advanced(self, now: float) -> None:
        self._backoff = 1.0
        if self.size < self.room:
            self.size += 1

    def _narrow(self, now: float) -> None:
        if self.size <= self.room:
            super()._narrow(now)
            return
        if self._growing:
            self._growing = False
            self._bad = self.size
        elif self.size > self._good:
            self._calm_enough *= 2  # it was an attempt, and failed
            self._bad = self.size
        elif self._calm < _CHANCE_ROUNDS:
            self._good = max(float(self.room), self._good * 0.8)
        self._calm = 0
        self.size = max(1.0, self.size // 2)
        self._begin_round(now)

    def _begin_round(self, now: float, *, filling: bool = True) -> None:
        self._round_ends = self.numbers
        self._round_at = now
        self._round_answers = 0
        self._filling = filling

    def _end_round(self, now: float) -> None:
        elapsed_s = now - self._round_at
        rate = self._round_answers / elapsed_s if elapsed_s > 0 else 0.0
        if self._filling:
            self._begin_round(now, filling=False)
            return
        self._calm += 1
        if self.size < self._good:
            self._set_size(self._good, now)
        elif self._growing:
            self._grow(rate, now)
        elif self.size > self._good:
            self._good = self.size
            self._begin_round(now, filling=False)
        elif self._calm >= self._calm_enough and self.size < self.widest:
            self._calm = 0
            halfway = min((self._good + self._bad) / 2, self._good * _LEAP)
            self._set_size(max(self._good * _STEP, halfway), now)
        else:
            self._begin_round(now, filling=False)

    def _grow(self, rate: float, now: float) -> None:
        if self.alone_s is None or self.alone_s < _LEAST_PACED_S or self.size < self.room:
            self._begin_round(now, filling=False)
        elif rate > self._rate * _FASTER:
            self._rate = rate
            self._good = self.size
            self._set_size(min(float(self.widest), max(self.size + 1, self.size * _GROWTH)), now)
        else:
            self._growing = False  # more would only queue
            self._bad = self.size
            self._set_size(self._good, now)

    def _set_size(self, size: float, now: float) -> None:
        self.size = min(float(self.widest), size)
        self._begin_round(now)
