"""Progress of long operations, as a stream of typed events.

Whoever starts an operation passes a `Progress` callable and gets these values; nothing here is ever printed by the
library. The command line renders them as bars, plain lines or JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import KW_ONLY, asdict, dataclass
from enum import StrEnum

log = logging.getLogger("mcumgrx.events")


class StageName(StrEnum):
    """The stages of an update, in the order in which they can occur."""

    INSPECT = "inspect"
    CONNECT = "connect"
    READ = "read"
    PLAN = "plan"
    ENTER = "enter"
    ERASE = "erase"
    UPLOAD = "upload"
    MARK = "mark"
    RESET = "reset"
    RETURN = "return"
    PROVE = "prove"
    SOAK = "soak"
    CHECK = "check"
    CONFIRM = "confirm"
    DOWNLOAD = "download"  # of a file, in no update


class Event:
    """Base of all that is told on the way. Plugins derive their own, which are frozen dataclasses.

    People see its `text`, a field or a property, and its fields where it has none. In JSON it has its class as its name
    (`WarmingUp` is `warming_up`), and its fields.
    """

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Stage(Event):
    """A stage begins (`finished` false, `text` says what is done) or ends (`text` says with which result).

    `name` is one word: a `StageName`, or a plugin's own.
    """

    name: str
    text: str = ""
    _: KW_ONLY
    finished: bool = False
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Status(Event):
    """What is going on at the moment: the next one takes its place, and nothing is left of it in the end."""

    text: str


class Limit(StrEnum):
    """What keeps a transfer from being faster."""

    LINK = "link"  # it carries no more
    BUFFERS = "buffers"  # the link idles while the device has no room for another request
    DEVICE = "device"  # it takes its time for each request: flash, mostly
    COMPUTER = "computer"  # this one: busy itself, or with other programs


@dataclass(frozen=True, slots=True)
class Speed:
    """How a transfer goes. Rates in bytes of content per second.

    Attributes:
        now: rate over the last seconds; `average`: since the first byte.
        left_s: seconds until the end at the present rate; None where that cannot be told.
        window: requests that may be on their way at once.
        chunk_bytes: content in a message.
        round_trip_s, slow_round_trip_s: from the moment when a request has left until its answer: median of the last
            ones, and what 95 of 100 do not exceed. None before the first.
        retransmissions: messages that were sent again.
        limited_by: what keeps it from being faster, where that can be told; `hint`: what would make it so.
    """

    now: float
    average: float
    left_s: float | None
    window: int
    chunk_bytes: int
    round_trip_s: float | None
    slow_round_trip_s: float | None
    retransmissions: int
    limited_by: Limit | None = None
    hint: str | None = None

    def as_dict(self) -> dict[str, object]:
        """As JSON takes it: whole bytes per second, tenths of seconds to go, round trips to the microsecond."""
        trips = {name: _rounded(getattr(self, name), 6) for name in ("round_trip_s", "slow_round_trip_s")}
        rates = {"now": round(self.now), "average": round(self.average), "left_s": _rounded(self.left_s, 1)}
        return {**asdict(self), **rates, **trips}


def _rounded(seconds: float | None, digits: int) -> float | None:
    return None if seconds is None else round(seconds, digits)


@dataclass(frozen=True, slots=True)
class Bytes(Event):
    """`done` of `total` bytes are through; the first `resumed_from` of them were there before this operation began.

    `elapsed_s` counts from the operation's first byte, so `(done - resumed_from) / elapsed_s` is the average rate.
    """

    stage: str
    done: int
    total: int
    elapsed_s: float
    resumed_from: int = 0
    speed: Speed | None = None


@dataclass(frozen=True, slots=True)
class Note(Event):
    """Something worth telling in between; a warning does not stop the operation."""

    text: str
    _: KW_ONLY
    warning: bool = False


@dataclass(frozen=True, slots=True)
class DeviceText(Event):
    """Text that the device wrote beside SMP (log lines, a boot banner). Untrusted: it may hold control characters."""

    text: str


Progress = Callable[[Event], None]


def ignore_progress(event: Event) -> None:
    """The default listener: hears nothing."""


def guarded(progress: Progress) -> Progress:
    """`progress`, of which no mistake gets through: it only tells about the work, and does not decide its result.

    What it raises is logged, the first time as a warning with where it came from, and it is told the next event all
    the same. Only what ends a program (Ctrl-C, `SystemExit`) passes.
    """
    return progress if isinstance(progress, _Guarded) else _Guarded(progress)


class _Guarded:
    """See `guarded`."""

    __slots__ = ("_failed", "_progress")

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._failed = False

    def __call__(self, event: Event) -> None:
        try:
            self._progress(event)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a cancellation of somebody else's, for one
            if self._failed:
                log.debug("the listener for progress failed again: %r", error)
                return
            self._failed = True
            log.warning("the listener for progress failed; the work goes on", exc_info=True)
