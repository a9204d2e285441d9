"""Updates from beginning to end: the flow over the real client and groups, on the simulated device, in virtual time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.contracts import ImageGroup
from mcumgrx.errors import (
    DeviceError,
    DeviceNotFound,
    FlowError,
    ImageError,
    LinkLost,
    MalformedReply,
    Outcome,
    PlanRefused,
    RequestTimeout,
    UploadMismatch,
    WrongDevice,
)
from mcumgrx.events import Bytes, DeviceText, Event, Note, Stage, StageName
from mcumgrx.flows import DfuPolicy, Ending, Mode, Plan, Report, update
from mcumgrx.mcuboot import Image, ImageFlag, load_image, parse_image, trailer_magic
from mcumgrx.memory import Memory
from mcumgrx.protocol.header import Op
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim import bootloader as boot
from mcumgrx.sim.device import DeviceConfig, Power, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.groups import Call, Handler, Refused
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import Faults, LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run

from ..support.spoiled import BODIES, spoil

pytestmark = pytest.mark.codec

OLD = build_image("1.0.0", payload_size=8192)
NEW = build_image("1.1.0", payload_size=12288)
CRASHING = build_image("1.1.0", payload_size=8192, health="crash")
SMALL = DeviceConfig(slot_size=64 * 1024, buf_size=1024)


class Desk:
    """A simulated device, a link to it, and what an update over that link tells."""

    def __init__(
        self,
        config: DeviceConfig = SMALL,
        model: LinkModel | None = None,
        faults: Faults | None = None,
        *,
        old: bytes = OLD,
    ) -> None:
        self.device = SimulatedDevice(config, name="desk")
        self.device.install(old)
        self.faults = faults if faults is not None else Faults()
        self.transport = SimulatedTransport(self.device, model, faults=self.faults)
        self.events: list[Event] = []
        self.plans: list[Plan] = []

    def session(self) -> SessionDevice:
        return SessionDevice(Address.parse("sim:desk"), self.transport, default_registry())

    async def update(self, image: Image | bytes = NEW, **policy: Any) -> Report:
        image = image if isinstance(image, Image) else parse_image(image)
        return await update(self.session(), image, DfuPolicy(**policy), self.events.append, on_plan=self.planned)

    def run(self, image: Image | bytes = NEW, **policy: Any) -> Report:
        return run(self.update(image, **policy))

    def fails(self, image: Image | bytes = NEW, **policy: Any) -> FlowError:
        with pytest.raises(FlowError) as failure:
            self.run(image, **policy)
        return failure.value

    async def planned(self, plan: Plan) -> bool:
        self.plans.append(plan)
        return True

    # -- what the device ended up with

    @property
    def running(self) -> str:
        self.device.settle()
        assert self.device.power is Power.RUNNING
        assert self.device.boot_result is not None
        return str(self.device.boot_result.version)

    def after_reset(self) -> str:
        self.device.reset(1e6)
        return self.running

    # -- what was told

    @property
    def stages(self) -> list[str]:
        return [event.name.value for event in self.events if isinstance(event, Stage) and event.finished]

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]

    def results(self, name: StageName) -> list[str]:
        stages = [event for event in self.events if isinstance(event, Stage) and event.finished]
        return [stage.text for stage in stages if stage.name is name]

    @property
    def sent(self) -> int:
        """Bytes acknowledged last."""
        return max((event.done for event in self.events if isinstance(event, Bytes)), default=0)


def is_request(group: int, command: int, op: Op = Op.WRITE) -> Callable[[int, bytes], bool]:
    """Selects requests, or answers, of one command."""

    def selected(number: int, message: bytes) -> bool:
        wanted = (op, op.reply)
        return message[0] & 7 in wanted and int.from_bytes(message[4:6], "big") == group and message[7] == command

    return selected


UPLOAD = is_request(1, 1)
MARK = is_request(1, 0)
LIST = is_request(1, 0, Op.READ)
RESET = is_request(0, 5)


def the(which: int | range, select: Callable[[int, bytes], bool]) -> Callable[[int, bytes], bool]:
    """The messages with these numbers, counted from 1 among those that `select` selects."""
    seen = 0

    def selected(number: int, message: bytes) -> bool:
        nonlocal seen
        if not select(number, message):
            return False
        seen += 1
        return seen == which if isinstance(which, int) else seen in which

    return selected


LINKS = {
    "ideal": LinkModel.ideal(),
    "ble": LinkModel.ble(),
    "uart": LinkModel.uart(),
    "raw uart": LinkModel.uart(raw=True),
    "usb": replace(LinkModel.uart(1_000_000), drops_on_reset=True, connect_s=0.2),
    "udp": LinkModel.datagram(),
}


@pytest.fixture(params=LINKS)
def link(request: pytest.FixtureRequest) -> LinkModel:
    return LINKS[request.param]


# -- as it should be ------------------------------------------------------------------------------------------------


def test_an_update_is_uploaded_tested_proven_and_confirmed(link: LinkModel) -> None:
    desk = Desk(model=link)
    report = desk.run()
    assert report.ending is Ending.CONFIRMED
    assert report.summary == "1.1.0 runs and is confirmed (was 1.0.0)"
    assert desk.stages == ["connect", "read", "plan", "upload", "mark", "reset", "return", "prove", "confirm"]
    assert desk.running == "1.1.0"
    assert desk.after_reset() == "1.1.0"
    assert (report.bytes_sent, report.reconnects, report.resets) == (len(NEW), 0, 1)
    assert report.bytes_per_s is not None
    assert report.bytes_per_s > 1000


def test_the_report_is_json_and_adds_up() -> None:
    desk = Desk()
    report = desk.run()
    data = json.loads(json.dumps(report.as_dict()))
    assert data["ending"] == "confirmed"
    assert data["identity"] == "sim:desk"
    assert data["hash"] == parse_image(NEW).hash.hex()
    assert data["bytes_per_s"] > 0
    assert [step["name"] for step in data["steps"]] == desk.stages
    assert [step["name"] for step in data["plan"]["steps"]] == ["upload", "mark", "reset", "prove", "confirm"]
    assert sum(step.elapsed_s for step in report.steps) == pytest.approx(report.elapsed_s)


def test_every_stage_that_begins_ends_with_its_duration() -> None:
    desk = Desk()
    desk.run(erase=True)
    stages = [event for event in desk.events if isinstance(event, Stage)]
    assert [stage.finished for stage in stages] == [False, True] * (len(stages) // 2)
    assert all(stage.text for stage in stages)
    assert next(stage for stage in stages if stage.finished and stage.name is StageName.RETURN).elapsed_s > 0.5


def test_the_same_update_again_has_nothing_to_do() -> None:
    desk = Desk()
    desk.run()
    report = desk.run()
    assert report.ending is Ending.NOTHING_TO_DO
    assert report.summary == "1.1.0 is already running and confirmed"
    assert "1.1.0 is already running and confirmed" in desk.notes
    assert report.bytes_sent == 0


@pytest.mark.parametrize(
    ("mode", "ending", "running", "after_reset"),
    [
        (Mode.TEST_AND_CONFIRM, Ending.CONFIRMED, "1.1.0", "1.1.0"),
        (Mode.CONFIRM_ONLY, Ending.CONFIRMED, "1.1.0", "1.1.0"),
        (Mode.TEST_ONLY, Ending.ON_TRIAL, "1.1.0", "1.0.0"),
        (Mode.UPLOAD_ONLY, Ending.UPLOADED, "1.0.0", "1.0.0"),
    ],
)
def test_each_mode_goes_as_far_as_it_says(mode: Mode, ending: Ending, running: str, after_reset: str) -> None:
    desk = Desk()
    report = desk.run(mode=mode)
    assert report.ending is ending
    assert report.summary
    assert desk.running == running
    assert desk.after_reset() == after_reset


@pytest.mark.parametrize("mode", [Mode.TEST_AND_CONFIRM, Mode.CONFIRM_ONLY])
def test_a_trial_that_runs_is_only_confirmed(mode: Mode) -> None:
    desk = Desk()
    desk.run(mode=Mode.TEST_ONLY)
    report = desk.run(mode=mode)
    assert report.ending is Ending.CONFIRMED
    assert [step.name for step in report.steps] == ["connect", "read", "plan", "confirm"]
    assert desk.after_reset() == "1.1.0"


@pytest.mark.parametrize("mark", ["none", "test", "permanent"])
@pytest.mark.parametrize("mode", [Mode.TEST_AND_CONFIRM, Mode.CONFIRM_ONLY])
def test_what_lies_in_the_slot_is_not_sent_again(mode: Mode, mark: str) -> None:
    desk = Desk()
    desk.device.install(NEW, slot=1)
    desk.device.settle()
    if mark != "none":
        desk.device.bootloader.set_pending(mark == "permanent")
    report = desk.run(mode=mode)
    assert report.ending is Ending.CONFIRMED
    assert report.bytes_sent == 0
    assert "upload" not in desk.stages
    assert ("mark" in desk.stages) == (mark == "none")
    assert desk.after_reset() == "1.1.0"


def test_erase_begins_anew() -> None:
    desk = Desk()
    desk.device.install(NEW, slot=1)
    report = desk.run(erase=True)
    assert desk.stages[3:5] == ["erase", "upload"]
    assert report.bytes_sent == len(NEW)
    assert desk.running == "1.1.0"


def test_a_device_that_cannot_erase_is_updated_all_the_same() -> None:
    desk = Desk()
    del desk.device.image.handlers[Op.WRITE, 5]
    desk.run(erase=True)
    assert desk.results(StageName.ERASE)[0].startswith("not erased: the device knows no such command")
    assert desk.running == "1.1.0"


def test_an_erase_that_outlasts_its_time_is_an_answer_that_is_missing() -> None:
    desk = Desk(DeviceConfig(slot_size=512 * 1024))
    desk.device.install(NEW, slot=1)  # an empty slot needs no erase
    with pytest.raises(RequestTimeout) as failure:
        desk.run(erase=True, erase_timeout_s=5)
    assert "--erase-timeout" in (failure.value.hint or "")
    assert desk.run(erase=True, erase_timeout_s=60).ending is Ending.CONFIRMED


def test_a_device_that_tells_nothing_of_itself_is_updated() -> None:
    desk = Desk(replace(SMALL, params=False, bootloader_info=False, original_only=True))
    del desk.device.image.handlers[Op.READ, 6]
    assert desk.run().ending is Ending.CONFIRMED
    assert desk.running == "1.1.0"


@pytest.mark.parametrize("change", ["frugal_list", "canonical", "legacy_rc", "image_check", "erase_progressively"])
def test_odd_servers_are_updated(change: str) -> None:
    desk = Desk(replace(SMALL, **{change: True}))  # type: ignore[arg-type]
    assert desk.run(window=3).ending is Ending.CONFIRMED


def test_a_window_and_a_chunk_size_reach_the_upload() -> None:
    sizes: list[int] = []

    def watch(number: int, message: bytes) -> bool:
        if UPLOAD(number, message):
            sizes.append(len(message))
        return False

    Desk(faults=Faults(drop_requests=watch)).run(chunk_bytes=256, window=3)
    assert len(sizes) > len(NEW) / 256
    assert max(sizes) < 256 + 100


# -- nothing is done before the plan --------------------------------------------------------------------------------


def test_a_plan_that_is_declined_changes_nothing() -> None:
    desk = Desk()
    before = bytes(desk.device.flash.read(0, desk.device.flash.size))

    async def decline(plan: Plan) -> bool:
        desk.plans.append(plan)
        return False

    report = run(update(desk.session(), parse_image(NEW), DfuPolicy(erase=True), desk.events.append, on_plan=decline))
    assert report.ending is Ending.NOT_STARTED
    assert report.summary == "nothing was changed: 6 steps were planned"
    assert desk.plans[0].texts[0] == "erase slot 1"
    assert bytes(desk.device.flash.read(0, desk.device.flash.size)) == before


def test_notes_and_warnings_come_before_the_question() -> None:
    desk = Desk(old=build_image("2.0.0", payload_size=1024))
    told: list[list[str]] = []

    async def ask(plan: Plan) -> bool:
        told.append(list(desk.notes))
        return False

    run(update(desk.session(), parse_image(NEW), progress=desk.events.append, on_plan=ask))
    assert told == [["this is a downgrade, from 2.0.0 to 1.1.0"]]


def test_a_file_that_is_too_large_is_refused_before_anything_is_sent() -> None:
    desk = Desk()
    with pytest.raises(PlanRefused, match="does not fit"):
        desk.run(build_image("1.1.0", payload_size=70_000))
    assert desk.sent == 0


def test_a_running_trial_of_another_image_is_refused() -> None:
    desk = Desk()
    desk.run(mode=Mode.TEST_ONLY)
    with pytest.raises(PlanRefused, match=r"1\.1\.0 is not confirmed"):
        desk.run(build_image("1.2.0", payload_size=1024))
    assert desk.after_reset() == "1.0.0"


def test_a_refused_mark_is_an_error_where_the_bootloader_takes_marks() -> None:
    desk = Desk()
    del desk.device.image.handlers[Op.WRITE, 0]
    with pytest.raises(DeviceError, match="image mark"):
        desk.run()
    assert "reset" not in desk.stages


def test_a_device_without_hashes_is_given_the_file_and_no_more() -> None:
    desk = Desk()
    state = desk.device.image.handlers[Op.READ, 0]

    def without_hashes(call: Call) -> dict[str, Any]:
        answer = dict(state(call))
        answer["images"] = [{key: value for key, value in image.items() if key != "hash"} for image in answer["images"]]
        return answer

    desk.device.image.handlers[Op.READ, 0] = without_hashes
    with pytest.raises(PlanRefused, match="no hash"):
        desk.run()
    assert desk.run(mode=Mode.UPLOAD_ONLY).ending is Ending.UPLOADED
    assert "unchecked" in desk.results(StageName.UPLOAD)[0]
    assert desk.device.image.read_image(1) is not None


def test_what_the_device_will_not_tell_is_left_open() -> None:
    desk = Desk()

    def refuse(call: Call) -> dict[str, Any]:
        raise Refused(11)

    desk.device.groups[0].handlers[Op.READ, 8] = refuse
    desk.device.image.handlers[Op.READ, 6] = refuse
    assert desk.run(window=99).ending is Ending.CONFIRMED


def test_what_the_device_refuses_it_says_itself() -> None:
    desk = Desk()
    del desk.device.image.handlers[Op.WRITE, 1]
    with pytest.raises(DeviceError, match="image upload"):
        desk.run()


# -- other bootloaders ----------------------------------------------------------------------------------------------


def bootable(config: DeviceConfig, version: str) -> bytes:
    if config.mode is boot.Mode.RAM_LOAD:
        start = config.policy.ram_start
        return build_image(version, payload_size=8192, flags=ImageFlag.RAM_LOAD, load_address=start)
    return build_image(version, payload_size=8192)


@pytest.mark.parametrize("how", [Mode.TEST_AND_CONFIRM, Mode.CONFIRM_ONLY, Mode.TEST_ONLY])
@pytest.mark.parametrize(
    "mode",
    [
        boot.Mode.SWAP_MOVE,
        boot.Mode.SWAP_OFFSET,
        boot.Mode.OVERWRITE,
        boot.Mode.DIRECT_XIP,
        boot.Mode.DIRECT_XIP_REVERT,
        boot.Mode.RAM_LOAD,
    ],
)
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_every_bootloader_is_updated_twice(mode: boot.Mode, how: Mode, told: bool) -> None:
    config = replace(SMALL, mode=mode, bootloader_info=told)
    if mode is boot.Mode.RAM_LOAD:
        config = replace(config, policy=boot.BootPolicy(ram_start=0x2000_0000, ram_size=0x4_0000))
    desk = Desk(config, old=bootable(config, "1.0.0"))
    if mode is boot.Mode.DIRECT_XIP_REVERT:  # its factory images are padded and confirmed
        area = desk.device.bootloader.primary
        area.write_magic()
        area.write_copy_done()
        area.write_image_ok()
    for version in ("1.1.0", "1.2.0"):
        report = desk.run(bootable(config, version), mode=how)
        assert desk.running == version
        if how is Mode.TEST_ONLY and report.ending is Ending.ON_TRIAL:
            assert mode in (boot.Mode.SWAP_MOVE, boot.Mode.SWAP_OFFSET, boot.Mode.DIRECT_XIP_REVERT)
            assert desk.run(bootable(config, version)).ending is Ending.CONFIRMED
        else:
            assert report.ending is Ending.CONFIRMED
        assert desk.after_reset() == version


def padded(data: bytes, slot_size: int, *, confirmed: bool) -> bytes:
    whole = bytearray(data.ljust(slot_size, b"\xff"))
    whole[-16:] = trailer_magic(8)
    if confirmed:
        whole[-24] = 1
    return bytes(whole)


@pytest.mark.parametrize("confirmed", [False, True])
def test_padded_files_bring_their_own_mark(confirmed: bool) -> None:
    desk = Desk()
    report = desk.run(padded(NEW, SMALL.slot_size, confirmed=confirmed), mode=Mode.CONFIRM_ONLY)
    assert report.ending is Ending.CONFIRMED
    assert desk.after_reset() == "1.1.0"


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize("how", [Mode.TEST_AND_CONFIRM, Mode.TEST_ONLY])
@pytest.mark.parametrize("mode", [boot.Mode.SWAP_MOVE, boot.Mode.SWAP_OFFSET])
def test_without_its_padding_a_file_does_what_was_asked_for(mode: boot.Mode, how: Mode, confirmed: bool) -> None:
    desk = Desk(replace(SMALL, mode=mode))
    file = padded(NEW, SMALL.slot_size, confirmed=confirmed)
    assert "--trim" in (desk.fails(file, mode=how).hint or "")
    report = desk.run(file, mode=how, trim=True)
    assert (report.bytes_sent, report.size) == (len(NEW), len(NEW))
    assert report.ending is (Ending.CONFIRMED if how is Mode.TEST_AND_CONFIRM else Ending.ON_TRIAL)
    assert desk.after_reset() == ("1.1.0" if how is Mode.TEST_AND_CONFIRM else "1.0.0")


# -- what the bootloader thinks of it -------------------------------------------------------------------------------


def test_an_image_that_crashes_is_reported_as_reverted(link: LinkModel) -> None:
    desk = Desk(model=link)
    failure = desk.fails(CRASHING)
    assert failure.outcome is Outcome.REVERTED
    assert failure.message == "1.1.0 did not stay: 1.0.0 runs again"
    assert failure.slot == 1
    assert failure.hint
    assert desk.running == "1.0.0"
    assert "confirm" not in desk.stages


def test_an_image_that_has_reverted_is_never_confirmed_by_the_next_run() -> None:
    desk = Desk()
    desk.fails(CRASHING)
    assert desk.fails(CRASHING).outcome is Outcome.REVERTED  # it is tried once more, as asked, not sent again
    assert desk.results(StageName.UPLOAD) == ["1.1.0 is in slot 1"]
    assert desk.after_reset() == "1.0.0"


def test_an_image_that_the_bootloader_refuses_is_reported_as_rejected() -> None:
    desk = Desk()
    desk.device.bootloader.verify = lambda image: image.version != parse_image(NEW).version
    failure = desk.fails()
    assert failure.outcome is Outcome.REJECTED
    assert "1.0.0 runs" in failure.message
    assert "1.1.0 is gone" in failure.message
    assert desk.running == "1.0.0"


def test_content_that_was_damaged_in_the_flash_is_rejected() -> None:
    desk = Desk()

    async def damage(plan: Plan) -> bool:
        area = desk.device.bootloader.secondary
        desk.device.flash.poke(area.offset + 2000, b"\x00\x00")
        return True

    desk.device.install(NEW, slot=1)
    with pytest.raises(FlowError) as failure:
        run(update(desk.session(), parse_image(NEW), on_plan=damage))
    assert failure.value.outcome is Outcome.REJECTED


def test_a_downgrade_that_the_bootloader_refuses_in_silence_is_rejected() -> None:
    config = replace(SMALL, policy=boot.BootPolicy(downgrade_prevention=True), bootloader_info=False)
    desk = Desk(config, old=build_image("2.0.0", payload_size=1024))
    assert desk.fails().outcome is Outcome.REJECTED
    assert "this is a downgrade, from 2.0.0 to 1.1.0" in desk.notes
    assert desk.running == "2.0.0"


def test_a_mark_that_the_device_does_not_keep_ends_the_update_before_the_reset() -> None:
    desk = Desk()
    desk.device.image.handlers[Op.WRITE, 0] = desk.device.image.state
    failure = desk.fails()
    assert failure.outcome is Outcome.REJECTED
    assert failure.stage == "mark"
    assert "reset" not in desk.stages


def test_an_upload_that_the_device_does_not_list_ends_the_update() -> None:
    desk = Desk()
    read_image = desk.device.image.read_image
    desk.device.image.read_image = lambda slot: read_image(slot) if slot == 0 else None  # type: ignore[method-assign]
    failure = desk.fails()
    assert failure.stage == "upload"
    assert "does not list" in failure.message


def test_a_pending_image_that_is_never_swapped_is_told_apart() -> None:
    # As with an image that is too large for the swap area: the bootloader leaves it pending.
    desk = Desk()
    desk.device.bootloader.boot = _boots_the_old(desk.device)  # type: ignore[method-assign]
    failure = desk.fails()
    assert failure.outcome is Outcome.NEVER_SWAPPED
    assert "1.0.0 still runs" in failure.message
    assert "mcumgrx image erase" in (failure.hint or "")


def _boots_the_old(device: SimulatedDevice) -> Callable[[], boot.BootResult]:
    device.settle()
    result = device.boot_result
    assert result is not None
    return lambda: result


def test_an_image_that_nobody_knows_is_told_apart() -> None:
    desk = Desk()
    handlers = desk.device.image.handlers
    state = handlers[Op.READ, 0]
    foreign = bytes(32)

    def listed(call: Call) -> dict[str, Any]:
        answer = dict(state(call))
        if desk.device.boots > 1:
            answer["images"] = [{"slot": 0, "version": "9.9.9", "hash": foreign, "active": True, "confirmed": True}]
        return answer

    handlers[Op.READ, 0] = listed
    failure = desk.fails()
    assert failure.outcome is Outcome.OTHER_IMAGE
    assert failure.message == "9.9.9 runs, neither 1.1.0 nor 1.0.0"


def test_a_device_that_never_returns_is_given_up_in_time(link: LinkModel) -> None:
    desk = Desk(config=replace(SMALL, boot_s=1e5), model=link)
    desk.device.settle()  # up for the first time, and not again

    async def main() -> float:
        with pytest.raises(FlowError) as failure:
            await desk.update(boot_timeout_s=30)
        assert failure.value.outcome is Outcome.NO_RETURN
        assert failure.value.stage == "return"
        assert "1.1.0 (ran 1.0.0 before): 30 s after its reset" in failure.value.message
        return asyncio.get_running_loop().time()

    assert 30 < run(main()) < 60


def test_a_swap_that_takes_a_minute_is_waited_for(link: LinkModel) -> None:
    desk = Desk(config=replace(SMALL, boot_s=60.0), model=link)
    assert desk.run().ending is Ending.CONFIRMED


def test_a_device_that_crashes_in_circles_is_listened_to_until_it_reverts() -> None:
    desk = Desk(config=replace(SMALL, watchdog_s=40.0), model=LinkModel.uart())
    failure = desk.fails(CRASHING)
    assert failure.outcome is Outcome.REVERTED
    assert any("Booting MCUboot" in event.text for event in desk.events if isinstance(event, DeviceText))


# -- a serial link stays silent after a reset -----------------------------------------------------------------------


def after_reset_silence(desk: Desk, **policy: Any) -> list[float]:
    """When requests reached the device, in seconds since the answer to the reset."""
    times: list[float] = []
    reset_at: list[float] = []

    def look(number: int, message: bytes) -> bool:
        now = asyncio.get_running_loop().time()
        if reset_at:
            times.append(now - reset_at[0])
        if RESET(number, message):
            reset_at.append(now)
        return False

    desk.faults.drop_requests = look
    desk.run(**policy)
    return times


def test_not_a_byte_is_sent_while_a_serial_device_starts() -> None:
    # Without a word from the user it is asked when its text shows that the application is up.
    up_s = SMALL.reset_delay_s + SMALL.boot_s
    assert up_s <= after_reset_silence(Desk(model=LinkModel.uart()))[0] < 3.0
    assert after_reset_silence(Desk(model=LinkModel.uart()), quiet_s=12.0)[0] > 12.0
    assert after_reset_silence(Desk(model=LinkModel.uart()), quiet_s=0.0)[0] < 3.0


def answer_from_recovery(desk: Desk, boots: range) -> None:
    """The bootloader's recovery answers instead of the application at these boots, the first being 1."""

    def only_in_the_application(handler: Handler) -> Handler:
        def answer(call: Call) -> Any:
            if desk.device.boots in boots:
                raise Refused(8)
            return handler(call)

        return answer

    def state(call: Call) -> Any:
        if desk.device.boots in boots:
            return {"images": [{"slot": 0, "version": "1.1.0", "hash": parse_image(NEW).hash}]}
        return list_images(call)

    for group in desk.device.groups.values():
        for key, handler in group.handlers.items():
            if (group.group, *key) != (0, Op.WRITE, 5):  # the reset
                group.handlers[key] = only_in_the_application(handler)
    list_images = desk.device.image.handlers[Op.READ, 0]
    desk.device.image.handlers[Op.READ, 0] = state


def test_a_device_caught_in_recovery_is_reset_once_more_with_a_longer_silence() -> None:
    desk = Desk(model=LinkModel.uart())
    answer_from_recovery(desk, range(2, 3))
    report = desk.run(mode=Mode.CONFIRM_ONLY)
    assert report.ending is Ending.CONFIRMED
    assert report.resets == 2
    assert "9 s of silence" in desk.results(StageName.PROVE)[0]
    second = [event for event in desk.events if isinstance(event, Stage) and event.name is StageName.RETURN][-1]
    assert second.elapsed_s >= 9.0


def test_a_device_that_stays_in_recovery_is_given_up() -> None:
    desk = Desk(model=LinkModel.uart())
    answer_from_recovery(desk, range(2, 1000))
    failure = desk.fails()
    assert failure.outcome is Outcome.NO_RETURN
    assert "recovery" in failure.message


# -- links that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 7, 13])
@pytest.mark.parametrize("what", ["cut_at_request", "cut_at_reply"])
def test_an_upload_goes_on_where_the_link_was_cut(chunk: int, what: str) -> None:
    desk = Desk(faults=Faults(**{what: the(chunk, UPLOAD)}))  # type: ignore[arg-type]
    report = desk.run(chunk_bytes=1000)
    assert report.ending is Ending.CONFIRMED
    assert report.reconnects == 1
    # What was through is not sent again; chunks in the air at the seam may count twice, or not at all.
    assert abs(report.bytes_sent - len(NEW)) <= 3000
    assert any("reconnecting" in note for note in desk.notes)


def test_the_last_answer_lost_with_the_link_does_not_send_the_file_again() -> None:
    chunks = -(-len(NEW) // 1000)
    desk = Desk(faults=Faults(cut_at_reply=the(chunks, UPLOAD)))
    report = desk.run(chunk_bytes=1000)
    assert report.ending is Ending.CONFIRMED
    assert report.reconnects == 1
    assert report.bytes_sent <= len(NEW)


def test_a_link_that_is_cut_again_and_again_is_used_as_long_as_something_gets_through() -> None:
    desk = Desk(faults=Faults(cut_at_request=lambda number, message: UPLOAD(number, message) and number % 7 == 0))
    report = desk.run(chunk_bytes=1000, reconnects=2)
    assert report.ending is Ending.CONFIRMED
    assert report.reconnects > 4


def test_a_link_that_lets_nothing_through_is_given_up() -> None:
    desk = Desk(faults=Faults(cut_at_request=lambda number, message: UPLOAD(number, message) and number > 12))
    with pytest.raises(LinkLost) as failure:
        desk.run(chunk_bytes=1000, reconnects=3)
    assert "run the same command again" in (failure.value.hint or "")
    desk.faults.cut_at_request = ()
    report = desk.run()
    assert report.ending is Ending.CONFIRMED
    assert report.bytes_sent < len(NEW)


def test_a_device_that_resets_during_the_upload_is_updated_from_the_start() -> None:
    desk = Desk()
    chunks = 0

    def crash(number: int, message: bytes) -> bool:
        nonlocal chunks
        chunks += UPLOAD(number, message)
        if chunks > 7 and desk.device.boots == 1:
            desk.device.reset(asyncio.get_running_loop().time())
            return True
        return False

    desk.faults.drop_requests = crash
    report = desk.run(chunk_bytes=1000)
    assert report.ending is Ending.CONFIRMED
    assert report.bytes_sent > len(NEW) + 4000


def test_silence_in_the_middle_of_an_upload_is_taken_for_a_lost_link() -> None:
    # A datagram link cannot be lost.
    def silent(number: int, message: bytes) -> bool:
        return UPLOAD(number, message) and number >= 10 and asyncio.get_running_loop().time() < 26.0

    desk = Desk(model=LinkModel.datagram(), faults=Faults(drop_requests=silent))
    report = desk.run(chunk_bytes=1000)
    assert report.ending is Ending.CONFIRMED
    assert report.reconnects == 1


def test_silence_from_the_first_chunk_on_is_no_lost_link() -> None:
    desk = Desk(model=LinkModel.datagram(), faults=Faults(drop_requests=UPLOAD))
    with pytest.raises(RequestTimeout, match="stuck at 0 %"):
        desk.run(erase_timeout_s=10)


@pytest.mark.parametrize("select", [UPLOAD, MARK, RESET, LIST], ids=["upload", "mark", "reset", "list"])
@pytest.mark.parametrize("what", ["drop_requests", "drop_replies", "cut_at_request", "cut_at_reply"])
@pytest.mark.parametrize("which", [1, 2, 3])
@pytest.mark.parametrize("model", ["ideal", "udp"])
def test_one_lost_message_of_any_kind_changes_nothing(select: Any, what: str, which: int, model: str) -> None:
    desk = Desk(model=LINKS[model], faults=Faults(**{what: the(which, select)}))  # type: ignore[arg-type]
    assert desk.run().ending is Ending.CONFIRMED
    assert desk.after_reset() == "1.1.0"


def test_a_reset_that_never_reached_the_device_is_sent_again() -> None:
    desk = Desk(model=LinkModel.datagram(), faults=Faults(drop_requests=the(1, RESET)))
    report = desk.run()
    assert report.ending is Ending.CONFIRMED
    assert report.resets == 2
    assert "may not have reached" in desk.results(StageName.PROVE)[0]


def test_the_old_application_may_answer_for_a_while_after_the_reset() -> None:
    # Nothing is concluded from it, and nothing is sent twice.
    desk = Desk(config=replace(SMALL, reset_delay_s=4.0), model=LinkModel.datagram())
    report = desk.run(quiet_s=0.0)
    assert report.ending is Ending.CONFIRMED
    assert report.resets == 1


def test_a_reset_that_the_application_refuses_leaves_the_image_marked() -> None:
    desk = Desk()

    def refuse(call: Call) -> dict[str, Any]:
        raise Refused(11)

    reset = desk.device.groups[0].handlers[Op.WRITE, 5]
    desk.device.groups[0].handlers[Op.WRITE, 5] = refuse
    with pytest.raises(DeviceError) as failure:
        desk.run()
    assert "installed by the next reset" in (failure.value.hint or "")
    desk.device.groups[0].handlers[Op.WRITE, 5] = reset
    report = desk.run()
    assert report.ending is Ending.CONFIRMED
    assert report.bytes_sent == 0


def test_a_link_lost_between_proof_and_confirm_is_opened_again() -> None:
    desk = Desk(faults=Faults(cut_at_request=the(2, MARK)))
    report = desk.run()
    assert report.ending is Ending.CONFIRMED
    assert report.reconnects == 1
    assert desk.after_reset() == "1.1.0"


def test_a_confirm_that_the_device_refuses_is_reported_as_unconfirmed() -> None:
    desk = Desk()
    confirm = desk.device.image.handlers[Op.WRITE, 0]

    def refuse(call: Call) -> Any:
        if desk.device.boots > 1:
            raise Refused(11)
        return confirm(call)

    desk.device.image.handlers[Op.WRITE, 0] = refuse
    failure = desk.fails()
    assert failure.outcome is Outcome.NOT_CONFIRMED
    assert "1.1.0 runs, but could not be confirmed (the device refused" in failure.message


def test_a_confirm_without_effect_is_reported_as_unconfirmed() -> None:
    desk = Desk()
    mark, state = desk.device.image.handlers[Op.WRITE, 0], desk.device.image.state

    def pretend(call: Call) -> Any:
        return mark(call) if desk.device.boots == 1 else state(call)

    desk.device.image.handlers[Op.WRITE, 0] = pretend
    failure = desk.fails()
    assert failure.outcome is Outcome.NOT_CONFIRMED
    assert desk.after_reset() == "1.0.0"


def test_a_device_that_vanishes_before_the_confirm_is_reported_as_unconfirmed() -> None:
    desk = Desk(faults=Faults(drop_requests=the(range(2, 1000), MARK)), model=LinkModel.datagram())
    failure = desk.fails(reconnects=2)
    assert failure.outcome is Outcome.NOT_CONFIRMED
    assert "no answer to the image mark" in failure.message


def test_a_device_that_reverts_instead_of_being_confirmed_is_reported_as_reverted() -> None:
    desk = Desk()

    def crash(number: int, message: bytes) -> bool:
        if MARK(number, message) and desk.device.boots == 2:
            desk.device.reset(asyncio.get_running_loop().time())
            return True
        return False

    desk.faults.drop_requests = crash
    failure = desk.fails()
    assert failure.outcome is Outcome.REVERTED
    assert desk.running == "1.0.0"


def test_an_answer_without_room_for_the_list_is_no_refusal() -> None:
    desk = Desk()
    mark = desk.device.image.handlers[Op.WRITE, 0]

    def no_room(call: Call) -> Any:
        mark(call)
        raise Refused(7)

    desk.device.image.handlers[Op.WRITE, 0] = no_room
    assert desk.run().ending is Ending.CONFIRMED


def test_a_device_that_is_not_there_is_an_error_of_its_own() -> None:
    desk = Desk(old=b"\xff" * 64)
    with pytest.raises(DeviceNotFound):
        desk.run()


@pytest.mark.parametrize("noticed", [True, False])
def test_a_link_lost_just_before_the_reset_is_opened_for_it(noticed: bool) -> None:
    desk = Desk(model=LinkModel.datagram())
    desk.device.install(NEW, slot=1)
    desk.device.settle()
    desk.device.bootloader.set_pending(True)

    async def cut(plan: Plan) -> bool:
        desk.transport.cut()
        if noticed:
            await asyncio.sleep(1)
        return True

    report = run(update(desk.session(), parse_image(NEW), on_plan=cut))
    assert report.ending is Ending.CONFIRMED
    assert report.resets == (1 if noticed else 2)
    assert desk.device.boots == 2


def test_a_padded_file_is_sent_to_its_end_when_the_link_is_lost_in_the_padding() -> None:
    chunks = SMALL.slot_size // 1000
    desk = Desk(faults=Faults(cut_at_request=the(chunks - 5, UPLOAD)))
    report = desk.run(padded(NEW, SMALL.slot_size, confirmed=False), chunk_bytes=1000, mode=Mode.CONFIRM_ONLY)
    assert report.ending is Ending.CONFIRMED
    assert desk.results(StageName.UPLOAD) == ["1.1.0 is in slot 1"]
    assert report.bytes_sent == pytest.approx(SMALL.slot_size, abs=2000)


# -- ended from outside ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["ideal", "uart", "usb", "udp"])
def test_an_update_cancelled_at_any_moment_is_completed_by_the_next(model: str) -> None:
    async def cancelled(desk: Desk, after_s: float) -> bool:
        task = asyncio.ensure_future(desk.update(chunk_bytes=1000))
        done, _ = await asyncio.wait([task], timeout=after_s)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() != bool(done)
        with pytest.raises(LinkLost):
            await desk.transport.send([bytes(8)])
        assert len(asyncio.all_tasks()) == 1
        return bool(done)

    whole_s = Desk(model=LINKS[model]).run(chunk_bytes=1000).elapsed_s
    for step in range(40):
        desk = Desk(model=LINKS[model])
        run(cancelled(desk, whole_s * step / 40))
        desk.device.settle()
        assert desk.device.power is Power.RUNNING
        report = desk.run()
        assert report.ending in (Ending.CONFIRMED, Ending.NOTHING_TO_DO)
        assert desk.after_reset() == "1.1.0"


def test_the_link_is_closed_whatever_happens() -> None:
    closed: list[str] = []

    async def main(desk: Desk, image: bytes) -> None:
        try:
            await desk.update(image)
        except FlowError as error:
            closed.append(str(error.outcome))
        with pytest.raises(LinkLost):
            await desk.transport.send([b"\0" * 8])

    run(main(Desk(), NEW))
    run(main(Desk(), CRASHING))
    run(main(Desk(), build_image("1.1.0", payload_size=70_000)))
    assert closed == ["Outcome.REVERTED", "None"]


def test_the_flow_asks_for_the_image_group_by_its_role() -> None:
    asked: list[type] = []

    class Watching(SessionDevice):
        async def connect(self, timeout_s: float = 15.0, *, name: str | None = None) -> Any:
            client = await super().connect(timeout_s, name=name)
            group = client.group
            client.group = lambda kind: (asked.append(kind), group(kind))[1]  # type: ignore[method-assign,func-returns-value]
            return client

    desk = Desk()
    run(update(Watching(Address.parse("sim:desk"), desk.transport, default_registry()), parse_image(NEW)))
    assert ImageGroup in asked


# -- a yes is no proof, and a missing answer no failure --------------------------------------------------------------


def asks(command: int, op: Op, group: int = 1) -> Callable[[int, bytes], bool]:
    """Selects requests of one command alone."""
    return lambda number, message: (message[0] & 7, message[5], message[7]) == (op, group, command)


@pytest.mark.parametrize("answer", [*BODIES, "silent"])
@pytest.mark.parametrize("what", ["mark and confirm", "reset"])
def test_an_answer_that_says_nothing_changes_nothing(what: str, answer: str) -> None:
    if what == "reset" and answer == "no room":
        pytest.skip("a refusal")
    desk = Desk()
    select = asks(0, Op.WRITE) if what == "mark and confirm" else asks(5, Op.WRITE, group=0)
    spoil(desk.device, select, BODIES.get(answer, lambda body: None))
    report = desk.run()
    assert (report.ending, report.resets) == (Ending.CONFIRMED, 1)
    assert desk.after_reset() == "1.1.0"


def test_the_last_answer_of_an_upload_need_not_be_readable() -> None:
    desk = Desk()
    last = -(-len(NEW) // 1000)
    spoil(desk.device, the(range(last, 1000), UPLOAD), BODIES["cut"])
    report = desk.run(chunk_bytes=1000, window=1)
    assert report.ending is Ending.CONFIRMED
    assert report.bytes_sent <= len(NEW)


def test_an_upload_that_the_device_itself_finds_wrong_is_neither_marked_nor_booted() -> None:
    desk = Desk(replace(SMALL, image_check=True))
    upload = desk.device.image.handlers[Op.WRITE, 1]

    def mismatched(call: Call) -> Any:
        answer = dict(upload(call))
        return {**answer, "match": False} if "match" in answer else answer

    desk.device.image.handlers[Op.WRITE, 1] = mismatched
    with pytest.raises(UploadMismatch):
        desk.run()
    assert desk.device.boots == 1
    assert desk.after_reset() == "1.0.0"


def test_an_erase_without_effect_is_told_and_the_upload_goes_on() -> None:
    desk = Desk()
    desk.device.install(build_image("1.0.5", payload_size=3000), slot=1)
    desk.device.image.handlers[Op.WRITE, 5] = lambda call: {}
    report = desk.run(erase=True)
    assert desk.results(StageName.ERASE) == ["not erased, although the device says so: its image is still listed"]
    assert "the erase has had no effect; the upload erases by itself" in desk.notes
    assert report.ending is Ending.CONFIRMED


def test_an_upload_after_an_erase_begins_at_its_beginning() -> None:
    # Old servers keep the place of the upload that they have erased.
    desk = Desk(faults=Faults(cut_at_request=lambda number, message: UPLOAD(number, message) and number > 12))
    with pytest.raises(LinkLost):
        desk.run(chunk_bytes=1000, reconnects=0)
    desk.faults.cut_at_request = ()
    image = desk.device.image
    erase = image.handlers[Op.WRITE, 5]

    def keeps_its_place(call: Call) -> Any:
        session = image.session
        answer = erase(call)
        image.session = session
        return answer

    image.handlers[Op.WRITE, 5] = keeps_its_place
    report = desk.run(erase=True)
    assert report.ending is Ending.CONFIRMED
    assert report.bytes_sent == len(NEW)


def test_what_was_only_uploaded_and_cannot_be_looked_at_is_said_to_be_unchecked() -> None:
    desk = Desk()
    spoil(desk.device, the(range(2, 1000), asks(0, Op.READ)), BODIES["noise"])
    report = desk.run(mode=Mode.UPLOAD_ONLY)
    assert report.ending is Ending.UPLOADED
    assert "says the device; not checked: " in desk.results(StageName.UPLOAD)[0]


def test_an_update_that_cannot_look_at_its_upload_says_how_far_it_has_come() -> None:
    desk = Desk()
    spoil(desk.device, the(range(2, 1000), asks(0, Op.READ)), BODIES["noise"])
    with pytest.raises(MalformedReply) as failure:
        desk.run()
    assert "the upload is complete, and nothing is marked" in str(failure.value.hint)
    assert desk.after_reset() == "1.0.0"


# -- time ------------------------------------------------------------------------------------------------------------


def silent_about_what_it_does_not_know(desk: Desk) -> None:
    """As MCUboot before 2023 and old Zephyr."""

    def unknown(number: int, message: bytes) -> bool:
        return (message[5], message[7]) in {(0, 0), (0, 6), (0, 7), (0, 8), (1, 6)}

    desk.faults.drop_replies = unknown


def first_chunk_s(desk: Desk, session: SessionDevice) -> float:
    """Seconds until the first chunk has left."""
    times: list[float] = []

    def look(number: int, message: bytes) -> bool:
        if UPLOAD(number, message):
            times.append(asyncio.get_running_loop().time())
        return False

    desk.faults.drop_requests = look
    report = run(update(session, parse_image(NEW), DfuPolicy(mode=Mode.UPLOAD_ONLY, erase=True)))
    assert report.ending is Ending.UPLOADED
    return times[0]


def test_what_a_device_leaves_unanswered_costs_seconds_and_the_next_time_less(tmp_path: Path) -> None:
    desk = Desk(model=LinkModel.uart(), config=replace(SMALL, timing=INSTANT))
    silent_about_what_it_does_not_know(desk)
    session = SessionDevice(
        Address.parse("sim:desk"), desk.transport, default_registry(), memory=Memory(tmp_path), name="board 7"
    )
    first = first_chunk_s(desk, session)
    again = first_chunk_s(desk, session)
    assert first < 6.0
    assert again < first - 2.0
    (known,) = Memory(tmp_path).known()
    assert known.learned.unanswered == {"bootloader", "buffers", "slots"}
    # The next firmware knows them: what is remembered keeps nobody from asking.
    desk.faults.drop_replies = ()
    first_chunk_s(desk, session)
    (known,) = Memory(tmp_path).known()
    assert known.learned.unanswered == frozenset()


def test_an_update_is_remembered_whatever_becomes_of_the_link(tmp_path: Path) -> None:
    desk = Desk(model=LinkModel.uart())
    session = SessionDevice(Address.parse("sim:desk"), desk.transport, default_registry(), memory=Memory(tmp_path))
    run(update(session, parse_image(NEW)))
    assert [one.id for one in Memory(tmp_path).known()] == ["sim:desk"]


@pytest.mark.parametrize("delay_s", [3.0, 8.0])
def test_a_reset_that_comes_seconds_after_its_answer_is_waited_for(delay_s: float) -> None:
    desk = Desk(config=replace(SMALL, reset_delay_s=delay_s), model=LinkModel.datagram())
    report = desk.run()
    assert (report.ending, report.resets) == (Ending.CONFIRMED, 1)
    assert any("waiting" in note for note in desk.notes)


def test_a_question_that_met_the_start_is_asked_anew_when_the_device_says_that_it_is_up() -> None:
    """Without that, the patience for a lost question grows to 15 s while the device has long been up."""
    desk = Desk(config=replace(SMALL, boot_s=8.0), model=LinkModel.uart())
    times: list[float] = []

    def look(number: int, message: bytes) -> bool:
        if LIST(number, message) and desk.device.boots > 1:
            times.append(asyncio.get_running_loop().time())
        return False

    desk.faults.drop_requests = look
    up: list[float] = []

    def changed(power: Power) -> None:
        if power is Power.RUNNING:
            up.append(asyncio.get_running_loop().time())

    desk.device.listeners.append(changed)
    desk.run(quiet_s=0.5)
    assert min(at for at in times if at > up[-1]) - up[-1] < 1.0


def test_a_start_that_shows_in_the_text_needs_no_second_reset() -> None:
    desk = Desk(model=LinkModel.uart())
    desk.device.bootloader.boot = _boots_the_old(desk.device)  # type: ignore[method-assign]
    failure = desk.fails()
    assert failure.outcome is Outcome.NEVER_SWAPPED
    assert desk.stages.count("reset") == 1


def test_a_long_wait_says_what_it_is_for_and_how_long() -> None:
    desk = Desk(config=replace(SMALL, boot_s=60.0), model=LinkModel.datagram())
    desk.run(boot_timeout_s=90)
    begun = [event.text for event in desk.events if isinstance(event, Stage) and not event.finished]
    assert "waiting for the device to return, for up to 90 s" in begun
    words = [note for note in desk.notes if note.startswith("no answer yet, ")]
    assert 3 <= len(words) <= 6
    assert all("it is asked until 90 s" in word for word in words)


# -- which device ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["reset", "lost link"])
def test_another_device_in_the_place_of_this_one_is_not_updated(when: str) -> None:
    class Exchanged(SimulatedTransport):
        opened = 0

        async def open(self, timeout_s: float) -> None:
            self.opened += 1
            await super().open(timeout_s)

        @property
        def identity(self) -> str | None:
            return "board A" if self.opened < 2 else "board B"

    desk = Desk(faults=Faults(cut_at_request=the(5, UPLOAD)) if when == "lost link" else None)
    desk.transport = Exchanged(desk.device, faults=desk.faults)
    with pytest.raises((FlowError, WrongDevice), match="board B instead of board A") as failure:
        desk.run(chunk_bytes=1000, boot_timeout_s=20)
    if isinstance(failure.value, FlowError):
        assert (when, failure.value.outcome) == ("reset", Outcome.NO_RETURN)
    assert "confirm" not in desk.stages


# -- the file ---------------------------------------------------------------------------------------------------------


def test_a_build_that_writes_the_file_during_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcumgrx.mcuboot.files.IN_MEMORY_BYTES", 10_000)
    monkeypatch.setattr("mcumgrx.mcuboot.file_bytes._BLOCK", 1024)
    monkeypatch.setattr("mcumgrx.mcuboot.file_bytes._BLOCKS_KEPT", 1)
    path = tmp_path / "zephyr.signed.bin"
    path.write_bytes(NEW)
    desk = Desk(model=LinkModel.uart())

    def build(event: Event) -> None:
        desk.events.append(event)
        if isinstance(event, Bytes) and event.done > 4000:
            path.write_bytes(CRASHING)

    with pytest.raises(ImageError, match="since it was opened"):
        run(update(desk.session(), load_image(path), DfuPolicy(), build))
    assert desk.stages == ["connect", "read", "plan"]
    # Nothing is marked: a reset changes nothing, and the update that follows is one to what was built.
    assert desk.after_reset() == "1.0.0"
    path.write_bytes(build_image("1.2.0", payload_size=12288))
    report = desk.run(load_image(path))
    assert (report.ending, report.bytes_sent) == (Ending.CONFIRMED, report.size)
    assert desk.running == "1.2.0"
