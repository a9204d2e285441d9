"""What a new image has to stand between the proof that it runs and its confirmation: time, and checks.

* An image on trial that still runs has not restarted: the bootloader would have gone back. One that is confirmed
  already, by itself, can have; then only the text of the device tells, or a link that nobody could have lost.
* What is to be confirmed has to answer an echo before. That costs one request; the link that it comes over has been
  opened anew after the reset, unless it survives one.
* A check that says no, or gets no answer out of the device in its time, has found the image unhealthy. One that cannot
  be carried out has found nothing. Neither image is confirmed; what becomes of it is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Never

from ..contracts import Connection, HealthCheck, OnTrial, OsGroup, OutsideCheck
from ..errors import (
    FlowError,
    McumgrError,
    Outcome,
    PluginError,
    RequestTimeout,
    TransportError,
    UsageError,
    WrongDevice,
)
from ..events import StageName
from ..hints import Hint, Run
from ..isolation import is_wanted, said
from ..messages.standard import ImageState
from .device_state import in_recovery, shown_version
from .job import Job
from .link import NoReturn, now
from .plan import GoBack, Soak
from .trial import GoingBack

__all__ = ["Answering", "Checking", "Soaking"]

# Between two looks at a device that is only watched.
_LOOK_S = 2.0

# For an echo: as long as for any answer, unless the client has less patience.
_ECHO_S = 5.0


class Soaking:
    """The time in which the new image has to stay up."""

    def __init__(self, job: Job, step: Soak) -> None:
        self._job = job
        self._seconds = step.seconds

    async def run(self) -> None:
        job, seconds = self._job, self._seconds
        _begin(job)
        with _told_if_interrupted(job):
            with job.stage(StageName.SOAK, f"watching {job.new} for {seconds:g} s") as stage:
                problem = await self._watch()
                stage.result = f"{job.new} {problem or 'stayed up'}"
            if problem is not None:
                await _not_healthy(job, problem, Outcome.UNHEALTHY)

    async def _watch(self) -> str | None:
        """What is wrong with it, if it still runs."""
        job = self._job
        job.device.expect_reset()  # from now on its text tells of another start
        end_s = now() + self._seconds
        while True:
            try:
                images, at_once = await job.link.look()
            except (NoReturn, WrongDevice) as error:
                raise FlowError(
                    f"{job.new} did not stay up: {error or 'it does not answer any more'}",
                    stage=StageName.SOAK,
                    outcome=Outcome.NO_RETURN,
                    hint="install another image, from the firmware loader if the application does not come back"
                    if job.loader
                    else "nothing is confirmed: the next reset goes back to the old image",
                ) from error
            job.listed = images
            _check_running(job, images)
            if job.device.restarted:
                return "restarted"
            if not at_once and job.confirmed:
                return "went silent for a while, perhaps for a restart: what is confirmed already does not show it"
            if now() >= end_s:
                return None
            await asyncio.sleep(min(_LOOK_S, end_s - now()))


class Answering:
    """The last look, a part of the confirmation: that the new image still answers.

    An echo, because it is what every server is built with; one without it is asked for its list.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    async def run(self) -> None:
        job = self._job
        _begin(job)
        with _told_if_interrupted(job):
            try:
                if await job.link.run(self.over) is None:
                    job.listed = None
                    await job.list()
            except (TransportError, RequestTimeout) as error:
                await _not_healthy(job, f"{_be(job)} not healthy: no answer to an echo ({error})", Outcome.UNHEALTHY)

    async def over(self, connection: Connection) -> str | None:
        ask = connection.group(OsGroup).echo
        return await connection.optional("echo", lambda: ask("mcumgrx"), _ECHO_S)


class Checking:
    """The checks of the policy, one after the other."""

    def __init__(self, job: Job) -> None:
        self._job = job

    async def run(self) -> None:
        job = self._job
        _begin(job)
        with _told_if_interrupted(job):
            for check in job.policy.checks:
                with job.stage(StageName.CHECK, f"asking {check.name} whether {job.new} {_be(job)} healthy") as stage:
                    problem, outcome = await self._ask(check)
                    stage.result = f"{check.name}: {problem or 'healthy'}"
                if problem is not None:
                    verb = f"{_be(job)} not healthy" if outcome is Outcome.UNHEALTHY else "could not be checked"
                    await _not_healthy(job, f"{verb}: {check.name}: {problem}", outcome)

    async def _ask(self, check: HealthCheck | OutsideCheck) -> tuple[str | None, Outcome]:
        """What is wrong, and whether with the image or with the check."""
        job = self._job
        target = job.target
        facts = OnTrial(job.device.address, target.version, target.image.hash, target.number, job.progress)
        job.link.failures = 0
        job.listed = None
        try:
            async with asyncio.timeout(job.policy.check_timeout_s):
                if isinstance(check, OutsideCheck):
                    await job.link.release()
                    told: object = await check.ask(facts)
                else:
                    told = await job.link.run(lambda connection: check.ask(connection, facts))
        except (PluginError, UsageError) as error:
            return str(error), Outcome.NOT_CONFIRMED
        except McumgrError as error:
            return str(error), Outcome.UNHEALTHY
        except TimeoutError:
            return f"no result within {job.policy.check_timeout_s:g} s", Outcome.UNHEALTHY
        except BaseException as error:
            task = asyncio.current_task()
            if is_wanted(error) or (isinstance(error, asyncio.CancelledError) and task and task.cancelling()):
                raise
            return f"the check itself failed: {said(error)}", Outcome.NOT_CONFIRMED
        if told is None or (isinstance(told, str) and told.strip()):
            return told if told is None else str(told), Outcome.UNHEALTHY
        return f"the check said {told!r}, neither None nor what is wrong", Outcome.NOT_CONFIRMED


def _be(job: Job) -> str:
    return "is" if len(job.targets) == 1 else "are"


def _begin(job: Job) -> None:
    """Where the run has begun with the image on trial, what ran before it is in the other slot."""
    if job.resets == 0 and job.listed is not None:
        for number, target in job.targets.items():
            if target.running(job.listed) is not None:
                job.old[number] = job.listed.other(number) or job.old.get(number)


def _check_running(job: Job, images: ImageState) -> None:
    """Raise if what is new does not run any more."""
    if job.all_run(images):
        return
    if in_recovery(images):
        raise FlowError(
            f"{job.new} did not stay up: the bootloader's serial recovery answers",
            stage=StageName.CHECK,
            outcome=Outcome.NO_RETURN,
            hint=Hint("return to the application with ", Run("os reset")),
        )
    raise job.failed(images)


@contextmanager
def _told_if_interrupted(job: Job) -> Iterator[None]:
    try:
        yield
    except asyncio.CancelledError:
        left = "it is left as it is, and on trial the next reset goes back to the old image"
        was = "was confirmed"
        if job.loader:
            was, left = "was seen to be healthy", "it stays"
        job.note(f"interrupted before {job.new} {was}: {left}", warning=True)
        raise


async def _not_healthy(job: Job, problem: str, outcome: Outcome) -> Never:
    """It is not confirmed: it goes back to the old image, or says what is left."""
    what = f"{job.new} {problem}"
    job.listed = None
    left = "left unconfirmed: the next reset goes back to the old image"
    try:
        _check_running(job, await job.list())
    except FlowError as error:
        error.message = f"{what}; {error.message}"
        raise
    except McumgrError as error:
        raise FlowError(f"{what}, and now {error}; {left}", stage=StageName.CHECK, outcome=outcome) from error
    if job.confirmed:
        text, hint = f"{what}; already confirmed, so that no reset goes back", "install another image"
        raise FlowError(text, stage=StageName.CHECK, outcome=outcome, hint=hint)
    if job.policy.rollback:
        await _roll_back(job, what, outcome)
    raise FlowError(
        f"{what}; {left}",
        stage=StageName.CHECK,
        outcome=outcome,
        hint=Hint(
            "look at it as long as it runs: the same command checks it anew, and ", Run("os reset"), " goes back"
        ),
    )


async def _roll_back(job: Job, what: str, outcome: Outcome) -> Never:
    images = await job.list()
    steps = {number: step for number in job.targets if (step := _step_back(job, number, images)) is not None}
    if not steps:
        raise FlowError(
            f"{what}; left unconfirmed, because the device shows nothing that a reset would go back to",
            stage=StageName.CHECK,
            outcome=outcome,
            hint=Hint("what is in the slots shows ", Run("image list")),
        )
    going = GoingBack(job, steps, what)
    await going.run()
    raise FlowError(
        f"{what}; taken back: {going.old} run{'s' if len(steps) == 1 else ''} again",
        stage=StageName.CHECK,
        outcome=Outcome.REVERTED,
        hint=f"{job.new} may still be in the other slot",
    )


def _step_back(job: Job, number: int, images: ImageState) -> GoBack | None:
    """What a reset puts in the place of this image, if it is on trial."""
    target, other = job.targets[number], images.other(number)
    running = target.running(images)
    old = other if other is not None and other.confirmed else job.old.get(number)
    if running is None or running.confirmed or old is None or old.hash is None:
        return None
    if old.hash in target.image.hashes_when_running:
        return None
    return GoBack(shown_version(old.version), old.hash, target.version)
