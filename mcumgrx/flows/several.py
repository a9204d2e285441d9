"""The plan for one file or several: each image has its own (`plan`), and they are put together here.

All are uploaded, then all marked, then there is one reset, and one proof for all. Pure, as `plan`.

Rules of MCUboot that concern several images (`bootutil`, `context_boot_go`; recorded in tests/golden):

* Each image is installed, put on trial and confirmed by itself; what couples them are dependencies alone. One that is
  not met keeps all images as they are, with their marks, boot after boot (`fit` refuses what the files tell of that).
* A valid image that waits puts off the revert of every image with a lower number by one boot; one with a higher number
  goes back. So an image on trial outlasts the reset that installs a later one, and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..errors import PlanRefused
from ..hints import Hint, Run
from ..mcuboot import Image
from .device_state import DeviceState, Kind, shown_version
from .manifest import owner_of, plan_set
from .plan import Check, Confirm, EnterRecovery, Erase, GoBack, Keep, Look, Mark, Plan, Prove, Reset, Soak, Step, Upload
from .planner import plan_one, plan_together
from .policy import DfuPolicy
from .requests import check_memory, may_follow
from .unconfirmed import end_trials
from .verdict import Target, in_words

__all__ = ["make_plan"]

_ORDER: tuple[type[Step], ...] = (
    Keep,
    GoBack,
    EnterRecovery,
    Erase,
    Upload,
    Look,
    Mark,
    Reset,
    Prove,
    Soak,
    Check,
    Confirm,
)
"""In which the kinds of steps are done: those of all images before the next kind."""

_ONCE = (EnterRecovery, Reset, Soak, Check)
"""What is done once for all of them."""

_LINES = 3
"""So many uploads have a line each; the plan shall fit a small terminal."""


def make_plan(
    files: Image | Mapping[int, Image], state: DeviceState, policy: DfuPolicy, *, installer: Image | None = None
) -> Plan:
    """What has to be done so that `files`, by the numbers of their images, run as `policy` wants it.

    A single file is for image `policy.image`. Done already is done: an image that runs is not sent again, nor one that
    lies in the other slot, unless `policy.erase` asks for a clean start. `installer` comes before it, where a firmware
    loader takes it. Raises `PlanRefused`.
    """
    if isinstance(files, Image):
        files = {policy.image: files}
    _check_order(files, policy)
    _check_installer(installer, state)
    ended = end_trials(files, state, policy)
    if ended is not None:
        state = ended.state
    owner = owner_of(files)
    if len(files) == 1 and owner is None:
        ((number, image),) = files.items()
        plan = plan_one(image, state, replace(policy, image=number), installer)
        return plan if ended is None else ended.before(plan)
    if owner is None:
        parts = _parts(files, state, policy)
    else:
        parts = plan_set(owner, files, state, policy)
        policy = replace(policy, image_order=(*(part.number for part in parts if part.number != owner), owner))
    return _whole(parts if ended is None else [ended.before(part) for part in parts], files, state, policy)


def _parts(files: Mapping[int, Image], state: DeviceState, policy: DfuPolicy) -> list[Plan]:
    check_memory(files)
    open_ones = [number for number, image in files.items() if not Target(image, number).confirmed(state.images)]
    parts = [_part(number, files, state, policy, together=len(open_ones) > 1) for number in sorted(files)]
    resets = [part.number for part in parts if part.has(Reset)]
    return [_over_the_reset(part, files, state, max(resets)) for part in parts] if resets else parts


def _whole(parts: Sequence[Plan], files: Mapping[int, Image], state: DeviceState, policy: DfuPolicy) -> Plan:
    whole = replace(parts[0], image=None, parts=tuple(parts), order=policy.image_order)
    lost = _network_core_lost(whole, files, state)
    tasks = {kind: whole.tasks(kind)[: 1 if kind in _ONCE else None] for kind in _ORDER}
    return replace(
        whole,
        steps=tuple(step for found in tasks.values() for _, step in found),
        lines=tuple((kind.name, text) for kind, found in tasks.items() for text in _lines(found)),
        notes=_gathered(parts, lambda part: part.notes),
        warnings=(*_gathered(parts, lambda part: part.warnings), *lost),
        no_way_back=(*_gathered(parts, lambda part: part.no_way_back), *lost),
    )


def _check_installer(installer: Image | None, state: DeviceState) -> None:
    if installer is not None and state.kind is not Kind.LOADER:
        raise PlanRefused(
            f"the installer {installer.version} is for a device with a firmware loader, and this bootloader has none",
            hint="leave it out, and bring the application alone",
        )


def _check_order(files: Mapping[int, Image], policy: DfuPolicy) -> None:
    order = policy.image_order
    if order and set(order) != set(files):
        default = ",".join(str(number) for number in sorted(files, reverse=True))
        raise PlanRefused(
            f"--image-order has to name {_images(sorted(files))}, which there are files for, and no other",
            hint=f"as --image-order {default}, or leave it out",
        )


def _network_core_lost(plan: Plan, files: Mapping[int, Image], state: DeviceState) -> tuple[str, ...]:
    """Why the order of the marks may leave a core behind: image 0 is marked before it, or has been already."""
    marks = [number for number, _ in plan.tasks(Mark)]
    app = state.images.other(0)
    if 0 in marks:
        late = marks[marks.index(0) + 1 :]
    else:
        waits = 0 in files and app is not None and app.pending
        late = [number for number in marks if waits and files[number].for_network_core]
    if not late:
        return ()
    return (
        f"image 0 {'is' if 0 in marks else 'has been'} marked before {_images(sorted(late))}: the bootloader of an "
        "nRF5340 (nRF Connect SDK 2.6 to 3.4, NCSDK-34106) does not install its network core's image then",
    )


def _part(number: int, files: Mapping[int, Image], state: DeviceState, policy: DfuPolicy, *, together: bool) -> Plan:
    try:
        return plan_together(files, state, replace(policy, image=number), together=together)
    except PlanRefused as error:
        raise PlanRefused(f"image {number}: {error.message}", slot=error.slot, hint=error.hint) from error


def _over_the_reset(part: Plan, files: Mapping[int, Image], state: DeviceState, last: int) -> Plan:
    """The plan of an image while others are installed by a reset, of which `last` has the highest number.

    Where it runs on trial already it is to run afterwards, too, to be confirmed with the others.
    """
    a, b = state.images.active(part.number), state.images.other(part.number)
    if part.has(Reset) or a is None:
        return part
    for need in files[part.number].dependencies:  # of what runs: they count for the reset as well
        beside = files.get(need.image)
        if beside is not None and not need.slot and need.image != part.number and not need.met_by(beside.version):
            raise PlanRefused(
                f"image {part.number}: {part.to_version}, which runs, needs image {need.image} at version "
                f"{need.minimum} or later, but the file for it is {beside.version}",
                slot=a.slot,
                hint="one image whose needs are not met keeps all from being installed: take files that fit together",
            )
    if b is not None and (b.pending or may_follow(state, b, files[part.number].version)):
        raise PlanRefused(
            f"image {part.number}: {part.to_version} runs, and the reset would put {shown_version(b.version)} in its "
            f"place, which waits in slot {b.slot}",
            slot=b.slot,
            hint=Hint("remove what waits with ", Run("image erase", "--slot", str(2 * b.image + b.slot))),
        )
    if a.confirmed:
        return part
    if state.kind is Kind.SWAP and part.number < last:
        note = f"it stays on trial over the reset, because that installs image {last}"
        return replace(part, steps=(Prove(part.to_version), *part.steps), notes=(*part.notes, note))
    confirm = Run("image confirm", *((a.hash.hex(),) if part.number and a.hash is not None else ()))
    raise PlanRefused(
        f"image {part.number}: {part.to_version} runs on trial, and the reset that installs the others takes it back",
        slot=a.slot,
        hint=Hint("confirm it with ", confirm, ", or go back with ", Run("os reset"), ", before this update"),
    )


def _gathered(parts: Sequence[Plan], texts: Callable[[Plan], tuple[str, ...]]) -> tuple[str, ...]:
    """What is told of the parts: once, with the images that it concerns unless these are all."""
    found: dict[str, list[int]] = {}
    for part in parts:
        for text in texts(part):
            found.setdefault(text, []).append(part.number)
    return tuple(
        text if len(numbers) == len(parts) else f"{_images(numbers)}: {text}" for text, numbers in found.items()
    )


# -- in words ----------------------------------------------------------------------------------------------------------


def _lines(tasks: Sequence[tuple[int, Step]]) -> tuple[str, ...]:
    """What is done with several images in steps of one kind, in as few lines as can be read."""
    if not tasks:
        return ()
    kind = tasks[0][1]
    match kind:
        case EnterRecovery() | Reset() | Soak() | Check():
            return (kind.text,)
        case Upload():
            lines = tuple(f"{step.text} of image {number}" for number, step in tasks)
            return lines if len(lines) <= _LINES else ("; ".join(lines),)
        case GoBack():
            old = [f"{step.version} of image {number}" for number, step in tasks if isinstance(step, GoBack)]
            return (f"reset the device, so that {in_words(old)} come{'s' if len(old) == 1 else ''} back",)
        case Erase():
            return (f"erase the slot that is not running of {_images([number for number, _ in tasks])}",)
        case Mark():
            return (_marked(tasks),)
    return (_as_one(tasks),)


def _marked(tasks: Sequence[tuple[int, Step]]) -> str:
    """Marks in their order, which matters."""
    texts = {step.text for _, step in tasks}
    if len(texts) == 1:
        return texts.pop().replace("it", ", then ".join(f"image {number}" for number, _ in tasks), 1)
    return ", then ".join(step.text.replace("it", f"image {number}", 1) for number, step in tasks)


def _as_one(tasks: Sequence[tuple[int, Step]]) -> str:
    """What is done with each image, in one sentence where the verb is the same."""
    one, kind = len(tasks) == 1, tasks[0][1]
    if isinstance(kind, Prove) and all(isinstance(step, Prove) and step.listed for _, step in tasks):
        return f"prove that {_named(tasks)} run{'s' if one else ''}"
    if isinstance(kind, Confirm):
        return f"confirm {_named(tasks)}, so that {'it stays' if one else 'they stay'}"
    return "; ".join(_of_image(step, number) for number, step in tasks)


def _named(tasks: Sequence[tuple[int, Step]]) -> str:
    return in_words(f"{getattr(step, 'version', '')} of image {number}" for number, step in tasks)


def _of_image(step: Step, number: int) -> str:
    version = getattr(step, "version", "")
    return step.text.replace(version, f"{version} of image {number}", 1)


def _images(numbers: Sequence[int]) -> str:
    """`image 1`, `images 0 and 1`, `images 0, 1 and 2`."""
    *first, last = (str(number) for number in numbers)
    return f"images {', '.join(first)} and {last}" if first else f"image {last}"
