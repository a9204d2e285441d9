"""The plan of an update as data: its steps, and what is told with them. `planner` makes it, `dfu` carries it out.

Pure: nothing here talks to a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from ..mcuboot import Image

__all__ = [
    "Check",
    "Confirm",
    "EnterLoader",
    "EnterRecovery",
    "Erase",
    "GoBack",
    "Install",
    "Keep",
    "Look",
    "Mark",
    "NameLoader",
    "Plan",
    "Prove",
    "ProveBootloader",
    "Reset",
    "Soak",
    "Step",
    "Upload",
    "UploadInstaller",
]


# -- steps ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keep:
    """Confirm the running image, which is on trial and not the one that is to be installed. `hash`: as in `Confirm`."""

    name: ClassVar[str] = "keep"
    why: ClassVar[str] = "it runs on trial, and --if-unconfirmed confirm keeps it"
    version: str
    hash: bytes | None = None

    @property
    def text(self) -> str:
        return f"confirm {self.version}, which runs on trial"


@dataclass(frozen=True, slots=True)
class GoBack:
    """End the trial of what runs, `trial`, by a reset, so that `version` with this hash runs again."""

    name: ClassVar[str] = "go-back"
    why: ClassVar[str] = "it runs on trial, and --if-unconfirmed revert gives it up"
    version: str
    hash: bytes
    trial: str

    @property
    def text(self) -> str:
        return f"reset the device, so that {self.version} comes back in place of {self.trial}"


@dataclass(frozen=True, slots=True)
class NameLoader:
    """Have the application name the firmware loader, so that it is found over Bluetooth LE."""

    name: ClassVar[str] = "name-loader"
    why: ClassVar[str] = "a loader over Bluetooth LE is found by its name"
    called: str

    @property
    def text(self) -> str:
        return f"name the firmware loader {self.called}, if the application takes that"


@dataclass(frozen=True, slots=True)
class EnterLoader:
    """Restart the device into its firmware loader, and find it there, by a name where the link needs one."""

    name: ClassVar[str] = "enter-loader"
    why: ClassVar[str] = "the application takes no image itself, its loader does"
    called: str | None = None

    @property
    def text(self) -> str:
        found = "" if self.called is None else f", and find it there as {self.called}"
        return f"reset the device into its firmware loader{found}"


@dataclass(frozen=True, slots=True)
class UploadInstaller:
    """Transfer `size` bytes of the installer, over the application."""

    name: ClassVar[str] = "upload-installer"
    why: ClassVar[str] = "it brings the loader that the new image needs"
    size: int
    version: str

    @property
    def text(self) -> str:
        return f"upload the installer {self.version} ({self.size:,} bytes) over the application"


@dataclass(frozen=True, slots=True)
class Install:
    """Reset the device, so that the installer runs, and find the firmware loader again."""

    name: ClassVar[str] = "install"
    why: ClassVar[str] = "an installer does its work when it is started"
    version: str
    called: str | None = None

    @property
    def text(self) -> str:
        found = "" if self.called is None else f" as {self.called}"
        return f"reset the device, so that the installer {self.version} runs, and find the firmware loader again{found}"


@dataclass(frozen=True, slots=True)
class EnterRecovery:
    """Restart the device into the bootloader's serial recovery."""

    name: ClassVar[str] = "enter-recovery"
    why: ClassVar[str] = "it writes what the application cannot replace while it runs"

    @property
    def text(self) -> str:
        return "reset the device into its bootloader's serial recovery"


@dataclass(frozen=True, slots=True)
class Erase:
    """Erase `slot` (2 · image + slot), or with None the one that is not running."""

    name: ClassVar[str] = "erase"
    why: ClassVar[str] = "--erase wants a clean start"
    slot: int | None = None

    @property
    def text(self) -> str:
        return "erase the slot that is not running" if self.slot is None else f"erase slot {self.slot % 2}"


@dataclass(frozen=True, slots=True)
class Upload:
    """Transfer `size` bytes of the file; the device chooses the slot, presumably `slot`. `trimmed`: no padding.

    `resumed_from`: bytes that an upload which was interrupted has left there, unless the device has restarted since.
    `in_place`: the bootloader's recovery writes it over the application.
    """

    name: ClassVar[str] = "upload"
    size: int
    slot: int
    version: str
    trimmed: bool = False
    resumed_from: int = 0
    in_place: bool = False

    @property
    def why(self) -> str:
        if self.resumed_from:
            return f"an upload has left {self.resumed_from:,} bytes, if the device has not restarted since"
        return "the bootloader's recovery has no other slot" if self.in_place else "no other slot holds it"

    @property
    def text(self) -> str:
        how = ", without its padding" if self.trimmed else ""
        if self.in_place:
            return f"write {self.version} ({self.size:,} bytes{how}) over the application in slot {self.slot}"
        resumed = f", resumed at {_of(self.resumed_from, self.size)}" if self.resumed_from else ""
        return f"upload {self.version} ({self.size:,} bytes{how}) to slot {self.slot}{resumed}"


@dataclass(frozen=True, slots=True)
class Mark:
    """Mark the uploaded image for the next boot, for one trial or for good.

    Not `required` where the device may know no marks: its bootloader then takes the new image without one. `undo` is
    the slot (2 · image + slot) to erase where the list does not show the mark.
    """

    name: ClassVar[str] = "mark"
    permanent: bool
    required: bool = True
    undo: int | None = None

    @property
    def why(self) -> str:
        if self.undo is not None:
            return "it is not newer; only the list tells whether a mark outranks the version"
        return "it is to stay without a trial" if self.permanent else "if it does not run, the old one comes back"

    @property
    def text(self) -> str:
        how = "to stay, before it has run" if self.permanent else "for a test boot"
        undo = "" if self.undo is None else ", and erase it if the device does not take that"
        return f"mark it {how}{'' if self.required else ', if the device takes marks'}{undo}"


@dataclass(frozen=True, slots=True)
class Look:
    """See in the image list what the next boot is going to do.

    `pending`: it takes the new image, which is not marked. `whole`: all that its manifest names is there.
    """

    name: ClassVar[str] = "look"
    version: str
    pending: bool = True
    whole: bool = False

    @property
    def why(self) -> str:
        if self.whole:
            return "all of a set run from the same side, or none of them"
        return "a preferred slot outranks the version; only the list tells what is taken"

    @property
    def text(self) -> str:
        shown = f"shows {self.version} for the next boot"
        if not self.whole:
            return f"see that the device {shown}"
        return f"see that the set of {self.version} is complete{f', and that it {shown}' if self.pending else ''}"


@dataclass(frozen=True, slots=True)
class Reset:
    """Restart the device."""

    name: ClassVar[str] = "reset"
    why: ClassVar[str] = "the bootloader decides at its start what runs"

    @property
    def text(self) -> str:
        return "reset the device and wait for it to return"


@dataclass(frozen=True, slots=True)
class Prove:
    """Ask the device until it is certain which image runs.

    Not `listed` where the device never shows what runs of this image: all there is to see is that the new one has left
    the slot that it was sent to. `in_place`: it was written by the bootloader's recovery, which had it listed there.
    """

    name: ClassVar[str] = "prove"
    version: str
    listed: bool = True
    in_place: bool = False

    @property
    def why(self) -> str:
        return "only the hash of what runs is a proof" if self.listed else "nothing else of it can be seen"

    @property
    def text(self) -> str:
        if not self.listed:
            return f"see that {self.version} has left its slot; the device does not list what runs"
        return f"prove that {self.version} runs"


@dataclass(frozen=True, slots=True)
class ProveBootloader:
    """Ask the device until it is certain that its bootloader runs from `slot`, of the two that this has."""

    name: ClassVar[str] = "prove-bootloader"
    why: ClassVar[str] = "the device tells which slot of its bootloader runs"
    version: str
    slot: int

    @property
    def text(self) -> str:
        return f"prove that the bootloader {self.version} runs, from its slot {self.slot}"


@dataclass(frozen=True, slots=True)
class Soak:
    """Watch for so many seconds that the device stays up."""

    name: ClassVar[str] = "soak"
    why: ClassVar[str] = "one that restarts is not confirmed"
    seconds: float

    @property
    def text(self) -> str:
        return f"watch for {self.seconds:g} s that it stays up"


@dataclass(frozen=True, slots=True)
class Check:
    """Ask whether what is new is healthy: all checks of the policy, by their names."""

    name: ClassVar[str] = "check"
    why: ClassVar[str] = "what is not healthy is not confirmed"
    checks: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"check that it is healthy: {', '.join(self.checks)}"


@dataclass(frozen=True, slots=True)
class Confirm:
    """Make the running image permanent, unless it is so already.

    Without a `hash` that is the application that answers, which is image 0; other images are named by theirs.
    `or_mark`: where the device refuses that, it is gone back, to mark what has been proven to stay.
    """

    name: ClassVar[str] = "confirm"
    why: ClassVar[str] = "unconfirmed, the next reset takes it back"
    version: str
    hash: bytes | None = None
    or_mark: bool = False

    @property
    def text(self) -> str:
        return f"confirm {self.version}, so that it stays"


def _of(done: int, size: int) -> str:
    """`34 of 50 KB`, `340 of 1,900 bytes`."""
    if size < 10_000:
        return f"{done:,} of {size:,} bytes"
    return f"{done / 1000:.0f} of {size / 1000:,.0f} KB"


Step = (
    Keep
    | GoBack
    | NameLoader
    | EnterLoader
    | EnterRecovery
    | UploadInstaller
    | Install
    | Erase
    | Upload
    | Mark
    | Look
    | Reset
    | Prove
    | ProveBootloader
    | Soak
    | Check
    | Confirm
)
S = TypeVar("S", bound=Step)


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done, in this order; nothing, if the device is already as wanted.

    Attributes:
        from_version: what runs now, or None when the device does not tell.
        to_version: the file's.
        slot: where the file goes, or where it is already.
        image: what is sent, where that is not the file as it is but without its padding.
        notes: what is left out, and why.
        warnings: what the user should know before it begins.
        no_way_back: those of the warnings that somebody has to agree to before the first step: why the old image cannot
            come back by itself, or a core may be left behind.
        number: of the image (core) that the file is for.
        hash: the image's, in hexadecimal.
        size: bytes of what is sent.
        parts: of an update of several images the plan of each, by their numbers; `steps`, `notes` and `warnings` are
            those of all then, and everything else is that of the first one. Empty for a single image.
        lines: of several images, what is done in steps of each kind: their name, and a text.
        board: what the device calls itself, where it tells.
        order: in which the images are uploaded and marked, where `DfuPolicy.image_order` says so.
    """

    steps: tuple[Step, ...]
    from_version: str | None
    to_version: str
    slot: int
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    image: Image | None = field(default=None, repr=False, compare=False)
    number: int = 0
    hash: str = field(default="", compare=False)
    size: int = field(default=0, compare=False)
    parts: tuple[Plan, ...] = ()
    lines: tuple[tuple[str, str], ...] = ()
    no_way_back: tuple[str, ...] = ()
    order: tuple[int, ...] = ()
    board: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """One line for each step; of several images one for each kind of step, and one for each of few uploads."""
        return tuple(text for _, text in self.lines) if self.parts else tuple(step.text for step in self.steps)

    @property
    def told(self) -> tuple[tuple[str, str, str], ...]:
        """As `texts`: of each line the name of its step, what is done, and why."""
        if not self.parts:
            return tuple((step.name, step.text, step.why) for step in self.steps)
        of_kind = {name: iter([step for step in self.steps if step.name == name]) for name, _ in self.lines}
        return tuple((name, text, next(of_kind[name]).why) for name, text in self.lines)

    @property
    def each(self) -> tuple[Plan, ...]:
        """The plan of each image."""
        return self.parts or (self,)

    def tasks(self, kind: type[S]) -> Sequence[tuple[int, S]]:
        """The steps of this kind with the numbers of their images, in the order in which they are done.

        Uploads count up. Marks count down, image 0 last: where the application's image is marked before that of the
        network core, some bootloaders of the nRF Connect SDK skip the network core (NCSDK-34106). Confirmations count
        down too: a device that refuses them does so for another core's image, and then none is confirmed. Where there
        is an `order`, erases, uploads and marks follow that.
        """
        found = [(part.number, step) for part in self.each for step in part.steps if isinstance(step, kind)]
        if self.order and kind in (Erase, Upload, Mark):
            return sorted(found, key=lambda task: self.order.index(task[0]))
        return found[::-1] if kind in (Keep, Mark, Confirm) else found

    def has(self, kind: type) -> bool:
        """Whether a step of this kind is planned."""
        return any(isinstance(step, kind) for step in self.steps)

    def as_dict(self) -> dict[str, object]:
        """The plan as JSON takes it."""
        fields: dict[str, object] = {
            "board": self.board,
            "from_version": self.from_version,
            "to_version": self.to_version,
            "hash": self.hash,
            "slot": self.slot,
            "size": sum(step.size for _, step in self.tasks(Upload)),
            "resumed_from": sum(step.resumed_from for _, step in self.tasks(Upload)),
            "steps": [{"name": name, "text": text, "why": why} for name, text, why in self.told],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "no_way_back": list(self.no_way_back),
        }
        if self.parts:
            fields["images"] = [{"image": part.number, **part.as_dict()} for part in self.parts]
        return fields
