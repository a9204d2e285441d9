"""What becomes of images that run on trial and are not those to be installed, before an update. Pure, as `planner`.

One that is kept is confirmed. One that is given up goes back by a reset, which is the same for all: it ends every trial
of the device. What a reset does to several images (bootutil's `context_boot_go`; recorded in tests/golden):

* One that waits is installed by it, and puts off the end of every trial with a lower number. So nothing may wait.
* An image that runs, and needs another one that is on trial, holds that back for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..errors import PlanRefused
from ..hints import Hint, Run
from ..mcuboot import Image
from ..messages.standard import ImageState, Slot
from .device_state import DeviceState, Kind, read_version, shown_version
from .plan import GoBack, Keep, Plan
from .policy import DfuPolicy, Unconfirmed

__all__ = ["TrialsEnded", "end_trials"]


@dataclass(frozen=True, slots=True)
class TrialsEnded:
    """How each trial is ended, by the numbers of the images, and the device as it is then."""

    steps: Mapping[int, Keep | GoBack]
    state: DeviceState
    told: Mapping[int, tuple[str, str]]
    """Of the same images: a note, and a warning or nothing."""

    def before(self, plan: Plan) -> Plan:
        """The plan of one image with the end of its trial before it."""
        step = self.steps.get(plan.number)
        if step is None:
            return plan
        note, warning = self.told[plan.number]
        return replace(
            plan,
            steps=(step, *plan.steps),
            from_version=step.version if isinstance(step, Keep) else step.trial,
            notes=_unique((note, *(plan.notes if plan.steps else ()))),
            warnings=_unique((*([warning] if warning else []), *plan.warnings)),
        )


def end_trials(files: Mapping[int, Image], state: DeviceState, policy: DfuPolicy) -> TrialsEnded | None:
    """As `policy.if_unconfirmed` says; None where no image of `files` runs on trial that is another one.

    Raises `PlanRefused` where a reset would not end them.
    """
    action = policy.if_unconfirmed
    trials = {number: slot for number in files if (slot := state.images.active(number)) and not slot.confirmed}
    others = {n: slot for n, slot in trials.items() if slot.hash not in files[n].hashes_when_running}
    if action is Unconfirmed.REFUSE or state.recovery or not others:
        return None
    if action is Unconfirmed.CONFIRM:
        return _kept(others, state)
    return _given_up(trials, set(others), files, state)


def _kept(others: Mapping[int, Slot], state: DeviceState) -> TrialsEnded:
    steps: dict[int, Keep | GoBack] = {}
    told = {}
    for number, slot in others.items():
        version = shown_version(slot.version)
        steps[number] = Keep(version, slot.hash if number else None)
        denied = "" if number == 0 else "; most devices let only its own application confirm an image of another core"
        told[number] = (
            _note(version, Unconfirmed.CONFIRM),
            f"{version} is confirmed first, and what ran before it is given up{denied}",
        )
    return TrialsEnded(steps, _then(state, [replace(slot, confirmed=True) for slot in others.values()]), told)


def _given_up(
    trials: Mapping[int, Slot], others: set[int], files: Mapping[int, Image], state: DeviceState
) -> TrialsEnded:
    several = len(files) > 1
    back = {number: _comes_back(slot, state, several) for number, slot in trials.items()}
    _check_waiting(trials, state)
    _check_needs(back, files, state)
    steps: dict[int, Keep | GoBack] = {}
    told = {}
    for number, slot in trials.items():
        version, old = shown_version(slot.version), back[number]
        assert old.hash is not None  # looked at by `_comes_back`
        steps[number] = GoBack(shown_version(old.version), old.hash, version)
        own = f"{version} runs on trial, and the reset that takes back the others ends that, too"
        told[number] = (_note(version, Unconfirmed.REVERT), "") if number in others else (own, "")
    ends = [slot for slot in state.images.slots if slot.active and not slot.confirmed and slot.image not in files]
    if ends:
        named = ", ".join(f"{shown_version(slot.version)} of image {slot.image}" for slot in ends)
        first = min(others)
        told[first] = (told[first][0], f"the reset that goes back also ends the trial of {named}")
    # Bootloaders that run each image where it is leave it there.
    moved = state.kind is not Kind.NEWEST_REVERT
    then = [
        replace(
            old, active=True, confirmed=True, pending=False, permanent=False, slot=trials[n].slot if moved else old.slot
        )
        for n, old in back.items()
    ]
    return TrialsEnded(steps, _then(state, then), told)


def _then(state: DeviceState, running: Iterable[Slot]) -> DeviceState:
    """The device once these run. What their other slots hold is not counted on: swap using offset does not list it."""
    then = {slot.image: slot for slot in running}
    kept = tuple(slot for slot in state.images.slots if slot.image not in then)
    return replace(state, images=ImageState((*then.values(), *kept), state.images.split_status))


def _note(version: str, action: Unconfirmed) -> str:
    return f"{version} runs on trial, and --if-unconfirmed says {action.value}"


def _comes_back(slot: Slot, state: DeviceState, several: bool) -> Slot:
    """What a reset puts in the place of this one."""
    other = state.images.other(slot.image)
    if other is None or other.hash is None or state.kind in (Kind.OVERWRITE, Kind.NEWEST):
        of_image = f"image {slot.image}: " if several else ""
        raise PlanRefused(
            f"{of_image}{shown_version(slot.version)} runs on trial, and the device shows nothing that a reset would "
            "go back to",
            slot=slot.slot,
            hint="look at what runs, and use --if-unconfirmed confirm to keep it",
        )
    return other


def _check_waiting(trials: Mapping[int, Slot], state: DeviceState) -> None:
    waits = next((slot for slot in state.images.slots if slot.pending and slot.image not in trials), None)
    if waits is None:
        return
    frozen = [number for number in trials if number < waits.image and state.kind is Kind.SWAP]
    version = f"{shown_version(waits.version)} of image {waits.image}"
    effect = f", and put off the end of the trial of image {frozen[0]}" if frozen else ""
    raise PlanRefused(
        f"the reset that is to go back would install {version}, which waits in slot {waits.slot}{effect}",
        slot=waits.slot,
        hint=Hint("give that up with ", Run("image erase", "--slot", str(2 * waits.image + waits.slot)), " first"),
    )


def _check_needs(back: Mapping[int, Slot], files: Mapping[int, Image], state: DeviceState) -> None:
    """Of what runs only the needs of the files are known."""
    for number, image in files.items():
        running = state.images.active(number)
        if number in back or running is None or running.hash not in image.hashes_when_running:
            continue
        for need in image.dependencies:
            old = back.get(need.image)
            version = None if old is None else read_version(old.version)
            if old is None or need.slot or version is None or need.met_by(version):
                continue
            raise PlanRefused(
                f"image {number}: {image.version}, which runs, needs image {need.image} at version {need.minimum} or "
                f"later: no reset takes that back to {shown_version(old.version)}, and its trial would not end",
                slot=running.slot,
                hint="--if-unconfirmed confirm keeps it",
            )


def _unique(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(texts))
