"""How fast requests may follow each other to a device that has room for few. No I/O and no clock.

On a link that holds many requests, the one thing that may not happen is that they arrive faster than the device works:
its buffers are soon full, and what finds none is lost. How fast it works is not known, and cannot be asked. `Pacing`
finds it out from the answers, as BBR finds the bottleneck of a path (Cardwell et al., "BBR: Congestion-Based Congestion
Control", 2016): the delivery rate while requests wait is that of the bottleneck, which here is the device, and the
shortest round trip tells how many keep it busy. What differs is that its queue has room for one or two:

* Start-up: with as many on their way as there is room for, nothing can get lost, and answers to requests that had left
  together come back as the device is done with each. That is where it begins.
* Probing: from there it makes attempts at faster paces. Where the device has room for more than one, requests begin to
  wait in it before any is lost, and every round trip becomes longer: then the answers come at the pace of the device,
  which that tells. Where it has not, a loss ends the attempt, and the next one is half of the way to it.
* What the device needs for a request differs from one to the next, most of all because flash is written in blocks. So
  an attempt passes after a number of answers, and what has been found from few of them is looked at again.
* A loss that comes alone, at a pace that has passed, is chance. Several that follow each other closely are not. In the
  first attempt one is excused as well: the buffers are filled at once then, and the device may not be done with the
  request before.
* Once found, a pace is kept, and from time to time a slightly faster one is tried, ever more rarely if in vain. Before
  that, what waits in the device is drained, to see the shortest round trip again.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise

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

# It holds a request all the time if the quickest took longer by so much of a gap: a whole one, but for rounding.
_WHOLE = 1 - 1e-9

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


class _Trips:
    """The latest round trips: when each was over, and its seconds.

    Attributes:
        shortest_s: that of a request for which nothing waited, as far as has been seen.
        longest_s: with as many on their way as there is room for.
    """

    def __init__(self) -> None:
        self.latest: deque[tuple[float, float]] = deque(maxlen=_MANY)
        self.shortest_s = math.inf
        self.longest_s = 0.0

    def add(self, now: float, seconds: float) -> None:
        self.latest.append((now, seconds))
        if seconds < self.shortest_s:
            self.shortest_s = seconds

    def last(self) -> list[tuple[float, float]]:
        """As many as tell something."""
        return list(self.latest)[-_ENOUGH:]

    def second_longest_s(self) -> float:
        return sorted(seconds for _, seconds in self.latest)[-2]


@dataclass(slots=True)
class _Round:
    """From an answer on, until all that was on its way then is answered.

    `filling`: what is answered now was sent at another pace.
    """

    start: int = 0
    ends: int = 0
    at: float = 0.0
    filling: bool = True


class _Losses:
    """What got lost at the present pace and before, and what may have been chance.

    Attributes:
        by_chance: something got lost at a pace that had passed.
        excused: something got lost in this attempt that may have been chance.
        row: so many in a row, each soon after the one before.
    """

    def __init__(self) -> None:
        self.by_chance = False
        self.excused = False
        self.row = 0
        self._at = -_TOO_SOON  # counted in answers that brought the transfer on

    def another(self, advances: int, size: float) -> bool:
        """One more; whether it comes soon after the one before."""
        soon = advances - self._at < max(_TOO_SOON, size)
        self._at = advances
        return soon


class Pacing:
    """The gap between two requests, and how many on their way keep the link full at that pace.

    Requests have numbers that grow by 1. Times are in seconds.

    Arguments:
        buffers: requests that the device has room for.
        widest: on their way at once, at most.
        min_rtt_s: a round trip that costs the device next to nothing, if known. Then a request keeps the device busy
            for at least as long as its own round trip takes longer.

    Attributes:
        gap_s: between two requests; None as long as no pace is needed, or known.
        size: requests on their way at this pace.
        at_once: up to so many on their way, the next one need not wait for the gap.
        saturated: a faster pace did not make the answers come faster.
        numbers: that of the next request, and `advances`: answers that brought the transfer on; the window keeps both.
    """

    def __init__(self, buffers: int, widest: int, min_rtt_s: float | None = None) -> None:
        self.buffers = buffers
        self.widest = widest
        self.gap_s: float | None = None
        self.size = float(buffers)
        self.at_once = buffers
        self.saturated = False
        self._min_rtt_s = min_rtt_s
        self.numbers = 0
        self.advances = 0
        self._answered = -1  # the last one
        self._set_from = 0  # the first one at this pace
        self._trips = _Trips()
        self._losses = _Losses()
        self._good_s = math.inf  # the shortest gap that has passed
        self._bad_s = 0.0  # the longest that has not; 0 if none
        self._rounds = 0  # since the last attempt
        self._enough_rounds = _ROUNDS
        self._round = _Round()

    # -- what happens --------------------------------------------------------------------------------------------------

    def answered(self, number: int, now: float, trip_s: float | None) -> None:
        """The answer to it has come; `trip_s` is None where that tells nothing of others.

        To be called only while as many are on their way as there is room for, or as `size` says.
        """
        self._answered = number
        if trip_s is not None:
            self._trips.add(now, trip_s)
        if self.gap_s is None:
            if len(self._trips.latest) > _ENOUGH:
                self._start_up(now)
        elif number >= self._round.ends:
            self._end_round(self.gap_s, number, now)

    def lost(self, now: float, *, all_of_them: bool) -> None:
        """Something got lost; `all_of_them` if nothing else has been answered either."""
        gap_s = self.gap_s
        if gap_s is None or (self._answered <= self._set_from and not all_of_them):
            return  # what got lost was sent at another pace
        soon = self._losses.another(self.advances, self.size)
        if gap_s > self._good_s:
            self._set(self._good_s, now)
        elif gap_s < self._good_s:
            self._lost_probing(gap_s, now, soon)
        else:
            self._lost_keeping(gap_s, now, soon, all_of_them)

    def _lost_probing(self, gap_s: float, now: float, soon: bool) -> None:
        """In an attempt at a faster pace."""
        losses = self._losses
        if not soon and not losses.excused and (losses.by_chance or self._is_first):
            losses.excused = True
            self._begin_round(now)
            return
        if self._found:
            self._enough_rounds *= 2
        else:
            self._bad_s = gap_s
        losses.row = 0
        self._set(self._good_s, now)

    def _lost_keeping(self, gap_s: float, now: float, soon: bool, all_of_them: bool) -> None:
        """At a pace that had passed."""
        losses = self._losses
        losses.row = losses.row + 1 if soon else 1
        slowest = self.size <= self.buffers  # nothing that is on its way can be one too many
        if (losses.row >= _TOO_MANY or all_of_them) and not slowest:
            losses.row = 0
            self._bad_s = gap_s
            self._good_s = min(gap_s * _SLOWER, self._trips.longest_s)
            self._set(self._good_s, now)
            return
        if not losses.by_chance:
            losses.by_chance = True
            self._bad_s = self._least_s  # for that may have been chance as well
        self._begin_round(now)

    # -- the search ----------------------------------------------------------------------------------------------------

    @property
    def _found(self) -> bool:
        return self._good_s <= self._bad_s * _NEAR

    @property
    def _is_first(self) -> bool:
        """No attempt has passed or failed so far."""
        return not self._bad_s and self._good_s == self._trips.longest_s / self.buffers

    @property
    def _least_s(self) -> float:
        """What is certainly too short, 0 if that is not known. One slow answer may have other reasons, two have not."""
        if self.buffers > 1 or self._min_rtt_s is None:
            return 0.0
        return max(0.0, self._trips.second_longest_s() - self._min_rtt_s)

    def _start_up(self, now: float) -> None:
        trips = self._trips
        if trips.shortest_s < _LEAST_TRIP_S or self.widest <= self.buffers:
            return
        trips.longest_s = max(seconds for _, seconds in trips.latest)
        if trips.longest_s < self._least_s * _WORTH:
            return  # the device is busy all the time
        self._good_s = trips.longest_s / self.buffers
        self._bad_s = self._least_s
        if self.buffers > 1:
            # Between those that had left together, and that is all but one of as many as there is room for.
            times = [at for at, _ in trips.latest]
            spacings = sorted(later - earlier for earlier, later in pairwise(times))
            gap_s = spacings[max(0, len(spacings) - 3 - len(spacings) // self.buffers)]
        else:
            gap_s = self._bad_s * _SLOWER or self._good_s / _GROWTH
        self._set(min(self._good_s, max(gap_s, self._good_s / _LEAP)), now)

    def _set(self, gap_s: float, now: float) -> None:
        self.gap_s = gap_s
        shortest_s, longest_s = self._trips.shortest_s, self._trips.longest_s
        # What the link holds, and not so much more that it would not fit into the device.
        size = longest_s / gap_s if self.buffers == 1 else shortest_s / gap_s + self.buffers - 2
        self.size = min(float(self.widest), max(float(self.buffers), size))
        # Several at once come back at once, in bunches: only as long as the buffers are enough for a round trip.
        self.at_once = self.buffers if shortest_s < (self.buffers + 1) * gap_s else 1
        self._set_from = self.numbers
        self._losses.excused = False
        self._rounds = 0
        self._begin_round(now)

    def _begin_round(self, now: float, number: int | None = None) -> None:
        """After something has changed, or after the answer to `number`."""
        start = self.numbers if number is None else number
        self._round = _Round(start, self.numbers, now, filling=number is None)

    def _end_round(self, gap_s: float, number: int, now: float) -> None:
        if self._round.filling:
            self._begin_round(now, number)
            return
        answers = number - self._round.start
        if answers < _ENOUGH:
            return
        trips = self._trips
        quickest_s = min(seconds for _, seconds in trips.last())
        waits_s = quickest_s - (trips.longest_s if self.buffers == 1 else trips.shortest_s)
        # What begins to wait shows only in the end.
        enough = _ENOUGH if waits_s < _EMPTY * gap_s else 2 * _ENOUGH
        if self._found and gap_s <= self._good_s:
            enough = _MANY  # where it was found, little is wrong
        if answers < enough:
            return
        if gap_s == self._good_s:
            self._rounds += 1
            self._keep(gap_s, waits_s, number, now)
        elif gap_s > self._good_s:
            trips.shortest_s = quickest_s  # drained
            self._try_faster(now)
        else:
            self._passed(gap_s, waits_s, now)

    def _passed(self, gap_s: float, waits_s: float, now: float) -> None:
        """An attempt at a faster pace has lost nothing."""
        if waits_s < gap_s * _WHOLE:
            self._good_s = gap_s
            if gap_s <= self._bad_s:
                self._bad_s = 0.0
            self._try_faster(now)
            return
        # Even the quickest had to wait: the answers come as fast as the device, or the link, allows.
        self.saturated = True
        if self._found:
            self._enough_rounds *= 2
        else:
            latest = self._trips.last()
            spacing_s = (latest[-1][0] - latest[0][0]) / (len(latest) - 1)
            self._good_s = min(self._good_s, max(gap_s, spacing_s))
            self._bad_s = max(gap_s, self._good_s / _ROUGHLY)
        self._set(self._good_s, now)

    def _keep(self, gap_s: float, waits_s: float, number: int, now: float) -> None:
        """A round at a pace that had passed."""
        spacing_s = (now - self._round.at) / (number - self._round.start)
        enough = not self._found or self._rounds >= self._enough_rounds
        if waits_s > (self.buffers + 1) * gap_s:
            # The device cannot hold that many: the way has become longer.
            latest = [seconds for _, seconds in self._trips.last()]
            self._trips.shortest_s, self._trips.longest_s = min(latest), max(latest)
            self._set(gap_s, now)
        elif waits_s > gap_s and spacing_s > gap_s:
            self._good_s = min(spacing_s, self._trips.longest_s)
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
