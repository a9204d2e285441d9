"""`Outbox`: calls on their way into the link, one after the other.

Here: the order of sending, withdrawing what the link has not begun, how long the link may take for it. Not here: what a
message means, and answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from functools import partial

from ..errors import LinkLost, McumgrError, PluginError
from ..transport import Transport
from .call import LEAVING, QUEUED, SENT, Call
from .transport_code import calling, hears, name_of, stands_for, told

log = logging.getLogger("mcumgrx.link")

# No link is slower: 300 baud. So long the bytes of a message may take before the link is called stuck.
_SLOWEST_BYTES_S = 30.0

# What a message takes on the link beside its own bytes, at most: console framing makes four characters of three.
_FRAMED = 1.4

# A link that has told nothing of its speed with so many messages will not do so any more.
_TELLING = 32

# A transport that says its queue takes longer is not believed.
_MOST_QUEUED_S = 600.0


class Outbox:
    """What has been given to send over one open link.

    Arguments:
        failed: called when sending shows that the link has ended, that the transport is broken, or an owner.
    """

    def __init__(self, transport: Transport, failed: Callable[[Exception], None]) -> None:
        self._transport = transport
        self._failed = failed
        self._offers = stands_for(transport, "offer", "send")
        self._knows_queue = hears(transport, "queued_s")
        self._waiting: deque[Call] = deque()
        self._leaving: Call | None = None
        self._sender: asyncio.Task[None] | None = None
        self._moved_at = -math.inf  # when the link last took a message, or began one
        self._doubted = False
        self._to_learn = _TELLING if self._knows_queue else 0  # messages from which its speed may still be learned
        self._byte_s = 0.0  # on the link, by its own estimate; 0 as long as that is not known

    def put(self, call: Call) -> None:
        """Hand it to the link, behind those that wait already. Its owner is told when it has left.

        Raises what ends the link, where that shows at once.
        """
        if self._sender is None:
            if self._offers and self._offer(call):
                return
            self._sender = asyncio.create_task(self._send_all(), name="mcumgrx link sender")
        self._waiting.append(call)

    def withdraw(self, call: Call) -> bool:
        """Do not send it any more; false if the link has begun, or has it already."""
        if call.state is not QUEUED or call not in self._waiting:
            return False
        self._waiting.remove(call)
        return True

    def stuck_at(self, call: Call, patience_s: float) -> float:
        """When it has to be said that the link does not take `call`, if nothing moves until then.

        Waiting for one's turn is no fault of the link, and a slow line takes its time for every byte.
        """
        sending = self._leaving or call
        return max(call.put_at, self._moved_at) + self.queued_s() + patience_s + sending.size / _SLOWEST_BYTES_S

    def queued_s(self) -> float:
        """Estimated seconds until all that the link has taken has left, as far as that is to be believed."""
        if not self._knows_queue:
            return 0.0
        try:
            seconds = self._transport.queued_s()
            if seconds == 0.0:
                return 0.0
            if 0.0 < seconds <= _MOST_QUEUED_S:
                return float(seconds)
            said = f"says that what it has queued takes {seconds!r} s"
        except Exception as error:
            said = f"cannot say how long what it has queued takes ({error!r})"
        if not self._doubted:
            self._doubted = True
            log.warning("the link (%s) %s: that is not believed, nor waited for", name_of(self._transport), said)
        return 0.0

    def air_s(self, size: int) -> float:
        """Estimated seconds that a message of `size` bytes takes; 0 where that is not known."""
        return self._byte_s * size * _FRAMED

    async def close(self) -> None:
        """Stop sending; what waits is not sent."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)

    def _offer(self, call: Call) -> bool:
        learns = self._to_learn > 0
        before_s = self.queued_s() if learns else 0.0
        try:
            taken = self._transport.offer(call.writes)
        except BaseException as raised:
            error = told(self._transport, "offer", raised)
            self._report(error)
            raise error from None
        if taken:
            if learns:
                self._byte_s = max(0.0, self.queued_s() - before_s) / max(1, call.size)
                self._to_learn = 0 if self._byte_s else self._to_learn - 1
            call.may_have_arrived = True
            _left(call)
        return taken

    async def _send_all(self) -> None:
        """Send what waits, one message after the other, until nothing does."""
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                self._leaving = call = self._waiting.popleft()
                call.state = LEAVING
                call.may_have_arrived = True
                self._moved_at = loop.time()
                try:
                    await calling(self._transport, "send", partial(self._transport.send, call.writes))
                except McumgrError as error:
                    call.may_have_arrived = self._report(error)
                    if call.owner is not None:
                        call.owner.failed(call, error)
                else:
                    self._moved_at = loop.time()
                    _left(call)
        except Exception as error:
            self._failed(error)
        finally:
            self._sender = self._leaving = None
            self._waiting.clear()

    def _report(self, error: McumgrError) -> bool:
        """Whether it is the end; otherwise a message was not sent, and that is all."""
        is_end = isinstance(error, (LinkLost, PluginError))
        if is_end:
            self._failed(error)
        return is_end


def _left(call: Call) -> None:
    """The link has all of it."""
    if call.state is QUEUED or call.state is LEAVING:  # an answer may be quicker
        call.state = SENT
    if call.owner is not None:
        call.owner.left(call)
