"""The one place that starts an event loop, and what Ctrl-C does to it. What runs in it is not known here."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, NoReturn, TypeVar

from .exit_codes import Exit

__all__ = ["run"]

T = TypeVar("T")


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work` to its end and return its result.

    The first Ctrl-C (or SIGTERM) cancels it, so that it can close its link; what it leaves on the device, the next
    run continues. The second one ends the process at once, because something hangs while closing. Raises
    `KeyboardInterrupt` when it was cancelled.
    """
    import asyncio

    interrupted = False

    async def guarded() -> T:
        nonlocal interrupted
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def interrupt(number: int, frame: FrameType | None) -> None:
            nonlocal interrupted
            if interrupted:
                _abandon()
            interrupted = True
            loop.call_soon_threadsafe(task.cancel)

        with _Signals(interrupt):
            return await work()

    try:
        return asyncio.run(guarded())
    except (Exception, asyncio.CancelledError) as error:
        if interrupted:  # whatever goes wrong while closing: it was the user who ended it
            raise KeyboardInterrupt from error
        raise


class _Signals:
    """For the time of a `with` block, SIGINT and SIGTERM call a handler; outside the main thread nothing changes."""

    def __init__(self, handler: Callable[[int, FrameType | None], None]) -> None:
        self._handler = handler
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handler)
        except ValueError:  # not the main thread
            pass

    def __exit__(self, *exception: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)


def _abandon() -> NoReturn:
    """End now, without waiting for anything; only the terminal's cursor is put back."""
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h\r\n")
    os._exit(Exit.INTERRUPTED)
