"""Uploads over serial lines that damage bytes: an answer that came damaged, and a short silence, are losses at once.

One request more than the device has room for crashes it (as Zephyr 4.4 does), so each test also counts crashes.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from mcumgrx.client import Client
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import Echo
from mcumgrx.protocol.header import Header
from mcumgrx.sim.device import Answer, DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx_plugins.image.group import ImageGroup

OLD = build_image("1.0.0", payload_size=1000)
NEW = parse_image(build_image("1.1.0", payload_size=20_000))
CONFIG = DeviceConfig(slot_size=128 * 1024, line_count=None, timing=INSTANT)
LINE = replace(LinkModel.uart(), bytes_per_s=None, latency_s=0.002)

Damage = Callable[[bytes], bytes]


class DamagingLine(SimulatedTransport):
    """Each direction through a function."""

    def __init__(
        self, device: SimulatedDevice, up: Damage = bytes, down: Damage = bytes, model: LinkModel = LINE
    ) -> None:
        super().__init__(device, model)
        self._up, self._down = up, down

    def _arrived(self, connection: int, writes: tuple[bytes, ...]) -> None:
        super()._arrived(connection, tuple(map(self._up, writes)))

    def _deliver(self, connection: int, chunk: bytes) -> None:
        super()._deliver(connection, self._down(chunk))


def by_chance(share: float, seed: int) -> Damage:
    chance = random.Random(seed)

    def damage(data: bytes) -> bytes:
        return bytes(byte ^ chance.randrange(1, 256) if chance.random() < share else byte for byte in data)

    return damage


def answers(*numbers: int) -> Damage:
    """Damage the answers with these numbers, from 1 on."""
    count = 0

    def damage(data: bytes) -> bytes:
        nonlocal count
        count += data.startswith(b"\x06\x09")
        return data[:8] + bytes((data[8] ^ 1,)) + data[9:] if count in numbers else data

    return damage


def device_with(config: DeviceConfig = CONFIG) -> SimulatedDevice:
    device = SimulatedDevice(config)
    device.install(OLD)
    return device


def upload(transport: SimulatedTransport) -> float:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with Client(transport) as client:
            begin = loop.time()
            await client.group(ImageGroup).upload(NEW)
            taken = loop.time() - begin
            state = await client.group(ImageGroup).state()
            assert NEW.hash is not None
            assert [slot.slot for slot in state.holding(NEW.hash)] == [1]
            return taken

    taken = run(main())
    assert transport.device.crashes == 0
    return taken


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("share", "most_s"), [(1e-4, 4.0), (5e-4, 10.0), (1e-3, 16.0)])
def test_a_line_that_damages_bytes(share: float, most_s: float, seed: int) -> None:
    device = device_with()
    assert upload(DamagingLine(device, by_chance(share, seed), by_chance(share, seed + 100))) < most_s


@pytest.mark.parametrize("count", [2, 4])
def test_answers_that_come_damaged_cost_round_trips_not_time_outs(count: int) -> None:
    config = replace(CONFIG, buf_count=count)
    clean_s = upload(DamagingLine(device_with(config)))
    damaged = answers(*range(5, 60, 4))
    assert upload(DamagingLine(device_with(config), down=damaged)) < clean_s + 14 * 0.02


def test_the_answer_to_the_opening_chunk_may_come_damaged() -> None:
    clean_s = upload(DamagingLine(device_with()))
    assert upload(DamagingLine(device_with(), down=answers(3))) < clean_s + 0.05


@pytest.mark.parametrize("number", range(1, 8))
def test_a_damaged_answer_is_no_place_for_two(number: int) -> None:
    # One buffer beside the answer's: whatever is sent too early crashes the device.
    device = device_with(replace(CONFIG, buf_count=2, request_s=0.05))
    upload(DamagingLine(device, down=answers(number, number + 1)))


@pytest.mark.parametrize("share", [0.0, 2e-4, 1e-3])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_device_that_pauses_is_not_crashed(count: int, share: float) -> None:
    device = device_with(replace(CONFIG, buf_count=count))
    real, chunks = device.handle, 0

    def handle(message: bytes, now: float) -> Answer:
        nonlocal chunks
        answer = real(message, now)
        chunks += Header.unpack(message).group == 1
        # As the erase of a sector does, now and then.
        return Answer(answer.replies, 0.09) if chunks % 12 == 5 else answer

    device.handle = handle  # type: ignore[method-assign]
    upload(DamagingLine(device, by_chance(share, 1), by_chance(share, 2)))


def test_a_request_whose_answer_comes_damaged_is_asked_again_at_once() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with Client(DamagingLine(device_with(), down=answers(1, 2, 3, 4, 5))) as client:
            assert await client.request(Echo("hello")) == "hello"
            assert await client.request(Echo("again")) == "again"
            return loop.time()

    assert run(main()) < 0.1
