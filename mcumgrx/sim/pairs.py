"""A reset of a device with several images: MCUboot built for more than one (`BOOT_IMAGE_NUMBER`).

Each image has slots, trailers and a `Bootloader` of its own; this module takes the steps of their resets in turns, as
`bootutil` does (`context_boot_go` in boot/bootutil/src/loader.c), and checks what the images need of each other. Built
for a single image MCUboot looks at no dependency, so `Bootloader.boot` knows nothing of all this.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot import TlvType, Version, parse_header, parse_tlvs
from mcumgrx.sim.bootloader import Bootloader, BootResult, Plan, SwapType
from mcumgrx.sim.slots import Slot

SLOTS_PER_IMAGE = 2

MAX_IMAGES = 8
"""What Zephyr's image group can be built for; MCUboot numbers them in 4 bits."""

_DEPENDENCY = struct.Struct("<B3xBBHI")


def boot_images(loaders: Sequence[Bootloader], *, manifest: bool = False) -> tuple[BootResult, ...]:
    """Reset a device with these images, in the order of their numbers: what became of each.

    `manifest`: image 0 names the others (`_choose_set`).

    If one of them has nothing to run, no image runs. Whatever the flash raises (`PowerCut`) passes through; call
    again when power is back.
    """
    for loader in loaders:
        loader.begin()
    if len(loaders) == 1:
        results = [loaders[0].boot()]
    else:
        results = (_choose_set if manifest else _choose if loaders[0].chooses else _install)(loaders)
    for loader in loaders:
        loader.end()
    if all(result.booted for result in results):
        return tuple(results)
    return tuple(replace(result, slot=None) for result in results)


# -- swap and overwrite -----------------------------------------------------------------------------------------------


def _install(loaders: Sequence[Bootloader]) -> list[BootResult]:
    plans: list[Plan] = []
    for loader in loaders:
        plan = loader.prepare()
        if plan.follows:
            # Those before it have just been installed, in the reset that this one continues: it is too early to take
            # them back (`boot_review_image_swap_types`). bootutil tells it from a mark in a later image alone.
            for earlier in plans:
                if earlier.kind is SwapType.REVERT and not earlier.bootstrap:
                    earlier.kind = SwapType.NONE
        plans.append(plan)
    if any(plan.kind is not SwapType.NONE for plan in plans) and not _satisfied(loaders, plans):
        for plan in plans:
            plan.kind = SwapType.NONE
    for loader, plan in zip(loaders, plans, strict=True):
        loader.carry_out(plan)
    return [loader.run(plan) for loader, plan in zip(loaders, plans, strict=True)]


def _satisfied(loaders: Sequence[Bootloader], plans: Sequence[Plan]) -> bool:
    """Whether the images that would run have all they need. One that has not stops the installation of all."""
    places = [loader.next_image(plan) for loader, plan in zip(loaders, plans, strict=True)]
    return all(_has_its_needs(loader, place, places) for loader, place in zip(loaders, places, strict=True))


# -- direct XIP and RAM load ------------------------------------------------------------------------------------------


def _choose(loaders: Sequence[Bootloader]) -> list[BootResult]:
    skipped: list[set[int]] = [set() for _ in loaders]
    chosen: dict[int, BootResult] = {}
    while True:
        for number, loader in enumerate(loaders):
            if number not in chosen:
                taken = [loader.ram_used(other) for loader, other in _others(loaders, chosen, number)]
                chosen[number] = loader.choose(skipped[number], taken)
                if not chosen[number].booted:
                    return [chosen.get(each, BootResult(None)) for each in range(len(loaders))]
        places = [(loader.slots[chosen[number].slot or 0], 0) for number, loader in enumerate(loaders)]
        for number, loader in enumerate(loaders):
            if not _has_its_needs(loader, places[number], places):
                # This slot is out for this boot; the other slot of the image may do, and then all is looked at again.
                skipped[number].add(chosen.pop(number).slot or 0)
                break
        else:
            return [chosen[number] for number in range(len(loaders))]


def _choose_set(loaders: Sequence[Bootloader]) -> list[BootResult]:
    """Direct XIP of the nRF Connect SDK with a manifest: image 0 chooses, and all others run from the same slot.

    They have to be those that it names; one that is not is erased, and the set passed over. What is marked, tried and
    confirmed is image 0 alone (`loader_manifest_xip.c` in sdk-mcuboot).
    """
    skipped: set[int] = set()
    while (result := loaders[0].choose(skipped)).slot is not None:
        named = result.image.manifest if result.image is not None else None
        others = [loader.run_beside(result.slot, hash) for loader, hash in zip(loaders[1:], named or (), strict=False)]
        if len(others) == len(loaders) - 1 and all(other.booted for other in others):
            return [result, *others]
        skipped.add(result.slot)
    return [result] * len(loaders)


def _others(
    loaders: Sequence[Bootloader], chosen: Mapping[int, BootResult], number: int
) -> Iterator[tuple[Bootloader, BootResult]]:
    for other, result in chosen.items():
        if other != number:
            yield loaders[other], result


# -- dependencies -----------------------------------------------------------------------------------------------------


def _has_its_needs(loader: Bootloader, place: tuple[Slot, int], places: Sequence[tuple[Slot, int]]) -> bool:
    """Whether the image at `place`, a slot and an offset in it, has its needs among those at `places`."""
    slot, offset = place
    data = slot.read(offset, slot.size - offset)
    try:
        tlvs, _ = parse_tlvs(data, parse_header(data))
    except ImageError:
        return False  # what cannot be read cannot be satisfied
    for tlv in tlvs:
        if tlv.type != TlvType.DEPENDENCY or not tlv.protected:
            continue
        if len(tlv.value) != _DEPENDENCY.size:
            return False
        number, *version = _DEPENDENCY.unpack(tlv.value)
        if number >= len(places):
            return False
        there, start = places[number]
        if loader.compared(there.version_bytes(start)) < loader.compared(Version(*version)):
            return False
    return True
