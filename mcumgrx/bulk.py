"""Carries out transfer plans over a client, with as much on its way as link and device take.

What is sent when, and how long answers are waited for, is decided in `transfer.engine`. Here it meets the clock and the
link: requests are sent, answers and time-outs passed on, progress told and data delivered. When the link is lost the
flows decide: the device keeps its place, and the next upload of the same file goes on from there.

The engine runs in callbacks of the event loop, without a task or a future for each request: at ten thousand of them a
second, those would be most of the work. Code of others, such as listeners and sinks, never runs in the task that reads.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from .client import Client
from .errors import UploadMismatch
from .events import Note, Progress, StageName, guarded, ignore_progress
from .link.stream import Stream
from .load import ComputerLoad
from .messages.message import Reply
from .messages.standard import UploadProgress
from .pause import Pause
from .transfer.brief import BriefWindow
from .transfer.engine import Engine
from .transfer.flight import Flight
from .transfer.plan import Piece, TransferPlan, UploadPlan
from .transfer.window import MOST_IN_FLIGHT, PacedWindow, Window

__all__ = ["Delivery", "transfer", "upload", "window_for"]

P = TypeVar("P", bound=Piece)

# Between two reports of progress; and so many times what the listener took for the last one, because the link has to
# wait for it.
_REPORT_S = 0.1
_LISTENS = 10

# A timer that comes so late was held up by something in this program, and with it perhaps the answers: these first.
_HELD_UP_S = 0.02

# Timers may come that early.
_EARLY_S = 1e-6

# Where it is known how long the device took before, an opening chunk is sent once more after so many times that.
_USUAL = 4

# As long as so much waits for its sink, nothing more is asked for.
_MOST_UNDELIVERED = 1 << 20

_NEVER = float("inf")


def window_for(client: Client, most: int | None = None, *, brief: bool = False) -> Window[Any]:
    """The window for transfers over `client` to a device that has been asked for its buffers (`Client.params`).

    Which links allow more than the device has room for, or less, is `Transport.flow`. `most`: as the caller wants it.
    `brief`: the transfer has a handful of requests.
    """
    flow, profile = client.flow, client.profile
    room = profile.receive_buffers
    if flow.most is not None:
        room = min(room, flow.most)
    if flow.paced and profile.params is not None and brief:
        return BriefWindow(room, most=most, min_rtt_s=profile.min_rtt_s, patience_s=client.timeout_s)
    if flow.paced and profile.params is not None:
        at_most = MOST_IN_FLIGHT if most is None else most
        return PacedWindow(room, most=at_most, patience_s=client.timeout_s, min_rtt_s=profile.min_rtt_s)
    return Window(room, most=most, strict=flow.strict, patience_s=client.timeout_s)


async def upload(
    client: Client,
    plan: UploadPlan,
    *,
    window: Window[Any] | None = None,
    first_timeout_s: float = 60.0,
    settled: Callable[[], Awaitable[bool]],
    progress: Progress = ignore_progress,
    stage: str = StageName.UPLOAD,
    pause: Pause | None = None,
) -> UploadProgress:
    """Carry out the upload `plan`, whose `message_bytes` is the most that link and device take.

    Arguments:
        window: default: one request at a time.
        first_timeout_s: seconds for the answer to the opening chunk, during which the device may erase. Where that is
            known to take less (`Learned.erase_s`), and one request more does no harm, the chunk is sent again before.
        settled: asks the device whether it holds the whole; called only when the answer to the last chunk is lost.
        pause: holds it.

    Raises `RequestTimeout` when answers stay out, `TransferStuck` when they bring nothing, `UploadMismatch` when the
    device's own check finds in its slot what was not sent, `DeviceError`, `LinkLost`.
    """
    learned = client.profile.learned
    plan.alignment = max(plan.alignment, learned.alignment)
    again_s: float | None = None
    if learned.erase_s is not None and not client.flow.strict:
        again_s = max(client.timeout_s, _USUAL * learned.erase_s)
    if window is None:
        window = Window(1, patience_s=client.timeout_s)
    running = _Driver(client, plan, window, stage, progress, pause, slow_s=lambda _: first_timeout_s, again_s=again_s)
    while not plan.done:
        await running.run()
        if plan.needs_settling:
            plan.settled(await settled())
        if plan.done and plan.stray:
            await running.wait_for_strays()
            if not await settled():
                plan.undone()
    running.report()
    learned.alignment = plan.alignment
    if (slowest_s := running.engine.meter.slowest_s) is not None and not plan.resumed_from:
        learned.erase_s = max(learned.erase_s or 0.0, slowest_s)
    _check(plan)
    return UploadProgress(plan.size, plan.match)


def _check(plan: UploadPlan) -> None:
    """Raises `UploadMismatch` where the device has found in its slot what was not sent."""
    if plan.match is False:
        # It comes as a success (Zephyr, CONFIG_IMG_ENABLE_IMAGE_CHECK), and says that the slot does not hold the file.
        raise UploadMismatch(
            f"all {plan.size:,} bytes were sent, but by the device's own check its slot does not hold the file",
            size=plan.size,
            hint="upload it again: nothing is marked, and the running image stays; if it happens again, the device's "
            "flash or another client that writes to it is the cause",
        )


async def transfer(
    client: Client,
    plan: TransferPlan[P],
    window: Window[Any],
    *,
    slow_s: Callable[[P], float] | None = None,
    begin_bytes: int = 0,
    progress: Progress = ignore_progress,
    stage: str,
    pause: Pause | None = None,
    delivery: Delivery | None = None,
) -> None:
    """Carry out any other plan; see `upload`.

    Arguments:
        slow_s: seconds for the answer to a slow request; default: the client's.
        begin_bytes: the size of the first messages, where that is more than what is known to arrive. It does no harm if
            they do not: they are sent smaller then.
        delivery: what the plan puts there is passed on as the transfer goes.
    """
    usual_s = client.timeout_s
    slow_s = slow_s or (lambda _: usual_s)
    running = _Driver(client, plan, window, stage, progress, pause, delivery, slow_s=slow_s, begin_bytes=begin_bytes)
    while not plan.done:
        await running.run()
    running.report()


class Delivery:
    """What a download brings, on its way to whoever it is for: in order, and outside of the task that reads.

    `deliver` is called with each piece; what it raises ends the transfer.
    """

    def __init__(self, deliver: Callable[[bytes], object]) -> None:
        self.bytes = 0
        """That wait to be passed on."""
        self._deliver = deliver
        self._waiting: deque[bytes] = deque()

    def put(self, data: bytes) -> None:
        """To be passed on soon."""
        self._waiting.append(data)
        self.bytes += len(data)

    def pass_on(self) -> None:
        waiting = self._waiting
        try:
            while waiting:
                data = waiting.popleft()
                self.bytes -= len(data)
                self._deliver(data)
        except BaseException:
            waiting.clear()  # nothing may come behind what is missing
            self.bytes = 0
            raise


class _Driver:
    """Runs an engine over the streams of a client, as their `StreamUser`."""

    def __init__(
        self,
        client: Client,
        plan: TransferPlan[Any],
        window: Window[Any],
        stage: str,
        progress: Progress,
        pause: Pause | None,
        delivery: Delivery | None = None,
        **more: Any,
    ) -> None:
        self._client = client
        load, of_client = ComputerLoad().share, (client.profile, client.limits, client.flow)
        timeout_s = client.timeout_s
        self.engine = Engine(plan, window, *of_client, stage=stage, timeout_s=timeout_s, load=load, **more)
        # What listens is foreign code: it is called in the caller's context, and what it raises changes nothing.
        self._progress = guarded(progress)
        self._context = contextvars.copy_context()
        self._pause = pause
        self._delivery = Delivery(lambda data: None) if delivery is None else delivery
        self._loop = asyncio.get_running_loop()
        self._stream: Stream[Flight[Any]] | None = None
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._now: float | None = None  # while requests are being sent
        self._held_up = False  # the last timer was late, and the answers were given time
        self._telling: asyncio.Handle | None = None
        self._report_at = -_NEVER
        self._told = 0

    async def run(self) -> None:
        """Until the plan is done, or waits for something else."""
        pause = self._pause
        self._finished = self._loop.create_future()
        self.engine.begin(self._loop.time(), held=pause is not None and pause.held)
        self._stream = stream = self._client.stream(self.engine.window.most_unanswered, self)
        if pause is not None:
            pause.listeners.append(self._pause_changed)
        try:
            self._pump()
            await self._finished
        finally:
            if pause is not None:
                pause.listeners.remove(self._pause_changed)
            self._stream = None
            stream.close()
            for handle in (self._timer, self._telling):
                if handle is not None:
                    handle.cancel()
            self._timer = self._telling = None
            self._delivery.pass_on()
            if self._told != self.engine.plan.done_bytes:
                self.report()

    async def wait_for_strays(self) -> None:
        """Until nothing that was sent and not answered can arrive at the device any more."""
        await asyncio.sleep(max(0.0, self.engine.strays_until - self._loop.time()))

    def _running(self) -> bool:
        """Whether there is more to be done; if not, `run` returns."""
        if self._stream is None or self._finished.done():
            return False
        if self.engine.ended:
            self._finished.set_result(None)
            return False
        return True

    def failed(self, error: Exception) -> None:
        if not self._finished.done():
            self._finished.set_exception(error)

    # -- sending -------------------------------------------------------------------------------------------------------

    def has_room(self) -> None:
        self._pump()

    def _pump(self, now: float | None = None) -> None:
        """Send what may be sent."""
        stream = self._stream
        if stream is None or not self._running():
            return
        engine = self.engine
        self._now = now = self._loop.time() if now is None else now
        try:
            while flight := engine.request(now, not stream.full and self._delivery.bytes < _MOST_UNDELIVERED):
                flight.call = stream.send(flight.request, flight)
        except Exception as error:  # a mistake of a plan, too: nobody may hang
            self.failed(error)
            return
        finally:
            self._now = None
        if self._timer is None or engine.send_at < self._timer_at:
            self._set_timer(engine.send_at if engine.send_at < _NEVER else engine.next_time())

    def left(self, flight: Flight[Any]) -> None:
        """The link has taken the request."""
        now = self._loop.time() if self._now is None else self._now
        self.engine.left(flight, now, self._client.queued_s())
        if flight.call is not None and self._timer is not None:
            # It was not taken at once, and the timer was set for the slowest link there is.
            self._set_timer(min(self._timer_at, self.engine.next_time()))

    # -- what comes back -----------------------------------------------------------------------------------------------

    def replied(self, flight: Flight[Any], reply: Reply) -> None:
        flight.call = None
        now = self._loop.time()
        try:
            self.engine.reply(flight, reply, now)
        except Exception as error:
            self.failed(error)
            return
        if now >= self._report_at or self._delivery.bytes:
            self._tell_soon()
        self._go_on(now)

    def garbled(self, count: int) -> None:
        if self.engine.garbled(count, self._loop.time()):
            self._loop.call_soon(self._look)  # when what has come with it is taken

    def _go_on(self, now: float | None = None) -> None:
        """After something has happened."""
        engine, stream = self.engine, self._stream
        if engine.forgotten and stream is not None:
            for flight in engine.forgotten:
                if flight.call is not None:
                    stream.forget(flight.call)
                    flight.call = None
            engine.forgotten.clear()
        if engine.notes:
            self._tell_soon()
        self._pump(now)

    def _pause_changed(self) -> None:
        self.engine.hold(self._pause is not None and self._pause.held, self._loop.time())
        self._pump()

    # -- time ----------------------------------------------------------------------------------------------------------

    def _set_timer(self, at: float) -> None:
        """See to it that `_tick` is called then. It may be called earlier, and looks again."""
        if self._timer is not None:
            if at == self._timer_at:
                return
            self._timer.cancel()
            self._timer = None
        if at < _NEVER:
            self._timer_at = at
            self._timer = self._loop.call_at(at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._loop.time() - self._timer_at > _HELD_UP_S and not self._held_up:
            # Answers may have arrived meanwhile, and wait for their turn as this has waited.
            self._held_up = True
            self._set_timer(self._loop.time() + _HELD_UP_S)
            return
        self._held_up = False
        self._look()

    def _look(self) -> None:
        """Whose time is up?"""
        if not self._running():
            return
        try:
            if self.engine.tick(self._loop.time() + _EARLY_S) and self._stream is not None:
                self._stream.resynchronize()
        except Exception as error:
            self.failed(error)
            return
        self._go_on()

    # -- what is told --------------------------------------------------------------------------------------------------

    def _tell_soon(self) -> None:
        if self._telling is None:
            self._telling = self._loop.call_soon(self._tell, context=self._context)

    def _tell(self) -> None:
        self._telling = None
        full = self._delivery.bytes >= _MOST_UNDELIVERED
        try:
            self._delivery.pass_on()
        except Exception as error:
            self.failed(error)
            return
        if self._loop.time() >= self._report_at:
            self.report()
        notes = self.engine.notes
        while notes:
            self._progress(Note(notes.pop(0)))
        if full:
            self._pump()

    def report(self) -> None:
        """Tell how far it is."""
        now = self._loop.time()
        self._told = self.engine.plan.done_bytes
        self._progress(self.engine.meter.read(now))
        told_at = self._loop.time()
        self._report_at = told_at + max(_REPORT_S, _LISTENS * (told_at - now))
