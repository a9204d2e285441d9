"""`Link`: one opening of a transport, and all that is on its way over it.

It owns the reader, the outbox, the one table of calls, the places for requests in flight, the device's text, and the
end, of which everybody hears who has something on the way. Not here: what a request means, whether it is sent again.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import ConnectFailed, LinkLost, McumgrError, PluginError
from ..messages.message import Request
from ..protocol.framing import Framing
from ..transport import Flow, Limits, Transport
from .call import ANSWERED, GIVEN_UP, Call, Owner
from .outbox import Outbox
from .slots import Slots
from .table import Table
from .text import DeviceText
from .transport_code import asking, calling, fault_of, hears, stands_for, told
from .version import VersionChoice

log = logging.getLogger("mcumgrx.link")

# A transport is told how long it may take to open; so much longer it is waited for, for what it has to clean up.
_OPEN_GRACE_S = 5.0
_CANCEL_TIMEOUT_S = 1.0

# BlueZ takes 2.7 s to disconnect; a close that takes longer than this is given up, so that nobody waits for ever.
_CLOSE_TIMEOUT_S = 10.0

# A timer may fire a clock tick early.
_TICK_S = 1e-6

_NEVER = math.inf


class Link:
    """One transport, opened once.

    Arguments:
        in_flight: how many requests may wait for answers at once, where nobody claims more (`slots`).
        on_text: gets what the device prints.

    Attributes:
        versions: which version of SMP to speak, by what has been answered so far.
        heard_at: when the device was last heard, on the clock of the loop; None before the first time.
        silent_at: when a request was last given up because no answer came.
        outbox: what is on its way into it, and how long that takes.
        users: who hears of damage and of the end beside the owners of calls.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        in_flight: int = 1,
        on_text: Callable[[str], None] | None = None,
        versions: VersionChoice | None = None,
    ) -> None:
        self.transport = transport
        self.slots = Slots(in_flight)
        self.text = DeviceText(on_text)
        self.versions = VersionChoice() if versions is None else versions
        self.heard_at: float | None = None
        self.silent_at = -_NEVER
        self.users: list[Owner] = []
        self.outbox = Outbox(transport, self._failed)
        self.loop: asyncio.AbstractEventLoop  # these from `open` on
        self._framing: Framing
        self._table: Table
        self._reader: asyncio.Task[None]
        self._ended: asyncio.Future[McumgrError] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._hears_answers = hears(transport, "answered")
        self._hears_unasked = hears(transport, "unasked")
        self._garbled = self._unasked = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = _NEVER

    def again(self) -> Link:
        """Another one over the same transport, with what is known of the device. Open it when this one is closed."""
        return Link(self.transport, in_flight=self.slots.usual, on_text=self.text.listener, versions=self.versions)

    # -- opening and closing -------------------------------------------------------------------------------------------

    @property
    def was_opened(self) -> bool:
        return self._ended is not None

    @property
    def is_open(self) -> bool:
        """Whether it is open, as far as is known."""
        return self._ended is not None and not self._ended.done()

    async def open(self, timeout_s: float) -> None:
        """Open it; nothing is sent yet. Raises `DeviceNotFound` or `ConnectFailed`."""
        transport = self.transport
        # A task of its own: a transport that neither returns nor lets itself be cancelled holds nobody up.
        opening = asyncio.create_task(
            calling(transport, "open", lambda: transport.open(timeout_s)), name="mcumgrx transport open"
        )
        try:
            done, _ = await asyncio.wait([opening], timeout=timeout_s + _OPEN_GRACE_S)
            if not done:
                raise ConnectFailed(
                    f"the link was not open after {timeout_s + _OPEN_GRACE_S:.0f} s",
                    hint="try again; if it happens each time, the link's driver or plugin hangs",
                )
            opening.result()
            self._framing = asking(transport, "framing", transport.framing)
            self._table = Table(self._framing)
            if stands_for(transport, "deliver_to", "receive"):
                asking(transport, "deliver_to", lambda: transport.deliver_to(self._delivered))
        except BaseException:
            opening.cancel()
            await asyncio.shield(self._give_back(opening))
            raise
        self.loop = asyncio.get_running_loop()
        self._ended = self.loop.create_future()
        self._reader = asyncio.create_task(self._read(), name="mcumgrx link reader")

    async def close(self) -> None:
        """Close it, if it is open; whoever still waits for something ends with `LinkLost`. Harmless when repeated."""
        if self._ended is None:
            return
        self.check_loop()
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="mcumgrx link close")
        await asyncio.shield(self._closing)

    async def wait_ended(self) -> McumgrError:
        """Wait until it ends, however it does; returns the reason."""
        if self._ended is None:
            raise RuntimeError("the client is not open")
        self.check_loop()
        return await asyncio.shield(self._ended)

    def end(self, reason: McumgrError) -> None:
        """It is gone: wake everybody, each with an error of its own."""
        if self._ended is None or self._ended.done():
            return
        self._ended.set_result(reason)
        for owner in self._owners():
            owner.ended(_copy(reason))
        self.slots.open()
        if self._timer is not None:
            self._timer.cancel()

    def check(self) -> None:
        """Raises what has ended it, and `RuntimeError` where it was never open, or is used in another loop."""
        if self._ended is None:
            raise RuntimeError("the client is not open")
        self.check_loop()
        if self._ended.done():
            raise _copy(self._ended.result())

    def check_loop(self) -> None:
        """All of a link happens in one event loop; in another one its futures would never wake anybody."""
        if self._ended is not None and asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(
                "this client belongs to another event loop: it can be used only in the one in which it was opened "
                "(asyncio.run makes a new one each time; in notebooks and fixtures keep to one)"
            )

    async def _close(self) -> None:
        self.end(LinkLost("the link was closed"))
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self.outbox.close()
        await self._close_transport()

    async def _give_back(self, opening: asyncio.Task[None]) -> None:
        """After an `open` that failed, or was given up and may take a moment to end."""
        await asyncio.wait([opening], timeout=_CANCEL_TIMEOUT_S)
        if opening.done() and not opening.cancelled():
            opening.exception()  # seen
        await self._close_transport()

    async def _close_transport(self) -> None:
        # A task of its own, as for opening. The contract says that it never raises; then it is as good as closed.
        closing = asyncio.create_task(calling(self.transport, "close", self.transport.close))
        done, _ = await asyncio.wait([closing], timeout=_CLOSE_TIMEOUT_S)
        if not done:
            closing.cancel()
            log.warning("%r did not close within %g s", self.transport, _CLOSE_TIMEOUT_S)
        elif not closing.cancelled() and (error := closing.exception()) is not None:
            log.warning("%s", error)

    # -- what the transport says of itself -----------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """What it can carry now."""
        try:
            limits = self.transport.limits
        except BaseException as error:
            raise told(self.transport, "limits", error) from None
        if limits.__class__ is not Limits and not isinstance(limits, Limits):
            raise fault_of(self.transport, "limits", TypeError(f"it is {type(limits).__name__}, not Limits"))
        return limits

    @property
    def flow(self) -> Flow:
        """What it allows to be on its way at once."""
        return asking(self.transport, "flow", lambda: self.transport.flow)

    @property
    def is_quiet(self) -> bool:
        """The device has answered nothing at all, or has not been heard since it left a request unanswered."""
        return not self.versions.answers or self.heard_at is None or self.heard_at < self.silent_at

    def silence(self) -> tuple[str, str | None]:
        """What there is to say of a device that has not answered: an addition to the message, and a hint."""
        if self._table.echoed:
            return (
                ": all that came back is the request itself",
                "the other end repeats what it gets and does not read it as SMP: a terminal or shell with its echo on, "
                "or a cable whose two data lines are joined",
            )
        hint = None if self.heard_at is not None else lambda: self.transport.silence_hint
        return "", hint and asking(self.transport, "silence_hint", hint)

    # -- sending -------------------------------------------------------------------------------------------------------

    def send(self, request: Request, version: int, owner: Owner, item: Any = None) -> Call:
        """Give `request` a number and hand it to the transport; `owner` is told what becomes of it.

        Raises `MessageTooLarge`, and what has ended the link.
        """
        if self._ended is None or self._ended.done():
            self.check()
        table, write_bytes, now = self._table, self.limits.write, self.loop.time()
        try:
            call = table.open(request, version, owner, item, write_bytes=write_bytes, now=now)
        except Exception as error:
            raise told(self.transport, "framing", error) from None
        try:
            self.outbox.put(call)
        except BaseException:
            self.forget(call)
            call.owner = None
            raise
        return call

    def forget(self, call: Call) -> None:
        """Nobody waits for its answer any more. What the link has not begun is not sent."""
        if call.state is ANSWERED or call.state is GIVEN_UP:
            return
        if self.outbox.withdraw(call):
            self._table.withdraw(call)
        else:
            self._table.give_up(call, self.loop.time())

    def time_out(self, call: Call) -> None:
        """No answer is expected any more; one that comes all the same still goes to its owner."""
        if self._table.time_out(call, self.loop.time()):
            self.give_up()

    @property
    def calls(self) -> list[Call]:
        """All that are on their way, and those that were given up and rest."""
        return list(self._table)

    def give_up(self) -> None:
        """Nothing that is on its way is expected to be answered any more."""
        self._tell("framing", self._framing.reset)
        self._tell("given_up", self.transport.given_up)

    # -- time ----------------------------------------------------------------------------------------------------------

    def look_at(self, when: float) -> None:
        """See to it that owners are looked at then (`Owner.look`), or earlier.

        One timer for all, which is left where it is when an answer comes: it costs a request next to nothing.
        """
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self.loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer, self._timer_at = None, _NEVER
        if self.is_open:
            now = self.loop.time() + _TICK_S
            when = min((owner.look(now) for owner in self._owners()), default=_NEVER)
            if when < _NEVER:
                self.look_at(when)

    def _owners(self) -> list[Owner]:
        """Everybody who has something on the way."""
        found = {id(owner): owner for owner in self.users}
        for call in self._table:
            if call.owner is not None:
                found[id(call.owner)] = call.owner
        return list(found.values())

    # -- what arrives --------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        transport = self.transport
        try:
            while True:
                chunk = await calling(transport, "receive", transport.receive)
                if not isinstance(chunk, (bytes, bytearray, memoryview)):
                    wrong = TypeError(f"it returned {type(chunk).__name__}, not bytes")
                    raise fault_of(transport, "receive", wrong)
                if not chunk:
                    await asyncio.sleep(0)  # against the contract; at least nobody is held up
                    continue
                self._take(chunk)
        except Exception as error:
            self._failed(error)

    def _delivered(self, chunk: bytes) -> None:
        """See `Transport.deliver_to`."""
        if self._ended is not None and not self._ended.done():
            try:
                self._take(chunk)
            except Exception as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, (LinkLost, PluginError)):
            self.end(error)
        elif isinstance(error, McumgrError):
            self.end(LinkLost(f"the link failed: {error}", hint=error.hint))
        else:  # a mistake of ours: still nobody may hang
            log.error("the link is given up", exc_info=error)
            self.end(LinkLost(f"the link was given up: {error!r}"))

    def _take(self, chunk: bytes) -> None:
        """Pass on what has come."""
        table, framing = self._table, self._framing
        self.heard_at = self.loop.time()
        try:
            found, garbled = table.receive(chunk), framing.garbled
        except Exception as error:
            raise fault_of(self.transport, "framing", error) from error
        if garbled != self._garbled:
            count, self._garbled = garbled - self._garbled, garbled
            self._answers_garbled(count)
        if self._hears_answers:
            for call, _ in found:
                self._tell("answered", partial(self.transport.answered, call.writes))
        if self._hears_unasked and table.ignored + framing.discarded != self._unasked:
            self._unasked = table.ignored + framing.discarded
            self._tell("unasked", self.transport.unasked)
        versions = self.versions
        for call, reply in found:
            if not versions.certain or call.version != versions.current:
                versions.answered(call.version, reply)
            owner = call.owner
            if owner is not None:
                owner.answered(call, reply)
        try:
            text = framing.take_text()
        except Exception as error:
            raise fault_of(self.transport, "framing", error) from error
        if text:
            self.text.feed(text)

    def _tell(self, what: str, tell: Callable[[], None]) -> None:
        """Tell the transport, or its framing, something. If its code fails at that, it is the end."""
        try:
            asking(self.transport, what, tell)
        except McumgrError as error:
            self._failed(error)

    def _answers_garbled(self, count: int) -> None:
        """So many answers have come of which nothing can be read; to which requests is not known."""
        for _ in range(count):
            self.slots.vacate()
        for owner in self._owners():
            owner.garbled(count)


def _copy(reason: McumgrError) -> McumgrError:
    """The same for one more who waits, so that tracebacks do not mix."""
    copied = copy.copy(reason)
    copied.__cause__, copied.__traceback__ = reason, None
    return copied
