"""Two images in every state of a device and with every kind of file: updates carried out on the simulated device.

What has to come out is worked out here from the states alone, not from the plan; the device's flash tells whether it
has.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from itertools import product

import cbor2
import pytest

from mcumgrx.address import Address
from mcumgrx.errors import PlanRefused
from mcumgrx.flows import DfuPolicy, Ending, Report, update
from mcumgrx.mcuboot import Image, parse_image
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.header import GroupId, Op
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import SimulatedTransport
from mcumgrx.sim.loop import run

STATES = ("no image", "confirmed", "test pending", "permanent pending", "on trial")
"""What slot 1 holds beside an image that runs: nothing, another one, one that is marked; or that image is on trial."""

FILES = ("new", "running", "staged", "partly", "older", "too large")
"""What the file is to the device: not there, what runs, what lies in slot 1, sent in part; an older version; …"""

Case = tuple[str, str]
CASES: tuple[Case, ...] = tuple(product(STATES, FILES))
SLOT_SIZE = 64 * 1024


@cache
def built(number: int, version: str, size: int = 1500) -> bytes:
    return build_image(f"{number + 1}.{version}", payload_size=size, image=number)


class Desk:
    """A device with two images, each in a state, and a file for each."""

    def __init__(self, *cases: Case) -> None:
        config = DeviceConfig(
            images=2, slot_size=SLOT_SIZE, buf_size=1024, timing=INSTANT, boot_s=0.1, confirms_other_images=True
        )
        self.device = SimulatedDevice(config, name="desk")
        self.files = {number: self._file(number, *case) for number, case in enumerate(cases)}
        for number, (state, _) in enumerate(cases):
            self.device.install(built(number, "1.0"), slot=2 * number)
            if state == "on trial":
                self.device.install(built(number, "1.5"), slot=2 * number + 1)
                self.device.bootloaders[number].set_pending()
        self.device.settle()
        for number, (state, file) in enumerate(cases):
            self._fill(number, state, file)
        for number, (_, file) in enumerate(cases):
            if file == "partly":
                self._send_half(number)

    def _file(self, number: int, state: str, file: str) -> bytes:
        waiting, running = ("1.0", "1.5") if state == "on trial" else ("1.2", "1.0")
        return {
            "new": built(number, "2.0"),
            "partly": built(number, "2.0"),
            "running": built(number, running),
            "staged": built(number, waiting),
            "older": built(number, "0.9"),
            "too large": built(number, "2.0", SLOT_SIZE),
        }[file]

    def _fill(self, number: int, state: str, file: str) -> None:
        if state == "on trial":
            return
        if state != "no image" or file == "staged":
            self.device.install(built(number, "1.2"), slot=2 * number + 1)
        if state.endswith("pending"):
            self.device.bootloaders[number].set_pending(state.startswith("permanent"))

    def _send_half(self, number: int) -> None:
        """The first half of the file, as an earlier attempt has left it; a device on trial refuses it."""
        file = self.files[number]
        first = {"image": number, "len": len(file), "off": 0, "sha": hashlib.sha256(file).digest(), "data": file[:700]}
        for body in (first, {"off": 700, "data": file[700:1000]}):
            self.device.handle(build_message(Op.WRITE, 1, 0, GroupId.IMAGE, 1, 1, cbor2.dumps(body)), 0.0)

    def update(self) -> Report:
        images: Mapping[int, Image] = {number: parse_image(file) for number, file in self.files.items()}
        transport = SimulatedTransport(self.device)
        session = SessionDevice(Address.parse("sim:desk"), transport, default_registry())
        return run(update(session, images, DfuPolicy()))

    @property
    def running(self) -> list[str]:
        return [str(result.version) for result in self.device.boot_results]

    @property
    def confirmed(self) -> bool:
        return all(loader.swap_type().name == "NONE" for loader in self.device.bootloaders)


def is_refused(first: Case, second: Case) -> bool:
    """Whether an update of these two may not begin."""
    for state, file in (first, second):
        if file == "too large" or (state == "on trial" and file != "running"):
            return True
    # The reset that installs one of them: what does it do to the other one, which runs already?
    one, other = first[1] != "running", second[1] != "running"
    if one and not other:
        return second[0] in ("on trial", "test pending", "permanent pending")
    if other and not one:
        return first[0] in ("test pending", "permanent pending")  # a trial in image 0 outlasts it
    return False


def versions(*cases: Case) -> list[str]:
    """What runs in the end."""
    named = {"new": "2.0.0", "partly": "2.0.0", "older": "0.9.0", "staged": "1.2.0"}
    runs = {True: "1.5.0", False: "1.0.0"}
    shown = [named.get(file, runs[state == "on trial"]) for state, file in cases]
    return [f"{number + 1}.{text.removesuffix('.0')}" for number, text in enumerate(shown)]


COUNTS: Counter[str] = Counter()


@pytest.mark.parametrize("first", CASES, ids=lambda case: "-".join(case).replace(" ", "_"))
def test_both_images_end_as_wanted_or_nothing_is_touched(first: Case) -> None:
    for second in CASES:
        desk = Desk(first, second)
        before, resets = desk.device.flash.snapshot(), desk.device.boots
        case = f"{first} and {second}"
        if is_refused(first, second):
            with pytest.raises(PlanRefused) as refusal:
                desk.update()
            assert refusal.value.hint, case
            assert desk.device.flash.snapshot() == before, case
            COUNTS["refused"] += 1
            continue
        report = desk.update()
        desk.device.settle()
        assert desk.running == versions(first, second), case
        untouched = first[1] == second[1] == "running" and "on trial" not in (first[0], second[0])
        assert desk.device.boots - resets == (0 if first[1] == second[1] == "running" else 1), case
        if untouched:
            assert report.ending is Ending.NOTHING_TO_DO, case
            assert desk.device.flash.snapshot() == before, case
            COUNTS["nothing to do"] += 1
            continue
        assert report.ending is Ending.CONFIRMED, case
        waits = {"test pending", "permanent pending"}
        if not any(file == "running" and state in waits for state, file in (first, second)):
            assert desk.confirmed, case
            desk.device.reset(1e6)
            desk.device.settle()
            assert desk.running == versions(first, second), f"{case}, after another reset"
        COUNTS["confirmed"] += 1
    print(f"{len(CASES)} pairs with {first}; so far {dict(COUNTS)}")
