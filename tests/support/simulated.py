"""A simulated device for the tests of group plugins, with the client and the command context that they get."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any, TypeVar

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.events import Event, Progress
from mcumgrx.plugin_api import CliContext, GroupPlugin
from mcumgrx.protocol.header import Header
from mcumgrx.registry import Registry, default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run

T = TypeVar("T")

RUNNING = build_image("1.0.0", payload_size=6000)
"""The image that every `Desk` starts with."""


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in virtual time."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    return wrapper


class Desk:
    """One simulated device running 1.0.0, and everything around it that a test wants to look at afterwards."""

    def __init__(
        self, config: DeviceConfig | None = None, *, model: LinkModel | None = None, faults: Faults | None = None
    ) -> None:
        self.device = SimulatedDevice(config)
        self.device.install(RUNNING)
        self.faults = faults if faults is not None else Faults()
        self.transport = SimulatedTransport(self.device, model, faults=self.faults)
        self.events: list[Event] = []
        self.groups = default_registry().groups

    def client(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """What `work` makes of a connected client, in virtual time."""

        async def main() -> T:
            async with Client(self.transport) as client:
                return await work(client)

        return run(main())

    @property
    def context(self) -> CliContext:
        """What the command line gives to a command."""
        return _Context(self)

    def command(self, function: Callable[..., Awaitable[T]], **parameters: Any) -> T:
        """What a command returns, called as the command line does."""

        async def main() -> T:
            return await function(self.context, **parameters)

        return run(main())


class CutAnswers(SimulatedTransport):
    """A link to a device whose answers to some requests, named by op, group and command, lack their last byte.

    Header and length are right, as with a server whose buffer is too small.
    """

    def __init__(self, device: SimulatedDevice, *cut: tuple[int, int, int]) -> None:
        super().__init__(device, LinkModel.datagram())
        self._cut = cut

    async def receive(self) -> bytes:
        data = await super().receive()
        header = Header.unpack(data)
        if (header.op - 1, header.group, header.command) not in self._cut:
            return data
        return data[:2] + (len(data) - 9).to_bytes(2, "big") + data[4:-1]


class _Context:
    """`mcumgrx.plugin_api.CliContext` without a command line."""

    timeout_s: float | None = None
    has_device = False  # for commands that go without one; the others do not ask

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def progress(self) -> Progress:
        return self._desk.events.append

    @property
    def groups(self) -> Mapping[int, GroupPlugin]:
        return self._desk.groups

    @property
    def device(self) -> SessionDevice:
        return SessionDevice(Address("sim"), self._desk.transport, Registry(entry_points=[]))

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Client]:
        device = self.device
        try:
            yield await device.connect()
        finally:
            await device.close()

    async def confirm(self, question: str) -> bool:
        return True

    def standard_output(self) -> AbstractContextManager[None]:
        return nullcontext()
