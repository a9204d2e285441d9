"""What image lists mean for several images: a table without a device, and the same failures on the simulated device."""

from __future__ import annotations

from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.errors import FlowError, Outcome, PlanRefused
from mcumgrx.flows import DfuPolicy, Mode, update
from mcumgrx.flows.verdict import Finding, Target, Verdict, verdict_of_all
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import ImageState, Slot
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import SimulatedTransport
from mcumgrx.sim.loop import run

VERSIONS = (("1.0.0", "1.1.0"), ("2.0.0", "2.1.0"))
BINARIES = tuple(build_image(new, payload_size=3000, image=number) for number, (_, new) in enumerate(VERSIONS))
IMAGES = tuple(parse_image(data) for data in BINARIES)
OLD = (bytes(32), bytes([1]) * 32)
OTHER = bytes([9]) * 32


def slots(number: int, situation: str) -> tuple[Slot, ...]:
    old, new, (was, version) = OLD[number], IMAGES[number].hash, VERSIONS[number]

    def slot(side: int, hash: bytes, *flags: str) -> Slot:
        shown = {old: was, new: version}.get(hash, "7.0.0")
        return Slot(number, side, shown, hash, **{flag: True for flag in flags})  # type: ignore[arg-type]

    running = slot(0, old, "active", "confirmed")
    return {
        "test": (running, slot(1, new, "pending")),
        "perm": (running, slot(1, new, "pending", "permanent")),
        "trial": (slot(0, new, "active"), slot(1, old, "confirmed")),
        "stays": (slot(0, new, "active", "confirmed"), slot(1, old)),
        "back": (running, slot(1, new)),
        "gone": (running,),
        "other": (slot(0, OTHER, "active", "confirmed"),),
        "nothing": (),
        "unseen test": (slot(1, new, "pending", "permanent"),),
    }[situation]


def listed(first: str, second: str) -> ImageState:
    return ImageState((*slots(0, first), *slots(1, second)), None if first == second == "nothing" else 0)


def told(before: tuple[str, str], after: tuple[str, str], *, listed_ones: bool = True) -> Verdict:
    targets = [Target(IMAGES[0], 0, alone=False), Target(IMAGES[1], 1, alone=False, listed=listed_ones)]
    lists = listed(*before), listed(*after)
    return verdict_of_all(targets, *lists, {target.number: target.active(lists[0]) for target in targets})


TEST, PERM = ("test", "test"), ("perm", "perm")


@pytest.mark.parametrize(
    ("before", "after", "finding", "outcome", "text", "hint"),
    [
        # Proven.
        (TEST, ("trial", "trial"), Finding.RUNS, None, "", ""),
        (PERM, ("stays", "stays"), Finding.RUNS, None, "", ""),
        (("trial", "test"), ("trial", "trial"), Finding.RUNS, None, "", ""),
        # Never swapped: all wait, as before the reset.
        (TEST, TEST, Finding.WAITING, Outcome.NEVER_SWAPPED, "nothing was installed", "needs another one"),
        (
            PERM,
            PERM,
            Finding.WAITING,
            Outcome.NEVER_SWAPPED,
            "1.0.0 of image 0 and 2.0.0 of image 1 still run",
            "large",
        ),
        # Reverted, refused, another image.
        (TEST, ("back", "back"), Finding.OVER, Outcome.REVERTED, "1.1.0 of image 0 did not stay", "crashed"),
        (TEST, ("gone", "gone"), Finding.OVER, Outcome.REJECTED, "did not keep 2.1.0 of image 1", "another key"),
        (TEST, ("back", "gone"), Finding.OVER, Outcome.REJECTED, "1.1.0 of image 0 did not stay", "another key"),
        (TEST, ("other", "back"), Finding.OVER, Outcome.OTHER_IMAGE, "7.0.0 runs, neither", "image list"),
        # Mixed: one runs on trial, or for good, and the other one does not.
        (TEST, ("trial", "gone"), Finding.OVER, Outcome.MIXED, "1.1.0 of image 0 runs on trial; ", "os reset"),
        (TEST, ("gone", "trial"), Finding.OVER, Outcome.MIXED, "2.1.0 of image 1 runs on trial; ", "another key"),
        (PERM, ("stays", "gone"), Finding.OVER, Outcome.MIXED, "1.1.0 of image 0 runs; ", "Bring the missing one"),
        (("test", "perm"), ("back", "stays"), Finding.OVER, Outcome.MIXED, "1.1.0 of image 0 did not stay", "crashed"),
        (TEST, ("trial", "test"), Finding.COMING, Outcome.MIXED, "still waits in slot 1", "image erase --slot 3"),
        # The mark of one is lost: it cannot have been started and given up beside one on its first trial.
        (TEST, ("trial", "back"), Finding.OVER, Outcome.MIXED, "2.1.0 of image 1 was passed over", "dropped the mark"),
        # Frozen: one was on trial before, and stays so because the other one cannot be installed.
        (("trial", "test"), ("trial", "test"), Finding.WAITING, Outcome.FROZEN, "image 0 stays on trial", "keeps all"),
        # On its way.
        (TEST, ("nothing", "nothing"), Finding.RECOVERY, None, "", ""),
        (TEST, ("trial", "nothing"), Finding.COMING, None, "", ""),
    ],
)
def test_lists(
    before: tuple[str, str], after: tuple[str, str], finding: Finding, outcome: Outcome | None, text: str, hint: str
) -> None:
    found = told(before, after)
    assert found.finding is finding
    if outcome is not None:
        assert found.outcome is outcome
        assert text in found.text
        assert hint in found.hint
        # Each image is named with its version, whatever has become of it.
        assert "1.1.0 of image 0" in found.text
        assert "2.1.0 of image 1" in found.text


def test_one_that_is_never_listed_is_done_when_it_has_left_its_slot() -> None:
    before = ("test", "unseen test")
    found = told(before, ("trial", "nothing"), listed_ones=False)
    assert (found.finding, found.outcome) == (Finding.RUNS, Outcome.UNSEEN)
    assert found.text.startswith("1.1.0 of image 0 runs on trial; 2.1.0 of image 1 has left slot 1")
    assert told(before, ("trial", "unseen test"), listed_ones=False).finding is Finding.COMING
    assert told(before, before, listed_ones=False).finding is Finding.WAITING


# -- on the simulated device ------------------------------------------------------------------------------------------


class Desk:
    def __init__(self, images: int = 2) -> None:
        self.device = SimulatedDevice(
            DeviceConfig(images=images, slot_size=64 * 1024, buf_size=1024, confirms_other_images=True)
        )
        for number, (old, _) in enumerate(VERSIONS):
            self.device.install(build_image(old, payload_size=3000, image=number), slot=2 * number)
        for number in range(2, images):
            self.device.install(build_image("3.0.0", payload_size=3000, image=number), slot=2 * number)

    def wait(self, data: bytes, image: int) -> None:
        """Put an image into slot 1 of its number, marked for a test, as somebody else has done."""
        self.device.install(data, slot=2 * image + 1)
        assert self.device.bootloaders[image].set_pending() == 0

    def run(self, *files: bytes, **policy: Any) -> Any:
        session = SessionDevice(Address.parse("sim:desk"), SimulatedTransport(self.device), default_registry())
        images = {number: parse_image(data) for number, data in enumerate(files)}
        return run(update(session, images, DfuPolicy(**policy)))

    def fails(self, *files: bytes, **policy: Any) -> FlowError:
        with pytest.raises(FlowError) as failure:
            self.run(*files, **policy)
        assert failure.value.hint
        return failure.value

    @property
    def running(self) -> tuple[str, ...]:
        self.device.settle()
        return tuple(str(result.version) for result in self.device.boot_results)

    def after_reset(self) -> tuple[str, ...]:
        self.device.reset(1e6)
        return self.running


def test_an_application_that_crashes_takes_the_other_core_back_with_it() -> None:
    desk = Desk()
    failure = desk.fails(build_image("1.2.0", payload_size=3000, health="crash"), BINARIES[1])
    assert failure.outcome is Outcome.REVERTED
    assert "1.2.0 of image 0 did not stay: 1.0.0 runs again; 2.1.0 of image 1 did not stay: 2.0.0 runs again" in str(
        failure
    )
    assert desk.running == desk.after_reset() == ("1.0.0", "2.0.0")


def test_one_that_the_bootloader_refuses_leaves_nothing_confirmed() -> None:
    desk = Desk()
    desk.device.bootloaders[1].verify = lambda image: str(image.version) != "2.1.0"  # as of another key
    failure = desk.fails(*BINARIES)
    assert failure.outcome is Outcome.MIXED
    assert "1.1.0 of image 0 runs on trial; the bootloader did not keep 2.1.0 of image 1: 2.0.0 runs" in str(failure)
    assert "go back with 'mcumgrx os reset'" in str(failure.hint)
    assert desk.running == ("1.1.0", "2.0.0")
    assert desk.after_reset() == ("1.0.0", "2.0.0")


# Needs what no device here has.
HOLDING = build_image("3.1.0", payload_size=3000, image=2, needs={0: "9.0.0"})


def test_one_that_waits_for_what_is_not_there_keeps_all_from_being_installed() -> None:
    desk = Desk(images=3)
    desk.wait(HOLDING, 2)
    failure = desk.fails(*BINARIES)
    assert failure.outcome is Outcome.NEVER_SWAPPED
    assert "1.1.0 of image 0 and 2.1.0 of image 1 still wait: nothing was installed" in failure.message
    assert "those on the device included" in str(failure.hint)
    assert desk.after_reset() == ("1.0.0", "2.0.0", "3.0.0")
    assert [loader.swap_type().name for loader in desk.device.bootloaders] == ["TEST"] * 3


def test_a_trial_is_frozen_by_another_image_that_waits_for_ever() -> None:
    desk = Desk(images=3)
    desk.run(BINARIES[0], mode=Mode.TEST_ONLY)
    desk.wait(HOLDING, 2)
    failure = desk.fails(*BINARIES)
    assert failure.outcome is Outcome.FROZEN
    assert "2.1.0 of image 1 still waits after the reset" in failure.message
    assert "1.1.0 of image 0 stays on trial: neither confirmed nor taken back" in failure.message
    assert desk.running == desk.after_reset() == ("1.1.0", "2.0.0", "3.0.0")


def test_a_need_of_a_file_that_only_the_boot_finds_unmet_is_named() -> None:
    before = listed(*TEST)
    needing = parse_image(build_image("1.1.0", payload_size=3000, needs={1: "5.0.0"}))
    first = Slot(0, 1, "1.1.0", needing.hash, pending=True)
    state = ImageState((before.slots[0], first, *before.slots[2:]), 0)
    targets = [Target(needing, 0, alone=False), Target(IMAGES[1], 1, alone=False)]
    found = verdict_of_all(targets, state, state, {})
    assert "1.1.0 of image 0 needs image 1 at version 5.0.0 or later, not 2.1.0: bring that too" in found.hint


def test_one_too_large_to_be_swapped_is_refused_and_the_other_one_goes_back() -> None:
    desk = Desk()
    failure = desk.fails(BINARIES[0], build_image("2.1.0", payload_size=58_000, image=1))
    assert failure.outcome is Outcome.MIXED
    assert "the bootloader did not keep 2.1.0 of image 1" in failure.message
    assert "larger than it can swap?" in str(failure.hint)
    assert desk.running == ("1.1.0", "2.0.0")
    assert desk.after_reset() == ("1.0.0", "2.0.0")


def test_a_running_image_whose_needs_would_not_be_met_refuses_the_other_one() -> None:
    desk = Desk()
    needing = build_image("1.1.0", payload_size=3000, needs={1: "2.1.0"})
    desk.run(needing, BINARIES[1])
    before = desk.device.flash.snapshot()
    with pytest.raises(PlanRefused, match=r"1\.1\.0, which runs, needs image 1 at version 2\.1\.0 or later"):
        desk.run(needing, build_image("2.0.5", payload_size=3000, image=1))
    assert desk.device.flash.snapshot() == before
