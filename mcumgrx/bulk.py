"""The transfer engine: carries out a transfer plan over a client, with as much on its way as link and device take.

What a request contains and what an answer means is decided in `transfer.plan` and by the plans of files; how many
may be on their way in `transfer.window`, how large they are in `transfer.sizes`. Here these meet the clock: requests
are sent, answers and time-outs passed on, progress told. When the link is lost the flows decide: the device keeps its
place, and the next upload of the same file goes on from there.

Everything happens in callbacks of the event loop, without a task or a future for each request: at ten thousand of
them a second, those would be most of the work.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from .client import Client, Stream
from .errors import DeviceError, MalformedReply, MessageTooLarge, RequestTimeout, UploadMismatch
from .events import Note, Progress, StageName, guarded, ignore_progress
from .pause import Pause
from .protocol.message import Command, Reply, SmpError
from .protocol.standard import Params, Probe, UploadProgress
from .protocol.waiting import Waiting
from .transfer.brief import BriefWindow
from .transfer.meter import Meter
from .transfer.plan import Piece, TransferPlan, UploadPlan
from .transfer.sizes import MessageSize, rungs
from .transfer.window import MOST_IN_FLIGHT, Flight, PacedWindow, Window

__all__ = ["find_message_size", "transfer", "upload", "window_for"]

P = TypeVar("P", bound=Piece)

# No answer for so many ordinary time-outs in a row means that the device or the link is gone.
_SILENCES = 5

# No link is slower: 300 baud, which is 30 bytes a second, of which console framing takes a third. Where it is known how
# long a link takes, it may take so many times that.
_SLOWEST_BYTES_S = 20.0
_EASE = 1.5

# How large answers are, where that matters: those to chunks and small queries, and those that carry a file in a device
# that does not tell its buffers.
_LEAST_AIR_S = 0.05
_ANSWER_BYTES = 96
_FILE_ANSWER_BYTES = 512

# A slow request has a long time-out of its own. Waiting for it twice covers a lost answer.
_SLOW_LOSSES = 2

# Where nothing can be sent behind it: after so many times what it took before, it is sent once more.
_USUAL = 4

# While the last answer is out the device may check, or decrypt, the whole image.
_TAIL_S = 40.0

# A message is not too large for losing itself once, or in a moment in which the device was busy.
_LOSSES_OF_SIZE = 2
_SILENCE_OF_SIZE_S = 1.0

# Where a line damages bytes: messages of which a larger share is lost are halved, and made larger again only where
# fewer are. So many tell.
_MANY_LOST = 0.35
_FEW_LOST = 0.2
_TELLING = 16

# How long a probe may take, beside the time on the air.
_PROBE_S = 1.0

# Behind a slow request a short one is sent after so many seconds, the first one no earlier than after so many short
# round trips: its answer tells that the slow one was lost.
_ASK_BEHIND_S = (0.3, 2.0, 8.0, 30.0)
_ASK_BEHIND_TRIPS = 8

# "Busy" and "no buffer" say when to try again (`protocol.waiting`); so does a device that keeps asking for what it has
# just been sent, because it is at work on something else. That may last longer: an image may be copied to another core
# before its last bytes are taken.
_STALLED_S = 60.0

# So long it goes without saying that a request is waited for of which it is known that it can take long: an erase does.
_QUIET_SLOW_S = 5.0
_OPENING = "image upload"

# The device may take back what it had taken (it has been reset, say), but not again and again.
_FALLS = 16

# Answers in a row of which nothing can be made, before they are taken for what the device has to say.
_GARBLED = 16

# So many that are alike are no damage of a line, which is different each time: the device says just that.
_GARBLED_ALIKE = 4

# Between two reports of progress; and so many times what the listener took for the last one, because the link has to
# wait for it.
_REPORT_S = 0.1
_LISTENS = 10

# A timer that comes so late was held up by something in this program, and with it perhaps the answers: these first.
_HELD_UP_S = 0.02

_NEVER = float("inf")

_RESUME = "the device keeps its place: run the same command again to go on from there"


def window_for(client: Client, params: Params | None, most: int | None = None, *, brief: bool = False) -> Window[Any]:
    """The window for transfers over `client` to a device with these buffers; `most` as the caller wants it.

    A server needs one buffer for the answer, so a request less than it has buffers may lie in it. Which links allow
    more, or less, is `Transport.flow`. `brief`: the transfer has a handful of requests.
    """
    flow = client.flow
    room = 1 if params is None else max(1, params.buf_count - 1)
    if flow.most is not None:
        room = min(room, flow.most)
    if flow.paced and params is not None and brief:
        return BriefWindow(room, most=most, short_s=client.profile.min_rtt_s, patience_s=client.timeout_s)
    if flow.paced and params is not None:
        at_most = MOST_IN_FLIGHT if most is None else most
        return PacedWindow(room, most=at_most, patience_s=client.timeout_s, short_s=client.profile.min_rtt_s)
    return Window(room, most=most, strict=flow.strict, patience_s=client.timeout_s)


async def find_message_size(client: Client, largest: int, least: int, *, harmless: bool = False) -> int:
    """The size of message, up to `largest`, with which a transfer over `client` should begin.

    What one write or line carries needs no proof. Anything larger is tried with an echo of that size, so that what a
    device cannot put together shows before it erases anything, and the next smaller one of `rungs` after that. Once
    found it is known for this connection, and a size that an earlier one saw refused is not tried again
    (`Learned.refuses`).

    `harmless`: a first message that does not arrive is only sent again, smaller. Then it shows by itself whether one of
    its size arrives, where that is likely: the device has taken one before, or the link carries all or nothing of what
    the device says that it has room for.

    Raises `RequestTimeout` when nothing is answered, `MessageTooLarge` when nothing works that is large enough for the
    transfer, `LinkLost`.
    """
    profile, safe = client.profile, client.limits.safe_message
    learned, params = profile.learned, await client.params()
    learned.meets(client.limits.message(None if params is None else params.buf_size))
    if largest <= max(safe, profile.proven_bytes):
        return largest
    refused_before = learned.refuses(largest) or (
        profile.refused_bytes is not None and profile.refused_bytes <= largest
    )
    likely = (learned.message_bytes or 0) >= largest or (client.flow.paced and params is not None)
    if harmless and likely and not refused_before:
        return largest
    if learned.refuses(largest):
        # What lies between is not tried either: each attempt costs a time-out.
        largest = max(safe, least, learned.message_bytes or 0)
        profile.refused_bytes = largest + 1
        if largest <= max(safe, profile.proven_bytes):
            return largest
    sizes = rungs(largest, safe, least)
    silence: RequestTimeout | None = None
    silent: int | None = None  # the largest of which nothing came back
    refused: int | None = None  # the smallest that is too large
    found: int | None = None
    # What is not answered may lie in the device, which may be busy for once. Where one too many does harm, no more are
    # sent in a row than there is room for, and the last of them is waited for like any other request.
    room = len(sizes) * 2
    if client.flow.strict:
        room = 1 if params is None else max(1, params.buf_count - 1)
    for size in sizes:
        repeats = 1 if room > 2 else 0
        room -= 1 + repeats
        try:
            arrives = await _echoes(client, size, repeats=repeats, patient=room < 1 or size == sizes[-1])
        except RequestTimeout as error:
            silence, arrives = error, False
            silent = silent or size
        if arrives:
            found = size
            break
        refused = size
    if found is not None and silent is not None and refused is not None:
        # Now that the device answers: was it the size, or had the device, or the line, a bad moment?
        with suppress(RequestTimeout):
            if await _echoes(client, silent, repeats=0):
                found, refused = silent, None
    if found is not None:
        if refused is not None and client.limits.write is not None and found <= safe < refused:
            refused = safe + 1  # what takes two writes is not put together, however short the second one is
        profile.refused_bytes = refused if refused is not None else profile.refused_bytes
        profile.proves(found)
        # Only now: a device that answers nothing at all has refused nothing.
        learned.message_bytes = found
        learned.refused_bytes = refused if refused is not None else learned.refused_bytes
        return found
    if least > safe and client.last_heard_s is not None:
        raise MessageTooLarge(
            f"a write of {safe} bytes is too small for the first chunk of a transfer, and the device does not put "
            "several together",
            size=least,
            limit=safe,
            hint="raise the link's MTU, or enable reassembly in the device (CONFIG_MCUMGR_TRANSPORT_BT_REASSEMBLY)",
        )
    if silence is not None:
        raise silence
    return least


async def _echoes(client: Client, size: int, *, repeats: int = 1, patient: bool = False) -> bool:
    """Whether a message of this size comes back; false where the device says that only a part of it has arrived.

    Raises `RequestTimeout` when nothing comes.
    """
    begin = asyncio.get_running_loop().time()
    timeout_s = client.timeout_s if patient else min(_PROBE_S, client.timeout_s)
    try:
        # The answer is as large.
        await client.request(
            Probe(size), timeout_s=timeout_s + client.air_s(size), repeats=None if patient else repeats
        )
    except DeviceError as error:
        # No reassembly, or a datagram that was cut. Any other refusal has read the whole.
        if error.group is None and error.rc == SmpError.CORRUPT:
            return False
    except MalformedReply:
        pass  # an answer all the same
    client.profile.round_trip(asyncio.get_running_loop().time() - begin)
    return True


async def upload(
    client: Client,
    plan: UploadPlan,
    *,
    window: Window[Any] | None = None,
    first_timeout_s: float = 60.0,
    timeout_s: float | None = None,
    settled: Callable[[], Awaitable[bool]],
    progress: Progress = ignore_progress,
    stage: StageName = StageName.UPLOAD,
    pause: Pause | None = None,
) -> UploadProgress:
    """Carry out the upload `plan`, whose `message_bytes` is the most that link and device take.

    Arguments:
        window: default: one request at a time.
        first_timeout_s: seconds for the answer to the opening chunk, during which the device may erase. Where that is
            known to take less (`Learned.erase_s`), and one request more does no harm, the chunk is sent again before.
        timeout_s: seconds for the other chunks; default: the client's.
        settled: asks the device whether it holds the whole; called only when the answer to the last chunk is lost.
        pause: holds it.

    Raises `RequestTimeout` when answers stay out, `TransferStuck` when they bring nothing, `UploadMismatch` when the
    device's own check finds in its slot what was not sent, `DeviceError`, `LinkLost`.
    """
    learned = client.profile.learned
    plan.alignment = max(plan.alignment, learned.alignment)
    if timeout_s is None:
        timeout_s = client.timeout_s
    again_s: float | None = None
    if learned.erase_s is not None and not client.flow.strict:
        again_s = max(timeout_s, _USUAL * learned.erase_s)
    running = _Transfer(
        client,
        plan,
        window if window is not None else Window(1, patience_s=client.timeout_s),
        timeout_s=timeout_s,
        slow_s=lambda _: first_timeout_s,
        again_s=again_s,
        progress=progress,
        stage=stage,
        pause=pause,
    )
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
    if running.slowest_s is not None and not plan.resumed_from:
        learned.erase_s = max(learned.erase_s or 0.0, running.slowest_s)
    if plan.match is False:
        # It comes as a success (Zephyr, CONFIG_IMG_ENABLE_IMAGE_CHECK), and says that the slot does not hold the file.
        raise UploadMismatch(
            f"all {plan.size:,} bytes were sent, but by the device's own check its slot does not hold the file",
            size=plan.size,
            hint="upload it again: nothing is marked, and the running image stays; if it happens again, the device's "
            "flash or another client that writes to it is the cause",
        )
    return UploadProgress(plan.size, plan.match)


async def transfer(
    client: Client,
    plan: TransferPlan[P],
    window: Window[Any],
    *,
    timeout_s: float | None = None,
    slow_s: Callable[[P], float],
    begin_bytes: int = 0,
    progress: Progress = ignore_progress,
    stage: StageName,
    pause: Pause | None = None,
) -> None:
    """Carry out any other plan. `slow_s`: seconds for the answer to a slow request. See `upload`.

    `begin_bytes`: the size of the first messages, where that is more than what is known to arrive. It does no harm if
    they do not: they are sent smaller then.
    """
    running = _Transfer(
        client,
        plan,
        window,
        timeout_s=client.timeout_s if timeout_s is None else timeout_s,
        slow_s=slow_s,
        begin_bytes=begin_bytes,
        progress=progress,
        stage=stage,
        pause=pause,
    )
    while not plan.done:
        await running.run()
    running.report()


class _Probing:
    """A request in front of which another is waited for: its answer tells that the other one is lost."""

    slow = False

    def __init__(self, command: Command[Any]) -> None:
        self.command = command


class _Transfer(Generic[P]):
    """One plan being carried out."""

    def __init__(
        self,
        client: Client,
        plan: TransferPlan[P],
        window: Window[Any],
        *,
        timeout_s: float,
        slow_s: Callable[[P], float],
        again_s: float | None = None,
        begin_bytes: int = 0,
        progress: Progress,
        stage: StageName,
        pause: Pause | None,
    ) -> None:
        self._client = client
        self._plan = plan
        self._window = window
        self._timeout_s = timeout_s
        self._slow_s = slow_s
        self._again_s = again_s  # until a slow request has been sent once more
        self._sent_again = False
        # What listens to it is foreign code: it is called outside of the task that reads, in the caller's context, and
        # what it raises changes nothing.
        self._progress = guarded(progress)
        self._context = contextvars.copy_context()
        self._telling: asyncio.Handle | None = None
        self._notes: list[str] = []
        self._stage = stage
        self._pause = pause
        self._held_at: float | None = None
        self._loop = asyncio.get_running_loop()
        self._stream: Stream[Flight[Any]] | None = None
        self._finished: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._held_up = False  # the last timer was late, and the answers were given time
        safe = client.limits.safe_message
        largest = plan.message_bytes
        if client.profile.refused_bytes is not None:
            # What goes out as several writes a device puts together as far as it has room, or never: then what lies
            # between is lost as well, and with it what follows.
            refused = safe if client.limits.write is not None else client.profile.refused_bytes - 1
            largest = min(largest, max(safe, client.profile.proven_bytes, refused))
        self._size = MessageSize(
            largest,
            safe=safe,
            least=plan.least_bytes,
            current=min(largest, max(safe, client.profile.proven_bytes, begin_bytes)),
        )
        plan.message_bytes = self._size.current
        self._slow: Flight[Any] | None = None
        self._slow_losses = 0
        self._slow_silent_s = 0.0
        self._stray_at = -_NEVER  # when the last slow request left that was given up
        self._asked_behind = 0
        self._slow_told = False
        self._losses_of_size = 0
        self._trial: int | None = None  # from this number on, messages are of a size that is not proven
        self._heard_at = self._advanced_at = self._loop.time()
        self._busy = Waiting()
        self._stalled = Waiting(_STALLED_S)
        self._stalls = 0
        self._falls = 0
        self._garbled = 0
        self._alike: tuple[bytes, int] = (b"", 0)  # the last answer of which nothing could be made, how often in a row
        self._paused_until = 0.0
        self._queued_s: Callable[[], float] | None = client.queued_s
        self._asked_at: float | None = None  # when the first request has left after the device was last heard
        self._last_at = -_NEVER  # when what it has not taken so far will have left, at the latest
        self._free_at = -_NEVER  # when all that the link has taken will have left
        self._meter = Meter(client, plan, window, self._size, stage, self._heard_at)
        self._report_at = -_NEVER
        self._told: int | None = None

    @property
    def slowest_s(self) -> float | None:
        """How long the slowest answer to a slow request took."""
        return self._meter.slowest_s

    # -- from beginning to end -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the plan is done, or waits for something else."""
        self._finished = self._loop.create_future()
        self._stream = self._client.stream(
            self._window.most_unanswered,
            on_reply=self._answered,
            on_left=self._left,
            on_room=self._pump,
            on_failure=self._fail,
            on_garbled=self._answers_garbled,
        )
        self._heard_at = self._advanced_at = self._loop.time()
        self._asked_at = None
        if self._pause is not None:
            self._held_at = self._heard_at if self._pause.held else None
            self._pause.listeners.append(self._pause_changed)
        try:
            self._pump()
            await self._finished
        finally:
            if self._pause is not None:
                self._pause.listeners.remove(self._pause_changed)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._telling is not None:
                self._telling.cancel()
                self._telling = None
            self._window.clear()
            self._slow = None
            self._stream.close()
            self._stream = None
            if (self._told or 0) != self._plan.done_bytes:  # of nothing there is nothing to tell
                self.report()

    async def wait_for_strays(self) -> None:
        """Until nothing that was sent and not answered can arrive at the device any more."""
        await asyncio.sleep(max(0.0, self._stray_at + self._timeout_s - self._loop.time()))

    def _fail(self, error: Exception) -> None:
        if self._finished is not None and not self._finished.done():
            self._finished.set_exception(error)

    def _pause_changed(self) -> None:
        now = self._loop.time()
        if self._held_at is not None:
            # The time in which nothing was to happen counts for nothing.
            held_s = now - self._held_at
            self._heard_at, self._asked_at = self._heard_at + held_s, None
            self._advanced_at += held_s
            self._meter.held(held_s)
        self._held_at = now if self._pause is not None and self._pause.held else None
        self._pump()

    def _ended(self) -> bool:
        """Whether nothing more is to be done now, and `run` returns."""
        finished = self._finished
        if finished is None or finished.done():
            return True
        if self._plan.done or self._plan.needs_settling:
            finished.set_result(None)
            return True
        return False

    # -- sending -------------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what may be sent."""
        stream = self._stream
        if stream is None or self._ended():
            return
        plan, window, loop = self._plan, self._window, self._loop
        now = loop.time()
        wait_s: float | None = None
        try:
            while self._paused_until <= now and self._slow is None and self._held_at is None:
                wait_s = window.wait_s(now)
                if wait_s != 0.0:
                    break
                if stream.full:
                    wait_s = None
                    break
                piece = plan.next()
                if piece is None:
                    if not window.unanswered:
                        raise RuntimeError(f"{plan!r} has nothing to send, waits for nothing, and is not done")
                    break
                self._send(stream, piece, now)
        except Exception as error:  # a mistake of a plan, too: nobody may hang
            self._fail(error)
            return
        self._arm(now, wait_s)

    def _send(self, stream: Stream[Flight[Any]], piece: Any, now: float) -> None:
        window = self._window
        flight = window.sent(piece, now, measured=not piece.slow)
        request = piece.command.request()
        # Until the link has taken it, which may be at once, all that is known is what lies in front of it.
        meter = self._meter
        per_byte_s = _EASE * meter.wire_s / meter.wire_bytes if meter.wire_bytes else 1 / _SLOWEST_BYTES_S
        self._last_at = max(now, self._free_at, self._last_at) + request.size * per_byte_s
        flight.queued_s = self._last_at - now
        flight.size = request.size
        flight.call = stream.send(request, flight)
        meter.sent_bytes += flight.size
        if piece.slow:
            self._slow = flight
            self._asked_behind = 0

    def _left(self, flight: Flight[Any]) -> None:
        """The link has taken the request: time-outs count from when it can have left."""
        queued_s = self._queued_s
        now = self._loop.time()
        leaves_at = now + (0.0 if queued_s is None else queued_s())
        flight.queued_s = leaves_at - flight.sent_at
        flight.taken = True
        if leaves_at > now:
            on_wire_s = leaves_at - max(flight.sent_at, self._free_at)
            if on_wire_s > 0.0:
                self._meter.wire_s += on_wire_s
                self._meter.wire_bytes += flight.size
        self._free_at = leaves_at
        if flight.number == self._window.numbers - 1:
            self._last_at = leaves_at
        if self._meter.wire_bytes:
            air_s = _EASE * self._meter.wire_s / self._meter.wire_bytes * self._answer_bytes
            self._window.air_s = air_s if air_s > _LEAST_AIR_S else 0.0
        if flight.call is not None:
            # It was not taken at once, and the timer was set for the slowest link there is.
            self._arm_earlier()

    @property
    def _answer_bytes(self) -> int:
        """How large an answer may be."""
        if self._stage is not StageName.DOWNLOAD:
            return _ANSWER_BYTES
        params = self._client.profile.params
        return max(self._plan.message_bytes, _FILE_ANSWER_BYTES if params is None else params.buf_size)

    def _silent_s(self, now: float) -> float:
        """For how long the device has been silent, since it was last heard and has been asked."""
        if self._asked_at is None:
            self._asked_at = self._window.leaves_after(self._heard_at) or self._heard_at
        return now - self._asked_at

    # -- what comes back -----------------------------------------------------------------------------------------------

    def _answered(self, flight: Flight[Any], reply: Reply) -> None:
        now = self._loop.time()
        self._heard_at, self._asked_at = now, None
        plan, window, meter, piece = self._plan, self._window, self._meter, flight.item
        flight.call = None
        setbacks, done = plan.setbacks, plan.done_bytes
        try:
            if not flight.taken:
                # The answer was quicker than the link's word that it has taken the request: of the time between, nobody
                # knows how much was the link's and how much the device's.
                flight.queued_s, flight.measured = 0.0, False
            elif now - flight.sent_at < flight.queued_s / 2:
                # It had left long before: a speed that is only a number (USB) says nothing of the link.
                self._queued_s, flight.queued_s, self._free_at = None, 0.0, now
                self._last_at = now
                meter.forget_wire()
            else:
                flight.queued_s = min(flight.queued_s, now - flight.sent_at)  # estimates are a little off
            if flight.measured:
                meter.round_trip(now - flight.sent_at - flight.queued_s)
            overtaken = window.answered(flight, now)
            for other in overtaken:
                self._forget(other)
                if other.item.__class__ is _Probing:
                    continue
                if piece.__class__ is _Probing:
                    self._lost_before_probe(other)
                else:
                    plan.overtaken(other.item)
            if flight is self._slow:
                self._slow = None
                if self._sent_again:
                    self._sent_again = False
                    window.time_out()  # nobody waits for the answer to the copy
                meter.slowest_s = max(meter.slowest_s or 0.0, now - flight.sent_at)
            if piece.__class__ is _Probing:
                self._pump()
                return
            try:
                plan.answered(piece, piece.command.result(reply))
            except DeviceError as error:
                self._refused(piece, error, now)
            except MalformedReply as error:
                # A part of it may have got lost where nothing checks that (Bluetooth LE, raw UART).
                self._garbled += 1
                self._alike = (reply.payload, self._alike[1] + 1 if reply.payload == self._alike[0] else 1)
                if self._garbled > _GARBLED or self._alike[1] >= _GARBLED_ALIKE:
                    error.concerns(piece.command.what, reply.payload)
                    raise
                window.lost(now)
                plan.lost(piece)
            else:
                self._garbled, self._alike = 0, (b"", 0)
            self._judge(done, setbacks, now)
        except Exception as error:
            self._fail(error)
            return
        if plan.setbacks != setbacks:
            window.lost(now)
            if self._trial is not None:
                self._smaller()
            elif window.dirty:
                self._halve()
        if plan.done_bytes > done:
            window.advanced(now)
            # Only this counts: a device may answer what it is asked in between, and never this.
            self._losses_of_size = self._slow_losses = 0
            self._slow_silent_s = 0.0
            if not overtaken and done >= plan.resumed_from and not (plan.done and meter.chunk_bytes):
                meter.chunk_bytes = plan.done_bytes - done  # the last one is shorter than those before
            growing = self._size.current < self._size.largest or self._trial is not None
            if growing and (not window.dirty or window.lost_share < _FEW_LOST):
                self._grow(flight.number)
        if now >= self._report_at:
            self._tell_soon()
        if self._window.silenced:
            self._lost_at_once(now)
        self._pump()

    def _answers_garbled(self, count: int) -> None:
        """So many answers have come damaged: what was asked is done, and nothing is known of it."""
        window, now = self._window, self._loop.time()
        self._heard_at, self._asked_at = now, None
        for _ in range(count):
            window.garbled()
        # As long as others are on their way, the answers to those will tell.
        if window.silenced:
            self._loop.call_soon(self._look_at_silence)  # when what has come with it is taken

    def _look_at_silence(self) -> None:
        if self._stream is not None and not self._ended() and self._window.silenced:
            self._lost_at_once(self._loop.time())
            self._pump()

    def _lost_at_once(self, now: float) -> None:
        """Of what is on its way there will be no answer that can be read."""
        self._slow = None
        self._give_up(silent=False)
        self._window.lost(now)
        self._halve()

    def _halve(self) -> None:
        """On a line that damages bytes, the fewer a message has the better are its chances."""
        window = self._window
        if window.outcomes >= _TELLING and window.lost_share > _MANY_LOST and self._size.halve():
            self._trial = None
            self._plan.message_bytes = self._size.current
            window.sizes_changed()

    def _judge(self, done: int, setbacks: int, now: float) -> None:
        """Whether the last answer has brought anything: what of the plan was so before. Raises when none will."""
        plan = self._plan
        if plan.done_bytes > done:
            self._advanced_at = now
            self._busy.end()
        elif plan.done_bytes < done:
            self._falls += 1
        stalls, before = getattr(plan, "stalls", 0), self._stalls  # plans of plugins may not know it
        self._stalls = stalls
        if not stalls:
            self._stalled.end()
        elif stalls > before and not self._wait(self._stalled, now, "asks again for what it has been sent"):
            raise plan.stuck(self._stalled.seconds(now))
        if plan.setbacks == setbacks:
            return
        silent_s = now - self._advanced_at
        if self._falls > _FALLS or silent_s > max(_STALLED_S, _FALLS * self._window.answer_s):
            raise plan.stuck(silent_s)

    def _wait(self, waiting: Waiting, now: float, why: str) -> bool:
        """Let the device have some time, because it `why`; false when it has had enough."""
        if now < self._paused_until:
            return True  # what was on its way together counts once
        pause_s = waiting.pause_s(now)
        if pause_s is None:
            return False
        self._paused_until = now + pause_s
        if waiting.tell(now + pause_s):
            left_s = waiting.patience_s - waiting.seconds(now)
            self._notes.append(f"the device {why}: asking it for up to {left_s:.0f} s more")
            self._tell_soon()
        return True

    def _refused(self, piece: Any, error: DeviceError, now: float) -> None:
        # Of those that were there together, the first one has made the others smaller.
        cut = error.group is None and error.rc == SmpError.CORRUPT
        if cut and (piece.command.request().size > self._size.current or self._smaller()):
            self._plan.lost(piece)  # it was cut on its way
            return
        if error.group is None and error.rc in (SmpError.BUSY, SmpError.NO_MEMORY):
            why = "is busy" if error.rc == SmpError.BUSY else "has no memory for the request"
            if not self._wait(self._busy, now, why):
                raise error
            self._window.lost(now)
            self._plan.put_off(piece)
            return
        if not self._plan.refused(piece, error):
            raise error

    def _forget(self, flight: Flight[Any]) -> None:
        call, flight.call = flight.call, None
        if call is not None and self._stream is not None:
            self._stream.forget(call)
        if flight is self._slow:
            self._slow = None

    def _smaller(self) -> bool:
        """Messages of this size do not arrive: make them smaller, if that can be."""
        size, client = self._size, self._client
        failed = size.current
        write_bytes = client.limits.write
        if write_bytes is not None and failed <= write_bytes and self._plan.done_bytes > self._plan.resumed_from:
            return False  # a single write arrives or does not, and some have: something else is wrong
        self._trial = None
        if not size.failed():
            return False
        if failed > max(client.profile.proven_bytes, client.limits.safe_message) and not self._window.dirty:
            # What has arrived before is not too large: then it is the link or the device that pauses.
            client.profile.learned.refused_bytes = failed
            client.profile.learned.message_bytes = size.current
        client.profile.proven_bytes = self._plan.message_bytes = size.current
        self._window.sizes_changed()
        self._losses_of_size = 0
        return True

    def _grow(self, number: int) -> None:
        """A message has arrived: those of its size do, and perhaps larger ones do as well."""
        size, client = self._size, self._client
        if self._trial is not None:
            if number < self._trial:
                return
            self._trial = None
            client.profile.learned.message_bytes = client.profile.proven_bytes = size.current
        if size.answered():
            self._plan.message_bytes = size.current
            self._trial = self._window.numbers

    # -- time ----------------------------------------------------------------------------------------------------------

    def _arm(self, now: float, wait_s: float | None) -> None:
        """See to it that `_tick` is called in time. It may be called early, and looks again then."""
        if self._paused_until > now:
            wait_s = self._paused_until - now
        if wait_s:
            at = now + wait_s
            if self._timer is not None:
                if self._timer_at <= at:
                    return
                self._timer.cancel()
        elif self._timer is not None:
            return
        else:
            at = self._due()
            if at == _NEVER:
                return
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._tick)

    def _arm_earlier(self) -> None:
        """What is on its way has left before it was believed to: its time is up earlier."""
        if self._timer is not None and (at := self._due()) < self._timer_at:
            self._timer.cancel()
            self._timer_at = at
            self._timer = self._loop.call_at(at, self._tick)

    def _due(self) -> float:
        """When the next time is up."""
        window, slow = self._window, self._slow
        at = _NEVER
        if slow is not None:
            at = slow.sent_at + slow.queued_s + self._slow_s(slow.item) + window.air_s
            at = min(at, self._ask_behind_at(slow))
            if not self._slow_told:
                at = min(at, self._tell_slow_at(slow))
            if self._again_s is not None:
                at = min(at, slow.sent_at + slow.queued_s + self._again_s)
        elif (deadline := window.deadline()) is not None:
            at = deadline
        expires_at = window.expires_at()
        return at if expires_at is None else min(at, expires_at)

    def _tick(self) -> None:
        self._timer = None
        if self._stream is None or self._ended():
            return
        now = self._loop.time()
        if now - self._timer_at > _HELD_UP_S and not self._held_up:
            # Answers may have arrived meanwhile, and wait for their turn as this has waited.
            self._held_up = True
            self._timer_at = now + _HELD_UP_S
            self._timer = self._loop.call_at(self._timer_at, self._tick)
            return
        self._held_up = False
        now += 1e-6  # timers may come that early
        window = self._window
        try:
            for gone in window.expire(now):
                self._forget(gone)
            slow = self._slow
            if slow is not None:
                self._watch_slow(slow, now)
            elif (deadline := window.deadline()) is not None and deadline <= now:
                self._time_out(now)
        except Exception as error:
            self._fail(error)
            return
        self._pump()

    def _ask_behind_at(self, slow: Flight[Any]) -> float:
        """When a short request is to follow the slow one."""
        if self._asked_behind == len(_ASK_BEHIND_S):
            return _NEVER
        after_s = max(_ASK_BEHIND_S[self._asked_behind], _ASK_BEHIND_TRIPS * (self._client.profile.min_rtt_s or 0.0))
        return slow.sent_at + slow.queued_s + after_s

    def _tell_slow_at(self, slow: Flight[Any]) -> float:
        """When to say what is waited for."""
        return slow.sent_at + slow.queued_s + _QUIET_SLOW_S

    def _watch_slow(self, slow: Flight[Any], now: float) -> None:
        """A request is out whose answer may take long."""
        patience_s = self._slow_s(slow.item) + self._window.air_s
        if now >= slow.sent_at + slow.queued_s + patience_s:
            self._slow_losses += 1
            self._stray_at = slow.sent_at
            self._give_up()
            self._slow = None
            self._slow_silent_s += patience_s
            enough_s = max(_SLOW_LOSSES * patience_s, _SILENCES * self._timeout_s)
            if not self._smaller() and self._slow_silent_s >= enough_s:
                raise self._silent(patience_s, self._slow_losses)
            return
        if not self._slow_told and now >= self._tell_slow_at(slow):
            self._slow_told = True
            left_s = slow.sent_at + slow.queued_s + patience_s - now
            what = (
                "the device may be erasing its flash" if slow.item.command.what == _OPENING else "the device is at work"
            )
            self._notes.append(
                f"no answer to the {slow.item.command.what} so far: {what}, waiting up to {left_s:.0f} s more"
            )
            self._tell_soon()
        if self._again_s is not None and now >= slow.sent_at + slow.queued_s + self._again_s:
            self._again_s = None
            if self._window.unanswered >= self._window.room and self._stream is not None and not self._stream.full:
                # It usually takes less. Which of the two is answered makes no difference; the patience is that for one.
                self._sent_again = True
                self._send(self._stream, slow.item, now)
                self._slow = slow
        if now >= self._ask_behind_at(slow):
            self._asked_behind += 1
            # The device takes one after the other: if this one is answered, the slow one has not arrived.
            window, stream = self._window, self._stream
            if stream is not None and window.unanswered < window.room and not stream.full:
                self._send(stream, _Probing(Probe()), now)

    def _lost_before_probe(self, flight: Flight[Any]) -> None:
        """The device answers, but not to this."""
        self._plan.lost(flight.item)
        if flight.item.slow:
            self._stray_at = flight.sent_at
            self._slow_losses += 1
            if self._slow_losses >= _LOSSES_OF_SIZE:
                self._smaller()
            if self._slow_losses >= _SILENCES:
                raise self._silent(self._loop.time() - flight.sent_at, self._slow_losses)

    def _give_up(self, *, silent: bool = True) -> None:
        """Nobody waits any longer for what is on its way; what comes all the same is still taken."""
        for flight in self._window.time_out():
            if flight.item.__class__ is not _Probing:
                self._plan.lost(flight.item)
        if silent and self._stream is not None:
            self._stream.resynchronize()

    def _time_out(self, now: float) -> None:
        """Nothing has been answered for longer than it should take."""
        window, plan = self._window, self._plan
        waited_s = window.answer_s
        self._give_up()
        window.lost(now)
        silent_s = self._silent_s(now)
        self._losses_of_size += 1
        if self._trial is not None:
            self._smaller()
        elif window.dirty:
            self._halve()
        elif self._losses_of_size >= _LOSSES_OF_SIZE and silent_s >= min(_SILENCE_OF_SIZE_S, self._timeout_s):
            self._smaller()
        if plan.tail and silent_s >= max(self._timeout_s, _TAIL_S):
            plan.doubt()
        elif not plan.tail and silent_s >= _SILENCES * (self._timeout_s + window.air_s):
            raise self._silent(waited_s, window.losses)

    def _silent(self, timeout_s: float, attempts: int) -> RequestTimeout:
        plan = self._plan
        opening = plan.done_bytes == 0
        what = "upload" if self._stage is StageName.UPLOAD else "transfer"
        if opening:
            message = f"the {what} is stuck at 0 %: no answer to its first chunk within {timeout_s:g} s"
            hint = "if the device erases longer, raise --erase-timeout; if its buffers are small, try --chunk 128 or 64"
        else:
            percent = 100 * plan.done_bytes // max(1, plan.size)
            silent_s = self._silent_s(self._loop.time())
            message = f"the {what} is stuck at {percent} %: no answer for {silent_s:.0f} s, asked again and again"
            hint = _RESUME
        return RequestTimeout(message, what=what, timeout_s=timeout_s, attempts=attempts, hint=hint)

    # -- what is told --------------------------------------------------------------------------------------------------

    def _tell_soon(self) -> None:
        if self._telling is None:
            self._telling = self._loop.call_soon(self._tell, context=self._context)

    def _tell(self) -> None:
        self._telling = None
        if self._loop.time() >= self._report_at:
            self.report()
        notes, self._notes = self._notes, []
        for text in notes:
            self._progress(Note(text))

    def report(self) -> None:
        """Tell how far it is."""
        now = self._loop.time()
        self._told = self._plan.done_bytes
        self._progress(self._meter.read(now))
        told_at = self._loop.time()
        self._report_at = told_at + max(_REPORT_S, _LISTENS * (told_at - now))
