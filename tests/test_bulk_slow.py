"""Transfers over links so slow that a message takes longer than the usual patience, in virtual time."""

from __future__ import annotations

import asyncio
import io

import pytest

from mcumgrx.client import Client
from mcumgrx.events import Bytes, Event
from mcumgrx.mcuboot import parse_image
from mcumgrx.memory import Learned
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx_plugins.fs.group import FsGroup
from mcumgrx_plugins.image.group import ImageGroup

NEW = parse_image(build_image("1.1.0", payload_size=6000))
CONTENT = bytes(range(256)) * 24
LINKS = {"console": LinkModel.uart, "raw": lambda baud: LinkModel.uart(baud, raw=True), "shell": LinkModel.shell}


def slow(baud: int, link: str, size: int, count: int) -> tuple[SimulatedTransport, Learned]:
    device = SimulatedDevice(DeviceConfig(slot_size=64 * 1024, buf_size=size, buf_count=count, timing=INSTANT))
    device.install(build_image("1.0.0", payload_size=1000))
    return SimulatedTransport(device, LINKS[link](baud)), Learned()


def check(transport: SimulatedTransport, events: list[Event], seconds: float, baud: int) -> None:
    assert transport.device.crashes == 0
    last = [event for event in events if isinstance(event, Bytes)][-1]
    assert last.speed is not None
    assert last.speed.retransmissions <= 1
    assert seconds < 4 * 6200 / (baud / 10)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("baud", [300, 1200])
@pytest.mark.parametrize(("size", "count"), [(384, 2), (384, 4), (1024, 4), (2475, 4)])
def test_an_image(link: str, baud: int, size: int, count: int) -> None:
    transport, learned = slow(baud, link, size, count)
    events: list[Event] = []

    async def main() -> float:
        async with Client(transport, learned=learned) as client:
            await client.group(ImageGroup).upload(NEW, progress=events.append)
            return asyncio.get_running_loop().time()

    check(transport, events, run(main()), baud)
    assert learned.refused_bytes is None or link == "shell"  # its two line buffers are really too few


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("baud", [300, 1200])
@pytest.mark.parametrize(("size", "count"), [(384, 2), (1024, 4)])
def test_a_file_there_and_back(link: str, baud: int, size: int, count: int) -> None:
    transport, learned = slow(baud, link, size, count)
    there: list[Event] = []
    back: list[Event] = []

    async def main() -> tuple[float, float]:
        loop, sink = asyncio.get_running_loop(), io.BytesIO()
        async with Client(transport, learned=learned) as client:
            group = client.group(FsGroup)
            await group.upload(CONTENT, "/lfs1/x", progress=there.append)
            half = loop.time()
            await group.download("/lfs1/x", sink, progress=back.append)
            assert sink.getvalue() == CONTENT
            return half, loop.time() - half

    seconds = run(main())
    check(transport, there, seconds[0], baud)
    check(transport, back, seconds[1], baud)
