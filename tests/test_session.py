"""From addresses to connected devices, and devices that are lost and found again."""

from __future__ import annotations

import asyncio

import pytest

import mcumgrx
from mcumgrx.address import Address
from mcumgrx.contracts import ImageGroup, OsGroup, ReturnHint
from mcumgrx.errors import ConnectFailed, DeviceNotFound, LinkLost, UsageError
from mcumgrx.events import DeviceText, Event
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run


def simulated(model: LinkModel, config: DeviceConfig = DeviceConfig(), faults: Faults | None = None) -> SessionDevice:
    device = SimulatedDevice(config)
    device.install(build_image("1.0.0", payload_size=2000))
    return SessionDevice(Address("sim"), SimulatedTransport(device, model, faults=faults), default_registry())


def test_connect_gives_a_client_and_closes_it() -> None:
    async def main() -> None:
        async with mcumgrx.connect("sim:") as client:
            assert await client.group(OsGroup).echo("hello") == "hello"
            assert (await client.group(ImageGroup).state()).active() is not None
        assert not client.connected

    run(main())


def test_connect_closes_after_an_error_inside() -> None:
    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            async with mcumgrx.connect("sim:") as client:
                raise ZeroDivisionError
        assert not client.connected

    run(main())


@pytest.mark.parametrize("address", ["nonsense", "warp:9", "sim:,what=1", "sim:,buf_size=few"])
def test_what_is_no_address_is_refused_before_anything_is_opened(address: str) -> None:
    with pytest.raises(UsageError):
        mcumgrx.device(address)


def test_a_device_holds_one_link_at_a_time() -> None:
    async def main() -> None:
        device = mcumgrx.device("sim:one")
        first = await device.connect()
        second = await device.connect()
        assert (first.connected, second.connected) == (False, True)
        await device.close()
        await device.close()
        assert not second.connected

    run(main())


@pytest.mark.parametrize("link", ["ideal", "ble", "uart", "datagram"])
def test_a_device_is_found_again_after_its_reset(link: str) -> None:
    models = {
        "ideal": LinkModel.ideal(),
        "ble": LinkModel.ble(),
        "uart": LinkModel.uart(),
        "datagram": LinkModel.datagram(),
    }

    async def main() -> None:
        loop = asyncio.get_running_loop()
        faults = Faults()
        device = simulated(models[link], faults=faults)
        client = await device.connect()
        await client.group(OsGroup).reset()
        begin, requests = loop.time(), faults.requests
        again = await device.rediscover(ReturnHint())
        # The links that drop are opened anew; the others stay open, since opening a port can reset a board.
        assert (again is client) == (link in ("uart", "datagram"))
        assert faults.requests == requests
        if link == "uart":
            assert loop.time() - begin >= 3.0
        assert await again.group(OsGroup).echo("back") == "back"
        await device.close()

    run(main())


def test_a_line_that_still_talks_is_not_interrupted() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        device = simulated(LinkModel.uart(), DeviceConfig(boot_s=2.5, reset_delay_s=0.25))
        client = await device.connect()
        await client.group(OsGroup).reset()
        begin = loop.time()
        heard: list[Event] = []
        again = await device.rediscover(ReturnHint(), heard.append)
        # The bootloader and then the application have printed; the silence counts from the last of it.
        assert loop.time() - begin >= 0.25 + 2.5 + 3.0
        assert any(isinstance(event, DeviceText) and "boot" in event.text.lower() for event in heard)
        assert again is client
        await device.close()

    run(main())


def test_a_device_that_stays_away_is_given_up_in_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        device = simulated(LinkModel.ideal(), DeviceConfig(boot_s=1e6))
        client = await device.connect()
        await client.group(OsGroup).reset()
        begin = loop.time()
        with pytest.raises((DeviceNotFound, ConnectFailed, LinkLost)):
            await device.rediscover(ReturnHint(timeout_s=30.0))
        assert loop.time() - begin <= 31.0
        await device.close()

    run(main())


def test_a_longer_silence_can_be_asked_for() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        device = simulated(LinkModel.ideal())
        client = await device.connect()
        await client.group(OsGroup).reset()
        begin = loop.time()
        await device.rediscover(ReturnHint(quiet_s=9.0))
        assert loop.time() - begin >= 9.0
        await device.close()

    run(main())
