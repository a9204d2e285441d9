"""An image beside a device: what `image inspect -d` says of the two. It asks and compares, and changes nothing.

Whether an update is possible is decided by `mcumgrx dfu` alone; this says what it would have to decide on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mcumgrx.plugin_api import (
    Bootloader,
    BootloaderMode,
    Client,
    ImageFlag,
    ImageRole,
    ImageState,
    OsGroup,
    PackageImage,
    SlotInfo,
    UsageError,
    Version,
)

from .group import ImageGroup

_PATIENCE_S = 2.0

_IN_PLACE = (BootloaderMode.DIRECT_XIP, BootloaderMode.DIRECT_XIP_REVERT)
_IN_RAM = (BootloaderMode.RAM_LOAD, BootloaderMode.SINGLE_SLOT_RAM_LOAD)
_NEWEST_RUNS = (*_IN_PLACE, BootloaderMode.RAM_LOAD)


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What a device says of itself; all but the image list may be unknown."""

    images: ImageState
    slots: tuple[SlotInfo, ...] | None
    bootloader: Bootloader
    board: str | None


async def ask(client: Client) -> DeviceFacts:
    """Read what there is to compare with."""
    group, os = client.group(ImageGroup), client.group(OsGroup)
    images = await group.state()
    slots = await client.optional("slots", group.slots, _PATIENCE_S)
    bootloader = await client.optional("bootloader", os.bootloader, _PATIENCE_S)
    board = await client.optional("board", os.board, _PATIENCE_S)
    return DeviceFacts(images, slots, bootloader or Bootloader(), board)


def compared(one: PackageImage, device: DeviceFacts) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is so, and what is wrong, of this image for this device."""
    good: list[str] = []
    wrong: list[str] = []
    for part in (_board, _version, _room, _variant, _mode):
        for right, text in part(one, device):
            (good if right else wrong).append(text)
    return tuple(good), tuple(wrong)


_Found = Iterator[tuple[bool, str]]


def _board(one: PackageImage, device: DeviceFacts) -> _Found:
    if one.board is None:
        return
    if device.board is None:
        yield True, f"the device does not tell its board; the file is for {one.board}"
    elif one.is_for(device.board):
        yield True, f"the board is {device.board}, as the file says"
    else:
        yield False, f"the file is for the board {one.board}, and the device is {device.board}"


def _version(one: PackageImage, device: DeviceFacts) -> _Found:
    numbers = {slot.image for slot in device.images.slots} | {info.image for info in device.slots or ()}
    if one.number and numbers and one.number not in numbers:
        yield False, f"the device shows no image {one.number}"
        return
    hashes = {one.image.hash, *one.image.hashes_when_running}
    slots = [slot for slot in device.images.slots if slot.image == one.number]
    for slot in slots:
        if slot.hash in hashes:
            flags = [flag for flag in ("active", "confirmed", "pending", "permanent") if getattr(slot, flag)]
            yield True, f"it is in slot {slot.slot} of the device ({', '.join(flags) or 'not marked'})"
    running = next((slot for slot in slots if slot.active), None)
    if running is None or running.hash in hashes:
        return
    version = one.image.version
    try:
        old = Version.parse(running.version or "")
    except UsageError:
        return
    newest = device.bootloader.mode in _NEWEST_RUNS
    if version > old:
        yield True, f"it is newer than {old}, which runs"
    elif version < old:
        refused = ", which the bootloader refuses" if device.bootloader.no_downgrade else ""
        yield not (newest or refused), f"it is older than {old}, which runs: a downgrade{refused}"
    else:
        text = f"it has the version that runs ({old}), and is another image"
        yield not newest, text + (": this bootloader runs the newest, and does not change" if newest else "")


def _room(one: PackageImage, device: DeviceFacts) -> _Found:
    active = next((slot.slot for slot in device.images.slots if slot.image == one.number and slot.active), 0)
    target = 1 - active if active in (0, 1) else 1
    for info in device.slots or ():
        if (info.image, info.slot) == (one.number, target):
            limit = min((size for size in (info.size, info.max_image_size) if size), default=None)
            if limit is not None:
                size = f"{one.image.size:,} of {limit:,} bytes"
                fits = one.image.size <= limit
                yield fits, f"it fits slot {target}: {size}" if fits else f"it does not fit slot {target}: {size}"


def _variant(one: PackageImage, device: DeviceFacts) -> _Found:
    """Files for direct XIP are linked for one slot, and run in no other."""
    if one.slot is None or device.bootloader.mode not in _IN_PLACE:
        return
    running = next((slot.slot for slot in device.images.slots if slot.image == one.number and slot.active), None)
    if running is not None:
        other = running != one.slot
        yield other, f"it is linked for slot {one.slot}, which {'is free' if other else 'runs: take the other file'}"


def _mode(one: PackageImage, device: DeviceFacts) -> _Found:
    mode, image = device.bootloader.mode, one.image
    if one.role is ImageRole.BOOTLOADER:
        yield False, "it would replace the bootloader"
    if mode == BootloaderMode.UNKNOWN:
        return
    to_ram = ImageFlag.RAM_LOAD in image.flags
    if to_ram != (mode in _IN_RAM):
        yield False, f"it is made to run from {'RAM' if to_ram else 'flash'}, and this bootloader runs images otherwise"
    if image.rom_address is not None and mode not in _IN_PLACE:
        yield False, f"it is linked for 0x{image.rom_address:x} (direct XIP), and this bootloader runs images in slot 0"
    if image.encrypted and mode in (*_IN_PLACE, *_IN_RAM):
        yield False, "it is encrypted, and this bootloader decrypts none"
