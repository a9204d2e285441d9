"""Power that is cut while two images are installed and confirmed, in updates that are carried out to their end.

What the device runs then is read from its flash; the update has to say just that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from mcumgrx.errors import Outcome
from mcumgrx.flows import Ending
from mcumgrx.sim.device import Power
from mcumgrx.sim.flash import Operation, PowerCut
from tests.support.matrix import BOOTS, Boot, Case, Desk, Ran
from tests.support.thinned import thinned

NEW: Case = ("no image", "new")
STAGED: Case = ("permanent pending", "staged")


class CutDesk(Desk):
    """A device whose power fails before each of these flash operations, counted from the reset that installs.

    `installing` are those of the bootloader; what follows confirms the images.
    """

    def __init__(self, boot: Boot, *cases: Case, cuts: tuple[int, ...] = ()) -> None:
        super().__init__(boot, *cases)
        self._cuts = cuts
        self.operations = self.installing = 0
        self.device.flash.watch = self._count
        self.device.listeners.append(self._listen)

    def _listen(self, power: Power) -> None:
        if power is Power.BOOTING and self.device.boots == self.boots + 1:
            self.installing = self.operations

    def _count(self, operation: Operation) -> None:
        if self.device.boots == self.boots + 1 and self.device.power is Power.RUNNING:
            self.operations += 1
            if self.operations in self._cuts:
                raise PowerCut(operation)


def new_ones(desk: Desk) -> list[bool]:
    """Which of the images that were brought run."""
    wanted = ["1.2.0" if file == "staged" else "2.0.0" for _, file in desk.cases]
    return [version == new for version, new in zip(desk.running, wanted, strict=True)]


def faults(desk: CutDesk, ran: Ran) -> Iterator[str]:
    """Everything in which what the update says is not what the device does."""
    run = new_ones(desk)
    if desk.device.power is not Power.RUNNING:
        yield f"no application runs: {desk.device.power}"
    if all(run):
        if ran.report is None or ran.report.ending is not Ending.CONFIRMED:
            yield f"both run, and the update says {ran.error!r}"
        desk.reset()
        if not all(new_ones(desk)):
            yield f"after another reset {desk.running} run"
        return
    right = {Outcome.MIXED} if any(run) else {Outcome.REVERTED, Outcome.REJECTED, Outcome.NEVER_SWAPPED}
    if ran.error is None or ran.error.outcome not in right:
        yield f"{desk.running} run, and the update says {ran.error!r}"


# What runs in the end if power is cut in the bootloader, and both are on trial.
ENDS = {
    "swap using scratch": {"both"},
    "swap using move": {"both"},
    "swap using offset": {"both"},
    "overwrite": {"both"},
    # Image 0 is given its one start before the cut, and is erased unrun after it; the trial of image 1 begins then.
    "direct XIP with revert": {"both", "mixed"},
    "RAM load with revert": {"both", "mixed"},
}


@pytest.mark.parametrize("second", [NEW, STAGED], ids=["both_tried", "one_to_stay"])
@pytest.mark.parametrize("name", ENDS)
def test_whatever_the_moment_the_update_says_what_runs(name: str, second: Case) -> None:
    boot = BOOTS[name]
    whole = CutDesk(boot, NEW, second)
    assert list(faults(whole, whole.update())) == []
    assert whole.operations, "nothing is done by the bootloader"
    found: list[str] = []
    ends: Counter[str] = Counter()
    for cut in thinned(range(1, whole.operations + 1), name, part=2 if whole.operations > 8 else 1):
        for cuts in ((cut,), (cut, cut + 1 + cut * 7 % whole.operations)):
            desk = CutDesk(boot, NEW, second, cuts=cuts)
            ran = desk.update()
            run = new_ones(desk)
            if max(cuts) <= whole.installing:
                ends["both" if all(run) else "mixed" if any(run) else "none"] += 1
            found += [f"power cut before operations {cuts} of {whole.operations}: {text}" for text in faults(desk, ran)]
    print(f"{name}: {whole.installing} operations to install them, {whole.operations} in all; {dict(ends)} run")
    assert not found, f"{len(found)} faults:\n" + "\n".join(found)
    assert set(ends) == (ENDS[name] if second is NEW else {"both"})
