"""The transports in `examples` keep the contract, in as few lines as the pages say."""

from __future__ import annotations

import ast
import importlib.util
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from uuid import uuid4

import pytest

from mcumgrx.address import Address
from mcumgrx.plugin_api import StreamFraming
from mcumgrx.testing.transports import EchoDevice, Link, TransportContract

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
    async def link(self) -> AsyncIterator[Link]:
        end = UdpEnd()
        end.start()
        yield Link(example("radio_link").AcmeTransport(Address.parse(f"acme:127.0.0.1:{end.where[1]}")))
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
    """Answers on a bus, frame by frame."""

    def __init__(self, channel: str) -> None:
        super().__init__(daemon=True)
        can = pytest.importorskip("can", reason="needs python-can: pip install mcumgrx[can]")
        self._frame = can.Message
        self._bus = can.Bus(channel, "virtual")
        self._bus.set_filters([{"can_id": 0x7E0, "can_mask": 0x7FF, "extended": False}])
        self._echo = EchoDevice(StreamFraming, write_bytes=8)
        self._stopping = False
        self.longest = 0

    def run(self) -> None:
        while not self._stopping:
            frame = self._bus.recv(timeout=0.05)
            if frame is None:
                continue
            self.longest = max(self.longest, len(frame.data))
            for write in self._echo.feed(bytes(frame.data)):
                self._bus.send(self._frame(arbitration_id=0x7E8, data=write, is_extended_id=False))

    def stop(self) -> None:
        self._stopping = True
        self.join()
        self._bus.shutdown()


class TestCan(TransportContract):
    buf_size = 2048

    @asynccontextmanager
    async def link(self) -> AsyncIterator[Link]:
        channel = uuid4().hex
        end = CanEnd(channel)
        end.start()
        yield Link(example("can_link").CanTransport(Address.parse(f"can:{channel},interface=virtual")))
        end.stop()
        assert end.longest <= 8
