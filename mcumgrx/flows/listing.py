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
    if images.split_status is not None or not any(slot.active for slot in images.slots):
        return images
    if not await _in_recovery(connection):
        return images
    return replace(images, slots=tuple(replace(slot, active=False, confirmed=False) for slot in images.slots))


async def _has_loader(connection: Connection) -> bool:
    told = await connection.optional("bootloader", connection.group(OsGroup).bootloader, _PATIENCE_S)
    return told is not None and told.mode == BootloaderMode.FIRMWARE_LOADER


async def _in_recovery(connection: Connection) -> bool:
    return bool(await connection.optional("recovery", connection.group(OsGroup).in_recovery, _PATIENCE_S))
