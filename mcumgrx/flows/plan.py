"""The plan of an update: from file, device and policy to steps, or to a refusal with the reason and the way out.

Pure: nothing here talks to a device, so every combination can be tested in a table. `dfu` carries a plan out.

What decides is the image list. The running slot (A) is the one flagged active, B is the other. From Zephyr's
`img_mgmt_state.c`: A not confirmed means that it is on trial and the next reset goes back to B; B pending means that
the next reset installs it. The bootloader's mode decides what a mark does; where the device does not tell its mode, it
is taken for one that swaps, and a device that knows no marks says so when it is asked for one.

MCUboot's serial recovery answers the same image list, without a flag for what runs (nothing does). A list without an
active slot, without `splitStatus` and without bootloader information is taken for it. A recovery built with
`BOOT_SERIAL_IMG_GRP_IMAGE_STATE` sets the flag and is not recognised: there an update overwrites the slot in place,
and the other steps still end with the proof that the new image runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from ..errors import PlanRefused, UsageError
from ..hints import Hint, Run
from ..mcuboot import Image, Version
from ..protocol.standard import Bootloader, BootloaderMode, ImageState, Params, Slot, SlotInfo
from .policy import DfuPolicy, Mode

__all__ = [
    "Confirm",
    "DeviceState",
    "Erase",
    "Mark",
    "Plan",
    "Prove",
    "Reset",
    "Step",
    "Upload",
    "in_recovery",
    "make_plan",
]


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a device says of itself; all but the image list may be unknown."""

    images: ImageState
    slots: tuple[SlotInfo, ...] | None = None
    bootloader: Bootloader = field(default_factory=Bootloader)
    params: Params | None = None

    @property
    def recovery(self) -> bool:
        """Whether it is MCUboot's serial recovery that answers, as far as that can be told."""
        return self.bootloader.mode == BootloaderMode.UNKNOWN and in_recovery(self.images)


def in_recovery(images: ImageState) -> bool:
    """Whether this image list is one of MCUboot's serial recovery: nothing runs, and no `splitStatus`."""
    return images.split_status is None and not any(slot.active for slot in images.slots)


# -- steps ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Erase:
    """Erase `slot` (2 · image + slot), or with None the one that is not running."""

    name: ClassVar[str] = "erase"
    slot: int | None = None

    @property
    def text(self) -> str:
        return "erase the slot that is not running" if self.slot is None else f"erase slot {self.slot % 2}"


@dataclass(frozen=True, slots=True)
class Upload:
    """Transfer the file of `size` bytes; the device chooses the slot, presumably `slot`."""

    name: ClassVar[str] = "upload"
    size: int
    slot: int
    version: str

    @property
    def text(self) -> str:
        return f"upload {self.version} ({self.size:,} bytes) to slot {self.slot}"


@dataclass(frozen=True, slots=True)
class Mark:
    """Mark the uploaded image for the next boot, for one trial or for good.

    Not `required` where the device may know no marks: its bootloader then takes the new image without one.
    """

    name: ClassVar[str] = "mark"
    permanent: bool
    required: bool = True

    @property
    def text(self) -> str:
        how = "to stay, before it has run" if self.permanent else "for a test boot"
        return f"mark it {how}{'' if self.required else ', if the device takes marks'}"


@dataclass(frozen=True, slots=True)
class Reset:
    """Restart the device."""

    name: ClassVar[str] = "reset"

    @property
    def text(self) -> str:
        return "reset the device and wait for it to return"


@dataclass(frozen=True, slots=True)
class Prove:
    """Ask the device until it is certain which image runs."""

    name: ClassVar[str] = "prove"
    version: str

    @property
    def text(self) -> str:
        return f"prove that {self.version} runs"


@dataclass(frozen=True, slots=True)
class Confirm:
    """Make the running image permanent, unless it is so already."""

    name: ClassVar[str] = "confirm"
    version: str

    @property
    def text(self) -> str:
        return f"confirm {self.version}, so that it stays"


Step = Erase | Upload | Mark | Reset | Prove | Confirm


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done, in this order; nothing, if the device is already as wanted.

    Attributes:
        from_version: what runs now, or None when the device does not tell.
        to_version: the file's.
        slot: where the file goes, or where it is already.
        notes: what is left out, and why.
        warnings: what the user should know before it begins.
    """

    steps: tuple[Step, ...]
    from_version: str | None
    to_version: str
    slot: int
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """One line for each step."""
        return tuple(step.text for step in self.steps)

    def has(self, kind: type) -> bool:
        """Whether a step of this kind is planned."""
        return any(isinstance(step, kind) for step in self.steps)

    def as_dict(self) -> dict[str, object]:
        """The plan as JSON takes it."""
        return {
            "from_version": self.from_version,
            "to_version": self.to_version,
            "slot": self.slot,
            "steps": [{"name": step.name, "text": step.text} for step in self.steps],
            "notes": list(self.notes),
            "warnings": list(self.warnings),
        }


# -- what the bootloader does ---------------------------------------------------------------------------------------


class _Kind(Enum):
    """Bootloader modes by what a mark and a reset do."""

    SWAP = "swap"  # also what is assumed when the device does not tell
    OVERWRITE = "overwrite"  # installs for good, whatever the mark
    NEWEST = "newest"  # runs the highest version in place; there are no marks
    NEWEST_REVERT = "newest with revert"  # runs the highest version that is marked
    NEWEST_MAYBE_REVERT = "newest, perhaps with revert"  # RAM load: its number does not say which of the two
    LOADER = "firmware loader"
    SINGLE = "single slot"


_KINDS = {
    BootloaderMode.SINGLE_SLOT: _Kind.SINGLE,
    BootloaderMode.OVERWRITE: _Kind.OVERWRITE,
    BootloaderMode.DIRECT_XIP: _Kind.NEWEST,
    BootloaderMode.DIRECT_XIP_REVERT: _Kind.NEWEST_REVERT,
    BootloaderMode.RAM_LOAD: _Kind.NEWEST_MAYBE_REVERT,
    BootloaderMode.FIRMWARE_LOADER: _Kind.LOADER,
    BootloaderMode.SINGLE_SLOT_RAM_LOAD: _Kind.SINGLE,
}


def _kind(bootloader: Bootloader) -> _Kind:
    for mode, kind in _KINDS.items():
        if bootloader.mode == mode:
            return kind
    return _Kind.SWAP


def _marks(kind: _Kind, state: DeviceState) -> bool | None:
    """Whether the device takes marks; None where only trying tells."""
    if kind is _Kind.NEWEST:
        return False
    unknown = state.bootloader.mode == BootloaderMode.UNKNOWN
    return None if unknown or kind is _Kind.NEWEST_MAYBE_REVERT else True


# -- the plan -------------------------------------------------------------------------------------------------------


def make_plan(image: Image, state: DeviceState, policy: DfuPolicy) -> Plan:
    """What has to be done so that `image` runs as `policy` wants it. Raises `PlanRefused`.

    Done already is done: an image that runs is not sent again, nor one that lies in the other slot, unless
    `policy.erase` asks for a clean start.
    """
    return _Planner(image, state, policy).plan()


class _Planner:
    def __init__(self, image: Image, state: DeviceState, policy: DfuPolicy) -> None:
        self.image = image
        self.state = state
        self.policy = policy
        self.kind = _kind(state.bootloader)
        self.a = state.images.active(policy.image)
        self.old = None if self.a is None else shown_version(self.a.version)
        self.new = str(image.version)
        self.slot = 1 - self.a.slot if self.a is not None and self.a.slot in (0, 1) else 1
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def plan(self) -> Plan:
        self._check_image_number()
        if self.state.recovery:
            return self._plan_recovery()
        if self.a is not None and self.a.hash in self.image.hashes_when_running:
            return self._plan_running(self.a)
        self._check_bootloader()
        self._check_hash_type()
        self._check_size()
        if self.a is not None and not self.a.confirmed:
            raise self._unconfirmed(self.a)
        self._check_version()
        if not self.image.bootable and self.policy.mode is not Mode.UPLOAD_ONLY:
            raise self._refused(
                f"{self.new} is marked as not bootable: the bootloader would never run it",
                "sign it without --non-bootable, or use --mode upload-only",
            )
        return self._plan_change()

    def _plan_running(self, a: Slot) -> Plan:
        """The image runs already: on trial, or for good."""
        self.slot = a.slot
        b = self.state.images.other(self.policy.image)
        if b is not None and b.pending and b.hash != a.hash:
            self.warnings.append(
                f"slot {b.slot} holds {shown_version(b.version)}, which the next reset installs in its place"
            )
        if self.policy.erase:
            self.notes.append("nothing is erased: there is nothing to upload")
        if a.confirmed:
            self.notes.append(f"{self.new} is already running and confirmed")
            return self._done()
        if self.policy.mode in (Mode.TEST_ONLY, Mode.UPLOAD_ONLY):
            self.notes.append(f"{self.new} is already running, not yet confirmed")
            self.warnings.append("the next reset goes back to the old image unless it is confirmed before")
            return self._done()
        self.notes.append(f"{self.new} is already running, only not confirmed yet")
        # Without a hash: both slots may hold it, and a hash finds the first that does.
        return self._done(Confirm(self.new))

    def _plan_change(self) -> Plan:
        """Another image runs, for good (or the device does not say which)."""
        mode = self.policy.mode
        b = self._staged()
        other = self.state.images.other(self.policy.image)
        if b is not None and not self.policy.erase:
            self.slot = b.slot
            self.notes.append(f"{self.new} is already in slot {b.slot}: no upload")
            transfer: list[Step] = []
        else:
            b = None
            transfer = [Upload(self.image.size, self.slot, self.new)]
            if self.policy.erase:
                number = self.policy.image
                transfer.insert(0, Erase(2 * number + self.slot if number or self.a is not None else None))
            if other is not None and other.pending and self.a is not None:
                self.warnings.append(
                    f"slot {other.slot} holds {shown_version(other.version)}, waiting to be installed: "
                    "it is given up for this file"
                )
        if mode is Mode.UPLOAD_ONLY:
            self._warn_of_padding(uploading=bool(transfer))
            if b is not None and b.pending:
                self.warnings.append(f"the next reset installs {self.new}")
            elif self.kind in (_Kind.NEWEST, _Kind.NEWEST_MAYBE_REVERT):
                self.warnings.append("this bootloader runs the newest version: the next reset may start it")
            elif self.kind is _Kind.NEWEST_REVERT:
                self.warnings.append("this bootloader erases a newer image that is not marked: mark it before a reset")
            return self._done(*transfer)
        self._warn_of_others()
        return self._done(*transfer, *self._activation(b, uploading=bool(transfer)))

    def _activation(self, b: Slot | None, *, uploading: bool) -> list[Step]:
        """Mark (where that is needed and works), reset, prove, confirm (where that is wanted and needed)."""
        mode = self.policy.mode
        permanent = mode is Mode.CONFIRM_ONLY
        confirm = mode is Mode.TEST_AND_CONFIRM
        marks = _marks(self.kind, self.state)
        self._warn_of_padding(uploading=uploading)
        mark: list[Step] = []
        if marks is False:
            self.notes.append("no mark: this bootloader runs the newest version by itself")
            if mode in (Mode.TEST_AND_CONFIRM, Mode.TEST_ONLY):
                self.warnings.append("this bootloader knows no test boot: the new image stays, there is no way back")
            confirm = False
        elif b is not None and b.pending and self.kind is _Kind.NEWEST_REVERT:
            # The list says permanent of a test as well there; what it was shows once it runs.
            self.notes.append(f"{self.new} is already marked for the next boot")
            confirm = confirm or permanent
        elif b is not None and b.pending:
            self.notes.append(f"{self.new} is already marked {'to stay' if b.permanent else 'for a test boot'}")
            if b.permanent:
                if not permanent and self.kind is not _Kind.OVERWRITE:
                    self.warnings.append("a mark cannot be taken back: the new image stays, there is no way back")
                confirm = False
            elif permanent and self.kind is not _Kind.OVERWRITE:
                # The device refuses to turn a test into a permanent mark (error 28 of the image group).
                self.notes.append("the mark cannot be changed: it is confirmed once it runs")
                confirm = True
        else:
            if self.kind is _Kind.OVERWRITE and mode is Mode.TEST_AND_CONFIRM:
                permanent = True
            mark = [Mark(permanent, required=marks is True)]
        if self.kind is _Kind.OVERWRITE:
            confirm = False
            self.warnings.append("this bootloader overwrites the old image: there is no way back")
        return [*mark, Reset(), Prove(self.new), *([Confirm(self.new)] if confirm else [])]

    def _plan_recovery(self) -> Plan:
        """MCUboot's serial recovery: the upload overwrites the application in place, and marks mean nothing."""
        if self.policy.mode is not Mode.UPLOAD_ONLY:
            raise PlanRefused(
                "no application answers but, as it seems, the bootloader's serial recovery",
                hint=Hint(
                    "reset the device (",
                    Run("os reset"),
                    ") to return to the application; if it has none, --mode upload-only writes this file in its place",
                ),
            )
        self.slot = 0
        self._check_size()
        self.warnings.append(
            "the bootloader's serial recovery answers: the file is written over the application, "
            "and there is no way back"
        )
        if self.image.hash in {slot.hash for slot in self.state.images.slots if slot.slot == 0}:
            self.notes.append(f"{self.new} is already in slot 0: no upload")
            return self._done()
        return self._done(Upload(self.image.size, 0, self.new))

    # -- refusals

    def _check_image_number(self) -> None:
        number = self.policy.image
        known = {slot.image for slot in self.state.images.slots} | {info.image for info in self.state.slots or ()}
        # A server with one image ignores the number and would write its only one (Zephyr, `img_mgmt_get_unused_slot`).
        if number > 0 and number not in known:
            raise PlanRefused(
                f"the device has no image {number}",
                hint=Hint("see ", Run("image list"), "; most devices have image 0 alone"),
            )

    def _check_bootloader(self) -> None:
        if self.kind is _Kind.SINGLE:
            raise self._refused(
                "the device has a single slot: a running application cannot replace itself",
                Hint(
                    "start the bootloader's serial recovery (",
                    Run("os reset --boot-mode 1"),
                    " where it is built in), then use --mode upload-only",
                ),
            )
        if self.kind is _Kind.LOADER and self.policy.mode is not Mode.UPLOAD_ONLY:
            raise self._refused(
                "the device updates through a firmware loader, which is not supported yet",
                Hint("start the loader (", Run("os reset --boot-mode 1"), "), then use --mode upload-only and reset"),
            )
        if self.kind is _Kind.LOADER:
            self.warnings.append("a firmware loader writes the file over the application: there is no way back")
            self.slot = 0

    def _check_hash_type(self) -> None:
        lengths = {len(slot.hash) for slot in self.state.images.slots if slot.hash is not None}
        if lengths and len(self.image.hash) not in lengths:
            theirs = ", ".join(f"{8 * length}" for length in sorted(lengths))
            raise self._refused(
                f"the file's hash has {8 * len(self.image.hash)} bits, but the device works with {theirs} bits",
                f"sign the file with imgtool --sha {min(lengths) * 8}",
            )
        if self.a is not None and self.a.hash is None:
            if self.policy.mode is not Mode.UPLOAD_ONLY:
                raise self._refused(
                    "the device lists no hash of its running image: it could not be proven which one runs",
                    "use --mode upload-only, and look at the version afterwards",
                )
            self.warnings.append("the device lists no hashes: the upload cannot be checked")

    def _check_size(self) -> None:
        for info in self.state.slots or ():
            if (info.image, info.slot) != (self.policy.image, self.slot):
                continue
            limit = min((size for size in (info.max_image_size, info.size) if size), default=None)
            if limit is not None and self.image.size > limit:
                hint: str = Hint("is it built for this board? See ", Run("image slots"), " for the sizes")
                if self.image.padded and self.image.content_size <= limit:
                    hint = "the file is padded to the size of a slot: sign it without --pad"
                raise self._refused(
                    f"the file does not fit: it has {self.image.size:,} bytes, slot {self.slot} takes {limit:,}", hint
                )

    def _unconfirmed(self, a: Slot) -> PlanRefused:
        b = self.state.images.other(self.policy.image)
        old = shown_version(a.version)
        if b is not None and b.hash in self.image.hashes_when_running:
            return self._refused(
                f"{old} runs on trial, and {self.new} waits in slot {b.slot} to come back",
                Hint("reset the device (", Run("os reset"), f"): it goes back to {self.new}"),
                slot=a.slot,
            )
        return self._refused(
            f"the running image {old} is not confirmed: the device keeps the other slot to go back to it",
            Hint("confirm it with ", Run("image confirm"), ", or go back to the old one with ", Run("os reset")),
            slot=a.slot,
        )

    def _check_version(self) -> None:
        running = None if self.a is None else _parse(self.a.version)
        if self.a is None:
            self.warnings.append("the device does not say which image runs")
        if running is None or self.a is None:
            return
        new = self.image.version
        if self.policy.upgrade_only and new <= running:
            raise self._refused(
                f"{self.new} is not newer than {self.old}, and only upgrades are wanted",
                "leave out --upgrade-only to install it all the same",
            )
        older = new[:3] < running[:3]
        if older and self.state.bootloader.no_downgrade:
            raise self._refused(
                f"{self.new} is older than {self.old}, and the bootloader refuses to go back",
                "build a file with a higher version",
            )
        if self.kind in (_Kind.NEWEST, _Kind.NEWEST_REVERT, _Kind.NEWEST_MAYBE_REVERT):
            # Of two equal versions the one in slot 0 runs; the build number counts only if MCUboot was built so.
            same = new[:3] == running[:3] and self.a.slot == 0
            if self.policy.mode is not Mode.UPLOAD_ONLY and (older or (same and new.build <= running.build)):
                raise self._refused(
                    f"{self.new} is not newer than {self.old}, and this bootloader runs the newest image it has",
                    "build a file with a higher version",
                )
            if same and not older:
                self.warnings.append("only the build number is higher: the bootloader may ignore it")
        if older:
            self.warnings.append(f"this is a downgrade, from {self.old} to {self.new}")
        elif new == running:
            self.warnings.append(f"another image with the same version {self.old} runs")

    def _refused(self, message: str, hint: str, *, slot: int | None = None) -> PlanRefused:
        return PlanRefused(message, slot=self.slot if slot is None else slot, hint=hint)

    # -- parts

    def _staged(self) -> Slot | None:
        """The slot, not running, that already holds the image."""
        held = self.state.images.holding(self.image.hash, self.policy.image)
        return next((slot for slot in held if not slot.active), None)

    def _warn_of_padding(self, *, uploading: bool) -> None:
        if not self.image.padded or not uploading:
            return
        if self.image.pad_confirmed:
            self.warnings.append("the file is padded and confirmed (imgtool --pad --confirm): it stays, once installed")
        else:
            self.warnings.append("the file is padded (imgtool --pad): from its upload on, any reset installs it")

    def _warn_of_others(self) -> None:
        for slot in self.state.images.slots:
            if slot.image != self.policy.image and slot.pending:
                self.warnings.append(f"the reset also installs {shown_version(slot.version)} of image {slot.image}")

    def _done(self, *steps: Step) -> Plan:
        return Plan(tuple(steps), self.old, self.new, self.slot, _unique(self.notes), _unique(self.warnings))


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))


def shown_version(text: str) -> str:
    """A device's version as files write theirs (1.2.3+4); what is no version stays as it is."""
    version = _parse(text)
    return text if version is None else str(version)


def _parse(text: str) -> Version | None:
    try:
        return Version.parse(text)
    except UsageError:
        return None
