"""What keeps a simulated device going in an event loop: requests wait their turn, and everything happens in time.

It needs no task: everything that happens later is a timer of the loop, and a loop that ends takes them with it.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable

from mcumgrx.errors import McumgrError
from mcumgrx.sim.device import Answer, Power, SimulatedDevice
from mcumgrx.sim.groups import HandlerFailed
from mcumgrx.sim.link_model import ServerKind


class Agenda:
    """What is to happen when; at the same time, in the order it was added, which the loop's timers do not promise.

    What comes late, because the program has stood still or the computer is busy, finds in `now` the time at which it
    was due: a device is not overrun by what was to come bit by bit.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._entries: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._added = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._due_at: float | None = None  # of what is happening just now

    @property
    def now(self) -> float:
        return self._loop.time() if self._due_at is None else self._due_at

    def add(self, delay_s: float, function: Callable[..., None], *arguments: object) -> None:
        self._added += 1
        at = self.now + delay_s
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
                self._due_at, _, function, arguments = heapq.heappop(self._entries)
                function(*arguments)
        finally:
            self._due_at = None
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
        self._work: tuple[tuple[bytes, ...], Callable[[bytes], None]] | None = None  # the answers to come, and where to
        self._starting: object | None = None  # the turn in which what has arrived is taken up
        self._gathering = False  # more arrives in this moment, behind which `take_up` is called
        self._taking = False  # in the midst of requests that take no time
        self._clock = -math.inf  # the device's, which runs forward only
        self._wake: asyncio.TimerHandle | None = None
        self._wake_at: float | None = None
        device.listeners.append(self._power_changed)

    def advance(self) -> Power:
        """Bring the device to the present; returns what it is doing."""
        try:
            self.device.advance(self._time())
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
                self.device.crash(self._time())
                self._plan()
            else:
                self.lost += 1
            return
        self._queue.append((message, reply, serial))
        if self._work is None and self._starting is None and not self._taking:
            if not serial:
                self._next()
            elif not self._gathering:
                self._starting = object()
                self.agenda.add(0.0, self._start, self._starting)

    def gather(self) -> None:
        """What arrives from now on arrives in one moment, until `take_up`."""
        self._gathering = True

    def take_up(self) -> None:
        """All that arrives in this moment has arrived: begin with it now, and not in the next turn of the loop."""
        self._gathering = False
        if self._queue and self._work is None and not self._taking:
            self._next()

    def stop(self) -> None:
        """Let go of the device: another loop has taken it over."""
        self._forget_requests()
        self._wake_up_at(None)
        self.agenda.clear()
        if self._power_changed in self.device.listeners:
            self.device.listeners.remove(self._power_changed)

    def _time(self) -> float:
        self._clock = max(self._clock, self.agenda.now)
        return self._clock

    def _start(self, turn: object) -> None:
        if turn is self._starting:
            self._next()

    def _next(self) -> None:
        """Take up what waits, one by one, until something takes time."""
        self._starting = None
        self._taking = True
        try:
            while self._queue and self._work is None:
                message, reply, serial = self._queue.popleft()
                crowded = len(self._queue) + 1 >= self.device.config.buf_count and not self.held_up
                if serial and crowded and not self.device.in_bootloader:
                    answer = Answer(self.device.no_memory(message), self.device.config.request_s)
                else:
                    answer = self.device.handle(message, self._time())
                    self._plan()
                if answer.busy_s > 0:
                    self._work = answer.replies, reply
                    self.agenda.add(answer.busy_s, self._answered, self._work)
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

    def _answered(self, work: tuple[tuple[bytes, ...], Callable[[bytes], None]]) -> None:
        if work is not self._work:
            return  # forgotten
        self._work = None
        replies, reply = work
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
        self._starting = self._work = None


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
