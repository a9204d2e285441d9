"""`BriefWindow`: how many requests of a short transfer may be on their way over a network. No I/O and no clock.

A window that learns from the answers how much a link holds needs more answers than a short file has pieces. What the
first one tells has to do.
"""

from __future__ import annotations

from typing import TypeVar

from .flight import Flight
from .window import Window

T = TypeVar("T")

# On their way at once, where the device has room for less; at round trips that are worth it.
_MOST = 4
_LEAST_TRIP_S = 0.02

# So many leave in a round trip; but the device is given so many times what a request seems to have taken it at most.
_PART = 3
_EASE = 1.5


class BriefWindow(Window[T]):
    """A window for a handful of requests, over a link on which what finds no buffer is lost and does no other harm.

    As many go out at once as the device has room for. After the first answer more do, spread over the round trip, for
    the link holds them; after a loss there are none.

    Arguments:
        buffers, most, patience_s: as for `Window`.
        min_rtt_s: a round trip that costs the device next to nothing, where it is known; what another one takes longer
            the device works on it.
    """

    def __init__(
        self, buffers: int, *, most: int | None = None, min_rtt_s: float | None = None, patience_s: float = 5.0
    ) -> None:
        super().__init__(buffers, most=most, strict=False, patience_s=patience_s)
        self._beyond = max(self.widest, min(_MOST, _MOST if most is None else most))
        self.most_unanswered = self._beyond + self.buffers + 1
        self._min_rtt_s = min_rtt_s
        self._work_s = 0.0  # longest that the device has seemed to work on a request
        self._gap_s = 0.0
        self._next_at = 0.0
        self.size = float(self.widest)

    def wait_s(self, now: float) -> float | None:
        wait_s = super().wait_s(now)
        if wait_s is None or self.in_flight < self.buffers:
            return wait_s
        return max(0.0, self._next_at - now)

    def sent(self, item: T, now: float, *, measured: bool = True) -> Flight[T]:
        self._next_at = now + self._gap_s
        return super().sent(item, now, measured=measured)

    def answered(self, flight: Flight[T], now: float) -> list[Flight[T]]:
        overtaken = super().answered(flight, now)
        if flight.measured and not flight.depth and not self.losses:
            self._spread(now - flight.sent_at)
        return overtaken

    def _spread(self, seconds: float) -> None:
        """A round trip has taken so long: there may be more of them at once."""
        if self._min_rtt_s is None or seconds < _LEAST_TRIP_S:
            return
        self._work_s = max(self._work_s, seconds - self._min_rtt_s)
        self._gap_s = max(seconds / _PART, _EASE * self._work_s)
        self.widest = self._ceiling.at = self._beyond
        self.size = float(self._beyond)

    def _narrow(self, now: float) -> None:
        self.widest = self._ceiling.at = min(self.widest, self.buffers)
        self._beyond = self.widest
        self.size = min(self.size, self.widest)
        super()._narrow(now)
