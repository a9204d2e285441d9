"""Updates through MCUboot's serial recovery, on the simulated device; what the device ends up with is looked at."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from mcumgrx.client import Client
from mcumgrx.contracts import HealthCheck
from mcumgrx.errors import DeviceError, FlowError, Outcome, PlanRefused, RequestTimeout
from mcumgrx.events import StageName
from mcumgrx.flows import DfuPolicy, Ending, Mode, OnPlan, Plan, Report, make_plan, update
from mcumgrx.flows.device_state import DeviceState, in_recovery
from mcumgrx.flows.listing import NO_LIST, image_list
from mcumgrx.flows.recovery_plan import upload_number
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import ImageState, Slot, SlotInfo
from mcumgrx.protocol.codes import SmpError
from mcumgrx.registry import default_registry
from mcumgrx.sim.bootloader import Mode as BootMode
from mcumgrx.sim.device import DeviceConfig, Power, RecoveryConfig
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel
from mcumgrx.sim.loop import run

from .test_dfu import NEW, OLD, SMALL, UPLOAD, Desk, the

pytestmark = pytest.mark.codec

RECOVERY = RecoveryConfig(verify_s=0.01)
PLAIN = replace(SMALL, recovery=RECOVERY)


def recovering(
    config: DeviceConfig = PLAIN, model: LinkModel | None = None, *, second: bytes | None = None, **options: Any
) -> Desk:
    """A device that has been asked for its recovery, built with these options; `second` runs as image 1."""
    desk = Desk(replace(config, recovery=replace(config.recovery or RECOVERY, **options)), model)
    if second is not None:
        desk.device.install(second, 2)
    desk.device.advance(0.0)
    desk.device.request_reset(boot_mode=1)
    desk.device.reset(0.0)
    desk.device.settle()
    assert desk.device.power is Power.RECOVERY
    return desk


# -- who answers ------------------------------------------------------------------------------------------------------


def what_answers(desk: Desk) -> ImageState:
    async def main() -> ImageState:
        async with Client(desk.transport, groups=default_registry().group) as client:
            return await image_list(client)

    return run(main())


@pytest.mark.parametrize("flags", [False, True])
def test_nothing_runs_in_a_recovery_whatever_its_list_says(flags: bool) -> None:
    images = what_answers(recovering(image_state=flags))
    assert in_recovery(images)
    (slot,) = images.slots
    assert (slot.slot, slot.version, slot.active, slot.bootable) == (0, "1.0.0", False, flags)


@pytest.mark.parametrize(
    ("firmware", "frugal"),
    [("zephyr-4.4", False), ("zephyr-4.4", True), ("zephyr-3.2", False), ("zephyr-3.2", True), ("mynewt", False)],
)
def test_an_application_is_no_recovery(firmware: str, frugal: bool) -> None:
    images = what_answers(Desk(DeviceConfig.like(firmware, slot_size=64 * 1024, frugal_list=frugal)))
    assert not in_recovery(images)
    assert images.slots[0].active


def test_a_recovery_without_a_list_is_told_from_an_application_without_one() -> None:
    assert what_answers(recovering(image_list=False)) is NO_LIST
    desk = Desk(replace(SMALL, groups=(0,)))
    with pytest.raises(DeviceError) as refusal:
        what_answers(desk)
    assert refusal.value.says(SmpError.NOT_SUPPORTED)


# -- found in recovery ------------------------------------------------------------------------------------------------

LINKS = {"ideal": LinkModel.ideal(), "uart": LinkModel.uart(), "raw": LinkModel.uart(raw=True)}


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"params": False},
        {"image_state": True},
        {"echo": True, "slot_info": True},
        {"direct_upload": True, "slot_info": True},
        {"erase_progressively": True},
        {"window_s": 0.5},
    ],
    ids=lambda options: "+".join(options) or "default",
)
def test_a_device_in_recovery_gets_the_file_and_runs_it(link: str, options: dict[str, Any]) -> None:
    desk = recovering(model=LINKS[link], **options)
    report = desk.run()
    assert report.ending is Ending.CONFIRMED
    assert [step.name for step in report.plan.steps] == ["upload", "reset", "prove"]
    assert report.plan.no_way_back
    assert report.resets == 1
    assert desk.running == "1.1.0"
    assert desk.after_reset() == "1.1.0"
    assert desk.device.boots < 5


def test_what_lies_in_slot_0_already_is_only_started() -> None:
    desk = recovering()
    report = desk.run(OLD)
    assert report.ending is Ending.CONFIRMED
    assert [step.name for step in report.plan.steps] == ["reset", "prove"]
    assert report.plan.no_way_back == ()
    assert desk.sent == 0
    assert desk.running == "1.0.0"


def test_only_an_upload_leaves_the_device_in_its_recovery() -> None:
    desk = recovering()
    assert desk.run(mode=Mode.UPLOAD_ONLY).ending is Ending.UPLOADED
    assert desk.device.power is Power.RECOVERY
    assert desk.run(mode=Mode.UPLOAD_ONLY).ending is Ending.NOTHING_TO_DO
    assert desk.run().ending is Ending.CONFIRMED
    assert desk.running == "1.1.0"


def test_a_device_without_any_application_gets_one() -> None:
    desk = Desk(PLAIN)
    area = desk.device.bootloader.slots[0]
    desk.device.flash.poke(area.offset, b"\xff" * area.size)
    assert desk.run().ending is Ending.CONFIRMED
    assert desk.running == "1.1.0"


def test_a_file_that_the_bootloader_does_not_accept_is_told_before_the_reset() -> None:
    desk = recovering()
    desk.device.bootloader.verify = lambda image: str(image.version) != "1.1.0"
    failure = desk.fails()
    assert failure.outcome is Outcome.REJECTED
    assert "does not list it" in failure.message
    assert desk.device.power is Power.RECOVERY


def test_an_application_without_an_image_list_is_what_the_recovery_has_listed() -> None:
    desk = recovering(replace(PLAIN, groups=(0,)))
    report = desk.run()
    assert report.ending is Ending.ANSWERS
    assert "the recovery has listed it in slot 0" in desk.results(StageName.PROVE)[0]
    assert desk.running == "1.1.0"


@pytest.mark.parametrize("options", [{"image_list": False}, {"hashes": False}])
def test_where_nobody_lists_the_image_that_is_said(options: dict[str, Any]) -> None:
    desk = recovering(replace(PLAIN, groups=(0,)), **options)
    failure = desk.fails()
    assert (failure.outcome, failure.exit) == (Outcome.UNSEEN, 9)
    assert "which lists no hash of it" in desk.results(StageName.UPLOAD)[0]
    assert desk.running == "1.1.0"
    listed = recovering(**options)
    assert listed.run().ending is Ending.CONFIRMED
    assert listed.running == "1.1.0"


def test_an_application_without_smp_shows_by_its_text_that_it_is_up() -> None:
    desk = recovering(replace(PLAIN, groups=()), LinkModel.uart())
    desk.faults.drop_replies = lambda number, message: desk.device.power is Power.RUNNING
    assert desk.run().ending is Ending.ANSWERS
    assert desk.results(StageName.RETURN) == ["the application is up, by its text; it answers nothing"]
    assert desk.running == "1.1.0"


def test_an_application_that_never_answers_is_told_as_one_of_which_there_is_no_sign() -> None:
    desk = recovering(replace(PLAIN, groups=()))
    desk.faults.drop_replies = lambda number, message: desk.device.power is Power.RUNNING
    failure = desk.fails(boot_timeout_s=30)
    assert failure.outcome is Outcome.NO_RETURN
    assert "without SMP" in str(failure.hint)


@pytest.mark.parametrize("times", [1, 2])
def test_a_device_that_returns_to_its_recovery_is_reset_once_more(times: int) -> None:
    desk = recovering(model=LinkModel.uart())
    held = iter([1] * times)  # the pin that asks for recovery
    reset = desk.device.request_reset
    desk.device.request_reset = lambda boot_mode=0: reset(next(held, 0))  # type: ignore[method-assign]
    if times == 1:
        assert desk.run().resets == 2
        assert desk.running == "1.1.0"
    else:
        failure = desk.fails()
        assert failure.outcome is Outcome.NO_RETURN
        assert "even after another reset" in failure.message
    assert "9 s of silence" in desk.results(StageName.PROVE)[0]


@pytest.mark.parametrize("chunk", [1, 3, 9])
@pytest.mark.parametrize("what", ["drop_replies", "cut_at_reply", "cut_at_request"])
@pytest.mark.parametrize("flags", [False, True])
def test_an_upload_to_a_recovery_survives_losses(chunk: int, what: str, flags: bool) -> None:
    desk = recovering(image_state=flags)
    setattr(desk.faults, what, the(chunk, UPLOAD))
    assert desk.run(chunk_bytes=1000).ending is Ending.CONFIRMED
    assert desk.running == "1.1.0"


def test_two_images_go_to_their_own_primary_slots() -> None:
    net = build_image("2.1.0", payload_size=4096, image=1)
    for options in ({}, {"slot_info": True}, {"slot_info": True, "direct_upload": True}):
        second = build_image("2.0.0", payload_size=4096, image=1)
        desk = recovering(replace(PLAIN, images=2), second=second, **options)
        files = {0: parse_image(NEW), 1: parse_image(net)}
        report = run(update(desk.session(), files, DfuPolicy(), desk.events.append))
        assert report.ending is Ending.CONFIRMED
        assert [step.name for step in report.plan.steps] == ["upload", "upload", "reset", "prove", "prove"]
        assert report.resets == 1
        assert desk.running == "1.1.0"
        assert str(desk.device.boot_results[1].version) == "2.1.0"


# -- into recovery ----------------------------------------------------------------------------------------------------

SINGLE_SLOT = replace(PLAIN, mode=BootMode.SINGLE_SLOT)


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("options", [{}, {"boot_mode": False, "window_s": 0.5}, {"window_s": 1.0}])
@pytest.mark.parametrize("config", [PLAIN, SINGLE_SLOT], ids=["swap", "single"])
def test_an_application_is_left_for_the_recovery(link: str, options: dict[str, Any], config: DeviceConfig) -> None:
    desk = Desk(replace(config, recovery=replace(RECOVERY, **options)), LINKS[link])
    report = desk.run(recovery=config is PLAIN)
    assert report.ending is Ending.CONFIRMED
    assert [step.name for step in report.plan.steps] == ["enter-recovery", "upload", "reset", "prove"]
    assert report.plan.no_way_back
    assert report.resets == 2
    assert desk.results(StageName.ENTER) == ["the bootloader's serial recovery answers"]
    assert desk.running == "1.1.0"
    assert desk.run(recovery=True).ending is Ending.NOTHING_TO_DO
    assert desk.device.boots == 3


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("recovery", [None, replace(RECOVERY, boot_mode=False)])
def test_a_device_that_comes_back_as_its_application_is_left_as_it_was(
    link: str, recovery: RecoveryConfig | None
) -> None:
    desk = Desk(replace(SMALL, recovery=recovery), LINKS[link])
    refusal = desk.fails(recovery=True)
    assert isinstance(refusal, PlanRefused)
    assert "CONFIG_MCUMGR_GRP_OS_RESET_BOOT_MODE" in str(refusal.hint)
    assert desk.running == "1.0.0"
    assert desk.sent == 0


@pytest.mark.parametrize("link", ["uart", "raw"])
@pytest.mark.parametrize("latency_s", [0.0, 0.2])
def test_a_silent_device_is_caught_while_it_starts(link: str, latency_s: float) -> None:
    model = replace(LINKS[link], latency_s=latency_s / 2)
    desk = Desk(replace(PLAIN, recovery=replace(RECOVERY, window_s=0.5)), model)
    desk.faults.drop_replies = lambda number, message: desk.device.boots == 1

    async def main() -> Report:
        asyncio.get_running_loop().call_later(20.0, lambda: desk.device.reset(asyncio.get_running_loop().time()))
        return await desk.update(recovery=True)

    report = run(main())
    assert report.ending is Ending.CONFIRMED
    assert [step.name for step in report.plan.steps] == ["upload", "reset", "prove"]
    assert any("reset the device now" in note for note in desk.notes)
    assert desk.running == "1.1.0"


def test_nobody_waits_longer_than_the_time_to_boot() -> None:
    desk = Desk(replace(PLAIN, groups=()))
    desk.faults.drop_replies = lambda number, message: True
    with pytest.raises(RequestTimeout, match="nothing has answered for 30 s"):
        desk.run(recovery=True, boot_timeout_s=30)
    assert desk.device.boots == 1


@pytest.mark.parametrize("model", [LinkModel.ble(), LinkModel.datagram()])
def test_a_link_that_the_bootloader_does_not_have_is_refused(model: LinkModel) -> None:
    for config, wanted in ((SINGLE_SLOT, False), (PLAIN, True)):
        refusal = Desk(config, model).fails(recovery=wanted)
        assert isinstance(refusal, PlanRefused)
        assert "not reached over this link" in refusal.message


def test_a_recovery_that_leaves_by_itself_is_kept_awake_and_looked_at() -> None:
    desk = recovering(inactivity_s=3.0)

    async def slowly(plan: Plan) -> bool:
        await asyncio.sleep(60)
        return True

    async def main(agree: OnPlan) -> Report:
        return await update(desk.session(), parse_image(NEW), DfuPolicy(), desk.events.append, on_plan=agree)

    assert run(main(slowly)).ending is Ending.CONFIRMED
    assert desk.running == "1.1.0"
    desk = recovering(inactivity_s=3.0)

    async def pressed(plan: Plan) -> bool:
        desk.device.reset(asyncio.get_running_loop().time())
        await asyncio.sleep(5)
        return True

    with pytest.raises(FlowError, match="was left: an application answers"):
        run(main(pressed))
    assert desk.running == "1.0.0"


# -- plans ------------------------------------------------------------------------------------------------------------


def test_what_a_recovery_cannot_keep_is_refused() -> None:
    image = parse_image(NEW)
    held = DeviceState(ImageState((Slot(0, 0, "1.2.0", bytes(32)),)))
    check = HealthCheck("fine", lambda connection, trial: fine())
    for policy, text in (
        (DfuPolicy(upgrade_only=True), "1.1.0 is not newer than 1.2.0"),
        (DfuPolicy(rollback=True, checks=(check,)), "--rollback cannot be kept"),
        (DfuPolicy(board="dk"), "does not say which board"),
        (DfuPolicy(image=1), "lists no image 1"),
    ):
        with pytest.raises(PlanRefused, match=text) as refusal:
            make_plan(image, held, policy)
        assert refusal.value.hint
    sizes = replace(held, slots=(SlotInfo(0, 0, size=1000),))
    with pytest.raises(PlanRefused, match="does not fit"):
        make_plan(image, sizes, DfuPolicy())
    with pytest.raises(PlanRefused, match="256 bits"):
        make_plan(image, replace(held, images=ImageState((Slot(0, 0, "1.2.0", bytes(64)),))), DfuPolicy())


def test_a_recovery_plan_tells_what_it_does() -> None:
    image = parse_image(NEW)
    for mode in Mode:
        for images in (ImageState(()), ImageState((Slot(0, 0, "1.0.0", bytes(32)),))):
            plan = make_plan(image, DeviceState(images), DfuPolicy(mode, erase=True, ensure_version=True))
            names = [step.name for step in plan.steps]
            assert names == (["upload"] if mode is Mode.UPLOAD_ONLY else ["upload", "reset", "prove"])
            assert "no way back" in plan.no_way_back[0]
            assert "nothing is erased before: the upload does that" in plan.notes
            assert any("knows no test boot" in text for text in plan.warnings) is (mode is Mode.TEST_ONLY)
    same = ImageState((Slot(0, 0, "1.1.0", bytes(32)),))
    assert make_plan(image, DeviceState(same), DfuPolicy(ensure_version=True)).texts[0].startswith("reset")
    waits = ImageState((*same.slots, Slot(0, 1, "1.0.0", bytes(range(32)), pending=True)))
    plan = make_plan(image, DeviceState(waits), DfuPolicy())
    assert "slot 1 holds 1.0.0, which the reset installs in its place" in plan.warnings


@pytest.mark.parametrize(
    ("told", "core", "number"),
    [(None, False, 1), (1, False, 1), (3, False, 3), (7, False, 1), (None, True, 3)],
)
def test_the_number_that_an_upload_names(told: int | None, core: bool, number: int) -> None:
    state = DeviceState(ImageState(()), (SlotInfo(1, 0, 65536, None, told), SlotInfo(1, 1, 65536, None, told)))
    assert upload_number(1, state, network_core=core) == number
    assert upload_number(0, state) == 0
    assert upload_number(1, DeviceState(ImageState(()))) == 1


async def fine() -> str | None:
    return None
