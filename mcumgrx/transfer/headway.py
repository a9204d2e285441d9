"""`Headway`: whether the device answers, and its answers bring a transfer on; how long it is waited for where not.

Its silence counts from when it has been asked; all requests together may go unanswered for a while.

"Busy" and "no buffer" say when to try again (`protocol.waiting`); so does a device that keeps asking for what it has
just been sent, because it is at work on something else: an image may be copied to another core before its last bytes
are taken. An answer of which nothing can be made is asked for again, unless that is what the device has to say.
"""

from __future__ import annotations

from typing import Any

from ..errors import MalformedReply, RequestTimeout
from ..events import StageName
from ..messages.message import Reply
from ..protocol.waiting import Waiting
from .plan import TransferPlan
from .window import Window

# No answer for so many ordinary time-outs in a row means that the device or the link is gone.
_ENOUGH = 5

# While the last answer is out the device may check, or decrypt, the whole image.
_TAIL_S = 40.0

_RESUME = "the device keeps its place: run the same command again to go on from there"

# Of a device that keeps asking for the same.
_STALLED_S = 60.0

# The device may take back what it had taken (it has been reset, say), but not again and again.
_FALLS = 16

# Answers in a row of which nothing can be made, before they are taken for what the device has to say.
_GARBLED = 16

# So many that are alike are no damage of a line, which is different each time: the device says just that.
_GARBLED_ALIKE = 4


class Headway:
    """Of one transfer. Times in seconds.

    Arguments:
        timeout_s: in which an ordinary request is answered.

    Attributes:
        paused_until: nothing is sent before.
        notes: what there is to say of it, for whoever tells it.
        unread: answers in a row of which nothing could be made.
    """

    def __init__(self, plan: TransferPlan[Any], window: Window[Any], timeout_s: float, stage: str) -> None:
        self.timeout_s = timeout_s
        self.paused_until = 0.0
        self.notes: list[str] = []
        self._plan = plan
        self._window = window
        self._stage = stage
        self._heard_at = 0.0
        self._asked_at: float | None = None  # when the first request has left after the device was last heard
        self._advanced_at = 0.0
        self._falls = 0
        self._stalls = 0
        self._busy = Waiting()
        self._stalled = Waiting(_STALLED_S)
        self.unread = 0
        self._alike: tuple[bytes, int] = (b"", 0)  # the last of them, and how often in a row

    def begin(self, now: float) -> None:
        self._advanced_at = now
        self.heard(now)

    def held(self, seconds: float) -> None:
        """For so long nothing was to happen, which counts for nothing."""
        self._advanced_at += seconds
        self.heard(self._heard_at + seconds)

    # -- answers -------------------------------------------------------------------------------------------------------

    def heard(self, now: float) -> None:
        """An answer has come."""
        self._heard_at, self._asked_at = now, None

    def answered(self, done: int, setbacks: int, now: float) -> None:
        """An answer has changed the plan; `done` bytes and so many setbacks it had before.

        Raises `TransferStuck` when answers bring nothing any more.
        """
        plan = self._plan
        if plan.done_bytes > done:
            self._advanced_at = now
            if self._busy.began:
                self._busy.end()
        elif plan.done_bytes < done:
            self._falls += 1
        if plan.stalls or self._stalls:
            self._stall(now)
        if plan.setbacks == setbacks:
            return
        silent_s = now - self._advanced_at
        if self._falls > _FALLS or silent_s > max(_STALLED_S, _FALLS * self._window.rto_s):
            raise plan.stuck(silent_s)

    def _stall(self, now: float) -> None:
        """The device asks for the very piece that it has had, or goes on after that."""
        plan, before = self._plan, self._stalls
        self._stalls = plan.stalls
        if not plan.stalls:
            self._stalled.end()
        elif plan.stalls > before and not self._wait(self._stalled, now, "asks again for what it has been sent"):
            raise plan.stuck(self._stalled.seconds(now))

    def busy(self, why: str, now: float) -> bool:
        """The device `why`: let it have some time. False when it has had enough."""
        return self._wait(self._busy, now, why)

    def readable(self) -> None:
        """Something could be made of an answer."""
        self.unread, self._alike = 0, (b"", 0)

    def unreadable(self, error: MalformedReply, what: str, reply: Reply) -> None:
        """Nothing can be made of the answer to `what`. Raises `error` when the device means it.

        A part of it may have got lost where nothing checks that (Bluetooth LE, raw UART).
        """
        self.unread += 1
        self._alike = (reply.payload, self._alike[1] + 1 if reply.payload == self._alike[0] else 1)
        if self.unread > _GARBLED or self._alike[1] >= _GARBLED_ALIKE:
            error.concerns(what, reply.payload)
            raise error

    def _wait(self, waiting: Waiting, now: float, why: str) -> bool:
        if now < self.paused_until:
            return True  # what was on its way together counts once
        pause_s = waiting.pause_s(now)
        if pause_s is None:
            return False
        self.paused_until = now + pause_s
        if waiting.tell(now + pause_s):
            left_s = waiting.patience_s - waiting.seconds(now)
            self.notes.append(f"the device {why}: asking it for up to {left_s:.0f} s more")
        return True

    # -- silence -------------------------------------------------------------------------------------------------------

    def silent_s(self, now: float) -> float:
        """For how long nothing has come, since the device was last heard and has been asked."""
        if self._asked_at is None:
            self._asked_at = self._window.leaves_after(self._heard_at) or self._heard_at
        return now - self._asked_at

    @property
    def enough_s(self) -> float:
        """So long all requests together go unanswered before the transfer ends."""
        return _ENOUGH * self.timeout_s

    def timed_out(self, waited_s: float, now: float) -> None:
        """All that was on its way is given up, after `waited_s`. Raises `RequestTimeout` where that is the end."""
        plan, window, silent_s = self._plan, self._window, self.silent_s(now)
        if plan.tail:
            if silent_s >= max(self.timeout_s, _TAIL_S):
                plan.doubt()
        elif silent_s >= self.enough_s + _ENOUGH * window.air_s:
            raise self.silence(waited_s, window.losses, now)

    def slow_lost(self, losses: int, waited_s: float, now: float) -> None:
        """So many slow requests in a row were lost in front of others. Raises as `timed_out` does."""
        if losses >= _ENOUGH:
            raise self.silence(waited_s, losses, now)

    def silence(self, waited_s: float, attempts: int, now: float) -> RequestTimeout:
        """What to raise: the last of so many attempts was waited for so long."""
        plan = self._plan
        what = "upload" if self._stage is StageName.UPLOAD else "transfer"
        if plan.done_bytes == 0:
            message = f"the {what} is stuck at 0 %: no answer to its first chunk within {waited_s:g} s"
            hint = "if the device erases longer, raise --erase-timeout; if its buffers are small, try --chunk 128 or 64"
        else:
            percent = 100 * plan.done_bytes // max(1, plan.size)
            silent_s = self.silent_s(now)
            message = f"the {what} is stuck at {percent} %: no answer for {silent_s:.0f} s, asked again and again"
            hint = _RESUME
        return RequestTimeout(message, what=what, timeout_s=waited_s, attempts=attempts, hint=hint)
