"""Drives a transfer plan over a client: sends its chunks, feeds it the answers, reports progress.

What a chunk contains and what an answer means is decided in `protocol.transfer`; what to do when the link is lost,
in the flows: the device keeps its place, and the next upload of the same file goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .client import Client
from .errors import DeviceError, RequestTimeout
from .events import Bytes, Progress, StageName, ignore_progress
from .protocol.message import SmpError
from .protocol.standard import UploadProgress
from .protocol.transfer import Chunk, Phase, UploadPlan

__all__ = ["upload"]

# Sending a chunk again this often in a row without any answer means that the device or the link is gone.
_LOSSES = 5

# The opening chunk has a long time-out of its own, because most devices erase before they answer. Waiting for it twice
# covers a lost answer; as long as its size can still be halved that may be the reason, and it is tried again.
_OPENING_LOSSES = 2

# While the last chunk's answer is out the device may check, or decrypt, the whole image.
_LAST_TIMEOUT_S = 40.0

# "Busy" and "no buffer" say when to try again, not that anything is wrong; so does nobody for ever.
_BUSY_PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.6)


async def upload(
    client: Client,
    plan: UploadPlan,
    *,
    first_timeout_s: float = 60.0,
    timeout_s: float | None = None,
    settled: Callable[[], Awaitable[bool]],
    progress: Progress = ignore_progress,
    stage: StageName = StageName.UPLOAD,
) -> UploadProgress:
    """Carry `plan` out.

    Arguments:
        first_timeout_s: seconds for the answer to the opening chunk, during which the device may erase.
        timeout_s: seconds for the other chunks; default: the client's.
        settled: asks the device whether it holds the whole; called only when the answer to the last chunk is lost.

    Raises `RequestTimeout` when answers stay out, `TransferStuck` when they bring nothing, `DeviceError`, `LinkLost`.
    """
    timeout_s = client.timeout_s if timeout_s is None else timeout_s
    loop = asyncio.get_running_loop()
    begin = loop.time()
    busy = 0
    answers: dict[asyncio.Task[UploadProgress], Chunk] = {}
    client.allow_in_flight(plan.window)
    try:
        while not plan.done:
            if plan.needs_settling:
                plan.settled(await settled())
                continue
            while (chunk := plan.next_chunk()) is not None:
                if plan.phase is Phase.FIRST:
                    patience_s = first_timeout_s
                else:
                    patience_s = timeout_s if chunk.end < plan.size else max(timeout_s, _LAST_TIMEOUT_S)
                task = asyncio.create_task(client.request(chunk.command, timeout_s=patience_s, repeats=0))
                answers[task] = chunk
            done, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: answers[task].number):
                chunk = answers.pop(task)
                try:
                    answer = task.result()
                except RequestTimeout as error:
                    opening, size = plan.phase is Phase.FIRST, plan.message_bytes
                    plan.lost(chunk)
                    smaller = plan.message_bytes < size
                    if plan.losses >= (_OPENING_LOSSES if opening else _LOSSES) and not smaller:
                        raise _silent(error, plan, opening) from error
                except DeviceError as error:
                    if _cut_short(error) and plan.message_bytes > client.limits.safe_message:
                        plan.lost(chunk)  # too large for one write, and the device does not put several together
                        continue
                    if not _try_again(error) or busy >= len(_BUSY_PAUSES_S):
                        raise
                    plan.lost(chunk)
                    await asyncio.sleep(_BUSY_PAUSES_S[busy])
                    busy += 1
                else:
                    busy = 0
                    plan.acknowledged(chunk, answer.offset, answer.match)
            progress(Bytes(stage, plan.acknowledged_bytes, plan.size, loop.time() - begin, plan.resumed_from))
    finally:
        for task in answers:
            task.cancel()
        await asyncio.gather(*answers, return_exceptions=True)
        client.allow_in_flight(1)
    return UploadProgress(plan.size, plan.match)


def _try_again(error: DeviceError) -> bool:
    return error.group is None and error.rc in (SmpError.BUSY, SmpError.NO_MEMORY)


def _cut_short(error: DeviceError) -> bool:
    return error.group is None and error.rc == SmpError.CORRUPT


def _silent(error: RequestTimeout, plan: UploadPlan, opening: bool) -> RequestTimeout:
    if opening:
        message = f"the upload is stuck at 0 %: no answer to its first chunk within {error.timeout_s:g} s"
        hint = "if the device erases for longer, raise --erase-timeout; if its buffers are small, try --chunk 128 or 64"
    else:
        percent = 100 * plan.acknowledged_bytes // plan.size
        message = f"the upload is stuck at {percent} %: no answer to {plan.losses} chunks in a row"
        hint = "the device keeps its place: run the same command again to go on from there"
    return RequestTimeout(message, what=error.what, timeout_s=error.timeout_s, attempts=plan.losses, hint=hint)
