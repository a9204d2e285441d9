"""`Client`: typed requests over one open link, with time-outs, repeats and an end that reaches every waiter.

It owns the link while it is open: one task reads, any number of tasks may request. What a command means is the
group's business, what the bytes mean the protocol's, how they travel the transport's.
"""

from __future__ import annotations

import asyncio
import codecs
import copy
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

from .errors import (
    ConnectFailed,
    DeviceError,
    DeviceNotFound,
    LinkLost,
    MalformedReply,
    McumgrError,
    MessageTooLarge,
    PluginError,
    RequestTimeout,
    WrongDevice,
)
from .group import Group
from .link.profile import LinkProfile
from .outbox import Call, Outbox
from .protocol.exchange import Exchange
from .protocol.header import Version
from .protocol.message import Command, Reply, Request, SmpError
from .protocol.standard import Params, ReadUsableParams
from .protocol.version import VersionChoice
from .protocol.waiting import Waiting
from .slots import Slots
from .transport import Flow, Limits, Transport
from .transport_code import asking, calling, fault_of, told

__all__ = ["DEFAULT_TIMEOUT_S", "Client", "Stream", "StreamCall"]

log = logging.getLogger("mcumgrx.client")
device_log = logging.getLogger("mcumgrx.device")

R = TypeVar("R")
G = TypeVar("G")
T = TypeVar("T")

# Ordinary requests: generous for BLE at long connection intervals; commands that take longer say so themselves.
DEFAULT_TIMEOUT_S = 5.0

# The buffer query is the first request on many links: short, so that a device without it costs little.
_PARAMS_TIMEOUT_S = 1.5
_PARAMS = "buffers"

# For a question that this device has left unanswered before. It has answered others by then, in less.
_SILENT_TIMEOUT_S = 0.5

# A transport is told how long it may take to open; so much longer it is waited for, for what it has to clean up.
_OPEN_GRACE_S = 5.0
_CANCEL_TIMEOUT_S = 1.0

# For a link that was open a moment ago.
_REOPEN_TIMEOUT_S = 10.0

# Every server takes so much; whether it takes more is worth a question before the request is lost on its way.
_SURELY_FITS_BYTES = 128

# Whether a device speaks version 2 all the same, which has just answered version 1.
_TRIAL_TIMEOUT_S = 1.0

# What a message takes on the link beside its own bytes, at most: console framing makes four characters of three.
_FRAMED = 1.4

# BlueZ takes 2.7 s to disconnect; a close that takes longer than this is given up, so that nobody waits for ever.
_CLOSE_TIMEOUT_S = 10.0

# A line that damages every answer is not only dirty: after so many the rest of the time-out is waited for.
_MOST_DAMAGED = 8

# A device that prints without ever ending a line is logged in pieces of this many characters.
_MAX_LOG_LINE = 4096


class Client:
    """A connected device.

    ::

        async with Client(transport) as client:
            print(await client.request(Echo("hello")))

    Arguments:
        timeout_s: seconds for an answer, where the caller says nothing else. Default: 5, and more for commands that
            take longer; where it is given, it holds for those as well.
        repeats: how often a request is sent again when no answer comes, if repeating it is safe.
        in_flight: how many requests may wait for answers at once; further ones queue here. A device has few buffers,
            and Zephyr 4.4 crashes on a serial line when one too many arrives, so more than 1 is for who knows.
        groups: finds the class for a role of `contracts`; sessions pass the registry's.
        on_text: gets what the device prints beside SMP, as text. Default: the log `mcumgrx.device`.
        profile: what is known of the device on this link; transfers add to it. Default: nothing so far.
        on_reopened: with it, a link that dies before the device has said anything (Bluetooth LE: the connection is
            made, and its first packet ends it) is opened once more for a request that is safe to repeat; called then,
            to look whether it is the same device. Default: the request ends with `LinkLost`.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float | None = None,
        repeats: int = 2,
        in_flight: int = 1,
        groups: Callable[[type], type[Group]] | None = None,
        on_text: Callable[[str], None] | None = None,
        profile: LinkProfile | None = None,
        on_reopened: Callable[[], None] | None = None,
    ) -> None:
        self.timeout_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        self._is_bounded = timeout_s is not None
        self.repeats = repeats
        self.last_heard_s: float | None = None
        self._transport = transport
        self._slots = Slots(in_flight)
        self._find_group = groups
        self._groups: dict[type, Group] = {}
        self._on_text = on_text
        self._exchange: Exchange | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reader: asyncio.Task[None] | None = None
        self._outbox = Outbox(transport, self._end)
        self._waiters: dict[int, Callable[[Reply], None]] = {}
        self._asking: set[asyncio.Future[tuple[Reply, Version]]] = set()
        self._streams: list[Stream[Any]] = []
        self._ended: asyncio.Future[McumgrError] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._on_reopened = on_reopened
        self._reopening = asyncio.Lock()
        self._versions = VersionChoice()
        self._garbled = 0
        self._damage: asyncio.Future[None] | None = None  # until the next answer that comes damaged
        self._params_lock = asyncio.Lock()
        self._silences = 0  # questions that were left unanswered on this connection
        self.profile = LinkProfile() if profile is None else profile
        self._unlogged = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __repr__(self) -> str:
        state = "connected" if self.connected else "lost" if self._ended is not None else "not open"
        return f"<Client {self._transport!r} {state}>"

    # -- opening and closing ---------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the link is open, as far as is known."""
        return self._ended is not None and not self._ended.done()

    @property
    def limits(self) -> Limits:
        """What the link can carry now."""
        try:
            limits = self._transport.limits
        except BaseException as error:
            raise told(self._transport, "limits", error) from None
        if limits.__class__ is not Limits and not isinstance(limits, Limits):
            raise fault_of(self._transport, "limits", TypeError(f"it is {type(limits).__name__}, not Limits"))
        return limits

    async def open(self, timeout_s: float = 10.0) -> None:
        """Open the link; nothing is sent yet. Raises `DeviceNotFound` or `ConnectFailed`."""
        if self._ended is not None:
            raise RuntimeError("a client is opened once; make a new one to reconnect")
        await self._open(timeout_s)

    async def _open(self, timeout_s: float) -> None:
        # A task of its own: a transport that neither returns nor lets itself be cancelled holds nobody up.
        opening = asyncio.create_task(
            calling(self._transport, "open", lambda: self._transport.open(timeout_s)), name="mcumgrx transport open"
        )
        try:
            done, _ = await asyncio.wait([opening], timeout=timeout_s + _OPEN_GRACE_S)
            if not done:
                raise ConnectFailed(
                    f"the link was not open after {timeout_s + _OPEN_GRACE_S:.0f} s",
                    hint="try again; if it happens each time, the link's driver or plugin hangs",
                )
            opening.result()
            self._exchange = Exchange(asking(self._transport, "framing", self._transport.framing))
        except BaseException:
            opening.cancel()
            await asyncio.shield(self._give_back(opening))
            raise
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._reader = asyncio.create_task(self._read(), name="mcumgrx client reader")

    async def _open_again(self, exchange: Exchange, reason: LinkLost) -> None:
        """The link that `exchange` ran over has died before it carried anything: open it once more.

        Raises `reason` if that has been done already, and with what came of it where it does not work.
        """
        async with self._reopening:
            if self._exchange is not exchange:
                return  # for another request
            look, self._on_reopened = self._on_reopened, None
            if look is None or self._closing is not None:
                raise reason
            log.warning("%s, before it has carried anything: connecting once more", reason)
            if self._reader is not None:
                self._reader.cancel()
                await asyncio.gather(self._reader, return_exceptions=True)
            await self._outbox.close()
            await self._close_transport()
            self._outbox = Outbox(self._transport, self._end)
            self._slots.close()
            try:
                await self._open(_REOPEN_TIMEOUT_S)
                look()
            except WrongDevice as error:
                self._end(LinkLost(error.message, address=error.address, hint=error.hint))
                raise
            except (DeviceNotFound, ConnectFailed) as error:
                reason.message += f"; connecting once more: {error.message}"
                raise reason from error
            if self._closing is not None:  # meanwhile
                self._end(reason)
                self._reader.cancel()
                await self._close_transport()
                raise reason

    async def close(self) -> None:
        """Close the link, if open; every request that still waits ends with `LinkLost`. Harmless when repeated."""
        if self._ended is None:
            return
        self._check_loop()
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="mcumgrx client close")
        await asyncio.shield(self._closing)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def wait_lost(self) -> McumgrError:
        """Wait until the link ends, however it does; returns the reason: `LinkLost`, or what is wrong with its code."""
        if self._ended is None:
            raise RuntimeError("the client is not open")
        self._check_loop()
        return await asyncio.shield(self._ended)

    async def _close(self) -> None:
        self._end(LinkLost("the link was closed"))
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)
        await self._outbox.close()
        await self._close_transport()

    async def _give_back(self, opening: asyncio.Task[None]) -> None:
        """After an `open` that failed, or was given up and may take a moment to end."""
        await asyncio.wait([opening], timeout=_CANCEL_TIMEOUT_S)
        if opening.done() and not opening.cancelled():
            opening.exception()  # seen
        await self._close_transport()

    async def _close_transport(self) -> None:
        # A task of its own, as for opening. The contract says that it never raises; then it is as good as closed.
        closing = asyncio.create_task(calling(self._transport, "close", self._transport.close))
        done, _ = await asyncio.wait([closing], timeout=_CLOSE_TIMEOUT_S)
        if not done:
            closing.cancel()
            log.warning("%r did not close within %g s", self._transport, _CLOSE_TIMEOUT_S)
        elif not closing.cancelled() and (error := closing.exception()) is not None:
            log.warning("%s", error)

    # -- groups ----------------------------------------------------------------------------------------------------

    def group(self, kind: type[G]) -> G:
        """The group of this type: a `Group` class, or a role of `mcumgrx.contracts`.

        Raises `PluginError` when no plugin fills the role.
        """
        if kind not in self._groups:
            if issubclass(kind, Group):
                found: type[Group] = kind
            elif self._find_group is not None:
                found = self._find_group(kind)
            else:
                raise PluginError(f"no plugin supplies {kind.__name__}")
            self._groups[kind] = found(self)
        return cast(G, self._groups[kind])

    def time_for(self, usual_s: float | None) -> float:
        """Seconds to wait for an answer that may take `usual_s`: what is usual overrules no time that was asked for."""
        return self.timeout_s if usual_s is None or self._is_bounded else max(self.timeout_s, usual_s)

    # -- requests --------------------------------------------------------------------------------------------------

    async def request(self, command: Command[R], *, timeout_s: float | None = None, repeats: int | None = None) -> R:
        """Send `command` and return its typed result.

        Without an answer in `timeout_s` seconds, counted from when the link can have sent it, it is sent again up to
        `repeats` times, but only if the command is safe to repeat. A cancelled request leaves the client usable.

        A device that is busy has not carried it out, and is asked again for up to 30 s, whatever the request is.

        Raises `DeviceError` (the device said no), `RequestTimeout`, `LinkLost`, `MalformedReply`, `MessageTooLarge`,
        `PluginError` (the link's own code has failed). Where the request changes the device and may have been carried
        out all the same, the error says so in `may_be_done`.
        """
        if timeout_s is None:
            timeout_s = self.time_for(command.timeout_s)
        asked = _Asked(command.request())
        attempts = 1 + ((self.repeats if repeats is None else repeats) if asked.request.repeatable else 0)
        if self._exchange is None or self._on_reopened is None:
            self._open_exchange()
        self._check_size(asked.request)
        if asked.request.size > _SURELY_FITS_BYTES:
            await self.params()
        try:
            return await self._result(command, asked, timeout_s, attempts)
        except (RequestTimeout, LinkLost, MalformedReply, DeviceError) as error:
            if isinstance(error, MalformedReply):
                error.concerns(asked.request.what, error.payload)
            # An answer that did not fit was made after the work (Zephyr `smp_handle_single_req`).
            unknown = not isinstance(error, DeviceError) or error.says(SmpError.MESSAGE_SIZE)
            if asked.request.changes and asked.may_have_arrived and unknown:
                error.may_be_done = True
                error.message += "; the device may have carried it out all the same"
            raise

    async def _result(self, command: Command[R], asked: _Asked, timeout_s: float, attempts: int) -> R:
        """Ask, and ask again where the answer says that nothing was done, or nothing can be made of it."""
        busy = Waiting()
        turned = garbled = False
        while True:
            exchange = self._exchange
            try:
                reply, version = await self._ask(asked, timeout_s, attempts)
            except LinkLost as error:
                if exchange is None or not asked.request.repeatable or self.last_heard_s is not None:
                    raise
                await self._open_again(exchange, error)
                continue
            try:
                result = command.result(reply)
            except MalformedReply:
                if garbled or attempts == 1:
                    raise
                # A part of it may have got lost where nothing checks that (Bluetooth LE, raw UART): once more.
                garbled = True
                attempts -= 1
            except DeviceError as error:
                # The device has not executed it, so even what must not be repeated can be sent again.
                if error.says(SmpError.TOO_NEW if version is Version.V2 else SmpError.TOO_OLD) and not turned:
                    turned = True
                    self._versions.refused(version)
                    log.info("the device does not speak SMP version %d", version + 1)
                elif error.says(SmpError.BUSY):
                    await self._wait_while_busy(busy, asked.request.what, error)
                else:
                    raise
            else:
                await self._settle_version(asked.request, timeout_s)
                return result

    async def _wait_while_busy(self, busy: Waiting, what: str, error: DeviceError) -> None:
        """Pause before the request is sent again. Raises `error` when that has gone on for too long."""
        now = asyncio.get_running_loop().time()
        pause_s = busy.pause_s(now)
        if pause_s is None:
            error.hint = (
                f"it was asked again and again for {busy.patience_s:g} s: find out what it is doing, or try later"
            )
            raise error
        if busy.tell(now + pause_s):
            log.warning("the device is busy, and is asked for the %s again for up to %g s", what, busy.patience_s)
        await asyncio.sleep(pause_s)

    async def _settle_version(self, request: Request, timeout_s: float) -> None:
        """Where version 1 was answered and version 2 not so far: find out now, with a request that does no harm."""
        while self._versions.doubtful and not request.changes:
            try:
                await self._ask(_Asked(request), min(timeout_s, _TRIAL_TIMEOUT_S), 1, version=Version.V2)
            except RequestTimeout:
                continue  # which counts
        if not self._versions.certain and self._versions.current is Version.V1:
            log.info("the device leaves SMP version 2 unanswered, and is asked in version 1")

    async def params(self) -> Params | None:
        """The device's buffers, or None when it does not tell. Asked once per connection.

        An answer that makes no sense tells nothing: everything works with what every device has, if slower.
        """
        self._check_loop()
        profile = self.profile
        async with self._params_lock:
            if not profile.asked:
                loop = asyncio.get_running_loop()
                begin, params = loop.time(), None
                timeout_s, repeats = min(_PARAMS_TIMEOUT_S, self.timeout_s), 1
                if self._stays_silent(_PARAMS):
                    timeout_s, repeats = min(_SILENT_TIMEOUT_S, timeout_s), 0
                try:
                    params = await self.request(ReadUsableParams(), timeout_s=timeout_s, repeats=repeats)
                except (DeviceError, RequestTimeout, MalformedReply) as error:
                    log.info("no buffer sizes: %s", error)
                    self._note_silence(_PARAMS, isinstance(error, RequestTimeout))
                    if not isinstance(error, RequestTimeout):
                        profile.round_trip(loop.time() - begin)
                else:
                    profile.round_trip(loop.time() - begin)
                    self._note_silence(_PARAMS, False)
                profile.tells(params)
        return profile.params

    async def optional(self, what: str, ask: Callable[[], Awaitable[T]], patience_s: float) -> T | None:
        """See `contracts.Connection.optional`.

        MCUboot before 2023 and old Zephyr leave unanswered what they do not know. Such a question is asked twice; once
        where another one has stayed unanswered before, and more briefly where this one has, by this device. It is still
        asked then, because the bootloader and the next firmware go by the same name and may know more.
        """
        patience_s = min(patience_s, self.timeout_s)
        attempts = 1 if self._silences else 2
        if self._stays_silent(what):
            attempts, patience_s = 1, min(patience_s, max(_SILENT_TIMEOUT_S, patience_s / 2))
        for _ in range(attempts):
            try:
                async with asyncio.timeout(patience_s):
                    found = await ask()
            except TimeoutError:  # a `RequestTimeout` is one, too
                continue
            except (DeviceError, MalformedReply) as error:
                log.debug("no %s: %s", what, error)
                self._note_silence(what, False)
                return None
            self._note_silence(what, False)
            return found
        log.info("the device leaves the question for its %s unanswered", what)
        self._note_silence(what, True)
        return None

    def _stays_silent(self, what: str) -> bool:
        return what in self.profile.learned.unanswered

    def _note_silence(self, what: str, silent: bool) -> None:
        """A question has been left unanswered, or not; by a device that answers nothing at all that means nothing."""
        if silent and self._versions.answers:
            self._silences += 1
            self.profile.learned.unanswered |= {what}
        elif not silent:
            self.profile.learned.unanswered -= {what}

    def forget_device(self) -> None:
        """Another firmware may answer from now on: forget what the last one said of itself."""
        self.profile.forget_firmware()
        self._versions = VersionChoice()

    def allow_in_flight(self, count: int) -> None:
        """From now on `count` requests may wait for answers at once."""
        self._slots.allow(count)

    def stream(
        self,
        room: int,
        *,
        on_reply: Callable[[T, Reply], None],
        on_left: Callable[[T], None],
        on_room: Callable[[], None],
        on_failure: Callable[[McumgrError], None],
        on_garbled: Callable[[int], None] = lambda count: None,
    ) -> Stream[T]:
        """Send many requests without waiting for the answer to each; see `Stream`.

        Raises `LinkLost` if the link has ended.
        """
        return Stream(self, self._open_exchange(), room, on_reply, on_left, on_room, on_failure, on_garbled)

    def queued_s(self) -> float:
        """Estimated seconds until all that was sent so far has left for the device."""
        return self._outbox.queued_s()

    def air_s(self, size: int) -> float:
        """Estimated seconds that a message of `size` bytes takes on the link; 0 where that is not known."""
        return self._outbox.byte_s * size * _FRAMED

    @property
    def flow(self) -> Flow:
        """What the link allows to be on its way at once."""
        return asking(self._transport, "flow", lambda: self._transport.flow)

    async def _ask(
        self, asked: _Asked, timeout_s: float, attempts: int, version: Version | None = None
    ) -> tuple[Reply, Version]:
        """The reply, and the version in which it was asked for; `version`: in this one only."""
        exchange, request = self._open_exchange(), asked.request
        self._check_size(request)
        # One future for all attempts: the late answer to the first is as good as that to the second.
        answer: asyncio.Future[tuple[Reply, Version]] = asyncio.get_running_loop().create_future()
        self._asking.add(answer)
        calls: list[tuple[int, Call]] = []
        try:
            for attempt in range(attempts):
                speaks = self._versions.for_attempt(attempt, attempts) if version is None else version
                async with self._slots:
                    self._raise_if_ended()
                    until = asyncio.get_running_loop().time() + timeout_s
                    damaged = 0
                    while not answer.done():
                        sequence, call = self._send(exchange, request, speaks, partial(self._answer, answer, speaks))
                        calls.append((sequence, call))
                        heed = request.repeatable and damaged < _MOST_DAMAGED
                        garbled = await self._await_answer(exchange, sequence, call, answer, request, timeout_s, heed)
                        if not garbled or asyncio.get_running_loop().time() >= until:
                            break
                        damaged += 1
                        self._slots.leave()  # as far as is known, it takes up no place any more: the next one does
                        self._slots.enter_now()
                if answer.done():
                    return answer.result()
                self._versions.silent(speaks)
                log.info(
                    "no answer to the %s in %g s (attempt %d of %d)", request.what, timeout_s, attempt + 1, attempts
                )
        finally:
            self._asking.discard(answer)
            for sequence, call in calls:
                asked.may_have_arrived |= self._let_go(exchange, sequence, call)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, even if the caller was cancelled meanwhile
        raise self._silence(exchange, request, timeout_s, attempts)

    def _send(
        self,
        exchange: Exchange,
        request: Request,
        version: Version,
        answered: Callable[[Reply], None],
        left: Callable[[], None] | None = None,
        failed: Callable[[McumgrError], None] | None = None,
    ) -> tuple[int, Call]:
        """Give a request its number, and hand it to the link."""
        now = asyncio.get_running_loop().time()
        write_bytes = self.limits.write
        try:
            sent = exchange.send(request, version=version, write_bytes=write_bytes, now=now)
        except Exception as error:
            raise told(self._transport, "framing", error) from None
        self._waiters[sent.sequence] = answered
        try:
            return sent.sequence, self._outbox.put(sent.writes, left=left, failed=failed)
        except BaseException:
            self._waiters.pop(sent.sequence, None)
            exchange.forget(sent.sequence, now=now)
            raise

    def _let_go(self, exchange: Exchange, sequence: int, call: Call) -> bool:
        """Nobody waits for its answer any more. What the link has not begun is not sent; whether it may be there."""
        self._waiters.pop(sequence, None)
        if self._outbox.withdraw(call):
            exchange.withdraw(sequence)
        else:
            exchange.forget(sequence, now=asyncio.get_running_loop().time())
        return call.may_have_arrived

    async def _await_answer(
        self,
        exchange: Exchange,
        sequence: int,
        call: Call,
        answer: asyncio.Future[tuple[Reply, Version]],
        request: Request,
        timeout_s: float,
        notices_damage: bool,
    ) -> bool:
        """Wait until the answer is there or its time is up, which begins when the link has taken the request.

        With `notices_damage` also until an answer has come damaged, which may have been this one; then it is true.
        """
        loop = asyncio.get_running_loop()
        while (leaving := call.leaving()) is not None and not answer.done():
            remaining_s = self._outbox.stuck_at(call, timeout_s) - loop.time()
            either: list[asyncio.Future[Any]] = [leaving, answer]
            await asyncio.wait(either, timeout=max(0.0, remaining_s), return_when=asyncio.FIRST_COMPLETED)
            if call.leaving() is not None and loop.time() >= self._outbox.stuck_at(call, timeout_s) - 1e-6:
                raise RequestTimeout(
                    f"the link has not taken the {request.what} within {loop.time() - call.put_at:.1f} s",
                    what=request.what,
                    timeout_s=timeout_s,
                    hint="the link holds it up, not the device: its flow control, another program, or a line that is "
                    "much slower than said",
                )
        if call.error is not None and not answer.done():
            raise call.error
        deadline = loop.time() + self._outbox.queued_s() + timeout_s
        exchange.set_deadline(sequence, deadline)
        waiting: list[asyncio.Future[Any]] = [answer]
        if notices_damage:
            if self._damage is None or self._damage.done():
                self._damage = loop.create_future()
            waiting.append(self._damage)
        await asyncio.wait(waiting, timeout=max(0.0, deadline - loop.time()), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done() and waiting[-1].done():
            return True
        if not answer.done():
            exchange.expire(max(deadline, loop.time()))  # a timer may fire a clock tick early
        return False

    def _answer(self, answer: asyncio.Future[tuple[Reply, Version]], version: Version, reply: Reply) -> None:
        self._versions.answered(version, reply)
        if not answer.done():
            answer.set_result((reply, version))

    def _silence(self, exchange: Exchange, request: Request, timeout_s: float, attempts: int) -> RequestTimeout:
        times = "" if attempts == 1 else f", asked {attempts} times"
        message = f"no answer to the {request.what} within {timeout_s:g} s{times}"
        hint: str | None = None
        if exchange.echoed:
            message += ": all that came back is the request itself"
            hint = (
                "the other end repeats what it gets and does not read it as SMP: a terminal or shell with its echo on, "
                "or a cable whose two data lines are joined"
            )
        elif self.last_heard_s is None:
            hint = asking(self._transport, "silence_hint", lambda: self._transport.silence_hint)
        return RequestTimeout(message, what=request.what, timeout_s=timeout_s, attempts=attempts, hint=hint)

    def _check_size(self, request: Request) -> None:
        if (params := self.profile.params) is not None:
            limit = self.limits.message(params.buf_size)
            if request.size > limit:
                raise MessageTooLarge(
                    f"the {request.what} of {request.size} bytes does not fit the device, which takes {limit}",
                    size=request.size,
                    limit=limit,
                    hint="CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE in the device's firmware sets it",
                )
        elif request.size > self.limits.max_message:
            limit = self.limits.max_message
            raise MessageTooLarge(
                f"the {request.what} of {request.size} bytes does not fit the link, which carries {limit}",
                size=request.size,
                limit=limit,
            )

    # -- what arrives ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        exchange = self._open_exchange()
        loop = asyncio.get_running_loop()
        try:
            while True:
                chunk = await self._receive()
                if not chunk:
                    await asyncio.sleep(0)  # against the contract; at least nobody is held up
                    continue
                self.last_heard_s = loop.time()
                try:
                    replies, garbled = exchange.receive(chunk), exchange.garbled
                except Exception as error:
                    raise fault_of(self._transport, "framing", error) from error
                if garbled != self._garbled:
                    count, self._garbled = garbled - self._garbled, garbled
                    self._answers_garbled(count)
                for sequence, reply in replies:
                    take = self._waiters.pop(sequence, None)
                    if take is not None:
                        take(reply)
                for version, reply in exchange.take_late():
                    self._versions.answered(version, reply)
                if text := exchange.take_text():
                    self._pass_text(text)
        except (LinkLost, PluginError) as error:
            self._end(error)
        except McumgrError as error:
            self._end(LinkLost(f"the link failed: {error}", hint=error.hint))
        except Exception as error:  # a mistake of ours: still nobody may hang
            log.exception("what the link has received could not be dealt with")
            self._end(LinkLost(f"the link was given up: {error!r}"))

    async def _receive(self) -> bytes:
        """The next bytes of the link; what its own code does wrong is told as that."""
        chunk = await calling(self._transport, "receive", self._transport.receive)
        if not isinstance(chunk, (bytes, bytearray, memoryview)):
            raise fault_of(self._transport, "receive", TypeError(f"it returned {type(chunk).__name__}, not bytes"))
        return chunk

    def _answers_garbled(self, count: int) -> None:
        """So many answers have come of which nothing can be read; to which requests is not known."""
        for _ in range(count):
            self._slots.vacate()
        if self._damage is not None and not self._damage.done():
            self._damage.set_result(None)
        for stream in list(self._streams):
            stream.on_garbled(count)

    def _pass_text(self, data: bytes) -> None:
        if text := self._decoder.decode(data):
            if self._on_text is None:
                self._log_text(text)
                return
            try:
                self._on_text(text)
            except Exception:  # a listener's mistake must not end the link
                log.exception("the listener for device text failed")

    def _log_text(self, text: str) -> None:
        """A record for each line, however it arrives."""
        *lines, self._unlogged = (self._unlogged + text).split("\n")
        if len(self._unlogged) > _MAX_LOG_LINE:
            lines.append(self._unlogged)
            self._unlogged = ""
        for line in lines:
            device_log.info("%s", line.rstrip("\r"))

    def _end(self, reason: McumgrError) -> None:
        """The link is gone: wake everybody, each with an error of its own."""
        if self._ended is None or self._ended.done():
            return
        self._ended.set_result(reason)
        for answer in self._asking:
            if not answer.done():
                answer.set_exception(_copy(reason))
        for stream in list(self._streams):
            stream.fail(_copy(reason))
        self._slots.open()

    def _raise_if_ended(self) -> None:
        if self._ended is not None and self._ended.done():
            raise _copy(self._ended.result())

    def _open_exchange(self) -> Exchange:
        if self._exchange is None:
            raise RuntimeError("the client is not open")
        self._check_loop()
        self._raise_if_ended()
        return self._exchange

    def _check_loop(self) -> None:
        """All of a client happens in one event loop; in another one its futures would never wake anybody."""
        if self._loop is not None and asyncio.get_running_loop() is not self._loop:
            raise RuntimeError(
                "this client belongs to another event loop: it can be used only in the one in which it was opened "
                "(asyncio.run makes a new one each time; in notebooks and fixtures keep to one)"
            )


class _Asked:
    """A request that somebody waits for; `may_have_arrived`: the link has begun to send it at least once."""

    __slots__ = ("may_have_arrived", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.may_have_arrived = False


def _copy(reason: McumgrError) -> McumgrError:
    """The same for one more who waits, so that tracebacks do not mix."""
    copied = copy.copy(reason)
    copied.__cause__, copied.__traceback__ = reason, None
    return copied


class Stream(Generic[T]):
    """Many requests on their way at once, without a task or a wait for each: what bulk transfers are made of.

    How many there may be, and what to do when no answer comes, is the user's business. Requests of others on the same
    client wait their turn between those of the stream, and count as well.

    Each request is sent with an `item`, by which its user knows it again. The functions are called from the task that
    reads, or while `send` is; what they raise ends the link.

    Arguments:
        room: so many requests of all users together may be on their way.
        on_reply: called with the item of a request and its reply.
        on_left: called with the item when the link has taken all of the request, which may be before `send` returns:
            until then it waits for the link, and its silence says nothing of the device.
        on_room: called when the requests of others have made room that `send` did not find before.
        on_failure: called once when the link has ended, or does not take a message.
        on_garbled: called with how many answers have come damaged, be it to requests of the stream or to others.
    """

    def __init__(
        self,
        client: Client,
        exchange: Exchange,
        room: int,
        on_reply: Callable[[T, Reply], None],
        on_left: Callable[[T], None],
        on_room: Callable[[], None],
        on_failure: Callable[[McumgrError], None],
        on_garbled: Callable[[int], None],
    ) -> None:
        self.on_reply = on_reply
        self.on_left = on_left
        self.on_garbled = on_garbled
        self._client = client
        self._exchange = exchange
        self._slots = client._slots
        self._on_failure: Callable[[McumgrError], None] | None = on_failure
        self._open: set[StreamCall[T]] = set()
        self._slots.claim(self, room, on_room)
        client._streams.append(self)

    @property
    def full(self) -> bool:
        """Whether there is no room, or others wait for it; `on_room` tells when that has changed."""
        return self._slots.full

    def send(self, request: Request, item: T) -> StreamCall[T]:
        """Send `request`, which there must be room for. Returns what `forget` takes.

        Raises `MessageTooLarge`, `LinkLost`.
        """
        client = self._client
        client._raise_if_ended()
        self._slots.enter_now()
        one = StreamCall(self, item, client._versions.current)
        try:
            one.sequence, one.call = client._send(
                self._exchange, request, one.version, one.answered, one.left, self.fail
            )
        except BaseException:
            self._slots.leave()
            raise
        self._open.add(one)
        return one

    def forget(self, one: StreamCall[T]) -> None:
        """Its answer is of no interest any more; its place is free. Harmless when repeated."""
        if one in self._open:
            self._open.remove(one)
            self._client._let_go(self._exchange, one.sequence, one.call)
            self._slots.leave()

    def resynchronize(self) -> None:
        """Nothing of what was sent is answered any more: drop a message that has come in part, and tell the link."""
        self._exchange.give_up()

    def close(self) -> None:
        """Forget all; others find the client as it was before."""
        self._on_failure = None
        for one in list(self._open):
            self.forget(one)
        if self in self._client._streams:
            self._client._streams.remove(self)
            self._slots.release(self)

    def fail(self, error: McumgrError) -> None:
        """The link has ended, or does not take a message."""
        tell, self._on_failure = self._on_failure, None
        if tell is not None:
            tell(error)

    def answered(self, one: StreamCall[T], reply: Reply) -> None:
        """The reply to it has come."""
        if one in self._open:
            self._open.remove(one)
            self._client._versions.answered(one.version, reply)
            self._slots.leave()
            self.on_reply(one.item, reply)


class StreamCall(Generic[T]):
    """One request of a stream on its way."""

    __slots__ = ("call", "item", "sequence", "stream", "version")

    sequence: int
    call: Call

    def __init__(self, stream: Stream[T], item: T, version: Version) -> None:
        self.stream = stream
        self.item = item
        self.version = version

    def left(self) -> None:
        self.stream.on_left(self.item)

    def answered(self, reply: Reply) -> None:
        self.stream.answered(self, reply)
