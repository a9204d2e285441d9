"""What image lists say of an update: whether the new image waits, runs or stays, and how an update has failed.

Pure: the list before the reset, the list after it, and the file, nothing else. `dfu` asks for the lists.

Rules that follow from what devices do:

* Only the hash of the running slot proves what runs.
* A list that is as it was, or in which the new image still waits to be booted, may come from an application that is
  still on its way down. Nothing has been booted on trial then, so a reset may be sent once more.
* Any other list has changed. A reset would end a test boot, so none is sent, whatever is missing from it.
* The primary slot of another core's image may never be listed, because the application that answers cannot read it.
  That the new image has left its slot is all that can be seen there: installed and refused look alike.
* Some lists carry no image numbers although the device has several images; there the hash alone tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import Outcome
from ..hints import Hint, Run
from ..mcuboot import Image
from ..protocol.standard import ImageState, Slot
from .device_state import in_recovery, shown_version

__all__ = ["Finding", "Target", "Verdict", "judge", "look"]


@dataclass(frozen=True, slots=True)
class Target:
    """The image that an update brings, and the number of the image (core) that it is for."""

    image: Image
    number: int = 0

    @property
    def version(self) -> str:
        return str(self.image.version)

    def active(self, images: ImageState) -> Slot | None:
        """The slot that runs, of this image number."""
        return images.active(self.number)

    def running(self, images: ImageState) -> Slot | None:
        """The slot that runs the new image, if one does."""
        return next((slot for slot in self._slots(images) if slot.active and self._holds(slot)), None)

    def confirmed(self, images: ImageState | None) -> bool:
        """Whether the new image runs, for good."""
        running = None if images is None else self.running(images)
        return running is not None and running.confirmed

    def staged(self, images: ImageState) -> Slot | None:
        """The slot, not running, that holds the new image: the file's hash, or once it has run that it ran under."""
        return next((slot for slot in self._slots(images) if not slot.active and self._holds(slot)), None)

    def pending(self, images: ImageState) -> Slot | None:
        """As `staged`, if the next boot takes it."""
        staged = self.staged(images)
        return staged if staged is not None and staged.pending else None

    def _holds(self, slot: Slot) -> bool:
        return slot.hash in self.image.hashes_when_running

    def _slots(self, images: ImageState) -> tuple[Slot, ...]:
        own = tuple(slot for slot in images.slots if slot.image == self.number)
        return own or images.slots


class Finding(Enum):
    """What a list after a reset means."""

    RUNS = "the new image runs"
    RECOVERY = "the bootloader's recovery answers"
    WAITING = "the new image waits, as before the reset"
    COMING = "something is on its way"
    OVER = "the new image does not run, and will not"


def look(target: Target, before: ImageState, after: ImageState) -> Finding:
    """What the list `after` a reset means, given the one `before` it."""
    if target.running(after) is not None:
        return Finding.RUNS
    if in_recovery(after) and not in_recovery(before):  # one that has looked like that all along does not say
        return Finding.RECOVERY
    if after.slots == before.slots or target.pending(after) is not None:
        return Finding.WAITING
    if target.active(after) is None and target.active(before) is not None:
        return Finding.COMING
    return Finding.OVER


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an update has ended that did not succeed, for people and for scripts."""

    outcome: Outcome
    text: str
    hint: str
    slot: int | None = None


def judge(target: Target, before: ImageState, after: ImageState, old: Slot | None) -> Verdict:
    """What the list `after` a reset says of an update that did not succeed; `old` is what ran at its beginning."""
    active, staged = target.active(after), target.staged(after)
    new, slot = target.version, None if staged is None else staged.slot
    was = "the old image" if old is None else shown_version(old.version)
    runs = "nothing known" if active is None else shown_version(active.version)
    if active is None and target.active(before) is None:
        return _unseen(target, before, after)
    if active is None or (old is not None and active.hash != old.hash):
        return Verdict(
            Outcome.OTHER_IMAGE,
            f"{runs} runs, neither {new} nor {was}",
            Hint("did somebody else update the device? See ", Run("image list")),
            slot,
        )
    if staged is None:
        return Verdict(
            Outcome.REJECTED,
            f"the bootloader did not keep {new}: {runs} runs, and {new} is gone from the device",
            "it was refused (signed with another key? older than allowed? a dependency missing?), or it ran and "
            "was given up; the bootloader's log says why",
        )
    if staged.pending or after.slots == before.slots:
        return Verdict(
            Outcome.NEVER_SWAPPED,
            f"{runs} still runs after the reset, and {new} still waits in slot {slot}",
            _why_it_waits(target, staged, after),
            slot,
        )
    return Verdict(
        Outcome.REVERTED,
        f"{new} did not stay: {runs} runs again",
        f"{new} was started, and reset before it was confirmed: it probably crashed or hung. "
        f"It is still in slot {slot}",
        slot,
    )


def _unseen(target: Target, before: ImageState, after: ImageState) -> Verdict:
    """Of this image number nothing is listed that runs, neither before the reset nor after it."""
    new, was, staged = target.version, target.staged(before), target.staged(after)
    if staged is not None and (staged.pending or after.slots == before.slots):
        text = f"{new} still waits in slot {staged.slot} after the reset"
        return Verdict(Outcome.NEVER_SWAPPED, text, _why_it_waits(target, staged, after), staged.slot)
    place = "its slot" if was is None else f"slot {was.slot}"
    left = f"is still in {place}, but no longer marked" if staged else f"has left {place} with the reset"
    of_image = f" of image {target.number}" if target.number else ""
    return Verdict(
        Outcome.UNSEEN,
        f"{new} {left}, but it cannot be proven that it runs: the device does not list what runs{of_image}",
        "it was installed, or refused and erased: both look like this. The other core tells, or its log; "
        "give it some seconds before the next reset",
        None if staged is None else staged.slot,
    )


def _why_it_waits(target: Target, staged: Slot, after: ImageState) -> str:
    if not staged.pending:
        return "the bootloader did not choose it: it may want a higher version or another kind of image"
    # Without a number it is the slot beside the running one of image 0.
    erase = Run("image erase", "--slot", str(2 * staged.image + staged.slot)) if staged.image else Run("image erase")
    others = sorted({slot.image for slot in after.slots if slot.pending and slot.image != staged.image})
    if target.image.dependencies or others:
        # One dependency that is not met, in any image, holds back every change of every image (MCUboot).
        return Hint(
            "an image that needs another one, which is not there in the version that it asks for, waits for ever, and "
            "all others with it: update that one too, or give this one up with ",
            erase,
        )
    return Hint(
        "did the device really reset? An image too large to be swapped waits for ever: remove it with ",
        erase,
    )
