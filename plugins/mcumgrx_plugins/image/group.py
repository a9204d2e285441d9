"""`ImageGroup`: the commands of group 1 over a client; it fills the role `mcumgrx.contracts.ImageGroup`.

When to do what is decided by the flows. Here is what one command means: what the device's answer proves, and what it
only seems to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from mcumgrx.plugin_api import (
    DeviceError,
    EraseImage,
    FlowError,
    Group,
    Image,
    ImageState,
    ImageUpload,
    MalformedReply,
    McumgrError,
    Note,
    Outcome,
    Progress,
    ReadImageState,
    ReadSlotInfo,
    RequestTimeout,
    Slot,
    SlotInfo,
    SmpError,
    StageName,
    UploadOptions,
    UploadPlan,
    UploadProgress,
    UsageError,
    WriteImageState,
    explaining,
    find_message_size,
    ignore_progress,
    upload,
    window_for,
)
from mcumgrx.plugin_api import ImageGroup as ImageRole

from .refusals import NEEDS_SIZES, Asked, Doing, refusal_hint, tells

_DEFAULTS = UploadOptions()
_DOWNGRADE = "most likely the bootloader forbids it: it refuses older versions, or the image was built for another slot"
_NO_IMAGES = "its firmware was built without CONFIG_MCUMGR_GRP_IMG; one with a firmware loader takes images only there"
_NO_MARKS = (
    "bootloaders without a test boot (direct XIP without revert, RAM load) have no marks: they boot the newest image; "
    "MCUboot's recovery takes marks if built with CONFIG_BOOT_SERIAL_IMG_GRP_IMAGE_STATE"
)
_NOT_THERE = (SmpError.NOT_SUPPORTED, SmpError.NO_ENTRY)
# MCUboot's recovery, for one.
_NO_ERASE = "an upload erases the slot by itself: erasing before is never required"
_MAYBE_MARKED = (
    "the mark may be set all the same, and nothing could be read that tells: look at the image list once the device "
    "answers again, and before a reset, which would boot what is marked"
)
_NOT_MARKED = "the image list, read afterwards, does not show the mark: try again"
_STILL_ERASING = "the device may still be erasing: wait, and allow more time with --erase-timeout"
_MAYBE_ERASED = "the slot may be erased all the same: look at the image list"
_STAYS_TEST = "reset the device so that it boots the image once, then confirm it"


class ImageGroup(Group, ImageRole):
    """Group 1 of a connected device. Every method raises the errors of `Client.request`."""

    async def state(self) -> ImageState:
        """The image list. A slot that is empty, half written or without a valid header is missing from it."""
        with explaining((_NOT_THERE, _NO_IMAGES)):
            return await self.request(ReadImageState())

    async def upload(
        self, image: Image, options: UploadOptions = _DEFAULTS, progress: Progress = ignore_progress
    ) -> UploadProgress:
        """Transfer the image into the slot that the device chooses; resumes what an earlier attempt has left.

        As many chunks are on their way as the device has buffers for besides one, and as the link allows; never more on
        a link where that does harm, whatever `options.window` says. A device that does not tell gets one at a time.
        """
        params = await self.client.params()
        await self.client.meet(ReadImageState())
        limits = self.client.limits
        window = window_for(self.client, options.window)
        if options.window is not None and window.widest < options.window:
            told = f"has {params.buf_count} buffers" if params is not None else "does not tell its buffers"
            progress(Note(f"window {window.widest} instead of {options.window}: the device {told}"))
        largest = limits.message(params.buf_size if params is not None else None)
        plan = UploadPlan(
            image.data,
            # The file's own hash, not the one in the image list: with the same one the device resumes.
            ImageUpload(sha=options.session or image.file_sha256, image=options.image, upgrade=options.upgrade_only),
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

        asked = Asked(Doing.UPLOAD, options.image, image)
        async with self._explained(asked):
            with explaining((_NOT_THERE, _NO_IMAGES)), self._remembering(plan, options.session or image.file_sha256):
                return await upload(
                    self.client,
                    plan,
                    window=window,
                    first_timeout_s=options.erase_timeout_s,
                    settled=settled,
                    progress=progress,
                    pause=options.pause,
                )

    def begun(self) -> tuple[bytes, int] | None:
        begun = self.client.profile.begun
        return None if begun.session is None else (begun.session, begun.done)

    @contextmanager
    def _remembering(self, plan: UploadPlan, session: bytes) -> Iterator[None]:
        """Where the upload inside is interrupted the device keeps its place; a refusal ends it (Zephyr)."""
        profile = self.client.profile
        profile.ends()
        try:
            yield
        except DeviceError:
            raise
        except BaseException:
            if 0 < plan.done_bytes < plan.size:
                profile.begins(session, plan.done_bytes)
            raise

    async def test(self, hash: bytes) -> ImageState:
        """Mark the image with this hash TLV to be booted once.

        Raises `FlowError` (rejected) when the device says yes but does not do it.
        """

        def marked(state: ImageState) -> bool:
            return any(slot.pending for slot in _holding(state, hash))

        async with self._explained(Asked(Doing.TEST, hash=hash)):
            state = await self._mark(WriteImageState(hash, confirm=False), marked)
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

        def concerned(state: ImageState) -> list[Slot]:
            # Without a hash it is the image of the core that answers; the primaries of others are flagged active too.
            return _running(state) if hash is None else _holding(state, hash)

        def permanent(state: ImageState) -> bool:
            return any(slot.confirmed or (slot.pending and slot.permanent) for slot in concerned(state))

        async with self._explained(Asked(Doing.CONFIRM, hash=hash)):
            state = await self._mark(WriteImageState(hash, confirm=True), permanent)
        slots = concerned(state)
        # A list without a running image is that of a device without slots; it cannot be checked.
        if not permanent(state) and (slots or hash is not None):
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

    async def _mark(self, command: WriteImageState, shown: Callable[[ImageState], bool]) -> ImageState:
        """Send the mark; the image list as it is then, which is read unless the answer has `shown` the mark.

        An answer that stays out, cannot be read or found no room says nothing of the mark (mcuboot #2807: the mark is
        set, its answer is cut). Raises what became of the answer where the list does not show the mark either.
        """
        doubt: McumgrError | None = None
        try:
            with explaining((_NOT_THERE, _NO_MARKS)):
                state = await self.request(command)
            if shown(state):
                return state
        except (RequestTimeout, MalformedReply, DeviceError) as error:
            if not error.may_be_done:
                raise
            doubt = error
        try:
            state = await self.client.request(ReadImageState(), repeats=None if self.client.answered else 0)
        except (DeviceError, RequestTimeout, MalformedReply) as error:
            (doubt or error).hint = _MAYBE_MARKED
            raise doubt or error from error
        if doubt is not None and not shown(state):
            doubt.hint = _NOT_MARKED
            raise doubt
        return state

    async def erase(self, slot: int | None = None, *, timeout_s: float = 60.0) -> bool | None:
        """Erase a slot (2 · image + slot); by default the one that is not running. It blocks the device meanwhile.

        Returns whether an image that was there is gone; False where it is still listed although the device said yes
        (zephyr #50522), None where the list does not tell.
        """
        if slot is not None and slot < 0:
            raise UsageError(f"there is no slot {slot}")
        before = await self._seen()
        try:
            async with self._explained(Asked(Doing.ERASE, slot=slot)):
                with explaining((_NOT_THERE, _NO_ERASE)):
                    await self.request(EraseImage(slot), timeout_s=timeout_s)
                    self.client.profile.ends()
        except (RequestTimeout, MalformedReply) as error:
            if not _erased(before, await self._looked_at(repeats=0), slot):
                error.hint = _STILL_ERASING if isinstance(error, RequestTimeout) else _MAYBE_ERASED
                raise
            return True
        return _erased(before, await self._looked_at(), slot)

    async def _seen(self) -> ImageState | None:
        """As `_looked_at`, of a device that answers: one that does not is asked for nothing that takes a minute."""
        try:
            return await self.state()
        except (DeviceError, MalformedReply):
            return None

    @asynccontextmanager
    async def _explained(self, asked: Asked) -> AsyncIterator[None]:
        """A refusal inside gets the hint that the device's state gives."""
        try:
            yield
        except DeviceError as error:
            if tells(error):
                images = await self._looked_at(repeats=0)
                slots = await self._sizes() if error.says(*NEEDS_SIZES) else None
                hint = refusal_hint(error, replace(asked, images=images, slots=slots))
                error.hint = hint or error.hint
            raise

    async def _sizes(self) -> tuple[SlotInfo, ...] | None:
        """The slots, or None where they are not to be had."""
        try:
            return await self.client.request(ReadSlotInfo(), timeout_s=self.client.timeout_s, repeats=0)
        except (DeviceError, RequestTimeout, MalformedReply):
            return None

    async def _looked_at(self, repeats: int | None = None) -> ImageState | None:
        """The image list, or None where none comes that can be read."""
        timeout_s = None if repeats is None else self.client.timeout_s
        try:
            return await self.client.request(ReadImageState(), timeout_s=timeout_s, repeats=repeats)
        except (DeviceError, RequestTimeout, MalformedReply):
            return None

    async def slots(self) -> tuple[SlotInfo, ...] | None:
        """The slots and their sizes, or None when the device cannot tell (before Zephyr 4.0, or not built in)."""
        try:
            return await self.request(ReadSlotInfo())
        except DeviceError as error:
            if error.says(*_NOT_THERE):
                return None
            raise


def _erased(before: ImageState | None, after: ImageState | None, slot: int | None) -> bool | None:
    """Whether an image that was in `slot` has gone; None where the two lists do not tell."""
    if after is None:
        return None
    if slot is None:
        running = _running(after)
        if not running or running[0].slot not in (0, 1):
            return None
        slot = 2 * running[0].image + 1 - running[0].slot
    if _in_slot(after, slot) is not None:
        return False
    return True if before is not None and _in_slot(before, slot) is not None else None


def _in_slot(state: ImageState, number: int) -> Slot | None:
    return next((slot for slot in state.slots if 2 * slot.image + slot.slot == number), None)


def _running(state: ImageState) -> list[Slot]:
    """The slot of the image that answers: that of image 0, where several are listed."""
    active = [slot for slot in state.slots if slot.active]
    return [slot for slot in active if slot.image == 0] or active


def _holding(state: ImageState, hash: bytes) -> list[Slot]:
    return [slot for slot in state.slots if slot.hash == hash]


def _number(slots: list[Slot]) -> int | None:
    """The slot to name in an error, counted over all images."""
    return 2 * slots[0].image + slots[0].slot if slots else None
