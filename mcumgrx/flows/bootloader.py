"""The proof that the bootloader itself was replaced: it tells from which of its two slots it runs."""

from __future__ import annotations

import asyncio

from ..contracts import Connection, OsGroup
from ..errors import FlowError, Outcome, WrongDevice
from ..events import StageName
from ..hints import Hint, Run
from ..messages.standard import ImageState
from .job import Job
from .link import PAUSE_S, NoReturn, now
from .plan import ProveBootloader
from .steps import Resetting

__all__ = ["ProvingBootloader"]


class ProvingBootloader:
    """See the module. One more reset where it has been copied: the immutable bootloader chooses at each start."""

    def __init__(self, job: Job, step: ProveBootloader) -> None:
        self._job = job
        self._step = step
        self._repeated = False

    async def run(self) -> None:
        job, slot = self._job, self._step.slot
        while True:
            with job.stage(StageName.RETURN, "waiting for the device to return") as stage:
                images = await self._hear()
                stage.result = "it answers again"
            with job.stage(StageName.PROVE, f"proving that the bootloader runs from its slot {slot}") as stage:
                images, runs = await self._decided(images)
                job.listed = images
                if runs == slot:
                    stage.result = f"the bootloader {self._step.version} runs, from its slot {slot}"
                    return
                if self._repeated or job.target.staged(images) is not None:
                    raise self._not_replaced(images, runs)
                self._repeated = True
                stage.result = f"{self._step.version} has left its slot, and is to run from the next start on"
            await Resetting(job, again=True).run()

    async def _decided(self, images: ImageState) -> tuple[ImageState, int | None]:
        """The list, and where the bootloader runs; at first the answers may come from before the reset."""
        job = self._job
        until_s = job.link.reset_at_s + job.policy.grace_s
        while True:
            runs = await job.link.run(self.over)
            same = images.slots == job.before.slots and not job.device.restarted
            if runs == self._step.slot or not same or now() >= until_s:
                return images, runs
            await asyncio.sleep(PAUSE_S)
            images = await self._hear()

    async def over(self, connection: Connection) -> int | None:
        return await connection.group(OsGroup).active_b0_slot()

    async def _hear(self) -> ImageState:
        try:
            return await self._job.link.hear()
        except (NoReturn, WrongDevice) as error:
            raise FlowError(
                f"no sign of the device {self._job.policy.boot_timeout_s:g} s after its reset",
                stage=StageName.RETURN,
                outcome=Outcome.NO_RETURN,
                hint="its immutable bootloader starts the old one where the new one is not whole; one that is and does "
                "not work can only be replaced with a debugger",
            ) from error

    def _not_replaced(self, images: ImageState, runs: int | None) -> FlowError:
        staged = self._job.target.staged(images)
        where = "" if runs is None else f": it runs from its slot {runs}"
        return FlowError(
            f"the bootloader was not replaced{where}{', and the file still waits' if staged is not None else ''}",
            stage=StageName.PROVE,
            outcome=Outcome.REJECTED if staged is None else Outcome.NEVER_SWAPPED,
            hint="is it signed with the keys of the device, and newer by what its immutable bootloader counts?"
            if staged is None
            else Hint("did the device really reset? Remove it with ", Run("image erase")),
        )
