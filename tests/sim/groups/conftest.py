"""A simulated device with one group under test, and a way to ask it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cbor2
import pytest

from mcumgrx.protocol.header import Header, Op
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.groups import GroupServer
from mcumgrx.sim.images import build_image


class Desk:
    """A device with these groups. Each request is sent `now` on its clock, which the test turns."""

    def __init__(self, *servers: GroupServer, config: DeviceConfig | None = None) -> None:
        self.device = SimulatedDevice(config)
        self.device.install(build_image("1.0.0"))
        for server in servers:
            self.device.add_group(server)
        self.group = servers[0].group
        self.now = 1.0
        self.busy_s = 0.0
        """Of the last answer, beside what every request takes."""

    def send(self, op: int, command: int, payload: bytes, *, version: int = 1, group: int | None = None) -> bytes:
        """One request's whole answer."""
        number = self.group if group is None else group
        header = Header(op, version, 0, len(payload), number, 7, command)
        answer = self.device.handle(header.pack() + payload, self.now)
        self.busy_s = answer.busy_s - self.device.config.request_s
        (reply,) = answer.replies
        replied = Header.unpack(reply)
        assert replied == Header(op | 1, version, 0, len(reply) - 8, number, 7, command)
        return reply

    def ask(self, op: int, command: int, body: object = None, **options: Any) -> Any:
        return cbor2.loads(self.send(op, command, cbor2.dumps({} if body is None else body), **options)[8:])

    def read(self, command: int, body: object = None, **options: Any) -> Any:
        return self.ask(Op.READ, command, body, **options)

    def write(self, command: int, body: object = None, **options: Any) -> Any:
        return self.ask(Op.WRITE, command, body, **options)

    def err(self, code: int, **extra: Any) -> dict[str, Any]:
        """The answer with this code of the group."""
        return {"err": {"group": self.group, "rc": code}, **extra}

    def reset(self) -> None:
        self.device.reset(self.now)
        self.device.settle()
        self.now += 60.0
        self.device.advance(self.now)


@pytest.fixture
def desk() -> Callable[..., Desk]:
    return Desk
