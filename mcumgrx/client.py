"""`Client`: typed requests over one open link, with time-outs, repeats and an end that reaches every waiter.

It owns the link while it is open: one task reads, any number of tasks may request. What a command means is the
group's business, what the bytes mean the protocol's, how they travel the transport's.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self, TypeVar, cast

from .errors import (
    ConnectFailed,
    DeviceError,
    LinkLost,
    MalformedReply,
    McumgrError,
    MessageTooLarge,
    PluginError,
    RequestTimeout,
)
from .group import Group
from .memory import Learned
from .protocol.exchange import Exchange, Sent
from .protocol.header import Version
from .protocol.message import Command, Reply, Request, SmpError
from .protocol.standard import Params, ReadParams
from .transport import Flow, Limits, Transport

__all__ = ["DEFAULT_TIMEOUT_S", "Client", "Stream"]

log = logging.getLogger("mcumgrx.client")
device_log = logging.getLogger("mcumgrx.device")

R = TypeVar("R")
G = TypeVar("G")

# Ordinary requests: generous for BLE at long connection intervals; commands that take longer say so themselves.
DEFAULT_TIMEOUT_S = 5.0

# The buffer query is the first request on many links: short, so that a device without it costs little.
_PARAMS_TIMEOUT_S = 1.5

# A transport is told how long it may take to open; so much longer it is waited for, for what it has to clean up.
_OPEN_GRACE_S = 5.0
_CANCEL_TIMEOUT_S = 1.0

# BlueZ takes 2.7 s to disconnect; a close that takes longer than this is given up, so that nobody waits for ever.
_CLOSE_TIMEOUT_S = 10.0

# A device that prints without ever ending a line is logged in pieces of this many characters.
_MAX_LOG_LINE = 4096


class Client:
    """A connected device.

    ::

        async with Client(transport) as client:
            print(await client.request(Echo("hello")))

    Arguments:
        timeout_s: seconds for an answer, where the caller says nothing else; commands that take longer get more.
        repeats: how often a request is sent again when no answer comes, if repeating it is safe.
        in_flight: how many requests may wait for answers at once; further ones queue here. A device has few buffers,
            and Zephyr 4.4 crashes on a serial line when one too many arrives, so more than 1 is for who knows.
        groups: finds the class for a role of `contracts`; sessions pass the registry's.
        on_text: gets what the device prints beside SMP, as text. Default: the log `mcumgrx.device`.
        learned: what is known of the device from earlier connections; transfers add to it.

    Attributes:
        proven_bytes: the largest message of which transfers know that it has arrived on this connection.
        refused_bytes: the smallest of which they know that it does not; None for none.
        short_trip_s: the shortest round trip of a request that costs the device next to nothing; None before the first.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        repeats: int = 2,
        in_flight: int = 1,
        groups: Callable[[type], type[Group]] | None = None,
        on_text: Callable[[str], None] | None = None,
        learned: Learned | None = None,
    ) -> None:
        self.timeout_s = timeout_s
        self.repeats = repeats
        self.last_heard_s: float | None = None
        self._transport = transport
        self._gate = _Gate(in_flight)
        self._find_group = groups
        self._groups: dict[type, Group] = {}
        self._on_text = on_text
        self._exchange: Exchange | None = None
        self._reader: asyncio.Task[None] | None = None
        self._outbox: deque[tuple[list[bytes], asyncio.Future[None]]] = deque()
        self._sender: asyncio.Task[None] | None = None
        self._waiters: dict[int, Callable[[Reply], None]] = {}
        self._asking: set[asyncio.Future[Reply]] = set()
        self._streams: list[Stream] = []
        self._ended: asyncio.Future[LinkLost] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._version = Version.V2
        self._answered = False
        self._params_lock = asyncio.Lock()
        self._params_known = False
        self._params: Params | None = None
        self.learned = learned if learned is not None else Learned()
        self.proven_bytes = 0
        self.refused_bytes: int | None = None
        self.short_trip_s: float | None = None
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
        return self._transport.limits

    async def open(self, timeout_s: float = 10.0) -> None:
        """Open the link; nothing is sent yet. Raises `DeviceNotFound` or `ConnectFailed`."""
        if self._ended is not None:
            raise RuntimeError("a client is opened once; make a new one to reconnect")
        # A task of its own: a transport that neither returns nor lets itself be cancelled holds nobody up.
        opening = asyncio.create_task(self._transport.open(timeout_s), name="mcumgrx transport open")
        try:
            done, _ = await asyncio.wait([opening], timeout=timeout_s + _OPEN_GRACE_S)
            if not done:
                raise ConnectFailed(
                    f"the link was not open after {timeout_s + _OPEN_GRACE_S:g} s",
                    hint="try again; if it happens each time, the link's driver or plugin hangs",
                )
            opening.result()
        except BaseException:
            opening.cancel()
            await asyncio.shield(self._give_back(opening))
            raise
        self._exchange = Exchange(self._transport.framing())
        self._ended = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(), name="mcumgrx client reader")

    async def close(self) -> None:
        """Close the link, if open; every request that still waits ends with `LinkLost`. Harmless when repeated."""
        if self._ended is None:
            return
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

    async def wait_lost(self) -> LinkLost:
        """Wait until the link ends, however it does; returns the reason."""
        if self._ended is None:
            raise RuntimeError("the client is not open")
        return await asyncio.shield(self._ended)

    async def _close(self) -> None:
        self._end(LinkLost("the link was closed"))
        tasks = [task for task in (self._reader, self._sender) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._close_transport()

    async def _give_back(self, opening: asyncio.Task[None]) -> None:
        """After an `open` that failed, or was given up and may take a moment to end."""
        await asyncio.wait([opening], timeout=_CANCEL_TIMEOUT_S)
        if opening.done() and not opening.cancelled():
            opening.exception()  # seen
        await self._close_transport()

    async def _close_transport(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._transport.close()
        except TimeoutError:
            log.warning("%r did not close within %g s", self._transport, _CLOSE_TIMEOUT_S)

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

    # -- requests --------------------------------------------------------------------------------------------------

    async def request(self, command: Command[R], *, timeout_s: float | None = None, repeats: int | None = None) -> R:
        """Send `command` and return its typed result.

        Without an answer in `timeout_s` seconds, counted from when the link can have sent it, it is sent again up to
        `repeats` times, but only if the command is safe to repeat. A cancelled request leaves the client usable.

        Raises `DeviceError` (the device said no), `RequestTimeout`, `LinkLost`, `MalformedReply`, `MessageTooLarge`.
        Where the request changes the device and may have been carried out all the same, the error says so in
        `may_be_done`.
        """
        if timeout_s is None:
            timeout_s = max(self.timeout_s, command.timeout_s or 0.0)
        asked = _Asked(command.request())
        try:
            return await self._result(command, asked, timeout_s, repeats)
        except (RequestTimeout, LinkLost, MalformedReply, DeviceError) as error:
            if isinstance(error, MalformedReply):
                error.concerns(asked.request.what, error.payload)
            # An answer that did not fit was made after the work (Zephyr `smp_handle_single_req`).
            unknown = not isinstance(error, DeviceError) or error.says(SmpError.MESSAGE_SIZE)
            if asked.request.changes and asked.left and unknown:
                error.may_be_done = True
                error.message += "; the device may have carried it out all the same"
            raise

    async def _result(self, command: Command[R], asked: _Asked, timeout_s: float, repeats: int | None) -> R:
        attempts = 1 + ((self.repeats if repeats is None else repeats) if asked.request.repeatable else 0)
        reply = await self._ask(asked, timeout_s, attempts)
        try:
            return command.result(reply)
        except MalformedReply:
            if attempts == 1:
                raise
            # A part of it may have got lost where nothing checks that (Bluetooth LE, raw UART): once more.
            return command.result(await self._ask(asked, timeout_s, attempts - 1))
        except DeviceError as error:
            if not error.says(SmpError.TOO_NEW) or self._version is Version.V1:
                raise
            # The device has not executed it, so even what must not be repeated can be sent again.
            log.info("the device speaks SMP version 1 only")
            self._version = Version.V1
            return command.result(await self._ask(asked, timeout_s, attempts))

    async def params(self) -> Params | None:
        """The device's buffers, or None when it does not tell. Asked once per connection."""
        async with self._params_lock:
            if not self._params_known:
                begin = asyncio.get_running_loop().time()
                try:
                    self._params = await self.request(ReadParams(), timeout_s=_PARAMS_TIMEOUT_S, repeats=1)
                except (DeviceError, RequestTimeout) as error:
                    log.debug("no buffer sizes: %s", error)
                    if isinstance(error, DeviceError):
                        self.took_short_trip(begin)
                else:
                    self.took_short_trip(begin)
                self._params_known = True
        return self._params

    @property
    def told_params(self) -> Params | None:
        """What `params` has found out so far, without asking the device."""
        return self._params

    def took_short_trip(self, begin: float) -> None:
        """A request that costs the device next to nothing was sent at `begin`, and has just been answered."""
        trip_s = asyncio.get_running_loop().time() - begin
        self.short_trip_s = trip_s if self.short_trip_s is None else min(self.short_trip_s, trip_s)

    def forget_device(self) -> None:
        """Another firmware may answer from now on: forget what the last one said of itself."""
        self._params_known = False
        self._params = None
        self._version = Version.V2
        self._answered = False
        self.proven_bytes = 0
        self.refused_bytes = None
        self.short_trip_s = None

    def allow_in_flight(self, count: int) -> None:
        """From now on `count` requests may wait for answers at once."""
        self._gate.set_limit(count)

    def stream(self, room: int, *, on_room: Callable[[], None], on_failure: Callable[[McumgrError], None]) -> Stream:
        """Send many requests without waiting for the answer to each; see `Stream`.

        Raises `LinkLost` if the link has ended.
        """
        return Stream(self, self._open_exchange(), room, on_room, on_failure)

    def queued_s(self) -> float:
        """Estimated seconds until all that was sent so far has left for the device."""
        return self._transport.queued_s()

    @property
    def flow(self) -> Flow:
        """What the link allows to be on its way at once."""
        return self._transport.flow

    async def _ask(self, asked: _Asked, timeout_s: float, attempts: int) -> Reply:
        exchange, request = self._open_exchange(), asked.request
        self._check_size(request)
        # One future for all attempts: the late answer to the first is as good as that to the second.
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asking.add(answer)
        sequences: list[int] = []
        try:
            for attempt in range(attempts):
                version = self._version
                if attempt > 0 and attempt == attempts - 1 and not self._answered:
                    version = Version.V1  # some old servers leave version 2 unanswered
                async with self._gate:
                    self._raise_if_ended()
                    if not answer.done():
                        sent = exchange.send(request, version=version, write_bytes=self.limits.write)
                        sequences.append(sent.sequence)
                        self._waiters[sent.sequence] = partial(_answer, answer)
                        asked.left = True
                        await self._await_answer(exchange, sent, answer, timeout_s)
                if answer.done():
                    reply = answer.result()
                    self._answered = True
                    if version is Version.V1 and self._version is Version.V2:
                        log.info("the device answers SMP version 1 only")
                        self._version = Version.V1
                    return reply
                log.info(
                    "no answer to the %s in %g s (attempt %d of %d)", request.what, timeout_s, attempt + 1, attempts
                )
        finally:
            self._asking.discard(answer)
            for sequence in sequences:
                self._waiters.pop(sequence, None)
                exchange.forget(sequence)
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, even if the caller was cancelled meanwhile
        times = "" if attempts == 1 else f", asked {attempts} times"
        raise RequestTimeout(
            f"no answer to the {request.what} within {timeout_s:g} s{times}",
            what=request.what,
            timeout_s=timeout_s,
            attempts=attempts,
            hint=self._transport.silence_hint if self.last_heard_s is None else None,
        )

    async def _await_answer(
        self, exchange: Exchange, sent: Sent, answer: asyncio.Future[Reply], timeout_s: float
    ) -> None:
        """Send, and wait until the answer is there or its time is up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time()
        if await self._send(sent.writes, timeout_s):
            deadline = loop.time() + self._transport.queued_s() + timeout_s
            exchange.set_deadline(sent.sequence, deadline)
            await asyncio.wait([answer], timeout=max(0.0, deadline - loop.time()))
        if not answer.done():
            exchange.set_deadline(sent.sequence, deadline)
            exchange.expire(max(deadline, loop.time()))  # a timer may fire a clock tick early

    def _check_size(self, request: Request) -> None:
        if self._params is not None:
            limit = self.limits.message(self._params.buf_size)
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

    async def _send(self, writes: list[bytes], timeout_s: float) -> bool:
        """Hand the writes to the link, which is never interrupted half way; false when it does not take them."""
        taken = self._hand_over(writes)
        if taken is None:
            return True
        done, _ = await asyncio.wait([taken], timeout=timeout_s)
        if not done:
            return False
        if taken.cancelled():
            self._raise_if_ended()
            return False
        taken.result()
        return True

    def _hand_over(self, writes: list[bytes]) -> asyncio.Future[None] | None:
        """Hand a message to the link, after those that wait already; None if the link has taken it at once.

        Otherwise the future tells when it has, or why it does not.
        """
        if self._sender is None:
            try:
                if self._transport.offer(writes):
                    return None
            except LinkLost as error:
                self._end(error)
                raise
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox.append((writes, taken))
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all(), name="mcumgrx client sender")
        return taken

    async def _send_all(self) -> None:
        """Send what is in the outbox, one message after the other, until it is empty."""
        try:
            while self._outbox:
                writes, taken = self._outbox.popleft()
                try:
                    await self._transport.send(writes)
                except McumgrError as error:
                    if isinstance(error, LinkLost):
                        self._end(error)
                    _fail(taken, error)
                except BaseException as error:
                    _fail(taken, error if isinstance(error, Exception) else None)
                    raise
                else:
                    if not taken.done():
                        taken.set_result(None)
        finally:
            self._sender = None
            for _, taken in self._outbox:
                taken.cancel()
            self._outbox.clear()

    # -- what arrives ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        exchange = self._open_exchange()
        loop = asyncio.get_running_loop()
        try:
            while True:
                chunk = await self._transport.receive()
                self.last_heard_s = loop.time()
                for sequence, reply in exchange.receive(chunk):
                    take = self._waiters.pop(sequence, None)
                    if take is not None:
                        take(reply)
                if text := exchange.take_text():
                    self._pass_text(text)
        except LinkLost as error:
            self._end(error)
        except McumgrError as error:
            self._end(LinkLost(f"the link failed: {error}", hint=error.hint))
        except Exception as error:  # a transport that raises what it should not: still nobody may hang
            log.exception("%r failed while receiving", self._transport)
            self._end(LinkLost(f"the link failed: {error!r}"))

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

    def _end(self, reason: LinkLost) -> None:
        """The link is gone: wake everybody, each with an error of its own."""
        if self._ended is None or self._ended.done():
            return
        self._ended.set_result(reason)
        for answer in self._asking:
            if not answer.done():
                answer.set_exception(_copy(reason))
        for stream in list(self._streams):
            stream.fail(_copy(reason))
        self._gate.wake_all()

    def _raise_if_ended(self) -> None:
        if self._ended is not None and self._ended.done():
            raise _copy(self._ended.result())

    def _open_exchange(self) -> Exchange:
        if self._exchange is None:
            raise RuntimeError("the client is not open")
        self._raise_if_ended()
        return self._exchange


class _Asked:
    """A request that somebody waits for; `left`: it may have reached the device."""

    __slots__ = ("left", "request")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.left = False


def _copy(reason: LinkLost) -> LinkLost:
    copy = LinkLost(reason.message, address=reason.address, hint=reason.hint)
    copy.__cause__ = reason
    return copy


def _answer(answer: asyncio.Future[Reply], reply: Reply) -> None:
    if not answer.done():
        answer.set_result(reply)


def _fail(taken: asyncio.Future[None], error: Exception | None) -> None:
    if taken.done():
        return
    if error is None:
        taken.cancel()
        return
    taken.set_exception(error)
    taken.exception()  # seen, even if nobody waits for it any more


class Stream:
    """Many requests on their way at once, without a task or a wait for each: what bulk transfers are made of.

    How many there may be, and what to do when no answer comes, is the user's business. Requests of others on the same
    client wait their turn between those of the stream, and count as well.

    Arguments:
        room: so many requests of all users together may be on their way.
        on_room: called when the requests of others have made room that `send` did not find before.
        on_failure: called once when the link has ended, or does not take a message.
    """

    def __init__(
        self,
        client: Client,
        exchange: Exchange,
        room: int,
        on_room: Callable[[], None],
        on_failure: Callable[[McumgrError], None],
    ) -> None:
        self._client = client
        self._exchange = exchange
        self._gate = client._gate
        self._on_failure: Callable[[McumgrError], None] | None = on_failure
        self._open: set[int] = set()
        self._before = self._gate.limit
        self._gate.set_limit(max(room, self._before))
        self._gate.on_room.append(on_room)
        self._on_room = on_room
        client._streams.append(self)

    @property
    def full(self) -> bool:
        """Whether there is no room, or others wait for it; `on_room` tells when that has changed."""
        return self._gate.full

    def send(self, request: Request, answered: Callable[[Reply], None]) -> int:
        """Send `request`, which there must be room for; `answered` is called with its reply, from the task that reads.

        Returns the sequence number, to be given to `forget`. Raises `MessageTooLarge`, `LinkLost`.
        """
        client = self._client
        client._raise_if_ended()
        self._gate.enter_now()
        try:
            sent = self._exchange.send(request, version=client._version, write_bytes=client.limits.write)
            sequence = sent.sequence
            self._open.add(sequence)
            client._waiters[sequence] = partial(self._answered, sequence, answered)
            taken = client._hand_over(sent.writes)
        except BaseException:
            self._gate.leave()
            raise
        if taken is not None:
            taken.add_done_callback(self._taken)
        return sequence

    def forget(self, sequence: int) -> None:
        """Its answer is of no interest any more; its place is free."""
        if sequence in self._open:
            self._open.remove(sequence)
            self._client._waiters.pop(sequence, None)
            self._exchange.forget(sequence)
            self._gate.leave()

    def resynchronize(self) -> None:
        """Nothing of what was sent is answered any more: drop a message that has come in part, and tell the link."""
        self._exchange.give_up()

    def close(self) -> None:
        """Forget all; others find the client as it was before."""
        self._on_failure = None
        for sequence in list(self._open):
            self.forget(sequence)
        if self in self._client._streams:
            self._client._streams.remove(self)
            self._gate.on_room.remove(self._on_room)
            self._gate.set_limit(self._before)

    def fail(self, error: McumgrError) -> None:
        """The link has ended, or does not take a message."""
        tell, self._on_failure = self._on_failure, None
        if tell is not None:
            tell(error)

    def _answered(self, sequence: int, answered: Callable[[Reply], None], reply: Reply) -> None:
        if sequence in self._open:
            self._open.remove(sequence)
            self._client._answered = True
            self._gate.leave()
            answered(reply)

    def _taken(self, taken: asyncio.Future[None]) -> None:
        if not taken.cancelled() and isinstance(error := taken.exception(), McumgrError):
            self.fail(error)


class _Gate:
    """Lets a number of tasks in at once, first come first served; the number may change while they wait."""

    def __init__(self, limit: int) -> None:
        self.limit = max(1, limit)
        self.on_room: list[Callable[[], None]] = []
        self._inside = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    def set_limit(self, limit: int) -> None:
        self.limit = max(1, limit)
        self._admit()

    def wake_all(self) -> None:
        """Let everybody through: the link has ended, and each finds out for itself."""
        self.limit = 2**31
        self._admit()

    @property
    def full(self) -> bool:
        """Whether who comes now has to wait."""
        return bool(self._queue) or self._inside >= self.limit

    def enter_now(self) -> None:
        """Enter without waiting, if need be on top of the limit; see `full`."""
        self._inside += 1

    async def __aenter__(self) -> None:
        if self._inside < self.limit and not self._queue:
            self._inside += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # admitted and cancelled at once
            else:
                self._queue.remove(turn)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()
        if not self._queue:
            for tell in list(self.on_room):
                tell()

    def leave(self) -> None:
        self._inside -= 1
        if self._queue:
            self._admit()

    def _admit(self) -> None:
        while self._queue and self._inside < self.limit:
            turn = self._queue.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)
