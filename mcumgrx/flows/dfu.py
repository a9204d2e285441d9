"""Carries a plan out: erase, upload, mark, reset, wait for the return, prove, confirm.

What is to be done is decided in `plan`; how bytes travel is the groups' business. Here is what can happen in between:
links that end, answers that never come, a device that returns late, as another image, or not at all.

Rules that follow from what devices do:

* After a reset only the image list decides, and in it only the hash of the active slot.
* A reset whose answer is missing has happened, until the list shows the contrary for some time.
* The running image is confirmed without naming a hash, after it was seen to be the new one: by hash one could confirm
  an image that has already failed and lies in the other slot.
* A failed or cancelled update leaves a device whose state the next run reads and goes on from. There is no journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ..contracts import Connection, Device, ImageGroup, OsGroup, ReturnHint, UploadOptions
from ..errors import (
    DeviceError,
    FlowError,
    LinkLost,
    McumgrError,
    Outcome,
    ProtocolError,
    RequestTimeout,
    TransportError,
)
from ..events import Bytes, Event, Note, Progress, Speed, Stage, StageName, ignore_progress
from ..hints import Hint, Run
from ..mcuboot import Image
from ..pause import Pause
from ..protocol.message import SmpError
from ..protocol.standard import Bootloader, ImageState, Slot
from .device_state import shown_version
from .plan import (
    Confirm,
    DeviceState,
    Erase,
    Mark,
    Plan,
    Prove,
    Reset,
    Step,
    Upload,
    in_recovery,
    make_plan,
)
from .policy import DfuPolicy, Mode
from .report import Ending, Report, StepDone

__all__ = ["OnPlan", "update"]

T = TypeVar("T")

OnPlan = Callable[[Plan], Awaitable[bool]]

# How long a device whose link was lost in the middle of an operation is searched for.
_RECONNECT_TIMEOUT_S = 60.0

# Before a lost link is opened again, one after the other while nothing advances.
_BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 4.0)

# For the answer to the image list after a reset, one after the other: short, because the first requests often go to a
# device that is still starting; longer, because MCUboot's recovery checks all signatures before it answers.
_PATIENCE_S = (2.0, 4.0, 8.0, 15.0)

# Between questions to a device that answers, but not yet what is to come.
_PAUSE_S = 0.5

# The silence after a reset that is tripled when the bootloader's recovery has answered, where none is given.
_QUIET_S = 3.0


_CONFIRM_AGAIN = (
    "run the same command again before the device is reset: it goes on from here; a reset goes back to the old image"
)
_NEEDS_ITS_APPLICATION = (
    "most devices let only its own application confirm an image of another core; a reset goes back to the old one. "
    "--mode confirm-only makes it permanent before it has run"
)


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
        self.new = str(image.version)
        self.steps: list[StepDone] = []
        self.reconnects = 0
        self.resets = 0
        self.bytes_sent = 0
        self.upload_s = 0.0
        self.speed: Speed | None = None
        # The connection is kept after its end, to be closed; `linked` says whether it can be used.
        self._connection: Connection | None = None
        self._linked = False
        self._failures = 0
        # The last image list, as long as nothing can have changed since; and the last one before the reset.
        self._listed: ImageState | None = None
        self._before = ImageState(())
        self._old: Slot | None = None
        self._reset_at_s = 0.0
        self._quiet_s = policy.quiet_s
        self._deadline_s = 0.0
        self._recovery_left = False
        self._reset_repeated = False

    async def run(self, on_plan: OnPlan | None) -> Report:
        begin = _now()
        try:
            plan = await self._plan()
            ending = await self._carry_out(plan, on_plan)
        finally:
            await self.device.close()
        return Report(
            address=self.device.address,
            identity=self.device.identity,
            ending=ending,
            plan=plan,
            image=self.policy.image,
            hash=self.image.hash.hex(),
            size=self.image.size,
            steps=tuple(self.steps),
            bytes_sent=self.bytes_sent,
            upload_s=self.upload_s,
            reconnects=self.reconnects,
            resets=self.resets,
            elapsed_s=_now() - begin,
            speed=self.speed,
        )

    async def _plan(self) -> Plan:
        with self._stage(StageName.CONNECT, f"connecting to {self.device.address}") as stage:
            self._connection = await self.device.connect()
            self._linked = True
            stage.result = "connected"
        with self._stage(StageName.READ, "reading the device") as stage:
            state = await self._over_link(self._read)
            self._listed = self._before = state.images
            self._old = state.images.active(self.policy.image)
            stage.result = _described(state, self.policy.image)
        with self._stage(StageName.PLAN, "planning") as stage:
            plan = make_plan(self.image, state, self.policy)
            if plan.image is not None:
                self.image = plan.image
            stage.result = f"{_counted(len(plan.steps), 'step')} to do" if plan.steps else "nothing to do"
        for text in plan.notes:
            self.progress(Note(text))
        for text in plan.warnings:
            self.progress(Note(text, warning=True))
        return plan

    async def _carry_out(self, plan: Plan, on_plan: OnPlan | None) -> Ending:
        if on_plan is not None and not await on_plan(plan):
            return Ending.NOT_STARTED
        if not plan.steps:
            return Ending.NOTHING_TO_DO
        for step in plan.steps:
            await self._do(step)
        if self.policy.mode is Mode.UPLOAD_ONLY:
            return Ending.UPLOADED
        if self.policy.mode is Mode.CONFIRM_ONLY and not self._confirmed():
            # Its mark was only one for a test: set by the padding of the file, or kept so by the bootloader.
            await self._confirm(self.image.hash if self.policy.image else None)
        return Ending.CONFIRMED if self._confirmed() else Ending.ON_TRIAL

    async def _do(self, step: Step) -> None:
        self._failures = 0
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
                await self._prove(step)
            case Confirm():
                await self._confirm(step.hash)

    # -- the steps

    async def _read(self, connection: Connection) -> DeviceState:
        params = await _optional(connection.params())
        images = connection.group(ImageGroup)
        state = await images.state()
        slots = await _optional(images.slots())
        bootloader = await _optional(connection.group(OsGroup).bootloader())
        return DeviceState(state, slots, Bootloader() if bootloader is None else bootloader, params)

    async def _erase(self, step: Erase) -> None:
        async def erase(connection: Connection) -> None:
            await connection.group(ImageGroup).erase(step.slot, timeout_s=self.policy.erase_timeout_s)

        with self._stage(StageName.ERASE, "erasing, which can take a minute") as stage:
            self._listed = None
            try:
                await self._over_link(erase)
                stage.result = "erased"
            except DeviceError as error:
                if not _unsupported(error):
                    raise
                stage.result = "not erased: the device knows no such command, and erases during the upload"

    async def _upload(self, step: Upload) -> None:
        policy = self.policy
        options = UploadOptions(
            policy.image, policy.erase_timeout_s, policy.chunk_bytes, policy.window, policy.upgrade_only, self.pause
        )
        farthest = 0
        attempts = 0

        async def transfer(connection: Connection) -> None:
            nonlocal attempts, farthest
            attempts += 1
            images = connection.group(ImageGroup)
            # The link may have been lost with the answer to the last chunk; a new upload would begin with an erase.
            # Padding comes behind what is needed to be listed, but once it is there it shows as pending.
            there = self._staged(await images.state()) if attempts > 1 else None
            if there is not None and (there.pending or not self.image.padded):
                return
            started_at = farthest
            last: Bytes | None = None

            def listen(event: Event) -> None:
                nonlocal farthest, last
                if isinstance(event, Bytes):
                    last = event
                    if event.done > farthest:
                        farthest = event.done
                        self._failures = 0
                self.progress(event)

            try:
                await images.upload(self.image, options, listen)
            except RequestTimeout as error:
                # On a link that cannot be lost, silence is all there is to see of it. Bounded by what got through.
                if farthest == started_at:
                    raise
                raise LinkLost(error.message, address=self.device.address, hint=error.hint) from error
            finally:
                if last is not None:
                    self.bytes_sent += max(0, last.done - last.resumed_from)
                    self.upload_s += last.elapsed_s
                    self.speed = last.speed

        with self._stage(StageName.UPLOAD, f"uploading {self.new}") as stage:
            self._listed = None
            await self._over_link(transfer)
            images = await self._list()
            staged = self._staged(images)
            if staged is None and any(slot.hash is not None for slot in images.slots):
                raise FlowError(
                    f"the upload of {self.new} is complete, but the device does not list it",
                    stage=StageName.UPLOAD,
                    slot=step.slot,
                    hint=Hint(
                        "was it written to another slot, or is it signed in a way that the device cannot read? See ",
                        Run("image list"),
                    ),
                )
            stage.result = f"{self.new} is in slot {step.slot if staged is None else staged.slot}"
            if staged is None:
                stage.result += ", unchecked: the device lists no hashes"

    async def _mark(self, step: Mark) -> None:
        reason: FlowError | None = None

        async def mark(connection: Connection) -> None:
            nonlocal reason
            images = connection.group(ImageGroup)
            state = await images.state() if self._listed is None else self._listed
            if self._pending(state) is None:
                try:
                    state = await (images.confirm(self.image.hash) if step.permanent else images.test(self.image.hash))
                except DeviceError as error:
                    if not _unanswerable(error):
                        raise
                except FlowError as error:
                    reason = error
                # What the answer shows counts, but one that shows nothing may just have found no room.
                if self._pending(state) is None:
                    state = await images.state()
            self._listed = state

        how = "to stay" if step.permanent else "for a test boot"
        with self._stage(StageName.MARK, f"marking {self.new} {how}") as stage:
            try:
                await self._over_link(mark)
            except DeviceError as error:
                if step.required or not _unsupported(error):
                    raise
                stage.result = "not marked: the device knows no marks"
                return
            pending = self._pending(await self._list())
            if pending is None:
                raise FlowError(
                    f"the device took the mark for {self.new}, but does not show it",
                    stage=StageName.MARK,
                    outcome=Outcome.REJECTED,
                    hint=Hint("it may forbid this version (downgrade prevention); see ", Run("image list")),
                ) from reason
            if step.permanent and not pending.permanent:
                stage.result = "marked for a test boot, to be confirmed once it runs"
            elif self.image.pad_confirmed and pending.permanent and not step.permanent:
                stage.result = "marked to stay, by the padding of the file"
            else:
                stage.result = f"marked {how}"

    async def _reset(self) -> None:
        asked = False

        async def reset(connection: Connection) -> None:
            nonlocal asked
            # Once more after a lost link, but never for a device that it has reached: that would end a test boot.
            if asked and (await connection.group(ImageGroup).state()).slots != self._before.slots:
                return
            asked = True
            try:
                await connection.group(OsGroup).reset()
            except RequestTimeout:
                return  # the device is gone, which is what was asked for
            except DeviceError as error:
                error.hint = error.hint or f"{self.new} is installed by the next reset, whatever causes it"
                raise

        with self._stage(StageName.RESET, "resetting") as stage:
            if self.resets == 0:
                self._before = await self._list()
            self.device.expect_reset()
            await self._over_link(reset)
            self.resets += 1
            self._listed = None
            self._linked = False
            self._reset_at_s = _now()
            self._deadline_s = self._reset_at_s + self.policy.boot_timeout_s
            stage.result = "the device restarts"

    async def _prove(self, step: Prove) -> None:
        while True:
            images = await self._await_return()
            with self._stage(StageName.PROVE, f"proving that {self.new} runs") as stage:
                while self._undecided(images, step.listed) and _now() < self._reset_at_s + self.policy.grace_s:
                    await asyncio.sleep(_PAUSE_S)
                    images = await self._hear()
                self._listed = images
                if self._runs(images):
                    stage.result = f"{self.new} runs"
                    return
                if self._recovery(images):
                    stage.result = self._leave_recovery()
                elif not step.listed:
                    raise self._unlisted(images)
                elif self._undecided(images) and not self._reset_repeated:
                    self._reset_repeated = True
                    stage.result = "nothing has changed: the reset may not have reached the device, so once more"
                else:
                    raise self._failed(images)
            await self._reset()

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
        self._quiet_s = 3 * (_QUIET_S if self.policy.quiet_s is None else self.policy.quiet_s)
        return (
            "the bootloader's serial recovery answers: resetting once more, "
            f"with {self._quiet_s:g} s of silence afterwards"
        )

    async def _confirm(self, hash: bytes | None) -> None:
        reason: McumgrError | None = None

        async def confirm(connection: Connection) -> None:
            nonlocal reason
            images = connection.group(ImageGroup)
            state = await images.state() if self._listed is None else self._listed
            try:
                if self._runs(state) and not self._confirmed(state):
                    self._listed = None
                    try:
                        state = await images.confirm(hash)
                    except DeviceError as error:
                        if not _unanswerable(error):
                            raise
                    except FlowError as error:
                        reason = error
                    if not self._confirmed(state):
                        state = await images.state()
            except RequestTimeout as error:
                raise LinkLost(error.message, address=self.device.address, hint=error.hint) from error
            self._listed = state

        with self._stage(StageName.CONFIRM, f"confirming {self.new}") as stage:
            if self._confirmed():
                stage.result = f"{self.new} is confirmed already"
                return
            try:
                await self._over_link(confirm)
            except (DeviceError, TransportError, ProtocolError) as error:
                reason = error
                self._listed = None
            else:
                state = await self._list()
                if not self._runs(state):
                    # It has been reset meanwhile. What was confirmed then was the old image, which was so before.
                    raise self._failed(state)
            if not self._confirmed():
                because = "" if reason is None else f" ({reason})"
                raise FlowError(
                    f"{self.new} runs, but could not be confirmed{because}",
                    stage=StageName.CONFIRM,
                    outcome=Outcome.NOT_CONFIRMED,
                    hint=_CONFIRM_AGAIN if hash is None else _NEEDS_ITS_APPLICATION,
                ) from reason
            stage.result = f"{self.new} is confirmed"

    # -- after a reset

    async def _await_return(self) -> ImageState:
        """The image list of a device that has been reset."""
        with self._stage(StageName.RETURN, "waiting for the device to return") as stage:
            images = await self._hear()
            stage.result = "it answers again"
        return images

    async def _hear(self) -> ImageState:
        """The image list, asked for until it comes or the time to boot is over."""
        attempt = 0
        while True:
            try:
                if not self._linked:
                    hint = ReturnHint(self._quiet_s, max(self._deadline_s - _now(), 0.1))
                    self._connection = await self.device.rediscover(hint, self.progress)
                    self._linked = True
                assert self._connection is not None
                async with asyncio.timeout(_PATIENCE_S[min(attempt, len(_PATIENCE_S) - 1)]):
                    return await self._connection.group(ImageGroup).state()
            # `RequestTimeout` is a `TimeoutError` too. A refusal or nonsense comes from a device still on its way.
            except (TransportError, TimeoutError, DeviceError, ProtocolError) as error:
                if isinstance(error, TransportError):
                    self._linked = False
                if _now() >= self._deadline_s:
                    raise self._no_return(error) from error
                if not isinstance(error, TimeoutError):
                    await asyncio.sleep(_PAUSE_S)
            attempt += 1

    def _undecided(self, images: ImageState, listed: bool = True) -> bool:
        """Whether this may still be the answer of the old application, on its way down."""
        if self._runs(images) or self._recovery(images):
            return False
        if images.slots == self._before.slots:
            return True
        staged = self._staged(images)
        return (listed and images.active(self.policy.image) is None) or (staged is not None and staged.pending)

    def _recovery(self, images: ImageState) -> bool:
        """Whether the bootloader's recovery answers; a list that has looked like that all along does not say."""
        return in_recovery(images) and not in_recovery(self._before)

    def _failed(self, images: ImageState) -> FlowError:
        """What the list says of an update that did not succeed."""
        active = images.active(self.policy.image)
        staged = self._staged(images)
        old = "the old image" if self._old is None else shown_version(self._old.version)
        runs = "nothing known" if active is None else shown_version(active.version)
        slot = None if staged is None else staged.slot
        if active is None or (self._old is not None and active.hash != self._old.hash):
            outcome = Outcome.OTHER_IMAGE
            message = f"{runs} runs, neither {self.new} nor {old}"
            hint: str = Hint("did somebody else update the device? See ", Run("image list"))
        elif staged is None:
            outcome = Outcome.REJECTED
            message = f"the bootloader did not keep {self.new}: {runs} runs, and {self.new} is gone from the device"
            hint = (
                "it was refused (signed with another key? older than allowed? a dependency missing?), or it ran and "
                "was given up; the bootloader's log says why"
            )
        elif staged.pending or images.slots == self._before.slots:
            outcome = Outcome.NEVER_SWAPPED
            message = f"{runs} still runs after the reset, and {self.new} still waits in slot {staged.slot}"
            hint = (
                Hint(
                    "did the device really reset? An image that is too large to be swapped, or that needs a newer "
                    "image beside it, waits for ever: remove it with ",
                    Run("image erase"),
                )
                if staged.pending
                else "the bootloader did not choose it: it may want a higher version or another kind of image"
            )
        else:
            outcome = Outcome.REVERTED
            message = f"{self.new} did not stay: {runs} runs again"
            hint = (
                f"{self.new} was started, and reset before it was confirmed: it probably crashed or hung. "
                f"It is still in slot {staged.slot}"
            )
        return FlowError(message, stage=StageName.PROVE, outcome=outcome, slot=slot, hint=hint)

    def _unlisted(self, images: ImageState) -> FlowError:
        """What there is to say of an image whose running slot the device never lists."""
        staged = self._staged(images)
        if staged is None:
            return FlowError(
                f"{self.new} has left its slot, but it cannot be proven that it runs: the device does not list what "
                f"runs of image {self.policy.image}",
                stage=StageName.PROVE,
                outcome=Outcome.UNSEEN,
                hint="it was installed, or refused and erased: both look like this. The other core tells, or its log; "
                "give it some seconds before the next reset",
            )
        waits = "still waits" if staged.pending else "is still"
        return FlowError(
            f"{self.new} {waits} in slot {staged.slot} after the reset: it was not installed",
            stage=StageName.PROVE,
            outcome=Outcome.NEVER_SWAPPED,
            slot=staged.slot,
            hint="did the device really reset? An image that is too large, or that needs a newer image beside it, "
            "waits for ever",
        )

    def _no_return(self, reason: BaseException) -> FlowError:
        old = "" if self._old is None else f" (ran {shown_version(self._old.version)} before)"
        what = "does not answer" if isinstance(reason, TimeoutError) else f"has not returned: {reason}"
        return FlowError(
            f"no sign of {self.new}{old}: {self.policy.boot_timeout_s:g} s after its reset the device {what}",
            stage=StageName.RETURN,
            outcome=Outcome.NO_RETURN,
            hint="a swap can take minutes: raise --boot-timeout; or look at the device's log. "
            "The same command again tells how it ended",
        )

    # -- links

    async def _over_link(self, operation: Callable[[Connection], Awaitable[T]]) -> T:
        """The result of `operation`, which is begun again over a new link when the link is lost, a few times."""
        while True:
            try:
                if self._connection is None or not self._linked:
                    hint = ReturnHint(self.policy.quiet_s, _RECONNECT_TIMEOUT_S)
                    self._connection = await self.device.rediscover(hint, self.progress)
                    self._linked = True
                    self.reconnects += 1
                return await operation(self._connection)
            except LinkLost as error:
                self._linked = False
                self._listed = None
                await self.device.close()  # it may be the answers alone that were lost
                if self._failures >= self.policy.reconnects:
                    error.hint = error.hint or "run the same command again: it goes on from where the device is"
                    raise
                pause_s = _BACK_OFF_S[min(self._failures, len(_BACK_OFF_S) - 1)]
                self._failures += 1
                self.progress(Note(f"{error}; reconnecting"))
                await asyncio.sleep(pause_s)

    async def _list(self) -> ImageState:
        """The image list, asked for if it may have changed."""
        if self._listed is None:

            async def state(connection: Connection) -> ImageState:
                return await connection.group(ImageGroup).state()

            self._listed = await self._over_link(state)
        return self._listed

    # -- what a list says of the new image

    def _staged(self, images: ImageState) -> Slot | None:
        """The slot, not running, that holds the new image: the file's hash, or once it has run that it ran under."""
        return next(
            (
                slot
                for slot in images.slots
                if slot.image == self.policy.image and slot.hash in self.image.hashes_when_running and not slot.active
            ),
            None,
        )

    def _pending(self, images: ImageState) -> Slot | None:
        staged = self._staged(images)
        return staged if staged is not None and staged.pending else None

    def _runs(self, images: ImageState) -> bool:
        active = images.active(self.policy.image)
        return active is not None and active.hash in self.image.hashes_when_running

    def _confirmed(self, images: ImageState | None = None) -> bool:
        images = self._listed if images is None else images
        if images is None or not self._runs(images):
            return False
        active = images.active(self.policy.image)
        return active is not None and active.confirmed

    # -- telling

    @contextmanager
    def _stage(self, name: StageName, text: str) -> Iterator[_Running]:
        """Tell that a stage begins, and, unless it fails, how it ended."""
        begin = _now()
        running = _Running()
        self.progress(Stage(name, text))
        yield running
        elapsed_s = _now() - begin
        self.steps.append(StepDone(name.value, running.result, elapsed_s))
        self.progress(Stage(name, running.result, finished=True, elapsed_s=elapsed_s))


class _Running:
    """A stage in progress; `result` is told at its end."""

    result = "done"


async def _optional(asked: Awaitable[T]) -> T | None:
    """What many devices cannot tell, and what an update can do without."""
    try:
        return await asked
    except (DeviceError, RequestTimeout, ProtocolError):
        return None


def _unsupported(error: DeviceError) -> bool:
    return error.group is None and error.rc == SmpError.NOT_SUPPORTED


def _unanswerable(error: DeviceError) -> bool:
    """The device has done it, but the image list of its answer does not fit its buffer."""
    return error.group is None and error.rc == SmpError.MESSAGE_SIZE


def _described(state: DeviceState, image: int) -> str:
    active = state.images.active(image)
    if active is None and image:
        return f"it does not list what runs of image {image}"
    if active is None:
        return "no image runs" if state.recovery else "it does not say which image runs"
    return f"{shown_version(active.version)} runs{'' if active.confirmed else ', not confirmed'}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _now() -> float:
    return asyncio.get_running_loop().time()
