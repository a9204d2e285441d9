"""From addresses to connected devices, and devices that are lost and found again."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

import mcumgrx
from mcumgrx.address import Address
from mcumgrx.client import Client
from mcumgrx.contracts import ImageGroup, OsGroup, ReturnHint
from mcumgrx.errors import ConnectFailed, DeviceNotFound, LinkLost, McumgrError, UsageError, WrongDevice
from mcumgrx.events import DeviceText, Event, Note
from mcumgrx.flows import update
from mcumgrx.group import Group
from mcumgrx.link.profile import Learned
from mcumgrx.mcuboot import parse_image
from mcumgrx.memory import Memory
from mcumgrx.messages.message import SmpCommand
from mcumgrx.messages.standard import Bootloader, Echo, EraseImage
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.device import DeviceConfig, Power, SimulatedDevice
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


def test_a_device_can_be_given_as_a_transport() -> None:
    simulator = SimulatedDevice()
    simulator.install(build_image("1.0.0", payload_size=2000))

    async def main() -> None:
        async with mcumgrx.connect(SimulatedTransport(simulator)) as client:
            assert await client.group(OsGroup).echo("hello") == "hello"
        with pytest.raises(TypeError, match=r"an update is of a device, as mcumgrx.device\(…\) makes one"):
            await update(SimulatedTransport(simulator), None)  # type: ignore[arg-type]
        newest = parse_image(build_image("1.2.0", payload_size=2000))
        assert (await mcumgrx.update(SimulatedTransport(simulator), newest)).summary.startswith("1.2.0 runs")
        device = mcumgrx.device(SimulatedTransport(simulator))
        assert device.address == "mcumgrx.sim.link.SimulatedTransport"
        report = await update(device, parse_image(build_image("1.1.0", payload_size=2000)))
        assert report.summary.startswith("1.1.0 runs")

    run(main())


class LoudOs(Group, OsGroup):
    """Fills a role with nothing but what has no default."""

    async def echo(self, text: str) -> str:
        return (await self.request(Echo(text))).upper()

    async def reset(self, *, force: bool = False, boot_mode: int | None = None) -> None:
        raise NotImplementedError


def test_a_role_can_be_filled_for_one_device() -> None:
    async def main() -> None:
        async with mcumgrx.connect("sim:", roles={OsGroup: LoudOs}) as client:
            assert await client.group(OsGroup).echo("hello") == "HELLO"
            assert await client.group(OsGroup).bootloader() == Bootloader()
        async with mcumgrx.connect("sim:") as client:
            assert await client.group(OsGroup).echo("hello") == "hello"

    run(main())


@pytest.mark.parametrize("what", [None, 7, b"sim:", Path("sim")], ids=repr)
def test_what_cannot_be_a_device_is_told(what: Any) -> None:
    with pytest.raises(TypeError, match=r"an address or reached by a Transport, not by"):
        mcumgrx.device(what)


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
        if link == "uart":  # asked as soon as its text shows that it is up, and not before
            assert loop.time() - begin >= 0.25 + DeviceConfig().boot_s
        assert await again.group(OsGroup).echo("back") == "back"
        await device.close()

    run(main())


def test_a_starting_device_is_asked_when_its_text_shows_that_it_is_up() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        device = simulated(LinkModel.uart(), DeviceConfig(boot_s=2.5, reset_delay_s=0.25))
        client = await device.connect()
        device.expect_reset()
        await client.group(OsGroup).reset()
        begin = loop.time()
        heard: list[Event] = []
        again = await device.rediscover(ReturnHint(), heard.append)
        # The bootloader prints at once, and waits perhaps for a request. The application follows.
        assert 0.25 + 2.5 <= loop.time() - begin < 0.25 + 2.5 + 0.2
        assert device.restarted
        assert any(isinstance(event, DeviceText) and "boot" in event.text.lower() for event in heard)
        assert again is client
        await device.close()

    run(main())


class Talking(SimulatedTransport):
    """A UART whose device prints lines of a test's own at its start: (seconds since the reset, text)."""

    def __init__(self, lines: list[tuple[float, str]]) -> None:
        device = SimulatedDevice()
        device.install(build_image("1.0.0", payload_size=2000))
        super().__init__(device, LinkModel.uart())
        self.lines = lines

    def _print(self, power: Power) -> None:
        if power is Power.BOOTING and self._runner is not None:
            for after_s, line in self.lines:
                self._later(after_s, self._deliver, self._connection, f"{line}\r\n".encode())


TICKS = [(0.5 * number, f"[00:00:{number:02d}.000,000] <inf> app: tick") for number in range(1, 200)]


@pytest.mark.parametrize(
    ("lines", "earliest_s", "latest_s"),
    [
        # A program of Zephyr has started, perhaps the bootloader: it is listened to for as long as the link needs.
        ([(1.0, "*** Booting Zephyr OS build v3.4.0 ***")], 4.0, 4.5),
        # What MCUboot prints, or the second banner, tells whose the banner is.
        ([(1.0, "*** Booting Zephyr OS build v3.4.0 ***"), (2.0, "*** Booting Zephyr OS build v3.4.0 ***")], 2.0, 2.5),
        ([(1.0, "I: Starting bootloader"), (2.0, "*** Booting nRF Connect SDK v2.9.0 ***")], 2.0, 2.5),
        ([(1.0, "I: Jumping to the first image slot"), (1.5, "hello")], 1.5, 2.0),
        ([(1.0, "*** Booting Zephyr OS build v4.4.0 ***"), (1.5, "uart:~$")], 1.5, 2.0),
        ([(1.0, "*** Booting Zephyr OS build v4.4.0 ***"), *TICKS[2:]], 1.5, 2.0),
        # The log of a bootloader is not the application's.
        ([(1.0, "*** Booting MCUboot v2.1.0 ***"), (1.5, "[00:00:00.001,000] <inf> mcuboot: waiting")], 4.5, 5.0),
        # No sign at all, and no end.
        (TICKS, 8.5, 9.5),
    ],
)
def test_a_line_that_talks_is_asked_in_time(lines: list[tuple[float, str]], earliest_s: float, latest_s: float) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        device = SessionDevice(Address("sim"), Talking(lines), default_registry())
        client = await device.connect()
        device.expect_reset()
        await client.group(OsGroup).reset()
        begin = loop.time() + 0.24  # the reset comes a moment after its answer
        notes: list[Event] = []
        await device.rediscover(ReturnHint(), notes.append)
        assert earliest_s <= loop.time() - begin <= latest_s
        told = [event.text for event in notes if isinstance(event, Note)]
        assert bool(told) == (latest_s > 3.0)  # a wait that is longer than usual is told
        assert all("after 3 s of silence, or in 6 s at the latest" in text for text in told)
        await device.close()

    run(main())


def test_a_silence_that_somebody_wants_is_kept_whatever_is_printed() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        device = SessionDevice(Address("sim"), Talking(TICKS[:4]), default_registry())
        client = await device.connect()
        device.expect_reset()
        await client.group(OsGroup).reset()
        begin = loop.time()
        await device.rediscover(ReturnHint(quiet_s=5.0))
        assert loop.time() - begin >= 2.0 + 5.0
        await device.close()

    run(main())


class Exchanged(SimulatedTransport):
    """A port to which another board is connected from the opening `at` on, for `times` openings."""

    def __init__(self, at: int, times: int = 1000) -> None:
        device = SimulatedDevice(name="board A")
        device.install(build_image("1.0.0", payload_size=2000))
        super().__init__(device, LinkModel.ideal())
        self.opened = 0
        self.wrong = range(at, at + times)
        self.closed_between = True
        self.is_open = False

    async def open(self, timeout_s: float) -> None:
        self.closed_between = self.closed_between and not self.is_open
        self.opened += 1
        self.is_open = True
        await super().open(timeout_s)

    async def close(self) -> None:
        self.is_open = False
        await super().close()

    @property
    def identity(self) -> str | None:
        return "board B" if self.opened in self.wrong else "board A"


def test_another_device_behind_the_address_is_refused_by_name() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport = Exchanged(at=2)
        device = SessionDevice(Address.parse("sim:x"), transport, default_registry())
        client = await device.connect()
        await client.group(OsGroup).reset()
        events: list[Event] = []
        begin = loop.time()
        with pytest.raises(WrongDevice, match="board B instead of board A") as failure:
            await device.rediscover(ReturnHint(timeout_s=120.0), events.append)
        assert (failure.value.expected, failure.value.found) == ("board A", "board B")
        assert loop.time() - begin < 15.0
        assert any(isinstance(event, Note) and "board B" in event.text for event in events)
        assert device.identity == "board A"
        assert not transport.is_open
        with pytest.raises(WrongDevice):
            await device.connect()
        assert transport.closed_between

    run(main())


def test_another_device_that_passes_is_waited_for() -> None:
    async def main() -> None:
        transport = Exchanged(at=2, times=3)
        device = SessionDevice(Address.parse("sim:x"), transport, default_registry())
        await (await device.connect()).group(OsGroup).reset()
        client = await device.rediscover(ReturnHint())
        assert client.connected
        assert transport.opened == 5
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


class Stubborn(SimulatedTransport):
    """Its `open` does not return, and where it `clings` does not let itself be cancelled either."""

    def __init__(self, clings: bool) -> None:
        super().__init__(SimulatedDevice(), LinkModel.ideal())
        self.clings = clings
        self.closed = 0
        self.over = False

    async def open(self, timeout_s: float) -> None:
        while not self.over:
            try:
                await asyncio.sleep(100.0)
            except asyncio.CancelledError:
                if not self.clings:
                    raise

    async def close(self) -> None:
        self.closed += 1
        await super().close()


@pytest.mark.parametrize("clings", [False, True])
def test_an_open_that_does_not_return_is_given_up(clings: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport = Stubborn(clings)
        device = SessionDevice(Address("sim"), transport, default_registry())
        with pytest.raises(ConnectFailed, match="not open after 20 s"):
            await device.connect()
        assert loop.time() < 25.0
        assert transport.closed == 1
        transport.over = True
        await asyncio.sleep(100.0)

    run(main())


def test_closing_a_client_before_it_is_opened_does_not_keep_it_open_later() -> None:
    async def main() -> None:
        device = SimulatedDevice()
        device.install(build_image("1.0.0", payload_size=2000))
        client = Client(SimulatedTransport(device))
        await client.close()
        await client.open()
        assert client.connected
        await client.close()
        assert not client.connected

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


class Counting(Memory):
    """A memory that counts how often its file is read and written."""

    asked: tuple[str, ...] = ()

    def recall(self, identity: str, link: str) -> Learned:
        self.asked += ("recall",)
        return super().recall(identity, link)

    def remember(self, identity: str, link: str, learned: Learned) -> None:
        self.asked += ("remember",)
        super().remember(identity, link, learned)


def test_what_is_learned_over_one_link_serves_the_next_and_is_stored_when_the_device_is_closed(tmp_path: Path) -> None:
    memory = Counting(tmp_path)

    async def main() -> None:
        device = mcumgrx.device("sim:desk,erase=0.1", memory=memory, name="bench")
        client = await device.connect()
        await client.group(ImageGroup).upload(IMAGE)
        learned = client.profile.learned
        assert learned.erase_s is not None
        await device.disconnect()
        client = await device.connect()
        assert client.profile.learned is learned
        assert memory.asked == ("recall",)
        await device.close()

    run(main())
    assert memory.asked == ("recall", "remember")
    assert Memory(tmp_path).recall("bench", "sim").erase_s is not None


def test_simulated_devices_take_no_place_in_the_memory_unless_they_are_named(tmp_path: Path) -> None:
    async def main(name: str | None) -> None:
        device = mcumgrx.device("sim:desk,erase=0.1", memory=Memory(tmp_path), name=name)
        client = await device.connect()
        await client.group(ImageGroup).upload(IMAGE)
        await device.close()

    run(main(None))
    assert list(tmp_path.iterdir()) == []
    run(main("bench"))
    assert [one.id for one in Memory(tmp_path).known()] == ["bench"]


class Hanging(Memory):
    """A memory on a share that does not answer until the test is over."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.over = threading.Event()

        self.asked = 0

    def recall(self, identity: str, link: str) -> Learned:
        self.asked += 1
        self.over.wait()
        return super().recall(identity, link)

    def remember(self, identity: str, link: str, learned: Learned) -> None:
        self.asked += 1
        self.over.wait()


def test_a_memory_that_hangs_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcumgrx.memory, "_TIMEOUT_S", 0.5)
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    async def main() -> None:
        memory = Hanging(tmp_path)
        device = mcumgrx.device("sim:,erase=0,latency=0", memory=memory, name="board 7")
        beating = asyncio.create_task(beat())
        try:
            client = await device.connect()
            assert await client.group(OsGroup).echo("hello") == "hello"
            await device.close()
        finally:
            memory.over.set()
            beating.cancel()
        assert beats > 5  # meanwhile others went on
        assert memory.asked == 1  # one thread hangs, and the device goes on without

    asyncio.run(main())


# -- a link that dies before it has carried anything -------------------------------------------------------------------


def first_request(command: SmpCommand[Any], *, changed: bool = False) -> tuple[Any, int]:
    """What comes of the first request over a link that its first message ends, and how often it was opened."""
    faults = Faults(cut_at_request={1})
    opened: list[int] = []

    class Dies(SimulatedTransport):
        async def open(self, timeout_s: float) -> None:
            await super().open(timeout_s)
            opened.append(1)

        @property
        def identity(self) -> str | None:
            return "another" if changed and len(opened) > 1 else "the first"

    async def main() -> Any:
        device = SimulatedDevice()
        device.install(build_image("1.0.0"))
        transport = Dies(device, LinkModel.ideal(), faults=faults)
        found = SessionDevice(Address.parse("sim:"), transport, default_registry())
        client = await found.connect()
        try:
            return await client.request(command)
        except McumgrError as error:
            return error
        finally:
            await found.close()

    return run(main()), len(opened)


def test_a_read_over_a_link_that_dies_at_once_is_made_over_a_second_one() -> None:
    assert first_request(Echo("hello")) == ("hello", 2)


def test_what_must_not_be_repeated_is_not() -> None:
    error, opened = first_request(EraseImage())
    assert isinstance(error, LinkLost)
    assert opened == 1


def test_the_second_link_must_lead_to_the_same_device() -> None:
    error, opened = first_request(Echo("hello"), changed=True)
    assert isinstance(error, WrongDevice)
    assert opened == 2
