"""Reads a file that is uploaded from the disk, in a thread, before the upload comes to it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self

from mcumgrx.plugin_api import Pause, in_thread

from .local import LocalFileError
from .source import FileContent

_BLOCK = 256 * 1024
_MESSAGE = 0xFFFF  # no chunk is larger


class ReadAhead:
    """`content` as `chunks.Content`. The disk may be a share that is slow, or hangs: nobody waits for it here.

    While it is slower than the transfer, `pause` holds that. What the transfer goes far back to is read at once. What
    cannot be read is told where it is needed.
    """

    def __init__(self, content: FileContent) -> None:
        self.content = content
        self.size = content.size
        self.pause = Pause()
        self._blocks: dict[int, bytes] = {}
        self._hashes: dict[int, dict[str, int | bytes]] = {}  # by how much they are of
        self._work: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        if not self.content.in_memory:
            await self._load(0)
        return self

    async def __aexit__(self, *raised: object) -> None:
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)

    def read(self, offset: int, size: int) -> bytes:
        if self.content.in_memory:
            return self.content.read(offset, size)
        end = offset + size
        first, last = offset // _BLOCK, (end - 1) // _BLOCK
        for index in range(first, last + 1):
            if index not in self._blocks:
                self._blocks[index] = self._read(index)
        data = b"".join(self._blocks[index] for index in range(first, last + 1))
        following = last + 1
        if following * _BLOCK < self.size and following not in self._blocks:
            if not self._work:
                self._blocks = {index: block for index, block in self._blocks.items() if first - 1 <= index <= last}
                self._do(self._load(following))
            if following * _BLOCK - end < _MESSAGE:
                self.pause.hold()
        return data[offset - first * _BLOCK : end - first * _BLOCK]

    def prepare(self, size: int) -> None:
        if not self.content.in_memory:
            self.pause.hold()
            self._do(self._prepare(size))

    def digest(self, type: str, size: int) -> int | bytes:
        return self._hashes[size][type] if size in self._hashes else self.content.digest(type, size)

    def _read(self, index: int) -> bytes:
        return self.content.read(index * _BLOCK, min(_BLOCK, self.size - index * _BLOCK))

    async def _load(self, index: int) -> None:
        with suppress(LocalFileError):
            self._blocks[index] = await in_thread(self._read, index)

    async def _prepare(self, size: int) -> None:
        with suppress(LocalFileError):
            self._hashes = {size: await in_thread(lambda: self.content.hashed(size).values())}
        if size < self.size:
            await self._load(size // _BLOCK)  # where it goes on

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not self._work:
            self.pause.resume()
