"""Where log records go: to the renderer with `-v`, to a file with `--log-file`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import UsageError
from .render import printable

__all__ = ["hold_early_records", "logging_to"]

_FILE_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"


class _Early(logging.Handler):
    """Keeps what is logged before it is known where it should go: plugins are loaded to parse the command line."""

    _LIMIT = 1000

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.records) < self._LIMIT:
            self.records.append(record)


@contextmanager
def hold_early_records() -> Iterator[None]:
    """For a `with` block around everything: no record is lost, and none reaches stderr past the renderer."""
    root = logging.getLogger()
    early = _Early()
    root.addHandler(early)
    level = root.level
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.removeHandler(early)
        root.setLevel(level)


class _Shown(logging.Handler):
    """Gives records to the renderer. The library's own are shown from `level` on, those of others with -vvv."""

    def __init__(self, verbosity: int, show: Callable[[str], None]) -> None:
        super().__init__([logging.WARNING, logging.INFO, logging.DEBUG][min(verbosity, 2)])
        self._verbosity = verbosity
        self._show = show
        self.addFilter(self._wanted)

    def _wanted(self, record: logging.LogRecord) -> bool:
        if self._verbosity == 0 and record.name == "mcumgrx.registry":
            return False  # a broken plugin is told of where it matters, not with every command
        return record.name.startswith("mcumgrx") or self._verbosity >= 3 or record.levelno >= logging.ERROR

    def emit(self, record: logging.LogRecord) -> None:
        label = record.levelname.lower() if record.levelno >= logging.WARNING else record.name
        for line in f"{label}: {self.format(record)}".splitlines():
            self._show(line)


class _FileFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)  # a log is read with cat
        return super().formatMessage(record)


@contextmanager
def logging_to(show: Callable[[str], None], verbosity: int, file: Path | None) -> Iterator[None]:
    """For a `with` block, log to `show` as `verbosity` (the number of -v) asks, and all of it to `file`.

    Raises `UsageError` when the file cannot be written.
    """
    handlers: list[logging.Handler] = [_Shown(verbosity, show)]
    if file is not None:
        try:
            handler = logging.FileHandler(file, mode="a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise UsageError(f"the log file {file} cannot be written: {error.strerror or error}") from error
        handler.setFormatter(_FileFormatter(_FILE_FORMAT, "%Y-%m-%d %H:%M:%S"))
        handlers.append(handler)
    root = logging.getLogger()
    level = root.level
    for early in [one for one in root.handlers if isinstance(one, _Early)]:
        records, early.records = early.records, []
        for record in records:
            for target in handlers:
                if record.levelno >= target.level and target.filter(record):
                    target.handle(record)
    for target in handlers:
        root.addHandler(target)
    root.setLevel(logging.DEBUG if file is not None or verbosity >= 2 else logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        for target in handlers:
            root.removeHandler(target)
            target.close()
