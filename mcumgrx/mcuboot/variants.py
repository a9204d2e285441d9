"""Files of one image that are linked for its two slots, told apart by where their code is to run."""

from __future__ import annotations

from dataclasses import replace

from mcumgrx.mcuboot.header import ImageFlag
from mcumgrx.mcuboot.image import Image
from mcumgrx.mcuboot.package import PackageImage

__all__ = ["as_pair", "linked_at"]


def linked_at(image: Image) -> int | None:
    """An address in the slot that an image is linked for: the slot's own (`imgtool --rom-fixed`), or that of its code.

    None where nothing tells, or where it runs from RAM. Builds before `--rom-fixed` tell it by the vector table alone.
    """
    if ImageFlag.RAM_LOAD in image.flags:
        return None
    return image.reset_vector if image.rom_address is None else image.rom_address


def as_pair(one: PackageImage, two: PackageImage) -> tuple[PackageImage, PackageImage] | None:
    """Two files for one image as those of its slots, slot 0 first; None where they are not.

    What the files do not say by their slots follows from their addresses: slots do not overlap, and the lower one is
    slot 0.
    """
    if None not in (one.slot, two.slot):
        return None if one.slot == two.slot else (one, two) if one.slot == 0 else (two, one)
    first, second = linked_at(one.image), linked_at(two.image)
    if first is None or second is None or one.image.version != two.image.version:
        return None
    if abs(first - second) < max(one.image.content_size, two.image.content_size):
        return None
    lower, upper = (one, two) if first < second else (two, one)
    return replace(lower, slot=0), replace(upper, slot=1)
