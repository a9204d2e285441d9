"""The state matrix of one image: every bootloader, state of the device, kind of file and mode of the policy.

What has to come of a cell is worked out here from a few rules on bootloaders, not from the planner: which reasons there
are to refuse it, else which steps there are, what runs in the end, whether it stays, and what the other slot holds.
Each cell is planned, and carried out on the simulated device.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import pytest

from mcumgrx.errors import Exit, Outcome, PlanRefused
from mcumgrx.flows import DfuPolicy, Ending, Mode, Plan, make_plan
from mcumgrx.flows.plan import Mark
from mcumgrx.mcuboot import Version, parse_image
from mcumgrx.sim.bootloader import Mode as BootMode
from mcumgrx.sim.device import Power
from tests.support.matrix import (
    ANOTHER_BOARD,
    BOOTS,
    FILES,
    IMPOSSIBLE,
    SENT_BYTES,
    STATES,
    Boot,
    Desk,
    file_of,
    file_version,
    impossible,
    letters,
    other_version,
    running_version,
    state_of,
)


@dataclass(frozen=True)
class Cell:
    boot: Boot
    state: str
    file: str
    mode: Mode = Mode.TEST_AND_CONFIRM

    def __str__(self) -> str:
        return f"{self.boot.name}, {self.state}, {self.file} file, {self.mode.value}"

    @property
    def reason(self) -> str | None:
        """Why there is no such cell."""
        return impossible(self.boot, self.state, self.file)

    @property
    def version(self) -> str:
        return file_version(self.boot, self.state, self.file)

    @property
    def runs(self) -> str:
        """What runs before."""
        return running_version(self.state)

    @property
    def waits(self) -> bool:
        """The file lies in the other slot, and the next reset installs it."""
        return self.file == "staged" and self.state.endswith("pending")

    @property
    def installs(self) -> bool:
        return self.mode is not Mode.UPLOAD_ONLY

    @property
    def trial(self) -> bool:
        """The new image is booted for a test, so that the old one comes back by itself."""
        to_stay = self.waits and self.state == "permanent pending"
        return self.boot.trial and self.mode in (Mode.TEST_AND_CONFIRM, Mode.TEST_ONLY) and not to_stay


CELLS = [
    Cell(boot, state, file, mode)
    for boot, state, file, mode in product(BOOTS.values(), STATES, FILES, Mode)
    if not impossible(boot, state, file)
]


# -- what has to come of it --------------------------------------------------------------------------------------------

LINKED = r"linked for slot \d"
"""Of image 0 its address tells for which slot a file is."""

# Why an update may not begin → what the refusal says. Several may hold.
_REASONS: tuple[tuple[str, Callable[[Cell], bool]], ...] = (
    (r"board is .* and not", lambda cell: cell.file == "wrong board"),
    (r"not reached over this link", lambda cell: cell.boot.slots == 1 and cell.file != "running"),
    (r"hash has 512 bits", lambda cell: cell.file == "wrong hash type"),
    (r"does not fit", lambda cell: cell.file == "too large"),
    (r"on trial|is not confirmed", lambda cell: cell.state == "on trial" and cell.file != "running"),
    (
        r"not newer .* runs the newest",
        # Where there are marks it is tried whether one outranks the version, if that is wanted.
        lambda cell: (
            cell.boot.in_place
            and cell.installs
            and Version.parse(cell.version) < Version.parse(cell.runs)
            and not (cell.file == "older and allowed" and cell.boot.mode is BootMode.DIRECT_XIP_REVERT)
        ),
    ),
    (
        r"linked for (a )?slot .* no way back",
        lambda cell: cell.file == "wrong variant" and cell.installs and not cell.trial and not cell.boot.in_place,
    ),
    (
        LINKED,
        lambda cell: cell.file == "wrong variant" and cell.installs and cell.boot.in_place and not cell.boot.in_ram,
    ),
    (r"loads images into RAM", lambda cell: cell.file == "wrong variant" and cell.boot.in_ram and cell.installs),
)


def reasons(cell: Cell) -> list[str]:
    return [says for says, holds in _REASONS if holds(cell)]


def steps(cell: Cell) -> str:
    if cell.file == "running":
        return "C" if cell.state == "on trial" and cell.mode in (Mode.TEST_AND_CONFIRM, Mode.CONFIRM_ONLY) else ""
    upload = "" if cell.file == "staged" else "U"
    if not cell.installs:
        return upload
    # RAM load does not say which of the two it is: a mark is tried, and a confirmation costs nothing.
    marks = cell.boot.marks or cell.boot.in_ram
    trial = cell.boot.trial or cell.boot.in_ram
    mark = "t" if cell.mode is Mode.TEST_ONLY or (cell.mode is Mode.TEST_AND_CONFIRM and trial) else "p"
    if cell.boot.mode is BootMode.DIRECT_XIP_REVERT and cell.waits:
        # What is listed to stay may be but preferred for one boot, so that it is looked at again.
        confirm = cell.mode is not Mode.TEST_ONLY
    elif cell.waits:
        # A mark cannot be changed: what waits for a test is confirmed once it runs, what waits to stay is not.
        confirm = trial and cell.state == "test pending" and cell.mode is not Mode.TEST_ONLY
    else:
        confirm = trial and cell.mode is Mode.TEST_AND_CONFIRM
    before = "" if cell.waits else mark if marks else "L"
    return f"{upload}{before}RP{'C' if confirm else ''}"


def outcome(cell: Cell) -> Outcome | None:
    """How an update fails that nobody could refuse; None where it succeeds."""
    if cell.file == "wrong variant" and cell.installs:
        return Outcome.REVERTED  # it never comes up
    if cell.file == "older and allowed" and cell.boot.in_place and cell.installs:
        if not cell.boot.requests or cell.mode is Mode.CONFIRM_ONLY:
            return Outcome.REJECTED  # only a test is a request; what is not taken is erased again
        if not cell.boot.policy.keeps_preference and cell.mode is Mode.TEST_AND_CONFIRM:
            return Outcome.NOT_CONFIRMED  # it runs, and the newer one comes back all the same
    return None


# -- planned -----------------------------------------------------------------------------------------------------------


def policy(cell: Cell) -> DfuPolicy:
    board = ANOTHER_BOARD if cell.file == "wrong board" else None
    return DfuPolicy(cell.mode, board=board, allow_downgrade=cell.file == "older and allowed")


def plan(cell: Cell) -> Plan:
    image = parse_image(file_of(cell.boot, 0, cell.state, cell.file))
    return make_plan(image, state_of(cell.boot, (cell.state, cell.file)), policy(cell))


def faults_of_plan(cell: Cell) -> Iterator[str]:
    """Everything in which the plan is not as it has to be."""
    why = reasons(cell)
    try:
        made = plan(cell)
    except PlanRefused as refusal:
        if not any(re.search(says, refusal.message) for says in why):
            yield f"refused with {refusal.message!r}, and the reasons are {why}"
        if not refusal.hint or refusal.exit is not Exit.PLAN_REFUSED or refusal.stage != "plan":
            yield f"refused without a way out: {refusal!r}"
        return
    if why:
        yield f"planned ({letters(made.steps)}) in spite of {why}"
        return
    if letters(made.steps) != steps(cell):
        yield f"planned as {letters(made.steps) or 'nothing'}, not {steps(cell) or 'nothing'}"
    if not made.steps and not made.notes:
        yield "nothing is done, and no reason told"
    required = cell.boot.told and not cell.boot.in_ram
    if any(step.required is not required for step in made.steps if isinstance(step, Mark)):
        yield f"a mark is {'not ' if required else ''}required"
    said = " ".join([*made.warnings, *made.texts])
    lost = cell.installs and made.steps and not cell.trial and cell.file != "running"
    if lost and cell.mode is not Mode.CONFIRM_ONLY and not re.search("no way back|to stay, before", said):
        yield f"the old image is given up, and nothing says so: {said}"
    if cell.file == "older" and cell.installs and "downgrade" not in said:
        yield "a downgrade is not told"


def test_every_cell_is_planned_as_the_rules_say() -> None:
    faults = [f"{cell}: {text}" for cell in CELLS for text in faults_of_plan(cell)]
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)


# -- carried out -------------------------------------------------------------------------------------------------------


def carried_out(cell: Cell) -> Iterator[str]:
    """Everything in which the device is not as it has to be in the end."""
    desk = Desk(cell.boot, (cell.state, cell.file))
    if desk.listed != state_of(cell.boot, (cell.state, cell.file)).images.slots:
        yield f"the device is not in this state: {desk.listed}"
    ran = desk.update(mode=cell.mode)
    if ran.plan is not None and letters(ran.plan.steps) != steps(cell):
        yield f"planned as {letters(ran.plan.steps)}"
    if desk.device.power is not Power.RUNNING:
        yield f"no application runs: {desk.device.power}"
    if reasons(cell):
        if not isinstance(ran.error, PlanRefused):
            yield f"not refused: {ran}"
        yield from _untouched(desk)
        return
    if outcome(cell):
        if ran.error is None or ran.error.outcome is not outcome(cell):
            yield f"ended with {ran.error or ran.report}"
        yield from _failed(desk, cell)
        return
    if ran.report is None:
        yield f"failed: {ran.error!r}"
        return
    if not steps(cell):
        if ran.report.ending is not Ending.NOTHING_TO_DO:
            yield f"ended {ran.report.ending}"
        yield from _untouched(desk)
        return
    yield from _successful(desk, cell, ran.report.ending)
    missing = len(desk.files[0]) if "U" in steps(cell) else 0
    if cell.file == "partly uploaded":
        missing -= SENT_BYTES
    if ran.report.bytes_sent != missing:
        yield f"{ran.report.bytes_sent} bytes were sent, and {missing} were missing"


def _untouched(desk: Desk) -> Iterator[str]:
    if not desk.untouched or desk.resets:
        yield f"something was done: {desk.resets} resets, flash untouched: {desk.untouched}"


def _successful(desk: Desk, cell: Cell, ending: Ending) -> Iterator[str]:
    if not cell.installs:
        if ending is not Ending.UPLOADED:
            yield f"ended {ending}"
        if (desk.running, desk.other(0), desk.resets) != ([cell.runs], cell.version, 0):
            yield f"{desk.running} runs beside {desk.other(0)} after {desk.resets} resets"
        return
    stays = cell.mode is not Mode.TEST_ONLY or not cell.trial
    if ending is not (Ending.CONFIRMED if stays else Ending.ON_TRIAL):
        yield f"ended {ending}"
    if desk.resets != steps(cell).count("R"):
        yield f"{desk.resets} resets"
    beside = cell.runs if cell.boot.keeps else None
    if cell.file == "running":
        beside = other_version(cell.boot, cell.state)
    then = cell.version if stays else cell.runs
    yield from _in_the_end(desk, cell.version, beside, stays=stays, then=then)


def _failed(desk: Desk, cell: Cell) -> Iterator[str]:
    if outcome(cell) is Outcome.NOT_CONFIRMED:
        yield from _in_the_end(desk, cell.version, cell.runs, stays=True, then=cell.runs)
    else:  # the old one runs on; what the bootloader, or nobody, takes is left there, and what is not marked is erased
        beside = None if outcome(cell) is Outcome.REJECTED else cell.version
        yield from _in_the_end(desk, cell.runs, beside, stays=True, then=cell.runs)


def _in_the_end(desk: Desk, version: str, beside: str | None, *, stays: bool, then: str) -> Iterator[str]:
    """`version` runs, listed as confirmed or not, with `beside` in the other slot, and `then` after another reset."""
    if desk.running != [version]:
        yield f"{desk.running} runs, not {version}"
    if desk.other(0) != beside:
        yield f"{desk.other(0)} lies beside it, not {beside}"
    for slot in desk.listed:
        if slot.active and slot.confirmed is not stays:
            yield f"it is listed as {'confirmed' if slot.confirmed else 'on trial'}"
    desk.reset()
    if desk.running != [then] or desk.device.power is not Power.RUNNING:
        yield f"after another reset {desk.running} runs, not {then}"


@pytest.mark.parametrize("mode", Mode, ids=lambda mode: mode.value)
@pytest.mark.parametrize("boot", BOOTS.values(), ids=lambda boot: boot.name.replace(" ", "_"))
def test_every_cell_is_carried_out(boot: Boot, mode: Mode) -> None:
    cells = [cell for cell in CELLS if cell.boot is boot and cell.mode is mode]
    faults = [f"{cell}: {text}" for cell in cells for text in carried_out(cell)]
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)


# -- counted -----------------------------------------------------------------------------------------------------------

COUNTS = """
                              installed      confirmed  nothing to do          fails        refused     impossible
swap using scratch                   16              1              4              4             20              5
swap using move                      16              1              4              4             20              5
swap using offset                    16              1              4              4             20              5
overwrite                            16              0              4              0             16             14
direct XIP                            5              0              3              0             19             23
direct XIP with revert                8              1              4              4             28              5
direct XIP, requests kept             12              1              4              0             28              5
direct XIP, requests                  8              1              4              4             28              5
RAM load                              3              0              2              0             13             32
RAM load with revert                  8              1              4              0             32              5
single slot                           0              0              1              0              7             42
unknown                              16              1              4              4             20              5
"""
"""Cells of each bootloader in the mode test-and-confirm, by what comes of them."""


def end(cell: Cell) -> str:
    """What comes of a cell, in a word."""
    if reasons(cell):
        return "refused"
    if outcome(cell):
        return "fails"
    return "installed" if "R" in steps(cell) else "confirmed" if steps(cell) else "nothing to do"


def test_the_cells_are_counted() -> None:
    ends = ("installed", "confirmed", "nothing to do", "fails", "refused", "impossible")
    table = [f"{'':24}" + "".join(f"{name:>15}" for name in ends)]
    for boot in BOOTS.values():
        cells = [Cell(boot, state, file) for state, file in product(STATES, FILES)]
        counts = Counter("impossible" if cell.reason else end(cell) for cell in cells)
        table.append(f"{boot.name:24}" + "".join(f"{counts[name]:15}" for name in ends))
    shown = "\n".join(table)
    print(f"\n{shown}\n{len(CELLS)} cells in all modes")
    assert shown.split() == COUNTS.split()


def test_each_reason_is_needed() -> None:
    reached = {impossible(boot, state, file) for boot, state, file in product(BOOTS.values(), STATES, FILES)}
    assert reached == {None, *IMPOSSIBLE}
    assert {says for cell in CELLS for says in reasons(cell)} == {says for says, _ in _REASONS}
