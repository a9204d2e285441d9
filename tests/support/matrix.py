"""The axes of the state matrix, and a simulated device for each of its cells.

A cell is a bootloader, what the device holds of an image (a state), and what the file is to it. Which of them cannot
be, and why, is said in `impossible`; what has to come of the others is the business of the tests.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import cbor2

from mcumgrx.address import Address
from mcumgrx.errors import FlowError
from mcumgrx.flows import DfuPolicy, Plan, Report, update
from mcumgrx.flows.device_state import DeviceState
from mcumgrx.flows.plan import Check, Confirm, Erase, GoBack, Keep, Look, Mark, Prove, Reset, Soak, Step, Upload
from mcumgrx.mcuboot import Image, ImageFlag, ImageHeader, TlvType, parse_header, parse_image
from mcumgrx.messages.standard import Bootloader, BootloaderMode, ImageState, SlotInfo
from mcumgrx.messages.standard import Slot as MessageSlot
from mcumgrx.protocol.codec import build_message
from mcumgrx.protocol.header import GroupId, Op
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.bootloader import PRIMARY, SECONDARY, BootPolicy, Mode
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.groups.image import ImageServer
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx.sim.pairs import SLOTS_PER_IMAGE
from mcumgrx.sim.slots import Slot

__all__ = [
    "ADDRESS",
    "ANOTHER_BOARD",
    "BOOTS",
    "FILES",
    "IMPOSSIBLE",
    "SENT_BYTES",
    "SLOT_SIZE",
    "STATES",
    "Boot",
    "Case",
    "Desk",
    "Ran",
    "file_of",
    "file_version",
    "impossible",
    "letters",
    "other_version",
    "running_version",
    "state_of",
    "with_other_hash",
]

STATES = ("no image", "confirmed", "test pending", "permanent pending", "on trial")
"""What there is beside a confirmed image that runs: nothing, another image, one that is marked; or what runs is on
trial, beside the confirmed one that it goes back to."""

FILES = (
    "new",
    "running",
    "staged",
    "partly uploaded",
    "older",
    "older and allowed",
    "too large",
    "wrong variant",
    "wrong hash type",
    "wrong board",
)
"""What the file is to the device: not there; what runs; what lies in the other slot; sent in part; of an older version,
wanted expressly or not; larger than the slot; linked for where it would not run; with a hash that the device does not
list; for another board."""

Case = tuple[str, str]
"""A state and a file."""

SLOT_SIZE = 64 * 1024
ADDRESS = 0xC000
RAM = 0x2000_0000
BOARD = "mcumgrx_sim"
ANOTHER_BOARD = "nrf52840dk"
SENT_BYTES = 1000
"""Of a file that is partly uploaded."""


@dataclass(frozen=True, slots=True)
class Boot:
    """A bootloader, and what is known of it.

    Attributes:
        told: the device tells its mode.
        marks: test and confirm exist.
        trial: what is marked for a test goes back unless it is confirmed.
        in_place: the newest image runs where it lies or from RAM, and nothing is moved; otherwise all run in slot 0.
        keeps: the old image is still there after an update.
        slots: of each image.
        requests: a mark for a test outranks the version (nRF Connect SDK).
    """

    name: str
    mode: Mode
    told: bool = True
    marks: bool = True
    trial: bool = True
    in_place: bool = False
    keeps: bool = True
    slots: int = 2
    policy: BootPolicy = field(default_factory=BootPolicy)
    requests: bool = False

    @property
    def link(self) -> LinkModel:
        """Bootloaders with a single slot are updated over serial ports (test_recovery), and these are others."""
        return LinkModel(bootloader=self.slots > 1)

    @property
    def in_ram(self) -> bool:
        return self.mode is Mode.RAM_LOAD


_TO_RAM = {"ram_start": RAM, "ram_size": 0x10_0000}
BOOTS: Mapping[str, Boot] = {
    boot.name: boot
    for boot in (
        Boot("swap using scratch", Mode.SWAP_SCRATCH),
        Boot("swap using move", Mode.SWAP_MOVE),
        Boot("swap using offset", Mode.SWAP_OFFSET),
        Boot("overwrite", Mode.OVERWRITE, trial=False, keeps=False),
        Boot("direct XIP", Mode.DIRECT_XIP, marks=False, trial=False, in_place=True),
        Boot("direct XIP with revert", Mode.DIRECT_XIP_REVERT, in_place=True),
        Boot(
            "direct XIP, requests kept",
            Mode.DIRECT_XIP_REVERT,
            in_place=True,
            policy=BootPolicy(boot_requests=True, keeps_preference=True),
            requests=True,
        ),
        Boot(
            "direct XIP, requests",
            Mode.DIRECT_XIP_REVERT,
            in_place=True,
            policy=BootPolicy(boot_requests=True),
            requests=True,
        ),
        Boot("RAM load", Mode.RAM_LOAD, marks=False, trial=False, in_place=True, policy=BootPolicy(**_TO_RAM)),
        Boot(
            "RAM load with revert",
            Mode.RAM_LOAD,
            in_place=True,
            policy=BootPolicy(**_TO_RAM, ram_load_revert=True),
        ),
        Boot("single slot", Mode.SINGLE_SLOT, marks=False, trial=False, slots=1),
        Boot("unknown", Mode.SWAP_MOVE, told=False),
    )
}
"""By name."""

_Rule = tuple[Callable[[Boot, str, str], bool], str]
_RULES: tuple[_Rule, ...] = (
    (lambda boot, state, file: boot.slots == 1 and state != "no image", "there is no other slot to hold an image"),
    (
        lambda boot, state, file: state == "on trial" and not boot.trial,
        "the bootloader knows no trials: what it runs is confirmed",
    ),
    (
        lambda boot, state, file: state == "test pending" and not boot.marks,
        "there are no marks: what waits is newer than what runs, and stays",
    ),
    (
        lambda boot, state, file: state == "permanent pending" and not boot.marks and boot.in_ram,
        "there are no marks, and the list shows nothing of what the next boot chooses",
    ),
    (
        lambda boot, state, file: state == "no image" and file == "staged",
        "a file that lies in the other slot is an image there",
    ),
    (
        lambda boot, state, file: file == "partly uploaded" and state == "on trial",
        "the other slot is the way back: the device takes no upload",
    ),
    (
        lambda boot, state, file: file == "partly uploaded" and state != "no image",
        "the first chunk has erased what lay in the other slot",
    ),
    (
        lambda boot, state, file: file == "partly uploaded" and boot.slots == 1,
        "there is no slot for a part of an upload",
    ),
)


IMPOSSIBLE = tuple(reason for _, reason in _RULES)


def impossible(boot: Boot, state: str, file: str) -> str | None:
    """Why there is no such cell; None where there is."""
    return next((reason for holds, reason in _RULES if holds(boot, state, file)), None)


# -- files -------------------------------------------------------------------------------------------------------------

# Of the images beside the file. Newest wins where there are no marks: what only lies there is older then.
RUNS, OTHER, OLDER_OTHER, TRIED, NEW, OLDER = "1.0.0", "1.2.0", "0.8.0", "1.5.0", "2.0.0", "0.9.0"


@cache
def built(boot_in_ram: bool, number: int, version: str, size: int = 1500, linked: int | None = None) -> bytes:
    flags, address = (ImageFlag.RAM_LOAD, RAM + 0x8_0000 * number) if boot_in_ram else (0, 0)
    if linked is not None:
        flags, address = ImageFlag.ROM_FIXED, linked
    return build_image(version, payload_size=size, image=number, flags=flags, load_address=address)


@cache
def with_other_hash(data: bytes) -> bytes:
    """The same image, with a SHA-512 instead."""
    header = parse_header(data)
    body = data[: header.hashed_size]
    digest = hashlib.sha512(body).digest()
    record = struct.pack("<HH", TlvType.SHA512, len(digest)) + digest
    return body + struct.pack("<HH", 0x6907, 4 + len(record)) + record


# -- what a device says ------------------------------------------------------------------------------------------------


def other_version(boot: Boot, state: str) -> str | None:
    """What lies in the slot that does not run."""
    if state == "no image":
        return None
    if state == "on trial":
        return RUNS
    return OLDER_OTHER if state == "confirmed" and not boot.marks else OTHER


def running_version(state: str) -> str:
    return TRIED if state == "on trial" else RUNS


def file_version(boot: Boot, state: str, file: str) -> str:
    if file == "running":
        return running_version(state)
    if file == "staged":
        return other_version(boot, state) or OTHER
    return OLDER if file.startswith("older") else NEW


def running_side(boot: Boot, state: str) -> int:
    """Which slot of an image runs."""
    return SECONDARY if boot.in_place and state == "on trial" else PRIMARY


def file_of(boot: Boot, number: int, state: str, file: str) -> bytes:
    if file == "wrong variant":
        # For direct XIP linked for the slot that runs, and not for the other; for the rest for slot 1, where none runs.
        side = running_side(boot, state) if boot.in_place else SECONDARY
        return built(False, number, NEW, linked=ADDRESS + (2 * number + side) * SLOT_SIZE)
    if file == "wrong hash type":
        return with_other_hash(built(boot.in_ram, number, NEW))
    return built(boot.in_ram, number, file_version(boot, state, file), SLOT_SIZE if file == "too large" else 1500)


def listed(boot: Boot, number: int, state: str) -> tuple[MessageSlot, ...]:
    """The slots of an image as the device lists them."""

    def shown(side: int, version: str, *flags: str) -> MessageSlot:
        hash = parse_image(built(boot.in_ram, number, version)).hash
        return MessageSlot(number, side, version, hash, bootable=True, **dict.fromkeys(flags, True))

    side, other = running_side(boot, state), other_version(boot, state)
    slots = [shown(side, running_version(state), "active", *(() if state == "on trial" else ("confirmed",)))]
    if other is not None:
        flags = {
            "confirmed": (),
            "test pending": ("pending",),
            "permanent pending": ("pending", "permanent"),
            "on trial": ("confirmed",),
        }[state]
        slots.append(shown(1 - side, other, *flags))
    return tuple(sorted(slots, key=lambda slot: slot.slot))


def state_of(boot: Boot, *cases: Case, hidden: frozenset[int] = frozenset()) -> DeviceState:
    """All that a device with these images says of itself."""
    slots = tuple(
        slot
        for number, (state, _) in enumerate(cases)
        for slot in listed(boot, number, state)
        if (number, slot.slot) not in {(one, PRIMARY) for one in hidden}
    )
    sizes = tuple(SlotInfo(number, side, SLOT_SIZE) for number in range(len(cases)) for side in range(boot.slots))
    mode = int(boot.mode) if boot.told else BootloaderMode.UNKNOWN
    images = ImageState(slots, split_status=0)
    reaches = boot.link.bootloader
    return DeviceState(images, sizes, Bootloader("MCUboot", mode), board=BOARD, reaches_bootloader=reaches)


# -- a device ----------------------------------------------------------------------------------------------------------


class Unlisted(ImageServer):
    """Primary slots that the application cannot read, of the images with these numbers."""

    hidden: frozenset[int] = frozenset()

    def read_image(self, slot: int) -> tuple[ImageHeader, bytes] | None:
        number, side = divmod(slot, SLOTS_PER_IMAGE)
        return None if side == PRIMARY and number in self.hidden else super().read_image(slot)


@dataclass(slots=True)
class Ran:
    """How an update has ended: with a report, or with an error; `plan`, where there was one."""

    plan: Plan | None = None
    report: Report | None = None
    error: FlowError | None = None


class Desk:
    """A device with an image in each state, and a file for each."""

    def __init__(
        self, boot: Boot, *cases: Case, hidden: frozenset[int] = frozenset(), confirms_others: bool = True
    ) -> None:
        self.boot = boot
        self.cases = cases
        config = DeviceConfig(
            images=len(cases),
            mode=boot.mode,
            policy=boot.policy,
            slot_size=SLOT_SIZE,
            address=ADDRESS,
            buf_size=1024,
            timing=INSTANT,
            boot_s=0.1,
            bootloader_info=boot.told,
            confirms_other_images=confirms_others,
            test_sets_preference=boot.requests,
        )
        self.device = SimulatedDevice(config, name="desk")
        if hidden:
            server = Unlisted(self.device)
            server.hidden = hidden
            self.device.image = server
            self.device.add_group(server)
        for number, (state, _) in enumerate(cases):
            self._begin(number, state)
        self.device.settle()
        for number, (state, _) in enumerate(cases):
            self._fill(number, state)
        self.files = {number: file_of(boot, number, *case) for number, case in enumerate(cases)}
        for number, (_, file) in enumerate(cases):
            if file == "partly uploaded":
                self._send_part(number)
        self.before = self.device.flash.snapshot()
        self.boots = self.device.boots

    # -- building

    def _image(self, number: int, version: str) -> bytes:
        return built(self.boot.in_ram, number, version)

    def _begin(self, number: int, state: str) -> None:
        loader = self.device.bootloaders[number]
        self.device.install(self._image(number, RUNS), slot=2 * number)
        if self.boot.trial and self.boot.in_place:
            loader.set_next(PRIMARY, active=True, confirm=True)  # its factory images are padded and confirmed
        if state == "on trial":
            self.device.install(self._image(number, TRIED), slot=2 * number + 1)
            loader.set_next(SECONDARY, active=False, confirm=False)

    def _fill(self, number: int, state: str) -> None:
        if state in ("no image", "on trial"):
            return
        other = other_version(self.boot, state)
        assert other is not None
        self.device.install(self._image(number, other), slot=2 * number + 1)
        if state != "confirmed" and self.boot.marks:
            loader = self.device.bootloaders[number]
            loader.set_next(SECONDARY, active=False, confirm=state == "permanent pending")

    def _send_part(self, number: int) -> None:
        """The beginning of the file, as an earlier attempt has left it."""
        file = self.files[number]
        first = {"image": number, "len": len(file), "off": 0, "sha": hashlib.sha256(file).digest(), "data": file[:700]}
        for body in (first, {"off": 700, "data": file[700:SENT_BYTES]}):
            self.device.handle(build_message(Op.WRITE, 1, 0, GroupId.IMAGE, 1, 1, cbor2.dumps(body)), 0.0)

    # -- what is done

    def update(self, **policy: Any) -> Ran:
        ran = Ran()

        async def keep(plan: Plan) -> bool:
            ran.plan = plan
            return True

        images: Mapping[int, Image] = {number: parse_image(file) for number, file in self.files.items()}
        if "wrong board" in {file for _, file in self.cases}:
            policy["board"] = ANOTHER_BOARD
        policy["allow_downgrade"] = "older and allowed" in {file for _, file in self.cases}
        link = SimulatedTransport(self.device, self.boot.link)
        session = SessionDevice(Address.parse("sim:desk"), link, default_registry())
        try:
            ran.report = run(update(session, images, DfuPolicy(**policy), on_plan=keep))
        except FlowError as error:
            ran.error = error
        self.device.settle()
        return ran

    def reset(self) -> None:
        self.device.reset(1e6)
        self.device.settle()

    # -- what is there

    @property
    def listed(self) -> tuple[MessageSlot, ...]:
        """The image list, as the device's server makes it."""
        return tuple(MessageSlot(**{"image": 0, **entry}) for entry in self.device.image._listed(frugal=False))

    @property
    def running(self) -> list[str]:
        return [str(result.version) for result in self.device.boot_results]

    @property
    def resets(self) -> int:
        """Since the update began."""
        return self.device.boots - self.boots

    @property
    def untouched(self) -> bool:
        return self.device.flash.snapshot() == self.before

    def other(self, number: int) -> str | None:
        """The version of the image in the slot that does not run."""
        loader = self.device.bootloaders[number]
        slot: Slot = loader.slots[1 - self.device.running_slots[number] % 2]
        for offset in (0, loader.upload_offset):  # what was swapped out, which need not be listed; what was sent
            if slot.size and slot.has_magic(offset):
                header = slot.header(offset)
                return None if header is None else str(header.version)
        return None


_LETTERS: Mapping[type[Step], str] = {
    Keep: "K",
    GoBack: "B",
    Erase: "E",
    Upload: "U",
    Look: "L",
    Reset: "R",
    Prove: "P",
    Soak: "S",
    Check: "H",
    Confirm: "C",
}


def letters(steps: Sequence[Step]) -> str:
    """Steps in short: U upload, t mark for a test, p mark to stay, L look, R reset, P prove, C confirm."""
    return "".join(
        ("p" if step.permanent else "t") if isinstance(step, Mark) else _LETTERS[type(step)] for step in steps
    )
