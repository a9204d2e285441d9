"""Progress of long operations, as a stream of typed events.

Whoever starts an operation passes a `Progress` callable and gets these values; nothing here is ever printed by the
library. The command line renders them as bars, plain lines or JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Bytes", "DeviceText", "Event", "Note", "Progress", "Stage", "StageName", "ignore_progress"]


class StageName(StrEnum):
    """The stages of an update, in the order in which they can occur."""

    INSPECT = "inspect"
    CONNECT = "connect"
    READ = "read"
    PLAN = "plan"
    ERASE = "erase"
    UPLOAD = "upload"
    MARK = "mark"
    RESET = "reset"
    RETURN = "return"
    PROVE = "prove"
    CONFIRM = "confirm"
    DOWNLOAD = "download"  # of a file, in no update


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage begins (`finished` false, `text` says what is done) or ends (`text` says with which result)."""

    name: StageName
    text: str = ""
    finished: bool = False
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Bytes:
    """`done` of `total` bytes are through; the first `resumed_from` of them were there before this operation began.

    `elapsed_s` counts from the operation's first byte, so `(done - resumed_from) / elapsed_s` is the average rate.
    """

    stage: StageName
    done: int
    total: int
    elapsed_s: float
    resumed_from: int = 0


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth telling in between; a warning does not stop the operation."""

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class DeviceText:
    """Text that the device wrote beside SMP (log lines, a boot banner). Untrusted: it may hold control characters."""

    text: str


Event = Stage | Bytes | Note | DeviceText
Progress = Callable[[Event], None]


def ignore_progress(event: Event) -> None:
    """The default listener: hears nothing."""
