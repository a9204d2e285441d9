"""MCUboot's serial recovery on the simulated device: how it is entered, what it answers, what it does to the flash."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.client import Client
from mcumgrx.errors import DeviceNotFound, RequestTimeout, UsageError
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import Echo, ReadImageState, ReadParams, Reset, UploadChunk
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.header import Header, Op
from mcumgrx.sim.bootloader import Mode
from mcumgrx.sim.device import DeviceConfig, Power, RecoveryConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport, runner_of

from ..support.simulated import virtual

pytestmark = pytest.mark.codec

OLD = build_image("1.0.0", payload_size=3_000)
NEW = build_image("1.1.0", payload_size=5_003)  # not a multiple of the write unit
NEW_HASH = parse_image(NEW).hash
CONFIG = DeviceConfig(slot_size=64 * 1024, recovery=RecoveryConfig(), request_s=0.001, boot_s=1.0)


def with_recovery(config: DeviceConfig = CONFIG, **options: Any) -> DeviceConfig:
    return replace(config, recovery=replace(config.recovery or RecoveryConfig(), **options))


class Desk:
    """A device in recovery, and a clock."""

    def __init__(self, config: DeviceConfig = CONFIG, *, enter: bool = True) -> None:
        self.device = SimulatedDevice(config)
        self.device.install(OLD)
        self.device.advance(0.0)
        self.now = 0.0
        self.busy_s = 0.0
        if enter:
            self.enter()

    def enter(self) -> None:
        assert self.ask(Op.WRITE, 0, 5, {"boot_mode": 1}) == {}
        self.wait()
        assert self.device.power is Power.RECOVERY

    def wait(self, seconds: float = 600.0) -> None:
        self.now += seconds
        self.device.advance(self.now)

    def raw(self, message: bytes) -> tuple[bytes, ...]:
        answer = self.device.handle(message, self.now)
        self.busy_s = answer.busy_s
        self.now += answer.busy_s
        return answer.replies

    def ask(self, op: int, group: int, command: int, body: object = None, *, version: int = 1) -> Any:
        replies = self.raw(build_message(op, version, 0, group, 7, command, cbor2.dumps({} if body is None else body)))
        if not replies:
            return None
        (reply,) = replies
        assert Header.unpack(reply)[:3] == (op + 1, version, 0)
        return cbor2.loads(reply[8:])

    def chunk(self, **body: object) -> Any:
        return self.ask(Op.WRITE, 1, 1, body)

    def images(self) -> list[dict[str, Any]]:
        listed = self.ask(Op.READ, 1, 0)
        assert set(listed) == {"images"}
        found: list[dict[str, Any]] = listed["images"]
        return found

    def upload(self, content: bytes, chunk_bytes: int = 400, **first: object) -> Any:
        answer = self.chunk(off=0, len=len(content), data=content[:chunk_bytes], **first)
        while answer["rc"] == 0 and answer["off"] < len(content):
            at = answer["off"]
            answer = self.chunk(off=at, data=content[at : at + chunk_bytes])
        return answer

    def reset(self) -> None:
        assert self.ask(Op.WRITE, 0, 5) == {"rc": 0}
        self.wait()


# -- entering and leaving ---------------------------------------------------------------------------------------------


def test_a_reset_asks_for_it_once() -> None:
    desk = Desk()
    assert desk.ask(Op.READ, 0, 6) == {"buf_size": 1024, "buf_count": 1}
    desk.reset()
    assert desk.device.power is Power.RUNNING
    assert desk.ask(Op.WRITE, 0, 0, {"d": "back"}) == {"r": "back"}
    desk.device.reset(desk.now)
    desk.wait()
    assert desk.device.power is Power.RUNNING


def test_other_boot_modes_and_bootloaders_without_it_just_start() -> None:
    for config, mode in ((CONFIG, 2), (replace(CONFIG, recovery=None), 1), (with_recovery(boot_mode=False), 1)):
        desk = Desk(config, enter=False)
        assert desk.ask(Op.WRITE, 0, 5, {"boot_mode": mode}) == {}
        desk.wait()
        assert desk.device.power is Power.RUNNING


def test_a_device_without_an_image_waits_for_one() -> None:
    desk = Desk(enter=False)
    desk.device.flash.poke(0, b"\0" * 600)
    desk.device.reset(0.0)
    desk.wait()
    assert desk.device.power is Power.RECOVERY
    assert desk.images() == []
    desk.upload(NEW)
    desk.reset()
    assert desk.device.power is Power.RUNNING
    assert str(desk.device.boot_result.version) == "1.1.0"  # type: ignore[union-attr]
    without = SimulatedDevice(with_recovery(no_application=False))
    without.advance(0.0)
    assert without.power is Power.DEAD


def test_nothing_is_answered_between_a_reset_command_and_the_reset() -> None:
    desk = Desk()
    assert desk.ask(Op.WRITE, 0, 5) == {"rc": 0}
    assert desk.ask(Op.READ, 0, 6) is None
    assert desk.device.reset_pending


def test_a_swap_comes_before_recovery() -> None:
    desk = Desk(enter=False)
    desk.device.install(NEW, slot=1)
    desk.device.bootloader.set_pending()
    desk.enter()
    assert [entry["version"] for entry in desk.images()] == ["1.1.0", "1.0.0"]


# -- the window -------------------------------------------------------------------------------------------------------

WINDOW = with_recovery(window_s=0.5)


@pytest.mark.parametrize(("after_s", "power"), [(0.1, Power.RECOVERY), (0.49, Power.RECOVERY), (0.6, Power.RUNNING)])
def test_a_message_within_the_window_holds_the_device(after_s: float, power: Power) -> None:
    desk = Desk(WINDOW, enter=False)
    desk.device.reset(0.0)
    desk.wait(after_s)
    answer = desk.ask(Op.WRITE, 0, 1, {"echo": False})
    assert answer == ({"rc": 0} if power is Power.RECOVERY else None)
    desk.wait()
    assert desk.device.power is power


def test_nobody_in_the_window_delays_the_start_by_it() -> None:
    desk = Desk(WINDOW, enter=False)
    desk.device.reset(0.0)
    desk.wait(1.49)
    assert desk.device.power is Power.BOOTING
    desk.wait(0.02)
    assert desk.device.power is Power.RUNNING


@pytest.mark.parametrize("message", [b"\x0a\0\0\0", build_message(4, 1, 0, 0, 0, 1, b"\xa0"), b""])
def test_what_is_no_message_does_not_count_in_the_window(message: bytes) -> None:
    desk = Desk(WINDOW, enter=False)
    desk.device.reset(0.0)
    desk.wait(0.1)
    assert desk.raw(message) == ()
    desk.wait()
    assert desk.device.power is Power.RUNNING


def test_a_message_that_comes_during_the_swap_waits_for_its_end() -> None:
    desk = Desk(replace(WINDOW, slot_size=128 * 1024), enter=False)
    desk.device.install(NEW, slot=1)
    desk.device.bootloader.set_pending()
    desk.device.reset(0.0)
    desk.wait(0.1)
    assert desk.ask(Op.READ, 0, 6) == {"buf_size": 1024, "buf_count": 1}
    assert desk.busy_s > 0.3, "the swap erases some sectors first"
    assert desk.device.power is Power.RECOVERY


@virtual
async def test_asking_again_and_again_hits_the_window() -> None:
    device = SimulatedDevice(WINDOW)
    device.install(OLD)
    async with Client(SimulatedTransport(device, LinkModel.uart())) as client:
        await client.request(Reset())
        params = None
        for _ in range(40):
            try:
                params = await client.request(ReadParams(), timeout_s=0.05, repeats=0)
            except RequestTimeout:
                continue
            if params.buf_count == 1:
                break
        assert params is not None
        assert params.buf_count == 1
        assert device.power is Power.RECOVERY
        # A link that ends with a reset comes back within the window, and is lost again when that closes.
    usb = replace(LinkModel.uart(), drops_on_reset=True)
    device.reset(asyncio.get_running_loop().time())
    async with Client(SimulatedTransport(device, usb)) as client:
        begin = asyncio.get_running_loop().time()
        await client.wait_lost()
        assert asyncio.get_running_loop().time() - begin == pytest.approx(0.5, abs=0.01)


# -- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "group", "command"),
    [(0, 0, 0), (2, 0, 0), (0, 0, 4), (0, 0, 7), (0, 0, 8), (2, 1, 0), (2, 1, 5), (0, 1, 6), (2, 63, 0), (0, 99, 0)],
)
@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_what_is_not_built_in_is_not_supported(op: int, group: int, command: int, version: int) -> None:
    assert Desk().ask(op, group, command, version=version) == {"rc": 8}


def test_what_is_dropped_without_a_word() -> None:
    desk = Desk()
    for op in (1, 3, 4, 5, 6, 7):
        assert desk.raw(build_message(op, 1, 0, 0, 1, 6, b"\xa0")) == ()
    params = build_message(0, 1, 0, 0, 1, 6, b"")
    assert desk.raw(params + b"\xa0") == (), "more than the header says"
    assert desk.raw(params[:7]) == ()
    assert len(desk.raw(b"\x08\0\0\x09" + params[4:])) == 1, "less than it says"


def test_most_commands_look_at_no_op_and_no_payload() -> None:
    desk = Desk()
    for op in (Op.READ, Op.WRITE):
        assert desk.ask(op, 0, 1) == {"rc": 0}
        assert desk.ask(op, 0, 6) == {"buf_size": 1024, "buf_count": 1}
        (reply,) = desk.raw(build_message(op, 1, 0, 0, 7, 6, b""))
        assert reply[0] == 0x08 | op + 1
    # Reserved bits come back, flags do not.
    (reply,) = desk.raw(b"\xea\x55\0\0\0\0\x07\x06")
    assert reply[:2] == b"\xeb\0"


def test_options_of_the_build() -> None:
    desk = Desk(with_recovery(echo=True, slot_info=True, storage_erase=True, params=False))
    assert desk.ask(Op.WRITE, 0, 0, {"d": "x"}) == {"r": "x"}
    assert desk.ask(Op.READ, 0, 6) == {"rc": 8}
    assert desk.ask(Op.WRITE, 63, 0) == {"rc": 0}
    slots = [{"slot": 0, "size": 65536, "upload_image_id": 0}, {"slot": 1, "size": 65536}]
    assert desk.ask(Op.READ, 1, 6) == {"images": [{"image": 0, "slots": slots}]}
    refused, told = desk.raw(build_message(2, 1, 0, 1, 7, 6, b"\xa0"))
    assert cbor2.loads(refused[8:]) == {"rc": 8}
    assert "images" in cbor2.loads(told[8:])
    direct = Desk(with_recovery(slot_info=True, direct_upload=True)).ask(Op.READ, 1, 6)
    assert [slot["upload_image_id"] for slot in direct["images"][0]["slots"]] == [1, 2]


@given(st.binary(max_size=100))
def test_no_message_upsets_it(payload: bytes) -> None:
    desk = Desk(replace(with_recovery(image_state=True, echo=True), timing=INSTANT))
    for op, group, command in ((2, 1, 0), (2, 1, 1), (2, 0, 0), (0, 1, 0)):
        (reply,) = desk.raw(build_message(op, 1, 0, group, 0, command, payload))
        cbor2.loads(reply[8:])
    desk.raw(payload)


def test_configurations_that_cannot_work() -> None:
    wrong: list[dict[str, Any]] = [{"buf_size": 10}, {"line_count": 0}, {"window_s": -1.0}]
    for options in wrong:
        with pytest.raises(UsageError):
            RecoveryConfig(**options)


# -- the image list ---------------------------------------------------------------------------------------------------


def test_only_good_images_are_listed_and_that_takes_its_time() -> None:
    desk = Desk()
    (listed,) = desk.images()
    assert list(listed) == ["slot", "hash", "version"]
    assert (listed["slot"], listed["version"]) == (0, "1.0.0")
    assert desk.busy_s > 0.3
    desk.device.flash.poke(600, b"wrong")
    assert desk.images() == []


def test_flags_and_marks_where_they_were_built_in() -> None:
    desk = Desk(with_recovery(image_state=True), enter=False)
    desk.device.install(NEW, slot=1)
    desk.enter()
    first, second = desk.images()
    assert list(first) == ["active", "bootable", "confirmed", "slot", "hash", "version"]
    assert list(second) == ["bootable", "slot", "hash", "version"]
    assert desk.ask(Op.WRITE, 1, 0, {"hash": b"x"}) == {"rc": 3}
    assert desk.ask(Op.WRITE, 1, 0, {"hash": bytes(32)}) == {"rc": 5}
    # Whichever image is named, the other slot is marked.
    marked = desk.ask(Op.WRITE, 1, 0, {"hash": parse_image(OLD).hash})["images"]
    assert [sorted(set(entry) & {"active", "pending", "permanent"}) for entry in marked] == [[], ["pending"]]
    # A test stays one.
    marked = desk.ask(Op.WRITE, 1, 0, {"hash": NEW_HASH, "confirm": True})["images"]
    assert "permanent" not in marked[1]
    desk.reset()
    assert desk.device.bootloader.swap_type().name == "REVERT"
    desk.enter()
    assert [entry["version"] for entry in desk.images()] == ["1.0.0", "1.1.0"], "entering was one reset too many"


# -- upload -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("progressively", [False, True])
@pytest.mark.parametrize("chunk_bytes", [4, 31, 400, 903])
@pytest.mark.parametrize("mode", [Mode.SWAP_MOVE, Mode.SWAP_OFFSET, Mode.OVERWRITE])
def test_an_upload_replaces_the_application(mode: Mode, chunk_bytes: int, progressively: bool) -> None:
    desk = Desk(replace(with_recovery(erase_progressively=progressively), mode=mode))
    assert desk.upload(NEW, chunk_bytes) == {"rc": 0, "off": len(NEW)}
    assert desk.device.bootloader.primary.read(0, len(NEW)) == NEW
    assert desk.device.flash.writes_over_data == 0
    assert [entry["version"] for entry in desk.images()] == ["1.1.0"]
    desk.reset()
    assert [entry["version"] for entry in desk.ask(Op.READ, 1, 0)["images"]] == ["1.1.0"]


def test_no_mark_of_the_old_image_is_left() -> None:
    for progressively in (False, True):
        desk = Desk(with_recovery(erase_progressively=progressively), enter=False)
        desk.device.install(NEW, slot=1)
        desk.device.bootloader.set_pending(permanent=True)
        desk.enter()
        primary = desk.device.bootloader.primary
        assert primary.magic.name == "SET"
        desk.upload(OLD)
        assert primary.magic.name == "UNSET"


def test_only_whole_write_units_are_taken() -> None:
    desk = Desk()
    assert desk.chunk(off=0, len=len(NEW), data=NEW[:509]) == {"rc": 0, "off": 508}
    assert desk.chunk(off=508, data=NEW[508:539]) == {"rc": 0, "off": 536}
    assert desk.chunk(off=536, data=NEW[536:539]) == {"rc": 0, "off": 536}


def test_offsets() -> None:
    desk = Desk()
    assert desk.chunk(off=500, data=b"x" * 8) == {"rc": 0, "off": 0}, "nothing has begun"
    assert desk.chunk(off=0, len=len(NEW), data=NEW[:400])["off"] == 400
    for wrong in (1, 396, 404, 2**31):
        assert desk.chunk(off=wrong, data=NEW[:4]) == {"rc": 0, "off": 400}
    assert desk.chunk(off=400, data=b"") == {"rc": 0, "off": 400}
    # A first chunk begins anew, and erases anew, whatever its sha; so does one that is refused.
    assert desk.chunk(off=0, len=len(NEW), data=NEW[:100], sha=7)["off"] == 100
    assert desk.chunk(off=0, len=10**6, data=NEW[:100]) == {"rc": 3}
    assert desk.chunk(off=100, data=NEW[100:104]) == {"rc": 0, "off": 0}
    # More than the length is refused, and the upload goes on all the same.
    assert desk.upload(NEW[:800])["off"] == 800
    assert desk.chunk(off=800, data=b"more") == {"rc": 3}
    assert desk.chunk(off=400, data=NEW[400:800]) == {"rc": 0, "off": 800}, "a duplicate after the end"


@pytest.mark.parametrize(
    "body",
    [
        {"off": 0, "data": b"x" * 40},
        {"off": 0, "len": 65537, "data": b"x" * 40},
        {"len": 400, "data": b"x" * 40},
        {"off": 0, "len": 400},
        {"off": 0, "len": 400, "data": "text"},
        {"off": 0, "len": 400, "data": b"x" * 40, "image": 1},
        {"off": 2**32 - 1, "data": b""},
    ],
)
def test_what_is_refused(body: dict[str, object]) -> None:
    assert Desk().chunk(**body) == {"rc": 3}


def test_anything_can_be_written_up_to_the_whole_slot() -> None:
    desk = Desk(replace(CONFIG, timing=INSTANT))
    junk = bytes(range(256)) * 256
    assert desk.upload(junk, 1000) == {"rc": 0, "off": 65536}
    desk.reset()
    assert desk.device.power is Power.RECOVERY, "there is nothing left to run"


def test_an_unknown_image_number_stays_until_a_good_first_chunk() -> None:
    desk = Desk()
    assert desk.chunk(off=0, len=400, data=NEW[:40], image=5) == {"rc": 3}
    assert desk.chunk(off=40, data=NEW[40:80], image=0) == {"rc": 3}
    assert desk.chunk(off=0, len=400, data=NEW[:40]) == {"rc": 0, "off": 40}


@pytest.mark.parametrize("mode", [Mode.SWAP_MOVE, Mode.SWAP_OFFSET])
def test_direct_upload_reaches_the_secondary(mode: Mode) -> None:
    desk = Desk(replace(with_recovery(direct_upload=True, image_state=True), mode=mode))
    assert desk.upload(NEW, image=2)["off"] == len(NEW)
    assert [entry["version"] for entry in desk.images()] == ["1.0.0", "1.1.0"]
    assert "images" in desk.ask(Op.WRITE, 1, 0, {"hash": NEW_HASH})
    desk.reset()
    assert str(desk.device.boot_result.version) == "1.1.0"  # type: ignore[union-attr]


def test_erasing_blocks_the_first_chunk_unless_it_is_progressive() -> None:
    desk = Desk()
    desk.chunk(off=0, len=len(NEW), data=NEW[:400])
    assert desk.busy_s == pytest.approx(16 * 0.085, abs=0.1), "the whole slot, empty or not"
    desk = Desk(with_recovery(erase_progressively=True))
    desk.chunk(off=0, len=len(NEW), data=NEW[:400])
    assert desk.busy_s == pytest.approx(0.085, abs=0.02)


def test_power_lost_while_it_writes() -> None:
    desk = Desk()
    desk.device.flash.cut_power(after=5)
    assert desk.chunk(off=0, len=len(NEW), data=NEW[:400]) is None
    desk.wait()
    assert desk.device.power is Power.RECOVERY, "the application is half gone"
    assert desk.upload(NEW)["off"] == len(NEW)
    desk.reset()
    assert desk.device.power is Power.RUNNING


# -- links ------------------------------------------------------------------------------------------------------------


def device_in_recovery(**options: Any) -> SimulatedDevice:
    return Desk(with_recovery(**options)).device


@virtual
async def test_a_client_uploads_over_every_link_that_the_bootloader_has() -> None:
    for model in (LinkModel.ideal(), LinkModel.uart(), LinkModel.uart(raw=True), LinkModel.shell()):
        device = device_in_recovery()
        async with Client(SimulatedTransport(device, model)) as client:
            offset = 0
            while offset < len(NEW):
                chunk = UploadChunk(offset, NEW[offset : offset + 900], length=len(NEW))
                offset = (await client.request(chunk, timeout_s=30.0)).offset
            assert [slot.version for slot in (await client.request(ReadImageState())).slots] == ["1.1.0"]
            await client.request(Reset())
            await asyncio.sleep(5)
        async with Client(SimulatedTransport(device, model)) as client:
            assert await client.request(Echo("up")) == "up"


@virtual
async def test_the_bootloader_has_no_radio_and_no_network() -> None:
    with pytest.raises(DeviceNotFound, match="recovery"):
        await SimulatedTransport(device_in_recovery(), LinkModel.ble()).open(5.0)
    async with Client(SimulatedTransport(device_in_recovery(), LinkModel.datagram())) as client:
        with pytest.raises(RequestTimeout):
            await client.request(ReadParams(), timeout_s=1.0)


async def answered(transport: SimulatedTransport, frames: list[bytes]) -> list[int]:
    """Sequence numbers of the answers to frames that are written at once."""
    framing = transport.framing()
    for frame in frames:
        await transport.send([frame])
    found: list[int] = []
    while True:
        try:
            async with asyncio.timeout(60):
                found += [message[4] for message in framing.feed(await transport.receive())]
        except TimeoutError:
            return found


def params(sequence: int) -> bytes:
    return build_message(0, 1, 0, 0, sequence, 6, b"\xa0")


@virtual
async def test_messages_wait_as_lines() -> None:
    """One buffer for messages, but eight for the lines of those that follow."""
    device = device_in_recovery()
    transport = SimulatedTransport(device, replace(LinkModel.uart(), bytes_per_s=None))
    await transport.open(1.0)
    framing = transport.framing()
    assert await answered(transport, [framing.encode(params(number))[0] for number in range(4)]) == [0, 1, 2, 3]
    many = [framing.encode(params(number))[0] for number in range(12)]
    assert await answered(transport, many) == list(range(9)), "one in hand, eight in the buffers"
    assert runner_of(device).lost_lines == 3
    # A message of more lines than buffers is fine while nothing else is being done.
    long = build_message(2, 1, 0, 1, 50, 1, cbor2.dumps({"off": 8, "data": b"x" * 980}))
    assert await answered(transport, framing.encode(long)) == [50]
    await transport.close()


@virtual
async def test_a_raw_link_holds_one_message_more() -> None:
    transport = SimulatedTransport(device_in_recovery(), replace(LinkModel.uart(raw=True), bytes_per_s=None))
    await transport.open(1.0)
    assert await answered(transport, [params(number) for number in range(4)]) == [0, 1]
    await transport.close()


@virtual
async def test_lines_that_the_bootloader_does_not_take() -> None:
    transport = SimulatedTransport(device_in_recovery(), LinkModel.uart())
    await transport.open(1.0)
    (frame,) = transport.framing().encode(params(1))
    assert await answered(transport, [frame[:-1] + b"\r\n"]) == []
    assert await answered(transport, [b"x" + frame]) == []
    assert await answered(transport, [b"\n", frame]) == [1]
    for size, count in ((1021, 1), (1022, 0)):
        empty = len(cbor2.dumps({"off": 8, "data": b"x" * 300}))
        data = b"x" * (size - 8 - empty + 300)
        message = build_message(2, 1, 0, 1, 2, 1, cbor2.dumps({"off": 8, "data": data}))
        assert len(message) == size
        assert len(await answered(transport, transport.framing().encode(message))) == count
    await transport.close()


# -- the firmware loader ----------------------------------------------------------------------------------------------

LOADER = build_image("0.1.0", payload_size=2_000)


def test_a_firmware_loader_replaces_the_application() -> None:
    desk = Desk(replace(CONFIG, mode=Mode.FIRMWARE_LOADER, recovery=None), enter=False)
    desk.device.install(LOADER, slot=1)
    assert desk.ask(Op.READ, 0, 8, {"query": "mode"}) == {"mode": 7}
    for command in (0, 1, 5):
        assert desk.ask(Op.WRITE, 1, command, {"off": 0, "slot": 1}) == {"rc": 8}, "the application writes no images"
    assert desk.ask(Op.WRITE, 0, 5, {"boot_mode": 1}) == {}
    desk.wait()
    assert desk.device.running_slot == 1
    listed = desk.ask(Op.READ, 1, 0)["images"]
    assert [(entry["slot"], entry["active"]) for entry in listed] == [(0, False), (1, True)]

    def upload(end: int) -> None:
        at = 0
        while at < end:
            at = desk.ask(Op.WRITE, 1, 1, {"off": at, "len": len(NEW), "image": 0, "data": NEW[at : at + 300]})["off"]

    upload(2100)
    # Cut here, the loader starts again: the application is gone.
    desk.device.reset(desk.now)
    desk.wait()
    assert desk.device.running_slot == 1
    upload(len(NEW))
    assert desk.ask(Op.WRITE, 0, 5) == {}
    desk.wait()
    assert (desk.device.running_slot, str(desk.device.boot_result.version)) == (0, "1.1.0")  # type: ignore[union-attr]


def test_without_a_good_loader_the_application_runs_on() -> None:
    desk = Desk(replace(CONFIG, mode=Mode.FIRMWARE_LOADER), enter=False)
    assert desk.ask(Op.WRITE, 0, 5, {"boot_mode": 1}) == {}
    desk.wait()
    assert (desk.device.power, desk.device.running_slot) == (Power.RUNNING, 0)
