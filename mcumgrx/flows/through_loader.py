"""Carries out an update through a firmware loader, as `loader` plans it; uploads, resets and the proof are the usual.

* Once the loader answers, the device is read and planned for anew: only there it lists what lies in its slots. What is
  refused then has changed nothing, and the device is reset to its application.
* What the application does not list is known from the loader's last list: nothing else can run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from ..contracts import Connection, SettingsGroup
from ..errors import DeviceError, FlowError, McumgrError, Outcome, PlanRefused, PluginError, RequestTimeout, WrongDevice
from ..events import StageName
from ..hints import Hint, Run
from ..mcuboot import Image
from ..messages.standard import ImageState
from .device_state import DeviceState, loader_answers, shown_version
from .health import Checking, Soaking
from .job import Job
from .link import PAUSE_S, NoReturn, now
from .loader import LOADER_NAME, NAME_SETTING
from .plan import (
    Check,
    EnterLoader,
    Erase,
    Install,
    NameLoader,
    Plan,
    Prove,
    Reset,
    Soak,
    Upload,
    UploadInstaller,
)
from .proof import Proving
from .reading import read_device
from .steps import Erasing, Resetting, Uploading, Work
from .verdict import Target

__all__ = ["loader_works"]

_BOOT_MODE = 1
"""Of a reset into the loader (Zephyr's `BOOT_MODE_TYPE_BOOTLOADER`)."""


def loader_works(job: Job, plan: Plan, installer: Image | None, again: Callable[[DeviceState], Plan]) -> Iterator[Work]:
    """What is to be done, in its order; `again` makes the plan anew, of what the loader tells."""
    for step in plan.steps:
        match step:
            case NameLoader():
                yield Naming(job, step)
            case EnterLoader():
                entering = Entering(job, plan, again)
                yield entering
                yield from loader_works(job, entering.plan, installer, again)
                return
            case UploadInstaller():
                assert installer is not None
                target = Target(installer, alone=True, loader=True)
                yield Overwriting(job, target, Upload(step.size, 0, step.version))
            case Install():
                assert installer is not None
                yield Installing(job, installer)
            case Erase():
                yield Erasing(job, job.target, step)
            case Upload():
                yield Overwriting(job, job.target, step)
            case Reset():
                yield Leaving(job)
            case Prove():
                yield Proving(job)
            case Soak():
                yield Soaking(job, step)
            case Check():
                yield Checking(job)


class Naming:
    """The name that the application gives its firmware loader, where it takes settings."""

    def __init__(self, job: Job, step: NameLoader) -> None:
        self._job = job
        self._name = step.called

    async def run(self) -> None:
        job = self._job
        with job.stage(StageName.ENTER, f"naming the firmware loader {self._name}") as stage:
            try:
                await job.link.run(self.over)
            except (DeviceError, RequestTimeout, PluginError) as error:
                job.link.name = LOADER_NAME
                stage.result = f"the firmware loader could not be named ({error}), so it is looked for as {LOADER_NAME}"
                return
            job.link.name = self._name
            stage.result = f"the firmware loader is to be called {self._name}"

    async def over(self, connection: Connection) -> None:
        settings = connection.group(SettingsGroup)
        await settings.write(NAME_SETTING, self._name.encode())
        await settings.save()


class Entering:
    """The way into the firmware loader, and the plan for the device as it is there."""

    def __init__(self, job: Job, plan: Plan, again: Callable[[DeviceState], Plan]) -> None:
        self._job = job
        self._again = again
        self.plan = plan

    async def run(self) -> None:
        job = self._job
        await Resetting(job, boot_mode=_BOOT_MODE).run()
        most = f"{job.policy.boot_timeout_s:g} s"
        with job.stage(StageName.ENTER, f"waiting for the firmware loader, for up to {most}") as stage:
            images = await _loader_list(job, "its firmware loader")
            if images is None:
                raise FlowError(
                    "the application answers again after the reset, and not its firmware loader; nothing was changed",
                    stage=StageName.ENTER,
                    outcome=Outcome.NO_RETURN,
                    hint="is the bootloader built to take a boot mode from a reset? Where a button leads into the "
                    "loader, the same command goes on from there",
                )
            state = await job.link.run(partial(read_device, job))
            stage.result = f"the firmware loader {_version(state.images)} answers; {_slot_0(state.images)}"
        job.listed = job.before = state.images
        told = {*self.plan.notes, *self.plan.warnings}
        try:
            self.plan = self._again(state)
        except PlanRefused as error:
            await self._back()
            error.message += "; nothing was changed, and the device was reset to its application"
            raise
        for text in self.plan.notes:
            if text not in told:
                job.note(text)
        for text in self.plan.warnings:
            if text not in told:
                job.note(text, warning=True)

    async def _back(self) -> None:
        """The application is still there: it is started again, as far as that can be seen to."""
        try:
            await Resetting(self._job).run()
        except McumgrError as error:
            self._job.note(f"the device may still be in its firmware loader: {error}", warning=True)


class Overwriting:
    """An upload over the application, after which, whole or not, the device has none that is known to run."""

    def __init__(self, job: Job, target: Target, step: Upload) -> None:
        self._job = job
        self._uploading = Uploading(job, target, step)

    async def run(self) -> None:
        with _told_if_interrupted(self._job):
            await self._uploading.run()


class Leaving:
    """The reset to the application, of which is kept what it may not list itself."""

    def __init__(self, job: Job) -> None:
        self._job = job

    async def run(self) -> None:
        images = await self._job.list()
        self._job.link.application = next((slot for slot in images.slots if slot.slot == 0), None)
        await Resetting(self._job).run()


class Installing:
    """The reset that starts the installer, and the return of the firmware loader without it."""

    def __init__(self, job: Job, installer: Image) -> None:
        self._job = job
        self._installer = installer

    async def run(self) -> None:
        job, version = self._job, self._installer.version
        before = _version(await job.list())
        with _told_if_interrupted(job):
            await Resetting(job).run()
            if job.device.by_name:
                job.link.name = LOADER_NAME  # what was kept in RAM is lost
            most = f"{job.policy.boot_timeout_s:g} s"
            with job.stage(StageName.RETURN, f"waiting for the installer to be done, for up to {most}") as stage:
                images = await _loader_list(job, f"what the installer {version} has brought", gone=self._installer.hash)
                if images is None:
                    raise FlowError(
                        f"the bootloader does not start the installer {version}: it is still in slot 0",
                        stage=StageName.RETURN,
                        outcome=Outcome.REJECTED,
                        slot=0,
                        hint="it was refused (signed with another key? damaged?). The device waits in its firmware "
                        "loader for an image",
                    )
                job.listed = images
                after = _version(images)
                is_new = "as before" if after == before else f"it was {before}"
                stage.result = f"the installer has gone, and the firmware loader {after} answers ({is_new})"


async def _loader_list(job: Job, what: str, *, gone: bytes | None = None) -> ImageState | None:
    """The firmware loader's list, once it answers and no slot holds `gone`; None where that takes too long.

    What answers before may be on its way down. Raises `FlowError` where nothing does.
    """
    until_s = job.link.reset_at_s + job.policy.grace_s
    while True:
        try:
            images = await job.link.hear()
        except (NoReturn, WrongDevice) as error:
            reason = error.reason if isinstance(error, NoReturn) else error
            raise FlowError(
                f"no sign of {what}: {job.policy.boot_timeout_s:g} s after its reset the device has not returned: "
                f"{reason}",
                stage=StageName.ENTER,
                outcome=Outcome.NO_RETURN,
                hint=getattr(reason, "hint", None) or Hint("look for it with ", Run("scan", device=False)),
            ) from error
        if loader_answers(images) and gone not in {slot.hash for slot in images.slots if slot.slot == 0}:
            return images
        if now() >= until_s:
            return None
        await asyncio.sleep(PAUSE_S)


@contextmanager
def _told_if_interrupted(job: Job) -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        job.note(
            "interrupted: the device waits in its firmware loader, perhaps without an application that can run; the "
            "same command goes on from there",
            warning=True,
        )
        raise


def _version(images: ImageState) -> str:
    """The firmware loader's own."""
    active = images.active()
    return "of unknown version" if active is None else shown_version(active.version)


def _slot_0(images: ImageState) -> str:
    held = next((slot for slot in images.slots if slot.slot == 0), None)
    return "slot 0 holds no application" if held is None else f"slot 0 holds {shown_version(held.version)}"
