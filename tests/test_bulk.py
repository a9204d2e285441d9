"""Uploads by the real client and image group to the simulated device, with every single packet lost in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from mcumgrx.client import Client
from mcumgrx.contracts import UploadOptions
from mcumgrx.errors import DeviceError, LinkLost, MalformedReply, RequestTimeout, UploadMismatch
from mcumgrx.events import Bytes, Event
from mcumgrx.link.profile import Learned, LinkProfile
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.message import encode_body
from mcumgrx.pause import Pause
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.header import Header, Op
from mcumgrx.sim.device import Answer, DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx.transport import Limits
from mcumgrx_plugins.image.group import ImageGroup
from tests.support.thinned import thinned

pytestmark = pytest.mark.codec

OLD = build_image("1.0.0", payload_size=4000, signed=False)
NEW = parse_image(build_image("1.1.0", payload_size=4000, signed=False))
CONFIG = DeviceConfig(slot_size=128 * 1024)
MESSAGES = 15  # of an undisturbed upload with these sizes: the buffer query, a probe, then the chunks


def device_with(config: DeviceConfig = CONFIG) -> SimulatedDevice:
    device = SimulatedDevice(config)
    device.install(OLD)
    return device


class Uploading:
    """One upload to a fresh device, and what was seen of it."""

    def __init__(
        self,
        faults: Faults | None = None,
        model: LinkModel | None = None,
        options: UploadOptions = UploadOptions(),
        device: SimulatedDevice | None = None,
    ) -> None:
        self.device = device or device_with()
        self.faults = faults or Faults()
        self.model = model
        self.options = options
        self.events: list[Event] = []
        self.opened = 0
        self.duration_s = 0.0

    def __call__(self) -> Uploading:
        run(self.upload())
        return self

    async def upload(self) -> None:
        loop = asyncio.get_running_loop()
        transport = SimulatedTransport(self.device, self.model, faults=self.faults)
        async with Client(transport) as client:
            begin = loop.time()
            await client.group(ImageGroup).upload(NEW, self.options, self.events.append)
            self.duration_s = loop.time() - begin
            state = await client.group(ImageGroup).state()
            assert NEW.hash is not None
            assert [slot.slot for slot in state.holding(NEW.hash)] == [1]


def test_an_upload_undisturbed() -> None:
    upload = Uploading()()
    assert upload.faults.requests == MESSAGES + 1  # and the image list at the end
    progress = [event for event in upload.events if isinstance(event, Bytes)]
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    assert (progress[-1].done, progress[-1].total) == (NEW.size, NEW.size)


LINKS = {
    "stream": LinkModel.ideal(),
    "datagram": LinkModel.datagram(),
    "console": LinkModel.uart(),
    "ble": LinkModel.ble(),
}


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(
    "fault",
    ["drop_requests", "drop_replies", "duplicate_requests", "duplicate_replies", "delay_requests", "delay_replies"],
)
def test_any_one_packet_may_go_wrong(fault: str, link: str, window: int) -> None:
    for position in thinned(range(1, MESSAGES + 1), fault, link, window):
        value: object = {position: 7.0} if fault.startswith("delay") else position
        starts = 0

        def count(number: int, message: bytes) -> bool:
            nonlocal starts
            header = Header.unpack(message)
            # The opening chunk alone carries the length; seen on its way, so copies made by the link count once.
            starts += (header.group, header.command, header.op) == (1, 1, Op.WRITE) and b"clen" in message[:32]
            return False

        faults = Faults(**{fault: value}, cut_at_request=count)  # type: ignore[arg-type]
        Uploading(faults, LINKS[link], UploadOptions(window=window))()
        assert starts <= 2, f"{fault} at {position}: a second upload"


def test_a_busy_device_is_asked_again() -> None:
    device = device_with()
    real, refusals = device.handle, [10, 2]

    def busy(message: bytes, now: float):  # type: ignore[no-untyped-def]
        header = Header.unpack(message)
        answer = real(message, now)
        if (header.group, header.command) == (1, 1) and refusals and header.sequence > 3:
            refused = build_message(
                header.op | 1, 1, 0, header.group, header.sequence, header.command, encode_body({"rc": refusals.pop()})
            )
            return Answer((refused,), answer.busy_s)
        return answer

    device.handle = busy  # type: ignore[method-assign]
    Uploading(device=device)()
    assert refusals == []


def answering(device: SimulatedDevice, change: Callable[[dict[str, Any], Header], dict[str, Any] | None]) -> None:
    """Pass the body of each answer to an upload through `change`; None loses the answer."""
    real = device.handle

    def handle(message: bytes, now: float) -> Answer:
        answer = real(message, now)
        header = Header.unpack(message)
        if (header.group, header.command) != (1, 1):
            return answer
        changed = []
        for one in answer.replies:
            body = change(cbor2.loads(one[8:]), header)
            if body is not None:
                head = Header.unpack(one)
                changed.append(build_message(head.op, 1, 0, head.group, head.sequence, head.command, encode_body(body)))
        return Answer(tuple(changed), answer.busy_s)

    device.handle = handle  # type: ignore[method-assign]


def test_a_check_of_the_device_that_fails_ends_the_upload_with_an_error() -> None:
    device = device_with(replace(CONFIG, image_check=True))
    answering(device, lambda body, header: dict(body, match=False) if "match" in body else body)
    with pytest.raises(UploadMismatch) as caught:
        Uploading(device=device)()
    assert caught.value.size == NEW.size


@pytest.mark.parametrize("link", LINKS)
def test_a_device_that_says_the_same_nonsense_again_and_again_is_not_asked_on_and_on(link: str) -> None:
    device, asked = device_with(), 0

    def nonsense(body: dict[str, Any], header: Header) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return {}

    answering(device, nonsense)
    with pytest.raises(MalformedReply, match="the device's answer to the image upload makes no sense: it lacks 'off'"):
        Uploading(model=LINKS[link], device=device)()
    assert asked <= 10


@pytest.mark.parametrize("offset", [NEW.size + 1, 2**32, -1, "text", None])
def test_one_answer_with_an_offset_that_cannot_be_is_asked_for_again(offset: object) -> None:
    device, answers = device_with(), []

    def change(body: dict[str, Any], header: Header) -> dict[str, Any]:
        answers.append(body)
        return dict(body, off=offset) if len(answers) == 4 else body

    answering(device, change)
    Uploading(device=device)()


def test_an_oversized_chunk_is_halved_until_it_arrives() -> None:
    # The link carries no message above 128 bytes, though the device says 384: what BLE without reassembly looks like.
    faults = Faults(drop_requests=lambda number, message: len(message) > 128)
    model = LinkModel(safe_message=100)
    upload = Uploading(faults, model, UploadOptions(erase_timeout_s=5.0))()
    assert upload.duration_s < 60


class Claiming(SimulatedTransport):
    """A link with writes of limited size, to a device that does not put them together, which the link cannot know."""

    @property
    def limits(self) -> Limits:
        return replace(super().limits, max_message=8 + 0xFFFF)


@pytest.mark.parametrize("interval_s", [0.0075, 0.03])
@pytest.mark.parametrize("pause_s", [0.0, 3.0])
def test_what_takes_two_writes_is_tried_once(interval_s: float, pause_s: float) -> None:
    large = parse_image(build_image("1.1.0", payload_size=96_000))
    device = device_with(replace(CONFIG, buf_size=2475))
    real, sizes = device.handle, list[int]()

    def handle(message: bytes, now: float) -> Answer:
        answer = real(message, now)
        header = Header.unpack(message)
        if (header.group, header.command) == (1, 1):
            sizes.append(len(message))
            if len(sizes) % 100 == 50:
                return Answer(answer.replies, pause_s or answer.busy_s)
        return answer

    device.handle = handle  # type: ignore[method-assign]
    events: list[Event] = []

    async def main() -> None:
        model = LinkModel.ble(247, interval_s, reassembles=False)
        async with Client(Claiming(device, model)) as client:
            await client.group(ImageGroup).upload(large, progress=events.append)

    run(main())
    last = [event for event in events if isinstance(event, Bytes)][-1]
    assert last.speed is not None
    assert last.speed.retransmissions <= 5 * (1 + 6 * bool(pause_s))
    # But for the last one, and where offsets take a byte more, each fills a write.
    assert sum(size < 240 for size in sizes) <= 2


def test_a_size_that_was_silent_for_once_is_used_all_the_same() -> None:
    learned, faults = Learned(), Faults(drop_requests={2, 3})
    upload_with(learned, LinkModel.uart(), faults=faults)
    assert (learned.message_bytes, learned.refused_bytes) == (380, None)


def test_silence_names_the_remedy() -> None:
    faults = Faults(drop_requests=lambda number, message: Header.unpack(message).group == 1)
    with pytest.raises(RequestTimeout, match="stuck at 0 %") as caught:
        Uploading(faults)()
    assert "--erase-timeout" in str(caught.value.hint)


def test_silence_in_the_middle_is_told_with_its_place() -> None:
    faults = Faults(drop_requests=lambda number, message: number > 8)
    with pytest.raises(RequestTimeout, match=r"stuck at \d\d %"):
        Uploading(faults)()


def test_a_refusal_ends_it() -> None:
    async def main() -> None:
        device = SimulatedDevice(DeviceConfig(slot_size=128 * 1024))
        device.install(OLD)
        async with Client(SimulatedTransport(device)) as client:
            group = client.group(ImageGroup)
            huge = parse_image(build_image("9.0.0", payload_size=200_000))
            with pytest.raises(DeviceError) as caught:
                await group.upload(huge)
            assert (caught.value.group, caught.value.rc) == (1, 30)
            assert await client.group(ImageGroup).state()

    run(main())


@pytest.mark.parametrize("position", range(2, MESSAGES + 1))
def test_an_upload_goes_on_after_a_lost_link(position: int) -> None:
    async def main() -> None:
        device = device_with()
        transport = SimulatedTransport(device, faults=Faults(cut_at_request=position))
        async with Client(transport) as client:
            with pytest.raises(LinkLost):
                await client.group(ImageGroup).upload(NEW)
        events: list[Event] = []
        async with Client(transport) as client:
            await client.group(ImageGroup).upload(NEW, progress=events.append)
            first = next(event for event in events if isinstance(event, Bytes))
            assert (first.resumed_from > 0) == (position > 5)  # what was in the air was lost with the link
            state = await client.group(ImageGroup).state()
            assert NEW.hash is not None
            assert state.holding(NEW.hash)

    run(main())


def test_a_cancelled_upload_can_be_resumed() -> None:
    async def main() -> None:
        device = device_with()
        async with Client(SimulatedTransport(device, LinkModel(latency_s=0.05))) as client:
            task = asyncio.create_task(client.group(ImageGroup).upload(NEW))
            await asyncio.sleep(0.7)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            events: list[Event] = []
            await client.group(ImageGroup).upload(NEW, progress=events.append)
            first = next(event for event in events if isinstance(event, Bytes))
            assert 0 < first.resumed_from < NEW.size

    run(main())


@pytest.mark.parametrize("window", [1, None])
def test_an_upload_is_held_and_goes_on(window: int | None) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        device = device_with()
        pause, events = Pause(), list[Event]()
        async with Client(SimulatedTransport(device, LinkModel(latency_s=0.05), faults=(faults := Faults()))) as client:
            options = UploadOptions(window=window, pause=pause)
            task = asyncio.create_task(client.group(ImageGroup).upload(NEW, options, events.append))
            await asyncio.sleep(0.7)
            pause.hold()
            await asyncio.sleep(0.2)  # what was in the air is answered
            asked = faults.requests
            await asyncio.sleep(300)
            assert faults.requests == asked
            assert not task.done()
            pause.resume()
            await task
            assert loop.time() > 300
            last = events[-1]
            assert isinstance(last, Bytes)
            assert (last.done, last.elapsed_s < 10) == (NEW.size, True)  # held time does not count
            assert last.speed is not None
            assert last.speed.retransmissions == 0

    run(main())


def test_an_upload_that_is_held_from_the_start_sends_nothing() -> None:
    async def main() -> None:
        pause = Pause()
        pause.hold()
        async with Client(SimulatedTransport(device_with(), faults=(faults := Faults()))) as client:
            task = asyncio.create_task(client.group(ImageGroup).upload(NEW, UploadOptions(pause=pause)))
            await asyncio.sleep(10)
            assert faults.requests == 2  # params and the probe
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert pause.listeners == []

    run(main())


# -- what is learned of a device --------------------------------------------------------------------------------------


def upload_with(
    learned: Learned,
    model: LinkModel,
    config: DeviceConfig = CONFIG,
    faults: Faults | None = None,
    options: UploadOptions = UploadOptions(),
    device: SimulatedDevice | None = None,
) -> tuple[float, list[int]]:
    """An upload to a fresh device by a client that knows so much of it: its seconds, and the sizes of all requests."""
    sizes: list[int] = []
    wanted = faults if faults is not None else Faults()
    drop = wanted.drop_requests

    def watch(number: int, message: bytes) -> bool:
        sizes.append(len(message))
        return callable(drop) and drop(number, message)

    wanted.drop_requests = watch

    async def main() -> float:
        loop = asyncio.get_running_loop()
        transport = SimulatedTransport(device or device_with(config), model, faults=wanted)
        async with Client(transport, profile=LinkProfile(learned=learned)) as client:
            begin = loop.time()
            await client.group(ImageGroup).upload(NEW, options)
            return loop.time() - begin

    return run(main()), sizes


SINGLE_WRITE = LinkModel.ble().limits.safe_message


def without_reassembly() -> Faults:
    """A device that puts no writes together, which the link cannot know."""
    return Faults(drop_requests=lambda number, message: len(message) > SINGLE_WRITE)


def test_what_a_device_refuses_is_found_out_once() -> None:
    learned = Learned()
    first_s, first = upload_with(learned, LinkModel.ble(), faults=without_reassembly())
    assert max(first) > SINGLE_WRITE
    assert (learned.message_bytes, learned.room_bytes) == (SINGLE_WRITE, CONFIG.buf_size)
    again_s, again = upload_with(learned, LinkModel.ble(), faults=without_reassembly())
    assert max(again) <= SINGLE_WRITE
    assert len(again) < len(first)
    assert again_s < first_s - 2.0  # two probes of a second each were waited for in vain
    assert learned.refuses(CONFIG.buf_size)


def test_other_buffers_are_tried_whatever_the_last_ones_refused() -> None:
    learned = Learned()
    upload_with(learned, LinkModel.ble(), faults=without_reassembly())
    larger = replace(CONFIG, buf_size=512)
    _, sizes = upload_with(learned, LinkModel.ble(), larger)
    assert max(sizes) == larger.buf_size
    assert (learned.message_bytes, learned.refused_bytes, learned.room_bytes) == (larger.buf_size, None, 512)


def test_a_size_that_arrived_and_does_no_longer_is_found_out_as_ever() -> None:
    learned = Learned(message_bytes=CONFIG.buf_size, room_bytes=CONFIG.buf_size)
    _, sizes = upload_with(learned, LinkModel.ble(), faults=without_reassembly())
    assert CONFIG.buf_size in sizes
    assert learned.message_bytes == SINGLE_WRITE
    assert learned.refuses(CONFIG.buf_size)


def test_a_device_that_says_nothing_has_refused_nothing() -> None:
    learned = Learned()
    with pytest.raises(RequestTimeout):
        upload_with(learned, LinkModel.ble(), faults=Faults(drop_requests=lambda number, message: number > 1))
    assert (learned.message_bytes, learned.refused_bytes) == (None, None)


def test_a_pause_is_not_taken_for_a_size_that_does_not_arrive() -> None:
    learned = Learned()
    lost = 0

    def pause(number: int, message: bytes) -> bool:
        nonlocal lost
        lost += number in range(9, 14)
        return number in range(9, 14)

    upload_with(learned, LinkModel.ble(), faults=Faults(drop_requests=pause))
    assert lost == 5
    assert (learned.message_bytes, learned.refused_bytes) == (CONFIG.buf_size, None)


# One buffer beside that for the answer: there is no room for a probe behind the opening chunk that has arrived.
NARROW = replace(CONFIG, buf_count=2)


def lost_opening(*, probes: bool = False) -> Faults:
    """The first opening chunk does not arrive; nor what is sent behind it, with `probes`."""
    seen: list[int] = []

    def first(number: int, message: bytes) -> bool:
        if b"clen" in message[:32]:
            seen.append(number)
            return len(seen) == 1
        return probes and len(seen) == 1

    return Faults(drop_requests=first)


def test_a_lost_opening_is_noticed_by_a_short_request_behind_it_even_where_there_is_one_buffer() -> None:
    seconds, _ = upload_with(Learned(), LinkModel.ble(), NARROW, lost_opening())
    assert seconds < 6.0  # most of it until the lost one cannot arrive any more


def test_if_that_is_lost_too_it_is_noticed_after_the_time_that_an_erase_takes() -> None:
    unknown_s, _ = upload_with(Learned(), LinkModel.ble(), NARROW, lost_opening(probes=True))
    assert unknown_s > 60.0
    known_s, _ = upload_with(Learned(erase_s=2.0), LinkModel.ble(), NARROW, lost_opening(probes=True))
    assert 8.0 < known_s < 12.0
    quick_s, _ = upload_with(Learned(erase_s=0.1), LinkModel.ble(), NARROW, lost_opening(probes=True))
    assert 5.0 < quick_s < 9.0
    options = UploadOptions(erase_timeout_s=20.0)
    shorter_s, _ = upload_with(Learned(erase_s=50.0), LinkModel.ble(), NARROW, lost_opening(probes=True), options)
    assert 20.0 < shorter_s < 24.0


def erasing(device: SimulatedDevice, seconds: float) -> SimulatedDevice:
    """`device`, which takes so long for the first opening chunk that it sees."""
    real, seen = device.handle, []

    def handle(message: bytes, now: float) -> Answer:
        answer = real(message, now)
        if Header.unpack(message).group == 1 and b"clen" in message[:32] and not seen:
            seen.append(now)
            return answer._replace(busy_s=seconds)
        return answer

    device.handle = handle  # type: ignore[method-assign]
    return device


@pytest.mark.parametrize("buffers", [2, 4])
@pytest.mark.parametrize("erase_s", [4.9, 5.0, 5.1, 12.0, 59.0, 100.0])
def test_an_erase_may_take_longer_than_ever(erase_s: float, buffers: int) -> None:
    """Whether or not the second opening finds a buffer, while the device works on the first."""
    config = replace(CONFIG, buf_count=buffers)
    unknown_s, _ = upload_with(Learned(), LinkModel.ble(), device=erasing(device_with(config), erase_s))
    learned = Learned(erase_s=0.1)
    seconds, _ = upload_with(learned, LinkModel.ble(), device=erasing(device_with(config), erase_s))
    assert erase_s < seconds < unknown_s + 0.2
    if erase_s < UploadOptions().erase_timeout_s:
        assert learned.erase_s == pytest.approx(erase_s, abs=0.5)


def test_a_device_that_one_request_more_harms_is_never_hurried() -> None:
    known_s, _ = upload_with(Learned(erase_s=0.1), LinkModel.uart(), NARROW, lost_opening())
    assert known_s > 60.0


@pytest.mark.parametrize("delay_s", [2.5, 4.0, 4.9])
def test_an_opening_that_comes_late_does_not_undo_the_upload(delay_s: float) -> None:
    """A network may hold it back until all is done; then the device begins anew, and erases."""
    upload = Uploading(Faults(delay_requests={3: delay_s}), LinkModel.datagram())()  # after params and the probe
    assert upload.duration_s > 5.0  # that it is in the device is believed only when nothing can come any more
    content = upload.device.flash.read(upload.device.bootloader.slots[1].offset, NEW.size)
    assert content == NEW.data
