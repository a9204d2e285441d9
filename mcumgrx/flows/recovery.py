"""The steps of an update through MCUboot's serial recovery: into it, and out of it again to the new application.

* A recovery is entered by a reset that asks for it, or caught: some wait for a request at each start, for half a second
  by default, and stay for whoever asks in that time. So the device is asked again and again while it starts.
* The newest recoveries leave by themselves when nobody asks for a while (mcuboot PR#2830), so they are kept awake while
  somebody thinks about the plan, and it is looked who answers before anything is written.
* Nothing here can be taken back. What the recovery lists has a good signature; what it does not list after an upload
  the bootloader will not start.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

from ..contracts import Connection, OsGroup
from ..errors import (
    DeviceError,
    FlowError,
    MalformedReply,
    Outcome,
    PlanRefused,
    RequestTimeout,
    WrongDevice,
)
from ..events import StageName
from ..hints import Hint, Run
from ..mcuboot import Image
from ..messages.standard import ImageState, Slot
from ..protocol.codes import SmpError
from .device_state import DeviceState, in_recovery
from .job import Job
from .link import KNOCK_S, PAUSE_S, NoReturn, now
from .listing import NO_LIST
from .proof import QUIET_S
from .reading import read_device
from .recovery_plan import upload_number
from .several import make_plan
from .steps import Resetting
from .verdict import Target, in_words

__all__ = ["Entering", "Starting", "kept_awake", "meet", "take_numbers"]

# A device that is up answers at once; after so long somebody has to start it.
_NOBODY_S = 2.0

# Between two questions to a recovery that is kept awake.
_AWAKE_S = 1.0

# An application whose text shows that it is up, and that answers nothing so long, knows no SMP.
_NO_SMP_S = 10.0

_OPTIONS = (
    "to be reset into its recovery the application needs CONFIG_MCUMGR_GRP_OS_RESET_BOOT_MODE and its bootloader "
    "CONFIG_BOOT_SERIAL_BOOT_MODE, to be caught while it starts CONFIG_BOOT_SERIAL_WAIT_FOR_DFU; otherwise hold what "
    "its bootloader looks at (a button, a pin) while you reset it, and run the same command"
)


async def meet(job: Job) -> None:
    """Find out who answers; where nobody does, catch the device in its recovery while somebody starts it.

    Raises `RequestTimeout` where nobody answers in the time to boot.
    """
    begin_s = now()
    most_s = job.policy.boot_timeout_s
    told = False
    while True:
        answer = await job.link.knock(begin_s + most_s)
        if answer is not None:
            return
        if now() >= begin_s + most_s:
            raise RequestTimeout(
                f"nothing has answered for {most_s:g} s, neither a recovery nor an application",
                what="recovery",
                timeout_s=most_s,
                hint=_OPTIONS,
            )
        if not told and now() >= begin_s + _NOBODY_S:
            told = True
            job.note(f"nothing answers: reset the device now, or switch it off and on; it is asked for {most_s:g} s")


@asynccontextmanager
async def kept_awake(job: Job, state: ImageState | None) -> AsyncIterator[None]:
    """A recovery that answers is asked now and then, so that it does not leave."""
    if state is None or not in_recovery(state):
        yield
        return

    async def ask() -> None:
        while True:
            await asyncio.sleep(_AWAKE_S)
            await job.link.knock(now() + _AWAKE_S)

    asking = asyncio.ensure_future(ask())
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def take_numbers(job: Job, state: DeviceState, images: Mapping[int, Image]) -> None:
    """From now on uploads go to a recovery, which is told by these numbers what to write."""
    for number in job.targets:
        core = images[number].for_network_core
        job.upload_numbers[number] = upload_number(number, state, network_core=core)


class Entering:
    """Into the recovery, from an application that answers."""

    def __init__(self, job: Job) -> None:
        self._job = job

    async def run(self) -> None:
        job = self._job
        with job.stage(StageName.ENTER, "resetting into the bootloader's serial recovery") as stage:
            await job.link.run(self.over)
            job.resets += 1
            job.link.has_reset()
            await self._arrive()
            stage.result = "the bootloader's serial recovery answers"
        state = await job.link.run(partial(read_device, job))
        job.listed = state.images
        if not state.recovery:  # an application that takes what Zephyr's refuse
            raise self._came_back()
        images = {number: target.image for number, target in job.targets.items()}
        try:
            make_plan(images, state, replace(job.policy, board=None, upgrade_only=False))
        except PlanRefused as error:
            back = Run("os reset")
            error.hint = Hint(*((error.hint, ". ") if error.hint else ()), "Return to the application with ", back)
            raise
        take_numbers(job, state, images)

    async def over(self, connection: Connection) -> None:
        self._job.device.expect_reset()
        try:
            await connection.group(OsGroup).reset(boot_mode=1)
        except (RequestTimeout, MalformedReply):
            return  # it is gone, or will be
        except DeviceError as error:
            if not error.says(SmpError.NOT_SUPPORTED):
                raise
            self._job.note("the application cannot be reset from here: reset the device now, or switch it off and on")

    def _came_back(self) -> PlanRefused:
        return PlanRefused(
            "the device was reset into its recovery, and has come back with its application", hint=_OPTIONS
        )

    async def _arrive(self) -> None:
        """Ask until the recovery answers. An application that does has come back, or is still on its way down."""
        job = self._job
        until_s = job.link.deadline_s
        back_s = job.link.reset_at_s + job.policy.grace_s
        while True:
            answer = await job.link.knock(until_s)
            if answer:
                return
            if answer is False and (job.device.restarted or now() >= back_s):
                raise self._came_back()
            if now() >= until_s:
                raise FlowError(
                    f"the device was reset into its recovery, and does not answer: {job.policy.boot_timeout_s:g} s "
                    "after the reset nothing was heard",
                    stage=StageName.ENTER,
                    outcome=Outcome.NO_RETURN,
                    hint="does its bootloader use another serial port? Name that, and run the same command again",
                )
            await asyncio.sleep(0 if answer is None else KNOCK_S)


class Starting:
    """The proof that the application runs that the recovery has written, with one more reset where that did not start.

    An application that lists no images, or knows no SMP at all, is what lies in slot 0; the recovery has listed that.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._repeated = False

    async def run(self) -> None:
        job = self._job
        while True:
            with job.stage(StageName.RETURN, self._waiting) as stage:
                images = await self._return()
                stage.result = "it answers again" if isinstance(images, ImageState) else images
            with job.stage(StageName.PROVE, f"proving that {job.runs}") as stage:
                if isinstance(images, str):
                    stage.result = self._taken_for_granted()
                    return
                if not in_recovery(images):
                    stage.result = self._proven(images)
                    return
                if self._repeated:
                    raise self._stays(images)
                self._repeated = True
                given_s = job.policy.quiet_s
                job.link.quiet_s = quiet_s = 3 * (QUIET_S if given_s is None else given_s)
                stage.result = (
                    f"the bootloader's serial recovery still answers: resetting once more, with {quiet_s:g} s of "
                    "silence afterwards"
                )
            await Resetting(job, again=True).run()

    @property
    def _waiting(self) -> str:
        return f"waiting for the application, for up to {self._job.policy.boot_timeout_s:g} s"

    async def _return(self) -> ImageState | str:
        """The image list, or what else shows that an application runs. At first the old list may come again."""
        job = self._job
        until_s = job.link.reset_at_s + job.policy.grace_s
        while True:
            images = await self._heard()
            late = isinstance(images, ImageState) and in_recovery(images) and not job.device.restarted
            if not late or now() >= until_s:
                return images
            await asyncio.sleep(PAUSE_S)

    async def _heard(self) -> ImageState | str:
        job = self._job
        hearing = asyncio.ensure_future(job.link.hear(or_refusal=True))
        up = asyncio.ensure_future(self._up())
        try:
            await asyncio.wait([hearing, up], return_when=asyncio.FIRST_COMPLETED)
            if not hearing.done():
                return "the application is up, by its text; it answers nothing"
            return hearing.result()
        except DeviceError:
            return "an application answers, which lists no images"
        except (NoReturn, WrongDevice) as error:
            raise FlowError(
                f"no sign of {job.new}: {job.policy.boot_timeout_s:g} s after its reset the device does not answer",
                stage=StageName.RETURN,
                outcome=Outcome.NO_RETURN,
                hint=Hint(
                    "an application without SMP never answers; look at the device. To find out what its recovery has: "
                    "enter that by hand, and ",
                    Run("image list"),
                ),
            ) from error
        finally:
            hearing.cancel()
            up.cancel()
            await asyncio.gather(hearing, up, return_exceptions=True)

    async def _up(self) -> None:
        await self._job.device.wait_booted()
        await asyncio.sleep(_NO_SMP_S)

    def _proven(self, images: ImageState) -> str:
        """By the application's list; of another core, which that may never show, by what the recovery has listed."""
        job = self._job
        unseen = [target for target in job.targets.values() if target.number and target.active(images) is None]
        shown = [target for target in job.targets.values() if target not in unseen]
        if any(target.running(images) is None for target in shown):
            raise job.failed(images)
        job.listed = replace(images, slots=(*images.slots, *self._written(unseen)))
        told = f"{in_words(target.name for target in shown)} run{'s' if len(shown) == 1 else ''}"
        if not unseen:
            return told
        return f"{told}; of {in_words(target.name for target in unseen)} is known what the recovery has listed"

    def _taken_for_granted(self) -> str:
        job = self._job
        job.listed = ImageState(tuple(self._written([*job.targets.values()])))
        job.link.inferred = True
        return f"{job.runs}: the recovery has listed it in slot 0, from which the application is started"

    def _written(self, targets: list[Target]) -> list[Slot]:
        """What the recovery had listed of them before the reset, as what runs for good now."""
        job = self._job
        found = []
        for target in targets:
            slot = target.staged(job.before)
            if slot is None or slot.slot != 0:
                raise FlowError(
                    f"the application runs, but it cannot be proven that it is {target.name}: it lists no images, and "
                    "the recovery had listed none either",
                    stage=StageName.PROVE,
                    outcome=Outcome.UNSEEN,
                    hint="ask the application for its version in its own way",
                )
            found.append(replace(slot, active=True, confirmed=True))
        return found

    def _stays(self, images: ImageState) -> FlowError:
        job = self._job
        gone = images is not NO_LIST and any(target.staged(images) is None for target in job.targets.values())
        return FlowError(
            f"the application does not start: the bootloader's serial recovery answers, even after another reset"
            f"{f', and does not list {job.new}' if gone else ''}",
            stage=StageName.PROVE,
            outcome=Outcome.REJECTED if gone else Outcome.NO_RETURN,
            hint="the bootloader does not start this file: is it signed with its key, and built for this board?"
            if gone
            else "is a button or pin held that asks for recovery, or does the application crash and return to it?",
        )
