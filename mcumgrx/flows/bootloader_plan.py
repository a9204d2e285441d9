"""The plan of an update of the bootloader itself: MCUboot beneath the immutable one of the nRF Connect SDK (NSIB).

There MCUboot has two slots of its own, and a package has a file for each, linked for its address. The one that does not
run is sent like an application; MCUboot sees by its reset vector what it is, and copies it into its other slot, which
NSIB then starts if it is whole and newer. Pure, as `planner`. Sources: sdk-nrf `b0_packaging.cmake`, the page
"Upgradable bootloader" of its documentation, sdk-mcuboot `loader.c`.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import PlanRefused
from ..hints import Hint, Run
from ..mcuboot import Image
from .device_state import DeviceState, Kind, shown_version
from .fit import Fit
from .plan import Mark, Plan, ProveBootloader, Reset, Step, Upload
from .policy import DfuPolicy, Mode
from .variants import Files

__all__ = ["plan_bootloader"]


def plan_bootloader(files: Files, state: DeviceState, policy: DfuPolicy) -> tuple[Plan, Image]:
    """What has to be done so that MCUboot runs from its other slot, as the file for that; and that file.

    Raises `PlanRefused`.
    """
    variants = next(iter(files.values()))
    if isinstance(variants, Image) or len(files) != 1:
        raise PlanRefused(
            "a bootloader has a file for each of its two slots, and this is something else",
            hint="take the dfu_mcuboot.zip of the build; without --bootloader the file goes to the application",
        )
    runs = _running(state)
    target = 1 - runs
    if target not in variants:
        raise PlanRefused(
            f"the bootloader runs from its slot {runs}, and there is no file for its slot {target}",
            hint="build the package again: it has a file for each of the two",
        )
    image = variants[target]
    active = state.images.active()
    slot = 1 - active.slot if active is not None and active.slot in (0, 1) else 1
    fit = Fit(image, state, replace(policy, image=0), slot, {0: image}, together=False, in_place=True)
    fit.check_hash_type()
    fit.check_padding()
    fit.check_size()
    held = state.images.holding(image.hash)
    steps: list[Step] = []
    if held and not policy.erase:
        fit.notes.append(f"{fit.new} is already in slot {held[0].slot}: no upload")
    else:
        steps.append(Upload(fit.sent.size, slot, fit.new, trimmed=fit.sent is not image))
    if policy.mode is not Mode.UPLOAD_ONLY:
        marked = bool(held) and held[0].pending
        steps += [*([] if marked else [Mark(permanent=False)]), Reset(), ProveBootloader(fit.new, target)]
        fit.for_good(
            f"the bootloader itself is replaced, in its slot {target}: there is no way back, and if the new one does "
            "not work, only a debugger helps"
        )
    notes, warnings, final = tuple(fit.notes), tuple(fit.warnings), tuple(fit.no_way_back)
    what = (0, image.hash.hex(), fit.sent.size)
    sent = None if fit.sent is image else fit.sent
    return Plan(tuple(steps), None, fit.new, slot, notes, warnings, sent, *what, no_way_back=final), image


def _running(state: DeviceState) -> int:
    """The slot from which the bootloader runs, of a device in which it can be replaced."""
    active = state.images.active()
    if state.recovery or state.in_loader or state.kind not in (Kind.SWAP, Kind.OVERWRITE):
        raise PlanRefused(
            "a bootloader is replaced from the application, by one that installs images",
            hint=Hint("what runs, and how it installs images, tells ", Run("os bootloader")),
        )
    if state.active_b0_slot is None:
        raise PlanRefused(
            "the device does not tell from which of its two slots the bootloader runs; the other one would be replaced",
            hint="firmware of the nRF Connect SDK with a first-stage bootloader tells, if it has "
            "CONFIG_MCUMGR_GRP_OS_BOOTLOADER_INFO",
        )
    if active is None or not active.confirmed:
        told = (
            "the device does not say what runs" if active is None else f"{shown_version(active.version)} runs on trial"
        )
        raise PlanRefused(
            f"{told}: no bootloader is replaced beneath that",
            hint=Hint("confirm it with ", Run("image confirm"), ", or go back with ", Run("os reset")),
        )
    waiting = next((slot for slot in state.images.slots if slot.pending and slot.image), None)
    if waiting is not None:
        raise PlanRefused(
            f"the reset would also install {shown_version(waiting.version)} of image {waiting.image}",
            hint="install that first, or remove it",
        )
    return state.active_b0_slot
