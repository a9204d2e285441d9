"""`LineQuality`: whether a line damages bytes, and how much of what is sent over it gets lost.

On such a line losses come by chance, and not because too much was sent at once. An answer that comes damaged shows it;
so does a request that is lost although nothing else was on its way.
"""

from __future__ import annotations

from collections import deque

# For so many answers a line counts as dirty; and so many requests that were lost alone show it.
_DIRTY = 512
_LONE = 2

# How many of the latest requests tell how many get lost.
_OUTCOMES = 64

# All that the device has room for was sent, and is silent. If that many are lost by chance about as often as this, they
# are lost.
_TELLING = 3  # so many losses tell how many there are
_LOST_ALL = 0.002
_LOST_ALL_DIRTY = 0.0002  # where it is certain that something gets lost by chance


class LineQuality:
    """Of one transfer.

    Attributes:
        answers: so far, of which everything counts.
        outcomes: of the latest requests: lost, or answered.
    """

    def __init__(self) -> None:
        self.answers = 0
        self.outcomes: deque[bool] = deque(maxlen=_OUTCOMES)
        self._dirty_until = 0  # counted in answers
        self._lost_alone = 0

    @property
    def dirty(self) -> bool:
        """The line damages bytes."""
        return self.answers < self._dirty_until

    @property
    def lost_share(self) -> float:
        """Of the latest requests, how many were lost, or their answers; 0 to 1."""
        return sum(self.outcomes) / len(self.outcomes) if self.outcomes else 0.0

    def damaged(self) -> None:
        """An answer has come of which nothing can be read."""
        self._dirty_until = self.answers + _DIRTY

    def lost_alone(self) -> None:
        """A request was lost while nothing else was on its way."""
        self._lost_alone += 1
        if self._lost_alone >= _LONE:
            self.damaged()

    def begin_anew(self) -> None:
        """Requests are of another size from now on: what got lost of the others says little."""
        self.outcomes.clear()
        self._lost_alone = 0

    def loses_all(self, count: int) -> bool:
        """Whether it is likely that `count` requests are lost together by chance."""
        enough = _LOST_ALL_DIRTY if self.dirty else _LOST_ALL
        return sum(self.outcomes) >= _TELLING and bool(self.lost_share**count >= enough)
