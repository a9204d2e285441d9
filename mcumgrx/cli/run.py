"""The one place that starts an event loop, and what Ctrl-C does to it. What runs in it is not known here."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..isolation import UserInterrupt
from .interrupt import interruptions

T = TypeVar("T")


def run(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `work` to its end and return its result, or raise what it raises.

    The first Ctrl-C (or SIGTERM, SIGHUP) cancels it, so that it can close its link; what it leaves on the device, the
    next run continues. The second one ends the process at once, because something hangs while closing. Raises
    `UserInterrupt` when it was cancelled.
    """
    import asyncio

    from ..threads import DaemonThreads

    result: list[T] = []
    failures: list[BaseException] = []

    with interruptions() as signals:

        async def guarded() -> None:
            loop = asyncio.get_running_loop()
            loop.set_default_executor(DaemonThreads())  # nothing that hangs there keeps the process
            task = asyncio.current_task()
            assert task is not None

            def cancel() -> None:
                signals.effective = True
                task.cancel()

            def cancel_soon() -> None:
                loop.call_soon_threadsafe(cancel)

            with signals.cancelling(cancel_soon):
                try:
                    result.append(await work())
                except BaseException as error:  # a SystemExit, say, would end the loop without closing anything
                    failures.append(error)

        try:
            asyncio.run(guarded())
        except BaseException as error:
            failures.append(error)
        if not result and signals.number is not None:  # whatever goes wrong while closing: it was the user who ended it
            raise UserInterrupt from next(iter(failures), None)
    if not result:
        raise failures[0]
    return result[0]
