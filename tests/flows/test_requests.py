"""Boot requests of the nRF Connect SDK: which version may run, what a mark was worth, and how long it lasts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mcumgrx.cli.main import main
from mcumgrx.errors import Outcome, PlanRefused, UsageError
from mcumgrx.events import StageName
from mcumgrx.flows import DeviceState, DfuPolicy, Ending, make_plan
from mcumgrx.flows.plan import Look, Mark, Upload
from mcumgrx.mcuboot import Image, parse_image
from mcumgrx.messages.standard import Bootloader, BootloaderMode, ImageState, Slot
from mcumgrx.sim.bootloader import BootPolicy, Mode
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.images import build_image
from tests.support.in_place import InPlace, built, config_of

# -- what the list shows, as a table -----------------------------------------------------------------------------------

XIP, REVERT = BootloaderMode.DIRECT_XIP, BootloaderMode.DIRECT_XIP_REVERT


def state(mode: int, other: str | None, flags: str = "", runs: str = "1.0.0", side: int = 0) -> DeviceState:
    """A device that runs `runs` in slot `side`; `other` is in the other slot, pending (p)."""
    slots = [Slot(0, side, runs, bytes(32), bootable=True, active=True, confirmed=True)]
    if other is not None:
        slots.append(Slot(0, 1 - side, other, b"\1" * 32, bootable=True, pending="p" in flags, permanent="m" in flags))
    return DeviceState(ImageState(tuple(slots), split_status=0), bootloader=Bootloader("MCUboot", mode))


@pytest.mark.parametrize(
    ("device", "preferred"),
    [
        (state(XIP, None), None),
        (state(XIP, "0.9.0"), None),
        (state(XIP, "1.1.0", "pm"), None),
        (state(XIP, "1.1.0"), 0),  # newer, and does not run next
        (state(XIP, "0.9.0", "pm"), 1),  # older, and runs next
        (state(XIP, "0.9.0", "pm", side=1), 0),
        (state(XIP, "1.0.0.7"), None),  # whether the build number counts is not known
        (state(XIP, "nonsense", "pm"), None),
        (state(REVERT, "1.1.0"), None),  # not marked, perhaps
        (state(REVERT, "0.9.0", "p"), 1),
        (state(BootloaderMode.SWAP_MOVE, "0.9.0", "p"), None),
        (state(BootloaderMode.RAM_LOAD, "1.1.0"), None),
    ],
)
def test_a_preference_is_told_by_the_list(device: DeviceState, preferred: int | None) -> None:
    assert device.preferred_slot(0) == preferred


OLDER, SAME, NEWER = (parse_image(build_image(one, payload_size=64)) for one in ("0.9.0", "1.0.0", "1.1.0"))


@pytest.mark.parametrize(
    ("device", "file", "allowed", "steps"),
    [
        (state(XIP, None), NEWER, False, "Upload Look Reset Prove"),
        (state(XIP, None), OLDER, False, "refused: .*runs the newest"),
        (state(XIP, None), OLDER, True, "refused: .*runs the newest"),  # nothing to try it with
        (state(XIP, "0.8.0", "pm"), OLDER, False, "Upload Look Reset Prove"),
        (state(XIP, "0.8.0", "pm"), SAME, False, "Upload Reset Prove"),  # equal ones show by chance
        (state(XIP, "1.1.1"), NEWER, False, "refused: .*postpones every update: 1.1.1 in slot 1"),
        (state(REVERT, None), NEWER, False, "Upload Mark Reset Prove Confirm"),
        (state(REVERT, None), OLDER, False, "refused: .*runs the newest"),
        (state(REVERT, None), SAME, False, "refused: .*runs the newest"),
        (state(REVERT, None), OLDER, True, "Upload Mark-undo Reset Prove Confirm"),
        (state(REVERT, None), SAME, True, "Upload Mark-undo Reset Prove Confirm"),
        (state(REVERT, "0.8.0", "p"), OLDER, False, "Upload Mark Reset Prove Confirm"),
        (state(BootloaderMode.RAM_LOAD, None), OLDER, True, "refused: "),
    ],
)
def test_what_is_not_newer_needs_a_preference_or_a_try(
    device: DeviceState, file: Image, allowed: bool, steps: str
) -> None:
    try:
        plan = make_plan(file, device, DfuPolicy(allow_downgrade=allowed))
    except PlanRefused as error:
        told = f"refused: {error.message}" if error.hint else "no hint"
    else:
        undone = [isinstance(step, Mark) and step.undo is not None for step in plan.steps]
        told = " ".join(type(step).__name__ + "-undo" * undo for step, undo in zip(plan.steps, undone, strict=True))
    if steps.startswith("refused"):
        assert re.match(steps, told)
    else:
        assert told == steps


# -- carried out -------------------------------------------------------------------------------------------------------


def requests(mode: Mode, *, tests: bool = False, keeps: bool = False) -> DeviceConfig:
    return config_of(mode, policy_boot_requests=True, policy_keeps_preference=keeps, test_sets_preference=tests)


@pytest.mark.parametrize("version", ["0.9.0", "1.0.0"])
def test_an_older_version_stays_where_the_preference_is_kept(version: str) -> None:
    config = requests(Mode.DIRECT_XIP_REVERT, tests=True, keeps=True)
    desk = InPlace(config)
    report = desk.update(built(config, 0, version, payload_size=2000), allow_downgrade=True)
    assert report.ending is Ending.CONFIRMED
    assert (desk.running, desk.sides) == ([version], [1])
    assert desk.after_reset() == [version]
    # And up again, to the other side: that is newer, but the preference holds until a mark moves it.
    report = desk.update(built(config, 0, "1.1.0"))
    assert report.ending is Ending.CONFIRMED
    assert (desk.running, desk.sides, desk.after_reset()) == (["1.1.0"], [0], ["1.1.0"])


def test_a_preference_for_one_boot_is_told_from_one_that_lasts() -> None:
    config = requests(Mode.DIRECT_XIP_REVERT, tests=True)
    desk = InPlace(config)
    error = desk.fails(built(config, 0, "0.9.0"), allow_downgrade=True)
    assert error.outcome is Outcome.NOT_CONFIRMED
    assert error.message == "0.9.0 runs, but not for good: the device shows 1.0.0, in slot 0, for the next boot"
    assert "image erase --slot 0" in (error.hint or "")
    assert desk.running == ["0.9.0"]
    assert desk.after_reset() == ["1.0.0"], "as was told"


def test_a_trial_of_an_older_version_ends_with_the_next_reset() -> None:
    config = requests(Mode.DIRECT_XIP_REVERT, tests=True)
    desk = InPlace(config)
    error = desk.fails(built(config, 0, "0.9.0", health="crash"), allow_downgrade=True)
    assert error.outcome is Outcome.REVERTED
    assert desk.after_reset() == ["1.0.0"]


def test_what_a_device_does_not_take_is_erased_again() -> None:
    config = config_of(Mode.DIRECT_XIP_REVERT)
    desk = InPlace(config)
    error = desk.fails(built(config, 0, "0.9.0"), allow_downgrade=True)
    assert error.outcome is Outcome.REJECTED
    assert "0.9.0 is erased again, and 1.0.0 goes on running" in error.message
    assert desk.held() == ["1.0.0", None]
    assert (desk.device.boots, desk.after_reset()) == (1, ["1.0.0"])


def test_what_was_there_before_is_not_erased() -> None:
    config = config_of(Mode.DIRECT_XIP_REVERT)
    desk = InPlace(config)
    desk.place(0, 1, built(config, 0, "0.9.0"))
    error = desk.fails(built(config, 0, "0.9.0"), allow_downgrade=True)
    assert error.outcome is Outcome.REJECTED
    assert desk.held() == ["1.0.0", "0.9.0"]


@pytest.mark.parametrize("keeps", [False, True])
def test_an_application_that_prefers_the_other_slot_lets_an_older_version_run(keeps: bool) -> None:
    config = requests(Mode.DIRECT_XIP, keeps=keeps)
    desk = InPlace(config)
    desk.place(0, 1, built(config, 0, "0.8.0"))
    desk.device.bootloader.preferred = 1
    if keeps:
        report = desk.update(built(config, 0, "0.9.0"))
        assert report.ending is Ending.CONFIRMED
        assert desk.after_reset() == ["0.9.0"]
    else:
        error = desk.fails(built(config, 0, "0.9.0"))
        assert error.outcome is Outcome.NOT_CONFIRMED
        assert desk.after_reset() == ["1.0.0"]
    assert any("only as long as the device prefers slot 1" in note for note in desk.notes)


def test_an_application_that_keeps_its_slot_postpones_updates() -> None:
    config = requests(Mode.DIRECT_XIP)
    desk = InPlace(config)
    desk.device.bootloader.preferred = 0
    error = desk.fails(built(config, 0, "1.1.0"))
    assert error.outcome is Outcome.REJECTED
    assert "1.1.0 is in slot 1, and the device does not show it for the next boot" in error.message
    assert desk.device.boots == 1
    # Now the list shows it, so that nothing more is uploaded.
    assert "postpones every update" in desk.refuses(built(config, 0, "1.1.0")).message
    # The hint's way: that preference held for one boot.
    assert desk.after_reset() == ["1.0.0"]
    report = desk.update(built(config, 0, "1.1.0"))
    assert report.ending is Ending.CONFIRMED
    assert not report.plan.has(Upload)
    assert not report.plan.has(Look), "it is shown already"
    assert desk.after_reset() == ["1.1.0"]


def test_a_marked_newer_version_may_be_postponed_as_well() -> None:
    config = requests(Mode.DIRECT_XIP_REVERT)
    desk = InPlace(config)
    desk.device.bootloader.preferred = 0
    error = desk.fails(built(config, 0, "1.1.0"))
    assert error.outcome is Outcome.REJECTED
    assert (desk.held(), desk.device.boots) == (["1.0.0", "1.1.0"], 1)


def test_what_the_list_shows_is_told_before_the_reset() -> None:
    config = config_of(Mode.DIRECT_XIP)
    desk = InPlace(config)
    assert desk.update(built(config, 0, "1.1.0")).ending is Ending.CONFIRMED
    assert desk.told(StageName.MARK) == ["1.1.0 is shown for the next boot"]


# -- the simulator -----------------------------------------------------------------------------------------------------


def test_requests_need_slots_to_choose_from() -> None:
    with pytest.raises(UsageError, match="run in place"):
        DeviceConfig(policy=BootPolicy(boot_requests=True))
    with pytest.raises(UsageError, match="sets no preference"):
        DeviceConfig(mode=Mode.DIRECT_XIP, test_sets_preference=True)


def test_a_trial_outranks_a_preference() -> None:
    config = requests(Mode.DIRECT_XIP_REVERT, keeps=True)
    desk = InPlace(config)
    desk.place(0, 1, built(config, 0, "1.1.0"))
    desk.device.bootloader.set_next(1, active=False, confirm=False)
    assert desk.after_reset() == ["1.1.0"]
    desk.device.bootloader.preferred = 1
    assert desk.refuses(built(config, 0, "1.2.0")).message.startswith("the running image 1.1.0 is not confirmed")
    assert desk.after_reset() == ["1.0.0"]
    assert desk.held() == ["1.0.0", None]


def test_an_address_has_them_and_the_state_keeps_the_preference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = f"sim:desk,erase=0.3,mode=direct-xip,requests=keep,prefers=0,state={tmp_path / 'state.json'}"
    file = tmp_path / "new.bin"
    file.write_bytes(build_image("1.1.0", payload_size=2000))
    assert main(["dfu", str(file), "-d", device, "--yes"]) == 7
    assert "does not show it for the next boot" in capsys.readouterr().err
    assert main(["os", "reset", "-d", device]) == 0
    capsys.readouterr()
    assert main(["dfu", str(file), "-d", device, "--yes"]) == 11
    assert "prefers slot 0" in capsys.readouterr().err
    for wrong in ("prefers=1", "prefers=2,requests=yes", "requests=yes", "ram_revert=yes"):
        assert main(["image", "list", "-d", f"sim:other,{wrong}"]) == 2
