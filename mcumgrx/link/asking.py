"""`Asking`: a request that somebody waits for, from its first attempt to the answer or the end of all patience.

Each attempt is a `Call`. Not here: what the answer says, and whether that is a reason to ask once more.
"""

from __future__ import annotations

import asyncio
import logging
import math

from ..errors import McumgrError, RequestTimeout
from ..messages.message import Reply, Request
from .call import Call
from .link import Link

log = logging.getLogger("mcumgrx.link")

# A line that damages every answer is not only dirty: after so many the rest of the time-out is waited for.
_MOST_DAMAGED = 8

_NEVER = math.inf


class Asking:
    """One request and its answer.

    Arguments:
        timeout_s: seconds for the answer to one attempt, from when the link can have sent it.

    Attributes:
        version: in which the answer was asked for.
        may_have_arrived: the device may have got it, at least once.
    """

    __slots__ = (
        "_calls",
        "_damaged",
        "_due",
        "_error",
        "_has_left",
        "_link",
        "_news",
        "_reply",
        "_resent",
        "may_have_arrived",
        "request",
        "timeout_s",
        "version",
    )

    def __init__(self, request: Request, timeout_s: float) -> None:
        self.request = request
        self.timeout_s = timeout_s
        self.version = 0
        self.may_have_arrived = False

    async def ask(self, link: Link, attempts: int, version: int | None = None) -> Reply:
        """The answer; `version`: asked for in this one only, which otherwise is for `VersionChoice` to say.

        Raises `RequestTimeout`, and what ends the link.
        """
        self._link = link
        # One for all attempts: the late answer to the first is as good as that to the second.
        self._reply: Reply | None = None
        self._error: McumgrError | None = None
        self._calls: list[Call] = []
        slots = link.slots
        try:
            for attempt in range(attempts):
                speaks = link.versions.for_attempt(attempt, attempts) if version is None else version
                if slots.full:
                    await slots.enter()
                else:
                    slots.enter_now()
                self._resent = 0
                try:
                    if self._reply is not None:
                        return self._reply  # while it waited for its turn
                    until = self._send(speaks).put_at + self.timeout_s
                    await self._news
                    while self._reply is None and self._is_damaged(until):
                        slots.leave()  # as far as is known, it takes up no place any more: the next one does
                        slots.enter_now()
                        self._send(speaks)
                        await self._news
                finally:
                    slots.leave_for_others()
                if self._reply is not None:
                    return self._reply
                link.versions.silent(speaks)
                self._log_silence(attempt, attempts)
        finally:
            for call in self._calls:
                link.forget(call)
                call.owner = None
                self.may_have_arrived |= call.may_have_arrived
        raise self._silence(link, attempts)

    def _send(self, version: int) -> Call:
        """Send it, and see to it that `_news` has a result when there is an answer, or nothing more to wait for."""
        link = self._link
        self._has_left = self._damaged = False
        self._due = _NEVER
        self._news: asyncio.Future[None] = link.loop.create_future()
        call = link.send(self.request, version, self)
        self._calls.append(call)
        if not self._has_left:
            self._due = link.outbox.stuck_at(call, self.timeout_s)
            link.look_at(self._due)
        return call

    def _is_damaged(self, until: float) -> bool:
        """Whether an answer has come damaged, so that it is sent again. Raises what the link has failed with."""
        if self._error is not None:
            raise self._error
        self._resent += 1
        return self._damaged and self._link.loop.time() < until

    def _wake(self) -> None:
        self._due = _NEVER
        if not self._news.done():
            self._news.set_result(None)

    # -- what the link tells -------------------------------------------------------------------------------------------

    def left(self, call: Call) -> None:
        """See `Owner`. Its time begins now."""
        if not self._has_left:
            self._has_left = True
            link = self._link
            self._due = link.loop.time() + link.outbox.queued_s() + self.timeout_s
            link.look_at(self._due)

    def answered(self, call: Call, reply: Reply) -> None:
        if self._reply is None:
            self._reply, self.version = reply, call.version
            self._wake()

    def failed(self, call: Call, error: McumgrError) -> None:
        self._error = error
        self._wake()

    def ended(self, reason: McumgrError) -> None:
        self._error = reason
        self._wake()

    def garbled(self, count: int) -> None:
        sees_damage = self._has_left and self.request.repeatable and self._resent < _MOST_DAMAGED
        if sees_damage and not self._news.done():
            self._damaged = True
            self._wake()

    def look(self, now: float) -> float:
        """See `Owner`. Until the link has taken the request it may be the link that is stuck."""
        if self._due > now:
            return self._due
        if not self._has_left:
            call = self._calls[-1]
            self._due = self._link.outbox.stuck_at(call, self.timeout_s)
            if self._due > now:
                return self._due
            self._error = self._stuck(now - call.put_at)
        else:
            for call in self._calls:
                self._link.time_out(call)
        self._wake()
        return _NEVER

    # -- what there is to say ------------------------------------------------------------------------------------------

    def _log_silence(self, attempt: int, attempts: int) -> None:
        what, timeout_s = self.request.what, self.timeout_s
        log.info("no answer to the %s in %g s (attempt %d of %d)", what, timeout_s, attempt + 1, attempts)

    def _stuck(self, seconds: float) -> RequestTimeout:
        return RequestTimeout(
            f"the link has not taken the {self.request.what} within {seconds:.1f} s",
            what=self.request.what,
            timeout_s=self.timeout_s,
            hint="the link holds it up, not the device: its flow control, another program, or a line that is much "
            "slower than said",
        )

    def _silence(self, link: Link, attempts: int) -> RequestTimeout:
        times = "" if attempts == 1 else f", asked {attempts} times"
        more, hint = link.silence()
        link.silent_at = link.loop.time()
        return RequestTimeout(
            f"no answer to the {self.request.what} within {self.timeout_s:g} s{times}{more}",
            what=self.request.what,
            timeout_s=self.timeout_s,
            attempts=attempts,
            hint=hint,
        )
