"""Devices that hang on many gateways: each gateway is a worker of a Dask cluster, and updates what it can reach.

::

    async with gateways("tcp://192.0.2.1:8786") as executor:
        fleet = [Member("serial:/dev/ttyACM0", at="hall-1"), Member("serial:/dev/ttyACM0", at="hall-2")]
        report = await update_fleet(fleet, load_image("app.signed.bin"), executor=executor)

Scheduler and workers are Dask's own, started with its own commands, and so are queues, encryption and the pages that
show them. Dask is asked for what it is not made for only in one place: by itself it gives the task of a worker that has
died to another one. Here a task is bound to one process, and if that has gone, what has become of the device is not
known (`Gone`) until it is read again.

Installed with `pip install "mcumgrx[dask]"`. What a cluster carries are pickled objects: whoever can reach the
scheduler can do everything on its workers, so that it belongs into a network of its own, or behind Dask's TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import pickle
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ._version import __version__
from .errors import ConnectFailed, McumgrError, UsageError
from .events import Progress
from .flows import Report
from .flows.fleet import Gone, Member, Task
from .gateway_work import TOPIC, Answer, Order, Worker, call_off, carry_out, introduce
from .isolation import said

if TYPE_CHECKING:
    from .flows.variants import Files

__all__ = ["Gateways", "RemoteError", "gateways"]

log = logging.getLogger("mcumgrx.gateways")

T = TypeVar("T")

_CONNECT_S = 10.0

# For all workers to say who they are: one that has just been cut off is not known to be gone yet.
_INTRODUCE_S = 30.0

# For a worker to end what it is called off from; beyond that its scheduler is not waited for.
_CALL_OFF_S = 20.0


class RemoteError(McumgrError):
    """An error of a kind that only the worker knows, as that of a plugin that is not installed here."""

    def __init__(self, message: str, *, exit: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit = exit


@dataclass(slots=True, eq=False)
class _Gateway:
    """A worker, as long as it is there; what was sent to it once for all of its devices."""

    name: str
    address: str
    process: str
    gone: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    files: list[tuple[Files, asyncio.Task[Any]]] = field(default_factory=list)


class Gateways:
    """The `Executor` that runs each update at the worker which the `Member` names; made by `gateways`."""

    def __init__(self, client: Any, workers: Mapping[str, _Gateway], timeout_s: float | None, remember: bool) -> None:
        self._client = client
        self._workers = workers
        self._timeout_s = timeout_s
        self._remember = remember
        self._told: dict[str, Progress] = {}
        client.subscribe_topic("all", self._hear_of_cluster)
        client.subscribe_topic(TOPIC, self._hear_of_device)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the workers that were there in the beginning, sorted."""
        return tuple(sorted(self._workers))

    async def everywhere(self, function: Callable[..., Awaitable[T]], *arguments: Any) -> dict[str, T | BaseException]:
        """What an asynchronous function of a module gives at each worker, by their names; what it raises as well."""
        names = {worker.address: name for name, worker in self._workers.items() if not worker.gone.done()}
        told = await self._client.run(function, *arguments, workers=list(names), on_error="return")
        return {names[address]: one for address, one in told.items()}

    async def run(self, member: Member, task: Task, tell: Progress) -> Report:
        worker = self._workers.get(member.at or "")
        if worker is None:
            raise UsageError(
                f"no worker of the cluster is called {member.at!r}", hint=f"there are {', '.join(self.names)}"
            )
        if worker.gone.done():
            raise _gone(worker)
        key = f"mcumgrx-{uuid.uuid4().hex}"
        self._told[key] = tell
        order = Order(key, worker.process, member.address, replace(task, files={}), self._timeout_s, self._remember)
        asking: asyncio.Future[Any] = asyncio.ensure_future(self._ask(worker, order, task.files))
        try:
            await asyncio.wait([asking, worker.gone], return_when=asyncio.FIRST_COMPLETED)
            if asking.done():
                answer = _result(asking, worker)
            elif worker.gone.done():
                raise _gone(worker)
        except asyncio.CancelledError:
            await self._call_off(worker, key)
            raise
        finally:
            del self._told[key]
            asking.cancel()
            await asyncio.wait([asking])
        return _read(answer, worker)

    async def _ask(self, worker: _Gateway, order: Order, files: Files) -> Answer | None:
        there = await asyncio.shield(self._sent(worker, files))
        future = self._client.submit(
            carry_out,
            order,
            there,
            key=order.key,
            workers=[worker.address],
            allow_other_workers=False,
            retries=0,
            pure=False,
        )
        try:
            answer: Answer | None = await future
        finally:
            # Of a worker that has gone it would wait for the next one at the same place.
            await self._client.cancel([future], force=True)
        return answer

    def _sent(self, worker: _Gateway, files: Files) -> asyncio.Task[Any]:
        """The files at the worker, sent once; they go with it."""
        for known, sending in worker.files:
            if known is files:
                return sending
        sending = asyncio.create_task(self._send(worker, files))
        worker.files.append((files, sending))
        return sending

    async def _send(self, worker: _Gateway, files: Files) -> Any:
        [there] = await self._client.scatter([files], workers=[worker.address], hash=False, direct=False)
        return there

    async def _call_off(self, worker: _Gateway, key: str) -> None:
        """The worker closes its link, and begins nothing that still waits there."""
        with contextlib.suppress(Exception):  # the worker, or all of the cluster, has gone as well
            async with asyncio.timeout(_CALL_OFF_S):
                await self._client.run(call_off, [key], workers=[worker.address])

    def _hear_of_cluster(self, event: tuple[float, Any]) -> None:
        _, told = event
        if isinstance(told, dict) and told.get("action") == "remove-worker":
            for worker in self._workers.values():
                if worker.address == told.get("worker") and not worker.gone.done():
                    worker.gone.set_result(None)

    def _hear_of_device(self, event: tuple[float, Any]) -> None:
        _, (key, pickled) = event
        tell = self._told.get(key)
        if tell is None:  # of another program, or late
            return
        try:
            told = pickle.loads(pickled)
        except Exception as error:  # of a plugin that is not installed here
            log.debug("an event from a worker cannot be read: %r", error)
            return
        tell(told)


@asynccontextmanager
async def gateways(scheduler: str, *, timeout_s: float | None = None, remember: bool = True) -> AsyncIterator[Gateways]:
    """The workers of the cluster whose scheduler is at this address, such as `tcp://192.0.2.1:8786`.

    `timeout_s` is for an answer of a device, as of `Client`; `remember` whether each worker keeps what its transfers
    learn. Raises `UsageError` where Dask is not installed here, or mcumgrx at a worker is another version;
    `ConnectFailed` where there is no scheduler or no worker.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("gateways need Dask", hint='pip install "mcumgrx[dask]"') from error
    try:
        kind: Any = Client  # which has no types
        client = await kind(scheduler, asynchronous=True, set_as_default=False, timeout=_CONNECT_S, name="mcumgrx")
    except (OSError, TimeoutError, ValueError) as error:
        hint = "start one with 'dask scheduler', and each gateway with 'dask worker ADDRESS --name NAME'"
        raise ConnectFailed(f"no Dask scheduler answers at {scheduler}", address=scheduler, hint=hint) from error
    try:
        try:
            async with asyncio.timeout(_INTRODUCE_S):
                told = await client.run(introduce, on_error="return")
        except TimeoutError:
            hint = "end the one that hangs: 'dask scheduler' shows which have not been heard lately"
            raise ConnectFailed(f"not all workers at {scheduler} answer", address=scheduler, hint=hint) from None
        yield Gateways(client, _workers(told, scheduler), timeout_s, remember)
    finally:
        await client.close()


def _workers(told: Mapping[str, Worker | BaseException], scheduler: str) -> dict[str, _Gateway]:
    found: dict[str, _Gateway] = {}
    for address, one in told.items():
        if isinstance(one, BaseException):
            raise UsageError(
                f"the worker at {address} cannot run mcumgrx: {said(one)}",
                hint=f'install it there: pip install "mcumgrx[dask]=={__version__}"',
            )
        if one.version != __version__:
            raise UsageError(
                f"the worker {one.name} has mcumgrx {one.version}, and here is {__version__}",
                hint="install the same version on both",
            )
        found[one.name] = _Gateway(one.name, address, one.process)
    if not found:
        hint = f"start one on each gateway: dask worker {scheduler} --name NAME"
        raise ConnectFailed(f"the Dask cluster at {scheduler} has no worker", address=scheduler, hint=hint)
    return found


def _result(asking: asyncio.Future[Any], worker: _Gateway) -> Answer:
    """What the worker says; anything of Dask's own is about a worker or a scheduler that has gone."""
    try:
        answer: Answer | None = asking.result()
    except (Exception, asyncio.CancelledError) as error:
        log.debug("the cluster has not carried out a task", exc_info=error)
        raise _gone(worker) from error
    if answer is None:
        raise _gone(worker)
    return answer


def _gone(worker: _Gateway) -> Gone:
    return Gone(
        f"the worker {worker.name} has gone: what has become of the device is not known",
        hint="the same command again reads it, and goes on from there",
    )


def _read(answer: Answer, worker: _Gateway) -> Report:
    if answer.report is not None:
        report: Report = pickle.loads(answer.report)
        return report
    error: BaseException = RemoteError(answer.said, exit=answer.exit, hint=answer.hint)
    if answer.error is not None:
        try:
            error = pickle.loads(answer.error)
        except Exception as unknown:
            log.debug("an error of the worker %s cannot be read: %r", worker.name, unknown)
    raise error
