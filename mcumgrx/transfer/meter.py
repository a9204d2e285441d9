"""What there is to tell of a transfer: how fast it is, what limits it, and how to make it faster.

What is busy all the time limits a transfer: the link, or the device. If neither is, it waits, for want of buffers in
the device most of the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..events import Bytes, Limit, Speed, StageName
from ..hints import Hint, Run
from ..link.profile import LinkProfile
from ..transport import Flow, Limits
from .plan import TransferPlan, UploadPlan
from .sizes import MessageSize
from .timing import LinkTiming
from .window import PacedWindow, Window

# Round trips that are kept to be shown.
_TRIPS = 256

# What "now" means.
_NOW_S = 2.0

# From this share of the time on, the link or the device counts as what limits a transfer; the device also if an erase,
# or something else that is slow, took this share.
_MOSTLY = 0.75
_MOSTLY_SLOW = 0.5

# This computer is what limits it if this program is at work, or ready to be, for this share of the time.
_MOSTLY_WORK = 0.5

# A round trip that is so many times the shortest one was spent in a queue.
_WAITED = 1.3

_ERASING = Hint(
    "most of the time went into erasing, which a device leaves out if the slot is empty: ",
    Run("image erase"),
    " can do it beforehand, and CONFIG_IMG_ERASE_PROGRESSIVELY in its firmware spreads it over the upload",
)
_REASSEMBLY = "CONFIG_MCUMGR_TRANSPORT_BT_REASSEMBLY in its firmware puts together what is larger"

_NEVER = float("inf")


@dataclass(eq=False)
class Meter:
    """Measures one transfer.

    Attributes:
        load: the share of so many seconds for which this computer was busy, as far as it tells.
        slowest_s: of the answers to slow requests; None before the first.
        chunk_bytes: data in a request that is neither the first nor the last.
    """

    plan: TransferPlan[Any]
    window: Window[Any]
    size: MessageSize
    timing: LinkTiming
    profile: LinkProfile
    limits: Limits
    flow: Flow
    stage: str
    load: Callable[[float], float | None]
    slowest_s: float | None = None
    chunk_bytes: int = 0

    def __post_init__(self) -> None:
        self._begin: float | None = None
        self._reports: deque[tuple[float, int]] = deque()
        self._trips: deque[float] = deque(maxlen=_TRIPS)  # from when a request has left
        self._shortest_s = _NEVER
        self._held_s = 0.0

    # -- what happens --------------------------------------------------------------------------------------------------

    def begin(self, now: float) -> None:
        """The transfer begins, or goes on."""
        if self._begin is None:
            self._begin = now

    def round_trip(self, seconds: float) -> None:
        """An answer has come so long after its request has left."""
        self._trips.append(seconds)
        if seconds < self._shortest_s:
            self._shortest_s = seconds

    def slow(self, seconds: float) -> None:
        """The answer to a slow request has taken so long."""
        self.slowest_s = max(self.slowest_s or 0.0, seconds)

    def advanced(self, done: int) -> None:
        """An answer has brought the transfer on from there, and none before it was lost."""
        plan = self.plan
        chunk_bytes = plan.done_bytes - done
        if chunk_bytes == self.chunk_bytes or done < plan.resumed_from:
            return
        if not (plan.done and self.chunk_bytes):  # the last one is shorter than those before
            self.chunk_bytes = chunk_bytes

    def forget_trips(self) -> None:
        """What requests seemed to take on the link was wrong, and with it when they have left."""
        self._trips.clear()
        self._shortest_s = _NEVER

    def held(self, seconds: float) -> None:
        """For so long nothing was to happen, which counts for nothing."""
        if self._begin is not None:
            self._begin += seconds
        self._held_s += seconds
        self._reports.clear()

    # -- what it comes to ----------------------------------------------------------------------------------------------

    def read(self, now: float) -> Bytes:
        """How far it is; what is read is also what the next `now` is compared with."""
        plan, reports = self.plan, self._reports
        reports.append((now, plan.done_bytes))
        while len(reports) > 2 and reports[1][0] <= now - _NOW_S:
            reports.popleft()
        elapsed_s = 0.0 if self._begin is None else now - self._begin
        speed = self._speed(now, elapsed_s)
        return Bytes(self.stage, plan.done_bytes, plan.size, elapsed_s, plan.resumed_from, speed)

    def _speed(self, now: float, elapsed_s: float) -> Speed:
        plan, window = self.plan, self.window
        since, done = self._reports[0]
        moved = plan.done_bytes - plan.resumed_from
        average = moved / elapsed_s if elapsed_s > 0 else 0.0
        present = (plan.done_bytes - done) / (now - since) if now > since else average
        left = plan.size - plan.done_bytes
        trips = sorted(self._trips)
        limited_by = self._limited_by(trips, elapsed_s)
        return Speed(
            now=present,
            average=average,
            left_s=0.0 if not left else left / present if present > 0 else None,
            window=int(window.size),
            chunk_bytes=self.chunk_bytes,
            round_trip_s=trips[len(trips) // 2] if trips else None,
            slow_round_trip_s=trips[min(len(trips) - 1, len(trips) * 95 // 100)] if trips else None,
            retransmissions=plan.retransmissions,
            limited_by=limited_by,
            hint=self._hint(limited_by, elapsed_s),
        )

    def _limited_by(self, trips: list[float], elapsed_s: float) -> Limit | None:
        """The part that is busy all the time."""
        window, slow_s = self.window, self.slowest_s or 0.0
        if elapsed_s > 0 and slow_s >= _MOSTLY_SLOW * elapsed_s:
            return Limit.DEVICE
        busy_s = elapsed_s - slow_s
        if len(trips) < 8 or busy_s <= 0:
            return None
        if self._on_wire_s() >= _MOSTLY * busy_s:
            return Limit.LINK
        # How long a request is away for nothing but the way and the server, as far as any has shown.
        min_rtt_s = self.profile.min_rtt_s
        way_s = self._shortest_s if min_rtt_s is None else min(self._shortest_s, min_rtt_s)
        # So many are in the device on average, being carried out or waiting (Little's law): one keeps it busy. Where
        # several are on their way, what a link varies looks the same, so even the quick ones must have waited.
        # A pause of this program is in all trips that are under way then, and is no work of the device.
        most_s = trips[max(len(trips) // 2, len(trips) - 2 - int(window.size))]
        trip_s = sum(min(trip_s, most_s) for trip_s in trips) / len(trips)
        in_device = window.numbers / busy_s * (trip_s - way_s)
        if in_device >= _MOSTLY and (window.size < 2 or trips[len(trips) // 4] >= _WAITED * way_s):
            # What waits here for a processor looks as if it waited in the device.
            load = self.load(elapsed_s + self._held_s)
            return Limit.COMPUTER if load is not None and load >= _MOSTLY_WORK else Limit.DEVICE
        if isinstance(window, PacedWindow) and window.size < window.widest:
            # Below the device's room it is cut down by losses, and above it by losses or because no more goes through.
            return Limit.DEVICE if window.pacing.saturated else Limit.BUFFERS if window.losses else None
        if window.size < 2 and min_rtt_s is None:
            return None  # the way and the device's work cannot be told apart
        return Limit.BUFFERS if window.size >= window.widest else None

    def _on_wire_s(self) -> float:
        """For how long the link was busy in the direction that carries the data; 0 where it does not tell."""
        timing = self.timing
        if not timing.wire_bytes:
            return 0.0
        carried = timing.sent_bytes
        if self.stage == StageName.DOWNLOAD:
            carried = self.plan.done_bytes - self.plan.resumed_from  # a little less than what the answers take
        return timing.wire_s / timing.wire_bytes * carried

    def _hint(self, limited_by: Limit | None, elapsed_s: float) -> str | None:
        match limited_by:
            case Limit.LINK:
                return self.flow.faster or None
            case Limit.BUFFERS:
                return self._more_buffers()
            case Limit.DEVICE if (self.slowest_s or 0.0) >= _MOSTLY_SLOW * elapsed_s:
                return _ERASING if isinstance(self.plan, UploadPlan) else None
            case Limit.COMPUTER:
                return "it has no processor to spare, or is slower than the device; nothing else would change anything"
            case Limit.DEVICE:
                return "it is busy all the time, with its flash most likely; a faster link would change nothing"
        return None

    def _more_buffers(self) -> str:
        """What lets more data be on their way at once."""
        profile, limits, window, size = self.profile, self.limits, self.window, self.size
        if window.widest < window.buffers:
            return f"a larger --window: the device has room for {window.buffers} requests"
        if (params := profile.params) is None:
            return (
                "the device does not tell them, and gets one small message at a time: "
                "CONFIG_MCUMGR_GRP_OS_MCUMGR_PARAMS in its firmware tells them"
            )
        if size.current < size.largest or profile.refused_bytes is not None:
            # Larger ones were lost in front of the buffers that the device tells.
            if limits.write is not None:
                return f"messages above {size.current} bytes get lost: {_REASSEMBLY}"
            if limits.buffer_overhead:
                return (
                    f"messages above {size.current} bytes get lost: more line buffers in the device "
                    "(CONFIG_UART_MCUMGR_RX_BUF_COUNT) let them through"
                )
        if limits.write is not None and limits.max_message <= limits.write < params.buf_size:
            return f"no message is larger than one write: {_REASSEMBLY}"
        larger = "larger ones (CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE)"
        if self.flow.most is not None and window.buffers >= self.flow.most:
            return f"more buffers are of no use on this link, but {larger} carry more at once"
        more = "more buffers in the device (CONFIG_MCUMGR_TRANSPORT_NETBUF_COUNT)"
        if limits.message(params.buf_size) >= limits.max_message:
            return f"{more} keep the link busy"
        return f"{more} or {larger} keep the link busy"
