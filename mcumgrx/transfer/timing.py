"""`LinkTiming`: when a request has left, and what a message takes on the link, by the link's word as far as it is true.

Round trips and time-outs count from there: a driver takes seconds' worth of messages at once, and what lies in its
queue is no work of the device.
"""

from __future__ import annotations

from typing import Any

from .flight import Flight

# No link is slower: 300 baud, which is 30 bytes a second, of which console framing takes a third. Where it is known how
# long a link takes, it may take so many times that.
_SLOWEST_BYTES_S = 20.0
_EASE = 1.5

# An answer that takes less on the link changes no time-out.
_LEAST_AIR_S = 0.05

_NEVER = float("inf")


class LinkTiming:
    """Of one transfer. Times in seconds.

    Attributes:
        sent_bytes: in messages so far.
        wire_bytes: of those, the ones whose time on the link is known; `wire_s`: that time.
    """

    def __init__(self) -> None:
        self.sent_bytes = 0
        self.wire_bytes = 0
        self.wire_s = 0.0
        self._believed = True  # what the link says of its queue
        self._last_at = -_NEVER  # when what it has not taken so far will have left, at the latest
        self._free_at = -_NEVER  # when all that the link has taken will have left

    def sends(self, flight: Flight[Any], now: float) -> None:
        """It is handed to the link now. Until that has taken it, all that is known is what lies in front of it."""
        per_byte_s = _EASE * self.wire_s / self.wire_bytes if self.wire_bytes else 1 / _SLOWEST_BYTES_S
        self._last_at = max(now, self._free_at, self._last_at) + flight.size * per_byte_s
        flight.queued_s = self._last_at - now
        self.sent_bytes += flight.size

    def left(self, flight: Flight[Any], now: float, queued_s: float, *, last: bool) -> None:
        """The link has taken it, and says that its queue takes so long; `last`: no other one was sent after it."""
        leaves_at = now + queued_s if self._believed else now
        flight.queued_s = leaves_at - flight.sent_at
        flight.taken = True
        if leaves_at > now:
            on_wire_s = leaves_at - max(flight.sent_at, self._free_at)
            if on_wire_s > 0.0:
                self.wire_s += on_wire_s
                self.wire_bytes += flight.size
        self._free_at = leaves_at
        if last:
            self._last_at = leaves_at

    def answered(self, flight: Flight[Any], now: float) -> bool:
        """Its answer is there. False where that shows the link's word, and all that was measured by it, to be wrong."""
        if not flight.taken:
            # The answer was quicker than the link's word that it has taken the request: of the time between, nobody
            # knows how much was the link's and how much the device's.
            flight.queued_s, flight.measured = 0.0, False
        elif now - flight.sent_at < flight.queued_s / 2:
            # It had left long before: a speed that is only a number (USB) says nothing of the link.
            self._believed = False
            flight.queued_s = 0.0
            self._last_at = self._free_at = now
            self.wire_s, self.wire_bytes = 0.0, 0
            return False
        else:
            flight.queued_s = min(flight.queued_s, now - flight.sent_at)  # estimates are a little off
        return True

    def air_s(self, size: int) -> float:
        """How long a message of `size` bytes may take on the link; 0 where that is next to nothing, or not known."""
        if not self.wire_bytes:
            return 0.0
        air_s = _EASE * self.wire_s / self.wire_bytes * size
        return air_s if air_s > _LEAST_AIR_S else 0.0
