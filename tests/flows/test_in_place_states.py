"""Images that run in place or from RAM, one and two, in every state of a device and with every kind of file.

What has to come out is worked out here from the states alone, not from the plan; the flash tells whether it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

import pytest

from mcumgrx.errors import Outcome, PlanRefused
from mcumgrx.flows import Ending, Mode
from mcumgrx.sim import bootloader as boot
from mcumgrx.sim.device import DeviceConfig
from tests.support.in_place import RAM, InPlace, built, config_of

STATES = ("nothing", "older", "newer", "on trial")
"""What lies in slot 1 beside 1.0.0, which runs: nothing, 0.5.0, which ran before, or 1.2.0, which waits for the next
boot (marked, where there are marks); or 1.2.0 runs from there on trial."""

FILES = ("new", "running", "staged", "older", "too large")
Case = tuple[str, str]

KINDS = {
    "direct-xip": (boot.Mode.DIRECT_XIP, False),
    "direct-xip-revert": (boot.Mode.DIRECT_XIP_REVERT, False),
    "ram-load": (boot.Mode.RAM_LOAD, False),
    "ram-load-revert": (boot.Mode.RAM_LOAD, True),
}
OF_TWO: tuple[Case, ...] = (
    ("nothing", "new"),
    ("nothing", "running"),
    ("newer", "staged"),
    ("newer", "running"),
    ("older", "older"),
    ("on trial", "running"),
)


def has_marks(kind: str) -> bool:
    return kind.endswith("revert")


def cases(kind: str) -> list[Case]:
    states = STATES if has_marks(kind) else STATES[:3]
    return [*product(states, FILES)]


class Desk(InPlace):
    def __init__(self, kind: str, *cases: Case) -> None:
        mode, revert = KINDS[kind]
        config = config_of(mode, len(cases), revert=revert)
        super().__init__(config, [f"{number + 1}.0.0" for number in range(len(cases))])
        for number, (state, _) in enumerate(cases):
            if state == "nothing":
                continue
            version = "0.5.0" if state == "older" else f"{number + 1}.2.0"
            self.place(number, 1, built(config, number, version))
            if has_marks(kind):
                self.device.bootloaders[number].set_next(1, active=False, confirm=state == "older")
        if any(state == "on trial" for state, _ in cases):
            waiting = [number for number, (state, _) in enumerate(cases) if state == "newer"]
            kept = [self.device.bootloaders[number].secondary.content() for number in waiting]
            for number in waiting:
                self.device.bootloaders[number].secondary.erase()
            self.after_reset()
            for number, content in zip(waiting, kept, strict=True):
                self.device.flash.poke(self.device.bootloaders[number].secondary.offset, content)

    def files(self, *cases: Case) -> dict[int, bytes]:
        return {number: self._file(number, *case) for number, case in enumerate(cases)}

    def _file(self, number: int, state: str, file: str) -> bytes:
        runs = f"{number + 1}.{2 if state == 'on trial' else 0}.0"
        waits = {"older": "0.5.0", "on trial": f"{number + 1}.0.0"}.get(state, f"{number + 1}.2.0")
        version = {"new": f"{number + 1}.3.0", "running": runs, "staged": waits, "older": "0.1.0"}.get(file, "9.0.0")
        size = self.config.slot_size if file == "too large" else 1500
        return built(self.config, number, version, payload_size=size)


def is_refused(kind: str, cases: Sequence[Case]) -> bool:
    """Whether an update of these may not begin."""
    for state, file in cases:
        if file in ("older", "too large") or (state == "on trial" and file != "running"):
            return True
        if (state, file) == ("older", "staged"):
            return True  # older than what runs
    if any(file != "running" for _, file in cases):
        # What the reset of the others does to one that runs already: it starts what waits, and ends a trial.
        return any(file == "running" and state in ("newer", "on trial") for state, file in cases)
    return False


def versions(cases: Sequence[Case]) -> list[str]:
    """What runs in the end."""
    minor = {"new": 3, "staged": 2}
    return [
        f"{number + 1}.{minor.get(file, 2 if state == 'on trial' else 0)}.0"
        for number, (state, file) in enumerate(cases)
    ]


COUNTS: Counter[str] = Counter()


def check(kind: str, *cases: Case) -> None:
    desk = Desk(kind, *cases)
    files, case = desk.files(*cases), f"{kind}: {cases}"
    before, resets = desk.device.flash.snapshot(), desk.device.boots
    if is_refused(kind, cases):
        with pytest.raises(PlanRefused) as refusal:
            desk.update(files)
        assert refusal.value.hint, case
        assert (desk.device.flash.snapshot(), desk.device.boots) == (before, resets), case
        COUNTS["refused"] += 1
        return
    report = desk.update(files)
    assert desk.running == versions(cases), case
    idle = all(file == "running" for _, file in cases)
    assert desk.device.boots - resets == (0 if idle else 1), case
    if idle and not any(state == "on trial" for state, _ in cases):
        assert report.ending is Ending.NOTHING_TO_DO, case
        assert desk.device.flash.snapshot() == before, case
        COUNTS["nothing to do"] += 1
        return
    assert report.ending is Ending.CONFIRMED, case
    if not any(case == ("newer", "running") for case in cases):
        assert desk.after_reset() == versions(cases), f"{case}, after another reset"
    COUNTS["confirmed"] += 1


@pytest.mark.parametrize("kind", KINDS)
def test_one_image_ends_as_wanted_or_nothing_is_touched(kind: str) -> None:
    for case in cases(kind):
        check(kind, case)
    print(f"{len(cases(kind))} cases of {kind}; so far {dict(COUNTS)}")


@pytest.mark.parametrize("kind", KINDS)
def test_both_images_end_as_wanted_or_nothing_is_touched(kind: str) -> None:
    known = [case for case in OF_TWO if case in cases(kind)]
    for first, second in product(known, known):
        check(kind, first, second)
    print(f"{len(known) ** 2} pairs of {kind}; so far {dict(COUNTS)}")


# -- what images need of each other ------------------------------------------------------------------------------------


def two(kind: str) -> tuple[InPlace, DeviceConfig]:
    mode, revert = KINDS[kind]
    config = config_of(mode, 2, revert=revert)
    return InPlace(config, ("1.0.0", "5.0.0")), config


@pytest.mark.parametrize("kind", KINDS)
def test_needs_are_met_by_what_comes_along_or_refused(kind: str) -> None:
    desk, config = two(kind)
    circle = {
        0: built(config, 0, "1.1.0", needs={1: "5.1.0"}),
        1: built(config, 1, "5.1.0", needs={0: "1.1.0"}),
    }
    assert "image 1 at version 5.1.0 or later" in desk.refuses({0: circle[0]}).message
    late = desk.refuses({0: circle[0], 1: built(config, 1, "5.0.5")})
    assert "the file for it is 5.0.5" in late.message
    assert "is passed over" in (late.hint or "")
    assert desk.update(circle).ending is Ending.CONFIRMED
    assert desk.running == ["1.1.0", "5.1.0"]
    assert desk.after_reset() == ["1.1.0", "5.1.0"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_needs_a_refused_image_is_passed_over(kind: str) -> None:
    """The bootloader refuses image 1, so that image 0 falls back as well: the verdict names both."""
    desk, config = two(kind)
    desk.device.bootloaders[1].verify = lambda image: str(image.version) != "5.1.0"
    files = {0: built(config, 0, "1.1.0", needs={1: "5.1.0"}), 1: built(config, 1, "5.1.0")}
    error = desk.fails(files)
    assert error.outcome is Outcome.NEVER_SWAPPED
    assert "1.1.0 of image 0 needs image 1 at version 5.1.0 or later, not 5.0.0" in error.message
    assert desk.running == ["1.0.0", "5.0.0"]
    assert desk.held(1) == ["5.0.0", None]
    # With trial boots, that was the trial: without having run it is erased at the next boot.
    assert desk.after_reset() == ["1.0.0", "5.0.0"]
    assert desk.held(0) == ["1.0.0", None if has_marks(kind) else "1.1.0"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if has_marks(kind)])
def test_one_that_crashes_takes_the_other_back(kind: str) -> None:
    desk, config = two(kind)
    error = desk.fails({0: built(config, 0, "1.1.0", health="crash"), 1: built(config, 1, "5.1.0")})
    assert error.outcome is Outcome.REJECTED
    assert desk.running == ["1.0.0", "5.0.0"]
    assert (desk.held(0), desk.held(1)) == (["1.0.0", None], ["5.0.0", None])


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_beside_the_application_stays(kind: str) -> None:
    desk, config = two(kind)
    assert desk.update({1: built(config, 1, "5.1.0")}, mode=Mode.TEST_AND_CONFIRM).ending is Ending.CONFIRMED
    assert desk.after_reset() == ["1.0.0", "5.1.0"]


def test_images_for_the_same_memory_are_refused() -> None:
    desk, config = two("ram-load")
    files = {0: built(config, 0, "1.1.0"), 1: built(config, 1, "5.1.0", load_address=RAM + 100)}
    assert desk.refuses(files).message.startswith(
        "images 0 and 1 are to be loaded to the same memory: 1.1.0 to 0x20000000"
    )
