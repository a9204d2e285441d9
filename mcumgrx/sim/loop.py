"""An event loop whose clock is virtual: waiting costs nothing, so a 60 s erase passes in milliseconds.

`run(main())` is `asyncio.run` in virtual time, from 0 s on. Whenever nothing is ready the clock jumps to the next
timer. Threads started through the loop (`asyncio.to_thread`, name look-ups) are waited for in real time, during which
the virtual clock stands still. Sockets and pipes are looked at before each jump, so what has arrived is never late;
what another process has still to send is, which is why links to the outside belong in a real loop.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

__all__ = ["Deadlock", "VirtualTimeLoop", "run"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

RESOLUTION_S = 1e-9


class Deadlock(RuntimeError):
    """Nothing is ready, no timer is set and no thread is at work: every task would wait for ever."""


if TYPE_CHECKING:
    _Selector = selectors.SelectSelector  # what the platform's default is matters to nobody here
else:
    _Selector = selectors.DefaultSelector


class _JumpingSelector(_Selector):
    """Asks the operating system without waiting, then lets the clock jump instead.

    The selector is the one place where an asyncio loop waits, and the loop hands it the time until the next timer; so
    this needs none of the loop's private parts, on any version of Python.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.threads = 0
        self.explain: Callable[[], str] = str

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.threads:
            return super().select(None)  # a thread wakes the loop through its own socket
        if timeout is None:
            if len(self.get_map()) > 1:  # beside that socket: something of the program's own may still come
                return super().select(None)
            raise Deadlock(self.explain())
        self.now += timeout
        if math.ulp(self.now) > RESOLUTION_S:
            # After a hundred days a timer is no longer "less than the resolution away" when its time has come, but
            # only once it has passed.
            self.now = math.nextafter(self.now, math.inf)
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        self._jumping.explain = self._waiting
        super().__init__(self._jumping)
        # asyncio runs timers up to the resolution of the system's clock early. On Windows that is 16 ms, in which this
        # clock would never move on; so the loop is told that of this clock.
        self._clock_resolution = RESOLUTION_S

    def time(self) -> float:
        return self._jumping.now

    def run_in_executor(self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._jumping.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - overridden
        # Done by a thread that the loop starts for itself. Its time limit would pass at once on this clock.
        self._jumping.threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._jumping.threads -= 1

    def _thread_done(self, future: asyncio.Future[Any]) -> None:
        self._jumping.threads -= 1

    def _waiting(self) -> str:
        names = sorted(f"{task.get_name()} ({_where(task)})" for task in asyncio.all_tasks(self))
        listed = ", ".join(names) or "there is none"
        return f"at {self.time():.3f} s of virtual time every task waits for ever: {listed}"


def _where(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack(limit=1)
    if not frames:
        return "not started"
    code = frames[-1].f_code
    return f"in {code.co_qualname}, line {frames[-1].f_lineno}"


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Run `main` in a new loop in virtual time and close that loop, as `asyncio.run` does.

    Raises `Deadlock`, with what each task waits for, where `asyncio.run` would hang.
    """
    with asyncio.Runner(debug=debug, loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
