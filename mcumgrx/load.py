"""How much of the time this program was at work, or waited for a processor: what a slow transfer can be due to.

This is the time of the computer, not that of the event loop; where the two differ, as in virtual time, there is nothing
to tell.
"""

from __future__ import annotations

import os

# The clocks tick 100 times a second.
_TOLERANCE_S = 0.05


class ComputerLoad:
    """Measures from when it is made."""

    def __init__(self) -> None:
        self._real_s, self._needed_s = _now()

    def share(self, elapsed_s: float) -> float | None:
        """The part of the time that went into work and waiting for a processor.

        `elapsed_s` is the same time on the clock of the loop. None where that clock is another one.
        """
        real_s, needed_s = _now()
        real_s, needed_s = real_s - self._real_s, needed_s - self._needed_s
        if elapsed_s <= 0 or abs(real_s - elapsed_s) > _TOLERANCE_S + 0.1 * elapsed_s:
            return None
        return needed_s / max(real_s, elapsed_s)


def _now() -> tuple[float, float]:
    """The computer's clock, and the seconds for which this program has been at work or waited for it."""
    times = os.times()
    return times.elapsed, times.user + times.system + _waited_s()


def _waited_s() -> float:
    """For how long the present thread was ready to run and had no processor; only Linux tells."""
    try:
        with open("/proc/thread-self/schedstat", "rb") as stream:
            return int(stream.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
