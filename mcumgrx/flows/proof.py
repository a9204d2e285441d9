"""The steps after the reset: wait for the return, prove that the new image runs, confirm it.

* After a reset only the image list decides, and in it only the hash of the active slot. What it means is `verdict`'s.
* The running image is confirmed without naming a hash, after it was seen to be the new one: by hash one could confirm
  an image that has already failed and lies in the other slot. Without a hash it is image 0 that is meant, always; so
  the image of another core is confirmed by the hash that was seen to run, or not at all.
"""

from __future__ import annotations

import asyncio

from ..contracts import Connection, ImageGroup
from ..errors import (
    DeviceError,
    DeviceNotFound,
    FlowError,
    LinkLost,
    McumgrError,
    Outcome,
    ProtocolError,
    RequestTimeout,
    TransportError,
    WrongDevice,
)
from ..events import StageName
from ..hints import Hint, Run
from ..messages.standard import ImageState
from .device_state import shown_version
from .job import Job
from .link import PAUSE_S, NoReturn, now
from .steps import Resetting, Work
from .verdict import Finding, in_words

__all__ = ["QUIET_S", "Confirming", "Proving"]

# The silence after a reset that is tripled when the bootloader's recovery has answered, where none is given.
QUIET_S = 3.0

# After a second reset, in place of `DfuPolicy.grace_s`: one that comes late has come by then.
_SECOND_GRACE_S = 5.0


class Proving:
    """The proof, with another reset where the first one has not arrived, or has led into the bootloader's recovery."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._recovery_left = False
        self._reset_repeated = False

    async def run(self) -> None:
        job = self._job
        while True:
            images = await self._await_return()
            with job.stage(StageName.PROVE, f"proving that {job.runs}") as stage:
                images, found = await self._decided(images)
                job.listed = images
                if found is Finding.RUNS:
                    stage.result = self._proven(images)
                    return
                if found is Finding.RECOVERY:
                    stage.result = self._leave_recovery()
                elif found is Finding.WAITING and not self._reset_repeated and not job.device.restarted:
                    self._reset_repeated = True
                    stage.result = "nothing has changed: the reset may not have reached the device, so once more"
                else:
                    raise job.failed(images)
            await Resetting(job, again=True).run()

    def _proven(self, images: ImageState) -> str:
        """What runs now; what is never listed can only be seen to have left its slot."""
        if self._job.link.inferred:
            return f"the application answers, and no other than {self._job.new} can run; it lists no images itself"
        shown = [target.name for target in self._job.targets.values() if target.running(images) is not None]
        unseen = [target.name for target in self._job.targets.values() if target.running(images) is None]
        told = f"{in_words(shown)} run{'s' if len(shown) == 1 else ''}"
        return f"{told}; {in_words(unseen)} left the slot" if unseen else told

    async def _await_return(self) -> ImageState:
        """The image list of a device that has been reset."""
        most = f"{self._job.policy.boot_timeout_s:g} s"
        with self._job.stage(StageName.RETURN, f"waiting for the device to return, for up to {most}") as stage:
            images = await self._hear()
            stage.result = "it answers again"
        return images

    async def _decided(self, images: ImageState) -> tuple[ImageState, Finding]:
        """The list once it says what has become of the update, and what it says; or the last one when that takes long.

        The old application may answer for a while, until the reset comes.
        """
        job = self._job
        grace_s = min(job.policy.grace_s, _SECOND_GRACE_S) if self._reset_repeated else job.policy.grace_s
        until_s = job.link.reset_at_s + grace_s
        told = False
        while True:
            found = job.verdict(images).finding
            on_its_way = found is Finding.COMING or (found is Finding.WAITING and not job.device.restarted)
            if not on_its_way or now() >= until_s:
                return images, found
            if not told:
                told = True
                job.note(
                    f"{job.new} {job.does} not run yet; waiting {until_s - now():.0f} s for the reset to take effect"
                )
            await asyncio.sleep(PAUSE_S)
            images = await self._hear()

    async def _hear(self) -> ImageState:
        try:
            return await self._job.link.hear()
        except NoReturn as error:
            raise self._no_return(error.reason) from error.reason
        except WrongDevice as error:
            raise FlowError(
                f"no sign of {self._job.new}: {error}",
                stage=StageName.RETURN,
                outcome=Outcome.NO_RETURN,
                hint="the device that was updated is not there any more: find it, and run the same command for it",
            ) from error

    def _leave_recovery(self) -> str:
        if self._recovery_left:
            raise FlowError(
                "the application does not return: the bootloader's serial recovery answers, even after another reset",
                stage=StageName.PROVE,
                outcome=Outcome.NO_RETURN,
                hint="is a button or pin held that asks for recovery? Otherwise there is no image that can run",
            )
        # A request in the bootloader's wait window holds it there, so the next one comes later.
        self._recovery_left = True
        given_s = self._job.policy.quiet_s
        self._job.link.quiet_s = quiet_s = 3 * (QUIET_S if given_s is None else given_s)
        return (
            f"the bootloader's serial recovery answers: resetting once more, with {quiet_s:g} s of silence afterwards"
        )

    def _no_return(self, reason: Exception) -> FlowError:
        job = self._job
        ran = [shown_version(slot.version) for slot in job.old.values() if slot is not None]
        old = f" (ran {in_words(ran)} before)" if ran else ""
        what = "does not answer" if isinstance(reason, TimeoutError) else f"has not returned: {reason}"
        hint = "a swap can take minutes: raise --boot-timeout; or look at the device's log. "
        hint += "The same command again tells how it ended"
        if isinstance(reason, DeviceNotFound) and reason.hint:
            hint += f". The link: {reason.hint}"  # what was seen in its place, perhaps
        return FlowError(
            f"no sign of {job.new}{old}: {job.policy.boot_timeout_s:g} s after its reset the device {what}",
            stage=StageName.RETURN,
            outcome=Outcome.NO_RETURN,
            hint=hint,
        )


class Confirming:
    """The confirmation of what was seen to run: of all images or, where one cannot be confirmed, of none.

    `before`: the last look at them. `or_mark`: that a device refuses it, and leaves all on trial, is no failure then
    but `refused`.
    """

    def __init__(self, job: Job, before: Work | None = None, *, or_mark: bool = False) -> None:
        self._job = job
        self._before = before
        self._or_mark = or_mark
        self.refused = False
        self._reason: McumgrError | None = None  # what the device made of it

    async def run(self) -> None:
        job = self._job
        be = "is" if len(job.targets) == 1 else "are"
        with job.stage(StageName.CONFIRM, f"confirming {job.new}") as stage:
            if job.confirmed:
                stage.result = f"{job.new} {be} confirmed already"
                return
            if self._before is not None:
                await self._before.run()
            try:
                await job.link.run(self.over)
            except (DeviceError, TransportError, ProtocolError) as error:
                self._reason = error
                job.listed = None
            else:
                state = await job.list()
                if not job.all_run(state):
                    # It has been reset meanwhile. What was confirmed then was the old image, which was so before.
                    raise job.failed(state)
            if not job.confirmed:
                self.refused = self._or_mark and isinstance(self._reason, DeviceError) and await self._all_on_trial()
                if not self.refused:
                    raise self._unconfirmed() from self._reason
                stage.result = "refused: the device lets only its own application confirm another core's image"
                return
            stage.result = f"{job.new} {be} confirmed"

    async def _all_on_trial(self) -> bool:
        """All run unconfirmed, and each has one that it would go back to."""
        images = await self._job.list()
        for target in self._job.targets.values():
            running, old = target.running(images), images.other(target.number)
            if running is None or running.confirmed or old is None or old.hash is None:
                return False
        return True

    async def over(self, connection: Connection) -> None:
        job = self._job
        images = connection.group(ImageGroup)
        state = await images.state() if job.listed is None else job.listed
        job.listed = None
        try:
            # The application's image comes last: what a device refuses is the confirmation of another core's image.
            # Of a set with a manifest that is confirmed which has it, and with it all.
            owner = [target for target in job.targets.values() if target.image.manifest is not None]
            for target in owner or [*job.targets.values()][::-1]:
                running = target.running(state)
                if running is None or running.confirmed:
                    continue
                try:
                    state = await images.confirm(running.hash if target.number else None)
                except FlowError as error:
                    self._reason = error
                if not target.confirmed(state):
                    state = await images.state()
                if not target.confirmed(state) or not job.all_run(state):
                    break
        except RequestTimeout as error:
            raise LinkLost(error.message, address=job.device.address, hint=error.hint) from error
        job.listed = state

    def _unconfirmed(self) -> FlowError:
        job = self._job
        because = "" if self._reason is None else f" ({self._reason})"
        hint: str = (
            "run the same command again before the device is reset: it goes on from here; "
            "a reset goes back to the old image"
        )
        if isinstance(self._reason, DeviceError) and any(job.targets):
            hint = (
                "most devices let only its own application confirm an image of another core; a reset goes back to the "
                "old one. --mode confirm-only makes it permanent before it has run"
            )
            if len(job.targets) > 1:
                hint = Hint(
                    "most devices let only its own application confirm an image of another core. Go back with ",
                    Run("os reset"),
                    ", and run the same command again with --mode confirm-only: the new images have been seen to run, "
                    "are still in the device, and become permanent without a confirmation",
                )
        return FlowError(
            f"{job.runs}, but could not be confirmed{because}",
            stage=StageName.CONFIRM,
            outcome=Outcome.NOT_CONFIRMED,
            hint=hint,
        )
