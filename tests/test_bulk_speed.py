"""What a transfer tells of its speed: what limits it, what would help, and its numbers; all in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from mcumgrx.bulk import transfer, window_for
from mcumgrx.client import Client
from mcumgrx.contracts import UploadOptions
from mcumgrx.errors import DeviceError, LinkLost
from mcumgrx.events import Bytes, Event, Limit, Speed, StageName
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.message import SmpCommand, decode_body
from mcumgrx.protocol.header import HEADER_SIZE, Header
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.files import FsConfig, FsMount
from mcumgrx.sim.flash import INSTANT, FlashTiming
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx_plugins.fs.messages import FileChunk, ReadFile
from mcumgrx_plugins.image.group import ImageGroup

OLD = build_image("1.0.0", payload_size=4000)
NEW = parse_image(build_image("1.1.0", payload_size=80_000))

# 100 µs a byte, and 10 ms for each operation on top of what internal flash takes.
SLOW_FLASH = FlashTiming(write_s_per_byte=100e-6)
EXTERNAL_FLASH = FlashTiming(operation_s=0.01)


def device_with(**config: Any) -> SimulatedDevice:
    device = SimulatedDevice(DeviceConfig(**{"slot_size": 128 * 1024, **config}))
    device.install(OLD)
    return device


def upload(
    model: LinkModel,
    device: SimulatedDevice | None = None,
    options: UploadOptions = UploadOptions(),
    faults: Faults | None = None,
) -> list[Bytes]:
    """The events of an upload."""
    events: list[Event] = []

    async def main() -> None:
        transport = SimulatedTransport(device or device_with(), model, faults=faults or Faults())
        async with Client(transport) as client:
            await client.group(ImageGroup).upload(NEW, options, events.append)

    run(main())
    return [event for event in events if isinstance(event, Bytes)]


def final(events: list[Bytes]) -> Speed:
    assert events[-1].done == events[-1].total
    speed = events[-1].speed
    assert speed is not None
    return speed


def test_a_resumed_upload_tells_its_chunks_too() -> None:
    device = device_with()
    with pytest.raises(LinkLost):
        upload(LinkModel.ble(), device, faults=Faults(cut_at_request=50))
    events = upload(LinkModel.ble(), device)
    assert events[-1].resumed_from
    assert final(events).chunk_bytes == final(upload(LinkModel.ble())).chunk_bytes


@dataclass(frozen=True)
class Case:
    """An upload over `model` to a device with `config`: what limits it, and words of the hint."""

    model: LinkModel
    limited_by: Limit | None
    hint: str
    config: dict[str, Any] = field(default_factory=dict)
    window: int | None = None
    largest: int | None = None  # what is longer gets lost


COUNT, SIZE = "CONFIG_MCUMGR_TRANSPORT_NETBUF_COUNT", "CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE"
BAUD, BUSY = "baud rate", "busy all the time"
DISTANT = LinkModel(latency_s=0.01)

CASES = {
    # The line is never silent, whatever else there is.
    "uart": Case(LinkModel.uart(), Limit.LINK, BAUD),
    "uart, fast flash": Case(LinkModel.uart(), Limit.LINK, BAUD, {"timing": INSTANT}),
    "uart, far away": Case(replace(LinkModel.uart(), latency_s=0.01), Limit.LINK, BAUD),
    "uart, one at a time": Case(LinkModel.uart(), Limit.LINK, BAUD, window=1),
    "raw uart": Case(LinkModel.uart(raw=True), Limit.LINK, BAUD),
    # More waits in front of the link than it takes ahead.
    "ble, large buffers": Case(LinkModel.ble(), Limit.LINK, "speed", {"buf_count": 16, "buf_size": 2048}),
    # The way there and back is long, and few are on it.
    "ble, one write a message": Case(LinkModel.ble(), Limit.BUFFERS, SIZE, {"buf_size": 244}),
    "ble": Case(LinkModel.ble(), Limit.BUFFERS, COUNT),
    "ble, no reassembly": Case(
        LinkModel.ble(reassembles=False), Limit.BUFFERS, "CONFIG_MCUMGR_TRANSPORT_BT_REASSEMBLY"
    ),
    "ble, large ones lost": Case(
        LinkModel.ble(), Limit.BUFFERS, "above 244 bytes get lost: CONFIG_MCUMGR_TRANSPORT_BT_REASSEMBLY", largest=244
    ),
    "console, large ones lost": Case(
        replace(LinkModel.uart(10_000_000), latency_s=0.05),
        Limit.BUFFERS,
        "CONFIG_UART_MCUMGR_RX_BUF_COUNT",
        largest=128,
    ),
    "far away": Case(DISTANT, Limit.BUFFERS, COUNT),
    "far away, one at a time": Case(DISTANT, Limit.BUFFERS, "a larger --window: the device has room for 3", window=1),
    "far away, buffers not told": Case(DISTANT, Limit.BUFFERS, "CONFIG_MCUMGR_GRP_OS_MCUMGR_PARAMS", {"params": False}),
    "far away, largest messages": Case(
        replace(DISTANT, max_message=384), Limit.BUFFERS, f"{COUNT}) keep the link busy"
    ),
    "raw uart, fast": Case(LinkModel.uart(3_000_000, raw=True), Limit.DEVICE, BUSY, {"timing": SLOW_FLASH}),
    "raw uart, fast, far away": Case(
        replace(LinkModel.uart(3_000_000, raw=True), latency_s=0.01),
        Limit.BUFFERS,
        f"of no use on this link, but larger ones ({SIZE}",
    ),
    # Flash.
    "slow flash": Case(LinkModel.ideal(), Limit.DEVICE, BUSY, {"timing": SLOW_FLASH}),
    "slow flash, one at a time": Case(LinkModel.ideal(), Limit.DEVICE, BUSY, {"timing": SLOW_FLASH}, window=1),
    "slow flash, buffers not told": Case(
        LinkModel.ideal(), Limit.DEVICE, BUSY, {"timing": SLOW_FLASH, "params": False}
    ),
    "slow flash, ble": Case(LinkModel.ble(), Limit.DEVICE, BUSY, {"timing": SLOW_FLASH, "buf_count": 8}),
    "external flash": Case(replace(DISTANT, latency_s=0.005), Limit.DEVICE, BUSY, {"timing": EXTERNAL_FLASH}),
    # On a network more are on their way than the device has room for.
    "datagrams": Case(LinkModel.datagram(), Limit.DEVICE, BUSY),
    "datagrams, far away, slow flash": Case(LinkModel.datagram(0.02), Limit.DEVICE, BUSY, {"timing": SLOW_FLASH}),
    "datagrams, far away": Case(LinkModel.datagram(0.02), Limit.DEVICE, BUSY),
    "datagrams, far away, one buffer": Case(LinkModel.datagram(0.02), Limit.BUFFERS, COUNT, {"buf_count": 2}),
    "datagrams, far away, many buffers": Case(LinkModel.datagram(0.02), Limit.DEVICE, BUSY, {"buf_count": 64}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_limits_an_upload(name: str) -> None:
    case = CASES[name]
    faults = Faults()
    if case.largest is not None:
        most = case.largest
        faults = Faults(drop_requests=lambda number, message: len(message) > most)
    speed = final(upload(case.model, device_with(**case.config), UploadOptions(window=case.window), faults))
    assert speed.limited_by is case.limited_by
    assert speed.hint is not None
    assert case.hint in speed.hint


def test_what_is_told_is_true() -> None:
    """Where the buffers are the limit, twice as many make it nearly twice as fast; where they are not, no faster."""

    def rate(case: Case, buf_count: int) -> float:
        return final(upload(case.model, device_with(**{**case.config, "buf_count": buf_count}))).average

    for name in ("ble", "far away"):
        assert rate(CASES[name], 7) > 1.5 * rate(CASES[name], 4), name
    for name in ("uart", "slow flash", "external flash"):
        assert rate(CASES[name], 7) < 1.1 * rate(CASES[name], 4), name


def test_a_slow_erase_is_what_limits() -> None:
    device = device_with(timing=FlashTiming(erase_s_per_sector=1.0))
    # Something is in the slot, so that it has to be erased.
    device.install(build_image("0.9.0", payload_size=4000), 1)
    speed = final(upload(LinkModel.ideal(), device))
    assert speed.limited_by is Limit.DEVICE
    assert speed.hint is not None
    assert "image erase" in speed.hint


@pytest.mark.parametrize("link", [LinkModel.ideal(), LinkModel.uart(), LinkModel.ble()])
@pytest.mark.parametrize("chunk", [None, 100])
def test_the_size_of_a_chunk_is_that_on_the_wire(link: LinkModel, chunk: int | None) -> None:
    sizes: list[int] = []

    def look(number: int, message: bytes) -> bool:
        header = Header.unpack(message)
        if (header.group, header.command) == (1, 1):
            sizes.append(len(decode_body(message[HEADER_SIZE:])["data"]))
        return number in (20, 21, 35)  # what is lost changes nothing

    events = upload(link, options=UploadOptions(chunk_bytes=chunk), faults=Faults(drop_requests=look))
    # Offsets take more bytes as they grow, which leaves less for the data.
    usual = {size for size in sizes if sizes.count(size) > 5}
    assert usual == {chunk} if chunk is not None else usual
    told = {event.speed.chunk_bytes for event in events[2:] if event.speed is not None}
    assert told == usual


def test_the_size_of_the_only_chunk() -> None:
    events: list[Event] = []

    async def main() -> None:
        device = device_with(buf_size=8192)
        async with Client(SimulatedTransport(device)) as client:
            await client.group(ImageGroup).upload(
                parse_image(build_image("1.1.0", payload_size=64)), progress=events.append
            )

    run(main())
    last = [event for event in events if isinstance(event, Bytes)][-1]
    assert last.speed is not None
    assert last.speed.chunk_bytes == last.total


def test_the_end_tells_the_whole() -> None:
    events = upload(DISTANT)
    speed = final(events)
    assert speed.left_s == 0
    assert speed.average == pytest.approx(NEW.size / events[-1].elapsed_s)
    assert speed.window == 3
    assert speed.retransmissions == 0
    assert speed.round_trip_s is not None
    assert speed.slow_round_trip_s is not None
    assert 0.021 <= speed.round_trip_s <= speed.slow_round_trip_s
    middle = events[len(events) // 2].speed
    assert middle is not None
    assert middle.left_s is not None
    assert middle.left_s == pytest.approx(events[-1].elapsed_s - events[len(events) // 2].elapsed_s, rel=0.3)


# -- downloads --------------------------------------------------------------------------------------------------------


class Reading:
    """One request of a download."""

    slow = False

    def __init__(self, command: SmpCommand[FileChunk]) -> None:
        self.command = command


class ReadPlan:
    """The reading of a file of `size` bytes from its beginning, one request after the other."""

    tail = needs_settling = False
    resumed_from = retransmissions = setbacks = stalls = 0
    least_bytes = 64

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.size = size
        self.message_bytes = 384
        self.done_bytes = 0
        self._asked = False

    @property
    def done(self) -> bool:
        return self.done_bytes >= self.size

    def next(self) -> Reading | None:
        if self._asked or self.done:
            return None
        self._asked = True
        return Reading(ReadFile(self.name, self.done_bytes))

    def answered(self, piece: Reading, result: FileChunk) -> None:
        self._asked = False
        self.done_bytes = result.offset + len(result.data)

    def refused(self, piece: Reading, error: DeviceError) -> bool:
        return False

    def doubt(self) -> None:
        raise AssertionError("not expected")

    def overtaken(self, piece: Reading) -> None:
        raise AssertionError("not expected")

    def lost(self, piece: Reading) -> None:
        raise AssertionError("not expected")


@pytest.mark.parametrize(
    ("model", "limited_by"),
    [
        # The answers are what takes the time on the line, not the requests.
        (LinkModel.uart(), Limit.LINK),
        (LinkModel(latency_s=0.01), Limit.BUFFERS),
    ],
)
def test_what_limits_a_download(model: LinkModel, limited_by: Limit) -> None:
    size, events = 40_000, list[Event]()

    async def main() -> None:
        device = device_with(fs=FsConfig(mounts=(FsMount.generated("/big", "file.bin", size),)))
        async with Client(SimulatedTransport(device, model)) as client:
            await client.params()
            plan = ReadPlan("/big/file.bin", size)
            window = window_for(client, 1)
            await transfer(client, plan, window, slow_s=lambda _: 5.0, progress=events.append, stage=StageName.DOWNLOAD)

    run(main())
    assert final([event for event in events if isinstance(event, Bytes)]).limited_by is limited_by
