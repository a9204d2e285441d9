"""How fast a BLE link sends, learnt from its answers. Bytes and times in, estimates out; no clock of its own.

BlueZ takes in milliseconds what the air carries in seconds, and tells nobody how far it has got. That an answer has
come is the only proof that its request had left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median

from mcumgrx.plugin_api import StreamFraming

__all__ = ["Pace", "WatchedStream"]

# Until something has been measured: one write in the longest connection interval that hosts ask for by themselves.
_FIRST_GUESS_S = 0.05

# An answer can take long because the device was busy, erasing for example. No connection interval in use is longer.
_SLOWEST_S = 1.0

# Requests that were never answered would otherwise be waited for until the link ends.
_MAX_UNANSWERED = 64

# op, version, flags, group, sequence, command, payload: a message as every framing returns it.
RawMessage = tuple[int, int, int, int, int, int, bytes]


class Pace:
    """Estimates the seconds per write of one link.

    A request of n writes whose answer came after t seconds took no more than t / n per write. That is an upper limit,
    for the answer needed its time, too: time-outs that count from there come late rather than early. Of the last few
    the middle one counts, so that a slow erase does not.
    """

    def __init__(self) -> None:
        self._measured: deque[float] = deque(maxlen=5)
        self._unanswered: deque[tuple[float, int]] = deque(maxlen=_MAX_UNANSWERED)  # when sent, writes
        self._empty_at = 0.0  # when all that was sent will have left

    @property
    def write_s(self) -> float:
        """Seconds for one write."""
        return median(self._measured) if self._measured else _FIRST_GUESS_S

    def sending(self, writes: int, now: float) -> None:
        """A message of so many writes is handed to the link."""
        self._unanswered.append((now, writes))
        self._empty_at = max(now, self._empty_at) + writes * self.write_s

    def answered(self, count: int, now: float) -> None:
        """So many whole messages have come; a server answers in order."""
        for _ in range(min(count, len(self._unanswered))):
            since, writes = self._unanswered.popleft()
            self._measured.append(min(_SLOWEST_S, (now - since) / writes))
        left = sum(writes for _, writes in self._unanswered)
        self._empty_at = min(self._empty_at, now + left * self.write_s)

    def gave_up(self) -> None:
        """Nobody waits for an answer any more: what comes late must not be counted to the next request."""
        self._unanswered.clear()

    def queued_s(self, now: float) -> float:
        """Seconds until all that was sent so far has left."""
        return max(0.0, self._empty_at - now)


class WatchedStream(StreamFraming):
    """The framing of a stream, which tells how many messages have come, and when they are no longer waited for."""

    def __init__(self, answered: Callable[[int], None], gave_up: Callable[[], None]) -> None:
        super().__init__()
        self._answered = answered
        self._gave_up = gave_up

    def feed(self, chunk: bytes) -> list[RawMessage]:
        messages = super().feed(chunk)
        if messages:
            self._answered(len(messages))
        return messages

    def reset(self) -> None:
        super().reset()
        self._gave_up()
