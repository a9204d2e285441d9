"""The same update for many devices: the plans of all first, then so many at a time, and one report.

::

    from mcumgrx import device, load_image
    from mcumgrx.flows.fleet import FleetPolicy, update_fleet

    shelf = [device(f"udp:192.0.2.{n}") for n in range(10, 50)]
    report = await update_fleet(shelf, load_image("app.signed.bin"), fleet=FleetPolicy(canary=2, max_failures=3))

Each device is read twice: once for its plan, and again when its turn comes, since hours may lie between. No link is
kept open from one to the other. What one device does, answers or breaks is its own result, and nobody else's.

Who carries an update out is an `Executor`: this process, or anything that can run `flows.update` where the device is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from ..contracts import Device
from ..errors import Exit, FlowError, McumgrError, PlanRefused
from ..events import Event, Progress, guarded, ignore_progress
from ..isolation import is_wanted, said
from ..mcuboot import Image
from .dfu import update
from .link import now
from .plan import Plan
from .policy import DfuPolicy, InvalidPolicy
from .report import Ending, Report
from .variants import Files

__all__ = [
    "DeviceBegins",
    "DeviceEnds",
    "DeviceEvent",
    "DevicePlanned",
    "DeviceResult",
    "Executor",
    "FleetPlan",
    "FleetPolicy",
    "FleetReport",
    "Here",
    "Member",
    "OnPlans",
    "Task",
    "Verdict",
    "update_fleet",
]

log = logging.getLogger("mcumgrx.fleet")

# At once over one link, where the link is shared: an adapter has few connections, and shares its air time among them.
SHARED_LINKS: Mapping[str, int] = {"ble": 3}


@dataclass(frozen=True, slots=True)
class FleetPolicy:
    """How many at once, and when to stop.

    Attributes:
        jobs: devices that are updated at the same time.
        jobs_by_link: fewer, of those that share a link, by the scheme of their addresses.
        canary: so many devices go first; the others begin when all of them are proven.
        max_failures: no device is begun any more after more failures than these; None for no limit.
        stop_on: nor after a failure that ends with one of these exit codes.
    """

    jobs: int = 16
    jobs_by_link: Mapping[str, int] = field(default_factory=lambda: dict(SHARED_LINKS))
    canary: int = 0
    max_failures: int | None = None
    stop_on: frozenset[Exit] = frozenset()

    def __post_init__(self) -> None:
        if self.jobs < 1 or any(most < 1 for most in self.jobs_by_link.values()):
            raise InvalidPolicy("jobs", "must be at least 1")
        if self.canary < 0:
            raise InvalidPolicy("canary", "must not be negative")
        if self.max_failures is not None and self.max_failures < 0:
            raise InvalidPolicy("max_failures", "must not be negative")


@dataclass(frozen=True, slots=True)
class Member:
    """A device of the fleet: its address, and the device itself where this process can reach it.

    `at` is where else it can be reached: the name of a computer that has ports and radios of its own.
    """

    address: str
    device: Device | None = None
    at: str | None = None

    @property
    def name(self) -> str:
        """What tells it from all others: the same port is another device on another computer."""
        return self.address if self.at is None else f"{self.address} @{self.at}"

    @property
    def link(self) -> str:
        """The scheme of its address."""
        return self.address.partition(":")[0]


class Verdict(StrEnum):
    """What has become of one device."""

    DONE = "done"
    """As wanted: updated and proven as far as the policy goes, or it was so already."""
    FAILED = "failed"
    """Its update has failed, or was refused."""
    LEFT = "left"
    """It was not begun."""
    UNKNOWN = "unknown"
    """Whoever had it has gone in the middle: read it again."""


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """What has become of one device.

    Attributes:
        address: the name of the `Member`, here and in all events: its address, and where it can be reached.
        identity: what tells it from all others, if the link knows.
        plan: what was to be done; None where it could not be made.
        report: of an update that has not failed.
        error: why it has failed.
    """

    address: str
    verdict: Verdict
    identity: str | None = None
    plan: Plan | None = None
    report: Report | None = None
    error: BaseException | None = field(default=None, compare=False)
    elapsed_s: float = 0.0

    @property
    def exit(self) -> int:
        """The exit code that its update alone would have."""
        if self.error is None:
            return Exit.DONE
        return self.error.exit if isinstance(self.error, McumgrError) else Exit.BUG

    @property
    def reason(self) -> str:
        """Why, in one sentence that does not name the device, so that equal ones are found equal."""
        if self.error is not None:
            text = str(self.error) if isinstance(self.error, McumgrError) else said(self.error)
            return text.replace(self.address.rpartition(" @")[0] or self.address, "the device")
        if self.report is not None:
            return self.report.summary
        return "it was not begun" if self.verdict is Verdict.LEFT else "nothing is known of it"

    def as_dict(self) -> dict[str, object]:
        """The result as JSON takes it."""
        outcome = self.error.outcome if isinstance(self.error, FlowError) else None
        return {
            "address": self.address,
            "identity": self.identity,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "exit": int(self.exit),
            "outcome": None if outcome is None else outcome.value,
            "report": None if self.report is None else self.report.as_dict(),
            "elapsed_s": round(self.elapsed_s, 3),
        }


# -- what is told ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeviceBegins(Event):
    """The turn of this device has come."""

    address: str


@dataclass(frozen=True, slots=True)
class DeviceEvent(Event):
    """What the update of one device tells."""

    address: str
    event: Event


@dataclass(frozen=True, slots=True)
class DevicePlanned(Event):
    """The plan for a device is there, or why there is none."""

    result: DeviceResult

    @property
    def address(self) -> str:
        return self.result.address


@dataclass(frozen=True, slots=True)
class DeviceEnds(Event):
    """A device is through."""

    result: DeviceResult

    @property
    def address(self) -> str:
        return self.result.address

    @property
    def text(self) -> str:
        failed = "" if self.result.verdict is Verdict.DONE else f"{self.result.verdict.value}: "
        return f"{self.address}: {failed}{self.result.reason}"


@dataclass(frozen=True, slots=True)
class FleetPlan:
    """The plans of all, in the order of the devices: what is known before the first byte is sent."""

    results: tuple[DeviceResult, ...]

    @property
    def todo(self) -> tuple[DeviceResult, ...]:
        """Those to which something is to be done."""
        return tuple(one for one in self.results if one.plan is not None and one.plan.steps)

    @property
    def no_way_back(self) -> tuple[str, ...]:
        """Why there is no way back, on how many devices."""
        found = Counter(reason for one in self.todo if one.plan is not None for reason in one.plan.no_way_back)
        return tuple(f"{reason} ({count} of {len(self.results)} devices)" for reason, count in found.items())


@dataclass(frozen=True, slots=True)
class FleetReport:
    """What has become of all, in the order of the devices.

    Attributes:
        stopped: why not all were begun; None if they were.
    """

    results: tuple[DeviceResult, ...]
    stopped: str | None = None
    elapsed_s: float = 0.0

    @property
    def counts(self) -> Mapping[Verdict, int]:
        """How many of each verdict there are, 0 included."""
        found = Counter(one.verdict for one in self.results)
        return {verdict: found[verdict] for verdict in Verdict}

    @property
    def reasons(self) -> Mapping[str, tuple[DeviceResult, ...]]:
        """Those that are not done, by their reasons, the most frequent one first."""
        found: dict[str, list[DeviceResult]] = {}
        for one in self.results:
            if one.verdict is not Verdict.DONE:
                found.setdefault(one.reason, []).append(one)
        return {reason: tuple(found[reason]) for reason in sorted(found, key=lambda reason: -len(found[reason]))}

    @property
    def exit(self) -> Exit:
        """0 if all are done."""
        return Exit.DONE if all(one.verdict is Verdict.DONE for one in self.results) else Exit.FLEET

    def as_dict(self) -> dict[str, object]:
        """The report as JSON takes it."""
        return {
            **{verdict.value: count for verdict, count in self.counts.items()},
            "stopped": self.stopped,
            "reasons": [
                {"reason": reason, "devices": [one.address for one in those]} for reason, those in self.reasons.items()
            ],
            "devices": [one.as_dict() for one in self.results],
            "elapsed_s": round(self.elapsed_s, 3),
        }


OnPlans = Callable[[FleetPlan], Awaitable[bool]]


# -- who does it -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """What an executor is to do with a device.

    Attributes:
        only_plan: read it and plan, and change nothing.
        agreed: reasons why there is no way back that somebody has agreed to; with any other nothing is done.
    """

    files: Files
    policy: DfuPolicy
    only_plan: bool
    agreed: frozenset[str] = frozenset()

    async def on_plan(self, plan: Plan) -> bool:
        """Whether to carry this plan out."""
        new = [reason for reason in plan.no_way_back if reason not in self.agreed]
        if new and not self.only_plan:
            raise PlanRefused(
                f"the device has changed since its plan was agreed to: {'; '.join(new)}", hint="plan it once more"
            )
        return not (self.only_plan and plan.steps)


class Executor(Protocol):
    """Carries an update out where the device is. What it raises is the device's result, and nobody else's."""

    async def run(self, member: Member, task: Task, tell: Progress) -> Report:
        """Do `task` with one device, as `flows.update` does; what that tells goes to `tell`."""


class Gone(McumgrError):
    """Whoever carried the update out has gone, and what has become of the device is not known."""

    exit = Exit.UNPROVEN


class Here:
    """In this process."""

    async def run(self, member: Member, task: Task, tell: Progress) -> Report:
        assert member.device is not None  # as made by `update_fleet`
        return await update(member.device, task.files, task.policy, tell, on_plan=task.on_plan)


# -- the fleet ---------------------------------------------------------------------------------------------------------


async def update_fleet(
    devices: Iterable[Device | Member],
    image: Image | Files,
    policy: DfuPolicy = DfuPolicy(),  # noqa: B008 - immutable
    progress: Progress = ignore_progress,
    *,
    fleet: FleetPolicy = FleetPolicy(),
    on_plans: OnPlans | None = None,
    executor: Executor | None = None,
) -> FleetReport:
    """Bring `image` onto all `devices` as `policy` wants it, each as `flows.update` does it.

    `on_plans` gets the plans of all before the first byte is sent, to show them and to ask; when it returns false
    nothing is done, and all are `LEFT`. A device whose plan could not be made has failed; the others go on.

    Raises `ValueError` where two devices have the same address. What fails on a device raises nothing: it is in the
    report.
    """
    members = [one if isinstance(one, Member) else Member(one.address, one) for one in devices]
    twice = [name for name, count in Counter(member.name for member in members).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0]} is twice in the fleet")
    files: Files = {policy.image: image} if isinstance(image, Image) else dict(image)
    return await _Fleet(members, files, policy, guarded(progress), fleet, executor or Here()).run(on_plans)


class _Fleet:
    def __init__(
        self,
        members: Sequence[Member],
        files: Files,
        policy: DfuPolicy,
        progress: Progress,
        fleet: FleetPolicy,
        executor: Executor,
    ) -> None:
        self._members = members
        self._files = files
        self._policy = policy
        self._progress = progress
        self._fleet = fleet
        self._executor = executor
        self._results = {member.name: DeviceResult(member.name, Verdict.LEFT) for member in members}
        self._all = asyncio.Semaphore(fleet.jobs)
        self._sharing: dict[tuple[str | None, str], asyncio.Semaphore] = {}
        self._stopped: str | None = None

    async def run(self, on_plans: OnPlans | None) -> FleetReport:
        begin = now()
        await self._each(self._members, self._plan)
        plans = FleetPlan(tuple(self._results.values()))
        if on_plans is None or await on_plans(plans):
            await self._carry_out(frozenset(reason for one in plans.todo for reason in _no_way_back(one)))
        return FleetReport(tuple(self._results.values()), self._stopped, now() - begin)

    async def _carry_out(self, agreed: frozenset[str]) -> None:
        for result in self._results.values():
            self._judge(result)
        todo = [member for member in self._members if self._results[member.name].verdict is Verdict.LEFT]
        task = Task(self._files, self._policy, only_plan=False, agreed=agreed)

        async def one(member: Member) -> None:
            await self._update(member, task)

        first, rest = todo[: self._fleet.canary], todo[self._fleet.canary :]
        await self._each(first, one)
        bad = sum(self._results[member.name].verdict is not Verdict.DONE for member in first)
        if bad and self._stopped is None:
            self._stopped = f"of the {len(first)} that go first {bad} failed"
        await self._each(rest, one)

    async def _each(self, members: Iterable[Member], work: Callable[[Member], Awaitable[None]]) -> None:
        async def in_turn(member: Member) -> None:
            async with self._turn(member):
                if self._stopped is None:
                    await work(member)

        async with asyncio.TaskGroup() as group:
            for member in members:
                group.create_task(in_turn(member), name=f"fleet {member.name}")

    @asynccontextmanager
    async def _turn(self, member: Member) -> AsyncIterator[None]:
        """A place of its link first, so that those who wait for it keep no other device waiting."""
        most = self._fleet.jobs_by_link.get(member.link, self._fleet.jobs)
        async with self._sharing.setdefault((member.at, member.link), asyncio.Semaphore(most)), self._all:
            yield

    async def _plan(self, member: Member) -> None:
        result = await self._result(member, Task(self._files, self._policy, only_plan=True))
        if result.report is not None and result.report.plan.steps:
            result = _left(result)
        self._results[member.name] = result
        self._progress(DevicePlanned(result))

    async def _update(self, member: Member, task: Task) -> None:
        self._progress(DeviceBegins(member.name))
        result = await self._result(member, task)
        self._results[member.name] = result
        self._progress(DeviceEnds(result))
        self._judge(result)

    def _judge(self, result: DeviceResult) -> None:
        """Begin no more devices, if it is one failure too many, or one that is feared."""
        if result.verdict in (Verdict.DONE, Verdict.LEFT) or self._stopped is not None:
            return
        failed = sum(one.verdict in (Verdict.FAILED, Verdict.UNKNOWN) for one in self._results.values())
        if result.exit in self._fleet.stop_on:
            self._stopped = f"{result.address} has ended with {Exit(result.exit).label}"
        elif self._fleet.max_failures is not None and failed > self._fleet.max_failures:
            self._stopped = f"{failed} devices have failed"

    async def _result(self, member: Member, task: Task) -> DeviceResult:
        """What has become of one device; whatever its update raises is only its own."""
        begin = now()
        known = self._results[member.name]

        def tell(event: Event) -> None:
            self._progress(DeviceEvent(member.name, event))

        report: Report | None = None
        error: BaseException | None = None
        try:
            report = await self._executor.run(member, task, tell)
        except asyncio.CancelledError as cancelled:
            current = asyncio.current_task()
            if current is None or current.cancelling():
                raise
            error = cancelled  # a stranger's own
        except BaseException as raised:
            if is_wanted(raised):
                raise
            error = raised
        if error is not None:
            log.debug("%s has failed", member.name, exc_info=error)
            _forget_frames(error)
        identity = member.device.identity if member.device is not None else None
        return DeviceResult(
            member.name,
            _verdict(error),
            identity or (report.identity if report is not None else known.identity),
            report.plan if report is not None else known.plan,
            report,
            error,
            now() - begin,
        )


def _forget_frames(error: BaseException) -> None:
    """The frames of an error that is kept would keep the link, the transfer and the device of each that has failed."""
    errors: list[BaseException | None] = [error]
    while errors:
        one = errors.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            errors += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _verdict(error: BaseException | None) -> Verdict:
    if error is None:
        return Verdict.DONE
    return Verdict.UNKNOWN if isinstance(error, Gone) else Verdict.FAILED


def _left(planned: DeviceResult) -> DeviceResult:
    """A device with a plan, whose turn has not come."""
    assert planned.report is not None
    assert planned.report.ending is Ending.NOT_STARTED
    return DeviceResult(planned.address, Verdict.LEFT, planned.identity, planned.plan, elapsed_s=planned.elapsed_s)


def _no_way_back(result: DeviceResult) -> tuple[str, ...]:
    return () if result.plan is None else result.plan.no_way_back
