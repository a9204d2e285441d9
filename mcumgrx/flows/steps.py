"""The steps of an update up to the reset: erase, upload, mark, reset. What comes after it is in `proof`.

Each is a small object: `run` is the step, and `over` the part of it that is begun again over each new link, when one
is lost on the way.

* What a device says it has done is looked up; what it did not answer, too.
* A reset whose answer is missing or makes no sense has happened, until the list shows the contrary for some time.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Protocol

from ..contracts import Connection, ImageGroup, OsGroup, UploadOptions
from ..errors import DeviceError, FlowError, LinkLost, MalformedReply, Outcome, ProtocolError, RequestTimeout
from ..events import Bytes, Event, StageName
from ..hints import Hint, Run
from ..messages.standard import ImageState
from ..protocol.codes import SmpError
from .device_state import in_recovery
from .job import Job, Running
from .listing import NO_LIST, image_list
from .plan import Erase, Mark, Upload
from .policy import Mode
from .preference import not_preferred
from .verdict import Target, in_words

__all__ = ["Erasing", "Marking", "Resetting", "Uploading", "Work"]


class Work(Protocol):
    """A step that can be carried out."""

    async def run(self) -> None: ...


class Erasing:
    def __init__(self, job: Job, target: Target, step: Erase) -> None:
        self._job = job
        self._number = target.number
        self._slot = step.slot

    async def run(self) -> None:
        job = self._job
        most = f"{job.policy.erase_timeout_s:g} s"
        with job.stage(StageName.ERASE, f"erasing, which can take a minute; waiting for up to {most}") as stage:
            job.listed = None
            job.sessions[self._number] = secrets.token_bytes(16)  # so that an upload from before is not gone on with
            try:
                gone = await job.link.run(self.over)
            except DeviceError as error:
                if not error.says(SmpError.NOT_SUPPORTED):
                    raise
                stage.result = "not erased: the device knows no such command, and erases during the upload"
                return
            if gone is False:
                stage.result = "not erased, although the device says so: its image is still listed"
                job.note("the erase has had no effect; the upload erases by itself", warning=True)
            else:
                stage.result = "erased" if gone else "erased, says the device"

    async def over(self, connection: Connection) -> bool | None:
        return await connection.group(ImageGroup).erase(self._slot, timeout_s=self._job.policy.erase_timeout_s)


class Uploading:
    def __init__(self, job: Job, target: Target, step: Upload) -> None:
        self._job = job
        self._target = target
        self._slot = step.slot
        self._in_place = step.in_place
        self._farthest = 0
        self._attempts = 0
        self._last: Bytes | None = None

    async def run(self) -> None:
        job = self._job
        with job.stage(StageName.UPLOAD, f"uploading {self._target.name}") as stage:
            job.listed = None
            await job.link.run(self.over)
            await self._check(stage)

    async def over(self, connection: Connection) -> None:
        images, job = connection.group(ImageGroup), self._job
        self._attempts += 1
        if self._in_place:
            await self._check_recovery(connection)
        # The link may have been lost with the answer to the last chunk; a new upload would begin with an erase.
        if self._attempts > 1 and self._is_there(await image_list(connection)):
            return
        started_at, self._last = self._farthest, None
        try:
            await images.upload(self._target.image, self._options, self._listen)
        except RequestTimeout as error:
            # On a link that cannot be lost, silence is all there is to see of it. Bounded by what got through.
            if self._farthest == started_at:
                raise
            raise LinkLost(error.message, address=job.device.address, hint=error.hint) from error
        except MalformedReply as error:
            # It may have been the answer to the last chunk.
            if not self._is_there(await image_list(connection)):
                raise
            job.note(f"{error}; but the image is listed")
        finally:
            job.sent.add(self._last)

    @property
    def _options(self) -> UploadOptions:
        job, policy = self._job, self._job.policy
        return UploadOptions(
            job.upload_numbers.get(self._target.number, self._target.number),
            policy.erase_timeout_s,
            policy.chunk_bytes,
            policy.window,
            policy.upgrade_only and not job.loader,  # which would compare it with itself
            job.pause,
            job.sessions.get(self._target.number),
        )

    async def _check_recovery(self, connection: Connection) -> None:
        """Whether the recovery still answers: the newest ones leave when nobody has asked for a while."""
        if await connection.group(OsGroup).in_recovery() or in_recovery(await image_list(connection)):
            return
        raise FlowError(
            "the bootloader's serial recovery was left: an application answers",
            stage=StageName.UPLOAD,
            slot=self._slot,
            hint="run the same command again, with --recovery: it returns to the recovery, and begins anew",
        )

    def _is_there(self, images: ImageState) -> bool:
        # Padding comes behind what is needed to be listed, but once it is there it shows as pending.
        staged = self._target.staged(images)
        return staged is not None and (staged.pending or not self._target.image.padded)

    def _listen(self, event: Event) -> None:
        if isinstance(event, Bytes):
            self._last = event
            if event.done > self._farthest:
                self._farthest = event.done
                self._job.link.failures = 0
        self._job.progress(event)

    async def _check(self, stage: Running) -> None:
        """Whether the device lists what it has taken."""
        job, target, new = self._job, self._target, self._target.name
        try:
            images = await job.list()
        except (DeviceError, RequestTimeout, ProtocolError) as error:
            if job.policy.mode is not Mode.UPLOAD_ONLY:
                marked = "its padding marks it" if target.image.padded else "nothing is marked"
                error.hint = Hint(f"the upload is complete, and {marked}; ", error.hint or "try again")
                raise
            stage.result = f"{new} is in slot {self._slot}, says the device; not checked: {error}"
            return
        staged = target.staged(images)
        if staged is not None:
            stage.result = f"{new} is in slot {staged.slot}"
        elif self._in_place:
            stage.result = self._unlisted(images)
        elif any(slot.hash is not None for slot in images.slots):
            raise FlowError(
                f"the upload of {new} is complete, but the device does not list it",
                stage=StageName.UPLOAD,
                slot=self._slot,
                hint=Hint(
                    "was it written to another slot (see ",
                    Run("image list"),
                    "), or is it signed in a way that the device cannot read?",
                ),
            )
        else:
            stage.result = f"{new} is in slot {self._slot}, unchecked: the device lists no hashes"

    def _unlisted(self, images: ImageState) -> str:
        """A recovery lists what has a good signature, with its hash unless it was built without."""
        number, new = self._target.number, self._target.name
        there = [slot for slot in images.slots if (slot.image, slot.slot) == (number, self._slot)]
        if images is NO_LIST or number or any(slot.hash is None for slot in there):
            return f"{new} is in slot {self._slot}, says the device, which lists no hash of it"
        raise FlowError(
            f"the recovery has taken {new}, and does not list it: the bootloader would not start it",
            stage=StageName.UPLOAD,
            outcome=Outcome.REJECTED,
            slot=self._slot,
            hint="no application is left that runs. Bring a file that is signed with the key of this bootloader, and "
            "built for this board",
        )


class Marking:
    """The marks, of images that have none already, in their order."""

    def __init__(self, job: Job, steps: Sequence[tuple[Target, Mark]]) -> None:
        self._job = job
        self._steps = steps
        self._reason: FlowError | None = None  # what the device made of it

    async def run(self) -> None:
        job = self._job
        told = in_words(f"{target.name} {_how(step)}" for target, step in self._steps)
        with job.stage(StageName.MARK, f"marking {told}") as stage:
            try:
                await job.link.run(self.over)
            except DeviceError as error:
                if any(step.required for _, step in self._steps) or not error.says(SmpError.NOT_SUPPORTED):
                    raise
                stage.result = "not marked: the device knows no marks"
                return
            images = await job.list()
            await self._undo(images)
            results = [self._result(target, step, images) for target, step in self._steps]
            if len(self._steps) > 1:
                results = [f"{target.name} {text}" for (target, _), text in zip(self._steps, results, strict=True)]
            stage.result = "; ".join(results)

    async def _undo(self, images: ImageState) -> None:
        """Erase what is not newer and was only tried, where the device has not taken its mark."""
        for target, step in self._steps:
            if step.undo is not None and target.pending(images) is None:
                raise await not_preferred(self._job, target, step.undo) from self._reason

    def _result(self, target: Target, step: Mark, images: ImageState) -> str:
        pending = target.pending(images)
        if pending is None:
            raise FlowError(
                f"the device took the mark for {target.name}, but does not show it",
                stage=StageName.MARK,
                outcome=Outcome.REJECTED,
                hint=Hint("it may forbid this version (downgrade prevention); see ", Run("image list")),
            ) from self._reason
        if step.permanent and not pending.permanent:
            return "marked for a test boot, to be confirmed once it runs"
        if target.image.pad_confirmed and pending.permanent and not step.permanent:
            return "marked to stay, by the padding of the file"
        return f"marked {_how(step)}"

    async def over(self, connection: Connection) -> None:
        job = self._job
        images = connection.group(ImageGroup)
        state = await images.state() if job.listed is None else job.listed
        job.listed = None
        for target, step in self._steps:
            if target.pending(state) is not None:
                continue
            hash = target.image.hash
            try:
                state = await (images.confirm(hash) if step.permanent else images.test(hash))
            except FlowError as error:
                self._reason = error
            if target.pending(state) is None:
                state = await images.state()
            if target.pending(state) is None:
                break  # the ones after it stay as they are
        job.listed = state


def _how(step: Mark) -> str:
    return "to stay" if step.permanent else "for a test boot"


class Resetting:
    """The reset: asked for once, and once more after a lost link that the device has not followed."""

    def __init__(self, job: Job, *, again: bool = False, boot_mode: int | None = None) -> None:
        self._job = job
        self._again = again  # the same one, so that what was listed before it is known already
        self._boot_mode = boot_mode
        self._asked = False

    async def run(self) -> None:
        job = self._job
        with job.stage(StageName.RESET, "resetting") as stage:
            if not self._again:
                job.before = await job.list()
            await job.link.run(self.over)
            job.resets += 1
            job.listed = None
            job.link.has_reset()
            stage.result = "the device restarts"

    async def over(self, connection: Connection) -> None:
        job = self._job
        # Never for a device that it has reached: that would end a test boot.
        if self._asked and (await image_list(connection)).slots != job.before.slots:
            return
        self._asked = True
        job.device.expect_reset()
        try:
            await connection.group(OsGroup).reset(boot_mode=self._boot_mode)
        except (RequestTimeout, MalformedReply):
            return  # the device is gone, which is what was asked for; if not, its list tells
        except DeviceError as error:
            if self._boot_mode is not None:
                raise
            be = "is" if len(job.targets) == 1 else "are"
            waits = f"{job.new} {be} installed by the next reset, whatever causes it"
            error.hint = Hint(waits, *(("; ", error.hint) if error.hint else ()))
            raise
