"""What a worker of a Dask cluster does for `gateways`: an update of one device, in a thread and a loop of its own.

A plugin that blocks, or ends the program, has no more than this thread; the worker goes on answering its scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import threading
import uuid
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._version import __version__
from .errors import Exit, McumgrError
from .events import Event
from .flows import Report, update
from .flows.fleet import Task
from .flows.throttle import Throttled
from .isolation import said
from .memory import Memory
from .session import device
from .threads import DaemonThreads, in_thread

if TYPE_CHECKING:
    from .flows.variants import Files

__all__ = ["TOPIC", "Answer", "Order", "Worker", "call_off", "carry_out", "introduce"]

# What devices tell goes to this topic of the scheduler, with the key of its task.
TOPIC = "mcumgrx"

# A worker that is started again, even with its old name and port, is another process.
_PROCESS = uuid.uuid4().hex

# For links to be closed, once their update has been called off.
_CLOSING_S = 15.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as it introduces itself."""

    name: str
    process: str
    version: str


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done with which device, and by which process alone; the files come beside it, once for all."""

    key: str
    process: str
    address: str
    task: Task
    timeout_s: float | None
    remember: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """How it has ended: with a report or an error, pickled, as it may be of a kind that only the worker knows."""

    report: bytes | None = None
    error: bytes | None = None
    said: str = ""
    hint: str | None = None
    exit: int = Exit.DONE

    @classmethod
    def of(cls, error: BaseException) -> Answer:
        """That of an error: one of ours itself, if it can be pickled, and of a mistake what it says."""
        if not isinstance(error, McumgrError):
            return cls(said=said(error), exit=Exit.BUG)
        pickled: bytes | None = None
        with contextlib.suppress(Exception):
            pickled = pickle.dumps(error)
        return cls(None, pickled, str(error), error.hint and str(error.hint), int(error.exit))


def introduce(dask_worker: Any) -> Worker:
    """The worker in whose loop this runs."""
    return Worker(str(dask_worker.name), _PROCESS, __version__)


# -- the work ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Work:
    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Any]
    ended: threading.Event


_lock = threading.Lock()
_at_work: dict[str, _Work] = {}
# Which were perhaps called off before they began.
_called_off: deque[str] = deque(maxlen=1000)


def carry_out(order: Order, files: Files) -> Answer | None:
    """The task of the cluster. None where this is not the process that was meant, or it was called off."""
    from distributed import get_worker

    if order.process != _PROCESS:
        return None
    worker = get_worker()

    def tell(event: Event) -> None:
        with contextlib.suppress(Exception):  # a plugin's own, that cannot be pickled
            worker.log_event(TOPIC, (order.key, pickle.dumps(event)))

    ended = threading.Event()
    try:
        return Answer(report=pickle.dumps(asyncio.run(_update(order, files, tell, ended))))
    except asyncio.CancelledError as error:
        with _lock:
            return None if order.key in _called_off else Answer.of(error)
    except BaseException as error:  # `SystemExit` of a plugin, for one
        return Answer.of(error)
    finally:
        with _lock:
            _at_work.pop(order.key, None)
        ended.set()


async def _update(order: Order, files: Files, tell: Any, ended: threading.Event) -> Report:
    loop, current = asyncio.get_running_loop(), asyncio.current_task()
    assert current is not None
    loop.set_default_executor(DaemonThreads())
    with _lock:
        if order.key in _called_off:
            raise asyncio.CancelledError
        _at_work[order.key] = _Work(loop, current, ended)
    memory = Memory() if order.remember else None
    reached = device(order.address, timeout_s=order.timeout_s, memory=memory)
    return await update(reached, files, order.task.policy, Throttled(tell), on_plan=order.task.on_plan)


async def call_off(keys: Sequence[str]) -> None:
    """End the work of these tasks; returns when their links are closed."""
    with _lock:
        _called_off.extend(keys)
        works = [_at_work[key] for key in keys if key in _at_work]
    for work in works:
        with contextlib.suppress(RuntimeError):  # its loop has ended
            work.loop.call_soon_threadsafe(work.task.cancel)
    for work in works:
        await in_thread(work.ended.wait, _CLOSING_S)
