"""`Outbox`: messages on their way into the link, one after the other, and whether each has left.

Here: the order of sending, withdrawing what the link has not begun, how long the link may take for it. Not here: what a
message means, and answers.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from enum import Enum
from functools import partial

from .errors import LinkLost, McumgrError, PluginError
from .transport import Transport
from .transport_code import calling, name_of, told

__all__ = ["Call", "Outbox"]

log = logging.getLogger("mcumgrx.client")

# No link is slower: 300 baud. So long the bytes of a message may take before the link is called stuck.
_SLOWEST_BYTES_S = 30.0

# A transport that says its queue takes longer is not believed.
_MOST_QUEUED_S = 600.0


class Place(Enum):
    """Where a message is."""

    WAITING = "waiting"  # in front of the link, which has not begun it
    LEAVING = "leaving"  # the link is taking it, and cannot be stopped half way
    LEFT = "left"  # the link has it all
    WITHDRAWN = "withdrawn"  # nobody wants it sent any more, and it never was
    FAILED = "failed"  # the link did not take it: `error`


class Call:
    """One message from its birth until the link has it.

    `left` is called when the link has taken it all, `failed` when it does not take it; each at most once, and neither
    for a message that was withdrawn.
    """

    __slots__ = ("_done", "error", "failed", "left", "place", "put_at", "size", "writes")

    def __init__(
        self,
        writes: list[bytes],
        put_at: float,
        left: Callable[[], None] | None,
        failed: Callable[[McumgrError], None] | None,
    ) -> None:
        self.writes = writes
        self.size = sum(map(len, writes))
        self.put_at = put_at
        self.place = Place.WAITING
        self.error: McumgrError | None = None
        self.left = left
        self.failed = failed
        self._done: asyncio.Future[None] | None = None

    @property
    def may_have_arrived(self) -> bool:
        """Whether any of it may have got to the device."""
        return self.place in (Place.LEAVING, Place.LEFT) or self.error is not None

    def leaving(self) -> asyncio.Future[None] | None:
        """Done when the link has it, or does not take it; None if that is so already."""
        if self.place not in (Place.WAITING, Place.LEAVING):
            return None
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        return self._done

    def end(self, place: Place, error: McumgrError | None = None) -> None:
        self.place, self.error = place, error
        if self._done is not None and not self._done.done():
            self._done.set_result(None)
        if place is Place.LEFT and self.left is not None:
            self.left()
        if error is not None and self.failed is not None:
            self.failed(error)


class Outbox:
    """What has been given to send over one open link.

    Arguments:
        ended: called when sending shows that the link has ended, or that the transport is broken.
    """

    def __init__(self, transport: Transport, ended: Callable[[McumgrError], None]) -> None:
        self._transport = transport
        self._ended = ended
        self._waiting: deque[Call] = deque()
        self._leaving: Call | None = None
        self._sender: asyncio.Task[None] | None = None
        self._moved_at = -math.inf  # when the link last took a message, or began one
        self._doubted = False
        self.byte_s = 0.0
        """Seconds that the link takes for a byte, by its own estimate; 0 as long as that is not known."""

    def put(
        self,
        writes: list[bytes],
        *,
        left: Callable[[], None] | None = None,
        failed: Callable[[McumgrError], None] | None = None,
    ) -> Call:
        """Hand a message to the link, behind those that wait already.

        Raises what ends the link, where that shows at once.
        """
        loop = asyncio.get_running_loop()
        call = Call(writes, loop.time(), left, failed)
        if self._sender is None:
            before_s = self.queued_s() if not self.byte_s else 0.0
            if self._offer(writes):
                if not self.byte_s and call.size:
                    self.byte_s = max(0.0, self.queued_s() - before_s) / call.size
                call.end(Place.LEFT)
                return call
            self._waiting.append(call)
            self._sender = asyncio.create_task(self._send_all(), name="mcumgrx client sender")
        else:
            self._waiting.append(call)
        return call

    def withdraw(self, call: Call) -> bool:
        """Do not send it any more; false if the link has begun, or has it already."""
        if call.place is not Place.WAITING:
            return False
        self._waiting.remove(call)
        call.end(Place.WITHDRAWN)
        return True

    def stuck_at(self, call: Call, patience_s: float) -> float:
        """When it has to be said that the link does not take `call`, if nothing moves until then.

        Waiting for one's turn is no fault of the link, and a slow line takes its time for every byte.
        """
        sending = self._leaving or call
        return max(call.put_at, self._moved_at) + self.queued_s() + patience_s + sending.size / _SLOWEST_BYTES_S

    def queued_s(self) -> float:
        """Estimated seconds until all that the link has taken has left, as far as that is to be believed."""
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

    async def close(self) -> None:
        """Stop sending; what waits is not sent."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)

    def _offer(self, writes: list[bytes]) -> bool:
        try:
            return self._transport.offer(writes)
        except BaseException as raised:
            error = told(self._transport, "offer", raised)
            self._report(error)
            raise error from None

    async def _send_all(self) -> None:
        """Send what waits, one message after the other, until nothing does."""
        loop = asyncio.get_running_loop()
        call: Call | None = None
        try:
            while self._waiting:
                self._leaving = call = self._waiting.popleft()
                call.place = Place.LEAVING
                self._moved_at = loop.time()
                try:
                    await calling(self._transport, "send", partial(self._transport.send, call.writes))
                except McumgrError as error:
                    self._report(error)
                    call.end(Place.FAILED, error)
                else:
                    self._moved_at = loop.time()
                    call.end(Place.LEFT)
        finally:
            self._sender = self._leaving = None
            for other in ([call] if call is not None and call.place is Place.LEAVING else []) + list(self._waiting):
                other.end(Place.FAILED if other is call else Place.WITHDRAWN)
            self._waiting.clear()

    def _report(self, error: McumgrError) -> None:
        if isinstance(error, (LinkLost, PluginError)):
            self._ended(error)
