"""Images that run on trial before an update of several: refused, taken back by one reset, or kept. Planned and done."""

from __future__ import annotations

from functools import cache
from itertools import product

import pytest

from mcumgrx.address import Address
from mcumgrx.errors import DeviceError, FlowError, Outcome, PlanRefused
from mcumgrx.events import Event, Stage
from mcumgrx.flows import DfuPolicy, Ending, Plan, Report, Unconfirmed, make_plan, update
from mcumgrx.flows.plan import GoBack, Keep
from mcumgrx.mcuboot import parse_image
from mcumgrx.messages.standard import BootloaderMode
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim import bootloader as boot
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import SimulatedTransport
from mcumgrx.sim.loop import run

from .test_several_plan import APP, FILES, NET, THIRD, built, device, letters

REVERT, CONFIRM = Unconfirmed.REVERT, Unconfirmed.CONFIRM


def ends(plan: Plan) -> str:
    """B0 takes image 0 back, K1 keeps image 1; then as `letters`."""
    first = [f"K{number}" for number, _ in plan.tasks(Keep)] + [f"B{number}" for number, _ in plan.tasks(GoBack)]
    return " ".join([*first, letters(plan)])


# Image 0, image 1: what is done with revert, and with confirm. `!`: refused.
TABLE = """
    third old      B0 U0 U1 t1 t0 R P0 P1 C1 C0    | K0 U0 U1 t1 t0 R P0 P1 C1 C0
    old third      B1 U0 U1 t1 t0 R P0 P1 C1 C0    | K1 U0 U1 t1 t0 R P0 P1 C1 C0
    third third    B0 B1 U0 U1 t1 t0 R P0 P1 C1 C0 | K1 K0 U0 U1 t1 t0 R P0 P1 C1 C0
    third staged   B0 U0 t1 t0 R P0 P1 C1 C0       | K0 U0 t1 t0 R P0 P1 C1 C0
    third done     B0 U0 t0 R P0 C0                | K0 U0 t0 R P0 C0
    third trial    B0 B1 U0 U1 t1 t0 R P0 P1 C1 C0 | !
    trial third    B0 B1 U0 U1 t1 t0 R P0 P1 C1 C0 | K1 U1 t1 R P0 P1 C1 C0
    third test     !                               | K0 U0 t0 R P0 P1 C1 C0
    test third     !                               | K1 U1 t1 R P0 P1 C1 C0
    third perm     !                               | K0 U0 t0 R P0 P1 C0
    old trial      !                               | !
    trial old      U1 t1 R P0 P1 C1 C0             | U1 t1 R P0 P1 C1 C0
    trial trial    C1 C0                           | C1 C0
"""
CELLS = [
    pytest.param(*line.split()[:2], action, cell.strip(), id=f"{'-'.join(line.split()[:2])}-{action.value}")
    for line in TABLE.strip().splitlines()
    for action, cell in zip((REVERT, CONFIRM), line.strip().split(maxsplit=2)[2].split("|"), strict=True)
]


@pytest.mark.parametrize(("first", "second", "action", "expected"), CELLS)
def test_each_trial_is_ended_as_wanted(first: str, second: str, action: Unconfirmed, expected: str) -> None:
    state, policy = device(first, second), DfuPolicy(if_unconfirmed=action)
    if expected == "!":
        with pytest.raises(PlanRefused) as refusal:
            make_plan(FILES, state, policy)
        assert refusal.value.hint
        return
    plan = make_plan(FILES, state, policy)
    assert ends(plan) == expected
    for number, situation in enumerate((first, second)):
        if situation == "third":
            assert any(f"--if-unconfirmed says {action.value}" in note for note in plan.parts[number].notes)
            assert plan.parts[number].from_version == "0.5.0"


@pytest.mark.parametrize("pair", [("third", "old"), ("old", "third"), ("third", "third"), ("third", "trial")])
def test_without_a_word_on_it_nothing_is_done(pair: tuple[str, str]) -> None:
    with pytest.raises(PlanRefused, match=r"the running image 0\.5\.0 is not confirmed") as refusal:
        make_plan(FILES, device(*pair), DfuPolicy())
    assert "--if-unconfirmed confirm or --if-unconfirmed revert" in (refusal.value.hint or "")


def test_the_plan_names_what_comes_back_in_one_line() -> None:
    plan = make_plan(FILES, device("third", "third"), DfuPolicy(if_unconfirmed=REVERT))
    assert plan.texts[0] == "reset the device, so that 1.0.0 of image 0 and 2.0.0 of image 1 come back"
    assert plan.as_dict()["steps"][0]["name"] == "go-back"  # type: ignore[index]
    kept = make_plan(FILES, device("third", "third"), DfuPolicy(if_unconfirmed=CONFIRM))
    assert kept.texts[0] == (
        "confirm 0.5.0 of image 1, which runs on trial; confirm 0.5.0 of image 0, which runs on trial"
    )
    assert [step.hash for _, step in kept.tasks(Keep)] == [THIRD, None]
    assert any("most devices let only its own application confirm" in text for text in kept.parts[1].warnings)
    assert not any("most devices" in text for text in kept.parts[0].warnings)


def test_what_waits_would_be_installed_and_freeze_a_trial() -> None:
    for situations, waits, freezes in (
        (("third", "test"), "2.1.0 of image 1", True),
        (("test", "third"), "1.1.0", False),
    ):
        with pytest.raises(PlanRefused, match=f"would install {waits}") as refusal:
            make_plan(FILES, device(*situations), DfuPolicy(if_unconfirmed=REVERT))
        assert ("put off the end of the trial of image 0" in refusal.value.message) == freezes
        assert "image erase --slot" in (refusal.value.hint or "")


def test_an_image_that_runs_and_needs_the_one_on_trial_holds_it() -> None:
    needs = {0: APP, 1: built("2.1.0", 1, needs={0: "1.1.0"})}
    state = device("third", "done")
    slots = tuple(
        slot if slot.hash != NET.hash else type(slot)(1, 0, "2.1.0", needs[1].hash, active=True, confirmed=True)
        for slot in state.images.slots
    )
    state = type(state)(type(state.images)(slots, 0), None, state.bootloader)
    with pytest.raises(
        PlanRefused, match=r"no reset takes that back to 1\.0\.0, and its trial would not end"
    ) as refusal:
        make_plan(needs, state, DfuPolicy(if_unconfirmed=REVERT))
    assert "--if-unconfirmed confirm" in (refusal.value.hint or "")


def test_a_trial_of_an_image_without_a_file_ends_with_the_same_reset() -> None:
    plan = make_plan(FILES, device("third", "old", "third"), DfuPolicy(if_unconfirmed=REVERT))
    assert any("also ends the trial of 0.5.0 of image 2" in text for text in plan.warnings)


@pytest.mark.parametrize("mode", [BootloaderMode.OVERWRITE, BootloaderMode.DIRECT_XIP])
def test_nothing_comes_back_where_a_bootloader_knows_no_trial(mode: int) -> None:
    with pytest.raises(PlanRefused, match=r"image 1: 0\.5\.0 runs on trial, and the device shows nothing"):
        make_plan(FILES, device("old", "third", mode=mode), DfuPolicy(if_unconfirmed=REVERT))


# -- done on the simulated device --------------------------------------------------------------------------------------

STATES = ("confirmed", "own on trial", "other on trial")


@cache
def image(number: int, version: str) -> bytes:
    return build_image(f"{number + 1}.{version}", payload_size=1500, image=number)


class Desk:
    """Two images: 1.0 of each confirmed, or another one on trial in its place: the file (2.0), or 1.5."""

    def __init__(self, *states: str, confirms: bool = True, mode: boot.Mode = boot.Mode.SWAP_MOVE) -> None:
        config = DeviceConfig(
            images=2,
            slot_size=64 * 1024,
            buf_size=1024,
            timing=INSTANT,
            boot_s=0.1,
            confirms_other_images=confirms,
            mode=mode,
        )
        self.device = SimulatedDevice(config, name="desk")
        self.events: list[Event] = []
        for number, state in enumerate(states):
            self.device.install(image(number, "1.0"), slot=2 * number)
            if state != "confirmed":
                version = "2.0" if state.startswith("own") else "1.5"
                self.device.install(image(number, version), slot=2 * number + 1)
                self.device.bootloaders[number].set_pending()
        self.device.settle()

    def update(self, action: Unconfirmed) -> Report:
        images = {number: parse_image(image(number, "2.0")) for number in range(2)}
        transport = SimulatedTransport(self.device)
        session = SessionDevice(Address.parse("sim:desk"), transport, default_registry())
        return run(update(session, images, DfuPolicy(if_unconfirmed=action), self.events.append))

    @property
    def stages(self) -> list[str]:
        return [event.name for event in self.events if isinstance(event, Stage) and event.finished]

    @property
    def running(self) -> list[str]:
        self.device.settle()
        return [str(result.version) for result in self.device.boot_results]

    def after_reset(self) -> list[str]:
        self.device.reset(1e6)
        return self.running


@pytest.mark.parametrize("mode", [boot.Mode.SWAP_MOVE, boot.Mode.SWAP_OFFSET, boot.Mode.SWAP_SCRATCH])
@pytest.mark.parametrize(("first", "second"), list(product(STATES, STATES)))
def test_both_images_run_in_the_end_and_one_reset_takes_all_back(first: str, second: str, mode: boot.Mode) -> None:
    desk = Desk(first, second, mode=mode)
    others = "other on trial" in (first, second)
    if (first, second) == ("confirmed", "own on trial"):  # nothing is to be taken back, and the reset would
        with pytest.raises(PlanRefused, match="runs on trial, and the reset that installs"):
            desk.update(REVERT)
        return
    report = desk.update(REVERT)
    assert report.ending is Ending.CONFIRMED
    assert report.resets == others + ((first, second) != ("own on trial", "own on trial"))
    assert desk.running == desk.after_reset() == ["1.2.0", "2.2.0"]


@pytest.mark.parametrize(("first", "second"), [pair for pair in product(STATES, STATES) if STATES[2] in pair])
def test_both_images_run_in_the_end_and_what_was_on_trial_is_kept_first(first: str, second: str) -> None:
    desk = Desk(first, second)
    if second == "own on trial":
        with pytest.raises(PlanRefused, match="runs on trial, and the reset that installs"):
            desk.update(CONFIRM)
        return
    report = desk.update(CONFIRM)
    assert (report.ending, report.resets) == (Ending.CONFIRMED, 1)
    assert desk.stages[3:].index("confirm") == 0
    assert desk.running == desk.after_reset() == ["1.2.0", "2.2.0"]


def test_a_core_that_cannot_be_kept_leaves_everything_as_it_was() -> None:
    desk = Desk("other on trial", "other on trial", confirms=False)
    with pytest.raises((DeviceError, FlowError)):
        desk.update(CONFIRM)
    assert "upload" not in desk.stages
    assert desk.running == ["1.1.5", "2.1.5"]
    assert desk.after_reset() == ["1.1.0", "2.1.0"]


def test_a_trial_that_another_image_holds_is_named() -> None:
    desk = Desk("other on trial", "confirmed")
    # Image 1 runs for good, and needs what is on trial in image 0: by another update, whose file is not at hand.
    desk.device.install(build_image("2.1.7", payload_size=1500, image=1, needs={0: "1.1.5"}), slot=2)
    desk.device.settle()
    with pytest.raises(FlowError) as failure:
        desk.update(REVERT)
    assert failure.value.outcome is Outcome.FROZEN
    assert failure.value.message == "after the reset 1.1.5 still runs, and not 1.1.0"
    assert "image 0 stays on trial over every reset" in (failure.value.hint or "")
    assert "upload" not in desk.stages
