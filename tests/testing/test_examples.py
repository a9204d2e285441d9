"""The transports in `examples` keep the contract, in as few lines as the pages say."""

from __future__ import annotations

import ast
import importlib.util
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import pytest

from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.mcuboot import parse_image
from mcumgrx.plugin_api import StreamFraming
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.header import REQUEST_OPS
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.testing.transports import EchoDevice, LinkUnderTest, TransportContract
from mcumgrx_plugins.image.group import ImageGroup

from .test_transports import UdpEnd

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestRadio(TransportContract):
    """Silence never ends it."""

    buf_size = 2048

    @asynccontextmanager
    async def link(self) -> AsyncIterator[LinkUnderTest]:
        end = UdpEnd()
        end.start()
        yield LinkUnderTest(example("radio_link").AcmeTransport(Address.parse(f"acme:127.0.0.1:{end.where[1]}")))
        end.stop()


def test_the_radio_has_thirty_statements() -> None:
    """So much is a transport of one's own, beside its imports."""
    tree = ast.parse((EXAMPLES / "radio_link.py").read_text(encoding="utf-8"))
    (kind,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    assert sum(isinstance(node, ast.stmt) for node in ast.walk(kind)) <= 30


def test_the_page_shows_it_as_it_is() -> None:
    page = (EXAMPLES.parent / "docs" / "plugins.md").read_text(encoding="utf-8")
    assert (EXAMPLES / "radio_link.py").read_text(encoding="utf-8") in page


# -- a bus ------------------------------------------------------------------------------------------------------------


class CanEnd(threading.Thread):
    """Answers on a bus, frame by frame: what `feed` makes of the bytes so far."""

    def __init__(self, channel: str, feed: Callable[[bytes], list[bytes]]) -> None:
        super().__init__(daemon=True)
        can = pytest.importorskip("can", reason="needs python-can: pip install mcumgrx[can]")
        self._frame = can.Message
        self._bus = can.Bus(channel, "virtual")
        self._bus.set_filters([{"can_id": 0x7E0, "can_mask": 0x7FF, "extended": False}])
        self._feed = feed
        self._stopping = False
        self.longest = 0

    def run(self) -> None:
        while not self._stopping:
            frame = self._bus.recv(timeout=0.05)
            if frame is None:
                continue
            self.longest = max(self.longest, len(frame.data))
            for write in self._feed(bytes(frame.data)):
                self._bus.send(self._frame(arbitration_id=0x7E8, data=write, is_extended_id=False))

    def stop(self) -> None:
        self._stopping = True
        self.join()
        self._bus.shutdown()


class TestCan(TransportContract):
    buf_size = 2048

    @asynccontextmanager
    async def link(self) -> AsyncIterator[LinkUnderTest]:
        channel = uuid4().hex
        end = CanEnd(channel, EchoDevice(StreamFraming, write_bytes=8).feed)
        end.start()
        yield LinkUnderTest(example("can_link").CanTransport(Address.parse(f"can:{channel},interface=virtual")))
        end.stop()
        assert end.longest <= 8


async def test_an_image_crosses_the_bus() -> None:
    device = SimulatedDevice(DeviceConfig(timing=INSTANT))
    device.install(build_image("1.0.0", payload_size=1000))
    device.settle()
    framing = StreamFraming(ops=REQUEST_OPS)

    def feed(data: bytes) -> list[bytes]:
        answers = [device.handle(build_message(*message), time.monotonic()) for message in framing.feed(data)]
        return [write for answer in answers for reply in answer.replies for write in framing.encode(reply, 8)]

    channel = uuid4().hex
    end = CanEnd(channel, feed)
    end.start()
    image = parse_image(build_image("1.1.0", payload_size=3000))
    try:
        async with Client(
            example("can_link").CanTransport(Address.parse(f"can:{channel},interface=virtual"))
        ) as client:
            await client.group(ImageGroup).upload(image)
            state = await client.group(ImageGroup).state()
    finally:
        end.stop()
    assert image.hash in [slot.hash for slot in state.slots]
    assert end.longest == 8
