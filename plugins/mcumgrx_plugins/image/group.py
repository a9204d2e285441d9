"""`ImageGroup`: the commands of group 1 over a client; it fills the role `mcumgrx.contracts.ImageGroup`.

When to do what is decided by the flows. Here is what one command means: what the device's answer proves, and what it
only seems to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mcumgrx.contracts import UploadOptions
from mcumgrx.errors import FlowError, Outcome
from mcumgrx.mcuboot import Image
from mcumgrx.plugin_api import (
    DeviceError,
    Group,
    Note,
    Progress,
    RequestTimeout,
    StageName,
    UsageError,
    find_message_size,
    ignore_progress,
    upload,
    window_for,
)
from mcumgrx.protocol.message import SmpError

from .messages import (
    EraseImage,
    ImageState,
    ImageUpload,
    ReadImageState,
    ReadSlotInfo,
    Slot,
    SlotInfo,
    UploadPlan,
    UploadProgress,
    WriteImageState,
)

__all__ = ["ImageGroup"]

_DEFAULTS = UploadOptions()
_DOWNGRADE = "most likely the bootloader forbids it: it refuses older versions, or the image was built for another slot"
_NO_IMAGES = "its firmware was built without CONFIG_MCUMGR_GRP_IMG; one with a firmware loader takes images only there"
_NO_MARKS = (
    "bootloaders without a test boot (direct XIP without revert, RAM load) have no marks: they boot the newest image; "
    "MCUboot's recovery takes marks if built with CONFIG_BOOT_SERIAL_IMG_GRP_IMAGE_STATE"
)
# MCUboot's recovery, for one.
_NO_ERASE = "an upload erases the slot by itself: erasing before is never required"
_STAYS_TEST = "reset the device so that it boots the image once, then confirm it"


class ImageGroup(Group):
    """Group 1 of a connected device. Every method raises the errors of `Client.request`."""

    id = 1

    async def state(self) -> ImageState:
        """The image list. A slot that is empty, half written or without a valid header is missing from it."""
        with _hint(_NO_IMAGES):
            return await self.request(ReadImageState())

    async def upload(
        self, image: Image, options: UploadOptions = _DEFAULTS, progress: Progress = ignore_progress
    ) -> UploadProgress:
        """Transfer the image into the slot that the device chooses; resumes what an earlier attempt has left.

        As many chunks are on their way as the device has buffers for besides one, and as the link allows; never more on
        a link where that does harm, whatever `options.window` says. A device that does not tell gets one at a time.
        """
        params = await self.client.params()
        limits = self.client.limits
        window = window_for(self.client, params, options.window)
        if options.window is not None and window.widest < options.window:
            told = f"has {params.buf_count} buffers" if params is not None else "does not tell its buffers"
            progress(Note(f"window {window.widest} instead of {options.window}: the device {told}"))
        largest = limits.message(params.buf_size if params is not None else None)
        plan = UploadPlan(
            image.data,
            # The file's own hash, not the one in the image list: with the same one the device resumes.
            ImageUpload(sha=image.file_sha256, image=options.image, upgrade=options.upgrade_only),
            message_bytes=largest,
            chunk_bytes=options.chunk_bytes,
        )
        await find_message_size(self.client, largest, plan.least_bytes)

        async def settled() -> bool:
            # The answer to the last chunk is lost, and an answer "offset 0" can mean done as well as forgotten: only
            # the image list can tell. The slot that runs is no proof, it may hold the same image; and padding comes
            # behind what is needed to be listed, but shows as pending.
            slots = [slot for slot in _holding(await self.state(), image.hash) if not slot.active]
            return any(slot.pending or not image.padded for slot in slots)

        with _hint(_NO_IMAGES):
            return await upload(
                self.client,
                plan,
                window=window,
                first_timeout_s=options.erase_timeout_s,
                settled=settled,
                progress=progress,
                pause=options.pause,
            )

    async def test(self, hash: bytes) -> ImageState:
        """Mark the image with this hash TLV to be booted once.

        Raises `FlowError` (rejected) when the device says yes but does not do it.
        """
        with _hint(_NO_MARKS):
            state = await self.request(WriteImageState(hash, confirm=False))
        slots = _holding(state, hash)
        if not any(slot.pending for slot in slots):
            raise FlowError(
                "the device took the request, but has not marked the image for the next boot",
                stage=StageName.MARK,
                outcome=Outcome.REJECTED,
                slot=_number(slots),
                hint=_DOWNGRADE,
            )
        return state

    async def confirm(self, hash: bytes | None = None) -> ImageState:
        """Make the image with this hash permanent; without a hash, the running one.

        Raises `FlowError` (not confirmed) when the device says yes but does not do it.
        """
        with _hint(_NO_MARKS):
            state = await self.request(WriteImageState(hash, confirm=True))
        if hash is None:
            slots = [slot for slot in state.slots if slot.active]
            # An answer without a running image is that of a device without slots; it cannot be checked.
            done = not slots or any(slot.confirmed for slot in slots)
        else:
            slots = _holding(state, hash)
            done = any(slot.confirmed or (slot.pending and slot.permanent) for slot in slots)
        if not done:
            # MCUboot's recovery says yes to this and keeps the test as it was.
            stays_test = any(slot.pending for slot in slots)
            raise FlowError(
                "the device took the request, but has not made the image permanent"
                + (": it is still marked for one boot only" if stays_test else ""),
                stage=StageName.CONFIRM,
                outcome=Outcome.NOT_CONFIRMED,
                slot=_number(slots),
                hint=_STAYS_TEST if stays_test else _DOWNGRADE,
            )
        return state

    async def erase(self, slot: int | None = None, *, timeout_s: float = 60.0) -> None:
        """Erase a slot (2 · image + slot); by default the one that is not running. It blocks the device meanwhile."""
        if slot is not None and slot < 0:
            raise UsageError(f"there is no slot {slot}")
        try:
            with _hint(_NO_ERASE):
                await self.request(EraseImage(slot), timeout_s=timeout_s)
        except RequestTimeout as error:
            error.hint = "the device may still be erasing: wait, and allow more time with --erase-timeout"
            raise

    async def slots(self) -> tuple[SlotInfo, ...] | None:
        """The slots and their sizes, or None when the device cannot tell (before Zephyr 4.0, or not built in)."""
        try:
            return await self.request(ReadSlotInfo())
        except DeviceError as error:
            if _not_supported(error):
                return None
            raise


@contextmanager
def _hint(text: str) -> Iterator[None]:
    """What raises "not supported" inside gets this hint."""
    try:
        yield
    except DeviceError as error:
        if _not_supported(error):
            error.hint = text
        raise


def _holding(state: ImageState, hash: bytes) -> list[Slot]:
    return [slot for slot in state.slots if slot.hash == hash]


def _number(slots: list[Slot]) -> int | None:
    """The slot to name in an error, counted over all images."""
    return 2 * slots[0].image + slots[0].slot if slots else None


def _not_supported(error: DeviceError) -> bool:
    return error.group is None and error.rc in (SmpError.NOT_SUPPORTED, SmpError.NO_ENTRY)
