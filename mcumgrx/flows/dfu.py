"""An update: read the device, plan, carry the plan out, report.

What is to be done is decided in `plan`, and done in `steps` and `proof`; what an image list means is in `verdict`, how
links are lost and found in `link`; how bytes travel is the groups' business.

A failed or cancelled update leaves a device whose state the next run reads and goes on from. There is no journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

from ..contracts import Device
from ..events import Progress, StageName, ignore_progress
from ..mcuboot import Image
from ..pause import Pause
from .bootloader import ProvingBootloader
from .bootloader_plan import plan_bootloader
from .device_state import DeviceState, Kind, shown_version
from .health import Answering, Checking, Soaking
from .job import Job
from .link import now
from .plan import (
    Check,
    Confirm,
    EnterRecovery,
    Erase,
    GoBack,
    Keep,
    Look,
    Mark,
    Plan,
    Prove,
    ProveBootloader,
    Reset,
    Soak,
    Upload,
)
from .policy import DfuPolicy, Mode
from .preference import Looking, check_lasting
from .proof import Confirming, Proving
from .reading import read_device
from .recovery import Entering, Starting, kept_awake, meet, take_numbers
from .report import Ending, Report
from .several import make_plan
from .steps import Erasing, Marking, Resetting, Uploading, Work
from .through_loader import loader_works
from .trial import GoingBack, Keeping, Staying
from .variants import Files, chosen, first, split
from .verdict import Target

__all__ = ["OnPlan", "update"]

T = TypeVar("T")

OnPlan = Callable[[Plan], Awaitable[bool]]


async def update(
    device: Device,
    image: Image | Files,
    policy: DfuPolicy = DfuPolicy(),  # noqa: B008 - immutable
    progress: Progress = ignore_progress,
    *,
    on_plan: OnPlan | None = None,
    pause: Pause | None = None,
) -> Report:
    """Bring `image` onto `device` as `policy` wants it; the device is closed in the end.

    Several images, by their numbers (`{0: app, 1: net}`), are uploaded and marked one after the other, started by one
    reset, and confirmed when all are proven to run, or none is. `policy.image` counts for a single one alone. Of files
    for each slot (`{0: {0: app_0, 1: app_1}}`) the one is taken that would run. `INSTALLER_FIRST` is an installer's.

    Nothing that changes the device is sent before the plan is complete. `on_plan` gets it then, to show it and to ask;
    when it returns false nothing is done. The plan's notes and warnings come to `progress` by themselves, before that.
    `pause` holds the upload, and lets it go on.

    Raises `PlanRefused` before anything was changed, `FlowError` with an `Outcome` when the device does not end up as
    planned, and what device or link say on the way: `DeviceError`, `RequestTimeout`, `TransportError`, `ProtocolError`.
    """
    if not hasattr(device, "rediscover"):
        raise TypeError(
            f"an update is of a device, as mcumgrx.device(…) makes one; {device!r} is for mcumgrx.update(…)"
        )
    begin = now()
    files, installer = split({policy.image: image} if isinstance(image, Image) else dict(image))
    if not files:
        raise TypeError("an update is of one image at least")
    job = Job(device, first(files), policy, progress, pause)
    try:
        plan = await _plan(job, files, installer)
        ending = await _carry_out(job, plan, files, installer, on_plan)
    finally:
        await device.close()
    return Report(
        address=device.address,
        identity=device.identity,
        ending=ending,
        plan=plan,
        steps=tuple(job.done),
        bytes_sent=job.sent.bytes,
        upload_s=job.sent.elapsed_s,
        reconnects=job.link.reconnects,
        resets=job.resets,
        elapsed_s=now() - begin,
        speed=job.sent.speed,
    )


# -- what is to be done ------------------------------------------------------------------------------------------------


async def _plan(job: Job, files: Files, installer: Image | None) -> Plan:
    with job.stage(StageName.CONNECT, f"connecting to {job.device.address}") as stage:
        if job.policy.recovery:
            await meet(job)
        else:
            await job.link.connect()
        stage.result = "connected"
    with job.stage(StageName.READ, "reading the device") as stage:
        state = await job.link.run(partial(read_device, job))
        job.listed = job.before = state.images
        job.old = {number: state.installed(number) for number in job.targets}
        job.loader = state.kind is Kind.LOADER
        if state.in_loader:
            job.link.name = state.loader
        stage.result = _described(state, [*job.targets])
    with job.stage(StageName.PLAN, "planning") as stage:
        if job.policy.bootloader:
            plan, bootloader = plan_bootloader(files, state, job.policy)
            images = {0: bootloader}
        else:
            images = chosen(files, state)
            plan = make_plan(images, state, job.policy, installer=installer)
        job.targets = dict(_targets(plan, images, loader=job.loader))
        if state.recovery:
            take_numbers(job, state, images)
        count = len(plan.texts)
        stage.result = f"{count} step{'' if count == 1 else 's'} to do" if count else "nothing to do"
    for text in plan.notes:
        job.note(text)
    for text in plan.warnings:
        job.note(text, warning=True)
    return plan


def _targets(plan: Plan, files: Mapping[int, Image], *, loader: bool) -> Iterator[tuple[int, Target]]:
    """What there is to bring: the files, without their padding where that is left out, and without what runs already.

    Where nothing is to do they stay for the report.
    """
    todo = [part for part in plan.each if part.steps]
    for part in todo or plan.each:
        image = files[part.number] if part.image is None else part.image
        listed = len(todo) == 1 or all(prove.listed for prove in part.steps if isinstance(prove, Prove))
        yield part.number, Target(image, part.number, not plan.parts, listed, loader)


def _described(state: DeviceState, numbers: Sequence[int]) -> str:
    if len(numbers) > 1:
        return "; ".join(f"image {number}: {_described(state, [number])}" for number in numbers)
    image = numbers[0]
    active = state.installed(image)
    if state.in_loader:
        return f"its firmware loader answers; {shown_version(active.version) if active else 'nothing'} is in slot 0"
    if active is None and image:
        return f"it does not list what runs of image {image}"
    if active is None:
        return (
            "no image runs: the bootloader's serial recovery answers"
            if state.recovery
            else "it does not say which image runs"
        )
    return f"{shown_version(active.version)} runs{'' if active.confirmed else ', not confirmed'}"


# -- the doing of it ---------------------------------------------------------------------------------------------------


async def _carry_out(job: Job, plan: Plan, files: Files, installer: Image | None, on_plan: OnPlan | None) -> Ending:
    async with kept_awake(job, job.listed):
        agreed = on_plan is None or await on_plan(plan)
    if not agreed:
        return Ending.NOT_STARTED
    if not plan.steps:
        return Ending.NOTHING_TO_DO

    def again(state: DeviceState) -> Plan:
        return make_plan(chosen(files, state), state, job.policy, installer=installer)

    for work in loader_works(job, plan, installer, again) if job.loader else _works(job, plan):
        job.link.failures = 0
        await work.run()
    if all(isinstance(step, Keep | GoBack) for step in plan.steps):
        return Ending.CONFIRMED  # what they have left, and looked at
    if job.policy.mode is Mode.UPLOAD_ONLY:
        return Ending.UPLOADED
    if plan.has(ProveBootloader):
        return Ending.REPLACED
    if job.policy.mode is Mode.CONFIRM_ONLY and not job.confirmed:
        # Its mark was only one for a test: set by the padding of the file, or kept so by the bootloader.
        await Confirming(job).run()
    if not all(target.listed for target in job.targets.values()):
        raise job.failed(await job.list())
    if job.link.inferred:
        return Ending.ANSWERS
    if job.resets:
        check_lasting(job, await job.list())
    return Ending.CONFIRMED if job.confirmed else Ending.ON_TRIAL


def _works(job: Job, plan: Plan) -> Iterator[Work]:
    """What is to be done, in its order."""
    for number, keep in plan.tasks(Keep):
        yield Keeping(job, job.targets[number], keep)
    if plan.has(GoBack):
        yield GoingBack(job, dict(plan.tasks(GoBack)))
    if plan.has(EnterRecovery):
        yield Entering(job)
    for number, erase in plan.tasks(Erase):
        yield Erasing(job, job.targets[number], erase)
    for number, upload in plan.tasks(Upload):
        yield Uploading(job, job.targets[number], upload)
    looks = [(job.targets[number], look) for number, look in plan.tasks(Look)]
    if looks:
        yield Looking(job, looks)
    marks = [(job.targets[number], mark) for number, mark in plan.tasks(Mark)]
    if marks:
        yield Marking(job, marks)
    yield from _from_reset(job, plan)


def _from_reset(job: Job, plan: Plan) -> Iterator[Work]:
    if plan.has(Reset):
        yield Resetting(job)
    if proofs := plan.tasks(Prove):
        yield Starting(job) if all(prove.in_place for _, prove in proofs) else Proving(job)
    for _, step in plan.tasks(ProveBootloader):
        yield ProvingBootloader(job, step)
    for _, soak in plan.tasks(Soak)[:1]:
        yield Soaking(job, soak)
    if plan.has(Check):
        yield Checking(job)
    confirms = plan.tasks(Confirm)
    if confirms:
        works = Staying if all(confirm.or_mark for _, confirm in confirms) else Confirming
        yield works(job, Answering(job))
