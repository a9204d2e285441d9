"""`Inbox`: what a device has sent and nobody has read yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from mcumgrx.plugin_api import StreamFraming


class Inbox:
    """Of one link. `framing` reads what comes out of it, once there is one."""

    def __init__(self) -> None:
        self.framing: StreamFraming | None = None
        self._parts: deque[bytes | None] = deque()  # None: the device does not go on with the message before
        self._news: asyncio.Future[None] | None = None

    def put(self, data: bytes) -> None:
        self._parts.append(data)
        self.wake()

    def drop_partial(self) -> None:
        """What comes from now on is the beginning of a message."""
        self._parts.append(None)
        self.wake()

    def wake(self) -> None:
        """Let who waits look again."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def next(self, check: Callable[[], None]) -> bytes:
        """The next bytes; while there are none, `check` is asked and raises where there will be none."""
        while True:
            while not self._parts:
                check()
                self._news = asyncio.get_running_loop().create_future()
                try:
                    await self._news
                finally:
                    self._news = None
            data = self._parts.popleft()
            if data is not None:
                return data
            if self.framing is not None:
                self.framing.reset()
