"""The image list of whatever answers: an application, or MCUboot's serial recovery, in which nothing runs.

The recovery's list mostly has no flags, and is known by that (`device_state.in_recovery`). One built with
`BOOT_SERIAL_IMG_GRP_IMAGE_STATE` flags what would run as active, as an application does; but it takes a setting of the
console's echo, which no application of Zephyr does, and has no `splitStatus`, which those of Mynewt have. Here such a
list loses the flags that are not true, so that all who read lists can go by them.

An application beside a firmware loader mostly has no list at all, and is known by the bootloader's mode.
"""

from __future__ import annotations

from dataclasses import replace

from ..contracts import Connection, ImageGroup, OsGroup
from ..errors import DeviceError
from ..messages.standard import BootloaderMode, ImageState
from ..protocol.codes import SmpError
from .device_state import UNLISTED

__all__ = ["NO_LIST", "NO_LIST_CODES", "image_list"]

NO_LIST = ImageState(())
"""Of a recovery that answers and has no image list. An empty list is another object."""

NO_LIST_CODES = (SmpError.NOT_SUPPORTED, SmpError.NO_ENTRY)
"""With which a server says that it has no image list."""

# For the question who answers, of a device that has just answered another one.
_PATIENCE_S = 1.0


async def image_list(connection: Connection) -> ImageState:
    """The image list, without flags of what runs where that is nothing. Raises what `ImageGroup.state` raises."""
    try:
        images = await connection.group(ImageGroup).state()
    except DeviceError as error:
        if not error.says(*NO_LIST_CODES):
            raise
        if await _in_recovery(connection):
            return NO_LIST
        if await _has_loader(connection):
            return UNLISTED
        raise
    if not any(slot.active for slot in images.slots):
        return images
    if images.split_status is not None or not await _in_recovery(connection):
        return _with_other_images(images)
    return replace(images, slots=tuple(replace(slot, active=False, confirmed=False) for slot in images.slots))


def _with_other_images(images: ImageState) -> ImageState:
    """The list, of servers that flag what runs of image 0 alone, as newer ones give it (`img_mgmt_state_flags`).

    What is listed in slot 0 of another image runs, and for good but where the other slot is the one to go back to.
    """
    flagged = {slot.image for slot in images.slots if slot.active}
    there = [slot for slot in images.slots if slot.slot == 0 and slot.image not in flagged]
    for slot in there:
        on_trial = any(other.confirmed for other in images.slots if (other.image, other.slot) == (slot.image, 1))
        runs = replace(slot, active=True, confirmed=slot.confirmed or not on_trial)
        images = replace(images, slots=tuple(runs if one is slot else one for one in images.slots))
    return images


async def _has_loader(connection: Connection) -> bool:
    told = await connection.optional("bootloader", connection.group(OsGroup).bootloader, _PATIENCE_S)
    return told is not None and told.mode == BootloaderMode.FIRMWARE_LOADER


async def _in_recovery(connection: Connection) -> bool:
    return bool(await connection.optional("recovery", connection.group(OsGroup).in_recovery, _PATIENCE_S))
