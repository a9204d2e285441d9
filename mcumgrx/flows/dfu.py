"""Carries a plan out: erase, upload, mark, reset, wait for the return, prove, confirm.

What is to be done is decided in `plan`, what an image list means in `verdict`, how links are lost and found in `link`;
how bytes travel is the groups' business. Here is what can happen in between: answers that never come, a device that
returns late, as another image, or not at all.

Rules that follow from what devices do:

* After a reset only the image list decides, and in it only the hash of the active slot.
* A reset whose answer is missing or makes no sense has happened, until the list shows the contrary for some time.
* The running image is confirmed without naming a hash, after it was seen to be the new one: by hash one could confirm
  an image that has already failed and lies in the other slot. Without a hash it is image 0 that is meant, always; so
  the image of another core is confirmed by the hash that was seen to run, or not at all.
* What a device says it has done is looked up; what it did not answer, too.
* A failed or cancelled update leaves a device whose state the next run reads and goes on from. There is no journal.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ..contracts import Connection, Device, ImageGroup, OsGroup, UploadOptions
from ..errors import (
    DeviceError,
    DeviceNotFound,
    FlowError,
    LinkLost,
    MalformedReply,
    McumgrError,
    Outcome,
    ProtocolError,
    RequestTimeout,
    TransportError,
    WrongDevice,
)
from ..events import Bytes, Event, Note, Progress, Speed, Stage, StageName, ignore_progress
from ..hints import Hint, Run
from ..mcuboot import Image
from ..pause import Pause
from ..protocol.message import SmpError
from ..protocol.standard import Bootloader, ImageState, Slot
from .device_state import DeviceState, shown_version
from .link import PAUSE_S, DeviceLink, NoReturn, now
from .plan import Confirm, Erase, Mark, Plan, Prove, Reset, Step, Upload, make_plan
from .policy import DfuPolicy, Mode
from .report import Ending, Report, StepDone
from .verdict import Finding, Target, judge, look

__all__ = ["OnPlan", "update"]

T = TypeVar("T")

OnPlan = Callable[[Plan], Awaitable[bool]]

# The silence after a reset that is tripled when the bootloader's recovery has answered, where none is given.
_QUIET_S = 3.0

# For an answer to an optional question: at least so long, and so many times what the image list took, which is the
# longest answer of all.
_OPTIONAL_S = 1.0
_OPTIONAL_TRIPS = 2.0

# A question that was waited for in vain for so long is told.
_TOLD_S = 0.4

# After a second reset, in place of `DfuPolicy.grace_s`: one that comes late has come by then.
_SECOND_GRACE_S = 5.0


async def update(
    device: Device,
    image: Image,
    policy: DfuPolicy = DfuPolicy(),  # noqa: B008 - immutable
    progress: Progress = ignore_progress,
    *,
    on_plan: OnPlan | None = None,
    pause: Pause | None = None,
) -> Report:
    """Bring `image` onto `device` as `policy` wants it.

    Nothing that changes the device is sent before the plan is complete. `on_plan` gets it then, to show it and to ask;
    when it returns false nothing is done. The plan's notes and warnings come to `progress` by themselves, before that.
    `pause` holds the upload, and lets it go on.

    Raises `PlanRefused` before anything was changed, `FlowError` with an `Outcome` when the device does not end up as
    planned, and whatever the device or the link says on the way: `DeviceError`, `RequestTimeout`, `TransportError`,
    `ProtocolError`.
    """
    return await _Update(device, image, policy, progress, pause).run(on_plan)


class _Update:
    def __init__(
        self, device: Device, image: Image, policy: DfuPolicy, progress: Progress, pause: Pause | None
    ) -> None:
        self.device = device
        self.image = image
        self.policy = policy
        self.progress = progress
        self.pause = pause
        self.target = Target(image, policy.image)
        self.link = DeviceLink(device, policy, progress)
        self.new = self.target.version
        self.steps: list[StepDone] = []
        self.resets = 0
        self.sent = _Sent()
        # The last image list, as long as nothing can have changed since; and the last one before the reset.
        self._listed: ImageState | None = None
        self._before = ImageState(())
        self._old: Slot | None = None
        self._session: bytes | None = None
        self._recovery_left = False
        self._reset_repeated = False

    async def run(self, on_plan: OnPlan | None) -> Report:
        begin = now()
        try:
            plan = await self._plan()
            ending = await self._carry_out(plan, on_plan)
        finally:
            await self.link.close()
        return Report(
            address=self.device.address,
            identity=self.device.identity,
            ending=ending,
            plan=plan,
            image=self.policy.image,
            hash=self.image.hash.hex(),
            size=self.image.size,
            steps=tuple(self.steps),
            bytes_sent=self.sent.bytes,
            upload_s=self.sent.elapsed_s,
            reconnects=self.link.reconnects,
            resets=self.resets,
            elapsed_s=now() - begin,
            speed=self.sent.speed,
        )

    async def _plan(self) -> Plan:
        with self._stage(StageName.CONNECT, f"connecting to {self.device.address}") as stage:
            await self.link.connect()
            stage.result = "connected"
        with self._stage(StageName.READ, "reading the device") as stage:
            state = await self.link.run(self._read)
            self._listed = self._before = state.images
            self._old = self.target.active(state.images)
            stage.result = _described(state, self.policy.image)
        with self._stage(StageName.PLAN, "planning") as stage:
            plan = make_plan(self.image, state, self.policy)
            if plan.image is not None:  # the file without its padding
                self.image = plan.image
                self.target = Target(plan.image, self.policy.image)
            stage.result = f"{_counted(len(plan.steps), 'step')} to do" if plan.steps else "nothing to do"
        for text in plan.notes:
            self.progress(Note(text))
        for text in plan.warnings:
            self.progress(Note(text, warning=True))
        return plan

    async def _read(self, connection: Connection) -> DeviceState:
        """What the device says of itself. The image list comes first: what follows may stay unanswered for ever."""
        images = connection.group(ImageGroup)
        begin = now()
        state = await images.state()
        patience_s = max(_OPTIONAL_S, _OPTIONAL_TRIPS * (now() - begin))
        params = await self._waited_for("buffers", connection.params())
        slots = await self._waited_for("slots", connection.optional("slots", images.slots, patience_s))
        ask = connection.group(OsGroup).bootloader
        bootloader = await self._waited_for("bootloader", connection.optional("bootloader", ask, patience_s))
        return DeviceState(state, slots, Bootloader() if bootloader is None else bootloader, params)

    async def _waited_for(self, what: str, answer: Awaitable[T | None]) -> T | None:
        """The answer to a question that some devices leave unanswered; a wait in vain is told."""
        begin = now()
        try:
            found = await answer
        except ProtocolError:
            found = None
        if found is None and now() >= begin + _TOLD_S:
            self.progress(Note(f"the device does not tell its {what}: {now() - begin:.1f} s without an answer"))
        return found

    async def _carry_out(self, plan: Plan, on_plan: OnPlan | None) -> Ending:
        if on_plan is not None and not await on_plan(plan):
            return Ending.NOT_STARTED
        if not plan.steps:
            return Ending.NOTHING_TO_DO
        for step in plan.steps:
            await self._do(step)
        if self.policy.mode is Mode.UPLOAD_ONLY:
            return Ending.UPLOADED
        if self.policy.mode is Mode.CONFIRM_ONLY and not self._confirmed:
            # Its mark was only one for a test: set by the padding of the file, or kept so by the bootloader.
            await self._confirm()
        return Ending.CONFIRMED if self._confirmed else Ending.ON_TRIAL

    async def _do(self, step: Step) -> None:
        self.link.failures = 0
        match step:
            case Erase():
                await self._erase(step)
            case Upload():
                await self._upload(step)
            case Mark():
                await self._mark(step)
            case Reset():
                await self._reset()
            case Prove():
                await self._prove()
            case Confirm():
                await self._confirm()

    # -- erase and upload ----------------------------------------------------------------------------------------------

    async def _erase(self, step: Erase) -> None:
        async def erase(connection: Connection) -> bool | None:
            return await connection.group(ImageGroup).erase(step.slot, timeout_s=self.policy.erase_timeout_s)

        most = f"{self.policy.erase_timeout_s:g} s"
        with self._stage(StageName.ERASE, f"erasing, which can take a minute; waiting for up to {most}") as stage:
            self._listed = None
            self._session = secrets.token_bytes(16)
            try:
                gone = await self.link.run(erase)
            except DeviceError as error:
                if not _unsupported(error):
                    raise
                stage.result = "not erased: the device knows no such command, and erases during the upload"
                return
            if gone is False:
                stage.result = "not erased, although the device says so: its image is still listed"
                self.progress(Note("the erase has had no effect; the upload erases by itself", warning=True))
            else:
                stage.result = "erased" if gone else "erased, says the device"

    async def _upload(self, step: Upload) -> None:
        upload = _Transfer(self)
        with self._stage(StageName.UPLOAD, f"uploading {self.new}") as stage:
            self._listed = None
            await self.link.run(upload.over)
            try:
                staged = self.target.staged(await self._list())
            except (DeviceError, RequestTimeout, ProtocolError) as error:
                if self.policy.mode is not Mode.UPLOAD_ONLY:
                    marked = "its padding marks it" if self.image.padded else "nothing is marked"
                    error.hint = Hint(f"the upload is complete, and {marked}; ", error.hint or "try again")
                    raise
                stage.result = f"{self.new} is in slot {step.slot}, says the device; not checked: {error}"
                return
            if staged is not None:
                stage.result = f"{self.new} is in slot {staged.slot}"
            elif self._lists_hashes:
                raise FlowError(
                    f"the upload of {self.new} is complete, but the device does not list it",
                    stage=StageName.UPLOAD,
                    slot=step.slot,
                    hint=Hint(
                        "was it written to another slot (see ",
                        Run("image list"),
                        "), or is it signed in a way that the device cannot read?",
                    ),
                )
            else:
                stage.result = f"{self.new} is in slot {step.slot}, unchecked: the device lists no hashes"

    @property
    def _lists_hashes(self) -> bool:
        return self._listed is not None and any(slot.hash is not None for slot in self._listed.slots)

    # -- mark and reset ------------------------------------------------------------------------------------------------

    async def _mark(self, step: Mark) -> None:
        marking = _Marking(self, step.permanent)
        how = "to stay" if step.permanent else "for a test boot"
        with self._stage(StageName.MARK, f"marking {self.new} {how}") as stage:
            try:
                await self.link.run(marking.over)
            except DeviceError as error:
                if step.required or not _unsupported(error):
                    raise
                stage.result = "not marked: the device knows no marks"
                return
            pending = self.target.pending(await self._list())
            if pending is None:
                raise FlowError(
                    f"the device took the mark for {self.new}, but does not show it",
                    stage=StageName.MARK,
                    outcome=Outcome.REJECTED,
                    hint=Hint("it may forbid this version (downgrade prevention); see ", Run("image list")),
                ) from marking.reason
            if step.permanent and not pending.permanent:
                stage.result = "marked for a test boot, to be confirmed once it runs"
            elif self.image.pad_confirmed and pending.permanent and not step.permanent:
                stage.result = "marked to stay, by the padding of the file"
            else:
                stage.result = f"marked {how}"

    async def _reset(self) -> None:
        resetting = _Resetting(self)
        with self._stage(StageName.RESET, "resetting") as stage:
            if self.resets == 0:
                self._before = await self._list()
            await self.link.run(resetting.over)
            self.resets += 1
            self._listed = None
            self.link.has_reset()
            stage.result = "the device restarts"

    # -- after a reset -------------------------------------------------------------------------------------------------

    async def _prove(self) -> None:
        while True:
            images = await self._await_return()
            with self._stage(StageName.PROVE, f"proving that {self.new} runs") as stage:
                images, found = await self._decided(images)
                self._listed = images
                if found is Finding.RUNS:
                    stage.result = f"{self.new} runs"
                    return
                if found is Finding.RECOVERY:
                    stage.result = self._leave_recovery()
                elif found is Finding.WAITING and not self._reset_repeated and not self.device.restarted:
                    self._reset_repeated = True
                    stage.result = "nothing has changed: the reset may not have reached the device, so once more"
                else:
                    raise self._failed(images)
            await self._reset()

    async def _decided(self, images: ImageState) -> tuple[ImageState, Finding]:
        """The list once it says what has become of the update, and what it says; or the last one when that takes long.

        The old application may answer for a while, until the reset comes.
        """
        grace_s = min(self.policy.grace_s, _SECOND_GRACE_S) if self._reset_repeated else self.policy.grace_s
        until_s = self.link.reset_at_s + grace_s
        told = False
        while True:
            found = look(self.target, self._before, images)
            on_its_way = found is Finding.COMING or (found is Finding.WAITING and not self.device.restarted)
            if not on_its_way or now() >= until_s:
                return images, found
            if not told:
                told = True
                left_s = until_s - now()
                self.progress(Note(f"{self.new} does not run yet; waiting {left_s:.0f} s for the reset to take effect"))
            await asyncio.sleep(PAUSE_S)
            images = await self._hear()

    async def _await_return(self) -> ImageState:
        """The image list of a device that has been reset."""
        most = f"{self.policy.boot_timeout_s:g} s"
        with self._stage(StageName.RETURN, f"waiting for the device to return, for up to {most}") as stage:
            images = await self._hear()
            stage.result = "it answers again"
        return images

    async def _hear(self) -> ImageState:
        try:
            return await self.link.hear()
        except NoReturn as error:
            raise self._no_return(error.reason) from error.reason
        except WrongDevice as error:
            raise FlowError(
                f"no sign of {self.new}: {error}",
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
        quiet_s = 3 * (_QUIET_S if self.policy.quiet_s is None else self.policy.quiet_s)
        self.link.quiet_s = quiet_s
        return (
            f"the bootloader's serial recovery answers: resetting once more, with {quiet_s:g} s of silence afterwards"
        )

    def _failed(self, images: ImageState) -> FlowError:
        verdict = judge(self.target, self._before, images, self._old)
        return FlowError(
            verdict.text, stage=StageName.PROVE, outcome=verdict.outcome, slot=verdict.slot, hint=verdict.hint
        )

    def _no_return(self, reason: Exception) -> FlowError:
        old = "" if self._old is None else f" (ran {shown_version(self._old.version)} before)"
        what = "does not answer" if isinstance(reason, TimeoutError) else f"has not returned: {reason}"
        hint = "a swap can take minutes: raise --boot-timeout; or look at the device's log. "
        hint += "The same command again tells how it ended"
        if isinstance(reason, DeviceNotFound) and reason.hint:
            hint += f". The link: {reason.hint}"  # what was seen in its place, perhaps
        return FlowError(
            f"no sign of {self.new}{old}: {self.policy.boot_timeout_s:g} s after its reset the device {what}",
            stage=StageName.RETURN,
            outcome=Outcome.NO_RETURN,
            hint=hint,
        )

    # -- confirm -------------------------------------------------------------------------------------------------------

    async def _confirm(self) -> None:
        confirming = _Confirming(self)
        with self._stage(StageName.CONFIRM, f"confirming {self.new}") as stage:
            if self._confirmed:
                stage.result = f"{self.new} is confirmed already"
                return
            try:
                await self.link.run(confirming.over)
            except (DeviceError, TransportError, ProtocolError) as error:
                confirming.reason = error
                self._listed = None
            else:
                state = await self._list()
                if self.target.running(state) is None:
                    # It has been reset meanwhile. What was confirmed then was the old image, which was so before.
                    raise self._failed(state)
            if not self._confirmed:
                raise self._unconfirmed(confirming.reason)
            stage.result = f"{self.new} is confirmed"

    def _unconfirmed(self, reason: McumgrError | None) -> FlowError:
        because = "" if reason is None else f" ({reason})"
        hint = (
            "run the same command again before the device is reset: it goes on from here; "
            "a reset goes back to the old image"
        )
        if self.policy.image and isinstance(reason, DeviceError):
            hint = (
                "most devices let only its own application confirm an image of another core; a reset goes back to the "
                "old one. --mode confirm-only makes it permanent before it has run"
            )
        failed = FlowError(
            f"{self.new} runs, but could not be confirmed{because}",
            stage=StageName.CONFIRM,
            outcome=Outcome.NOT_CONFIRMED,
            hint=hint,
        )
        failed.__cause__ = reason
        return failed

    # -- what the device lists -----------------------------------------------------------------------------------------

    @property
    def _confirmed(self) -> bool:
        return self.target.confirmed(self._listed)

    async def _list(self) -> ImageState:
        """The image list, asked for if it may have changed."""
        if self._listed is None:
            self._listed = await self.link.run(_image_list)
        return self._listed

    # -- telling -------------------------------------------------------------------------------------------------------

    @contextmanager
    def _stage(self, name: StageName, text: str) -> Iterator[_Running]:
        """Tell that a stage begins, and, unless it fails, how it ended."""
        begin = now()
        running = _Running()
        self.progress(Stage(name, text))
        yield running
        elapsed_s = now() - begin
        self.steps.append(StepDone(name.value, running.result, elapsed_s))
        self.progress(Stage(name, running.result, finished=True, elapsed_s=elapsed_s))


class _Running:
    """A stage in progress; `result` is told at its end."""

    result = "done"


# -- steps that a lost link interrupts: `over` is called again with each new link --------------------------------------


class _Sent:
    """What uploads have brought through, over all links."""

    bytes = 0
    elapsed_s = 0.0
    speed: Speed | None = None

    def add(self, last: Bytes | None) -> None:
        if last is not None:
            self.bytes += max(0, last.done - last.resumed_from)
            self.elapsed_s += last.elapsed_s
            self.speed = last.speed


class _Transfer:
    """The upload."""

    def __init__(self, update: _Update) -> None:
        self._update = update
        self._farthest = 0
        self._attempts = 0
        self._last: Bytes | None = None
        policy = update.policy
        self._options = UploadOptions(
            policy.image,
            policy.erase_timeout_s,
            policy.chunk_bytes,
            policy.window,
            policy.upgrade_only,
            update.pause,
            update._session,
        )

    async def over(self, connection: Connection) -> None:
        images = connection.group(ImageGroup)
        self._attempts += 1
        # The link may have been lost with the answer to the last chunk; a new upload would begin with an erase.
        if self._attempts > 1 and self._is_there(await images.state()):
            return
        started_at, self._last = self._farthest, None
        try:
            await images.upload(self._update.image, self._options, self._listen)
        except RequestTimeout as error:
            # On a link that cannot be lost, silence is all there is to see of it. Bounded by what got through.
            if self._farthest == started_at:
                raise
            raise LinkLost(error.message, address=self._update.device.address, hint=error.hint) from error
        except MalformedReply as error:
            # It may have been the answer to the last chunk.
            if not self._is_there(await images.state()):
                raise
            self._update.progress(Note(f"{error}; but the image is listed"))
        finally:
            self._update.sent.add(self._last)

    def _is_there(self, images: ImageState) -> bool:
        # Padding comes behind what is needed to be listed, but once it is there it shows as pending.
        staged = self._update.target.staged(images)
        return staged is not None and (staged.pending or not self._update.image.padded)

    def _listen(self, event: Event) -> None:
        if isinstance(event, Bytes):
            self._last = event
            if event.done > self._farthest:
                self._farthest = event.done
                self._update.link.failures = 0
        self._update.progress(event)


class _Marking:
    """The mark, unless the image has it already; `reason` is what the device made of it."""

    def __init__(self, update: _Update, permanent: bool) -> None:
        self._update = update
        self._permanent = permanent
        self.reason: FlowError | None = None

    async def over(self, connection: Connection) -> None:
        update = self._update
        images = connection.group(ImageGroup)
        state = await images.state() if update._listed is None else update._listed
        update._listed = None
        if update.target.pending(state) is None:
            hash = update.image.hash
            try:
                state = await (images.confirm(hash) if self._permanent else images.test(hash))
            except FlowError as error:
                self.reason = error
            if update.target.pending(state) is None:
                state = await images.state()
        update._listed = state


class _Resetting:
    """The reset: asked for once, and once more after a lost link that the device has not followed."""

    def __init__(self, update: _Update) -> None:
        self._update = update
        self._asked = False

    async def over(self, connection: Connection) -> None:
        update = self._update
        # Never for a device that it has reached: that would end a test boot.
        if self._asked and (await connection.group(ImageGroup).state()).slots != update._before.slots:
            return
        self._asked = True
        update.device.expect_reset()
        try:
            await connection.group(OsGroup).reset()
        except (RequestTimeout, MalformedReply):
            return  # the device is gone, which is what was asked for; if not, its list tells
        except DeviceError as error:
            waits = f"{update.new} is installed by the next reset, whatever causes it"
            error.hint = Hint(waits, *(("; ", error.hint) if error.hint else ()))
            raise


class _Confirming:
    """The confirmation of the image that was seen to run; `reason` is what the device made of it."""

    def __init__(self, update: _Update) -> None:
        self._update = update
        self.reason: McumgrError | None = None

    async def over(self, connection: Connection) -> None:
        update = self._update
        images = connection.group(ImageGroup)
        state = await images.state() if update._listed is None else update._listed
        update._listed = None
        running = update.target.running(state)
        try:
            if running is not None and not running.confirmed:
                try:
                    state = await images.confirm(running.hash if update.policy.image else None)
                except FlowError as error:
                    self.reason = error
                if not update.target.confirmed(state):
                    state = await images.state()
        except RequestTimeout as error:
            raise LinkLost(error.message, address=update.device.address, hint=error.hint) from error
        update._listed = state


# -- questions ---------------------------------------------------------------------------------------------------------


async def _image_list(connection: Connection) -> ImageState:
    return await connection.group(ImageGroup).state()


def _unsupported(error: DeviceError) -> bool:
    return error.group is None and error.rc == SmpError.NOT_SUPPORTED


def _described(state: DeviceState, image: int) -> str:
    active = state.images.active(image)
    if active is None and image:
        return f"it does not list what runs of image {image}"
    if active is None:
        return "no image runs" if state.recovery else "it does not say which image runs"
    return f"{shown_version(active.version)} runs{'' if active.confirmed else ', not confirmed'}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
