"""What a policy refuses, leaves alone or does first: the plans without a device, then on the simulated one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mcumgrx.errors import DeviceError, ErrorCode, Outcome, PlanRefused
from mcumgrx.flows import DeviceState, DfuPolicy, Ending, Mode, Plan, Unconfirmed, make_plan
from mcumgrx.flows.device_state import is_board
from mcumgrx.flows.plan import GoBack, Keep
from mcumgrx.flows.policy import InvalidPolicy
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import Bootloader, BootloaderMode, ImageState
from mcumgrx.protocol.codes import ImageErrorCode, OsErrorCode
from mcumgrx.protocol.header import Op
from mcumgrx.sim.config import OsInfo
from mcumgrx.sim.groups import Call, GroupError, Handler
from mcumgrx.sim.images import build_image

from .test_dfu import NEW, OLD, RESET, SMALL, Desk, is_request, the
from .test_plan import OLD_HASH, THIRD_HASH, listed, slot

IMAGE = parse_image(NEW)
OTHER = build_image("1.0.5", payload_size=9000)
REBUILT = build_image("1.1.0", payload_size=9000)


def planned(images: ImageState, mode: int = BootloaderMode.SWAP_MOVE, board: str | None = None, **policy: Any) -> Plan:
    return make_plan(
        IMAGE, DeviceState(images, bootloader=Bootloader("MCUboot", mode), board=board), DfuPolicy(**policy)
    )


def refused(images: ImageState, mode: int = BootloaderMode.SWAP_MOVE, **more: Any) -> PlanRefused:
    with pytest.raises(PlanRefused) as refusal:
        planned(images, mode, **more)
    assert refusal.value.hint
    assert refusal.value.exit == 11
    return refusal.value


RUNNING = listed(slot(0, "1.0.0", OLD_HASH, "ac"))
ON_TRIAL = listed(slot(0, "1.0.5", THIRD_HASH, "a"), slot(1, "1.0.0", OLD_HASH, "c"))


def refusing(code: ErrorCode) -> Handler:
    """What a server does that refuses a command."""

    def handler(call: Call) -> dict[str, Any]:
        raise GroupError(code)

    return handler


# -- the board --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "wanted", "same"),
    [
        ("nrf52840dk/nrf52840", "nrf52840dk", True),
        ("nrf52840dk/nrf52840", "nrf52840dk/nrf52840", True),
        ("nrf52840dk/nrf52840", "nrf52840dk/nrf52811", False),
        ("nrf52840dk_nrf52840", "nrf52840dk", False),
        ("nrf52840dk", "nrf52840dk/nrf52840", False),
        ("nrf9160dk@0.14.0/nrf9160/ns", "nrf9160dk", True),
        ("nrf9160dk@0.14.0/nrf9160/ns", "nrf9160dk/nrf9160", True),
        ("nrf9160dk@0.14.0/nrf9160/ns", "nrf9160dk@0.14.0", True),
        ("nrf9160dk@0.14.0/nrf9160/ns", "nrf9160dk@0.9.0", False),
    ],
)
def test_a_board_may_be_named_without_revision_and_qualifiers(told: str, wanted: str, same: bool) -> None:
    assert is_board(told, wanted) is same


def test_another_board_and_one_that_is_not_told_are_refused_whatever_runs() -> None:
    same = listed(slot(0, "1.1.0", IMAGE.hash, "ac"))
    for images in (RUNNING, ON_TRIAL, same, ImageState(())):
        for told, text in (("thingy/nrf", "board is thingy/nrf, and not dk"), (None, "does not say which board it is")):
            with pytest.raises(PlanRefused, match=text):
                make_plan(IMAGE, DeviceState(images, board=told), DfuPolicy(board="dk"))


def test_the_device_is_asked_for_its_board() -> None:
    desk = Desk(replace(SMALL, info=OsInfo(board="dk/nrf")))
    assert desk.run(board="dk", mode=Mode.UPLOAD_ONLY).ending is Ending.UPLOADED
    assert "the board is dk/nrf, as expected" in desk.notes
    refusal = desk.fails(board="other")
    assert isinstance(refusal, PlanRefused)
    assert desk.sent == len(NEW)  # of the first update


@pytest.mark.parametrize("kind", ["no command", "refuses the letter", "silent", "empty"])
def test_a_device_that_tells_no_board_is_refused(kind: str) -> None:
    desk = Desk(replace(SMALL, os_info=kind != "no command", info=OsInfo(board="" if kind == "empty" else "dk")))
    if kind == "refuses the letter":
        desk.device.groups[0].handlers[Op.READ, 7] = refusing(OsErrorCode.INVALID_FORMAT)
    if kind == "silent":
        desk.faults.drop_requests = the(range(1, 99), is_request(0, 7, Op.READ))
    refusal = desk.fails(board="dk")
    assert isinstance(refusal, PlanRefused)
    assert "does not say which board" in refusal.message
    assert desk.sent == 0
    assert desk.running == "1.0.0"


def test_nobody_asks_for_a_board_that_nobody_expects() -> None:
    desk = Desk()
    seen: list[int] = []
    asked = is_request(0, 7, Op.READ)
    desk.faults.drop_requests = lambda number, message: bool(asked(number, message) and seen.append(number))
    desk.run()
    assert seen == []


# -- versions ---------------------------------------------------------------------------------------------------------


def test_another_build_of_the_version_is_left_alone_only_if_that_is_wanted() -> None:
    rebuilt = listed(slot(0, "1.1.0", OLD_HASH, "ac"))
    assert len(planned(rebuilt).steps) == 5
    plan = planned(rebuilt, ensure_version=True)
    assert plan.steps == ()
    assert plan.notes == ("1.1.0 is already running and confirmed, as another build of that version",)
    assert len(planned(listed(slot(0, "1.1.0.7", OLD_HASH, "ac")), ensure_version=True).steps) == 5
    assert len(planned(RUNNING, ensure_version=True).steps) == 5


def test_a_version_that_runs_on_trial_is_not_ensured_yet() -> None:
    trial = listed(slot(0, "1.1.0", THIRD_HASH, "a"), slot(1, "1.0.0", OLD_HASH, "c"))
    refused(trial, ensure_version=True)
    plan = planned(trial, ensure_version=True, if_unconfirmed=Unconfirmed.CONFIRM)
    assert [step.name for step in plan.steps] == ["keep"]


def test_a_downgrade_is_warned_of_unless_it_is_allowed() -> None:
    newer = listed(slot(0, "2.0.0", OLD_HASH, "ac"))
    text = "this is a downgrade, from 2.0.0 to 1.1.0"
    assert planned(newer).warnings == (text,)
    allowed = planned(newer, allow_downgrade=True)
    assert (allowed.warnings, allowed.notes) == ((), (text,))
    assert allowed.steps == planned(newer).steps
    refused(newer, upgrade_only=True)
    with pytest.raises(InvalidPolicy, match="contradicts --upgrade-only"):
        DfuPolicy(upgrade_only=True, allow_downgrade=True)
    with pytest.raises(InvalidPolicy, match="must not be empty"):
        DfuPolicy(board="")


# -- another image on trial -------------------------------------------------------------------------------------------


def test_what_runs_on_trial_is_kept_or_given_up_first() -> None:
    plan = planned(ON_TRIAL, if_unconfirmed=Unconfirmed.CONFIRM)
    assert plan.steps[0] == Keep("1.0.5")
    assert [step.name for step in plan.steps[1:]] == ["upload", "mark", "reset", "prove", "confirm"]
    assert "1.0.5 is confirmed first, and what ran before it is given up" in plan.warnings
    assert "1.0.5 runs on trial, and --if-unconfirmed says confirm" in plan.notes
    assert plan.from_version == "1.0.5"

    plan = planned(ON_TRIAL, if_unconfirmed=Unconfirmed.REVERT)
    assert plan.steps[0] == GoBack("1.0.0", OLD_HASH, "1.0.5")
    assert [step.name for step in plan.steps[1:]] == ["upload", "mark", "reset", "prove", "confirm"]
    assert plan.as_dict()["steps"][0] == {  # type: ignore[index]
        "name": "go-back",
        "text": "reset the device, so that 1.0.0 comes back in place of 1.0.5",
        "why": "it runs on trial, and --if-unconfirmed revert gives it up",
    }
    assert "--if-unconfirmed confirm" in str(refused(ON_TRIAL).hint)


@pytest.mark.parametrize("action", list(Unconfirmed))
def test_it_concerns_no_image_but_one_on_trial(action: Unconfirmed) -> None:
    assert planned(RUNNING, if_unconfirmed=action) == planned(RUNNING)
    own = listed(slot(0, "1.1.0", IMAGE.hash, "a"), slot(1, "1.0.0", OLD_HASH, "c"))
    assert [step.name for step in planned(own, if_unconfirmed=action).steps] == ["confirm"]


def test_a_file_that_waits_to_come_back_is_only_brought_back() -> None:
    trial = listed(slot(0, "1.2.0", THIRD_HASH, "a"), slot(1, "1.1.0", IMAGE.hash, "c"))
    plan = planned(trial, if_unconfirmed=Unconfirmed.REVERT)
    assert plan.steps == (GoBack("1.1.0", IMAGE.hash, "1.2.0"),)
    assert not any("already" in note for note in plan.notes)
    kept = planned(trial, if_unconfirmed=Unconfirmed.CONFIRM)
    assert [step.name for step in kept.steps] == ["keep", "upload", "mark", "reset", "prove", "confirm"]


def test_the_rules_for_versions_hold_for_what_runs_then() -> None:
    trial = listed(slot(0, "1.0.5", THIRD_HASH, "a"), slot(1, "2.0.0", OLD_HASH, "c"))
    refused(trial, if_unconfirmed=Unconfirmed.REVERT, upgrade_only=True)
    assert planned(trial, if_unconfirmed=Unconfirmed.CONFIRM, upgrade_only=True).steps


@pytest.mark.parametrize(
    ("images", "mode"),
    [
        (listed(slot(0, "1.0.5", THIRD_HASH, "a")), BootloaderMode.SWAP_MOVE),
        (listed(slot(0, "1.0.5", THIRD_HASH, "a"), slot(1, "1.0.0", None, "c")), BootloaderMode.SWAP_MOVE),
        (ON_TRIAL, BootloaderMode.OVERWRITE),
        (ON_TRIAL, BootloaderMode.DIRECT_XIP),
    ],
)
def test_where_nothing_would_come_back_that_is_refused(images: ImageState, mode: int) -> None:
    refusal = refused(images, mode, if_unconfirmed=Unconfirmed.REVERT)
    assert "nothing that a reset would go back to" in refusal.message


def test_other_slots_run_where_images_stay_where_they_are() -> None:
    plan = planned(ON_TRIAL, BootloaderMode.DIRECT_XIP_REVERT, if_unconfirmed=Unconfirmed.REVERT)
    assert plan.steps[0] == GoBack("1.0.0", OLD_HASH, "1.0.5")
    assert plan.slot == 0


class Trial(Desk):
    """A device on which 1.0.5 runs on trial, and 1.0.0 would come back."""

    def __init__(self, config: Any = SMALL) -> None:
        super().__init__(config)
        self.run(OTHER, mode=Mode.TEST_ONLY)
        self.events.clear()


@pytest.mark.parametrize("action", [Unconfirmed.REVERT, Unconfirmed.CONFIRM])
def test_the_update_goes_on_from_there(action: Unconfirmed) -> None:
    desk = Trial()
    report = desk.run(if_unconfirmed=action)
    assert report.ending is Ending.CONFIRMED
    first = ["confirm"] if action is Unconfirmed.CONFIRM else ["reset", "return"]
    others = ["upload", "mark", "reset", "return", "prove", "confirm"]
    assert desk.stages == ["connect", "read", "plan", *first, *others]
    assert report.resets == (2 if action is Unconfirmed.REVERT else 1)
    assert (desk.running, desk.after_reset()) == ("1.1.0", "1.1.0")


@pytest.mark.parametrize("action", [Unconfirmed.REVERT, Unconfirmed.CONFIRM])
def test_an_image_that_fails_then_leaves_what_was_decided(action: Unconfirmed) -> None:
    desk = Trial()
    crashing = build_image("1.1.0", payload_size=8192, health="crash")
    failure = desk.fails(crashing, if_unconfirmed=action)
    left = "1.0.5" if action is Unconfirmed.CONFIRM else "1.0.0"
    assert failure.outcome is Outcome.REVERTED
    assert f"{left} runs again" in failure.message
    assert desk.running == left


def test_the_old_image_alone_may_be_what_is_wanted() -> None:
    desk = Trial()
    report = desk.run(OLD, if_unconfirmed=Unconfirmed.REVERT)
    assert report.ending is Ending.CONFIRMED
    assert report.summary == "1.0.0 runs and is confirmed (was 1.0.5)"
    assert report.bytes_sent == 0
    assert desk.after_reset() == "1.0.0"


def test_a_reset_that_does_not_arrive_is_sent_once_more() -> None:
    desk = Trial()
    desk.faults.drop_requests = the(1, RESET)
    assert desk.run(OLD, if_unconfirmed=Unconfirmed.REVERT).ending is Ending.CONFIRMED
    assert desk.stages.count("reset") == 2


def test_a_trial_that_no_reset_ends_stops_the_update() -> None:
    desk = Trial()
    desk.faults.drop_requests = the(range(1, 99), RESET)
    failure = desk.fails(if_unconfirmed=Unconfirmed.REVERT)
    assert failure.outcome is Outcome.OTHER_IMAGE
    assert failure.message == "after the reset 1.0.5 still runs, and not 1.0.0"
    assert desk.sent == 0


def test_a_device_that_does_not_come_back_stops_the_update() -> None:
    desk = Trial()
    resets: list[int] = []

    def gone(number: int, message: bytes) -> bool:
        if RESET(number, message):
            resets.append(number)
        return bool(resets) and number != resets[0]

    desk.faults.drop_requests = gone
    failure = desk.fails(if_unconfirmed=Unconfirmed.REVERT, boot_timeout_s=20)
    assert failure.outcome is Outcome.NO_RETURN
    assert failure.message.startswith("no sign of 1.0.0: the device was reset to go back to it")


def test_a_trial_that_cannot_be_confirmed_stops_the_update() -> None:
    desk = Trial()
    desk.device.image.handlers[Op.WRITE, 0] = refusing(ImageErrorCode.IMAGE_CONFIRMATION_DENIED)
    with pytest.raises(DeviceError):
        desk.run(if_unconfirmed=Unconfirmed.CONFIRM)
    assert desk.sent == 0
    assert desk.after_reset() == "1.0.0"
