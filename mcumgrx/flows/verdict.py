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

Of several images, from MCUboot (`context_boot_go`, recorded in tests/golden/mcuboot-boot-multi):

* A dependency that is not met, in any image, keeps all of them as they are: marks stay, and so does a trial. So where
  one new image runs, none was held back by that.
* On its first trial no image has been taken back yet. One that lies in its slot beside it, no longer marked, was not
  started and given up but passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, Flag, auto

from ..errors import Outcome
from ..hints import Hint, Run
from ..mcuboot import Dependency, Image, Version
from ..messages.standard import ImageState, Slot
from .device_state import in_recovery, loader_answers, read_version, shown_version

__all__ = ["Finding", "Target", "Verdict", "in_words", "verdict", "verdict_of_all"]


@dataclass(frozen=True, slots=True)
class Target:
    """The image that an update brings, and the number of the image (core) that it is for.

    Not `alone`: the update brings others as well, so that its name has to say which one it is. Not `listed`: the device
    never shows what runs of this image. `loader`: a firmware loader has written it over the application.
    """

    image: Image
    number: int = 0
    alone: bool = True
    listed: bool = True
    loader: bool = False

    @property
    def version(self) -> str:
        return str(self.image.version)

    @property
    def name(self) -> str:
        """Its version, and of which image where that is not clear."""
        return self.version if self.alone else f"{self.version} of image {self.number}"

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
    LOADER = auto()  # the firmware loader answers, and not what it has written


# How it has ended if it stays so: the first row of which all signs are there. No hint: why it waits.
_ENDINGS: tuple[tuple[_Sign, Outcome, str, str | None], ...] = (
    (
        _Sign.LOADER | _Sign.GONE,
        Outcome.REJECTED,
        "{new} does not run, and is gone from its slot: the firmware loader answers",
        "an image that removes itself is an installer, which the application has to follow; bring that now",
    ),
    (
        _Sign.LOADER,
        Outcome.REJECTED,
        "the bootloader does not start {new}: the firmware loader answers, and {new} is in slot {slot}",
        "it was refused (signed with another key? damaged? built for another board?). The device waits in its loader "
        "for an image; --erase sends this one anew",
    ),
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
        "it was refused (signed with another key? older than allowed? larger than it can swap? a dependency missing?), "
        "or it ran and was given up; the bootloader's log says why",
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
    if target.loader and loader_answers(after):
        signs |= _Sign.LOADER
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
        "new": target.name,
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
        return (
            "the bootloader did not choose it: it may want a higher version or another kind of image, or the device "
            "prefers the other slot (a boot request of the nRF Connect SDK)"
        )
    erase = _erase(staged)
    address = target.image.rom_address
    if address is not None:
        return Hint(
            f"it is linked for a slot at 0x{address:x}, and passed over in any other (direct XIP): take the file that "
            f"the same build makes for slot {staged.slot}, or remove this one with ",
            erase,
        )
    others = sorted({slot.image for slot in after.slots if slot.pending and slot.image != staged.image})
    on_trial = [slot for slot in after.slots if slot.active and not slot.confirmed and slot.image != staged.image]
    if target.image.dependencies or others or on_trial:
        # One dependency that is not met, in any image, holds back every change of every image (MCUboot).
        held = in_words(f"{shown_version(slot.version)} of image {slot.image}" for slot in on_trial)
        return Hint(
            *([f"until then {held} stays on trial: it is neither confirmed nor taken back; "] if held else []),
            "an image that needs another one, which is not there in the version that it asks for, waits for ever, and "
            "all others with it: update that one too, or give this one up with ",
            erase,
        )
    return Hint(
        "did the device really reset? An image too large to be swapped waits for ever: remove it with ",
        erase,
    )


def _erase(slot: Slot) -> Run:
    # Without a number it is the slot beside the running one of image 0.
    return Run("image erase", "--slot", str(2 * slot.image + slot.slot)) if slot.image else Run("image erase")


def in_words(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = [*names] or [""]
    return f"{', '.join(first)} and {last}" if first else last


# -- several images ----------------------------------------------------------------------------------------------------


def verdict_of_all(
    targets: Sequence[Target], before: ImageState, after: ImageState, old: Mapping[int, Slot | None]
) -> Verdict:
    """As `verdict`, of all images of an update; `old` is what ran at the beginning, by their numbers."""
    told = {target.number: verdict(target, before, after, old.get(target.number)) for target in targets}
    if len(targets) == 1:
        return told[targets[0].number]
    together = _Together(
        before,
        after,
        told,
        running=[target for target in targets if target.running(after) is not None],
        left=[target for target in targets if not target.listed and told[target.number].outcome is Outcome.UNSEEN],
        rest=[],
    )
    done = {target.number for target in (*together.running, *together.left)}
    together.rest.extend(target for target in targets if target.number not in done)
    return together.verdict()


@dataclass(frozen=True, slots=True)
class _Together:
    """The images of one update after the reset: those that run, those that have left and are never listed, the rest."""

    before: ImageState
    after: ImageState
    told: Mapping[int, Verdict]
    running: list[Target]
    left: list[Target]
    rest: list[Target]

    def verdict(self) -> Verdict:
        finding = self._look()
        if not self.rest:
            return self._nothing_missing(finding)
        waiting = all(target.pending(self.after) is not None for target in self.rest)
        if not self.running:
            return self._none_runs(finding, waiting)
        if waiting and all(target.running(self.before) is not None for target in self.running):
            return self._frozen(finding)
        return self._mixed(finding)

    def _look(self) -> Finding:
        found = {self.told[target.number].finding for target in self.rest}
        if not self.rest:
            return Finding.RUNS if self.running else Finding.OVER
        if Finding.RECOVERY in found:
            return Finding.RECOVERY
        if self.after.slots == self.before.slots:
            return Finding.WAITING
        if self.running or self.left:
            # Another reset would end the trial of what runs, so there is only to wait, for a slower core perhaps.
            return Finding.COMING if found & {Finding.WAITING, Finding.COMING} else Finding.OVER
        return next(one for one in (Finding.COMING, Finding.OVER, Finding.WAITING) if one in found)

    def _nothing_missing(self, finding: Finding) -> Verdict:
        """All run, as far as that can be seen."""
        lost = [self.told[target.number] for target in self.left]
        texts = [*([self._runs()] if self.running else []), *(one.text for one in lost)]
        hint = lost[0].hint if lost else ""
        return Verdict(finding, Outcome.UNSEEN, "; ".join(texts), hint)

    def _none_runs(self, finding: Finding, waiting: bool) -> Verdict:
        names = in_words(target.name for target in self.rest)
        if waiting:
            ran = in_words(
                f"{shown_version(slot.version)} of image {slot.image}"
                for slot in map(lambda target: target.active(self.after), self.rest)
                if slot is not None
            )
            text = f"{ran or 'the old images'} still run after the reset, and {names} still wait: nothing was installed"
            return Verdict(finding, Outcome.NEVER_SWAPPED, text, self._why_all_wait())
        told = [self._passed_over(target) or self.told[target.number] for target in self.rest]
        outcomes = {one.outcome for one in told}
        outcome = next(one for one in _WORST_FIRST if one in outcomes)
        first = next(one for one in told if one.outcome is outcome)
        told += [self.told[target.number] for target in self.left]
        return Verdict(finding, outcome, "; ".join(one.text for one in told), first.hint, first.slot)

    def _passed_over(self, target: Target) -> Verdict | None:
        """Of one whose needs are not met, in place: its slot is passed over, with or without a mark."""
        told, unmet = self.told[target.number], [*self._unmet(target)]
        gone = [one.name for one in self.rest if one is not target and one.staged(self.after) is None]
        if target.image.manifest is not None and target.staged(self.after) is not None and gone:
            return replace(told, text=f"{target.name} names it, and was passed over", hint="")
        if told.outcome not in (Outcome.REVERTED, Outcome.NEVER_SWAPPED) or not unmet:
            return None
        text = f"{'; '.join(unmet)}: {target.name} was passed over"
        hint = "bring what it needs, and both at once: with trial boots, being passed over was its trial"
        return replace(told, outcome=Outcome.NEVER_SWAPPED, text=text, hint=hint)

    def _frozen(self, finding: Finding) -> Verdict:
        waits = in_words(target.name for target in self.rest)
        verb = "waits" if len(self.rest) == 1 else "wait"
        text = (
            f"{waits} still {verb} after the reset, and as long as that is so {in_words(self._names())} stays on "
            "trial: neither confirmed nor taken back"
        )
        return Verdict(finding, Outcome.FROZEN, text, self._why_all_wait())

    def _mixed(self, finding: Finding) -> Verdict:
        told = [self._beside_others(target) for target in self.rest]
        text = "; ".join(["the images are mixed", self._runs(), *(one.text for one in told)])
        on_trial = [target for target in self.running if not target.confirmed(self.after)]
        hint: str = Hint(*(part for one in told for part in (one.hint, ". ")))
        if on_trial:
            names = in_words(target.name for target in on_trial)
            hint = Hint(hint, f"{names} is not confirmed: go back with ", Run("os reset"))
        else:
            hint = Hint(hint, "Bring the missing one, or what ran before: see ", Run("image list"))
        return Verdict(finding, Outcome.MIXED, text, hint, told[0].slot)

    def _beside_others(self, target: Target) -> Verdict:
        """Of one that does not run although another new one does."""
        told, hint = self.told[target.number], ""
        staged, active = target.staged(self.after), target.active(self.after)
        if staged is None:
            return told
        runs = "nothing known" if active is None else shown_version(active.version)
        if staged.pending:
            text = f"{target.name} still waits in slot {staged.slot}, and {runs} runs"
            hint = Hint("Alone it waits for ever if it is too large to be swapped: remove it with ", _erase(staged))
            return replace(told, text=text, hint=hint)
        if all(other.confirmed(self.after) for other in self.running):
            return told
        text = f"{target.name} was passed over: it is still in slot {staged.slot}, its mark is gone, and {runs} runs"
        hint = "The bootloader may have dropped the mark, or the device lost power; it was not started"
        return replace(told, outcome=Outcome.NEVER_SWAPPED, text=text, hint=hint)

    def _names(self) -> list[str]:
        return [target.name for target in self.running]

    def _runs(self) -> str:
        """What runs, and whether it stays."""
        return "; ".join(
            f"{target.name} runs{'' if target.confirmed(self.after) else ' on trial'}" for target in self.running
        )

    def _why_all_wait(self) -> str:
        """A need that is not met where a file tells; otherwise what it can be."""
        unmet = [text for target in (*self.running, *self.rest) for text in self._unmet(target)]
        last = next((slot for slot in map(lambda one: one.pending(self.after), reversed(self.rest)) if slot), None)
        give_up: list[str | Run] = ["or give it up with ", _erase(last)] if last is not None else []
        if unmet:
            return Hint(f"{'; '.join(unmet)}: bring that too, ", *give_up)
        return Hint(
            "did the device really reset? An image that needs another one, which is not there in the version that it "
            "asks for, keeps all of them waiting for ever, those on the device included; so does one too large to be "
            "swapped, for itself. Update what is missing, ",
            *give_up,
        )

    def _unmet(self, target: Target) -> Iterable[str]:
        for need in target.image.dependencies:
            version = self._next_version(need)
            if version is not None and need.image != target.number and not need.slot and not need.met_by(version):
                yield f"{target.name} needs image {need.image} at version {need.minimum} or later, not {version}"

    def _next_version(self, need: Dependency) -> Version | None:
        """The version of the image that would run after the next reset."""
        there = [slot for slot in self.after.slots if slot.image == need.image]
        later = next((slot for slot in there if slot.pending), None) or next((one for one in there if one.active), None)
        return None if later is None else read_version(later.version)


_WORST_FIRST = (
    Outcome.OTHER_IMAGE,
    Outcome.NEVER_SWAPPED,
    Outcome.UNSEEN,
    Outcome.REJECTED,
    Outcome.REVERTED,
)
