"""Updates of the bootloader itself, beneath the immutable one of the nRF Connect SDK, on the simulated device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mcumgrx.errors import FlowError, ImageError, Outcome, PlanRefused
from mcumgrx.flows import DfuPolicy, Ending, Mode, Report, update
from mcumgrx.flows.bootloader_plan import plan_bootloader
from mcumgrx.flows.device_state import DeviceState
from mcumgrx.mcuboot import by_slot
from mcumgrx.mcuboot.package import parse_package
from mcumgrx.messages.standard import ImageState
from mcumgrx.sim.bootloader import Mode as BootMode
from mcumgrx.sim.images import build_bootloaders, build_package
from mcumgrx.sim.link import LinkModel
from mcumgrx.sim.loop import run

from .test_dfu import NEW, OLD, SMALL, Desk
from .test_plan import OLD_HASH, listed, slot

pytestmark = pytest.mark.codec

PACKAGE = parse_package(build_bootloaders("2.3.0"))
FILES = by_slot(PACKAGE.choose_all(bootloader=True))
TWO_STAGES = replace(SMALL, b0=True)


def replaced(desk: Desk, files: Any = FILES, **policy: Any) -> Report:
    wanted = DfuPolicy(bootloader=True, **policy)
    return run(update(desk.session(), files, wanted, desk.events.append, on_plan=desk.planned))


def test_a_package_is_taken_on_demand_alone() -> None:
    with pytest.raises(ImageError, match="would replace MCUboot") as refusal:
        PACKAGE.choose_all()
    assert "--bootloader" in str(refusal.value.hint)
    with pytest.raises(ImageError, match="for the application, and not for the bootloader"):
        parse_package(build_package({0: NEW})).choose_all(bootloader=True)
    variants = FILES[0]
    assert isinstance(variants, dict)
    assert sorted(variants) == [0, 1]


@pytest.mark.parametrize("runs", [0, 1])
@pytest.mark.parametrize("restarts", [True, False])
@pytest.mark.parametrize("link", [LinkModel.ideal(), LinkModel.uart(), LinkModel.ble()])
@pytest.mark.parametrize("mode", [BootMode.SWAP_MOVE, BootMode.SWAP_OFFSET, BootMode.OVERWRITE])
def test_the_slot_that_does_not_run_is_replaced(runs: int, restarts: bool, link: LinkModel, mode: BootMode) -> None:
    desk = Desk(replace(TWO_STAGES, b0_restarts=restarts, mode=mode), link)
    desk.device._boot.b0_newest = runs
    report = replaced(desk)
    assert report.ending is Ending.REPLACED
    assert [step.name for step in report.plan.steps] == ["upload", "mark", "reset", "prove-bootloader"]
    assert report.plan.no_way_back
    assert report.resets == (1 if restarts else 2)
    assert desk.running == "1.0.0"
    assert desk.device.b0_slot == 1 - runs
    assert desk.device.bootloader.slots[1].content().count(0xFF) == desk.device.bootloader.slots[1].size
    assert desk.after_reset() == "1.0.0"
    assert desk.run().ending is Ending.CONFIRMED  # the application, as ever
    assert desk.device.b0_slot == 1 - runs


def test_only_an_upload_replaces_nothing_yet() -> None:
    desk = Desk(TWO_STAGES)
    assert replaced(desk, mode=Mode.UPLOAD_ONLY).ending is Ending.UPLOADED
    assert desk.after_reset() == "1.0.0"
    assert desk.device.b0_slot == 0
    report = replaced(desk)
    assert [step.name for step in report.plan.steps] == ["mark", "reset", "prove-bootloader"]
    assert desk.device.b0_slot == 1


def test_a_bootloader_that_is_not_taken_is_told() -> None:
    desk = Desk(TWO_STAGES)
    good = desk.device.bootloader.verify
    desk.device.bootloader.verify = lambda image: good(image) and str(image.version) != "2.3.0"
    with pytest.raises(FlowError, match="not replaced: it runs from its slot 0") as failure:
        replaced(desk)
    assert (failure.value.outcome, failure.value.exit) == (Outcome.REJECTED, 7)
    assert desk.running == "1.0.0"


def test_who_does_not_agree_changes_nothing() -> None:
    desk = Desk(TWO_STAGES)

    async def no(plan: Any) -> bool:
        return False

    wanted = DfuPolicy(bootloader=True)
    assert run(update(desk.session(), FILES, wanted, on_plan=no)).ending is Ending.NOT_STARTED
    assert (desk.device.boots, desk.device.b0_slot) == (1, 0)


RUNNING = listed(slot(0, "1.0.0", OLD_HASH, "ac"))
KNOWN = DeviceState(RUNNING, active_b0_slot=0)


@pytest.mark.parametrize(
    ("state", "files", "text"),
    [
        (replace(KNOWN, active_b0_slot=None), FILES, "does not tell from which of its two slots"),
        (replace(KNOWN, images=ImageState(())), FILES, "from the application"),
        (replace(KNOWN, images=listed(slot(0, "1.0.0", OLD_HASH, "a"))), FILES, "1.0.0 runs on trial"),
        (KNOWN, {0: parse_package(OLD).images[0].image}, "a file for each of its two slots"),
        (KNOWN, {0: {0: parse_package(OLD).images[0].image}}, "no file for its slot 1"),
        (KNOWN, {**FILES, 1: parse_package(OLD).images[0].image}, "a file for each of its two slots"),
    ],
)
def test_what_is_refused(state: DeviceState, files: Any, text: str) -> None:
    with pytest.raises(PlanRefused, match=text) as refusal:
        plan_bootloader(files, state, DfuPolicy(bootloader=True))
    assert refusal.value.hint


def test_a_device_without_two_stages_is_refused_before_anything() -> None:
    desk = Desk()
    with pytest.raises(PlanRefused, match="does not tell"):
        replaced(desk)
    assert (desk.device.boots, desk.sent) == (1, 0)
