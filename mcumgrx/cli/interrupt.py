"""How a user ends a command: SIGINT (Ctrl-C), SIGTERM and SIGHUP, from the first line of the program to its last.

The first signal cancels what runs in the event loop, so that it closes its link; before and after it raises. Python
runs a handler only between two steps of the main thread. So a thread of its own, which the system wakes by a pipe,
sees to it that the signal has an effect: it prods a main thread that blocks in a call, and ends the process when that
does not help, or when closing takes too long. The second signal ends the process at once.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from ..isolation import UserInterrupt
from .exit_codes import Exit

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))

# A signal that has had no effect by then finds the main thread in a call that blocks: it is prodded out of it …
_PROD_S = 0.4
# … and where that call does not end even so, nothing can be closed any more.
_BLOCKED_S = 0.9
# Closing a link takes that long at most; BlueZ needs up to 2 s to disconnect.
_CLOSING_S = 3.0


class Interruptions:
    """The signals that end a command, from `begin` to `end`; in another than the main thread nothing happens.

    Attributes:
        number: the first signal that has come, or None.
        effective: it has been raised, or what was to be cancelled has been told.
        told: the user has been told.
        also: what is called before the process is ended at once, as to end others with it.
        over: all is done but to end the interpreter: from now on a signal ends the process at once.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._cancel: Callable[[], None] | None = None
        self.effective = False
        self.also: list[Callable[[], object]] = []
        self._outside = False  # it has been raised where no loop runs, so that nothing has to be closed
        self._prodding = False
        self.over = False
        self.told = False
        self._ending = threading.Lock()  # held by the one thread that ends the process
        self._before: dict[int, Any] = {}
        self._watcher: _Watcher | None = None
        self._terminal = _terminal_settings()

    def begin(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            before = signal.getsignal(number)
            if number == getattr(signal, "SIGHUP", None) and before is signal.SIG_IGN:
                continue  # nohup: to go on when the terminal is closed is what was asked for
            self._before[number] = signal.signal(number, self._handle)
        if sys.platform != "win32":  # where the loop itself needs to be woken so
            self._watcher = _Watcher(self)

    def end(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)

    @property
    def name(self) -> str:
        """Of the signal, in words: empty for Ctrl-C."""
        return "" if self.number in (None, signal.SIGINT) else signal.Signals(self.number or 0).name

    @contextmanager
    def cancelling(self, cancel: Callable[[], None]) -> Iterator[None]:
        """For a `with` block a signal calls `cancel`, in this thread or another, instead of being raised.

        `cancel` must see to it that `effective` is set.
        """
        self._cancel = cancel
        try:
            if self.number is not None:
                cancel()
            yield
        finally:
            self._cancel = None

    def check(self) -> None:
        """Raise it again, where foreign code has swallowed it."""
        if self.number is not None:
            raise UserInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._ending.locked():
            return  # to the one that is at it, which may be this thread
        if self._prodding:
            self._prodding = False
            self.effective = True
            raise UserInterrupt
        if self.number is not None or self.over:
            self.abandon()
        self.number = number
        if self._cancel is None:
            self.effective = self._outside = True
            raise UserInterrupt
        self._cancel()

    # -- in the watcher's thread -----------------------------------------------------------------------------------

    def handles(self, number: int) -> bool:
        return number in self._before

    def prod(self) -> bool:
        """Raise it in the main thread, in whatever call that is, if it has had no effect yet; tells whether so."""
        if self.effective:
            return False
        self._prodding = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return True

    def end_if_blocked(self) -> None:
        """End the process, if the signal has still had no effect."""
        if not self.effective or self._outside:
            self.abandon()

    def abandon(self) -> NoReturn:
        """End now, without waiting for anything. What was started is ended, and the terminal put back as it was."""
        self._ending.acquire()  # the same signal reaches the main thread and the watcher's: one of them tells it
        for end in self.also:
            with contextlib.suppress(Exception):
                end()
        _restore_terminal(self._terminal)
        with contextlib.suppress(OSError, ValueError):
            text = b"\x1b[?25h\r\n" if os.isatty(2) else b""
            if not self.told:
                text += b"interrupted\n"
            if sys.platform == "win32" or select.select([], [2], [], 0)[1]:  # not stopped with Ctrl-S
                os.write(2, text)
        os._exit(Exit.INTERRUPTED)


class _Watcher:
    """The thread that the system wakes with each signal, whatever the main thread is doing."""

    def __init__(self, owner: Interruptions) -> None:
        self._owner = owner
        self._own = 0  # prods that have not come back yet
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, name="mcumgrx signals", daemon=True)
        self._thread.start()

    def close(self) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def _watch(self) -> None:
        """Until the pipe is closed. After the first signal there is always something due, and its time."""
        due: list[tuple[float, Callable[[], object]]] = []
        begun = False
        while True:
            timeout_s = max(0.0, due[0][0] - time.monotonic()) if due else None
            if not select.select([self._read], [], [], timeout_s)[0]:
                act = due.pop(0)[1]
                if act() is True:
                    self._own += 1
                continue
            numbers = os.read(self._read, 64)
            if not numbers:
                return
            for number in numbers:
                if not self._is_from_outside(number):
                    continue
                if begun or self._owner.over:
                    self._owner.abandon()
                begun = True
                now = time.monotonic()
                due = [
                    (now + _PROD_S, self._owner.prod),
                    (now + _BLOCKED_S, self._owner.end_if_blocked),
                    (now + _CLOSING_S, self._owner.abandon),
                ]

    def _is_from_outside(self, number: int) -> bool:
        """Not our own prod, nor for another handler, as the one for the size of the terminal."""
        if number == signal.SIGINT and self._own:
            self._own -= 1
            return False
        return self._owner.handles(number)


def _terminal_settings() -> list[Any] | None:
    """What the terminal of standard input is like, or None: a shell that is left in the middle of a line hides it."""
    try:
        import termios
    except ImportError:
        return None
    with contextlib.suppress(termios.error, OSError):
        if os.isatty(0):
            settings: list[Any] = termios.tcgetattr(0)
            return settings
    return None


def _restore_terminal(settings: list[Any] | None) -> None:
    if settings is None:
        return
    import termios

    with contextlib.suppress(termios.error, OSError):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])  # it would stop a process in the background
        termios.tcsetattr(0, termios.TCSANOW, settings)


_current: Interruptions | None = None


@contextmanager
def interruptions(*, to_the_end: bool = False) -> Iterator[Interruptions]:
    """Those that are in force, or else new ones for the time of the block, or `to_the_end` of the process."""
    global _current
    if _current is not None:
        yield _current
        return
    _current = made = Interruptions()
    made.begin()
    try:
        yield made
    finally:
        _current = None
        if to_the_end:
            made.over = True
        else:
            made.end()


@contextmanager
def ending_too(end: Callable[[], object]) -> Iterator[None]:
    """For the time of the block: where a second signal ends this process at once, `end` is called before."""
    with interruptions() as signals:
        signals.also.append(end)
        try:
            yield
        finally:
            signals.also.remove(end)
