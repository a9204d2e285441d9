"""How fast requests may follow each other to a device that has room for few. No I/O and no clock.

On a link that holds many requests, the one thing that may not happen is that they arrive faster than the device works:
its buffers are soon full, and what finds none is lost. How fast it works is not known, and cannot be asked. A `Pace`
finds it out from the answers:

* With as many on their way as there is room for, nothing can get lost, and answers to requests that had left together
  come back as the device is done with each. That is where it begins.
* From there it makes attempts at faster paces. Where the device has room for more than one, requests begin to wait in
  it before any is lost, and every round trip becomes longer: then the answers come at the pace of the device, which
  that tells. Where it has not, a loss ends the attempt, and the next one is half of the way to it.
* What the device needs for a request differs from one to the next, most of all because flash is written in blocks. So
  an attempt passes after a number of answers, and what has been found from few of them is looked at again.
* A loss that comes alone, at a pace that has passed, is chance. Several that follow each other closely are not.
* Once found, a pace is kept, and from time to time a slightly faster one is tried, ever more rarely if in vain.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise

__all__ = ["Pace"]

# Below this the device is reached so fast that one request after the other is all it can take, and gaps would need
# finer timers than event loops have.
_LEAST_TRIP_S = 0.004

# Answers after which an attempt has passed, and after which a pace that is kept is judged.
_ENOUGH = 8
_MANY = 32

# An attempt is faster by this factor, but by no more than half of the way, as a ratio, to what has failed. Where that
# is as near as this, the best is found.
_GROWTH = 1.5
_NEAR = 1.03

# How well a few answers tell the pace of the device.
_ROUGHLY = 1.08

# An attempt costs a loss where the device has room for one: it must promise to gain more than this factor.
_WORTH = 1.1

# The first attempt may be faster than what has been seen by this factor.
_LEAP = 32

# Nothing waits in the device if the quickest of the latest answers took longer than the shortest round trip by less
# than this part of a gap.
_EMPTY = 0.25

# A pace slow enough for what waits to become less, to see how long the way is.
_DRAINS = 1.25

# Once the best is found, rounds of many answers before a pace faster by this factor is tried; doubled when it fails.
_ROUNDS = 32
_STEP = 1.05

# A pace that had passed is too fast after so many losses in a row, each within so many answers that brought the
# transfer on. Then it becomes slower by this factor.
_TOO_MANY = 3
_TOO_SOON = 32
_SLOWER = 1.25


class Pace:
    """The gap between two requests, and how many on their way keep the link full at that pace.

    Requests have numbers that grow by 1. Times are in seconds.

    Arguments:
        room: requests that the device has room for.
        widest: on their way at once, at most.
        short_s: a round trip that costs the device next to nothing, if known. Then a request keeps the device busy for
            at least as long as its own round trip takes longer.
    """

    def __init__(self, room: int, widest: int, short_s: float | None = None) -> None:
        self.room = room
        self.widest = widest
        self.gap_s: float | None = None
        """Between two requests; None as long as no pace is needed, or known."""
        self.size = float(room)
        """Requests on their way at this pace."""
        self.at_once = room
        """Up to so many on their way, the next one need not wait for the gap."""
        self.saturated = False
        """A faster pace did not make the answers come faster."""
        self._short_s = short_s
        self._numbers = 0
        self._answered = -1  # the last one
        self._set_from = 0  # the first one at this pace
        self._advances = 0  # answers that brought the transfer on
        self._trips: deque[tuple[float, float]] = deque(maxlen=_MANY)  # when answered, and after how long
        self._shortest_s = math.inf
        self._longest_s = 0.0  # with as many on their way as there is room for
        self._good_s = math.inf  # the shortest gap that has passed
        self._bad_s = 0.0  # the longest that has not; 0 if none
        self._lost_at = -_TOO_SOON  # counted in advances
        self._lost_again = 0
        self._by_chance = False  # something got lost at a pace that had passed
        self._excused = False  # something got lost in this attempt that may have been chance
        self._rounds = 0  # since the last attempt
        self._enough_rounds = _ROUNDS
        # A round: from an answer on, until all that was on its way then is answered, and enough of them.
        self._round_from = 0
        self._round_ends = 0
        self._round_at = 0.0
        self._filling = True  # what is answered now was sent at another pace

    # -- what happens --------------------------------------------------------------------------------------------------

    def sent(self, number: int) -> None:
        """The request with this number has left."""
        self._numbers = number + 1

    def answered(self, number: int, now: float, trip_s: float | None) -> None:
        """The answer to it has come; `trip_s` is None where that tells nothing of others.

        To be called only while as many are on their way as there is room for, or as `size` says.
        """
        self._answered = number
        if trip_s is not None:
            self._trips.append((now, trip_s))
            self._shortest_s = min(self._shortest_s, trip_s)
        if self.gap_s is None:
            if len(self._trips) > _ENOUGH:
                self._begin(now)
        elif number >= self._round_ends:
            self._end_round(self.gap_s, number, now)

    def advanced(self) -> None:
        """An answer has brought the transfer on."""
        self._advances += 1

    def lost(self, now: float, *, all_of_them: bool) -> None:
        """Something got lost; `all_of_them` if nothing else has been answered either."""
        gap_s = self.gap_s
        if gap_s is None or (self._answered <= self._set_from and not all_of_them):
            return  # what got lost was sent at another pace
        soon = self._advances - self._lost_at < max(_TOO_SOON, self.size)
        self._lost_at = self._advances
        if gap_s > self._good_s:
            self._set(self._good_s, now)
            return
        if gap_s < self._good_s:
            if not soon and not self._excused and self._by_chance:
                self._excused = True
                self._begin_round(now)
                return
            if self._found:
                self._enough_rounds *= 2
            else:
                self._bad_s = gap_s
            self._lost_again = 0
            self._set(self._good_s, now)
            return
        self._lost_again = self._lost_again + 1 if soon else 1
        slowest = self.size <= self.room  # nothing that is on its way can be one too many
        if (self._lost_again >= _TOO_MANY or all_of_them) and not slowest:
            self._lost_again = 0
            self._bad_s = gap_s
            self._good_s = min(gap_s * _SLOWER, self._longest_s)
            self._set(self._good_s, now)
            return
        if not self._by_chance:
            self._by_chance = True
            self._bad_s = self._least_s  # for that may have been chance as well
        self._begin_round(now)

    # -- the search ----------------------------------------------------------------------------------------------------

    @property
    def _found(self) -> bool:
        return self._good_s <= self._bad_s * _NEAR

    @property
    def _least_s(self) -> float:
        """What is certainly too short, 0 if that is not known. One slow answer may have other reasons, two have not."""
        if self.room > 1 or self._short_s is None:
            return 0.0
        return max(0.0, sorted(trip_s for _, trip_s in self._trips)[-2] - self._short_s)

    def _begin(self, now: float) -> None:
        if self._shortest_s < _LEAST_TRIP_S or self.widest <= self.room:
            return
        self._longest_s = max(trip_s for _, trip_s in self._trips)
        if self._longest_s < self._least_s * _WORTH:
            return  # the device is busy all the time
        self._good_s = self._longest_s / self.room
        self._bad_s = self._least_s
        if self.room > 1:
            # Between those that had left together, and that is all but one of as many as there is room for.
            times = [at for at, _ in self._trips]
            spacings = sorted(later - earlier for earlier, later in pairwise(times))
            gap_s = spacings[max(0, len(spacings) - 3 - len(spacings) // self.room)]
        else:
            gap_s = self._bad_s * _SLOWER or self._good_s / _GROWTH
        self._set(min(self._good_s, max(gap_s, self._good_s / _LEAP)), now)

    def _set(self, gap_s: float, now: float) -> None:
        self.gap_s = gap_s
        # What the link holds, and not so much more that it would not fit into the device.
        size = self._longest_s / gap_s if self.room == 1 else self._shortest_s / gap_s + self.room - 2
        self.size = min(float(self.widest), max(float(self.room), size))
        # Several at once come back at once, in bunches: only as long as the room is enough for a round trip.
        self.at_once = self.room if self._shortest_s < (self.room + 1) * gap_s else 1
        self._set_from = self._numbers
        self._excused = False
        self._rounds = 0
        self._begin_round(now)

    def _begin_round(self, now: float, number: int | None = None) -> None:
        """After something has changed, or after the answer to `number`."""
        self._filling = number is None
        self._round_from = self._numbers if number is None else number
        self._round_ends = self._numbers
        self._round_at = now

    def _end_round(self, gap_s: float, number: int, now: float) -> None:
        if self._filling:
            self._begin_round(now, number)
            return
        answers = number - self._round_from
        if answers < _ENOUGH:
            return
        latest = list(self._trips)[-_ENOUGH:]
        quickest_s = min(trip_s for _, trip_s in latest)
        waits_s = quickest_s - (self._longest_s if self.room == 1 else self._shortest_s)
        keeping = gap_s == self._good_s
        # What begins to wait shows only in the end.
        enough = _ENOUGH if waits_s < _EMPTY * gap_s else 2 * _ENOUGH
        if self._found and gap_s <= self._good_s:
            enough = _MANY  # where it was found, little is wrong
        if answers < enough:
            return
        if keeping:
            self._rounds += 1
            self._keep(gap_s, waits_s, number, now)
        elif gap_s > self._good_s:
            self._shortest_s = quickest_s
            self._try_faster(now)
        elif waits_s > gap_s:
            # Even the quickest had to wait: the answers come as fast as the device, or the link, allows.
            self.saturated = True
            if self._found:
                self._enough_rounds *= 2
            else:
                spacing_s = (latest[-1][0] - latest[0][0]) / (len(latest) - 1)
                self._good_s = min(self._good_s, max(gap_s, spacing_s))
                self._bad_s = max(gap_s, self._good_s / _ROUGHLY)
            self._set(self._good_s, now)
        else:
            self._good_s = gap_s
            if gap_s <= self._bad_s:
                self._bad_s = 0.0
            self._try_faster(now)

    def _keep(self, gap_s: float, waits_s: float, number: int, now: float) -> None:
        """A round at a pace that had passed."""
        spacing_s = (now - self._round_at) / (number - self._round_from)
        enough = not self._found or self._rounds >= self._enough_rounds
        if waits_s > (self.room + 1) * gap_s:
            # The device cannot hold that many: the way has become longer.
            latest = [trip_s for _, trip_s in self._trips][-_ENOUGH:]
            self._shortest_s, self._longest_s = min(latest), max(latest)
            self._set(gap_s, now)
        elif waits_s > gap_s and spacing_s > gap_s:
            self._good_s = min(spacing_s, self._longest_s)
            self._bad_s = self._good_s / _NEAR
            self._set(self._good_s, now)
        elif enough and self._found and waits_s > _EMPTY * gap_s:
            self._set(gap_s * _DRAINS, now)
        elif enough:
            self._try_faster(now)
        else:
            self._begin_round(now, number)

    def _try_faster(self, now: float) -> None:
        if self._found:
            gap_s = self._good_s / _STEP
        else:
            gap_s = max(self._good_s / _GROWTH, math.sqrt(self._good_s * self._bad_s))
        if gap_s < self._least_s or self.size >= self.widest:
            self._bad_s = max(self._bad_s, self._good_s / _NEAR)
            gap_s = self._good_s
        self._set(gap_s, now)
