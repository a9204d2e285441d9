"""Standard output and error, owned: results alone reach standard output, and what nobody can read stops nobody.

While a command line is carried out, `sys.stdout` and file descriptor 1 lead to standard error, so that what plugins and
their libraries print never comes between results. Whatever is written here may fail (a full disk, a closed pipe,
`>&-`) without an exception: it only tells about the work. The first failure of each stream is kept for the end.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO, cast

from .text import printable


class Outlet:
    """Writes in a thread of its own, in order: a terminal that is stopped (Ctrl-S), a reader that does not read and a
    slow disk hold up nobody but this thread.

    Arguments:
        name: of the thread.
    """

    # What may wait to be written. A device that prints without end, say, must not fill the memory.
    MOST_CHARACTERS = 4_000_000

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Callable[[str], object], str]] = deque()
        self._characters = 0
        self._left_out = 0
        self._thread: threading.Thread | None = None

    def put(self, write: Callable[[str], object], text: str) -> None:
        """Let `write(text)` be called soon. It must not raise."""
        with self._changed:
            if self._characters > self.MOST_CHARACTERS:
                self._left_out += 1
                return
            if self._left_out:
                text = f"({self._left_out} lines left out here: they could not be written fast enough)\n{text}"
                self._left_out = 0
            self._waiting.append((write, text))
            self._characters += len(text)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"mcumgrx {self._name}", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self, timeout_s: float | None = None) -> bool:
        """Wait until all is written; tells whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, timeout_s)

    def close(self, timeout_s: float | None = None) -> bool:
        """Drain, and end the thread when it can."""
        done = self.drain(timeout_s)
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if done and thread is not None:
            thread.join()
        return done

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._thread is not me)
                if not self._waiting:
                    return
                write, text = self._waiting[0]
            write(text)
            with self._changed:
                self._waiting.popleft()
                self._characters -= len(text)
                self._changed.notify_all()


class Streams:
    """Where results and everything else go, for the time of a command line.

    Attributes:
        out: for results.
        err: for all else.
    """

    def __init__(self) -> None:
        _open_the_first_three()
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self.err: TextIO = sys.stderr or _nowhere()
        self.out: TextIO = sys.stdout or _nowhere()
        self.errors: dict[TextIO, OSError] = {}
        self.outlet: Outlet | None = None
        self._copy: int | None = None
        self._stray = _Stray(self.err)

    def take(self) -> None:
        """Let nobody else write results."""
        for stream in (self.out, self.err):
            if isinstance(stream, io.TextIOWrapper):
                # A terminal that cannot show ✓ must not end a command.
                with contextlib.suppress(OSError, ValueError):
                    stream.reconfigure(errors="backslashreplace")
        if _descriptor(self.out) == 1 and _descriptor(self.err) == 2:
            self.out.flush()
            self._copy = os.dup(1)
            encoding = self.out.encoding
            self.out = open(self._copy, "w", encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
            os.dup2(2, 1)
        sys.stdout, sys.stderr = cast(TextIO, self._stray), self.err

    def give_back(self) -> None:
        """As it was before `take`."""
        self._stray.end_line()
        if self._copy is not None:
            with contextlib.suppress(OSError, ValueError):
                self.out.flush()
            os.dup2(self._copy, 1)
            os.close(self._copy)
            self._copy = None
            self.out = self._stdout or self.out
        sys.stdout, sys.stderr = self._stdout, self._stderr

    @contextmanager
    def released(self) -> Iterator[None]:
        """For a `with` block standard output is the process's own again, for a command that writes to it itself."""
        outlet, self.outlet = self.outlet, None
        if outlet is not None:
            outlet.drain()
        out = self.out
        if copied := self._copy is not None:
            os.dup2(self._copy or 1, 1)
        sys.stdout = self._stdout or out
        try:
            yield
        finally:
            if copied:
                os.dup2(2, 1)
            sys.stdout = cast(TextIO, self._stray)
            self.outlet = outlet

    @contextmanager
    def beside(self) -> Iterator[Outlet]:
        """For a `with` block all is written beside the work, in a thread: nothing that only tells can hold it up."""
        self.outlet = outlet = Outlet("output")
        try:
            yield outlet
        finally:
            self.outlet = None


def _open_the_first_three() -> None:
    """Started with a closed stream (`>&-`), the next file or link to be opened would take its number, and its text."""
    with contextlib.suppress(OSError):
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # not one of the process
        return None


class _Around(io.TextIOBase):
    """A text stream for others to write to, in front of one of ours."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "ascii"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()


class _Stray(_Around):
    """What others print: it goes to standard error in whole lines, made harmless."""

    encoding = "utf-8"

    def __init__(self, err: TextIO) -> None:
        super().__init__(err)
        self._line = ""
        self.buffer = cast(BinaryIO, _StrayBytes(self))

    def isatty(self) -> bool:
        return False

    def write(self, text: str, /) -> int:
        *lines, self._line = (self._line + str(text)).split("\n")
        for line in lines:
            write_line(self._stream, printable(line.removesuffix("\r")))
        if len(self._line) > 10_000:
            self.end_line()
        return len(text)

    def end_line(self) -> None:
        if self._line:
            self.write("\n")


class _StrayBytes(io.RawIOBase):
    def __init__(self, text: _Stray) -> None:
        self._text = text

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        raw = bytes(data)  # type: ignore[call-overload]
        self._text.write(raw.decode(errors="backslashreplace"))
        return len(raw)


_current: Streams | None = None


@contextmanager
def standard_streams() -> Iterator[Streams]:
    """Take the standard streams for the time of a `with` block, and write out what is left at its end."""
    global _current
    if _current is not None:
        yield _current
        return
    _current = made = Streams()
    made.take()
    try:
        yield made
    finally:
        made.give_back()
        for stream, own in ((made.out, sys.stdout), (made.err, sys.stderr)):
            _flush(stream)
            if own is None:
                stream.close()
        _current = None


def streams() -> Streams:
    """Those in force; without any, the process's own as they are."""
    return _current if _current is not None else Streams()


# -- writing ----------------------------------------------------------------------------------------------------------


def write_line(stream: TextIO, text: str) -> None:
    """Write a line. Whatever goes wrong is kept for `lost`, and the stream left alone from then on."""
    write_text(stream, text + "\n")


def write_text(stream: TextIO, text: str) -> None:
    """As `write_line`, without the end of the line."""
    outlet = _current.outlet if _current is not None else None
    if outlet is None:
        _write(stream, text)
    else:
        outlet.put(lambda text: _write(stream, text), text)


def _write(stream: TextIO, text: str) -> None:
    try:
        try:
            stream.write(text)
        except UnicodeError:
            stream.write(text.encode("ascii", errors="backslashreplace").decode("ascii"))
        stream.flush()
    except OSError as error:
        _lose(stream, error)
    except ValueError:  # closed by an earlier failure
        pass


class Beside(_Around):
    """A stream for those who write to one themselves: what they write goes the way of `write_text`."""

    def write(self, text: str, /) -> int:
        if text:
            write_text(self._stream, text)
        return len(text)


def lost(stream: TextIO) -> OSError | None:
    """Why something that was written to this stream has been lost: a full disk, say. Told once.

    A reader that has left, as `head` does, has all that it wants.
    """
    return _current.errors.pop(stream, None) if _current is not None else None


def _lose(stream: TextIO, error: OSError) -> None:
    if _current is not None and not (isinstance(error, BrokenPipeError) or error.errno == errno.EPIPE):
        _current.errors.setdefault(stream, error)
    _discard(stream)


def _discard(stream: TextIO) -> None:
    """Send what is still written to `stream` nowhere, so that the interpreter does not complain at its exit."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError as error:
        _lose(stream, error)
    except ValueError:
        pass
