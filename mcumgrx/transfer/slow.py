"""`SlowRequest`: a request whose answer may take a minute, because the device erases first. It goes alone.

If no answer comes it may have got lost, or the device may still be at work; there are two ways not to wait for the
whole of that time. A short request is sent behind it: the device takes one after the other, so if that one is answered,
the slow one has not arrived. And where it is known how long the device took before, it is sent once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..link.profile import LinkProfile
from ..messages.message import SmpCommand
from ..messages.standard import Probe
from .flight import Flight
from .window import Window

# Waiting for it twice covers a lost answer.
_ENOUGH_LOSSES = 2

# Behind a slow request a short one is sent after so many seconds, the first one no earlier than after so many short
# round trips.
_ASK_BEHIND_S = (0.3, 2.0, 8.0, 30.0)
_ASK_BEHIND_TRIPS = 8

# So long it goes without saying that a request is waited for of which it is known that it can take long: an erase does.
_QUIET_S = 5.0
_OPENING = "image upload"

_NEVER = float("inf")


class Probing:
    """The short request behind a slow one."""

    slow = False

    def __init__(self) -> None:
        self.command: SmpCommand[Any] = Probe()


class SlowRequest:
    """The slow request that is out, if one is, and what became of those before. Times in seconds.

    Arguments:
        patience: seconds for the answer to a piece.
        again_s: after so long without an answer it is sent once more, once in a transfer; None for never.

    Attributes:
        losses: how many were lost since the transfer last went on; `silent_s`: for how long they were waited for.
        stray_at: when the last one left that was given up: it may still arrive.
    """

    def __init__(
        self, window: Window[Any], profile: LinkProfile, patience: Callable[[Any], float], again_s: float | None
    ) -> None:
        self.flight: Flight[Any] | None = None
        self.losses = 0
        self.silent_s = 0.0
        self.stray_at = -_NEVER
        self._window = window
        self._profile = profile
        self._patience = patience
        self._again_s = again_s
        self._beyond = False  # what was sent behind it may have found no buffer
        self._asked_behind = 0
        self._told = False

    # -- what happens --------------------------------------------------------------------------------------------------

    def sent(self, flight: Flight[Any]) -> None:
        """It leaves now; or a copy of the one that is out: which of the two is answered makes no difference."""
        if self.flight is None:
            self.flight = flight
            self._beyond = False
            self._asked_behind = 0

    def answered(self) -> None:
        self.flight = None
        if self._beyond:
            self._beyond = False
            self._window.time_out()  # nobody waits for an answer to that

    def advanced(self) -> None:
        """The transfer has gone on."""
        self.losses = 0
        self.silent_s = 0.0

    def lost(self, flight: Flight[Any], waited_s: float = 0.0) -> None:
        """There will be no answer to it."""
        self.losses += 1
        self.silent_s += waited_s
        self.stray_at = flight.sent_at

    def enough(self, patience_s: float, least_s: float) -> bool:
        """Whether it has been waited for often enough."""
        return self.silent_s >= max(_ENOUGH_LOSSES * patience_s, least_s)

    # -- time ----------------------------------------------------------------------------------------------------------

    def patience_s(self, flight: Flight[Any]) -> float:
        """For how long its answer is waited for, after it has left."""
        return self._patience(flight.item) + self._window.air_s

    def next_time(self, flight: Flight[Any]) -> float:
        """When something is to be done about the one that is out."""
        after_s = min(self.patience_s(flight), self._ask_behind_s)
        if not self._told:
            after_s = min(after_s, _QUIET_S)
        if self._again_s is not None:
            after_s = min(after_s, self._again_s)
        return flight.left_at + after_s

    def note(self, flight: Flight[Any], now: float) -> str | None:
        """What to say of the wait, once."""
        if self._told or now < flight.left_at + _QUIET_S:
            return None
        self._told = True
        left_s = flight.left_at + self.patience_s(flight) - now
        what = flight.item.command.facts.what
        why = "the device may be erasing its flash" if what == _OPENING else "the device is at work"
        return f"no answer to the {what} so far: {why}, waiting up to {left_s:.0f} s more"

    def to_send(self, flight: Flight[Any], now: float) -> Any | None:
        """What is to be sent now although its answer is still out: itself once more, or a short request."""
        window = self._window
        if self._again_s is not None and now >= flight.left_at + self._again_s:
            self._again_s = None
            if window.unanswered >= window.buffers:
                self._beyond = True
                return flight.item  # it usually takes less; the patience stays that for one
        if now >= flight.left_at + self._ask_behind_s:
            self._asked_behind += 1
            if window.unanswered < window.buffers:
                return Probing()
            if window.unanswered == 1 and not window.strict:
                # It finds no buffer if the slow one has arrived, and is answered if that has not.
                self._beyond = True
                return Probing()
        return None

    @property
    def _ask_behind_s(self) -> float:
        """How long after the slow request the next short one follows."""
        if self._asked_behind == len(_ASK_BEHIND_S):
            return _NEVER
        return max(_ASK_BEHIND_S[self._asked_behind], _ASK_BEHIND_TRIPS * (self._profile.min_rtt_s or 0.0))
