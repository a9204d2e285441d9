"""`Headway`: whether the answers of the device bring a transfer on, and how long it is waited for where they do not.

"Busy" and "no buffer" say when to try again (`protocol.waiting`); so does a device that keeps asking for what it has
just been sent, because it is at work on something else: an image may be copied to another core before its last bytes
are taken. An answer of which nothing can be made is asked for again, unless that is what the device has to say.
"""

from __future__ import annotations

from typing import Any

from ..errors import MalformedReply
from ..messages.message import Reply
from ..protocol.waiting import Waiting
from .plan import TransferPlan
from .window import Window

# See above.
_STALLED_S = 60.0

# The device may take back what it had taken (it has been reset, say), but not again and again.
_FALLS = 16

# Answers in a row of which nothing can be made, before they are taken for what the device has to say.
_GARBLED = 16

# So many that are alike are no damage of a line, which is different each time: the device says just that.
_GARBLED_ALIKE = 4


class Headway:
    """Of one transfer. Times in seconds.

    Attributes:
        paused_until: nothing is sent before.
        notes: what there is to say of it, for whoever tells it.
        unread: answers in a row of which nothing could be made.
    """

    def __init__(self, plan: TransferPlan[Any]) -> None:
        self.paused_until = 0.0
        self.notes: list[str] = []
        self._plan = plan
        self._advanced_at = 0.0
        self._falls = 0
        self._stalls = 0
        self._busy = Waiting()
        self._stalled = Waiting(_STALLED_S)
        self.unread = 0
        self._alike: tuple[bytes, int] = (b"", 0)  # the last of them, and how often in a row

    def begin(self, now: float) -> None:
        self._advanced_at = now

    def held(self, seconds: float) -> None:
        """For so long nothing was to happen, which counts for nothing."""
        self._advanced_at += seconds

    def answered(self, done: int, setbacks: int, window: Window[Any], now: float) -> None:
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
        if self._falls > _FALLS or silent_s > max(_STALLED_S, _FALLS * window.rto_s):
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
