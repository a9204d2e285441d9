"""From addresses to connected devices, and devices that are lost and found again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import mcumgrx
from mcumgrx.address import Address
from mcumgrx.contracts import ImageGroup, OsGroup, ReturnHint
from mcumgrx.errors import ConnectFailed, DeviceNotFound, LinkLost, UsageError
from mcumgrx.events import DeviceText, Event
from mcumgrx.mcuboot import parse_image
from mcumgrx.memory import Learned, Memory
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


# -- what is remembered -----------------------------------------------------------------------------------------------

IMAGE = parse_image(build_image("1.1.0", payload_size=8000))


class Seen:
    """What an upload by a session of its own took."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sizes: list[int] = []


def upload(
    memory: Memory | None,
    *,
    identity: str = "board 7",
    name: str | None = None,
    config: DeviceConfig = DeviceConfig(),
    reassembles: bool = False,
    cut_at: int | tuple[int, ...] = (),
) -> Seen:
    """Upload to a device with Bluetooth LE that, as it seems to the link, puts several writes together."""
    seen = Seen()

    def lose(number: int, message: bytes) -> bool:
        seen.sizes.append(len(message))
        return not reassembles and len(message) > LinkModel.ble().limits.safe_message

    async def main() -> None:
        loop = asyncio.get_running_loop()
        device = SimulatedDevice(config, name=identity)
        device.install(build_image("1.0.0", payload_size=2000))
        faults = Faults(drop_requests=lose, cut_at_request=cut_at)
        transport = SimulatedTransport(device, LinkModel.ble(), faults=faults)
        session = SessionDevice(Address("sim"), transport, default_registry(), memory=memory, name=name)
        try:
            client = await session.connect()
            begin = loop.time()
            await client.group(ImageGroup).upload(IMAGE)
            seen.seconds = loop.time() - begin
        finally:
            await session.close()

    run(main())
    return seen


def test_what_one_program_finds_out_the_next_one_knows(tmp_path: Path) -> None:
    first, again = (upload(Memory(tmp_path)) for _ in range(2))
    safe = LinkModel.ble().limits.safe_message
    assert max(first.sizes) > safe
    assert max(again.sizes) == safe
    assert len(again.sizes) < len(first.sizes)
    assert again.seconds < first.seconds - 2.0  # two probes, waited for in vain
    assert [(one.id, one.link) for one in Memory(tmp_path).known()] == [("sim:board 7", "sim")]


@pytest.mark.parametrize("change", ["another device", "another link", "no memory"])
def test_nothing_is_known_of_what_is_not_the_same_device(change: str, tmp_path: Path) -> None:
    first = upload(Memory(tmp_path))
    if change == "another link":
        learned = Memory(tmp_path).recall("sim:board 7", "sim")
        Memory(tmp_path).forget()
        Memory(tmp_path).remember("sim:board 7", "ble", learned)
    memory = None if change == "no memory" else Memory(tmp_path)
    again = upload(memory, identity="board 8" if change == "another device" else "board 7")
    assert again.sizes == first.sizes


def test_without_an_identity_nothing_is_remembered(tmp_path: Path) -> None:
    upload(Memory(tmp_path), identity="")
    assert list(tmp_path.iterdir()) == []


def test_a_given_name_goes_before_what_the_link_says(tmp_path: Path) -> None:
    for identity in ("", "adapter"):
        upload(Memory(tmp_path), identity=identity, name="board 7")
    assert [one.id for one in Memory(tmp_path).known()] == ["board 7"]


def test_firmware_with_other_buffers_can_have_larger_messages(tmp_path: Path) -> None:
    upload(Memory(tmp_path))
    updated = upload(Memory(tmp_path), config=DeviceConfig(buf_size=1024), reassembles=True)
    assert max(updated.sizes) == 1024
    assert Memory(tmp_path).recall("sim:board 7", "sim").message_bytes == 1024


def test_firmware_with_the_same_buffers_can_have_larger_messages_some_days_later(tmp_path: Path) -> None:
    now = [1e9]
    memory = Memory(tmp_path, clock=lambda: now[0])
    upload(memory)
    assert max(upload(memory, reassembles=True).sizes) < 384
    now[0] += 8 * 86400
    assert max(upload(memory, reassembles=True).sizes) == 384
    assert max(upload(memory, reassembles=True).sizes) == 384


def test_a_memory_of_what_was_never_true_costs_time_and_nothing_else(tmp_path: Path) -> None:
    lies = Learned(message_bytes=300, refused_bytes=301, room_bytes=384, erase_s=0.0, alignment=4096)
    Memory(tmp_path).remember("sim:board 7", "sim", lies)
    upload(Memory(tmp_path))
    assert Memory(tmp_path).recall("sim:board 7", "sim").message_bytes == LinkModel.ble().limits.safe_message


@pytest.mark.parametrize("name", ["", "  ", "x" * 300])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="the name of a device"):
        mcumgrx.device("sim:", name=name)


def test_what_was_learned_is_kept_when_the_link_is_lost(tmp_path: Path) -> None:
    with pytest.raises(LinkLost):
        upload(Memory(tmp_path), cut_at=12)
    assert Memory(tmp_path).recall("sim:board 7", "sim").refuses(384)
    assert max(upload(Memory(tmp_path)).sizes) < 384
