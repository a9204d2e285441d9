"""`Silence`: since when the device says nothing although it has been asked, and when that is enough."""

from __future__ import annotations

from typing import Any

from ..errors import RequestTimeout
from ..events import StageName
from .plan import TransferPlan
from .window import Window

# No answer for so many ordinary time-outs in a row means that the device or the link is gone.
_ENOUGH = 5

# While the last answer is out the device may check, or decrypt, the whole image.
_TAIL_S = 40.0

_RESUME = "the device keeps its place: run the same command again to go on from there"


class Silence:
    """Of the device, in one transfer. `timeout_s`: seconds in which an ordinary request is answered."""

    def __init__(self, plan: TransferPlan[Any], window: Window[Any], timeout_s: float, stage: str) -> None:
        self.timeout_s = timeout_s
        self._plan = plan
        self._window = window
        self._stage = stage
        self._heard_at = 0.0
        self._asked_at: float | None = None  # when the first request has left after the device was last heard

    def heard(self, now: float) -> None:
        """An answer has come; or it begins."""
        self._heard_at, self._asked_at = now, None

    def held(self, seconds: float) -> None:
        """For so long nothing was to happen, which counts for nothing."""
        self._heard_at, self._asked_at = self._heard_at + seconds, None

    def seconds(self, now: float) -> float:
        """For how long it lasts, since the device was last heard and has been asked."""
        if self._asked_at is None:
            self._asked_at = self._window.leaves_after(self._heard_at) or self._heard_at
        return now - self._asked_at

    @property
    def enough_s(self) -> float:
        """So long all requests together go unanswered before the transfer ends."""
        return _ENOUGH * self.timeout_s

    def judge(self, waited_s: float, now: float) -> None:
        """All that was on its way is given up, after `waited_s`. Raises `RequestTimeout` where that is the end."""
        plan, window, silent_s = self._plan, self._window, self.seconds(now)
        if plan.tail:
            if silent_s >= max(self.timeout_s, _TAIL_S):
                plan.doubt()
        elif silent_s >= self.enough_s + _ENOUGH * window.air_s:
            raise self.error(waited_s, window.losses, now)

    def judge_slow(self, losses: int, waited_s: float, now: float) -> None:
        """So many slow requests in a row were lost in front of others. Raises as `judge` does."""
        if losses >= _ENOUGH:
            raise self.error(waited_s, losses, now)

    def error(self, waited_s: float, attempts: int, now: float) -> RequestTimeout:
        """What to raise: the last of so many attempts was waited for so long."""
        plan = self._plan
        what = "upload" if self._stage is StageName.UPLOAD else "transfer"
        if plan.done_bytes == 0:
            message = f"the {what} is stuck at 0 %: no answer to its first chunk within {waited_s:g} s"
            hint = "if the device erases longer, raise --erase-timeout; if its buffers are small, try --chunk 128 or 64"
        else:
            percent = 100 * plan.done_bytes // max(1, plan.size)
            silent_s = self.seconds(now)
            message = f"the {what} is stuck at {percent} %: no answer for {silent_s:.0f} s, asked again and again"
            hint = _RESUME
        return RequestTimeout(message, what=what, timeout_s=waited_s, attempts=attempts, hint=hint)
