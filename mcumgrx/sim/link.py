"""Links to a simulated device: how bytes travel, how long it takes, and what goes wrong on the way.

`SimulatedTransport` is a `Transport` like any other; it works in the loop that opens it, in virtual or in real time.
It needs no task: everything that happens later is a timer of the loop, and a loop that ends takes them with it.
`Runner` is what keeps a device going in a loop; other servers of a simulated device (a pty, a socket) use it too.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from mcumgrx.errors import ConnectFailed, DeviceNotFound, LinkLost, McumgrError, UsageError
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.console import ConsoleFraming
from mcumgrx.protocol.framing import DatagramFraming, Framing, StreamFraming
from mcumgrx.protocol.header import HEADER_SIZE, REPLY_OPS
from mcumgrx.sim.device import Answer, Power, SimulatedDevice
from mcumgrx.sim.groups import HandlerFailed
from mcumgrx.transport import Flow, Limits, Transport

__all__ = ["Faults", "LinkModel", "Runner", "SimulatedTransport", "runner_of"]

ALL_OPS = 0xFF
"""A server looks at messages of every op, if only to refuse them."""

LinkKind = Literal["stream", "datagram", "console"]
ServerKind = Literal["plain", "uart", "raw", "shell"]

UDP_MTU = 1500
"""Zephyr's receive buffer for datagrams; what is longer is cut."""
SHELL_LINES = 2
"""Line buffers of the shell transport (`CONFIG_MCUMGR_TRANSPORT_SHELL_RX_BUF_COUNT`)."""
SHELL_TEXT_S = 0.05
"""How long the shell is busy with text: a message that comes earlier is taken for more of it."""
RAW_CHUNK_BYTES = 32
"""How finely the arrival of bytes is told apart on a raw UART, where a write holds more than a message."""
LINE_MARKERS = (b"\x06\x09", b"\x04\x14")


@dataclass(frozen=True, slots=True)
class LinkModel:
    """One kind of link. Sizes in bytes, times in seconds; the same in both directions.

    Attributes:
        kind: `stream` (BLE, raw UART), `datagram` (UDP) or `console` (lines of text, between which the device prints).
        server: what the device does with more than it can take: `plain` loses the message (Bluetooth LE, UDP), `raw`
            (UART) crashes, `uart` and `shell` lose lines, and crash where the lines were enough. See `Runner`.
        bootloader: whether the bootloader's recovery is reached over this link.
        gap_s: between the messages of a host that sends several at once.
        latency_s: from the last bit sent to its arrival.
        bytes_per_s: None for no limit.
        write_bytes: largest single write or fragment; None for no limit.
        safe_message: largest message for a device that does not tell its buffers; None for what kind and writes allow.
        max_message: largest message that the link carries.
        queue_s: how many seconds' worth of bytes the host takes ahead of the link before `send` waits.
        reassembles: whether the device puts several writes together; without, each write is a message of its own.
        drops_on_reset: whether the link ends when the device resets.
        notice_s: how long the host takes to notice that the link has ended.
        connect_s: how long opening takes, when the device is there.
        quiet_after_reset_s, silent_boot: see `Transport`.
    """

    kind: LinkKind = "stream"
    server: ServerKind = "plain"
    bootloader: bool = True
    gap_s: float = 0.0
    latency_s: float = 0.0
    bytes_per_s: float | None = None
    write_bytes: int | None = None
    safe_message: int | None = None
    max_message: int = 8 + 0xFFFF
    queue_s: float = 0.0
    reassembles: bool = True
    drops_on_reset: bool = True
    notice_s: float = 0.0
    connect_s: float = 0.0
    quiet_after_reset_s: float = 2.0
    silent_boot: bool = False

    def __post_init__(self) -> None:
        if self.bytes_per_s is not None and self.bytes_per_s <= 0:
            raise UsageError(f"a link cannot carry {self.bytes_per_s} bytes per second")
        if self.write_bytes is not None and self.write_bytes < HEADER_SIZE:
            raise UsageError(f"writes of {self.write_bytes} bytes cannot carry a header")

    @classmethod
    def ideal(cls) -> Self:
        """No delay, no limits; the link drops when the device resets."""
        return cls()

    @classmethod
    def ble(cls, mtu: int = 247, interval_s: float = 0.03, *, packets: int = 4, reassembles: bool = True) -> Self:
        """Roughly a BLE connection: `packets` of `mtu` - 3 bytes in each connection interval of `interval_s`.

        The host takes half a second's worth of writes at once, as BlueZ does, and notices a lost link 0.42 s late,
        the supervision time-out that Zephyr asks for.
        """
        return cls(
            bootloader=False,
            latency_s=interval_s,
            bytes_per_s=packets * (mtu - 3) / interval_s,
            write_bytes=mtu - 3,
            reassembles=reassembles,
            queue_s=0.5,
            notice_s=0.42,
            connect_s=0.5,
        )

    @classmethod
    def uart(cls, baud: int = 115200, *, raw: bool = False) -> Self:
        """A UART with 10 bits per byte; it stays open through a reset. Console framing unless `raw`."""
        return cls(
            kind="stream" if raw else "console",
            server="raw" if raw else "uart",
            bytes_per_s=baud / 10,
            queue_s=0.1,
            drops_on_reset=False,
            quiet_after_reset_s=3.0,
            silent_boot=True,
        )

    @classmethod
    def shell(cls, baud: int = 115200) -> Self:
        """A UART with an interactive shell, which takes messages between its lines."""
        return replace(cls.uart(baud), server="shell")

    @classmethod
    def datagram(cls, latency_s: float = 0.001) -> Self:
        """Something like UDP in a local network: stays open through a reset, and packets sent meanwhile are lost."""
        return cls(kind="datagram", bootloader=False, latency_s=latency_s, max_message=1472, drops_on_reset=False)

    def framing(self, ops: int = REPLY_OPS) -> Framing:
        """A new framing for one end of the link."""
        if self.kind == "console":
            return ConsoleFraming(ops=ops)
        return DatagramFraming(ops=ops) if self.kind == "datagram" else StreamFraming(ops=ops)

    @property
    def limits(self) -> Limits:
        if self.kind == "console":
            safe, maximum = ConsoleFraming().one_line, min(self.max_message, ConsoleFraming.MAX_MESSAGE)
            overhead = ConsoleFraming.OVERHEAD
        else:
            safe, maximum, overhead = self.write_bytes or 256, self.max_message, 0
        if not self.reassembles and self.write_bytes is not None:
            maximum = min(maximum, self.write_bytes)
        return Limits(self.safe_message or safe, maximum, self.write_bytes, overhead)

    @property
    def flow(self) -> Flow:
        """What the transport of such a link says."""
        if self.server == "plain":
            return Flow(
                strict=False, paced=self.kind == "datagram", faster="a link that carries more, such as speed=1e6"
            )
        faster = "a higher baud rate, if the device has one, such as baud=1000000"
        return Flow(most={"raw": 1, "shell": SHELL_LINES}.get(self.server), faster=faster)


Selector = int | Collection[int] | Callable[[int, bytes], bool]
"""Which messages: a number, several, or a function of number and whole message (header and payload)."""


@dataclass(slots=True)
class Faults:
    """What goes wrong, message by message.

    Requests and answers are counted from 1 each, over all connections; `requests` and `replies` tell how many there
    were. A delayed message is overtaken by those behind it. When the link is cut at a message, that one is lost too.

    ::

        Faults(drop_replies=3)                            the answer to the third request is lost
        Faults(cut_at_request={5, 9}, delay_replies={2: 7.0})
        Faults(drop_requests=lambda number, message: message[7] == 1)
    """

    drop_requests: Selector = ()
    drop_replies: Selector = ()
    duplicate_requests: Selector = ()
    duplicate_replies: Selector = ()
    delay_requests: Mapping[int, float] = field(default_factory=dict)
    delay_replies: Mapping[int, float] = field(default_factory=dict)
    cut_at_request: Selector = ()
    cut_at_reply: Selector = ()
    requests: int = 0
    replies: int = 0

    @property
    def look(self) -> bool:
        """Whether it takes more than a message's number to decide about it."""
        chosen = self.drop_requests, self.duplicate_requests, self.cut_at_request
        return any(map(callable, (*chosen, self.drop_replies, self.duplicate_replies, self.cut_at_reply)))

    def request(self, message: bytes) -> _Fate:
        """What becomes of the next request."""
        self.requests += 1
        if not (self.drop_requests or self.duplicate_requests or self.cut_at_request or self.delay_requests):
            return _UNHARMED
        number = self.requests
        return _Fate(
            cut=_selected(self.cut_at_request, number, message),
            copies=_copies(self.drop_requests, self.duplicate_requests, number, message),
            delay_s=self.delay_requests.get(number, 0.0),
        )

    def reply(self, message: bytes) -> _Fate:
        """What becomes of the next answer."""
        self.replies += 1
        if not (self.drop_replies or self.duplicate_replies or self.cut_at_reply or self.delay_replies):
            return _UNHARMED
        number = self.replies
        return _Fate(
            cut=_selected(self.cut_at_reply, number, message),
            copies=_copies(self.drop_replies, self.duplicate_replies, number, message),
            delay_s=self.delay_replies.get(number, 0.0),
        )


@dataclass(frozen=True, slots=True)
class _Fate:
    cut: bool
    copies: int
    delay_s: float


_UNHARMED = _Fate(cut=False, copies=1, delay_s=0.0)


def _selected(selector: Selector, number: int, message: bytes) -> bool:
    if callable(selector):
        return selector(number, message)
    return number == selector if isinstance(selector, int) else number in selector


def _copies(drop: Selector, duplicate: Selector, number: int, message: bytes) -> int:
    if _selected(drop, number, message):
        return 0
    return 2 if _selected(duplicate, number, message) else 1


class Agenda:
    """What is to happen when; at the same time, in the order it was added, which the loop's timers do not promise."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._entries: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._added = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def add(self, delay_s: float, function: Callable[..., None], *arguments: object) -> None:
        self._added += 1
        at = self._loop.time() + delay_s
        heapq.heappush(self._entries, (at, self._added, function, arguments))
        if at < self._timer_at:
            self._plan()

    def due(self, now: float) -> bool:
        """Whether there is something that should have happened by `now`, and so comes before anything new."""
        return bool(self._entries) and self._entries[0][0] <= now

    def __bool__(self) -> bool:
        return bool(self._entries)

    def clear(self) -> None:
        self._entries.clear()
        self._plan()

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = math.inf
        if self._entries:
            self._timer_at = self._entries[0][0]
            self._timer = self._loop.call_at(self._timer_at, self._run)

    def _run(self) -> None:
        self._timer = None
        self._timer_at = -math.inf  # what is added meanwhile needs no timer of its own
        try:
            while self._entries and self._entries[0][0] <= self._loop.time():
                _, _, function, arguments = heapq.heappop(self._entries)
                function(*arguments)
        finally:
            self._plan()


class Runner:
    """One device going in one loop: requests wait their turn, and what the device does by itself happens in time.

    All links to a device in the same loop share its runner (`runner_of`), as the transports of a Zephyr device share
    one work queue and one pool of buffers. A request occupies a buffer until it is answered, and its answer another.
    Where there is none, it depends on the transport of the server:

    * `plain`: the request is lost. One that arrives in the same moment as others is taken up before the next arrives,
      and where that takes no time, it has been answered as well.
    * `raw`, `uart`, `shell`: the device crashes (Zephyr 4.4 takes the missing buffer for one). Requests that arrive in
      the same moment are all there before the first is taken up; if they leave no buffer for its answer, that is
      `rc` 2, and it is not executed.

    The bootloader has one buffer, whatever the transport: one request waits in it while another is being answered.

    Who serves the device to other processes sets `held_up` after this one has stood still: what they have sent
    meanwhile arrives in one moment, which a device that had gone on working would have taken bit by bit.
    """

    def __init__(self, device: SimulatedDevice, loop: asyncio.AbstractEventLoop) -> None:
        self.device = device
        self.loop = loop
        self.held_up = False
        """Whether everything finds a buffer."""
        self.lost = 0
        """Requests that found no free buffer, without those that made the device crash."""
        self.lost_lines = 0
        """Lines of console framing that found no free line buffer."""
        self.failed: list[Callable[[McumgrError], None]] = []
        """Called when the device itself has a mistake, in one of its groups most likely."""
        self.failure: McumgrError | None = None
        """That mistake. The device does nothing any more in this loop."""
        self.idle: list[Callable[[], None]] = []
        """Called whenever the last request has been answered."""
        self.agenda = Agenda(loop)
        """What the links have under way."""
        self._queue: deque[tuple[bytes, Callable[[bytes], None], bool]] = deque()
        self._work: asyncio.TimerHandle | None = None
        self._starting: asyncio.Handle | None = None
        self._taking = False  # in the midst of requests that take no time
        self._wake: asyncio.TimerHandle | None = None
        self._wake_at: float | None = None
        device.listeners.append(self._power_changed)

    def advance(self) -> Power:
        """Bring the device to the present; returns what it is doing."""
        try:
            self.device.advance(self.loop.time())
            self._plan()
        except Exception as error:
            self._fail(error)
        return self.device.power

    def _fail(self, error: Exception) -> None:
        """What the device's own code raises goes to its links: in a timer it would be a line in a log, and silence."""
        self._forget_requests()
        self._wake_up_at(None)
        mistake = error if isinstance(error, McumgrError) else HandlerFailed("its own code", error)
        self.failure = self.failure or mistake
        for tell in list(self.failed):
            tell(mistake)

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, or about to be."""
        return self._work is not None or bool(self._queue)

    @property
    def at_rest(self) -> bool:
        """Whether nothing is on its way to the device or from it, either."""
        return not self.busy and not self.agenda

    def submit(self, message: bytes, reply: Callable[[bytes], None], server: ServerKind = "plain") -> None:
        """A request has arrived; `reply` is called with each answer, when the device sends it."""
        self.advance()
        if not self.device.answering or self.failure is not None:
            return
        serial = server != "plain"
        used = len(self._queue)
        if self._work is not None:
            used += 2  # the request being carried out, and its answer
        elif not serial and self._starting is None:
            used += 1  # the answer to this one, which is taken up at once
        if self.held_up:
            pass
        elif self.device.in_bootloader:
            if len(self._queue) + (self._work is not None) >= 2:
                self.lost += 1
                return
        elif used >= self.device.config.buf_count:
            if serial:
                self.device.crash(self.loop.time())
                self._plan()
            else:
                self.lost += 1
            return
        self._queue.append((message, reply, serial))
        if self._work is None and self._starting is None and not self._taking:
            if serial:
                self._starting = self.loop.call_soon(self._next)
            else:
                self._next()

    def take_up(self) -> None:
        """All that arrives in this moment has arrived: begin with it now, and not in the next turn of the loop."""
        if self._starting is not None:
            self._starting.cancel()
            self._next()

    def stop(self) -> None:
        """Let go of the device: another loop has taken it over."""
        self._forget_requests()
        self._wake_up_at(None)
        self.agenda.clear()
        if self._power_changed in self.device.listeners:
            self.device.listeners.remove(self._power_changed)

    def _next(self) -> None:
        """Take up what waits, one by one, until something takes time."""
        self._starting = None
        self._taking = True
        try:
            while self._queue and self._work is None:
                message, reply, serial = self._queue.popleft()
                now = self.loop.time()
                crowded = len(self._queue) + 1 >= self.device.config.buf_count and not self.held_up
                if serial and crowded and not self.device.in_bootloader:
                    answer = Answer(self.device.no_memory(message), self.device.config.request_s)
                else:
                    answer = self.device.handle(message, now)
                    self._plan()
                if answer.busy_s > 0:
                    self._work = self.loop.call_later(answer.busy_s, self._answered, answer.replies, reply)
                else:
                    for one in answer.replies:
                        reply(one)
        except Exception as error:
            self._fail(error)
        finally:
            self._taking = False
        if not self.busy:
            for tell in list(self.idle):
                tell()

    def _answered(self, replies: tuple[bytes, ...], reply: Callable[[bytes], None]) -> None:
        self._work = None
        try:
            for message in replies:
                reply(message)
        except Exception as error:
            self._fail(error)
        if self._work is None and self._starting is None:
            self._next()

    def _plan(self) -> None:
        if self.device.deadline != self._wake_at:
            self._wake_up_at(self.device.deadline)

    def _wake_up_at(self, at: float | None) -> None:
        if self._wake is not None:
            self._wake.cancel()
            self._wake = None
        self._wake_at = at
        if at is not None:
            self._wake = self.loop.call_at(at, self._awake)

    def _awake(self) -> None:
        self._wake = self._wake_at = None
        self.advance()

    def _power_changed(self, power: Power) -> None:
        if power not in (Power.RUNNING, Power.RECOVERY):
            self._forget_requests()

    def _forget_requests(self) -> None:
        self._queue.clear()
        if self._starting is not None:
            self._starting.cancel()
            self._starting = None
        if self._work is not None:
            self._work.cancel()
            self._work = None


def runner_of(device: SimulatedDevice) -> Runner:
    """The runner of `device` in the running loop; that of an earlier loop lets go of it."""
    loop = asyncio.get_running_loop()
    runner = device.runner
    if isinstance(runner, Runner):
        if runner.loop is loop:
            return runner
        runner.stop()
    runner = device.runner = Runner(device, loop)
    return runner


class SimulatedTransport(Transport):
    """A link to `device` as `model` describes it, with `faults`."""

    def __init__(
        self, device: SimulatedDevice, model: LinkModel | None = None, *, faults: Faults | None = None
    ) -> None:
        self.device = device
        self.model = model if model is not None else LinkModel.ideal()
        self.faults = faults if faults is not None else Faults()
        # Other transports have these as constants of their class.
        self.quiet_after_reset_s = self.model.quiet_after_reset_s
        self.silent_boot = self.model.silent_boot
        self._limits = self.model.limits
        self._runner: Runner | None = None
        self._lost: McumgrError | None = None
        self._severed = False  # the link has ended, though the host may not have noticed
        self._inbox: deque[bytes] = deque()
        self._outlet: Callable[[bytes], None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._connection = 0  # counts openings, so that answers to an earlier one go nowhere
        self._uplink = _Pipe(self.model)
        self._downlink = _Pipe(self.model)
        self._to_device = self.model.framing(ALL_OPS)
        self._to_host = self.model.framing()
        self._lines = _LineInput(self)
        self._printed = 0  # the start whose banner has been shown

    def __repr__(self) -> str:
        return f"<SimulatedTransport to {self.device!r}>"

    @property
    def identity(self) -> str | None:
        return f"sim:{self.device.name}" if self.device.name else None

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def flow(self) -> Flow:
        return self.model.flow

    def framing(self) -> Framing:
        return self.model.framing()

    # -- opening and closing ------------------------------------------------------------------------------------------

    async def open(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for a device that is restarting, on links that end with a reset."""
        self._shut()
        runner = runner_of(self.device)
        runner.advance()
        if runner.failure is not None:
            raise runner.failure
        if self.model.drops_on_reset:
            await self._wait_running(runner, timeout_s)
        if self.model.connect_s:
            if self.model.connect_s > timeout_s:
                await asyncio.sleep(timeout_s)
                raise ConnectFailed(f"{self._named()} did not connect within {timeout_s:g} s")
            await asyncio.sleep(self.model.connect_s)
        self._connection += 1
        self._runner = runner
        self._lost = None
        self._severed = False
        self._inbox.clear()
        now = runner.loop.time()
        self._uplink.clear(now)
        self._downlink.clear(now)
        self._to_device = self.model.framing(ALL_OPS)
        self._to_host = self.model.framing()
        self._lines.clear()
        self.device.listeners.append(self._power_changed)
        runner.idle.append(self._lines.pump)
        runner.failed.append(self._end)

    def _reachable(self) -> bool:
        """Whether the device takes requests from this link."""
        return self.device.answering and (self.model.bootloader or not self.device.in_bootloader)

    async def _wait_running(self, runner: Runner, timeout_s: float) -> None:
        running: asyncio.Future[None] = runner.loop.create_future()

        def listen(power: Power) -> None:
            if self._reachable() and not running.done():
                running.set_result(None)

        runner.advance()
        if self._reachable():
            return
        self.device.listeners.append(listen)
        try:
            await asyncio.wait([running], timeout=timeout_s)
        finally:
            self.device.listeners.remove(listen)
            running.cancel()
        power = runner.advance()
        if self._reachable():
            return
        if power is Power.BOOTING:
            raise ConnectFailed(
                f"{self._named()} is still starting after {timeout_s:g} s", hint="try again, with a longer time-out"
            )
        why = {
            Power.DEAD: "its bootloader found no image to run",
            Power.RECOVERY: "it is in its bootloader's recovery, which has no such link",
        }.get(power, "its application has crashed")
        raise DeviceNotFound(f"{self._named()} does not answer: {why}")

    async def close(self) -> None:
        self._shut()

    def _shut(self) -> None:
        self._end(LinkLost("the link was closed"))
        self._runner = None

    def cut(self, reason: str = "the link was cut") -> None:
        """End the link now, as an unplugged cable does."""
        self._end(LinkLost(reason))

    def _end(self, reason: McumgrError) -> None:
        if self._lost is not None or self._runner is None:
            return
        self._lost = reason
        if self._power_changed in self.device.listeners:
            self.device.listeners.remove(self._power_changed)
        if self._lines.pump in self._runner.idle:
            self._runner.idle.remove(self._lines.pump)
        if self._end in self._runner.failed:
            self._runner.failed.remove(self._end)
        self._severed = True
        self._wake_receiver()

    def _power_changed(self, power: Power) -> None:
        if self._lost is not None:
            return
        if power is Power.BOOTING:
            self._to_device.reset()
            self._lines.clear()
        if self.model.kind == "console":
            self._print(power)
        if self._reachable() or not self.model.drops_on_reset or self._severed:
            return
        self._severed = True
        reason = LinkLost(f"{self._named()} has reset", hint="it may come back: connect again")
        if self.model.notice_s:
            self._later(self.model.notice_s, self._noticed, self._connection, reason)
        else:
            self._end(reason)

    def _noticed(self, connection: int, reason: LinkLost) -> None:
        if connection == self._connection:
            self._end(reason)

    def _print(self, power: Power) -> None:
        """What a device writes on its console as it starts."""
        result = self.device.boot_result
        lines = []
        if power is Power.BOOTING and result is not None and self._printed != self.device.boots:
            self._printed = self.device.boots
            lines = ["*** Booting MCUboot ***", *(f"I: {note}" for note in result.notes)]
        elif power in (Power.RUNNING, Power.HUNG) and result is not None:
            lines = [f"*** Booting Zephyr OS, application {result.version} ***"]
        text = "".join(f"{line}\r\n" for line in lines).encode()
        if text and self._runner is not None:
            now = self._runner.loop.time()
            self._later(self._downlink.carry(now, len(text)) - now, self._deliver, self._connection, text)

    def _named(self) -> str:
        return f"the simulated device {self.device.name}" if self.device.name else "the simulated device"

    # -- bytes --------------------------------------------------------------------------------------------------------

    async def send(self, writes: Sequence[bytes]) -> None:
        self._hand_over(tuple(writes), at_once=False)
        ahead_s = self.queued_s() - self.model.queue_s
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)
            if self._lost is not None:
                raise self._open_error()

    def offer(self, writes: Sequence[bytes]) -> bool:
        if self.queued_s() > self.model.queue_s:
            return False  # `send` waits
        self._hand_over(tuple(writes), at_once=False)
        return True

    def put(self, data: bytes) -> float:
        """For who offers the link to others: `send` of one write, without waiting.

        What takes no time has happened when this returns, the answers included, unlike after `send`. Returns how many
        seconds `send` would have waited. Raises `LinkLost`.
        """
        self._hand_over((data,), at_once=True)
        if self._runner is not None:
            self._runner.take_up()
        return max(0.0, self.queued_s() - self.model.queue_s)

    def lead_out(self, outlet: Callable[[bytes], None] | None) -> None:
        """Call `outlet` with what the device sends, in the moment it arrives, in place of keeping it for `receive`.

        `receive` then ends as the link does.
        """
        self._outlet = outlet

    def _hand_over(self, writes: tuple[bytes, ...], *, at_once: bool) -> None:
        runner = self._open_runner()
        model, uplink, connection = self.model, self._uplink, self._connection
        if model.write_bytes is not None and max(map(len, writes), default=0) > model.write_bytes:
            raise ValueError(
                f"a write of more than {model.write_bytes} bytes was handed to a link that does not take it"
            )
        now = runner.loop.time()
        parts: list[tuple[float, tuple[bytes, ...]]] = []
        for part in self._parts(writes):
            arrival = now
            for write in part:
                arrival = uplink.carry(now, len(write))
            parts.append((arrival, part))
        uplink.wait(model.gap_s)
        # What becomes of a message is decided once for all of its writes.
        faults = self.faults
        fate = faults.request(self._bare(b"".join(writes)) if faults.look else b"")
        if fate.cut:
            self.cut()
            raise self._open_error()
        for _ in range(fate.copies):
            for arrival, part in parts:
                delay_s = arrival + fate.delay_s - now
                if at_once and delay_s <= 0 and not runner.agenda.due(now):
                    self._arrived(connection, part)
                else:
                    self._later(delay_s, self._arrived, connection, part)

    def _parts(self, writes: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
        """What arrives at once: a message, of which only the last byte matters.

        Who knows nothing of messages (a terminal, a socket) may write several in one go, or parts of them; over a slow
        wire they arrive one after the other all the same.
        """
        whole = [writes]
        if self.model.bytes_per_s is None or self.model.server == "plain":
            return whole
        content = b"".join(writes)
        if self.model.kind == "console":
            first, *others = content.split(b"\n" + LINE_MARKERS[0])
            if not others:
                return whole
            ends = [*(b"\n" for _ in others), b""]
            starts = [b"", *(LINE_MARKERS[0] for _ in others)]
            return [(start + part + end,) for start, part, end in zip(starts, [first, *others], ends, strict=True)]
        return [(content[at : at + RAW_CHUNK_BYTES],) for at in range(0, len(content), RAW_CHUNK_BYTES)]

    async def receive(self) -> bytes:
        while not self._inbox:
            if self._lost is not None and not isinstance(self._lost, LinkLost):
                raise self._lost  # a mistake in the device: no lost link, after which a client would connect again
            if self._lost is not None or self._runner is None:
                raise self._open_error()
            self._waiter = self._open_runner().loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._inbox.popleft()

    def queued_s(self) -> float:
        return self._uplink.busy_s(self._runner.loop.time()) if self._runner is not None else 0.0

    def _open_runner(self) -> Runner:
        if self._runner is None or self._lost is not None:
            raise self._open_error()
        return self._runner

    def _open_error(self) -> LinkLost:
        reason = self._lost
        return LinkLost("the link is not open") if reason is None else LinkLost(reason.message, hint=reason.hint)

    def _later(self, delay_s: float, function: Callable[..., None], *arguments: object) -> None:
        # At least one turn of the loop, so that nobody hears back from within `send`.
        self._open_runner().agenda.add(max(0.0, delay_s), function, *arguments)

    def _bare(self, message: bytes) -> bytes:
        """The message as faults look at it, without the link's framing."""
        if self.model.kind != "console":
            return message
        found = self.model.framing(ALL_OPS).feed(message)
        return build_message(*found[0]) if found else message

    def _arrived(self, connection: int, writes: tuple[bytes, ...]) -> None:
        runner = self._runner
        if runner is None or self._severed or connection != self._connection:
            return
        if self.device.in_bootloader and not self.model.bootloader:
            return

        def reply(message: bytes) -> None:
            self._answered(connection, message)

        model = self.model
        if model.server in ("uart", "shell"):
            self._lines.feed(b"".join(writes), reply)
            return
        for write in writes:
            if model.kind == "datagram" or not model.reassembles:
                runner.submit(write[:UDP_MTU] if model.kind == "datagram" else write, reply, model.server)
                continue
            for found in self._to_device.feed(write):
                message = build_message(*found)
                if model.kind == "console" and len(message) + ConsoleFraming.OVERHEAD > self.device.config.buf_size:
                    continue
                runner.submit(message, reply, model.server)

    def _answered(self, connection: int, message: bytes) -> None:
        runner = self._runner
        if runner is None or self._lost is not None or self._severed or connection != self._connection:
            return
        fate = self.faults.reply(message)
        if fate.cut:
            self.cut()
            return
        now = runner.loop.time()
        for _ in range(fate.copies):
            # Fragments of one answer travel one by one, except where it is delayed as a whole.
            for chunk in self._to_host.encode(message, self.model.write_bytes):
                delay_s = self._downlink.carry(now, len(chunk)) + fate.delay_s - now
                if delay_s <= 0 and not runner.agenda.due(now):
                    self._deliver(connection, chunk)
                else:
                    self._later(delay_s, self._deliver, connection, chunk)

    def _deliver(self, connection: int, chunk: bytes) -> None:
        if connection != self._connection or self._lost is not None or self._severed:
            return
        if self._outlet is not None:
            self._outlet(chunk)
        else:
            self._inbox.append(chunk)
            self._wake_receiver()

    def _wake_receiver(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _LineInput:
    """The lines of console framing on their way into the device, through line buffers that a burst overruns.

    In the application each line occupies a buffer until the server has emptied it, a short time; what finds none is
    lost, and with it the message, without a word. In the bootloader lines wait until it has done with the message
    before.
    """

    def __init__(self, transport: SimulatedTransport) -> None:
        self._transport = transport
        self._rest = b""
        self._free_at: deque[float] = deque()  # when the buffers in use will be free
        self._waiting: deque[tuple[bytes, Callable[[bytes], None]]] = deque()
        self._typed_at = float("-inf")  # when text came that was no message

    def clear(self) -> None:
        self._rest = b""
        self._free_at.clear()
        self._waiting.clear()
        self._typed_at = float("-inf")

    def feed(self, chunk: bytes, reply: Callable[[bytes], None]) -> None:
        """Bytes of which the last has just arrived, the others as much earlier as the link is slow."""
        transport = self._transport
        runner = transport._open_runner()
        device = transport.device
        runner.advance()
        now = runner.loop.time()
        if transport.model.server == "shell" and not device.in_bootloader:
            text = not self._rest and not chunk.startswith(LINE_MARKERS)
            if text or (now < self._typed_at + SHELL_TEXT_S and not runner.held_up):
                # The shell is at work on what was typed, and takes what follows for more of it.
                self._typed_at = now
                self._rest = b""
                transport._to_device.reset()
                return
        if not device.answering:
            self._rest = b""
            return
        # What came of the first line before was earlier still.
        behind = len(self._rest) + len(chunk)
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()[-device.config.line_size :]
        rate = transport.model.bytes_per_s
        if device.recovery is not None and device.in_bootloader:
            for line in lines:
                self._arrived(line + b"\n", reply)
        elif transport.model.server == "shell":
            for line in lines:
                behind -= len(line) + 1
                if self._find_buffer(SHELL_LINES, now - (behind / rate if rate else 0.0)):
                    self._take([line], reply)
        else:
            count = device.config.line_count
            if count is not None:
                taken = []
                for line in lines:
                    behind -= len(line) + 1
                    if self._find_buffer(count, now - (behind / rate if rate else 0.0)):
                        taken.append(line)
                lines = taken
            self._take(lines, reply)

    def pump(self) -> None:
        """The bootloader has done with a message: on to the lines that have been waiting."""
        runner = self._transport._runner
        while self._waiting and runner is not None and not runner.busy:
            self._take_in_bootloader(*self._waiting.popleft())

    def _arrived(self, line: bytes, reply: Callable[[bytes], None]) -> None:
        """A line for the bootloader."""
        runner, recovery = self._transport._open_runner(), self._transport.device.recovery
        assert recovery is not None
        if not runner.busy and not self._waiting:
            self._take_in_bootloader(line, reply)
        elif len(self._waiting) < recovery.config.line_count or runner.held_up:
            self._waiting.append((line, reply))
        else:
            runner.lost_lines += 1

    def _find_buffer(self, count: int, at: float) -> bool:
        """Whether one of `count` buffers is free for a line that came at `at`; it is in use then."""
        if self._transport._open_runner().held_up:
            return True
        free_at = self._free_at
        while free_at and free_at[0] <= at:
            free_at.popleft()
        if len(free_at) >= count:
            self._transport._open_runner().lost_lines += 1
            return False
        free_at.append(max(at, free_at[-1] if free_at else at) + self._transport.device.config.line_s)
        return True

    def _take(self, lines: list[bytes], reply: Callable[[bytes], None]) -> None:
        """Lines without their newlines, for the application."""
        transport = self._transport
        config = transport.device.config
        size = config.line_size
        whole = [line for line in lines if len(line) < size and line.startswith(LINE_MARKERS)]
        if whole:
            # Length, message and CRC share the buffer.
            self._submit(b"\n".join((*whole, b"")), config.buf_size, reply)
        elif transport.model.server == "shell" and any(len(line) < size for line in lines):
            transport._to_device.reset()

    def _take_in_bootloader(self, line: bytes, reply: Callable[[bytes], None]) -> None:
        device = self._transport.device
        recovery = device.recovery if device.in_bootloader else None
        if recovery is None:
            self._take([line.removesuffix(b"\n")], reply)
        # It takes one byte off the end, and then meets a character that is no base64.
        elif len(line) <= device.config.line_size and line.startswith(LINE_MARKERS) and not line.endswith(b"\r\n"):
            self._submit(line, recovery.config.buf_size + 1, reply)  # its buffer has a byte more

    def _submit(self, lines: bytes, room: int, reply: Callable[[bytes], None]) -> None:
        transport = self._transport
        for found in transport._to_device.feed(lines):
            message = build_message(*found)
            if len(message) + ConsoleFraming.OVERHEAD <= room:
                transport._open_runner().submit(message, reply, transport.model.server)


class _Pipe:
    """One direction of a link: bytes follow each other."""

    def __init__(self, model: LinkModel) -> None:
        self._model = model
        self._free_at = 0.0

    def clear(self, now: float) -> None:
        self._free_at = now

    def carry(self, now: float, size: int) -> float:
        """When the last of `size` bytes, handed over at `now`, arrives."""
        self._free_at = max(now, self._free_at)
        if self._model.bytes_per_s is not None:
            self._free_at += size / self._model.bytes_per_s
        return self._free_at + self._model.latency_s

    def wait(self, gap_s: float) -> None:
        """Let the next bytes begin so much later."""
        self._free_at += gap_s

    def busy_s(self, now: float) -> float:
        return max(0.0, self._free_at - now)
