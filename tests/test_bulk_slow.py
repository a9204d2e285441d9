"""Transfers over links so slow that a message takes longer than the usual patience, in virtual time."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence

import pytest

from mcumgrx.client import Client
from mcumgrx.events import Bytes, Event, Limit
from mcumgrx.link.profile import Learned, LinkProfile
from mcumgrx.mcuboot import parse_image
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
        async with Client(transport, profile=LinkProfile(learned=learned)) as client:
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
        async with Client(transport, profile=LinkProfile(learned=learned)) as client:
            group = client.group(FsGroup)
            await group.upload(CONTENT, "/lfs1/x", progress=there.append)
            half = loop.time()
            await group.download("/lfs1/x", sink, progress=back.append)
            assert sink.getvalue() == CONTENT
            return half, loop.time() - half

    seconds = run(main())
    check(transport, there, seconds[0], baud)
    check(transport, back, seconds[1], baud)


@pytest.mark.parametrize("waits", [False, True], ids=["takes at once", "waits for the wire"])
def test_time_on_the_wire_is_not_called_the_device_s(waits: bool) -> None:
    """A device that needs no time at all, behind 25 KB/s: an answer may be there before `send` has returned."""
    said: list[Bytes] = []

    class Wire(SimulatedTransport):
        free_at = 0.0

        async def send(self, writes: Sequence[bytes]) -> None:
            loop = asyncio.get_running_loop()
            self.free_at = max(self.free_at, loop.time()) + sum(map(len, writes)) / 25_000
            loop.call_at(self.free_at, lambda: [self.put(one) for one in writes])
            if waits:
                await asyncio.sleep(self.queued_s())

        def offer(self, writes: Sequence[bytes]) -> bool:
            return False

        def queued_s(self) -> float:
            return max(0.0, self.free_at - asyncio.get_running_loop().time())

    def listen(event: Event) -> None:
        if isinstance(event, Bytes):
            said.append(event)

    async def main() -> None:
        device = SimulatedDevice(DeviceConfig(buf_size=1024, timing=INSTANT, request_s=0.0))
        device.install(build_image("1.0.0"))
        image = parse_image(build_image("1.1.0", payload_size=20_000))
        async with Client(Wire(device, LinkModel(kind="stream", drops_on_reset=False))) as client:
            await client.group(ImageGroup).upload(image, progress=listen)

    run(main())
    assert said[-1].speed is not None
    assert said[-1].speed.limited_by is not Limit.DEVICE
