"""How fast a BLE link sends, learnt from its answers. Bytes and times in, estimates out; no clock of its own.

BlueZ takes in milliseconds what the air carries in seconds, and tells nobody how far it has got. That an answer has
come is the only proof that its request had left.
"""

from __future__ import annotations

from collections import deque
from statistics import median
from typing import NamedTuple

# Until something has been measured: one write in the longest connection interval that hosts ask for by themselves.
_FIRST_GUESS_S = 0.05

# An answer can take long because the device was busy, erasing for example. No connection interval in use is longer.
_SLOWEST_S = 1.0

# Requests that were never answered would otherwise be waited for until the link ends.
_MAX_UNANSWERED = 64


class _Sent(NamedTuple):
    message: object
    writes: int
    at: float
    behind: int  # how many requests were unanswered when it was sent


class Pace:
    """Estimates the seconds per write of one link.

    If n writes were handed over from time t on, and the answer to the last of them is here, each took no more than an
    n-th of the time since t. That is an upper limit, for the answer needed its time, too: time-outs that count from
    there come late rather than early. With several requests in flight the last has waited for those before it; so each
    answer is also looked at together with the writes that were on their way when its request was sent, and the lowest
    limit counts. However many are in flight, what comes out is less than twice the truth if the link is the bottleneck.

    Of the last few measurements the middle one counts, so that a slow erase does not; and there is one measurement in a
    round trip, so that an erase does not count once for each request that waits behind it.
    """

    def __init__(self) -> None:
        self._measured: deque[float] = deque(maxlen=5)
        self._unanswered: deque[_Sent] = deque(maxlen=_MAX_UNANSWERED)
        self._answered: deque[_Sent] = deque(maxlen=_MAX_UNANSWERED)
        self._measured_at = float("-inf")
        self._empty_at = 0.0  # when all that was sent will have left

    @property
    def write_s(self) -> float:
        """Seconds for one write."""
        return median(self._measured) if self._measured else _FIRST_GUESS_S

    def sending(self, message: object, writes: int, now: float) -> None:
        """This message is handed to the link, as so many writes."""
        self._unanswered.append(_Sent(message, writes, now, len(self._unanswered)))
        self._empty_at = max(now, self._empty_at) + writes * self.write_s

    def answered(self, message: object, now: float) -> None:
        """The answer to this one, and no other like it, has come whole."""
        if all(sent.message is not message for sent in self._unanswered):
            return  # it was given up
        while (sent := self._unanswered.popleft()).message is not message:
            self._answered.append(sent)  # it has left before, and its answer is lost, or late
        if sent.at >= self._measured_at:
            self._measured.append(min(_SLOWEST_S, self._limit(sent, now)))
            self._measured_at = now
        self._answered.append(sent)
        # Laid anew with what is known now. The rest may have left meanwhile, if the device was what was slow.
        self._empty_at = now + self.write_s * sum(sent.writes for sent in self._unanswered)

    def _limit(self, sent: _Sent, now: float) -> float:
        writes = sent.writes
        limit = (now - sent.at) / writes
        for ahead in range(1, 1 + min(sent.behind, len(self._answered))):
            earlier = self._answered[-ahead]
            writes += earlier.writes
            limit = min(limit, (now - earlier.at) / writes)
        return limit

    def gave_up(self) -> bool:
        """Nobody waits for an answer any more; whether one is missing to a request of more than one write."""
        fragmented = any(sent.writes > 1 for sent in self._unanswered)
        self._unanswered.clear()
        self._answered.clear()
        return fragmented

    def queued_s(self, now: float) -> float:
        """Seconds until all that was sent so far has left."""
        return max(0.0, self._empty_at - now)
