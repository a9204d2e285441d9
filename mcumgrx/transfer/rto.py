"""`Rto`: for how long the answer to a request is waited for, from the round trips so far.

The retransmission time-out of RFC 6298, with other numbers: every request has an answer of its own, so a round trip is
never in doubt (Karn's rule is not needed), and servers work on one request after the other, so round trips do not
scatter around a mean, they have a longest one. Twice the slowest of the latest is patience enough.
"""

from __future__ import annotations

from collections import deque

# A busy host, or a device whose tick is 10 ms, can be that late: no time-out comes earlier (RFC 6298, 2.4). On a dirty
# line nothing but timers makes an answer late.
_LEAST_S = 0.05
_LEAST_DIRTY_S = 0.02

# Before anything has been measured (RFC 6298, 2.1).
_FIRST_S = 1.0

# Round trips that count; and so many times the slowest of them.
_RECENT = 32
_PATIENCE = 2.0


class Rto:
    """Of one transfer. Seconds; never more than `patience_s`.

    Attributes:
        slowest_s: of all round trips.
        backoff: doubled by each time-out, until an answer brings the transfer on (RFC 6298, 5.5).
    """

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self.slowest_s = 0.0
        self.backoff = 1.0
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT)

    def measure(self, seconds: float, depth: int) -> None:
        """An answer has taken so long, with `depth` requests in front of its own."""
        self._recent.append((seconds, depth))
        if seconds > self.slowest_s:
            self.slowest_s = seconds

    def seconds(self, in_flight: int, *, dirty: bool) -> float:
        """In which one of so many that are on their way must be answered, after it has left."""
        if not self._recent:
            return min(self.patience_s, _FIRST_S * self.backoff)
        slowest = max(seconds for seconds, _ in self._recent)
        # Where it was measured with fewer in front, those now in front may take as long, each.
        deepest = 1 + max(depth for _, depth in self._recent)
        slowest *= max(1.0, in_flight / deepest)
        least_s = _LEAST_DIRTY_S if dirty else _LEAST_S
        return min(self.patience_s, max(least_s, _PATIENCE * slowest) * self.backoff)
