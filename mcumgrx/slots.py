"""`Slots`: how many requests of one client may be on their way at once, and who waits for a place.

Not here: what a request is, and when it is over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

__all__ = ["Slots"]


class Slots:
    """Lets a number of requests in at once, first come first served.

    Ordinary requests enter with `async with`. A transfer brings a claim of its own for more (`claim`), and the largest
    claim of those that run counts: when one of two transfers ends, the other one keeps what it has.
    """

    def __init__(self, usual: int) -> None:
        self._usual = max(1, usual)
        self._claims: dict[object, tuple[int, Callable[[], None]]] = {}
        self._most = self._usual
        self._open = False
        self._inside = 0
        self._vacated = 0  # of those who are still to leave, so many take up no place any more
        self._queue: deque[asyncio.Future[None]] = deque()

    def allow(self, usual: int) -> None:
        """From now on so many are let in where nobody claims more."""
        self._usual = max(1, usual)
        self._weigh()

    def claim(self, owner: object, count: int, on_room: Callable[[], None]) -> None:
        """As long as `owner` is there, `count` are let in; `on_room` is called when others have made room."""
        self._claims[owner] = (count, on_room)
        self._weigh()

    def release(self, owner: object) -> None:
        """`owner` has gone. Harmless when repeated."""
        self._claims.pop(owner, None)
        self._weigh()

    def open(self) -> None:
        """Let everybody through: the link has ended, and each finds out for itself."""
        self._open = True
        self._admit()

    def close(self) -> None:
        """Take back `open`: there is a link again."""
        self._open = False

    @property
    def full(self) -> bool:
        """Whether who comes now has to wait."""
        return bool(self._queue) or self._inside >= self._most

    def enter_now(self) -> None:
        """Enter without waiting, if need be on top of the limit; see `full`."""
        self._inside += 1

    def vacate(self) -> None:
        """Somebody, nobody knows who, takes up no place any more; who leaves next has left already."""
        if self._inside > 0:
            self._inside -= 1
            self._vacated += 1
            self._admit()

    def leave(self) -> None:
        if self._vacated:
            self._vacated -= 1
            return
        self._inside -= 1
        if self._queue:
            self._admit()

    async def __aenter__(self) -> None:
        if self._open or not self.full:
            self._inside += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.leave()  # admitted and cancelled at once
            elif turn in self._queue:  # else `_admit` has passed it over already
                self._queue.remove(turn)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.leave()
        if not self._queue:
            for _, on_room in list(self._claims.values()):
                on_room()

    def _weigh(self) -> None:
        self._most = max(self._usual, *(count for count, _ in self._claims.values()), 1)
        self._admit()

    def _admit(self) -> None:
        while self._queue and (self._open or self._inside < self._most):
            turn = self._queue.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)
