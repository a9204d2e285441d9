"""The state matrix of manifest updates (nRF Connect SDK): one image names the other, and both are one set.

A state and a kind of file are those of the set. As in `test_matrix`, what has to come of a cell is worked out here, and
each is carried out on the simulated device.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import product

import pytest

from mcumgrx.errors import FlowError, PlanRefused
from mcumgrx.flows import Ending
from mcumgrx.flows.plan import Upload
from mcumgrx.mcuboot import ImageFlag
from mcumgrx.sim.bootloader import Mode as BootMode
from mcumgrx.sim.device import Power
from mcumgrx.sim.images import build_image
from tests.support.in_place import InPlace, config_of
from tests.support.matrix import ADDRESS, ANOTHER_BOARD, SLOT_SIZE, STATES, letters, with_other_hash

KINDS = {"direct XIP": BootMode.DIRECT_XIP, "direct XIP with revert": BootMode.DIRECT_XIP_REVERT}
FILES = (
    "new",
    "running",
    "staged",
    "partly uploaded",
    "older",
    "too large",
    "wrong variant",
    "wrong hash type",
    "wrong board",
    "of two builds",
)
"""Partly uploaded: the image that is named is there, and that which names it is not."""

Cell = tuple[str, str, str]


def impossible(kind: str, state: str, file: str) -> str | None:
    """Why there is no such cell; None where there is."""
    if KINDS[kind] is BootMode.DIRECT_XIP and state == "on trial":
        return "the bootloader knows no trials: what it runs is confirmed"
    if KINDS[kind] is BootMode.DIRECT_XIP and state == "test pending":
        return "there are no marks: what waits is newer than what runs, and stays"
    if file == "staged" and state == "no image":
        return "a set that lies in the other slots is there"
    if file == "partly uploaded" and state != "no image":
        return "the upload has erased what lay there"
    return None


CELLS: list[Cell] = [cell for cell in product(KINDS, STATES, FILES) if impossible(*cell) is None]


def other_version(kind: str, state: str) -> str:
    marked = KINDS[kind] is BootMode.DIRECT_XIP_REVERT or state != "confirmed"
    return "1.0.0" if state == "on trial" else "1.2.0" if marked else "0.8.0"


def runs(state: str) -> str:
    return "1.5.0" if state == "on trial" else "1.0.0"


def version_of(cell: Cell) -> str:
    kind, state, file = cell
    return {"running": runs(state), "staged": other_version(kind, state), "older": "0.9.0"}.get(file, "2.0.0")


def a_set(version: str, *, size: int = 1500, linked: int | None = None) -> dict[int, bytes]:
    beside = build_image(f"5.{version[:3]}", payload_size=size, image=1)
    flags = 0 if linked is None else ImageFlag.ROM_FIXED
    owner = build_image(version, payload_size=1500, manifest=[beside], flags=flags, load_address=linked or 0)
    return {0: owner, 1: beside}


def files_of(cell: Cell) -> dict[int, bytes]:
    _, state, file = cell
    if file == "wrong variant":
        return a_set("2.0.0", linked=ADDRESS + (SLOT_SIZE if state == "on trial" else 0))
    files = a_set(version_of(cell), size=SLOT_SIZE if file == "too large" else 1500)
    if file == "wrong hash type":
        files[0] = with_other_hash(files[0])
    if file == "of two builds":
        files[1] = a_set("2.1.0")[1]
    return files


def desk_of(cell: Cell) -> InPlace:
    kind, state, file = cell
    desk = InPlace(config_of(KINDS[kind], 2, manifest=True, address=ADDRESS), ("1.0.0", "5.1.0"))
    loader = desk.device.bootloader

    def place(version: str, side: int) -> None:
        for number, image in a_set(version).items():
            desk.place(number, side, image)

    place("1.0.0", 0)
    loader.set_next(0, active=True, confirm=True)
    if state == "on trial":
        place("1.5.0", 1)
        loader.set_next(1, active=False, confirm=False)
    desk.device.settle()
    if state not in ("no image", "on trial"):
        place(other_version(kind, state), 1)
        if state.endswith("pending") and KINDS[kind] is BootMode.DIRECT_XIP_REVERT:
            loader.set_next(1, active=False, confirm=state == "permanent pending")
    if file == "partly uploaded":
        desk.place(1, 1, files_of(cell)[1])
    assert desk.running == [runs(state), f"5.{runs(state)[:3]}"]
    return desk


def reasons(cell: Cell) -> list[str]:
    """Why an update may not begin: what the refusal says."""
    _, state, file = cell
    found = {
        "wrong board": [r"board is .* and not"],
        "wrong hash type": [r"hash has 512 bits"],
        "too large": [r"does not fit"],
        "wrong variant": [r"linked for slot \d"],
        "of two builds": [r"names another image 1"],
        "older": [r"not newer .* runs the newest"],
    }.get(file, [])
    if file == "staged" and version_of(cell) < runs(state):
        found.append(r"not newer .* runs the newest")
    if state == "on trial" and file != "running":
        found.append(r"on trial|is not confirmed")
    return found


def steps(cell: Cell) -> str:
    """Those that it names first, then the one that names them; it alone is looked at, marked and confirmed."""
    kind, state, file = cell
    marks = KINDS[kind] is BootMode.DIRECT_XIP_REVERT
    if file == "running":
        return "C" if state == "on trial" else ""
    uploads = {"staged": "", "partly uploaded": "U"}.get(file, "UU")
    waits = file == "staged" and state.endswith("pending")
    return f"{uploads}L{'t' if marks and not waits else ''}RPP{'C' if marks else ''}"


def faults(cell: Cell) -> Iterator[str]:
    _, state, file = cell
    desk = desk_of(cell)
    before, boots = desk.device.flash.snapshot(), desk.device.boots
    try:
        report = desk.update(files_of(cell), board=ANOTHER_BOARD if file == "wrong board" else None)
    except FlowError as error:
        if not isinstance(error, PlanRefused) or not any(re.search(says, error.message) for says in reasons(cell)):
            yield f"{error!r}, and the reasons are {reasons(cell)}"
        elif not error.hint or desk.device.flash.snapshot() != before or desk.device.boots != boots:
            yield "refused without a way out, or something was done"
        return
    if reasons(cell):
        yield f"not refused: {report.summary}"
        return
    made = letters(desk.plans[-1].steps)
    if made != steps(cell):
        yield f"planned as {made}, not {steps(cell)}"
    sent = [number for number, _ in desk.plans[-1].tasks(Upload)]
    if sent != sorted(sent, reverse=True):
        yield f"sent in the order {sent}: what names the others has to be the last"
    wanted = [version_of(cell), f"5.{version_of(cell)[:3]}"]
    if report.ending is not (Ending.CONFIRMED if steps(cell) else Ending.NOTHING_TO_DO):
        yield f"ended {report.ending}"
    if not steps(cell) and desk.device.flash.snapshot() != before:
        yield "something was done"
    if desk.running != wanted or len(set(desk.sides)) != 1 or desk.device.power is not Power.RUNNING:
        yield f"{desk.running} run from {desk.sides}, not {wanted}"
    if desk.device.boots - boots != steps(cell).count("R"):
        yield f"{desk.device.boots - boots} resets"
    kept = [desk.held(number)[1 - desk.sides[number]] for number in (0, 1)]
    if steps(cell) and kept[0] != "1.0.0":
        yield f"{kept} lie beside them"
    if (steps(cell) or not state.endswith("pending")) and desk.after_reset() != wanted:
        yield f"after another reset {desk.running} run"


@pytest.mark.parametrize("kind", KINDS)
def test_every_cell_is_carried_out(kind: str) -> None:
    found = [f"{cell}: {text}" for cell in CELLS if cell[0] == kind for text in faults(cell)]
    assert not found, f"{len(found)} faults:\n" + "\n".join(found)


COUNTS = """
                           installed   confirmed    as it is     refused  impossible
direct XIP                         5           0           3          19          23
direct XIP with revert             8           1           4          32           5
"""


def end(cell: Cell) -> str:
    """What comes of a cell, in a word."""
    if reasons(cell):
        return "refused"
    return "installed" if "R" in steps(cell) else "confirmed" if steps(cell) else "as it is"


def test_the_cells_are_counted() -> None:
    ends = ("installed", "confirmed", "as it is", "refused", "impossible")
    table = [f"{'':24}" + "".join(f"{name:>12}" for name in ends)]
    for kind in KINDS:
        cells = list(product([kind], STATES, FILES))
        counts = Counter("impossible" if impossible(*cell) else end(cell) for cell in cells)
        table.append(f"{kind:24}" + "".join(f"{counts[name]:12}" for name in ends))
    shown = "\n".join(table)
    print(f"\n{shown}")
    assert shown.split() == COUNTS.split()
