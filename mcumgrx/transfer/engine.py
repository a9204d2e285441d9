"""`Engine`: a plan that is carried out, as an object that is told what happens, and says what to do.

What a request contains and what an answer means is decided by the plan, how many may be on their way by the `window`,
how far apart they leave by its `pacing`, how large they are in `sizes`. Here these meet: an answer is passed to each
of them, time-outs end in losses, and what brings nothing ends the transfer. Time is a number that is passed in::

    engine.begin(now)
    while not engine.ended:
        while (flight := engine.request(now)) is not None:
            ...                             # send flight.request
        engine.left(flight, now, queued_s)  # the link has taken it
        engine.reply(flight, reply, now)    # its answer has come
        engine.tick(now)                    # at `next_time`, if not before; nothing is sent before `send_at`

Everything returns or raises; nothing calls back. Whatever is raised ends the transfer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..errors import DeviceError, MalformedReply
from ..events import StageName
from ..link.profile import LinkProfile
from ..messages.message import Reply
from ..protocol.codes import SmpError
from ..transport import Flow, Limits
from .flight import Flight
from .headway import Headway
from .meter import Meter
from .plan import Piece, TransferPlan
from .sizes import MessageSize
from .slow import Probing, SlowRequest
from .timing import LinkTiming
from .window import Window

P = TypeVar("P", bound=Piece)

# How large answers are, where that matters: those to chunks and small queries, and those that carry a file in a device
# that does not tell its buffers.
_ANSWER_BYTES = 96
_FILE_ANSWER_BYTES = 512

_NEVER = float("inf")


class Engine(Generic[P]):
    """One plan being carried out. Times in seconds, sizes in bytes.

    Arguments:
        profile: what is known of the device on this link; added to.
        limits, flow: of the link.
        timeout_s: seconds for ordinary answers.
        slow_s: seconds for the answer to a slow piece.
        again_s: after so long a slow piece is sent once more; None for never.
        begin_bytes: the size of the first messages, where that is more than what is known to arrive.
        load: the share of so many seconds for which this computer was busy, as far as it tells.

    Attributes:
        send_at: when `request` may have another one, where that is a matter of time; else infinite.
        notes: what there is to say. To be emptied by who says it.
        forgotten: flights whose answers nobody waits for any more. To be emptied by who forgets them.
    """

    def __init__(
        self,
        plan: TransferPlan[P],
        window: Window[Any],
        profile: LinkProfile,
        limits: Limits,
        flow: Flow,
        *,
        stage: str,
        timeout_s: float,
        slow_s: Callable[[P], float],
        again_s: float | None = None,
        begin_bytes: int = 0,
        load: Callable[[float], float | None] = lambda elapsed_s: None,
    ) -> None:
        self.send_at = _NEVER
        self.forgotten: list[Flight[Any]] = []
        self.plan = plan
        self.window = window
        self._profile = profile
        self._timing = LinkTiming()
        self._sizes = MessageSize(plan, window, profile, limits, begin_bytes=begin_bytes)
        self._slow = SlowRequest(window, profile, slow_s, again_s)
        self._headway = Headway(plan, window, timeout_s, stage)
        self.notes = self._headway.notes
        self._behind: Any | None = None  # to be sent behind a slow request
        self._held_at: float | None = None
        self._answers_are_files = stage == StageName.DOWNLOAD
        self.meter = Meter(plan, window, self._sizes, self._timing, profile, limits, flow, stage, load)

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be done now: the plan is done, or waits for something else."""
        return self.plan.done or self.plan.needs_settling

    @property
    def strays_until(self) -> float:
        """Until then a slow request that was given up may still arrive at the device."""
        return self._slow.stray_at + self._headway.timeout_s

    def begin(self, now: float, *, held: bool = False) -> None:
        """Nothing is on its way, and the time of the device's silence begins."""
        self.window.clear()
        self.forgotten.clear()
        self._slow.flight = self._behind = None
        self._headway.begin(now)
        self.meter.begin(now)
        self._held_at = now if held else None

    def hold(self, held: bool, now: float) -> None:
        """Send nothing more until it is let go; what is on its way is still answered."""
        if self._held_at is not None:
            held_s = now - self._held_at
            self._headway.held(held_s)
            self.meter.held(held_s)
        self._held_at = now if held else None

    # -- sending -------------------------------------------------------------------------------------------------------

    def request(self, now: float, room: bool = True) -> Flight[Any] | None:
        """The request to send now, which is on its way from here on; None for none.

        `room`: whether the link takes another one, be it from others or from us.
        """
        self.send_at = _NEVER
        if self._behind is not None and room:
            item, self._behind = self._behind, None
            return self._sends(item, now)
        if self._headway.paused_until > now:
            self.send_at = self._headway.paused_until
            return None
        if self._slow.flight is not None or self._held_at is not None:
            return None
        window = self.window
        wait_s = window.wait_s(now)
        if wait_s != 0.0:
            if wait_s is not None:
                self.send_at = now + wait_s
            return None
        if not room:
            return None
        piece = self.plan.next()
        if piece is None:
            if not window.unanswered and not self.ended:  # a mistake of a plan: nobody may hang
                raise RuntimeError(f"{self.plan!r} has nothing to send, waits for nothing, and is not done")
            return None
        return self._sends(piece, now)

    def _sends(self, item: Any, now: float) -> Flight[Any]:
        slow = item.slow
        flight = self.window.sent(item, now, measured=not slow)
        flight.request = request = item.command.request()
        flight.size = request.size
        self._timing.sends(flight, now)
        if slow:
            self._slow.sent(flight)
        return flight

    def left(self, flight: Flight[Any], now: float, queued_s: float) -> None:
        """The link has taken it, and has `queued_s` seconds of messages in its queue: time-outs count from there."""
        window, timing = self.window, self._timing
        timing.left(flight, now, queued_s, last=flight.number == window.numbers - 1)
        if timing.wire_bytes or window.air_s:
            window.air_s = timing.air_s(self._answer_bytes)

    @property
    def _answer_bytes(self) -> int:
        """How large an answer may be."""
        if not self._answers_are_files:
            return _ANSWER_BYTES
        params = self._profile.params
        return max(self.plan.message_bytes, _FILE_ANSWER_BYTES if params is None else params.buf_size)

    # -- what comes back -----------------------------------------------------------------------------------------------

    def reply(self, flight: Flight[Any], reply: Reply, now: float) -> None:
        """Its answer has come."""
        plan, window, meter, piece = self.plan, self.window, self.meter, flight.item
        self._headway.heard(now)
        setbacks, done = plan.setbacks, plan.done_bytes
        if not self._timing.answered(flight, now):
            meter.forget_trips()
        if flight.measured:
            meter.round_trip(now - flight.sent_at - flight.queued_s)
        overtaken = window.answered(flight, now)
        if overtaken:
            self._overtake(overtaken, piece, now)
        if flight is self._slow.flight:
            self._behind = None
            self._slow.answered()
            meter.slow(now - flight.sent_at)
        if piece.__class__ is Probing:
            return
        self._take(flight, reply, now)
        self._headway.answered(done, setbacks, now)
        if plan.setbacks != setbacks:
            window.lost(now)
            self._sizes.gap()
        if plan.done_bytes > done:
            window.advanced(now)
            if self._slow.losses:
                self._slow.advanced()
            if not overtaken:
                meter.advanced(done)
            self._sizes.advanced(flight)
        if window.unread and window.silenced:
            self._lost_at_once(now)

    def garbled(self, count: int, now: float) -> bool:
        """So many answers have come damaged: what was asked is done, and nothing is known of it.

        True if no other answer is out. Then a `tick` is due, once what has come with these is taken.
        """
        self._headway.heard(now)
        for _ in range(count):
            self.window.garbled()
        return self.window.silenced

    def _overtake(self, overtaken: list[Flight[Any]], piece: Any, now: float) -> None:
        """These were sent before `piece`, which is answered, and will not be."""
        for other in overtaken:
            self._forget(other)
            if other.item.__class__ is Probing:
                continue
            if piece.__class__ is not Probing:
                self.plan.overtaken(other.item)
                continue
            self.plan.lost(other.item)  # the device answers, but not to this
            if other.item.slow:
                self._slow.lost(other)
                self._sizes.slow_lost(self._slow.losses)
                self._headway.slow_lost(self._slow.losses, now - other.sent_at, now)

    def _take(self, flight: Flight[Any], reply: Reply, now: float) -> None:
        """Tell the plan what the device says."""
        plan, piece, headway = self.plan, flight.item, self._headway
        try:
            plan.answered(piece, piece.command.result(reply))
        except DeviceError as error:
            self._refused(flight, error, now)
        except MalformedReply as error:
            headway.unreadable(error, piece.command.facts.what, reply)
            self.window.lost(now)
            plan.lost(piece)
        else:
            if headway.unread:
                headway.readable()

    def _refused(self, flight: Flight[Any], error: DeviceError, now: float) -> None:
        plan, piece = self.plan, flight.item
        # Of those that were there together, the first one has made the others smaller.
        cut = error.says(SmpError.CORRUPT)
        if cut and (flight.size > self._sizes.current or self._sizes.too_large()):
            plan.lost(piece)  # it was cut on its way
        elif error.says(SmpError.BUSY, SmpError.NO_MEMORY):
            why = "is busy" if error.says(SmpError.BUSY) else "has no memory for the request"
            if not self._headway.busy(why, now):
                raise error
            self.window.lost(now)
            plan.put_off(piece)
        elif not plan.refused(piece, error):
            raise error

    def _forget(self, flight: Flight[Any]) -> None:
        self.forgotten.append(flight)
        if flight is self._slow.flight:
            self._slow.flight = self._behind = None

    # -- time ----------------------------------------------------------------------------------------------------------

    def next_time(self) -> float:
        """When `tick` is to be called, unless something happens before; infinite for never."""
        window, slow = self.window, self._slow
        if slow.flight is not None:
            at = slow.next_time(slow.flight)
        else:
            deadline = window.deadline()
            at = _NEVER if deadline is None else deadline
        expires_at = window.expires_at()
        return at if expires_at is None else min(at, expires_at)

    def tick(self, now: float) -> bool:
        """See whose time is up. May be called at any time.

        True if all that was on its way is given up, so that a message of which a part has come will not be completed.
        """
        window = self.window
        for gone in window.expire(now):
            self._forget(gone)
        if window.silenced:
            self._lost_at_once(now)
        elif self._slow.flight is not None:
            return self._watch_slow(self._slow.flight, now)
        elif (deadline := window.deadline()) is not None and deadline <= now:
            self._time_out(now)
            return True
        return False

    def _watch_slow(self, flight: Flight[Any], now: float) -> bool:
        """A request is out whose answer may take long."""
        slow = self._slow
        patience_s = slow.patience_s(flight)
        if now < flight.left_at + patience_s:
            if (note := slow.note(flight, now)) is not None:
                self._headway.notes.append(note)
            if (item := slow.to_send(flight, now)) is not None:
                self._behind = item
            return False
        slow.lost(flight, patience_s)
        self._give_up()
        if not self._sizes.too_large() and slow.enough(patience_s, self._headway.enough_s):
            raise self._headway.silence(patience_s, slow.losses, now)
        return True

    def _time_out(self, now: float) -> None:
        """Nothing has been answered for longer than it should take."""
        window, headway = self.window, self._headway
        waited_s = window.rto_s
        self._give_up()
        window.lost(now)
        self._sizes.timed_out(headway.silent_s(now), headway.timeout_s)
        headway.timed_out(waited_s, now)

    def _lost_at_once(self, now: float) -> None:
        """Of what is on its way there will be no answer that can be read."""
        self._give_up()
        self.window.lost(now)
        self._sizes.damaged()

    def _give_up(self) -> None:
        """Nobody waits any longer for what is on its way; what comes all the same is still taken."""
        self._slow.flight = self._behind = None
        for flight in self.window.time_out():
            if flight.item.__class__ is not Probing:
                self.plan.lost(flight.item)
