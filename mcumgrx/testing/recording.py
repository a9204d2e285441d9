"""What a program says to devices and hears from them, as text: requests, answers, events, the device's own lines.

It is read from the log of the package, so that every link is recorded, whoever opened it.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from reprlib import Repr
from typing import TypeVar

from ..blocking import BlockingDevice, Listener, as_listener
from ..errors import McumgrError
from ..events import Bytes, Event, Progress, Stage, Status, ignore_progress
from ..messages.message import Reply, Request, decode_body

__all__ = ["RecordedDevice", "Recording", "recording"]

T = TypeVar("T")

# Where what is said to devices and heard from them is told.
_LOGS = ("mcumgrx.link", "mcumgrx.client", "mcumgrx.session", "mcumgrx.device", "mcumgrx.messages")

# An upload is thousands of messages. Of a failure the end is what counts.
_MOST_LINES = 1000

_short = Repr()
_short.maxlevel, _short.maxdict, _short.maxlist, _short.maxstring, _short.maxother = 8, 40, 40, 200, 80


class Recording:
    """The last lines of a session, each with the seconds since it began."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._lines: deque[str] = deque(maxlen=_MOST_LINES)
        self._count = 0

    @property
    def text(self) -> str:
        """All of it. Where something is missing, the first line says how much."""
        missing = self._count - len(self._lines)
        return "\n".join([f"({missing} lines before)"] * bool(missing) + list(self._lines))

    def take(self, record: logging.LogRecord) -> None:
        """Add a record of the log."""
        try:
            self._add(_as_text(record))
        except Exception as error:  # of an object in it, which says how it is shown
            self._add(f"- {record.name}: a record that cannot be shown ({type(error).__name__})")

    def event(self, event: Event) -> None:
        """Add what an update or a transfer tells: for `progress`. How far it has come is left out."""
        if isinstance(event, Stage):
            self._add(f"* {event.name}{' done' if event.finished else ''}: {event.text}")
        elif not isinstance(event, Bytes | Status):
            self._add(f"* {getattr(event, 'text', event)}")

    def _add(self, text: str) -> None:
        shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
        self._lines.append(f"{time.monotonic() - self._began_s:9.3f}  {shown}")
        self._count += 1


class RecordedDevice(BlockingDevice):
    """A device whose methods block, and whose events are recorded as well."""

    def __init__(self, address: str, session: Recording) -> None:
        super().__init__(address)
        self._session = session

    def _call(self, work: Callable[[Progress], Awaitable[T]], progress: Listener | None) -> T:
        listen = ignore_progress if progress is None else as_listener(progress)

        def heard(event: Event) -> None:
            self._session.event(event)
            listen(event)

        return super()._call(work, heard)


@contextmanager
def recording() -> Iterator[Recording]:
    """Record what happens in the `with` block, in whatever thread.

    Other handlers of the log get what they got before, and nothing more.
    """
    session = Recording()
    loggers = [(one, one.level, one.getEffectiveLevel()) for one in map(logging.getLogger, _LOGS)]
    filters = [_filter(session, wanted) for _, _, wanted in loggers]
    for (logger, _, _), take in zip(loggers, filters, strict=True):
        logger.addFilter(take)
        logger.setLevel(logging.DEBUG)
    try:
        yield session
    finally:
        for (logger, level, _), take in zip(loggers, filters, strict=True):
            logger.setLevel(level)
            logger.removeFilter(take)


def _filter(session: Recording, wanted: int) -> Callable[[logging.LogRecord], bool]:
    """Lets what was wanted before through to the handlers, whichever there are."""

    def take(record: logging.LogRecord) -> bool:
        session.take(record)
        return record.levelno >= wanted

    return take


def _as_text(record: logging.LogRecord) -> str:
    """A request or an answer with all that is in it; of another record its message."""
    for part in record.args if isinstance(record.args, tuple) else ():
        if isinstance(part, Request):
            return f"> {part} {_content(part.payload)}"
        if isinstance(part, Reply):
            ignored = record.args[0] if isinstance(record.args, tuple) else ""
            return f"< {part.group}/{part.command} {_content(part.payload)} {ignored}".rstrip()
    return f"- {record.name}: {record.getMessage()}"


def _content(payload: bytes) -> str:
    try:
        return _short.repr(dict(decode_body(payload)))
    except McumgrError:
        return f"malformed: {payload[:80].hex()}"
