"""The state matrix of two images: both in every state, with every kind of file, over each bootloader.

What has to come of a pair follows from the rules of each image (`test_matrix`) and from what couples them: one reset
for both, and confirmed are both or none. Each pair is planned; carried out on the simulated device are as many as a run
of all tests has time for, and all of them where everything is checked (`MCUMGRX_CI`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import pytest

from mcumgrx.errors import Exit, Outcome, PlanRefused
from mcumgrx.flows import DfuPolicy, Ending, Mode, Plan, make_plan
from mcumgrx.flows.plan import Mark
from mcumgrx.mcuboot import Version, parse_image
from mcumgrx.sim.bootloader import Mode as BootMode
from mcumgrx.sim.device import Power
from tests.flows.test_matrix import LINKED, Cell, reasons, steps
from tests.support.matrix import (
    ANOTHER_BOARD,
    BOOTS,
    FILES,
    STATES,
    Boot,
    Case,
    Desk,
    file_of,
    impossible,
    letters,
    other_version,
    state_of,
)
from tests.support.thinned import thinned

KINDS = tuple(file for file in FILES if file != "older and allowed")  # a wish that holds for all images
LISTED = ("both listed", "image 1 not listed")


@dataclass(frozen=True)
class Pair:
    boot: Boot
    first: Case
    second: Case
    listed: str = LISTED[0]

    def __str__(self) -> str:
        cases = " and ".join(f"{state} with a {file} file" for state, file in self.cases)
        return f"{self.boot.name}, {self.listed}: {cases}"

    @property
    def cases(self) -> tuple[Case, Case]:
        return self.first, self.second

    @property
    def hidden(self) -> frozenset[int]:
        return frozenset({1} if self.listed == LISTED[1] else ())

    @cached_property
    def cells(self) -> tuple[Cell, Cell]:
        first, second = self.cases
        return Cell(self.boot, *first), Cell(self.boot, *second)

    def seen(self, number: int) -> bool:
        """What runs of this image is listed."""
        return number not in self.hidden

    def runs(self, number: int) -> bool:
        """As far as can be told, the file runs."""
        return self.cases[number][1] == "running" and self.seen(number)

    def on_trial(self, number: int) -> bool:
        return self.cases[number][0] == "on trial"

    @property
    def crashes(self) -> bool:
        """The application is started where it was not linked for. Of another core's image nobody here would know."""
        return not self.boot.in_place and self.cells[0].file == "wrong variant"

    @property
    def open(self) -> list[int]:
        """What does not run for good."""
        return [number for number in (0, 1) if not self.runs(number) or self.on_trial(number)]

    @property
    def installed(self) -> list[int]:
        """What the reset brings."""
        return [number for number in (0, 1) if not self.runs(number)]

    def tried(self, number: int) -> bool:
        """It is booted for a test: image 0, and the other where it can be confirmed together with it."""
        # With direct XIP a confirmation is written to whatever slot has the hash.
        alone = number == 0 or self.boot.mode is BootMode.DIRECT_XIP_REVERT
        return self.cells[number].trial and (alone or (len(self.open) > 1 and self.seen(number)))

    def goes_back(self, number: int) -> bool:
        """The reset after the one that installs it takes it back, unless it is confirmed."""
        cell = self.cells[number]
        tested = cell.boot.trial and cell.state == "test pending" if cell.waits else self.tried(number)
        return tested and self.seen(number)


def impossible_pair(boot: Boot, cases: Sequence[Case], listed: str) -> str | None:
    """Why there is no such pair; None where there is."""
    if boot.slots == 1:
        return "a bootloader with a single slot has a single image"
    if listed == LISTED[1] and boot.in_place:
        return "what runs in place, or is loaded from there, lies in flash that the application reads"
    return next((reason for case in cases if (reason := impossible(boot, *case))), None)


PAIRS = [
    Pair(boot, *cases, listed)
    for boot, listed in product(BOOTS.values(), LISTED)
    for cases in product(product(STATES, KINDS), repeat=2)
    if impossible_pair(boot, cases, listed) is None
]


# -- what has to come of it --------------------------------------------------------------------------------------------


def reasons_of(pair: Pair) -> list[str]:
    """Why an update of both may not begin: what the refusal says."""
    found: list[str] = []
    for number, cell in enumerate(pair.cells):
        if pair.runs(number) and cell.file != "wrong board":
            found += _over_the_reset(pair, number)
            continue
        own = [says for says in reasons(cell) if number == 0 or says != LINKED]
        if cell.file == "wrong variant" and not pair.tried(number) and not pair.boot.in_place:
            own.append(r"linked for a slot .* no way back")
        if pair.on_trial(number):
            own.append(r"on trial|is not confirmed")
        found += own
    return found


def _over_the_reset(pair: Pair, number: int) -> list[str]:
    """What runs already, while the reset installs the other one."""
    other = 1 - number
    if other not in pair.installed:
        return []
    if pair.cells[number].state.endswith("pending"):
        return [r"the reset would put"]
    # RAM load does not say whether what is newer has to be marked.
    beside = other_version(pair.boot, pair.cells[number].state)
    if pair.boot.in_ram and beside is not None and Version.parse(beside) > Version.parse(pair.cells[number].runs):
        return [r"the reset would put"]
    # An image that waits puts off the end of a trial before it, where images are swapped.
    if pair.on_trial(number) and (pair.boot.in_place or number > other):
        return [r"runs on trial, and the reset .* takes it back"]
    return []


def steps_of(pair: Pair) -> str:
    """Of both: those of a kind for both, then the next kind."""
    parts = [_steps(pair, number) for number in (0, 1)]
    both = "".join(parts)
    marks = "".join(letter for part in reversed(parts) for letter in part if letter in "tp")
    looks = "L" * both.count("L")
    return "U" * both.count("U") + marks + looks + "R" * ("R" in both) + "P" * both.count("P") + "C" * both.count("C")


def _steps(pair: Pair, number: int) -> str:
    cell, boot = pair.cells[number], pair.boot
    if pair.runs(number):
        found = steps(cell)
        return f"P{found}" if found and pair.installed else found
    found = steps(cell) if cell.file != "running" else "UtRPC" if boot.trial else "UpRP"
    if not pair.seen(number) and cell.waits and boot.trial and cell.state == "test pending":
        return "UpRP"  # its mark is one for a test, which nobody could confirm
    if number == 0 or pair.tried(number) or not (boot.trial or boot.in_ram) or (len(pair.open) > 1 and pair.seen(1)):
        return found
    # Nobody could confirm it alone: it is marked to stay.
    if cell.waits and pair.seen(1) and (cell.state == "test pending" or boot.mode is BootMode.DIRECT_XIP_REVERT):
        return found
    return found.replace("t", "p").removesuffix("C")


# -- planned -----------------------------------------------------------------------------------------------------------


def plan(pair: Pair) -> Plan:
    files = {number: parse_image(file_of(pair.boot, number, *case)) for number, case in enumerate(pair.cases)}
    board = ANOTHER_BOARD if "wrong board" in (pair.first[1], pair.second[1]) else None
    return make_plan(files, state_of(pair.boot, *pair.cases, hidden=pair.hidden), DfuPolicy(board=board))


def faults_of_plan(pair: Pair) -> Iterator[str]:
    why = reasons_of(pair)
    try:
        made = plan(pair)
    except PlanRefused as refusal:
        if not any(re.search(says, refusal.message) for says in why):
            yield f"refused with {refusal.message!r}, and the reasons are {why}"
        if not refusal.hint or refusal.exit is not Exit.PLAN_REFUSED:
            yield f"refused without a way out: {refusal!r}"
        return
    if why:
        yield f"planned ({letters(made.steps)}) in spite of {why}"
    elif letters(made.steps) != steps_of(pair):
        yield f"planned as {letters(made.steps) or 'nothing'}, not {steps_of(pair) or 'nothing'}"
    marked = [number for number, _ in made.tasks(Mark)]
    if marked != sorted(marked, reverse=True):
        yield f"marked in the order {marked}: the highest image has to be the first"


def test_every_pair_is_planned_as_the_rules_say() -> None:
    faults = [f"{pair}: {text}" for pair in PAIRS for text in faults_of_plan(pair)]
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)


# -- carried out -------------------------------------------------------------------------------------------------------


def outcome_of(pair: Pair) -> Outcome | None:
    """How an update fails that nobody could refuse; None where it succeeds."""
    wrong = [number for number in pair.installed if pair.cells[number].file == "wrong variant"]
    if pair.boot.in_place and wrong:
        return Outcome.NEVER_SWAPPED if wrong == pair.installed else Outcome.MIXED
    if 0 in wrong:  # the application never comes up, and all that is on trial goes back
        back = all(pair.goes_back(number) for number in pair.installed if pair.seen(number))
        return Outcome.REVERTED if back else Outcome.MIXED
    return Outcome.UNSEEN if pair.hidden and 1 in pair.installed else None


def runs_then(pair: Pair) -> list[str]:
    """The versions that run in the end."""
    found = []
    for number, cell in enumerate(pair.cells):
        passed_over = pair.boot.in_place and cell.file == "wrong variant"
        gone_back = pair.crashes and pair.goes_back(number)
        found.append(cell.runs if passed_over or gone_back or not pair.installed else cell.version)
    return found


def carried_out(pair: Pair) -> Iterator[str]:
    """Everything in which the device is not as it has to be in the end."""
    desk = Desk(pair.boot, *pair.cases, hidden=pair.hidden)
    if desk.listed != state_of(pair.boot, *pair.cases, hidden=pair.hidden).images.slots:
        yield f"the device is not in this state: {desk.listed}"
    ran = desk.update()
    if ran.plan is not None and letters(ran.plan.steps) != steps_of(pair):
        yield f"planned as {letters(ran.plan.steps)}"
    if desk.device.power is not Power.RUNNING:
        yield f"no application runs: {desk.device.power}"
    if reasons_of(pair):
        if not isinstance(ran.error, PlanRefused):
            yield f"not refused: {ran}"
    elif outcome_of(pair) is not (None if ran.error is None else ran.error.outcome):
        yield f"ended with {ran.error!r}, {ran.error and ran.error.outcome}, not {outcome_of(pair)}"
    elif ran.report is not None:
        wanted = Ending.CONFIRMED if steps_of(pair) else Ending.NOTHING_TO_DO
        if ran.report.ending is not wanted:
            yield f"ended {ran.report.ending}"
    if reasons_of(pair) or not steps_of(pair):
        if not desk.untouched or desk.resets:
            yield f"something was done: {desk.resets} resets"
        return
    yield from _in_the_end(pair, desk)


def _in_the_end(pair: Pair, desk: Desk) -> Iterator[str]:
    if desk.running != runs_then(pair):
        yield f"{desk.running} run, not {runs_then(pair)}"
    for number, cell in enumerate(pair.cells):
        kept = runs_then(pair)[number]
        if not pair.runs(number) and kept != cell.runs:
            beside = cell.runs if pair.boot.keeps else None
            if desk.other(number) != beside:
                yield f"{desk.other(number)} lies beside image {number}, not {beside}"
    resets = {int("R" in steps_of(pair)) + pair.crashes}
    if outcome_of(pair) is Outcome.NEVER_SWAPPED:
        resets.add(2)  # once more, as nothing shows that the first one has arrived
    if desk.resets not in resets:
        yield f"{desk.resets} resets"
    then = [_after_another_reset(pair, number) for number in (0, 1)]
    desk.reset()
    if desk.running != then or desk.device.power is not Power.RUNNING:
        yield f"after another reset {desk.running} run, not {then}"


def _after_another_reset(pair: Pair, number: int) -> str | None:
    cell = pair.cells[number]
    if outcome_of(pair) is Outcome.MIXED and pair.goes_back(number):
        return cell.runs  # nothing is confirmed where not all of them run
    if pair.runs(number) and cell.state.endswith("pending"):
        return other_version(pair.boot, cell.state)  # what waits there is none of the update's, as it has told
    return runs_then(pair)[number]


@pytest.mark.parametrize("listed", LISTED)
@pytest.mark.parametrize("boot", BOOTS.values(), ids=lambda boot: boot.name.replace(" ", "_"))
def test_every_pair_is_carried_out(boot: Boot, listed: str) -> None:
    pairs = [pair for pair in PAIRS if pair.boot is boot and pair.listed == listed]
    faults = [f"{pair}: {text}" for pair in thinned(pairs, boot.name, listed, part=23) for text in carried_out(pair)]
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults)


# -- in other modes, and on devices that let no other image be confirmed -----------------------------------------------


def left(pair: Pair, desk: Desk) -> list[str]:
    """What runs: new or old, for each image that the update could bring."""
    found = []
    for number, cell in enumerate(pair.cells):
        if pair.runs(number) or cell.version == cell.runs:
            continue
        found.append({cell.version: "new", cell.runs: "old"}.get(desk.running[number], desk.running[number]))
    return found


def broken(pair: Pair, mode: Mode, confirms_others: bool) -> Iterator[str]:
    """What holds of every update: refused is untouched, done is done, never old beside new but as told."""
    desk = Desk(pair.boot, *pair.cases, hidden=pair.hidden, confirms_others=confirms_others)
    ran = desk.update(mode=mode)
    if desk.device.power is not Power.RUNNING:
        yield f"no application runs: {desk.device.power}"
    if isinstance(ran.error, PlanRefused) or (ran.report and ran.report.ending is Ending.NOTHING_TO_DO):
        if not desk.untouched or desk.resets:
            yield f"something was done: {desk.resets} resets"
        return
    run = set(left(pair, desk))
    if mode is Mode.UPLOAD_ONLY:
        if ran.error is not None or desk.resets or run - {"old"}:
            yield f"{ran.error!r}, {desk.resets} resets, {desk.running} run"
        return
    if ran.error is not None:
        # What left its slot unseen may run, and that is told; whatever else there is.
        unseen = "it cannot be proven that it runs" in ran.error.message
        told = {Outcome.MIXED: {"new", "old"}, Outcome.NOT_CONFIRMED: {"new"}}
        if run and not unseen and run != told.get(ran.error.outcome or Outcome.MIXED, {"old"}):
            yield f"{desk.running} run, and the update says {ran.error!r}"
        to_stay = mode is Mode.CONFIRM_ONLY or not pair.boot.trial or any(cell.waits for cell in pair.cells)
        desk.reset()
        if len(set(left(pair, desk))) > 1 and not unseen and not to_stay:
            yield f"{desk.running} run after another reset: old beside new"
        return
    if run - {"new"}:
        yield f"{desk.running} run, and the update says that all is well"
    ending = ran.report.ending if ran.report is not None else None
    desk.reset()
    if ending is Ending.CONFIRMED and set(left(pair, desk)) - {"new"}:
        yield f"{desk.running} run after another reset, and the update says that all stay"


OTHERWISE = [
    *((mode, True) for mode in Mode if mode is not Mode.TEST_AND_CONFIRM),
    (Mode.TEST_AND_CONFIRM, False),
    (Mode.TEST_ONLY, False),
]


@pytest.mark.parametrize(("mode", "confirms_others"), OTHERWISE)
def test_pairs_end_as_told_in_every_mode(mode: Mode, confirms_others: bool) -> None:
    found = [
        f"{pair}: {text}"
        for pair in thinned(PAIRS[::13], mode, confirms_others, part=17)
        for text in broken(pair, mode, confirms_others)
    ]
    assert not found, f"{len(found)} faults:\n" + "\n".join(found)


# -- counted -----------------------------------------------------------------------------------------------------------

COUNTS = """
                                             installed confirmed  as it is  unproven     fails   refused  impossible
swap using scratch, both listed                    256         9        16         0        72      1247         425
swap using scratch, image 1 not listed               0         0         0       240        64      1296         425
swap using move, both listed                       256         9        16         0        72      1247         425
swap using move, image 1 not listed                  0         0         0       240        64      1296         425
swap using offset, both listed                     256         9        16         0        72      1247         425
swap using offset, image 1 not listed                0         0         0       240        64      1296         425
overwrite, both listed                             192         0        16         0         0       816        1001
overwrite, image 1 not listed                        0         0         0       224         0       800        1001
direct XIP, both listed                             45         0         9         0        21       501        1449
direct XIP with revert, both listed                 96         9        16         0        40      1439         425
direct XIP, requests kept, both listed              96         9        16         0        40      1439         425
direct XIP, requests, both listed                   96         9        16         0        40      1439         425
RAM load, both listed                               21         0         4         0         0       231        1769
RAM load with revert, both listed                   80         9        16         0         0      1495         425
unknown, both listed                               256         9        16         0        72      1247         425
unknown, image 1 not listed                          0         0         0       240        64      1296         425
"""


def end(pair: Pair) -> str:
    """What comes of a pair, in a word."""
    if reasons_of(pair):
        return "refused"
    if outcome_of(pair) is not None:
        return "unproven" if outcome_of(pair) is Outcome.UNSEEN else "fails"
    return "installed" if "R" in steps_of(pair) else "confirmed" if steps_of(pair) else "as it is"


def test_the_pairs_are_counted() -> None:
    ends = ("installed", "confirmed", "as it is", "unproven", "fails", "refused", "impossible")
    table = [f"{'':44}" + "".join(f"{name:>11}" for name in ends)]
    every = len(STATES) ** 2 * len(KINDS) ** 2
    for boot, listed in dict.fromkeys((pair.boot, pair.listed) for pair in PAIRS):
        counts = Counter(end(pair) for pair in PAIRS if pair.boot is boot and pair.listed == listed)
        counts["impossible"] = every - counts.total()
        table.append(f"{f'{boot.name}, {listed}':44}" + "".join(f"{counts[name]:11}" for name in ends))
    shown = "\n".join(table)
    print(f"\n{shown}")
    assert shown.split() == COUNTS.split()
