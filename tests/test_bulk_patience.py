"""Uploads to devices that say "not yet", and with listeners that fail: patience is a matter of time, not of answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import cbor2
import pytest

from mcumgrx.client import Client
from mcumgrx.contracts import UploadOptions
from mcumgrx.errors import DeviceError, RequestTimeout, TransferStuck
from mcumgrx.events import Bytes, Event, Note, guarded
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.message import encode_body
from mcumgrx.pause import Pause
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.header import Header
from mcumgrx.sim.device import Answer, DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx_plugins.image.group import ImageGroup

OLD = build_image("1.0.0", payload_size=4000)
NEW = parse_image(build_image("1.1.0", payload_size=4000))
CONFIG = DeviceConfig(slot_size=128 * 1024)

Body = dict[str, Any]
Handler = Callable[[Body, float], Body | None]
"""What a device says to a chunk, at a time, instead of its own answer; None for that."""


def device_saying(handler: Handler) -> SimulatedDevice:
    device = SimulatedDevice(CONFIG)
    device.install(OLD)
    real = device.handle

    def handle(message: bytes, now: float) -> Answer:
        header = Header.unpack(message)
        if (header.group, header.command) == (1, 1) and (said := handler(cbor2.loads(message[8:]), now)) is not None:
            reply = build_message(header.op | 1, 1, 0, 1, header.sequence, 1, encode_body(said))
            return Answer((reply,), 0.001)
        return real(message, now)

    device.handle = handle  # type: ignore[method-assign]
    return device


def upload(
    device: SimulatedDevice,
    listener: Callable[[Event], object] = lambda event: None,
    model: LinkModel | None = None,
    options: UploadOptions = UploadOptions(),
) -> float:
    """Upload `NEW`; returns how long it took."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        async with Client(SimulatedTransport(device, model or LinkModel.uart())) as client:
            begin = loop.time()
            try:
                await client.group(ImageGroup).upload(NEW, options, listener)
            finally:
                taken[0] = loop.time() - begin
            state = await client.group(ImageGroup).state()
            assert NEW.hash is not None
            assert [slot.slot for slot in state.holding(NEW.hash)] == [1]
            return taken[0]

    taken = [0.0]
    device.__dict__["taken"] = taken
    return run(main())


class Holding:
    """The device does not take what would bring it beyond `at`, for `seconds`, and asks for it again and again."""

    def __init__(self, at: int, seconds: float) -> None:
        self.at = at
        self.seconds = seconds
        self.asked: list[float] = []

    def __call__(self, body: Body, now: float) -> Body | None:
        if body["off"] + len(body["data"]) <= self.at or (self.asked and now > self.asked[0] + self.seconds):
            return None
        self.asked.append(now)
        return {"off": body["off"]}


@pytest.mark.parametrize("seconds", [3, 12, 40])
@pytest.mark.parametrize("at", [0, 1000, NEW.size - 4])
@pytest.mark.parametrize("window", [1, None])
def test_a_device_that_holds_back_is_waited_for(at: int, seconds: float, window: int | None) -> None:
    events: list[Event] = []
    holding = Holding(at, seconds)
    taken = upload(device_saying(holding), events.append, options=UploadOptions(window=window))
    assert seconds < taken < 1.2 * seconds + 10
    assert len(holding.asked) < 40
    notes = [event.text for event in events if isinstance(event, Note)]
    assert len(notes) == 1
    assert "up to" in notes[0]


@pytest.mark.parametrize("at", [0, 1000])
def test_one_that_never_goes_on_is_given_up_after_a_minute(at: int) -> None:
    device = device_saying(Holding(at, 1e9))
    with pytest.raises(TransferStuck) as caught:
        upload(device)
    assert caught.value.hint is not None
    assert "erase" not in caught.value.hint
    assert 60 < device.__dict__["taken"][0] < 90


@pytest.mark.parametrize("code", [2, 10])
@pytest.mark.parametrize("begin", [0, 1000])
@pytest.mark.parametrize("seconds", [2, 9, 25])
def test_busy_and_no_memory_are_waited_for(code: int, begin: int, seconds: float) -> None:
    since: list[float] = []

    def busy(body: Body, now: float) -> Body | None:
        if body["off"] < begin or (since and now > since[0] + seconds):
            return None
        since.append(now)
        return {"rc": code}

    assert seconds < upload(device_saying(busy)) < 1.2 * seconds + 10
    assert len(since) < 30


def test_a_device_that_stays_busy_is_left_after_half_a_minute() -> None:
    device = device_saying(lambda body, now: {"rc": 10} if body["off"] > 1000 else None)
    with pytest.raises(DeviceError):
        upload(device)
    assert 30 < device.__dict__["taken"][0] < 45


def test_an_opening_chunk_that_is_never_answered_is_waited_for_twice_and_told() -> None:
    device, events = device_saying(lambda body, now: None), list[Event]()
    real = device.handle

    def handle(message: bytes, now: float) -> Answer:
        # At work on it for ever: what comes behind is not answered either.
        return Answer((), 1e6) if Header.unpack(message).group == 1 else real(message, now)

    device.handle = handle  # type: ignore[method-assign]
    with pytest.raises(RequestTimeout, match="stuck at 0 %") as caught:
        upload(device, events.append, LinkModel(latency_s=0.01))
    assert "--erase-timeout" in str(caught.value.hint)
    assert device.__dict__["taken"][0] >= 120
    notes = [event.text for event in events if isinstance(event, Note)]
    assert len(notes) == 1
    assert "erasing" in notes[0]
    assert "55 s" in notes[0]


class Mistake(Exception):
    pass


@pytest.mark.parametrize("kind", [Mistake, asyncio.CancelledError, GeneratorExit])
def test_a_listener_that_fails_changes_nothing(kind: type[BaseException], caplog: pytest.LogCaptureFixture) -> None:
    openings: list[float] = []
    told: list[Event] = []

    def listen(event: Event) -> None:
        told.append(event)
        raise kind

    device = device_saying(lambda body, now: openings.append(now) if body["off"] == 0 else None)
    with caplog.at_level(logging.WARNING):
        upload(device, listen)
    assert len(openings) == 1
    assert len(told) > 3
    assert len([record for record in caplog.records if "listener" in record.getMessage()]) == 1


def test_a_listener_is_called_outside_of_the_task_that_reads() -> None:
    tasks = set()

    def listen(event: Event) -> None:
        task = asyncio.current_task()
        tasks.add("none" if task is None else task.get_name())

    upload(device_saying(lambda body, now: None), listen)
    assert "mcumgrx client reader" not in tasks


def test_a_slow_listener_is_told_less_often_and_nothing_is_sent_again_for_it() -> None:
    blocked_s, told = 0.3, list[Bytes]()

    def listen(event: Event) -> None:
        if isinstance(event, Bytes):
            told.append(event)
            loop: Any = asyncio.get_running_loop()
            loop._jumping.now += blocked_s  # as a call that takes so long

    taken = upload(device_saying(lambda body, now: None), listen, LinkModel.uart(9600))
    assert blocked_s * len(told) < 0.2 * taken
    assert told[-1].done == NEW.size
    assert told[-1].speed is not None
    assert told[-1].speed.retransmissions == 0


def test_a_guard_is_put_on_once() -> None:
    once = guarded(lambda event: None)
    assert guarded(once) is once
    with pytest.raises(SystemExit):
        guarded(lambda event: exit(1))(Note("x"))


def test_a_pause_tells_all_that_listen() -> None:
    heard = []

    def fails() -> None:
        raise Mistake

    pause = Pause()
    pause.listeners += [fails, lambda: heard.append(pause.held)]
    pause.hold()
    pause.resume()
    assert heard == [True, False]


class TakesItsTime(SimulatedTransport):
    """A link that is quick, and never takes a message at once: it says later that it has taken it."""

    def offer(self, writes: Sequence[bytes]) -> bool:
        return False


@pytest.mark.parametrize("fault", ["drop_requests", "drop_replies"])
def test_no_loss_is_waited_for_as_on_the_slowest_link_where_one_is_quick(fault: str) -> None:
    """Each message of an upload is lost in turn; what each may take is what the options say, and not its bytes."""

    async def upload_with(faults: Faults) -> float:
        device = SimulatedDevice(CONFIG)
        device.install(OLD)
        loop = asyncio.get_running_loop()
        async with Client(TakesItsTime(device, LinkModel.ideal(), faults=faults), timeout_s=0.1) as client:
            begin = loop.time()
            await client.group(ImageGroup).upload(NEW, UploadOptions(erase_timeout_s=0.2))
            return loop.time() - begin

    counted = Faults()
    usual_s = run(upload_with(counted))
    for number in range(1, counted.requests):  # the last one may keep the device busy: it is waited for long
        assert run(upload_with(Faults(**{fault: number}))) < usual_s + 2, number  # type: ignore[arg-type]
