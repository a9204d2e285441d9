"""Data in fragments, for command groups of one's own: one call to read all of it, one to write it.

As much is on its way as link and device have room for, losses are made good, and what a message can carry is found
out. What goes beyond that (a hash in the end, a download that is resumed) a group builds from the same parts: a plan,
`bulk.window_for` and `bulk.transfer`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from .bulk import transfer, upload, window_for
from .client import Client
from .events import Progress, StageName, ignore_progress
from .message_size import find_message_size
from .messages.message import SmpCommand
from .messages.standard import UploadProgress
from .pause import Pause
from .transfer.plan import Source, UploadPlan
from .transfer.reading import Fragment, ReadPlan


async def read_data(
    client: Client,
    ask: Callable[[int], SmpCommand[Fragment]],
    *,
    size: int | None = None,
    window: int | None = None,
    progress: Progress = ignore_progress,
    stage: str = StageName.DOWNLOAD,
    pause: Pause | None = None,
) -> bytes:
    """All of the data of which `ask` gives the request for what is at an offset.

    Each answer brings as much as the device likes. That at offset 0 tells the length of the whole, unless `size` does.

    Arguments:
        window: at most so many requests at once; None for as many as device and link take.
        stage: what progress calls it.
        pause: holds it.

    Raises `RequestTimeout`, `LinkLost`, `DeviceError`, `MalformedReply`, `TransferStuck`; `NotDone` where the data has
    changed meanwhile.
    """
    pieces: list[bytes] = []
    plan = ReadPlan(ask, pieces.append, size=size)
    await client.params()
    width = window_for(client, window)
    await transfer(client, plan, width, progress=progress, stage=stage, pause=pause)
    return b"".join(pieces)


async def write_data(
    client: Client,
    data: Source,
    send: Callable[[int, bytes, int], SmpCommand[UploadProgress]],
    *,
    chunk_bytes: int | None = None,
    window: int | None = None,
    first_timeout_s: float | None = None,
    settled: Callable[[], Awaitable[bool]] | None = None,
    progress: Progress = ignore_progress,
    stage: str = StageName.UPLOAD,
    pause: Pause | None = None,
) -> UploadProgress:
    """Write `data`: `send(offset, piece, size)` gives the request for a piece of it, `size` bytes being the whole.

    The result of each request is the offset that the device wants next. A piece that it has already, it answers so and
    does not take again; what begins behind what it has, it does not take. The piece at offset 0 begins anew.

    Arguments:
        chunk_bytes: at most so much data in a request; None for what device and link take.
        window: at most so many requests at once; None for as many as device and link take.
        first_timeout_s: seconds for the answer to the first piece, before which a device may erase; default: the
            client's.
        settled: asks the device whether it has the whole, where the answer to the last piece is lost; without it, that
            piece is sent again.

    Raises what `read_data` raises, and `MessageTooLarge` where not even a byte fits a message.
    """
    params = await client.params()
    largest = client.limits.message(None if params is None else params.buf_size)
    plan = UploadPlan(data, _Messages(send), message_bytes=largest, chunk_bytes=chunk_bytes)
    await find_message_size(client, largest, plan.least_bytes)
    return await upload(
        client,
        plan,
        window=window_for(client, window),
        first_timeout_s=client.timeout_s if first_timeout_s is None else first_timeout_s,
        settled=_unknown if settled is None else settled,
        progress=progress,
        stage=stage,
        pause=pause,
    )


async def _unknown() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class _Messages:
    send: Callable[[int, bytes, int], SmpCommand[Any]]

    def command(self, offset: int, data: bytes, length: int) -> SmpCommand[UploadProgress]:
        return self.send(offset, data, length)
