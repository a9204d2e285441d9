"""`Client`: typed requests over one open link, with time-outs, repeats and an end that reaches every waiter.

It owns the link while it is open: one task reads, any number of tasks may request. What a command means is the
group's business, what the bytes mean the protocol's, how they travel the transport's.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self, TypeVar, cast

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
from .link.asking import Asking
from .link.link import Link
from .link.profile import LinkProfile
from .link.stream import Stream, StreamUser
from .link.version import VersionChoice
from .messages.message import Request, SmpCommand
from .messages.standard import Params, ReadUsableParams
from .protocol.codes import SmpError
from .protocol.header import Version
from .protocol.waiting import Waiting
from .transport import Flow, Limits, Transport

log = logging.getLogger("mcumgrx.client")

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

# For a link that was open a moment ago.
_REOPEN_TIMEOUT_S = 10.0

# Every server takes so much; whether it takes more is worth a question before the request is lost on its way.
_SURELY_FITS_BYTES = 128

# Whether a device speaks version 2 all the same, which has just answered version 1.
_TRIAL_TIMEOUT_S = 1.0


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
        groups: finds the class for a role of `contracts`; sessions pass the registry's. Default: there are no roles.
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
        groups: Callable[[type], Callable[[Client], object]] | None = None,
        on_text: Callable[[str], None] | None = None,
        profile: LinkProfile | None = None,
        on_reopened: Callable[[], None] | None = None,
    ) -> None:
        self.timeout_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
        self._is_bounded = timeout_s is not None
        self.repeats = repeats
        self._link = Link(transport, in_flight=in_flight, on_text=on_text)
        self._find_group = _itself if groups is None else groups
        self._groups: dict[type, object] = {}
        self._on_reopened = on_reopened
        self._reopening = asyncio.Lock()
        self._is_closed = False
        self._params_lock = asyncio.Lock()
        self._silences = 0  # questions that were left unanswered on this connection
        self.profile = LinkProfile() if profile is None else profile

    def __repr__(self) -> str:
        ended = "lost" if self._link.was_opened else "not open"
        state = "closed" if self._is_closed else "connected" if self.connected else ended
        return f"<Client {self._link.transport!r} {state}>"

    # -- opening and closing ---------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the link is open, as far as is known."""
        return self._link.is_open

    @property
    def limits(self) -> Limits:
        """What the link can carry now."""
        return self._link.limits

    @property
    def last_heard_s(self) -> float | None:
        """When the device was last heard, on the clock of the loop; None before the first time."""
        return self._link.heard_at

    async def open(self, timeout_s: float = 10.0) -> None:
        """Open the link; nothing is sent yet. Raises `DeviceNotFound` or `ConnectFailed`."""
        if self._link.was_opened:
            raise RuntimeError("a client is opened once; make a new one to reconnect")
        await self._link.open(timeout_s)

    async def close(self) -> None:
        """Close the link, if open; every request that still waits ends with `LinkLost`. Harmless when repeated."""
        self._is_closed = self._link.was_opened
        await self._link.close()
        if self._reopening.locked():
            async with self._reopening:  # and closed again
                pass

    async def wait_lost(self) -> McumgrError:
        """Wait until the link ends, however it does; returns the reason: `LinkLost`, or what is wrong with its code."""
        return await self._link.wait_ended()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    async def _open_again(self, link: Link, reason: LinkLost) -> None:
        """`link` has died before it carried anything: open another over the same transport.

        Raises `reason` if that has been done already, and with what came of it where it does not work.
        """
        async with self._reopening:
            if self._link is not link:
                return  # for another request
            look, self._on_reopened = self._on_reopened, None
            if look is None or self._is_closed:
                raise reason
            log.warning("%s, before it has carried anything: connecting once more", reason)
            await link.close()
            again = link.again()
            try:
                await again.open(_REOPEN_TIMEOUT_S)
                self._link = again
                if self._is_closed:  # meanwhile
                    await again.close()
                    raise reason
                look()
            except WrongDevice as error:
                again.end(LinkLost(error.message, address=error.address, hint=error.hint))
                raise
            except (DeviceNotFound, ConnectFailed) as error:
                reason.message += f"; connecting once more: {error.message}"
                raise reason from error

    # -- groups ----------------------------------------------------------------------------------------------------

    def group(self, kind: type[G]) -> G:
        """The group of this type: a `Group` class, or a role of `mcumgrx.contracts`.

        Raises `PluginError` when no plugin fills the role.
        """
        if kind not in self._groups:
            self._groups[kind] = self._find_group(kind)(self)
        return cast(G, self._groups[kind])

    def time_for(self, usual_s: float | None) -> float:
        """Seconds to wait for an answer that may take `usual_s`: what is usual overrules no time that was asked for."""
        return self.timeout_s if usual_s is None or self._is_bounded else max(self.timeout_s, usual_s)

    # -- requests --------------------------------------------------------------------------------------------------

    async def request(self, command: SmpCommand[R], *, timeout_s: float | None = None, repeats: int | None = None) -> R:
        """Send `command` and return its typed result.

        Without an answer in `timeout_s` seconds, counted from when the link can have sent it, it is sent again up to
        `repeats` times, but only if the command is safe to repeat. A cancelled request leaves the client usable.

        A device that is busy has not carried it out, and is asked again for up to 30 s, whatever the request is.

        Raises `DeviceError` (the device said no), `RequestTimeout`, `LinkLost`, `MalformedReply`, `MessageTooLarge`,
        `PluginError` (the link's own code has failed). Where the request changes the device and may have been carried
        out all the same, the error says so in `may_be_done`.
        """
        if timeout_s is None:
            timeout_s = self.time_for(command.facts.timeout_s)
        request = command.request()
        asking = Asking(request, timeout_s)
        attempts = 1 + ((self.repeats if repeats is None else repeats) if request.repeatable else 0)
        if self._on_reopened is None:
            self._link.check()
        else:
            self._link.check_loop()
        self._check_size(request)
        if request.size > _SURELY_FITS_BYTES:
            await self.params()
            self._check_size(request)
        try:
            return await self._result(command, asking, attempts)
        except (RequestTimeout, LinkLost, MalformedReply, DeviceError) as error:
            if isinstance(error, MalformedReply):
                error.concerns(request.what, error.payload)
            # An answer that did not fit was made after the work (Zephyr `smp_handle_single_req`).
            unknown = not isinstance(error, DeviceError) or error.says(SmpError.MESSAGE_SIZE)
            if request.changes and asking.may_have_arrived and unknown:
                error.may_be_done = True
                error.message += "; the device may have carried it out all the same"
            raise

    async def _result(self, command: SmpCommand[R], asking: Asking, attempts: int) -> R:
        """Ask, and ask again where the answer says that nothing was done, or nothing can be made of it."""
        busy: Waiting | None = None
        turned = garbled = False
        while True:
            link = self._link
            try:
                reply = await asking.ask(link, attempts)
            except LinkLost as error:
                if not asking.request.repeatable or link.heard_at is not None:
                    raise
                await self._open_again(link, error)
                self._check_size(asking.request)
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
                if error.says(SmpError.TOO_NEW if asking.version == Version.V2 else SmpError.TOO_OLD) and not turned:
                    turned = True
                    link.versions.refused(asking.version)
                    log.info("the device does not speak SMP version %d", asking.version + 1)
                elif error.says(SmpError.BUSY):
                    busy = busy or Waiting()
                    await self._wait_while_busy(busy, asking.request.what, error)
                else:
                    raise
            else:
                if not link.versions.certain:
                    await self._settle_version(link, asking)
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

    async def _settle_version(self, link: Link, asked: Asking) -> None:
        """Where version 1 was answered and version 2 not so far: find out now, with a request that does no harm."""
        while link.versions.doubtful and not asked.request.changes:
            try:
                await Asking(asked.request, min(asked.timeout_s, _TRIAL_TIMEOUT_S)).ask(link, 1, Version.V2)
            except RequestTimeout:
                continue  # which counts
        if not link.versions.certain and link.versions.current is Version.V1:
            log.info("the device leaves SMP version 2 unanswered, and is asked in version 1")

    async def params(self) -> Params | None:
        """The device's buffers, or None when it does not tell. Asked once per connection.

        An answer that makes no sense tells nothing: everything works with what every device has, if slower.
        """
        self._link.check_loop()
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

    @property
    def answered(self) -> bool:
        """Whether the device has answered anything, as the firmware that it runs now."""
        return self._link.versions.answers

    async def meet(self, question: SmpCommand[R]) -> None:
        """Ask `question`, which does no harm, of a device that has answered nothing so far, or not the last time.

        For before what may take a minute, or is tried in several ways: none of that is for a device that is not there.
        What it answers is ignored.
        Where the caller has said how long an answer may take, it is asked once less: `params` has stayed unanswered.
        Raises `RequestTimeout`, `LinkLost`.
        """
        if self._link.is_quiet:
            with suppress(DeviceError, MalformedReply):
                await self.request(question, repeats=1 if self._is_bounded else None)

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
        if silent and self._link.versions.answers:
            self._silences += 1
            self.profile.learned.unanswered |= {what}
        elif not silent:
            self.profile.learned.unanswered -= {what}

    def forget_device(self) -> None:
        """Another firmware may answer from now on: forget what the last one said of itself."""
        self.profile.forget_firmware()
        self._link.versions = VersionChoice()

    def stream(self, room: int, user: StreamUser[T]) -> Stream[T]:
        """Send many requests without waiting for the answer to each; see `Stream`.

        Raises `LinkLost` if the link has ended.
        """
        return Stream(self._link, room, user)

    def queued_s(self) -> float:
        """Estimated seconds until all that was sent so far has left for the device."""
        return self._link.outbox.queued_s()

    def air_s(self, size: int) -> float:
        """Estimated seconds that a message of `size` bytes takes on the link; 0 where that is not known."""
        return self._link.outbox.air_s(size)

    @property
    def flow(self) -> Flow:
        """What the link allows to be on its way at once."""
        return self._link.flow

    def _check_size(self, request: Request) -> None:
        params = self.profile.params
        limits, size = self._link.limits, request.size
        limit = limits.max_message if params is None else limits.message(params.buf_size)
        if size > limit:
            where = "the link, which carries" if params is None else "the device, which takes"
            raise MessageTooLarge(
                f"the {request.what} of {size} bytes does not fit {where} {limit}",
                size=size,
                limit=limit,
                hint=None if params is None else "CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE in the device's firmware sets it",
            )


def _itself(kind: type[G]) -> Callable[[Client], G]:
    """Where nothing is known of plugins: a class of groups stands for itself, and nothing fills a role."""
    if inspect.isabstract(kind):
        raise PluginError(f"no plugin supplies {kind.__name__}")
    return kind
