"""Several images of which one names all others by their hashes: a manifest update of the nRF Connect SDK (nRF54H20).

A slot is bootable when all images of its manifest lie in the slots beside it, and all run from the same side. The flags
of all images are those of the manifest's image, which alone is marked and confirmed. So the others are sent first, it
comes last, and it is marked when the list calls it bootable: the set is complete then. Sources: sdk-nrf's guide
`ug_nrf54h20_mcuboot_manifest` and `img_mgmt_state.c`, sdk-mcuboot's `loader_manifest_xip.c`. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import PlanRefused
from ..hints import Hint, Run
from ..mcuboot import Image
from .device_state import DeviceState, Kind, shown_version
from .fit import Fit
from .plan import Look, Mark, Plan, Prove, Reset, Step, Upload
from .planner import plan_one
from .policy import DfuPolicy

__all__ = ["owner_of", "plan_set"]


def owner_of(files: Mapping[int, Image]) -> int | None:
    """The number of the image that names the others; None for files without a manifest."""
    return next((number for number, image in files.items() if image.manifest is not None), None)


def plan_set(owner: int, files: Mapping[int, Image], state: DeviceState, policy: DfuPolicy) -> list[Plan]:
    """The plan of each image of the set of image `owner`, by their numbers. Raises `PlanRefused`."""
    if state.mode_known and state.kind not in (Kind.NEWEST, Kind.NEWEST_REVERT):
        raise PlanRefused(
            f"image {owner} names all others (a manifest of the nRF Connect SDK), which is for direct XIP alone: this "
            "device updates in another way",
            hint="build it for this device",
        )
    main = plan_one(files[owner], state, replace(policy, image=owner))
    named = _named(owner, files[owner])
    _check_named(owner, files, named, state)
    moved = main.has(Reset) or main.has(Upload)
    others = [
        _beside(number, hash, main, files.get(number), state, policy) if moved else _as_it_is(number, files, state)
        for number, hash in named.items()
    ]
    if moved:
        main = replace(main, steps=tuple(_with_look(main)))
    return sorted([main, *(part for part in others if part is not None)], key=lambda part: part.number)


def _named(owner: int, image: Image) -> dict[int, bytes]:
    """The hashes of the other images, by their numbers."""
    hashes = image.manifest or ()
    return dict(zip((number for number in range(len(hashes) + 1) if number != owner), hashes, strict=True))


def _check_named(owner: int, files: Mapping[int, Image], named: Mapping[int, bytes], state: DeviceState) -> None:
    for number, image in files.items():
        if number != owner and named.get(number) != image.hash:
            raise PlanRefused(
                f"image {owner} names another image {number} than the file that is here ({image.version})",
                hint="take the files of one build: its dfu_application.zip",
            )
    missing = state.image_numbers - {owner, *named}
    if missing:
        raise PlanRefused(
            f"image {owner} names {len(named)} other images, and the device has image {min(missing)} as well",
            hint="build it for this device",
        )


def _with_look(main: Plan) -> list[Step]:
    """The look whether the set is complete, before anything is marked or started."""
    steps: list[Step] = [step for step in main.steps if not isinstance(step, Look)]
    pending = main.has(Look)
    at = next((n for n, step in enumerate(steps) if isinstance(step, Mark | Reset)), len(steps))
    return [*steps[:at], Look(main.to_version, pending=pending, whole=True), *steps[at:]]


def _beside(
    number: int, hash: bytes, main: Plan, file: Image | None, state: DeviceState, policy: DfuPolicy
) -> Plan | None:
    """The plan of an image that goes to the side of the manifest's, whatever its version and what runs."""
    there = next((one for one in state.images.holding(hash, number) if one.slot == main.slot), None)
    if file is None:
        if there is None:
            raise PlanRefused(
                f"image {main.number} names an image {number} that is not in slot {main.slot}, and there is no file "
                "for it",
                slot=main.slot,
                hint=Hint("bring all images of the set at once: dfu_application.zip; see ", Run("image list")),
            )
        return None
    active = state.images.active(number)
    fit = Fit(file, state, replace(policy, image=number), main.slot, {number: file}, True)
    fit.check_hash_type()
    fit.check_kind()
    steps: list[Step] = []
    if there is None or policy.erase:
        fit.check_padding()
        fit.check_size()
        steps.append(Upload(fit.sent.size, main.slot, str(file.version), trimmed=fit.sent is not file))
    else:
        fit.notes.append(f"{file.version} is already in slot {main.slot}: no upload")
    if main.has(Prove):
        steps.append(Prove(str(file.version)))
    old = None if active is None else shown_version(active.version)
    sent = None if fit.sent is file else fit.sent
    what = (number, file.hash.hex(), fit.sent.size)
    notes, warnings = tuple(fit.notes), tuple(fit.warnings)
    return Plan(tuple(steps), old, str(file.version), main.slot, notes, warnings, sent, *what)


def _as_it_is(number: int, files: Mapping[int, Image], state: DeviceState) -> Plan | None:
    """Where the manifest's image runs already, all that it names does, or it would not run."""
    active, file = state.images.active(number), files.get(number)
    if file is None:
        return None
    old = None if active is None else shown_version(active.version)
    slot = 0 if active is None else active.slot
    notes = (f"{file.version} is already running, as image {number} of its set",)
    return Plan((), old, str(file.version), slot, notes, number=number, hash=file.hash.hex(), size=file.size)
