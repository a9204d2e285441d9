"""The state matrix of what is written over the application: serial recoveries, a single slot, firmware loaders.

There is one slot that counts, no mark and no trial. As in `test_matrix`, what has to come of a cell is worked out here
from what is known of each way, and each cell is carried out on the simulated device.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest

from mcumgrx.address import Address
from mcumgrx.errors import McumgrError, PlanRefused
from mcumgrx.flows import DfuPolicy, Ending, Mode, Plan, Report, update
from mcumgrx.flows.plan import EnterLoader, EnterRecovery, NameLoader, Prove, Reset, Step, Upload
from mcumgrx.mcuboot import ImageFlag, parse_image
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.bootloader import Mode as BootMode
from mcumgrx.sim.bootloader import accept_hash
from mcumgrx.sim.device import DeviceConfig, Power, RecoveryConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from tests.support.matrix import ADDRESS, ANOTHER_BOARD, SLOT_SIZE, STATES, with_other_hash

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
)
RUNS, OTHER, NEW, OLDER = "1.0.0", "1.2.0", "2.0.0", "0.9.0"
LOADER = build_image("0.1.0", payload_size=900)


@dataclass(frozen=True)
class Way:
    """How the application is written over.

    Attributes:
        config: of the device.
        answers: the application answers at first; otherwise what writes it does.
        lists: what answers lists the image in slot 0.
        sizes: what answers tells how large slot 0 is.
        loader: a firmware loader writes it, from slot 1; otherwise MCUboot's serial recovery.
    """

    name: str
    config: Mapping[str, Any]
    answers: bool = False
    lists: bool = True
    sizes: bool = False
    loader: bool = False


_RECOVERY = RecoveryConfig(verify_s=0.01)
_LOADER = {"mode": BootMode.FIRMWARE_LOADER, "loader_size": 16 * 1024}
WAYS = {
    way.name: way
    for way in (
        Way("recovery", {"recovery": _RECOVERY}),
        Way(
            "recovery that lists flags", {"recovery": replace(_RECOVERY, image_state=True, slot_info=True)}, sizes=True
        ),
        Way("recovery without a list", {"recovery": replace(_RECOVERY, image_list=False)}, lists=False),
        Way("single slot", {"mode": BootMode.SINGLE_SLOT, "recovery": _RECOVERY}, answers=True, sizes=True),
        Way("loader, application lists", {**_LOADER, "application_lists": True}, answers=True, sizes=True, loader=True),
        Way("loader, application does not", _LOADER, answers=True, lists=False, loader=True),
        Way("in the loader", _LOADER, sizes=True, loader=True),
    )
}


@dataclass(frozen=True)
class Cell:
    way: Way
    state: str
    file: str
    mode: Mode = Mode.TEST_AND_CONFIRM

    def __str__(self) -> str:
        return f"{self.way.name}, {self.state}, {self.file} file, {self.mode.value}"

    @property
    def there(self) -> bool:
        """Slot 0 holds the file, as far as can be seen before anything is done."""
        return self.file == "running" and self.way.lists


_IMPOSSIBLE: tuple[tuple[Callable[[Way, str, str], bool], str], ...] = (
    (
        lambda way, state, file: state not in ("no image", "confirmed"),
        "the reset that leads there has installed what waited and ended what was on trial, or there is no other slot",
    ),
    (lambda way, state, file: state == "no image" and way.answers, "the application that answers is an image"),
    (lambda way, state, file: state == "no image" and file == "running", "nothing runs"),
    (
        lambda way, state, file: file == "staged" and (state == "no image" or way.loader or way.name == "single slot"),
        "slot 1 is empty, is not there, or holds the firmware loader",
    ),
    (
        lambda way, state, file: file == "partly uploaded" and state != "no image",
        "the first chunk has erased what was there",
    ),
)


def impossible(way: Way, state: str, file: str) -> str | None:
    return next((reason for holds, reason in _IMPOSSIBLE if holds(way, state, file)), None)


CELLS = [Cell(*found) for found in product(WAYS.values(), STATES, FILES, Mode) if impossible(*found[:3]) is None]


def file_of(file: str) -> bytes:
    version = {"running": RUNS, "staged": OTHER, "older": OLDER}.get(file, NEW)
    flags, address = (ImageFlag.ROM_FIXED, ADDRESS + SLOT_SIZE) if file == "wrong variant" else (0, 0)
    size = SLOT_SIZE if file == "too large" else 1500
    data = build_image(version, payload_size=size, flags=flags, load_address=address)
    return with_other_hash(data) if file == "wrong hash type" else data


class Desk:
    def __init__(self, cell: Cell) -> None:
        way, self.cell = cell.way, cell
        config = DeviceConfig(
            slot_size=SLOT_SIZE, address=ADDRESS, buf_size=1024, timing=INSTANT, boot_s=0.1, **way.config
        )
        self.device = SimulatedDevice(config, name="desk")
        for loader in self.device.bootloaders:  # built for one type of hash, as they are
            loader.verify = lambda image: len(image.hash) == 32 and accept_hash(image)
        if cell.state == "confirmed":
            self.device.install(build_image(RUNS, payload_size=1500))
        if way.loader:
            self.device.install(LOADER, slot=1)
        self.device.settle()
        if not way.answers:
            self._enter()
        if cell.state == "confirmed" and not way.loader and way.name != "single slot":
            self.device.install(build_image(OTHER, payload_size=1500), slot=1)
        if cell.file == "partly uploaded":
            slot = self.device.bootloader.primary
            self.device.flash.poke(slot.offset, file_of(cell.file)[:1000])
        self.before, self.boots = self.device.flash.snapshot(), self.device.boots
        self.plan: Plan | None = None
        self.report: Report | None = None
        self.error: McumgrError | None = None

    def _enter(self) -> None:
        self.device.request_reset(boot_mode=1)
        self.device.reset(0.0)
        self.device.settle()

    def update(self) -> None:
        async def keep(plan: Plan) -> bool:
            self.plan = plan
            return True

        transport = SimulatedTransport(self.device, LinkModel.ideal())
        session = SessionDevice(Address.parse("sim:desk"), transport, default_registry())
        board = ANOTHER_BOARD if self.cell.file == "wrong board" else None
        policy = DfuPolicy(self.cell.mode, board=board)
        try:
            self.report = run(update(session, parse_image(file_of(self.cell.file)), policy, on_plan=keep))
        except McumgrError as error:
            self.error = error
        self.device.settle()

    @property
    def held(self) -> str | None:
        """The version of the image in slot 0."""
        header = self.device.bootloader.primary.header()
        return None if header is None else str(header.version)


# -- what has to come of it --------------------------------------------------------------------------------------------


def reasons(cell: Cell) -> list[str]:
    """Why the update may not begin: what the refusal says."""
    found = []
    if cell.file == "wrong board":
        found.append(r"does not say which board|board is .* and not")
    if cell.file == "wrong hash type" and cell.way.lists and (cell.state == "confirmed" or cell.way.loader):
        found.append(r"hash has 512 bits")
    if cell.file == "wrong variant" and cell.mode is not Mode.UPLOAD_ONLY and (cell.way.sizes or not cell.way.loader):
        found.append(r"linked for (a )?slot .* no way back")
    if cell.file == "too large" and cell.way.sizes:
        found.append(r"does not fit")
    return found


_LETTERS: Mapping[type[Step], str] = {
    EnterRecovery: "V",
    NameLoader: "N",
    EnterLoader: "V",
    Upload: "U",
    Reset: "R",
    Prove: "P",
}


def steps(cell: Cell) -> str:
    """V enter what writes the application, U upload, R reset, P prove."""
    runs = cell.there and cell.way.answers
    if runs:
        return ""
    enter = "V" if cell.way.answers else ""
    upload = "" if cell.there else "U"
    return f"{enter if upload else ''}{upload}{'RP' if cell.mode is not Mode.UPLOAD_ONLY else ''}"


def faults(cell: Cell) -> Iterator[str]:
    desk = Desk(cell)
    held = desk.held
    desk.update()
    if reasons(cell):
        says = desk.error.message if isinstance(desk.error, PlanRefused) else ""
        if not any(re.search(reason, says) for reason in reasons(cell)):
            yield f"not refused: {desk.error!r}"
        if desk.device.flash.snapshot() != desk.before or desk.device.boots != desk.boots:
            yield "something was done"
        return
    if desk.plan is None:
        yield f"no plan: {desk.error!r}"
        return
    made = "".join(_LETTERS[type(step)] for step in desk.plan.steps)
    if made != steps(cell):
        yield f"planned as {made}, not {steps(cell)}"
    if "U" in made and not desk.plan.no_way_back:
        yield "the application is lost, and nothing says so"
    if cell.file in ("too large", "wrong hash type", "wrong variant"):
        # Nothing has told before; the device does, at the first chunk, or by not starting it.
        if desk.error is None and (cell.file == "too large" or cell.mode is not Mode.UPLOAD_ONLY):
            yield f"ended {desk.report}"
        if (cell.file == "too large" or cell.way.loader) and cell.mode is not Mode.UPLOAD_ONLY and desk.held != held:
            yield f"slot 0 holds {desk.held} after what cannot run there"
        return
    if desk.error is not None or desk.report is None:
        yield f"failed: {desk.error!r}"
        return
    yield from _in_the_end(cell, desk)


def _in_the_end(cell: Cell, desk: Desk) -> Iterator[str]:
    wanted = str(parse_image(file_of(cell.file)).version)
    assert desk.report is not None
    if desk.held != wanted:
        yield f"slot 0 holds {desk.held}, not {wanted}"
    if not steps(cell):
        if desk.report.ending is not Ending.NOTHING_TO_DO or desk.device.flash.snapshot() != desk.before:
            yield f"ended {desk.report.ending}"
        return
    if cell.mode is Mode.UPLOAD_ONLY:
        if desk.report.ending is not Ending.UPLOADED:
            yield f"ended {desk.report.ending}"
    else:
        if desk.report.ending not in (Ending.CONFIRMED, Ending.ANSWERS):
            yield f"ended {desk.report.ending}"
        if desk.device.power is not Power.RUNNING or str(desk.device.boot_results[0].version) != wanted:
            yield f"{desk.device.power}, {desk.device.boot_results[0].version} runs"
    desk.device.reset(1e6)
    desk.device.settle()
    if desk.device.power is not Power.RUNNING or str(desk.device.boot_results[0].version) != wanted:
        yield f"after another reset {desk.device.power}, {desk.device.boot_results[0].version} runs"


@pytest.mark.parametrize("way", WAYS.values(), ids=lambda way: way.name.replace(" ", "_"))
def test_every_cell_is_carried_out(way: Way) -> None:
    found = [f"{cell}: {text}" for cell in CELLS if cell.way is way for text in faults(cell)]
    assert not found, f"{len(found)} faults:\n" + "\n".join(found)


# -- counted -----------------------------------------------------------------------------------------------------------

COUNTS = """
                                 written     started    as it is       fails     refused  impossible
recovery                               6           1           0           3           5          30
recovery that lists flags              6           1           0           1           7          30
recovery without a list                7           0           0           4           4          30
single slot                            2           0           1           0           4          38
loader, application lists              2           0           1           0           4          38
loader, application does not           3           0           0           3           1          38
in the loader                          5           1           0           0           8          31
"""
"""Cells of each way in the mode test-and-confirm, by what comes of them."""


def end(cell: Cell) -> str:
    if reasons(cell):
        return "refused"
    if cell.file in ("too large", "wrong hash type", "wrong variant"):
        return "fails"
    return "written" if "U" in steps(cell) else "started" if steps(cell) else "as it is"


def test_the_cells_are_counted() -> None:
    ends = ("written", "started", "as it is", "fails", "refused", "impossible")
    table = [f"{'':28}" + "".join(f"{name:>12}" for name in ends)]
    for way in WAYS.values():
        counts = Counter(
            "impossible" if impossible(way, state, file) else end(Cell(way, state, file))
            for state, file in product(STATES, FILES)
        )
        table.append(f"{way.name:28}" + "".join(f"{counts[name]:12}" for name in ends))
    shown = "\n".join(table)
    print(f"\n{shown}\n{len(CELLS)} cells in all modes")
    assert shown.split() == COUNTS.split()


def test_each_reason_is_needed() -> None:
    reached = {impossible(way, state, file) for way, state, file in product(WAYS.values(), STATES, FILES)}
    assert reached == {None, *(reason for _, reason in _IMPOSSIBLE)}
