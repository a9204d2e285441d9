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
from enum import Enum, Flag, auto

from ..errors import Outcome
from ..hints import Hint, Run
from ..mcuboot import Image
from ..messages.standard import ImageState, Slot
from .device_state import in_recovery, shown_version

__all__ = ["Finding", "Target", "Verdict", "verdict"]


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


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a list after a reset means; `outcome`, `text` and `hint` say how it has ended if it stays so."""

    finding: Finding
    outcome: Outcome
    text: str
    hint: str
    slot: int | None = None


class _Sign(Flag):
    NONE = 0
    UNSEEN = auto()  # of this image number nothing is listed that runs, neither before the reset nor after it
    ANOTHER = auto()  # it is not what ran before that runs
    GONE = auto()  # the new image is not in a slot that does not run
    WAITS = auto()  # it is, as before the reset, or marked


# How it has ended if it stays so: the first row of which all signs are there. No hint: why it waits.
_ENDINGS: tuple[tuple[_Sign, Outcome, str, str | None], ...] = (
    (
        _Sign.UNSEEN | _Sign.WAITS,
        Outcome.NEVER_SWAPPED,
        "{new} still waits in slot {slot} after the reset",
        None,
    ),
    (
        _Sign.UNSEEN,
        Outcome.UNSEEN,
        "{new} {left}, but it cannot be proven that it runs: the device does not list what runs{of_image}",
        "it was installed, or refused and erased: both look like this. The other core tells, or its log; "
        "give it some seconds before the next reset",
    ),
    (
        _Sign.ANOTHER,
        Outcome.OTHER_IMAGE,
        "{runs} runs, neither {new} nor {was}",
        Hint("did somebody else update the device? See ", Run("image list")),
    ),
    (
        _Sign.GONE,
        Outcome.REJECTED,
        "the bootloader did not keep {new}: {runs} runs, and {new} is gone from the device",
        "it was refused (signed with another key? older than allowed? a dependency missing?), or it ran and was given "
        "up; the bootloader's log says why",
    ),
    (
        _Sign.WAITS,
        Outcome.NEVER_SWAPPED,
        "{runs} still runs after the reset, and {new} still waits in slot {slot}",
        None,
    ),
    (
        _Sign.NONE,
        Outcome.REVERTED,
        "{new} did not stay: {runs} runs again",
        "{new} was started, and reset before it was confirmed: it probably crashed or hung. It is still in slot {slot}",
    ),
)


def verdict(target: Target, before: ImageState, after: ImageState, old: Slot | None) -> Verdict:
    """What the list `after` a reset means, given the one `before` it; `old` is what ran at the beginning."""
    active, staged = target.active(after), target.staged(after)
    signs = _Sign.GONE if staged is None else _Sign.NONE
    if active is None and target.active(before) is None:
        signs |= _Sign.UNSEEN
    if active is None or (old is not None and active.hash != old.hash):
        signs |= _Sign.ANOTHER
    if staged is not None and (staged.pending or after.slots == before.slots):
        signs |= _Sign.WAITS
    words = _words(target, before, after, old)
    outcome, text, hint = next(ending[1:] for ending in _ENDINGS if ending[0] in signs)
    if hint is None:
        hint = _why_it_waits(target, staged, after)
    elif not isinstance(hint, Hint):
        hint = hint.format_map(words)
    return Verdict(_look(target, before, after), outcome, text.format_map(words), hint, staged.slot if staged else None)


def _words(target: Target, before: ImageState, after: ImageState, old: Slot | None) -> dict[str, object]:
    """What the texts of `_ENDINGS` speak of."""
    active, staged, lay = target.active(after), target.staged(after), target.staged(before)
    place = "its slot" if lay is None else f"slot {lay.slot}"
    return {
        "new": target.version,
        "was": "the old image" if old is None else shown_version(old.version),
        "runs": "nothing known" if active is None else shown_version(active.version),
        "slot": None if staged is None else staged.slot,
        "left": f"is still in {place}, but no longer marked" if staged else f"has left {place} with the reset",
        "of_image": f" of image {target.number}" if target.number else "",
    }


def _look(target: Target, before: ImageState, after: ImageState) -> Finding:
    if target.running(after) is not None:
        return Finding.RUNS
    if in_recovery(after) and not in_recovery(before):  # one that has looked like that all along does not say
        return Finding.RECOVERY
    if after.slots == before.slots or target.pending(after) is not None:
        return Finding.WAITING
    if target.active(after) is None and target.active(before) is not None:
        return Finding.COMING
    return Finding.OVER


def _why_it_waits(target: Target, staged: Slot | None, after: ImageState) -> str:
    if staged is None or not staged.pending:
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
