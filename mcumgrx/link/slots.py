"""`Slots`: how many requests of one client may be on their way at once, and who waits for a place.

Not here: what a request is, and when it is over.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """Lets a number of requests in at once, first come first served.

    A transfer brings a claim of its own for more than `usual` (`claim`), and the largest claim of those that run
    counts: when one of two transfers ends, the other one keeps what it has.
    """

    def __init__(self, usual: int) -> None:
        self.usual = max(1, usual)
        self._claims: dict[object, tuple[int, Callable[[], None]]] = {}
        self._most = self.usual
        self._open = False
        self._inside = 0
        self._vacated = 0  # of those who are still to leave, so many take up no place any more
        self._queue: deque[asyncio.Future[None]] = deque()

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
        """Give the place back; whoever waits for one gets it."""
        if self._vacated:
            self._vacated -= 1
            return
        self._inside -= 1
        if self._queue:
            self._admit()

    def leave_for_others(self) -> None:
        """`leave`, and tell those who have claimed more that there is room, if nobody waits for it."""
        self.leave()
        if self._claims and not self._queue:
            for _, on_room in list(self._claims.values()):
                on_room()

    async def enter(self) -> None:
        """Enter as soon as there is room, first come first served."""
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

    def _weigh(self) -> None:
        self._most = max(self.usual, *(count for count, _ in self._claims.values()), 1)
        self._admit()

    def _admit(self) -> None:
        while self._queue and (self._open or self._inside < self._most):
            turn = self._queue.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)
