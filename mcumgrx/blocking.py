"""One device without `await`: for scripts, notebooks, programs with a window.

::

    import mcumgrx

    with mcumgrx.open("serial:/dev/ttyACM0") as device:
        print(device.os.echo("hello"))
        device.update("app.signed.bin", progress=lambda done, total: print(done, total))

Groups are there under the names of their plugins (`device.fs`, `device.acme`), with all their methods. They run in a
loop of the device's own, in a thread of its own, so that it works where a loop is running already. What they tell on
the way is told in the thread that called; Ctrl-C there, and `cancel` from anywhere, reach what is under way.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from os import PathLike
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

from .address import Address
from .client import Client
from .errors import UsageError
from .events import Bytes, Event, Progress, ignore_progress
from .flows import DfuPolicy, Plan, Report, update
from .mcuboot import Image, load_image
from .memory import Memory
from .pause import Pause
from .registry import Registry, default_registry
from .session import device as session_device
from .transport import Transport

__all__ = ["BlockingDevice", "BlockingGroup", "open"]

T = TypeVar("T")
Listener = Callable[[int, int], object] | Callable[[Event], object]
"""Gets `(done, total)` in bytes, if it takes two arguments; else each event."""

_END = object()


def open(
    address: str | Address | Transport,
    *,
    timeout_s: float | None = None,
    memory: Memory | None = None,
    name: str | None = None,
    registry: Registry | None = None,
) -> BlockingDevice:
    """The device at `address`, whose methods block. Its link is opened when it is first needed.

    Arguments: see `mcumgrx.connect`. Raises `UsageError` or `PluginError` for what is no address.
    """
    return BlockingDevice(address, timeout_s=timeout_s, memory=memory, name=name, registry=registry)


class BlockingDevice:
    """See the module, and `open`."""

    def __init__(
        self,
        address: str | Address | Transport,
        *,
        timeout_s: float | None = None,
        memory: Memory | None = None,
        name: str | None = None,
        registry: Registry | None = None,
    ) -> None:
        self._registry = default_registry() if registry is None else registry
        self._device = session_device(address, timeout_s=timeout_s, memory=memory, name=name, registry=self._registry)
        self._client: Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._calls: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._connecting = asyncio.Lock()  # in the loop: of several calls at once the first opens the link
        self.pause = _ThreadPause(self)
        """Holds an `update`, and lets it go on; from any thread. An upload of a group takes it in its options."""

    def __repr__(self) -> str:
        return f"<blocking device {self._device.address}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getattr__(self, name: str) -> BlockingGroup:
        """The command group of this name."""
        plugin = next((one for one in self._registry.groups.values() if one.name == name), None)
        if plugin is None:
            names = ", ".join(sorted(one.name for one in self._registry.groups.values()))
            raise AttributeError(f"there is no command group {name!r}; there are {names}")
        kind: Any = self._registry.resolve(plugin, plugin.load)
        return BlockingGroup(self, kind)

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *(one.name for one in self._registry.groups.values())])

    # -- what is done with a device ------------------------------------------------------------------------------------

    def request(self, command: Any, *, timeout_s: float | None = None) -> Any:
        """Send a command and return its result, as `Client.request` does."""

        async def ask(client: Client) -> Any:
            return await client.request(command, timeout_s=timeout_s)

        return self.run(ask)

    def update(
        self,
        image: str | PathLike[str] | Image | Mapping[int, Image],
        policy: DfuPolicy = DfuPolicy(),  # noqa: B008 - immutable
        progress: Listener | None = None,
        *,
        on_plan: Callable[[Plan], bool] | None = None,
    ) -> Report:
        """Bring an image onto the device and prove that it runs, as `mcumgrx.flows.update` does.

        `image` may be the name of a file. `on_plan` is asked in a thread of its own.
        """
        found = load_image(image) if isinstance(image, str | PathLike) else image

        async def agreed(plan: Plan) -> bool:
            assert on_plan is not None
            return await asyncio.to_thread(on_plan, plan)

        async def bring(tell: Progress) -> Report:
            await self._disconnect()
            return await update(
                self._device, found, policy, tell, on_plan=None if on_plan is None else agreed, pause=self.pause
            )

        return self._call(bring, progress)

    def run(self, work: Callable[[Client], Awaitable[T]], progress: Listener | None = None) -> T:
        """What `work` makes of the connected client, in the device's own loop."""

        async def connected(tell: Progress) -> T:
            return await work(await self._connected())

        return self._call(connected, progress)

    def cancel(self) -> None:
        """End what is under way, from any thread; whoever waits for it gets `concurrent.futures.CancelledError`."""
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            call.cancel()

    def close(self) -> None:
        """Close the link and end the thread; harmless when repeated. What is under way is cancelled."""
        with self._lock:
            loop, self._loop = self._loop, None
            calls = list(self._calls)
        if loop is None:
            return
        for call in calls:
            call.cancel()
        with suppress(Exception):
            asyncio.run_coroutine_threadsafe(self._device.close(), loop).result()
        self._client = None
        loop.call_soon_threadsafe(loop.stop)

    # -- the loop ------------------------------------------------------------------------------------------------------

    async def _connected(self) -> Client:
        async with self._connecting:
            if self._client is None or not self._client.connected:
                self._client = await self._device.connect()
            return self._client

    async def _disconnect(self) -> None:
        self._client = None
        await self._device.disconnect()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._connecting = asyncio.Lock()  # of this loop alone
                self._thread = threading.Thread(target=_run, args=(self._loop,), name=f"{self!r}", daemon=True)
                self._thread.start()
            return self._loop

    def _call(self, work: Callable[[Progress], Awaitable[T]], progress: Listener | None) -> T:
        """What `work` returns, while its events are told in this thread."""
        heard: SimpleQueue[Any] = SimpleQueue()
        tell = ignore_progress if progress is None else heard.put
        listen = ignore_progress if progress is None else as_listener(progress)

        async def in_loop() -> T:
            return await work(tell)

        loop = self._running_loop()
        if threading.current_thread() is self._thread:
            raise UsageError("a device that blocks was used in its own loop", hint="call it from another thread")
        future = asyncio.run_coroutine_threadsafe(in_loop(), loop)
        with self._lock:
            self._calls.add(future)
        future.add_done_callback(lambda _: heard.put(_END))
        try:
            while (event := heard.get()) is not _END:
                listen(event)
            return future.result()
        except BaseException:
            # Of the listener, or Ctrl-C: the device is left in order before anybody goes on.
            if not future.done():
                future.cancel()
                asyncio.run_coroutine_threadsafe(_settled(), loop).result()
            raise
        finally:
            with self._lock:
                self._calls.discard(future)


class BlockingGroup:
    """A command group of which all methods block.

    One that gives its results piece by piece is an iterator. `progress` gets `(done, total)` or events, as in `update`.
    """

    def __init__(self, device: BlockingDevice, kind: type[Any]) -> None:
        self._device = device
        self._kind = kind
        self.__doc__ = kind.__doc__

    def __dir__(self) -> list[str]:
        return [name for name in dir(self._kind) if not name.startswith("_")]

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._kind, name)
        if not callable(method):
            raise AttributeError(f"{self._kind.__name__} has no method {name!r}")

        def call(*arguments: Any, progress: Listener | None = None, **named: Any) -> Any:
            async def work(tell: Progress) -> Any:
                client = await self._device._connected()
                given = {**named, "progress": tell} if progress is not None else named
                result = method(client.group(self._kind), *arguments, **given)
                return await result if inspect.isawaitable(result) else result

            result = self._device._call(work, progress)
            return self._pieces(result) if isinstance(result, AsyncGenerator) else result

        call.__doc__, call.__name__ = method.__doc__, name
        return call

    def _pieces(self, source: AsyncGenerator[T]) -> Iterator[T]:
        async def next_one(tell: Progress) -> Any:
            return await anext(source, _END)

        async def end(tell: Progress) -> None:
            await source.aclose()

        try:
            while (piece := self._device._call(next_one, None)) is not _END:
                yield piece
        finally:
            self._device._call(end, None)


class _ThreadPause(Pause):
    """A `Pause` that can be used from any thread."""

    def __init__(self, device: BlockingDevice) -> None:
        super().__init__()
        self._device = device

    def hold(self) -> None:
        self._device._running_loop().call_soon_threadsafe(super().hold)

    def resume(self) -> None:
        self._device._running_loop().call_soon_threadsafe(super().resume)


def as_listener(progress: Listener) -> Callable[[Event], object]:
    """What takes events, for one that takes either."""
    try:
        several = len(inspect.signature(progress).parameters) > 1
    except (TypeError, ValueError):  # of C
        several = False
    if not several:
        return progress  # type: ignore[return-value]

    def numbers(event: Event) -> None:
        if isinstance(event, Bytes):
            progress(event.done, event.total)  # type: ignore[call-arg, arg-type]

    return numbers


async def _settled() -> None:
    """Returns when what has been cancelled before has ended."""
    current = asyncio.current_task()
    others = [task for task in asyncio.all_tasks() if task is not current and task.cancelling()]
    await asyncio.gather(*others, return_exceptions=True)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()
