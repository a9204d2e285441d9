"""Where log records go: to the renderer with `-v`, to a file with `--log-file`.

A log only tells about the work. So nothing here raises, and nothing waits: a file that cannot be opened or written
costs one warning, and the work goes on without it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import system_says
from ..hints import quoted
from .exit_codes import Failure, exit_label
from .streams import Outlet
from .text import printable

if TYPE_CHECKING:
    from .arguments import Settings

story = logging.getLogger("mcumgrx.story")
"""What people see anyway: only for files."""

_FILE_FORMAT = "%(asctime)s.%(msecs)03d %(levelname)-7s %(name)s: %(message)s"

# At the end: for what is still to be written to a slow disk, or to a pipe whose reader is slow.
_LAST_S = 2.0


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


def _formatted(handler: logging.Handler, record: logging.LogRecord) -> str:
    """The record as text, whatever the objects in it do when they are asked for theirs."""
    try:
        return handler.format(record)
    except Exception as error:
        return f"{record.name}: a record that cannot be formatted ({type(error).__name__}): {str(record.msg)[:200]}"


class _Shown(logging.Handler):
    """Gives records to the renderer. The library's own are shown from `level` on, those of others with -vvv.

    A warning of the library is one of the command: it is told as such, where somebody takes those (`warn`).
    """

    def __init__(self, verbosity: int, show: Callable[[str], None], warn: Callable[[str], None] | None) -> None:
        super().__init__([logging.WARNING, logging.INFO, logging.DEBUG][min(verbosity, 2)])
        self._verbosity = verbosity
        self._show = show
        self._warn = warn
        self.addFilter(self._wanted)

    def _wanted(self, record: logging.LogRecord) -> bool:
        if record.name == story.name:
            return False
        if self._verbosity == 0 and record.name == "mcumgrx.registry":
            return False  # a broken plugin is told of where it matters, not with every command
        return record.name.startswith("mcumgrx") or self._verbosity >= 3 or record.levelno >= logging.ERROR

    def emit(self, record: logging.LogRecord) -> None:
        ours = record.name.startswith("mcumgrx.") and record.levelno == logging.WARNING and not record.exc_info
        if ours and self._warn is not None:
            self._warn(_formatted(self, record))
            return
        label = record.levelname.lower() if record.levelno >= logging.WARNING else record.name
        for line in f"{label}: {_formatted(self, record)}".splitlines():
            self._show(line)


class _FileFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)  # a log is read with cat
        return super().formatMessage(record)


class _File(logging.Handler):
    """Appends records to a file, in a thread of its own.

    Attributes:
        problem: why not all of them are there, or None.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.setFormatter(_FileFormatter(_FILE_FORMAT, "%Y-%m-%d %H:%M:%S"))
        self.problem: str | None = None
        self._outlet = Outlet("log")
        self._descriptor = _open(path)

    def emit(self, record: logging.LogRecord) -> None:
        if self.problem is None:
            self._outlet.put(self._write, _formatted(self, record) + "\n")

    def _write(self, text: str) -> None:
        if self.problem is not None:
            return
        rest = memoryview(text.encode("utf-8", errors="backslashreplace"))
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            self.problem = error.strerror or str(error)

    def finish(self) -> None:
        """Write what is left, and close the file."""
        if self._outlet.close(_LAST_S):
            os.close(self._descriptor)
        elif self.problem is None:  # the thread still has it: it is left to the end of the process
            self.problem = "it does not take more"


def _open(path: Path) -> int:
    """The file, to be appended to. Raises `OSError`."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
    # A pipe that nobody reads would be waited for.
    descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    if sys.platform != "win32" and not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.set_blocking(descriptor, True)  # its own thread may wait
    return descriptor


def log_begin(name: str, typed: Sequence[str], settings: Settings | None) -> None:
    """Begin the log of a command with what was asked for, and of whom."""
    import platform

    from .._version import __version__
    from ..protocol.codec import IMPLEMENTATION

    system = f"{platform.system()} {platform.release()}, Python of mcumgrx {platform.python_version()}"
    story.info("mcumgrx %s (%s codec, %s)", __version__, IMPLEMENTATION, system)
    story.info("command: %s", " ".join(quoted(word) for word in ("mcumgrx", *typed)))
    if settings is not None:
        story.info("%s, device: %s", name, settings.device or "none")
        for variable, option, value in settings.environment:
            story.info("%s comes from %s: %s", option, variable, value)


def log_result(lines: Sequence[str], code: int) -> None:
    """End the log of a command that has a result."""
    for line in lines:
        story.info("result: %s", line)
    story.info("exit code %d (%s)", code, exit_label(code))


def log_failure(failure: Failure) -> None:
    """End the log of one that has failed."""
    story.info("error: %s", failure.message)
    if failure.hint:
        story.info("hint: %s", failure.hint)
    log_result((), failure.exit)


@contextmanager
def logging_to(
    show: Callable[[str], None],
    verbosity: int,
    file: Path | None,
    warn: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """For a `with` block, log to `show` as `verbosity` (the number of -v) asks, and all of it to `file`.

    `warn` is told the library's warnings, and once, if the file cannot be written.
    """
    handlers: list[logging.Handler] = [_Shown(verbosity, show, warn)]
    log_file = _log_file(file, warn) if file is not None else None
    if log_file is not None:
        handlers.append(log_file)
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
        if log_file is not None:
            log_file.finish()
            if log_file.problem is not None and warn is not None:
                warn(f"the log file {file} is not complete: {log_file.problem}")


def _log_file(path: Path, warn: Callable[[str], None] | None) -> _File | None:
    try:
        return _File(path)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
        reason = system_says(error)
        if isinstance(error, OSError) and error.errno == errno.ENXIO:
            reason = "it is a pipe that nobody reads"
        if warn is not None:
            warn(f"the log file {path} cannot be written: {reason}; there is no log")
        return None
