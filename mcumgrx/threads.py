"""Calls that block, made in threads that nothing waits for: neither who is cancelled meanwhile nor the program's end.

`asyncio.to_thread` and `loop.getaddrinfo` use a pool whose threads are joined before a program may end. A name service
that does not answer, or a share that hangs, would then hold it for as long as it likes, whatever the user presses.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from functools import partial
from typing import ParamSpec, TypeVar

__all__ = ["in_thread"]

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """What `function` returns or raises. Who is cancelled while it blocks leaves it alone, and gets no result.

    So it should only look, or leave nothing behind that somebody has to clean up.
    """
    return await asyncio.get_running_loop().run_in_executor(_LOOSE, partial(function, *args, **kwargs))


class _LooseThreads(Executor):
    """A daemon thread for each call."""

    def submit(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        threading.Thread(target=run, name="mcumgrx blocking call", daemon=True).start()
        return future


_LOOSE = _LooseThreads()
