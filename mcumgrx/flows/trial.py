"""The end of a trial: the running image is kept, or a reset goes back to the one before it.

Both are proven by the image list. `plan` decides which, for an image that is not the one to be installed; `health` goes
back from one that is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from ..contracts import Connection, ImageGroup
from ..errors import FlowError, LinkLost, Outcome, RequestTimeout, WrongDevice
from ..events import StageName
from ..hints import Hint, Run
from ..messages.standard import ImageState
from .device_state import in_recovery, shown_version
from .job import Job
from .link import PAUSE_S, NoReturn, now
from .plan import GoBack, Keep, Mark
from .proof import QUIET_S, Confirming, Proving
from .steps import Marking, Resetting, Work
from .verdict import Target, in_words

__all__ = ["GoingBack", "Keeping", "Staying"]


class Keeping:
    """The confirmation of an image that runs on trial, whatever it is."""

    def __init__(self, job: Job, target: Target, step: Keep) -> None:
        self._job = job
        self._target = target
        self._step = step

    async def run(self) -> None:
        job, version = self._job, self._step.version
        with job.stage(StageName.CONFIRM, f"confirming {version}") as stage:
            await job.link.run(self.over)
            running = self._target.active(await job.list())
            if running is None or not running.confirmed:
                raise FlowError(
                    f"{version} runs on trial, and could not be confirmed; nothing else was done",
                    stage=StageName.CONFIRM,
                    outcome=Outcome.NOT_CONFIRMED,
                    hint=Hint("what the device says of it shows ", Run("image list")),
                )
            job.old[self._target.number] = running
            stage.result = f"{shown_version(running.version)} is confirmed"

    async def over(self, connection: Connection) -> None:
        self._job.listed = None
        try:
            self._job.listed = await connection.group(ImageGroup).confirm(self._step.hash)
        except RequestTimeout as error:
            raise LinkLost(error.message, address=self._job.device.address, hint=error.hint) from error


class GoingBack:
    """The reset that ends a trial, and the proof that what ran before it runs again, for good.

    Once more where it has not arrived, or has led into the bootloader's recovery. `steps` say what comes back, by the
    numbers of the images; `why` begins what is told of a failure.
    """

    def __init__(self, job: Job, steps: Mapping[int, GoBack], why: str = "") -> None:
        self._job = job
        self._steps = steps
        self.old = self._in_words(steps, [step.version for step in steps.values()])
        self._run = "runs" if len(steps) == 1 else "run"
        self._why = f"{why}; " if why else ""

    async def run(self) -> None:
        job, old = self._job, self.old
        for last in (False, True):
            await Resetting(job).run()
            most = f"{job.policy.boot_timeout_s:g} s"
            with job.stage(StageName.RETURN, f"waiting for {old} to return, for up to {most}") as stage:
                images = job.listed = await self._decided()
                if all(self._is_back(images, number) for number in self._steps):
                    job.old.update({number: images.active(number) for number in self._steps})
                    stage.result = f"{old} {self._run} again, confirmed"
                    return
                if last or not self._is_worth_another(images):
                    raise self._failed(images)
                stage.result = f"{old} is not back, so once more"

    def _is_back(self, images: ImageState, number: int) -> bool:
        slot, hash = images.active(number), self._steps[number].hash
        return slot is not None and slot.confirmed and slot.hash == hash

    async def _decided(self) -> ImageState:
        """The list once the old image runs, or the last one when that takes long."""
        job = self._job
        until_s = job.link.reset_at_s + job.policy.grace_s
        while True:
            try:
                images = await job.link.hear()
            except (NoReturn, WrongDevice) as error:
                raise self._gone(error) from error
            runs = images.active(job.target.number) is not None or in_recovery(images)
            if (runs and images.slots != job.before.slots) or job.device.restarted or now() >= until_s:
                return images
            await asyncio.sleep(PAUSE_S)

    def _is_worth_another(self, images: ImageState) -> bool:
        job = self._job
        if in_recovery(images) and not in_recovery(job.before):
            # A request in the bootloader's wait window holds it there, so the next one comes later.
            job.link.quiet_s = 3 * (QUIET_S if job.policy.quiet_s is None else job.policy.quiet_s)
            return True
        return images.slots == job.before.slots and not job.device.restarted

    def _failed(self, images: ImageState) -> FlowError:
        left = {number: step for number, step in self._steps.items() if not self._is_back(images, number)}
        active = [images.active(number) for number in left]
        runs = ["nothing known" if slot is None else shown_version(slot.version) for slot in active]
        still = runs == [step.trial for step in left.values()] and not any(slot and slot.confirmed for slot in active)
        others = len({slot.image for slot in images.slots}) > 1
        outcome, hint = Outcome.OTHER_IMAGE, Hint("what is in the slots shows ", Run("image list"))
        if still and others:  # after as many resets as there are; none of an image alone outlasts one
            outcome, hint = Outcome.FROZEN, _frozen(next(iter(left)))
        if still and self._why:
            outcome = Outcome.UNHEALTHY
        run = "runs" if len(left) == 1 else "run"
        return FlowError(
            f"{self._why}after the reset {self._in_words(left, runs)}{' still' if still else ''} {run}, and not "
            f"{self._in_words(left, [step.version for step in left.values()])}",
            stage=StageName.RETURN,
            outcome=outcome,
            hint=hint,
        )

    def _in_words(self, numbers: Iterable[int], versions: Iterable[str]) -> str:
        if len(self._steps) == 1:
            return in_words(versions)
        return in_words(f"{version} of image {number}" for number, version in zip(numbers, versions, strict=True))

    def _gone(self, error: Exception) -> FlowError:
        most = self._job.policy.boot_timeout_s
        what = (
            "another device has come" if isinstance(error, WrongDevice) else f"it does not answer, {most:g} s after it"
        )
        return FlowError(
            f"{self._why}no sign of {self.old}: the device was reset to go back to it, and {what}",
            stage=StageName.RETURN,
            outcome=Outcome.NO_RETURN,
            hint="a swap can take minutes: raise --boot-timeout; or look at the device's log",
        )


def _frozen(number: int) -> Hint:
    return Hint(
        f"image {number} stays on trial over every reset: another image waits, or needs what runs (a dependency). Keep "
        "it with --if-unconfirmed confirm, or remove what waits; ",
        Run("image list"),
        " shows it",
    )


class Staying:
    """The confirmation of several images or, where it is refused: back, marks for good, reset and proof again.

    Most devices let only its own application confirm the image of another core (Zephyr's default). So nothing stays
    that has not been proven to run, and at no time do old and new ones run beside each other.
    """

    def __init__(self, job: Job, before: Work) -> None:
        self._job = job
        self._before = before

    async def run(self) -> None:
        job = self._job
        confirming = Confirming(job, self._before, or_mark=True)
        await confirming.run()
        if confirming.refused:
            with job.folded(StageName.CONFIRM, f"going back, to mark {job.new} to stay") as stage:
                await self._go_round()
                stage.result = f"{job.runs}, and stay by their marks"

    async def _go_round(self) -> None:
        job = self._job
        images = await job.list()
        back: dict[int, GoBack] = {}
        for number, target in job.targets.items():
            old = images.other(number)
            assert old is not None  # both were looked at before
            assert old.hash is not None
            back[number] = GoBack(shown_version(old.version), old.hash, target.version)
        await GoingBack(job, back).run()
        images = await job.list()
        lost = [target.name for target in job.targets.values() if target.staged(images) is None]
        if lost:
            raise FlowError(
                f"{job.new} have run, but the device does not list {in_words(lost)} any more: nothing is marked",
                stage=StageName.MARK,
                outcome=Outcome.NOT_CONFIRMED,
                hint="--mode confirm-only uploads them once more, and makes them permanent before they run",
            )
        await Marking(job, [(target, Mark(permanent=True)) for target in reversed(job.targets.values())]).run()
        await Resetting(job).run()
        await Proving(job).run()
