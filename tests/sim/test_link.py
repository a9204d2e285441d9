"""Links to the simulated device: the transport contract, timing, faults, buffers, and any cut of the bytes."""

from __future__ import annotations

import asyncio
import gc
import math
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.client import Client
from mcumgrx.errors import ConnectFailed, DeviceError, DeviceNotFound, LinkLost, McumgrError, RequestTimeout, UsageError
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.message import Fields, SmpCommand
from mcumgrx.messages.standard import Echo, EraseImage, ReadImageState, Reset
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.framing import StreamFraming
from mcumgrx.protocol.header import Op
from mcumgrx.sim.device import DeviceConfig, Power, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.groups import Call, GroupServer, HandlerFailed
from mcumgrx.sim.images import build_image
from mcumgrx.sim.inputs import ALL_OPS
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport, runner_of
from mcumgrx.sim.loop import VirtualTimeLoop, run

from ..support.simulated import virtual

pytestmark = pytest.mark.codec

CONFIG = DeviceConfig(slot_size=64 * 1024, request_s=0.0, boot_s=1.0)
IMAGE = build_image("1.0.0", payload_size=2_000)


def new_device(config: DeviceConfig = CONFIG, image: bytes = IMAGE, name: str = "") -> SimulatedDevice:
    device = SimulatedDevice(config, name=name)
    device.install(image)
    return device


def request(text: str = "x", sequence: int = 0) -> bytes:
    return build_message(Op.WRITE, 1, 0, 0, sequence, 0, cbor2.dumps({"d": text}))


def now() -> float:
    return asyncio.get_running_loop().time()


MODELS = {
    "ideal": LinkModel.ideal(),
    "ble": LinkModel.ble(),
    "ble with the smallest mtu": LinkModel.ble(mtu=23),
    "uart": LinkModel.uart(),
    "raw uart": LinkModel.uart(raw=True),
    "datagram": LinkModel.datagram(),
}


# -- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@virtual
async def test_a_client_works_over_every_link(name: str) -> None:
    transport = SimulatedTransport(new_device(), MODELS[name])
    for _ in range(2):
        async with Client(transport) as client:
            assert await client.request(Echo("hello")) == "hello"
            long = "x" * 200
            assert await client.request(Echo(long)) == long
            assert (await client.request(ReadImageState())).slots[0].version == "1.0.0"


@virtual
async def test_closing_ends_a_waiting_receive_and_is_harmless_when_repeated() -> None:
    transport = SimulatedTransport(new_device())
    await transport.close()
    await transport.open(1.0)
    receiving = asyncio.create_task(transport.receive())
    await asyncio.sleep(1)
    await transport.close()
    await transport.close()
    with pytest.raises(LinkLost, match="closed"):
        await receiving
    for use in (transport.receive(), transport.send([b"x" * 8])):
        with pytest.raises(LinkLost):
            await use
    await transport.open(1.0)
    await transport.send([request()])
    assert await transport.receive()


@virtual
async def test_a_link_that_was_never_open_is_lost() -> None:
    transport = SimulatedTransport(new_device())
    with pytest.raises(LinkLost, match="not open"):
        await transport.receive()
    assert transport.queued_s() == 0.0


@virtual
async def test_a_cancelled_receive_loses_nothing() -> None:
    transport = SimulatedTransport(new_device(), replace(LinkModel.ideal(), latency_s=0.5))
    await transport.open(1.0)
    await transport.send([request()])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.9):
            await transport.receive()
    assert await transport.receive()
    assert now() == pytest.approx(1.0)


@virtual
async def test_a_cut_wakes_the_receiver_at_once_and_for_good() -> None:
    transport = SimulatedTransport(new_device(), replace(LinkModel.ideal(), latency_s=5.0))
    await transport.open(1.0)
    await transport.send([request()])
    receiving = asyncio.create_task(transport.receive())
    await asyncio.sleep(1)
    transport.cut("the cable was pulled")
    with pytest.raises(LinkLost, match="pulled"):
        await receiving
    with pytest.raises(LinkLost, match="pulled"):
        await transport.receive()
    with pytest.raises(LinkLost, match="pulled"):
        await transport.send([request()])
    assert now() == 1.0
    # What was on its way is not delivered to the next connection.
    await transport.open(1.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(60):
            await transport.receive()


@virtual
async def test_identity_is_that_of_a_named_device() -> None:
    assert SimulatedTransport(new_device()).identity is None
    assert SimulatedTransport(new_device(name="desk")).identity == "sim:desk"


def test_models_that_cannot_be() -> None:
    with pytest.raises(UsageError):
        LinkModel(bytes_per_s=0)
    with pytest.raises(UsageError):
        LinkModel(write_bytes=7)


def test_nothing_is_left_behind_when_a_test_fails_with_the_link_open() -> None:
    async def main() -> None:
        transport = SimulatedTransport(new_device(), LinkModel.ble())
        client = Client(transport)
        await client.open()
        asking = asyncio.create_task(client.request(EraseImage()))
        await asyncio.sleep(0.01)
        assert not asking.done()
        raise ValueError("the test failed")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="the test failed"):
            run(main())
        gc.collect()


def test_it_works_in_a_real_loop_too() -> None:
    async def main() -> str:
        async with Client(SimulatedTransport(new_device(replace(CONFIG, timing=INSTANT)))) as client:
            return await client.request(Echo("real"))

    assert asyncio.run(main()) == "real"


def test_a_device_can_go_from_one_loop_to_the_next() -> None:
    device = new_device()

    async def reset() -> None:
        async with Client(SimulatedTransport(device)) as client:
            await asyncio.sleep(100)
            await client.request(Reset())

    async def wait() -> float:
        async with Client(SimulatedTransport(device)) as client:
            await client.wait_lost()
        async with Client(SimulatedTransport(device)):
            return now()

    run(reset())
    assert run(wait()) == pytest.approx(0.25 + 1.0)


# -- resets -----------------------------------------------------------------------------------------------------------


@virtual
async def test_a_reset_drops_the_link_and_opening_waits_for_the_device() -> None:
    device = new_device()
    async with Client(SimulatedTransport(device)) as client:
        await client.request(Reset())
        lost = await client.wait_lost()
        assert "reset" in str(lost)
        assert now() == pytest.approx(0.25)
    async with Client(SimulatedTransport(device)) as client:
        assert now() == pytest.approx(1.25)
        assert await client.request(Echo("back")) == "back"


@virtual
async def test_a_lost_radio_link_is_noticed_late() -> None:
    model = replace(LinkModel.ble(), notice_s=0.42)
    async with Client(SimulatedTransport(new_device(), model)) as client:
        await client.request(Reset())
        begin = now()
        await client.wait_lost()
        assert now() - begin == pytest.approx(0.25 + 0.42, abs=0.1)


@virtual
async def test_a_request_to_a_link_that_is_dead_but_not_noticed_is_lost() -> None:
    device = new_device(replace(CONFIG, boot_s=0.0))
    transport = SimulatedTransport(device, replace(LinkModel.ideal(), notice_s=5.0))
    async with Client(transport) as client:
        await client.request(Reset())
        await asyncio.sleep(1)
        assert device.power is Power.RUNNING
        assert client.connected
        with pytest.raises(LinkLost):
            await client.request(Echo("hello?"), timeout_s=60)


@pytest.mark.parametrize("name", ["uart", "datagram"])
@virtual
async def test_other_links_stay_open_through_a_reset(name: str) -> None:
    async with Client(SimulatedTransport(new_device(), MODELS[name])) as client:
        await client.request(Reset())
        await asyncio.sleep(0.5)
        with pytest.raises(RequestTimeout):
            await client.request(Echo("?"), timeout_s=0.3, repeats=0)
        await asyncio.sleep(1.0)
        assert await client.request(Echo("back")) == "back"


@virtual
async def test_opening_a_device_that_does_not_come_up() -> None:
    device = new_device(replace(CONFIG, boot_s=60.0))
    transport = SimulatedTransport(device)
    async with Client(transport) as client:
        await client.request(Reset())
        await client.wait_lost()
    with pytest.raises(ConnectFailed, match="still starting after 5 s"):
        await transport.open(5.0)
    await transport.open(60.0)
    assert now() == pytest.approx(60.25)
    await transport.close()
    # The crashed one comes up, and goes down, for ever.
    crashing = new_device(replace(CONFIG, boot_s=0.0), build_image("1.0.0", payload_size=100, health="crash"))
    with pytest.raises(DeviceNotFound, match="crashed"):
        await SimulatedTransport(crashing).open(5.0)
    with pytest.raises(DeviceNotFound, match="no image"):
        await SimulatedTransport(SimulatedDevice(CONFIG)).open(5.0)
    slow = SimulatedTransport(new_device(), replace(LinkModel.ideal(), connect_s=9.0))
    with pytest.raises(ConnectFailed, match="within 5 s"):
        await slow.open(5.0)


@virtual
async def test_programming_an_open_device_restarts_it() -> None:
    device = new_device()
    async with Client(SimulatedTransport(device)) as client:
        device.install(build_image("2.0.0", payload_size=100))
        await client.wait_lost()
    async with Client(SimulatedTransport(device)) as client:
        assert (await client.request(ReadImageState())).slots[0].version == "2.0.0"


@virtual
async def test_a_console_shows_the_start() -> None:
    texts: list[str] = []
    transport = SimulatedTransport(new_device(), LinkModel.uart())
    client = Client(transport, on_text=texts.append)
    await client.open()
    assert (transport.quiet_after_reset_s, transport.silent_boot) == (3.0, True)
    await client.request(Reset())
    await asyncio.sleep(5)
    assert "".join(texts).splitlines() == ["*** Booting MCUboot ***", "*** Booting Zephyr OS, application 1.0.0 ***"]
    assert await client.request(Echo("x")) == "x"
    await client.close()


# -- time -------------------------------------------------------------------------------------------------------------


@virtual
async def test_latency_and_speed_add_up() -> None:
    model = LinkModel(latency_s=0.1, bytes_per_s=100.0)
    transport = SimulatedTransport(new_device(), model)
    await transport.open(1.0)
    message = request("x" * 30)
    await transport.send([message])
    assert now() == pytest.approx(len(message) / 100), "the link has taken it once it is sent"
    reply = await transport.receive()
    assert now() == pytest.approx((len(message) + len(reply)) / 100 + 0.2)


@virtual
async def test_what_the_host_takes_ahead_is_estimated() -> None:
    transport = SimulatedTransport(new_device(), LinkModel(bytes_per_s=100.0, queue_s=10.0))
    await transport.open(1.0)
    for _ in range(2):
        await transport.send([request("x" * 30)])
    assert now() == 0.0
    size = len(request("x" * 30))
    assert transport.queued_s() == pytest.approx(2 * size / 100)
    await asyncio.sleep(0.5)
    assert transport.queued_s() == pytest.approx(2 * size / 100 - 0.5)
    await asyncio.sleep(10)
    assert transport.queued_s() == 0.0


@virtual
async def test_an_erase_blocks_the_device() -> None:
    device = new_device()
    device.install(IMAGE, slot=1)
    async with Client(SimulatedTransport(device), in_flight=2) as client:
        erasing = asyncio.create_task(client.request(EraseImage()))
        await asyncio.sleep(0.1)
        assert await client.request(Echo("waits its turn")) == "waits its turn"
        assert erasing.done()
        assert now() == pytest.approx(16 * 0.085)


# -- sizes and buffers ------------------------------------------------------------------------------------------------


def test_limits_are_those_of_the_link() -> None:
    assert LinkModel.ble(mtu=100).limits.write == 97
    assert LinkModel.ble(mtu=100).limits.message(384) == 384
    assert LinkModel.ble(mtu=100, reassembles=False).limits.message(384) == 97
    assert LinkModel.ble(mtu=100).limits.message(None) == 97
    assert LinkModel.uart().limits.message(384) == 380
    assert LinkModel.uart().limits.safe_message < 128
    assert LinkModel.datagram().limits.message(2048) == 1472


@virtual
async def test_a_device_that_does_not_reassemble_loses_long_messages() -> None:
    for reassembles in (True, False):
        model = LinkModel.ble(mtu=60, reassembles=reassembles)
        transport = SimulatedTransport(new_device(), model)
        await transport.open(1.0)
        await transport.send(transport.framing().encode(request("x" * 100), 57))
        if reassembles:
            assert await transport.receive()
        else:
            # The first fragment claims more than it holds; the others are no headers that make sense.
            reply = await transport.receive()
            assert reply[8:] == bytes.fromhex("bf62726309ff")


@virtual
async def test_a_write_too_long_for_the_link_is_a_mistake() -> None:
    transport = SimulatedTransport(new_device(), LinkModel.ble(mtu=23))
    await transport.open(1.0)
    with pytest.raises(ValueError, match="20 bytes"):
        await transport.send([b"x" * 21])


@pytest.mark.parametrize("buf_count", [2, 4, 6])
@virtual
async def test_requests_that_find_no_buffer_are_lost_and_the_others_keep_their_order(buf_count: int) -> None:
    device = new_device(replace(CONFIG, buf_count=buf_count, request_s=0.1))
    transports = [SimulatedTransport(device) for _ in range(2)]
    for transport in transports:
        await transport.open(1.0)
    for sequence in range(10):
        await transports[sequence % 2].send([request(sequence=sequence)])
    answered = []
    for transport in transports:
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                while True:
                    answered.append((await transport.receive())[6])
        await transport.close()
    # All transports share the pool: one request being answered takes two buffers, each that waits takes one.
    assert sorted(answered) == list(range(buf_count - 1))
    assert runner_of(device).lost == 10 - (buf_count - 1)


def at_once(model: LinkModel) -> LinkModel:
    """The same without a baud rate, as a pseudo-terminal or USB is."""
    return replace(model, bytes_per_s=None)


async def burst(transport: SimulatedTransport, count: int, text: str = "x", gap_s: float = 0.0) -> list[str]:
    """What comes back to `count` requests, sent at once or `gap_s` apart: their number, or an error code behind it."""
    await transport.open(1.0)
    framing = transport.framing()
    for number in range(count):
        await transport.send(framing.encode(request(text, number)))
        if gap_s:
            await asyncio.sleep(gap_s)
    found = []
    with suppress(TimeoutError, LinkLost):
        async with asyncio.timeout(30):
            while True:
                for message in framing.feed(await transport.receive()):
                    code = cbor2.loads(message[6]).get("rc")
                    found.append(f"{message[4]}" if code is None else f"{message[4]} rc {code}")
    await transport.close()
    return found


@pytest.mark.parametrize("buf_count", [2, 4, 6])
@pytest.mark.parametrize("raw", [False, True])
@virtual
async def test_a_serial_server_crashes_where_others_lose_a_request(buf_count: int, raw: bool) -> None:
    model = at_once(LinkModel.uart(raw=raw))
    config = replace(CONFIG, buf_count=buf_count, line_count=None, request_s=0.01)
    for count in range(1, buf_count + 2):
        device = new_device(config)
        expected = [str(number) for number in range(count)]
        if count == buf_count:
            expected[0] = "0 rc 2"
        if count > buf_count:
            expected = []
        assert await burst(SimulatedTransport(device, model), count) == expected
        assert device.crashes == (count > buf_count)
        # One that crashed has been reset by its watchdog.
        assert device.boots == 1 + (count > buf_count)
        assert await burst(SimulatedTransport(device, model), 1) == ["0"]


@virtual
async def test_what_was_refused_for_want_of_a_buffer_was_not_executed() -> None:
    device = new_device(replace(CONFIG, line_count=None))
    transport = SimulatedTransport(device, at_once(LinkModel.uart()))
    await burst(transport, 4)
    assert device.requests == 3


@virtual
async def test_a_serial_server_that_is_busy_crashes_earlier() -> None:
    """The request being carried out and its answer take two buffers."""
    device = new_device(replace(CONFIG, request_s=1.0))
    transport = SimulatedTransport(device, LinkModel.uart())
    assert await burst(transport, 3, gap_s=0.1) == ["0", "1", "2"]
    assert device.crashes == 0
    assert await burst(transport, 4, gap_s=0.1) == []
    assert device.crashes == 1


@virtual
async def test_a_slow_wire_overruns_nothing() -> None:
    device = new_device(replace(CONFIG, request_s=0.001))
    assert len(await burst(SimulatedTransport(device, LinkModel.uart()), 20, "x" * 200)) == 20
    assert (device.crashes, runner_of(device).lost_lines) == (0, 0)


@pytest.mark.parametrize("model", [LinkModel.uart(), LinkModel.uart(raw=True), LinkModel.shell(), LinkModel.ble()])
@virtual
async def test_a_program_that_stands_still_overruns_nothing(model: LinkModel) -> None:
    """What was to come bit by bit meanwhile comes late, in the same order, and finds the device as it would have."""
    device = new_device(replace(CONFIG, request_s=0.001))
    transport = SimulatedTransport(device, replace(model, queue_s=10.0))
    await transport.open(1.0)
    framing = transport.framing()
    for number in range(8):
        await transport.send(framing.encode(request("x" * 50, number)))
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop._jumping.now += 1.0
    found = []
    while len(found) < 8:
        found += [message[4] for message in framing.feed(await transport.receive())]
    assert found == list(range(8))
    assert (device.crashes, runner_of(device).lost, runner_of(device).lost_lines) == (0, 0, 0)


@virtual
async def test_datagrams_that_find_no_buffer_are_lost_in_silence() -> None:
    device = new_device(replace(CONFIG, buf_count=2, request_s=0.001))
    close = replace(LinkModel.datagram(), gap_s=0.0006)
    assert await burst(SimulatedTransport(device, LinkModel.datagram()), 3) == ["0"]
    assert await burst(SimulatedTransport(device, close), 5) == ["0", "2", "4"], "every other one"
    apart = replace(LinkModel.datagram(), gap_s=0.0011)
    assert await burst(SimulatedTransport(device, apart), 5) == ["0", "1", "2", "3", "4"]


@virtual
async def test_a_datagram_longer_than_the_servers_buffer_is_cut() -> None:
    device = new_device(replace(CONFIG, buf_size=2048))
    for size, expected in ((1500, ["0"]), (1501, ["0 rc 9"])):
        text = "x" * (size - len(request("x" * 300)) + 300)
        assert await burst(SimulatedTransport(device, LinkModel.datagram()), 1, text) == expected


@pytest.mark.parametrize("model", [LinkModel.uart(), LinkModel.shell()])
@virtual
async def test_a_burst_overruns_the_line_buffers(model: LinkModel) -> None:
    device = new_device(replace(CONFIG, buf_count=20, line_s=0.001))
    burst_of = at_once(model)
    assert await burst(SimulatedTransport(device, burst_of), 2) == ["0", "1"]
    assert await burst(SimulatedTransport(device, burst_of), 8) == ["0", "1"]
    # A message of three lines never arrives in one piece, one of two does.
    assert await burst(SimulatedTransport(device, burst_of), 1, "x" * 150) == ["0"]
    assert await burst(SimulatedTransport(device, burst_of), 1, "x" * 250) == []
    # What follows is taken again.
    assert await burst(SimulatedTransport(device, burst_of), 1) == ["0"]
    # At 1 Mbaud a line takes 1.3 ms, and the buffers are empty in time.
    fast = replace(model, bytes_per_s=100_000)
    assert await burst(SimulatedTransport(device, fast), 2, "x" * 250) == ["0", "1"]
    assert runner_of(device).lost_lines == 6 + 1


@virtual
async def test_more_line_buffers_take_more_lines() -> None:
    model = at_once(LinkModel.uart())
    for count, expected in ((4, ["0"]), (None, ["0"]), (3, ["0"]), (2, []), (1, [])):
        assert await burst(SimulatedTransport(new_device(replace(CONFIG, line_count=count)), model), 1, "x" * 200) == (
            expected
        )


@virtual
async def test_lines_that_a_server_does_not_take() -> None:
    (frame,) = LinkModel.uart().framing().encode(request())
    for written, count in ((frame, 1), (b"\n" + frame, 1), (frame[:-1] + b"\r\n", 1), (b"> " + frame, 0)):
        transport = SimulatedTransport(new_device(), LinkModel.uart())
        await transport.open(1.0)
        await transport.send([written])
        await transport.send([b"\n"])
        await asyncio.sleep(1)
        assert transport.device.requests == count
        await transport.close()
    # One that is longer than its buffer is lost whole.
    for size, count in ((128, 1), (129, 0)):
        transport = SimulatedTransport(new_device(), LinkModel.uart())
        await transport.open(1.0)
        await transport.send([frame[:-1] + b" " * (size - len(frame)) + b"\n"])
        await asyncio.sleep(1)
        assert transport.device.requests == count
        await transport.close()


@virtual
async def test_console_framing_needs_four_bytes_of_the_buffer() -> None:
    config = replace(CONFIG, buf_size=300)
    text = "x" * (296 - len(request("x" * 260)) + 260)
    assert await burst(SimulatedTransport(new_device(config), LinkModel.uart()), 1, text[:-1]) == ["0"]
    assert await burst(SimulatedTransport(new_device(config), LinkModel.uart()), 1, text + "x") == []
    assert await burst(SimulatedTransport(new_device(config), LinkModel.uart(raw=True)), 1, text + "x") == ["0"]


@virtual
async def test_a_shell_takes_what_follows_text_for_more_of_it() -> None:
    (frame,) = LinkModel.shell().framing().encode(request())
    first, second = LinkModel.shell().framing().encode(request("x" * 120))[0].splitlines(keepends=True)
    for writes, count in (
        ([frame], 1),
        ([b"\r\n" + frame], 0),
        ([b"kernel uptime\r\n" + frame], 0),
        ([frame + b"kernel uptime\r\n"], 1),
        ([first + second], 1),
        ([first, second], 1),
        ([first + b"\r\n" + second], 0),
    ):
        transport = SimulatedTransport(new_device(), LinkModel.shell())
        await transport.open(1.0)
        await transport.send(writes)
        await asyncio.sleep(1)
        assert transport.device.requests == count, writes
        await transport.close()
    for pause_s, count in ((0.005, 0), (0.1, 1)):
        transport = SimulatedTransport(new_device(), LinkModel.shell())
        await transport.open(1.0)
        await transport.send([b"kern"])
        await asyncio.sleep(pause_s)
        await transport.send([frame])
        await asyncio.sleep(1)
        assert transport.device.requests == count
        await transport.close()


# -- a link that is offered to others ---------------------------------------------------------------------------------


class Outlet:
    """A link whose device answers into `found`: sequence numbers, with the error code where there is one."""

    def __init__(self, device: SimulatedDevice, model: LinkModel) -> None:
        self.transport = SimulatedTransport(device, model)
        self.framing = self.transport.framing()
        self.found: list[str] = []

    async def open(self) -> None:
        await self.transport.open(1.0)
        self.transport.lead_out(self._take)

    def put(self, *numbers: int) -> float:
        return self.transport.put(b"".join(b"".join(self.framing.encode(request("x", number))) for number in numbers))

    def _take(self, chunk: bytes) -> None:
        for message in self.framing.feed(chunk):
            code = cbor2.loads(message[6]).get("rc")
            self.found.append(f"{message[4]}" if code is None else f"{message[4]} rc {code}")


NO_TIME = [
    LinkModel.ideal(),
    LinkModel.datagram(0.0),
    at_once(LinkModel.uart()),
    at_once(LinkModel.uart(raw=True)),
    at_once(LinkModel.shell()),
]


@pytest.mark.parametrize("model", NO_TIME)
@virtual
async def test_what_takes_no_time_has_happened_when_put_returns(model: LinkModel) -> None:
    link = Outlet(new_device(replace(CONFIG, line_s=0.0)), model)
    await link.open()
    for number in range(20):
        assert link.put(number) == 0.0
    assert link.found == [f"{number}" for number in range(20)]
    assert now() == 0.0
    link.transport.cut("the cable was pulled")
    with pytest.raises(LinkLost, match="pulled"):
        link.put(1)
    with pytest.raises(LinkLost, match="pulled"):
        await link.transport.receive()


@pytest.mark.parametrize("model", NO_TIME)
@virtual
async def test_nobody_hears_back_from_within_send(model: LinkModel) -> None:
    link = Outlet(new_device(), model)
    await link.open()
    await link.transport.send(link.framing.encode(request("x", 1)))
    assert link.found == []
    assert link.put(2) == 0.0  # behind what is on its way already
    assert link.found == []
    await asyncio.sleep(1)
    assert link.found == ["1", "2"]


@virtual
async def test_put_tells_how_far_a_slow_link_is_behind() -> None:
    link = Outlet(new_device(), replace(LinkModel.uart(), queue_s=0.0))
    await link.open()
    frame_s = len(link.framing.encode(request())[0]) / 11520
    assert link.put(1) == pytest.approx(frame_s)
    assert link.put(2) == pytest.approx(2 * frame_s)
    assert link.found == []
    await asyncio.sleep(1)
    assert link.found == ["1", "2"]


@virtual
async def test_what_a_serial_server_is_given_at_once_is_there_before_the_first_is_taken_up() -> None:
    config = replace(CONFIG, line_count=None)
    for count, expected in ((3, ["0", "1", "2"]), (4, ["0 rc 2", "1", "2", "3"]), (5, [])):
        device = new_device(config)
        link = Outlet(device, at_once(LinkModel.uart()))
        await link.open()
        link.put(*range(count))
        assert (link.found, device.crashes) == (expected, count == 5)


@virtual
async def test_datagrams_find_a_buffer_where_a_request_takes_no_time() -> None:
    model = LinkModel.datagram()
    for request_s, expected in ((0.0, ["0", "1", "2", "3", "4"]), (1e-6, ["0"])):
        device = new_device(replace(CONFIG, buf_count=2, request_s=request_s))
        assert await burst(SimulatedTransport(device, model), 5) == expected
        assert runner_of(device).lost == 5 - len(expected)


# -- faults -----------------------------------------------------------------------------------------------------------


async def echoes(client: Client, count: int) -> list[str]:
    results = []
    for number in range(1, count + 1):
        try:
            results.append(await client.request(Echo(str(number)), timeout_s=1.0, repeats=0))
        except (RequestTimeout, LinkLost) as error:
            results.append(type(error).__name__)
    return results


@pytest.mark.parametrize(
    ("faults", "expected", "handled"),
    [
        (Faults(), ["1", "2", "3"], 3),
        (Faults(drop_requests=2), ["1", "RequestTimeout", "3"], 2),
        (Faults(drop_replies={1, 2}), ["RequestTimeout", "RequestTimeout", "3"], 3),
        (Faults(duplicate_requests=1), ["1", "2", "3"], 4),
        (Faults(duplicate_replies=lambda number, message: number == 1), ["1", "2", "3"], 3),
        (Faults(delay_requests={1: 1.5}), ["RequestTimeout", "2", "3"], 2),
        (Faults(delay_replies={2: 7.0}), ["1", "RequestTimeout", "3"], 3),
        (Faults(cut_at_request=2), ["1", "LinkLost", "LinkLost"], 1),
        (Faults(cut_at_reply=range(2, 9)), ["1", "LinkLost", "LinkLost"], 2),
        (Faults(drop_requests=lambda number, message: message.endswith(b"2")), ["1", "RequestTimeout", "3"], 2),
    ],
)
@pytest.mark.parametrize("model", [LinkModel.ideal(), LinkModel.uart()])
def test_faults(faults: Faults, expected: list[str], handled: int, model: LinkModel) -> None:
    device = new_device()
    mine = replace(faults)  # the parameters are shared by all runs, and faults count

    async def main() -> None:
        async with Client(SimulatedTransport(device, model, faults=mine)) as client:
            assert await echoes(client, 3) == expected

    run(main())
    assert device.requests == handled


@virtual
async def test_faults_count_over_all_connections() -> None:
    faults = Faults(cut_at_request={1, 3})
    transport = SimulatedTransport(new_device(), faults=faults)
    results = []
    for _ in range(4):
        async with Client(transport) as client:
            results += await echoes(client, 1)
    assert results == ["LinkLost", "1", "LinkLost", "1"]
    assert (faults.requests, faults.replies) == (4, 2)


# -- any cut gives the same answers -----------------------------------------------------------------------------------

UPLOAD = build_image("1.1.0", payload_size=600)
CHUNKS = [{"off": at, "len": len(UPLOAD), "data": UPLOAD[at:][:200]} for at in range(0, len(UPLOAD), 200)]
STREAM = b"".join(
    [
        request("first"),
        *(build_message(2, 1, 0, 1, number, 1, cbor2.dumps(chunk)) for number, chunk in enumerate(CHUNKS)),
        build_message(0, 1, 0, 1, 90, 0, b"\xa0"),
        build_message(2, 1, 0, 1, 91, 0, cbor2.dumps({"hash": parse_image(UPLOAD).hash})),
        build_message(4, 1, 0, 0, 92, 0, b"\xa0"),
        build_message(0, 0, 0, 99, 93, 0, b"\xa0"),
        build_message(2, 1, 0, 0, 94, 0, b""),
    ]
)


def answers(cuts: list[int]) -> list[bytes]:
    device = new_device(replace(CONFIG, timing=INSTANT))
    framing = StreamFraming(ops=ALL_OPS)
    found: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(STREAM)], strict=True):
        for message in framing.feed(STREAM[start:end]):
            found += device.handle(build_message(*message), 0.0).replies
    assert framing.discarded == 0
    return found


WHOLE = answers([])


@given(st.lists(st.integers(0, len(STREAM)), max_size=40).map(sorted))
def test_any_cut_of_the_requests_gives_the_same_answers(cuts: list[int]) -> None:
    assert answers(cuts) == WHOLE


def test_requests_byte_by_byte_give_the_same_answers() -> None:
    assert len(WHOLE) == 6 + len(CHUNKS)
    assert answers(list(range(1, len(STREAM)))) == WHOLE


def several(model: LinkModel) -> bytes:
    """Five requests, of one to three lines, as they are written to this link."""
    framing = model.framing()
    sizes = (1, 40, 90, 200, 3)
    return b"".join(b"".join(framing.encode(request("x" * size, number))) for number, size in enumerate(sizes))


@pytest.mark.parametrize("raw", [False, True])
@given(cuts=st.lists(st.integers(0, 1000), max_size=30).map(sorted))
def test_any_cut_of_what_is_written_to_a_uart_gives_the_same_answers(raw: bool, cuts: list[int]) -> None:
    """As bytes come from a pseudo-terminal or a socket, when somebody else's client is at its other end."""
    model = LinkModel.uart(raw=raw)
    stream = several(model)

    async def main() -> list[int]:
        transport = SimulatedTransport(new_device(replace(CONFIG, request_s=0.001)), model)
        await transport.open(1.0)
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            if stream[start:end]:
                await transport.send([stream[start:end]])
        framing = transport.framing()
        found: list[int] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while True:
                    found += [message[4] for message in framing.feed(await transport.receive())]
        await transport.close()
        return found

    assert run(main()) == [0, 1, 2, 3, 4]


# --- mistakes of the device itself -----------------------------------------------------------------------------------


class Vendor(GroupServer):
    """A group as a plugin's author would write it for tests, with whatever `handler` does."""

    group = 70
    name = "vendor"

    def __init__(self, handler: Callable[[Call], Any], restarted: Callable[[], None] = lambda: None) -> None:
        super().__init__({(Op.READ, 0): handler})
        self.at_restart = restarted

    def restarted(self) -> None:
        self.at_restart()


@dataclass(frozen=True)
class AskVendor(SmpCommand[dict[str, Any]], group=70, number=0, repeatable=True):
    value: Any = 1.5

    def body(self) -> dict[str, Any]:
        return {"val": self.value, "none": None}

    def parse(self, fields: Fields) -> dict[str, Any]:
        return dict(fields.extra())


def broken(call: Call) -> Any:
    return {"v": {}["missing"]}


def ask_vendor(handler: Callable[[Call], Any], value: Any = 1.5) -> dict[str, Any]:
    device = new_device()
    device.add_group(Vendor(handler))

    async def main() -> dict[str, Any]:
        async with Client(SimulatedTransport(device)) as client:
            return await client.request(AskVendor(value))

    return run(main())


@pytest.mark.parametrize("value", [1.5, 0.1, 1e300, -0.0, float("inf"), None, [None, 2.5], {"a": None}])
def test_a_group_answers_with_floats_and_null(value: Any) -> None:
    assert ask_vendor(lambda call: {"v": value}) == {"v": value}


def test_a_group_reads_floats_and_null() -> None:
    assert ask_vendor(lambda call: call.read(val="any", none="any")) == {"val": 1.5, "none": None}


@pytest.mark.parametrize(
    ("value", "read"), [(1.5, True), (2, True), (-3, True), (True, False), ("1", False), (None, False)]
)
def test_a_group_reads_numbers_with_or_without_a_fraction(value: Any, read: bool) -> None:
    if read:
        assert ask_vendor(lambda call: call.read(val="number"), value) == {"val": value}
    else:
        with pytest.raises(DeviceError) as raised:
            ask_vendor(lambda call: call.read(val="number"), value)
        assert raised.value.says(SmpError.INVALID)


def test_not_a_number_is_answered_as_such() -> None:
    assert math.isnan(ask_vendor(lambda call: {"v": float("nan")})["v"])


@pytest.mark.parametrize(
    ("handler", "named"),
    [
        (broken, "command 0 of its group 70 .vendor.: KeyError: 'missing'"),
        (lambda call: {"v": object()}, "the answer to command 0 of its group 70 .vendor.: TypeError"),
        (lambda call: None, "returned NoneType for an answer"),
        (lambda call: {"v": 1 << 64}, "the answer to command 0"),
        (lambda call: call.read(val="float"), "TypeError: 'float' is no kind of value"),
    ],
)
def test_a_mistake_in_a_group_is_told_at_once(handler: Callable[[Call], Any], named: str) -> None:
    device = new_device()
    device.add_group(Vendor(handler))

    async def main() -> None:
        transport = SimulatedTransport(device)
        async with Client(transport) as client:
            with pytest.raises(McumgrError, match=named) as told:
                await client.request(AskVendor())
            assert not isinstance(told.value, RequestTimeout)
            assert asyncio.get_running_loop().time() < 1
        with pytest.raises(HandlerFailed, match=named):  # nor does connecting again help
            await transport.open(1.0)

    run(main())


def test_a_mistake_at_a_restart_is_told() -> None:
    device = new_device()

    def fail() -> None:
        if device.boots > 1:
            raise RuntimeError("no such sensor")

    device.add_group(Vendor(lambda call: {}, fail))

    async def main() -> None:
        transport = SimulatedTransport(device, LinkModel.datagram())
        await transport.open(1.0)
        await transport.send(transport.framing().encode(build_message(2, 1, 0, 0, 1, 5, b"\xa0")))
        await transport.receive()
        with pytest.raises(HandlerFailed, match="at a restart: RuntimeError: no such sensor"):
            await transport.receive()

    run(main())
