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
from types import TracebackType
from typing import Self, TypeVar, cast

from .errors import DeviceError, LinkLost, McumgrError, MessageTooLarge, PluginError, RequestTimeout
from .group import Group
from .protocol.exchange import Exchange, Sent
from .protocol.header import Version
from .protocol.message import Command, Reply, Request, SmpError
from .protocol.standard import Params, ReadParams
from .transport import Limits, Transport

__all__ = ["DEFAULT_TIMEOUT_S", "Client"]

log = logging.getLogger("mcumgrx.client")
device_log = logging.getLogger("mcumgrx.device")

R = TypeVar("R")
G = TypeVar("G")

# Ordinary requests: generous for BLE at long connection intervals; commands that take longer say so themselves.
DEFAULT_TIMEOUT_S = 5.0

# The buffer query is the first request on many links: short, so that a device without it costs little.
_PARAMS_TIMEOUT_S = 1.5

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
        self._sends: set[asyncio.Task[None]] = set()
        self._send_lock = asyncio.Lock()
        self._waiters: dict[int, asyncio.Future[Reply]] = {}
        self._ended: asyncio.Future[LinkLost] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._version = Version.V2
        self._answered = False
        self._params_lock = asyncio.Lock()
        self._params_known = False
        self._params: Params | None = None
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
        try:
            await self._transport.open(timeout_s)
        except BaseException:
            await asyncio.shield(self._transport.close())
            raise
        self._exchange = Exchange(self._transport.framing())
        self._ended = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(), name="mcumgrx client reader")

    async def close(self) -> None:
        """Close the link; every request that still waits ends with `LinkLost`. Harmless when repeated."""
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
        tasks = [task for task in (self._reader, *self._sends) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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
        """
        if timeout_s is None:
            timeout_s = max(self.timeout_s, command.timeout_s or 0.0)
        request = command.request()
        attempts = 1 + ((self.repeats if repeats is None else repeats) if request.repeatable else 0)
        reply = await self._ask(request, timeout_s, attempts)
        try:
            return command.result(reply)
        except DeviceError as error:
            if error.group is not None or error.rc != SmpError.TOO_NEW or self._version is Version.V1:
                raise
            # The device has not executed it, so even what must not be repeated can be sent again.
            log.info("the device speaks SMP version 1 only")
            self._version = Version.V1
            return command.result(await self._ask(request, timeout_s, attempts))

    async def params(self) -> Params | None:
        """The device's buffers, or None when it does not tell. Asked once per connection."""
        async with self._params_lock:
            if not self._params_known:
                try:
                    self._params = await self.request(ReadParams(), timeout_s=_PARAMS_TIMEOUT_S, repeats=1)
                except (DeviceError, RequestTimeout) as error:
                    log.debug("no buffer sizes: %s", error)
                self._params_known = True
        return self._params

    def forget_device(self) -> None:
        """Another firmware may answer from now on: forget what the last one said of itself."""
        self._params_known = False
        self._params = None
        self._version = Version.V2
        self._answered = False

    def allow_in_flight(self, count: int) -> None:
        """From now on `count` requests may wait for answers at once."""
        self._gate.set_limit(count)

    async def _ask(self, request: Request, timeout_s: float, attempts: int) -> Reply:
        exchange = self._open_exchange()
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
        # One future for all attempts: the late answer to the first is as good as that to the second.
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
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
                        self._waiters[sent.sequence] = answer
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

    async def _send(self, writes: list[bytes], timeout_s: float) -> bool:
        """Hand the writes to the link, which is never interrupted half way; false when it does not take them."""
        task = asyncio.create_task(self._send_in_turn(writes), name="mcumgrx client send")
        self._sends.add(task)
        task.add_done_callback(self._sent)
        done, _ = await asyncio.wait([task], timeout=timeout_s)
        if not done:
            return False
        if task.cancelled():
            self._raise_if_ended()
            return False
        task.result()
        return True

    async def _send_in_turn(self, writes: list[bytes]) -> None:
        async with self._send_lock:
            await self._transport.send(writes)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sends.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), LinkLost):
            self._end(error)

    # -- what arrives ----------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        exchange = self._open_exchange()
        loop = asyncio.get_running_loop()
        try:
            while True:
                chunk = await self._transport.receive()
                self.last_heard_s = loop.time()
                for sequence, reply in exchange.receive(chunk):
                    waiter = self._waiters.pop(sequence, None)
                    if waiter is not None and not waiter.done():
                        waiter.set_result(reply)
                self._pass_text(exchange.take_text())
        except LinkLost as error:
            self._end(error)
        except McumgrError as error:
            self._end(LinkLost(f"the link failed: {error}", hint=error.hint))
        except Exception as error:  # a transport that raises what it should not: still nobody may hang
            log.exception("%r failed while receiving", self._transport)
            self._end(LinkLost(f"the link failed: {error!r}"))

    def _pass_text(self, data: bytes) -> None:
        if data and (text := self._decoder.decode(data)):
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
        for waiter in set(self._waiters.values()):
            if not waiter.done():
                waiter.set_exception(_copy(reason))
        self._gate.wake_all()

    def _raise_if_ended(self) -> None:
        if self._ended is not None and self._ended.done():
            raise _copy(self._ended.result())

    def _open_exchange(self) -> Exchange:
        if self._exchange is None:
            raise RuntimeError("the client is not open")
        self._raise_if_ended()
        return self._exchange


def _copy(reason: LinkLost) -> LinkLost:
    copy = LinkLost(reason.message, address=reason.address, hint=reason.hint)
    copy.__cause__ = reason
    return copy


class _Gate:
    """Lets a number of tasks in at once, first come first served; the number may change while they wait."""

    def __init__(self, limit: int) -> None:
        self._limit = max(1, limit)
        self._inside = 0
        self._queue: deque[asyncio.Future[None]] = deque()

    def set_limit(self, limit: int) -> None:
        self._limit = max(1, limit)
        self._admit()

    def wake_all(self) -> None:
        """Let everybody through: the link has ended, and each finds out for itself."""
        self._limit = 2**31
        self._admit()

    async def __aenter__(self) -> None:
        if self._inside < self._limit and not self._queue:
            self._inside += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # admitted and cancelled at once
            else:
                self._queue.remove(turn)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._inside -= 1
        self._admit()

    def _admit(self) -> None:
        while self._queue and self._inside < self._limit:
            turn = self._queue.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)
