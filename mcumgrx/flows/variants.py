"""Which file goes onto a device where an image has one for each of its slots.

Code that runs in place (direct XIP) is linked for one address, so that builds make a file for each slot. Sources:
sdk-nrf's `zip.cmake`, MCUboot's `boot_load_and_validate_images` for direct XIP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from ..errors import PlanRefused
from ..mcuboot import Image
from ..mcuboot.variants import linked_at
from .device_state import DeviceState, Kind

Files: TypeAlias = Mapping[int, Image | Mapping[int, Image]]
"""Image number → its file, or its files by slot."""

INSTALLER_FIRST = -1
"""In place of an image number: the installer that comes before the application, through a firmware loader."""


def split(files: Files) -> tuple[Files, Image | None]:
    """The files of images, and the installer where there is one."""
    installer = files.get(INSTALLER_FIRST)
    if installer is None:
        return files, None
    if not isinstance(installer, Image):
        raise TypeError("an installer is one image")
    return {number: image for number, image in files.items() if number != INSTALLER_FIRST}, installer


def chosen(files: Files, state: DeviceState) -> dict[int, Image]:
    """One file for each image: what runs already, or else what is linked for where it would run."""
    found = {
        number: image if isinstance(image, Image) else _variant(number, image, state) for number, image in files.items()
    }
    named = {hash for image in found.values() for hash in image.manifest or ()}
    for number, variants in files.items():
        if named and not isinstance(variants, Image) and found[number].manifest is None:
            # What the manifest names runs beside it, whatever runs now.
            found[number] = next((one for one in variants.values() if one.hash in named), found[number])
    return found


def first(files: Files) -> dict[int, Image]:
    """As long as no device has been asked: any file of each image."""
    return {number: image if isinstance(image, Image) else image[min(image)] for number, image in files.items()}


def _variant(number: int, variants: Mapping[int, Image], state: DeviceState) -> Image:
    running = state.images.active(number)
    for image in variants.values():
        if running is not None and running.hash in image.hashes_when_running:
            return image
    slot = _slot(number, state)
    in_place = state.mode_known and state.kind in (Kind.NEWEST, Kind.NEWEST_REVERT)
    if len(variants) == 1 and not in_place:
        return next(iter(variants.values()))  # elsewhere packages name the slot that it is sent to
    if slot is None:
        raise PlanRefused(
            f"there is a file of image {number} for each of its slots, and the device does not say which of these runs",
            hint="take the one for the slot that does not run, alone",
        )
    if slot not in variants:
        raise PlanRefused(
            f"image {number} would run in slot {slot}, and there is no file that is linked for it",
            slot=slot,
            hint=other_variant(slot),
        )
    return variants[slot]


def other_variant(slot: int) -> str:
    """Where the file for this slot is to be had."""
    return (
        f"take the file that the same build makes for slot {slot}, or give both, of which the right one is taken: a "
        "package with both, or 0=SLOT0 0=SLOT1"
    )


_FLASH = 1 << 24  # where flash begins in an address space: at no odd place within that


def linked_slot(image: Image, state: DeviceState) -> int | None:
    """The slot of image 0 that a file is linked for, by its address and the size of slot 0; None where neither tells.

    Devices tell no addresses. What lies lower in the flash than slot 0 is large is in no slot behind that; an address
    beyond is in slot 1, as long as the bootloader, before them, takes less room than a slot.
    """
    at, first = linked_at(image), state.slot_info(0, 0)
    if at is None or first is None or not first.size:
        return None
    if at % _FLASH < first.size:
        return 0
    return 1 if image.rom_address is not None else None  # the code of a file may begin at its end


def _slot(number: int, state: DeviceState) -> int | None:
    """Where it would run, None where that cannot be told."""
    if state.recovery or state.kind in (Kind.LOADER, Kind.SINGLE):
        return 0
    # A device that swaps runs images in slot 0 alone. One that does not tell its mode is taken for what the files are
    # for: if it swaps all the same, the old image comes back.
    if state.mode_known and state.kind not in (Kind.NEWEST, Kind.NEWEST_REVERT):
        return 0
    running = state.images.active(number) or state.images.active(0)  # all images of a pair run from the same side
    return None if running is None or running.slot not in (0, 1) else 1 - running.slot
