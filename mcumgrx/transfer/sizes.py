"""How large the messages of a transfer are: as large as device and link take, which not every device tells truly.

A message that is too large for a buffer on the way is lost without a word: a device may have room for 2048 bytes, but
only two line buffers of a UART in front of them, or no reassembly behind Bluetooth LE. So what is larger than always
works has to prove itself, and what gets lost again and again is sent smaller: path-MTU probing in the manner of
RFC 8899, in which what carries the data is also what probes.
"""

from __future__ import annotations

from typing import Any

from ..link.profile import LinkProfile
from ..transport import Limits
from .flight import Flight
from .plan import TransferPlan
from .window import Window

# What has worked wherever something did: clients have used these for their smallest chunks for years.
_SMALL = (128, 64)

# Answers to messages of one size before the next larger one is tried; doubled each time that fails.
_GOOD = 32
_MOST_PATIENT = 4096

# A message is not too large for losing itself once, or in a moment in which the device was busy.
_LOSSES = 2
_SILENCE_S = 1.0

# Where a line damages bytes: messages of which a larger share is lost are halved, and made larger again only where
# fewer are. So many tell.
_MANY_LOST = 0.35
_FEW_LOST = 0.2
_TELLING = 16


def probe_sizes(largest: int, safe: int, least: int) -> list[int]:
    """The sizes to try one after the other, the largest first: all of it, one write or line, 128, 64 bytes.

    Arguments:
        safe: what a single write or line carries.
        least: what the transfer needs.
    """
    found = [max(largest, least)]
    for size in (safe, *_SMALL):
        if max(size, least) < found[-1]:
            found.append(max(size, least))
    return found


class MessageSize:
    """The size of the messages of one transfer, header included: found while it goes on, and kept in the profile.

    Arguments:
        limits: of the link.
        begin_bytes: the size of the first messages, where that is more than what is known to arrive.

    Attributes:
        largest: what device and link take, as far as they tell.
        current: that of the messages now; the plan is told.
    """

    def __init__(
        self,
        plan: TransferPlan[Any],
        window: Window[Any],
        profile: LinkProfile,
        limits: Limits,
        *,
        begin_bytes: int = 0,
    ) -> None:
        safe, largest = limits.safe_message, plan.message_bytes
        if profile.refused_bytes is not None:
            # What goes out as several writes a device puts together as far as it has room, or never: then what lies
            # between is lost as well, and with it what follows.
            refused = safe if limits.write is not None else profile.refused_bytes - 1
            largest = min(largest, max(safe, profile.proven_bytes, refused))
        self.largest = max(largest, plan.least_bytes)
        self._plan = plan
        self._window = window
        self._profile = profile
        self._limits = limits
        self._probe_sizes = probe_sizes(self.largest, safe, plan.least_bytes)
        self._enough = _GOOD  # answers before a larger one is tried
        self._from: int | None = None  # from this request on, messages are of a size that is not proven
        self._losses = 0
        self._change(max(plan.least_bytes, min(largest, max(safe, profile.proven_bytes, begin_bytes))))

    # -- what it may be ------------------------------------------------------------------------------------------------

    def answered(self) -> bool:
        """A message of this size has arrived. True if it is time to try larger ones: `current` has changed."""
        self._before = None
        self._answers += 1
        if self._answers < self._enough or self.current >= self.largest:
            return False
        self._change(min(self.largest, 2 * self.current), before=self.current)
        return True

    def halve(self) -> bool:
        """Too many messages of this size are damaged on their way. True if `current` has changed."""
        smaller = max(self._plan.least_bytes, self.current // 2)
        if smaller >= self.current:
            return False
        self._change(smaller)
        return True

    def failed(self) -> bool:
        """Messages of this size get lost. True if there is a smaller one: `current` has changed."""
        smaller = self._before or next((size for size in self._probe_sizes if size < self.current), None)
        if smaller is None:
            return False
        self._change(smaller)
        self._enough = min(_MOST_PATIENT, 2 * self._enough)
        return True

    def _change(self, size: int, before: int | None = None) -> None:
        """`before`: what has worked before `size` is tried."""
        self.current = self._plan.message_bytes = size
        self._before = before
        self._answers = 0

    # -- what happens --------------------------------------------------------------------------------------------------

    def advanced(self, flight: Flight[Any]) -> None:
        """It has brought the transfer on. Messages of its size arrive, and perhaps larger ones do as well."""
        window, profile = self._window, self._profile
        # Only this counts: a device may answer what it is asked in between, and never this.
        self._losses = 0
        if (self._from is None and self.current >= self.largest) or (
            window.line.dirty and window.line.lost_share >= _FEW_LOST
        ):
            return
        if self._from is not None:
            if flight.number < self._from:
                return
            self._from = None
            profile.learned.message_bytes = profile.proven_bytes = self.current
        if self.answered():
            self._from = window.numbers

    def gap(self) -> None:
        """Something was lost, as the answers tell."""
        if self._from is not None:
            self.too_large()
        elif self._window.line.dirty:
            self.damaged()

    def timed_out(self, silent_s: float, timeout_s: float) -> None:
        """All that was on its way is lost, and for so long nothing has been heard."""
        self._losses += 1
        if self._from is not None or self._window.line.dirty:
            self.gap()
        elif self._losses >= _LOSSES and silent_s >= min(_SILENCE_S, timeout_s):
            self.too_large()

    def slow_lost(self, losses: int) -> None:
        """So many opening messages were lost in front of others."""
        if losses >= _LOSSES:
            self.too_large()

    def damaged(self) -> None:
        """On a line that damages bytes, the fewer a message has the better are its chances."""
        line = self._window.line
        if len(line.outcomes) >= _TELLING and line.lost_share > _MANY_LOST and self.halve():
            self._from = None
            line.begin_anew()

    def too_large(self) -> bool:
        """Messages of this size do not arrive: make them smaller; false if that cannot be."""
        plan, profile = self._plan, self._profile
        failed, write_bytes = self.current, self._limits.write
        if write_bytes is not None and failed <= write_bytes and plan.done_bytes > plan.resumed_from:
            return False  # a single write arrives or does not, and some have: something else is wrong
        self._from = None
        if not self.failed():
            return False
        if failed > max(profile.proven_bytes, self._limits.safe_message) and not self._window.line.dirty:
            # What has arrived before is not too large: then it is the link or the device that pauses.
            profile.learned.refused_bytes = failed
            profile.learned.message_bytes = self.current
        profile.proven_bytes = self.current
        self._window.line.begin_anew()
        self._losses = 0
        return True
