"""What the image list says of the next boot where images run in place (direct XIP).

Source: `img_mgmt_get_next_boot_slot` in Zephyr's `img_mgmt_state.c`, and in the nRF Connect SDK's copy of it, which
knows of slots that the application prefers.
"""

from __future__ import annotations

from collections.abc import Sequence

from mcumgrx.mcuboot import Version
from mcumgrx.sim.bootloader import Bootloader, SwapType
from mcumgrx.sim.slots import Mark


def next_boot(loader: Bootloader, active: int, versions: Sequence[Version | None]) -> SwapType:
    """The next boot as the swap type that has the same flags; `active` is the slot that runs, of two `versions`."""
    other = 1 - active
    mine, theirs = versions[active], versions[other]
    if mine is None or theirs is None:
        return SwapType.NONE
    newer = loader.compared(theirs) > loader.compared(mine)
    # Of equal ones the lower slot is taken.
    higher = newer or (loader.compared(theirs) == loader.compared(mine) and other < active)
    preferred = loader.preferred if loader.policy.boot_requests else None
    chosen = higher if preferred is None else preferred == other
    if not loader.reverts_in_place:
        return SwapType.PERM if chosen else SwapType.NONE
    if _marked(loader, active) is SwapType.REVERT:
        return SwapType.REVERT
    mark = _marked(loader, other)
    return mark if chosen and mark is not SwapType.REVERT else SwapType.NONE


def _marked(loader: Bootloader, side: int) -> SwapType:
    """What the trailer of a slot says of it: not marked, to be tried, tried and not confirmed, to stay."""
    slot = loader.slots[side]
    if slot.magic is not Mark.SET:
        return SwapType.NONE
    if slot.image_ok is Mark.SET:
        return SwapType.PERM
    return SwapType.REVERT if slot.copy_done is Mark.SET else SwapType.TEST
