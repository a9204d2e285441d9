"""Calls that block, beside the event loop: files that may be pipes or on slow shares, look-ups of names, locks.

Nothing can end a thread that waits in the operating system. So these are left behind when whoever waits for one gives
up, and neither the loop's end nor the interpreter's waits for them, as both do for the threads of asyncio's own pool.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DaemonThreads(ThreadPoolExecutor):
    """A thread for each call, which keeps no process alive. As a loop's default executor it also gets the calls of
    others: `loop.getaddrinfo`, `asyncio.to_thread`."""

    def __init__(self) -> None:
        super().__init__(max_workers=1)  # which never starts: `submit` is ours

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*args, **kwargs)
            except BaseException as error:  # for whoever waits; in this thread it would only be printed
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, name=f"mcumgrx {_name(function)}", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing is waited for."""


def _name(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", "thread"))


@functools.cache
def _threads() -> DaemonThreads:
    return DaemonThreads()


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function(*args, **kwargs)` returns, from a thread; the loop goes on meanwhile.

    Cancelled, it ends at once, and the thread is left to itself: give it nothing that matters afterwards.
    """
    call: Callable[[], Any] = functools.partial(function, *args, **kwargs)
    result: T = await asyncio.get_running_loop().run_in_executor(_threads(), call)
    return result
