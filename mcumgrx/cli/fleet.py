"""`mcumgrx dfu` of several devices: which they are, their plans as one table, one that lives, and the report."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import Exit, PlanRefused, UsageError
from ..events import Bytes, Event, Note, Progress, Stage
from .fleet_devices import bound, listed, matching
from .tables import Row, Table, table_lines
from .text import duration_text, rate_text

log = logging.getLogger("mcumgrx.fleet")

if TYPE_CHECKING:
    from ..flows import DfuPolicy
    from ..flows.fleet import DeviceResult, Executor, FleetPlan, FleetPolicy, FleetReport, Member
    from ..flows.variants import Files
    from .context import Context

__all__ = ["FleetOptions", "FleetResult", "Ledger", "PlansView", "update_all"]

# Between two pictures of the table.
_DRAW_S = 0.2

# So many devices are shown while they are updated; the status line counts the others.
_MOST_ROWS = 16

_BAR = 16

# Of the plans: a terminal of 80 columns, less what a renderer indents them by.
_PLANS_WIDTH = 64


# -- what is asked for -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FleetOptions:
    """The options of `mcumgrx dfu` that are about several devices."""

    match: tuple[str, ...]
    devices: Path | None
    jobs: tuple[str, ...]
    canary: int
    max_failures: int | None
    stop_on: tuple[str, ...]
    ledger: Path | None
    dask: str | None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> FleetOptions:
        """Those among all options of the command."""
        return cls(**{one.name: options[one.name] for one in fields(cls)})

    def are_meant(self, context: Context) -> bool:
        """Whether it is a fleet, and not one device."""
        meant = bool(self.match or self.devices or self.dask or len(context.settings.devices) > 1)
        if meant and context.settings.id is not None:
            raise UsageError("--id is the name of one device, and there are several")
        return meant

    @property
    def policy(self) -> FleetPolicy:
        """How many at once, and when to stop."""
        from ..flows.fleet import SHARED_LINKS, FleetPolicy
        from ..flows.policy import InvalidPolicy

        jobs, by_link = FleetPolicy().jobs, dict(SHARED_LINKS)
        for text in self.jobs:
            link, equals, number = text.rpartition("=")
            if not number.isdecimal():
                raise UsageError(f"--jobs {text}: {number!r} is not a number", hint="as in --jobs 8 or --jobs ble=2")
            if equals:
                by_link[link] = int(number)
            else:
                jobs = int(number)
        labels = {code.label: code for code in Exit if code not in (Exit.DONE, Exit.FLEET)}
        unknown = [label for label in self.stop_on if label not in labels]
        if unknown:
            raise UsageError(f"--stop-on {unknown[0]}: there is no such ending", hint=f"there are {', '.join(labels)}")
        stop_on = frozenset(labels[label] for label in self.stop_on)
        try:
            return FleetPolicy(jobs, by_link, self.canary, self.max_failures, stop_on)
        except InvalidPolicy as error:
            raise UsageError(f"--{error.field.replace('_', '-')} {error.requirement}") from error

    async def addresses(self, context: Context) -> list[str]:
        """All devices that are named, listed, or seen and fit; each once. With `--dask` some are bound: `… @WORKER`."""
        found = [*context.settings.devices]
        if self.devices is not None:
            found += listed(self.devices, bound=self.dask is not None)
        found += await matching(self.match, context) if self.dask is None else []
        return list(dict.fromkeys(found))

    @asynccontextmanager
    async def reached(self, context: Context) -> AsyncIterator[tuple[list[Member], Executor | None]]:
        """The devices, and who updates them: this process, or a cluster as long as this lasts."""
        from ..flows.fleet import Member

        addresses = await self.addresses(context)
        if self.dask is None:
            yield [Member(address, context.device_at(address)) for address in addresses], None
            return
        from ..gateways import gateways

        remember = not context.settings.no_cache
        async with gateways(self.dask, timeout_s=context.timeout_s, remember=remember) as executor:
            context.progress(Note(f"workers: {', '.join(executor.names)}"))
            yield await bound(addresses, self.match, executor, context.progress), executor


# -- what is shown -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlansView:
    """The plans of all devices as one table, shown before anything is touched."""

    plan: FleetPlan

    def lines(self) -> list[str]:
        rows = tuple(_planned(one) for one in self.plan.results)
        table = Table(("device", "runs", "new", "to do"), rows)
        told = f"{len(self.plan.todo)} of {len(rows)} devices to update"
        return [*table_lines(table, width=_PLANS_WIDTH), told]

    def as_dict(self) -> dict[str, object]:
        return {
            "devices": [
                {**one.as_dict(), "plan": None if one.plan is None else one.plan.as_dict()} for one in self.plan.results
            ]
        }


def _planned(one: DeviceResult) -> Row:
    if one.plan is None:
        return Row((one.address, "-", "-", "refused" if one.exit == Exit.PLAN_REFUSED else "failed"), (one.reason,))
    steps = len(one.plan.texts)
    runs = ", ".join(part.from_version or "not known" for part in one.plan.each)
    new = ", ".join(part.to_version for part in one.plan.each)
    return Row((one.address, runs, new, f"{steps} steps" if steps else "nothing to do"))


@dataclass(frozen=True, slots=True)
class FleetResult:
    """How the update of a fleet has ended: how many, and the reasons of those that are not done."""

    report: FleetReport
    dry_run: bool = False

    @property
    def exit_code(self) -> int:
        from ..flows.fleet import Verdict

        if self.dry_run:
            refused = any(one.verdict is Verdict.FAILED for one in self.report.results)
            return Exit.FLEET if refused else Exit.DONE
        return self.report.exit

    def as_dict(self) -> dict[str, object]:
        return self.report.as_dict()

    def lines(self) -> list[str]:
        report = self.report
        lines: list[str] = []
        for reason, those in report.reasons.items():
            if self.dry_run and all(one.error is None for one in those):
                continue
            hint = next((one.error.hint for one in those if one.error is not None and hasattr(one.error, "hint")), None)
            lines.append(f"{len(those)} × {those[0].verdict.value}: {reason}")
            lines += [f"    hint: {hint}"] if hint else []
            lines += [f"    {_named([one.address for one in those])}"]
        if report.stopped is not None:
            lines.append(f"stopped: {report.stopped}")
        if self.dry_run:
            return [*lines, "dry run: nothing was changed"]
        counts = ", ".join(f"{count} {verdict.value}" for verdict, count in report.counts.items() if count)
        return [*lines, f"done: {counts} of {len(report.results)} devices ({duration_text(report.elapsed_s)})"]


def _named(addresses: Sequence[str], most: int = 8) -> str:
    more = len(addresses) - most
    return ", ".join(addresses[:most]) + (f" and {more} more" if more > 0 else "")


# -- what is remembered ------------------------------------------------------------------------------------------------


class Ledger:
    """A file that tells what has become of each device, by its identity where it has one, over all runs.

    It is a report, and tells what is left; what is done to a device is decided by what the device itself says.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, dict[str, Any]] = {}
        self._whose: dict[str, str] = {}
        if path.exists():
            try:
                self._entries = dict(json.loads(path.read_text(encoding="utf-8"))["devices"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise UsageError(
                    f"{path} is no ledger that can be read: {error}", hint="move it away, or name another file"
                ) from error

    def left(self, addresses: Iterable[str]) -> list[str]:
        """Those of the addresses that are not done by the ledger."""
        done = {entry.get("address") for entry in self._entries.values() if entry.get("verdict") == "done"}
        return [address for address in addresses if address not in done]

    def note(self, result: DeviceResult) -> None:
        """Keep what has become of a device, at once: the program may end before the others are through."""
        plan = result.plan
        # At two gateways the same identity may be two devices: one of a link that tells them apart by address alone.
        known = result.identity or result.address
        key = known if self._whose.setdefault(known, result.address) == result.address else result.address
        self._entries[key] = {
            "address": result.address,
            "verdict": result.verdict.value,
            "reason": result.reason,
            "exit": int(result.exit),
            "to_version": None if plan is None else plan.to_version,
            "hash": None if plan is None else plan.hash,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        beside = self._path.with_name(f".{self._path.name}.new")
        try:
            beside.write_text(json.dumps({"devices": self._entries}, indent=1, ensure_ascii=False), encoding="utf-8")
            os.replace(beside, self._path)
        except OSError:
            with suppress(OSError):
                beside.unlink()
            raise


# -- the doing of it ---------------------------------------------------------------------------------------------------


async def update_all(
    context: Context, options: FleetOptions, images: Files, policy: DfuPolicy, dry_run: bool
) -> FleetResult:
    """Plan, show, ask, update, and tell of each device."""
    from ..flows.fleet import update_fleet

    fleet = options.policy
    ledger = None if options.ledger is None else Ledger(options.ledger)

    async def on_plans(plans: FleetPlan) -> bool:
        listener.rest()
        context.show("plans", PlansView(plans))
        if dry_run or not plans.todo:
            return False
        for reason in plans.no_way_back:
            context.warn(reason)
        if plans.no_way_back and not await context.confirm("Go on all the same?"):
            raise PlanRefused(
                f"nothing was changed, because nobody has agreed: {'; '.join(plans.no_way_back)}",
                hint="give --yes, or answer the question with y",
            )
        return True

    async with options.reached(context) as (members, executor):
        names = [member.name for member in members]
        if ledger is not None:
            left = len(ledger.left(names))
            context.progress(Note(f"left by the ledger: {left} of {len(names)} devices; all of them are read"))
        listener = _Listener(context, names, ledger)
        async with listener:
            report = await update_fleet(
                members, images, policy, listener, fleet=fleet, on_plans=on_plans, executor=executor
            )
    return FleetResult(report, dry_run)


@dataclass(slots=True)
class _Standing:
    """Where the update of one device stands."""

    told: Progress
    stage: str = ""
    at_work: bool = False
    bytes: Bytes | None = None
    result: DeviceResult | None = None


class _Listener:
    """Keeps where each device stands, draws it again and again on a terminal, and passes on what stays."""

    def __init__(self, context: Context, addresses: Sequence[str], ledger: Ledger | None) -> None:
        from ..flows.throttle import Throttled

        self._context = context
        self._ledger = ledger
        self._standing = {address: _Standing(Throttled(partial(self._tell, address))) for address in addresses}
        self._full = False
        self._task: asyncio.Task[None] | None = None
        self._resting = False

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._draw_on_and_on())

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            log.warning("the table could not be drawn any more", exc_info=self._task.exception())
        if kind is asyncio.CancelledError:
            self._tell_of_interruption()

    def _tell_of_interruption(self) -> None:
        """What is known of each when the user ends it; those in the middle are noted as not known."""
        from ..flows.fleet import DeviceResult, Gone, Verdict

        counts: Counter[str] = Counter()
        middle: list[str] = []
        for address, standing in self._standing.items():
            planned = standing.result
            if standing.at_work:
                middle.append(address)
                known = (None, None) if planned is None else (planned.identity, planned.plan)
                self._note(DeviceResult(address, Verdict.UNKNOWN, *known, error=Gone("interrupted in the middle")))
            else:
                counts[Verdict.LEFT.value if planned is None else planned.verdict.value] += 1
        told = [f"{count} {what}" for what, count in counts.items()]
        if middle:
            told.append(f"{len(middle)} in the middle ({_named(middle)})")
        self._context.warn(
            f"interrupted: {', '.join(told)} of {len(self._standing)} devices; the same command reads all, and goes on"
        )

    def rest(self) -> None:
        """Draw nothing until the next device begins."""
        self._resting = True
        self._context.renderer.pause()

    def __call__(self, event: Event) -> None:
        from ..flows.fleet import DeviceBegins, DeviceEnds, DeviceEvent, DevicePlanned

        if isinstance(event, DeviceEvent):
            self._heard(self._standing[event.address], event)
        elif isinstance(event, DeviceBegins):
            self._resting = False
            self._standing[event.address].at_work = True
        elif isinstance(event, DevicePlanned | DeviceEnds):
            self._standing[event.address].result = event.result
            self._standing[event.address].at_work = False
            if isinstance(event, DeviceEnds):
                self._note(event.result)
                if self._context.settings.json:
                    self._context.renderer.tell("device_ends", event.result.as_dict())
                else:
                    self._context.progress(event)

    def _heard(self, standing: _Standing, event: Any) -> None:
        inner = event.event
        if isinstance(inner, Stage):
            standing.stage, standing.bytes = inner.name, None
        elif isinstance(inner, Bytes):
            standing.bytes = inner
        if self._context.settings.json:
            standing.told(inner)

    def _tell(self, address: str, event: Event) -> None:
        from .json_lines import event_data

        told = event_data(event)
        self._context.renderer.tell(str(told.pop("event")), {"address": address, **told})

    def _note(self, result: DeviceResult) -> None:
        if self._ledger is None:
            return
        try:
            self._ledger.note(result)
        except OSError as error:
            if not self._full:
                self._context.warn(f"the ledger cannot be written: {error}")
            self._full = True  # which is said once; the next device may find room, and brings all before it along

    async def _draw_on_and_on(self) -> None:
        while True:
            if not self._resting:
                self._context.renderer.table(self._table())
            await asyncio.sleep(_DRAW_S)

    def _table(self) -> Table:
        """A row for each device at work; the status line counts all, and those that have ended stand above."""
        counts: Counter[str] = Counter()
        working: list[Row] = []
        for address, standing in self._standing.items():
            result = standing.result
            if standing.at_work:
                counts["at work"] += 1
                working.append(_row(address, standing))
            elif result is None:
                counts["to read" if not standing.stage else "reading"] += 1
                if standing.stage:
                    working.append(_row(address, standing))
            else:
                counts[result.verdict.value] += 1
        told = ", ".join(f"{count} {what}" for what, count in counts.items())
        return Table(("device", "stage", "", ""), tuple(working[:_MOST_ROWS]), f"{told} of {len(self._standing)}")


def _row(address: str, standing: _Standing) -> Row:
    moved = standing.bytes
    if moved is None or not moved.total:
        return Row((address, standing.stage or "waiting", "", ""))
    full = _BAR * moved.done // moved.total
    rate = rate_text(moved.speed.now) if moved.speed is not None else ""
    return Row(
        (address, standing.stage, "#" * full + "." * (_BAR - full), f"{100 * moved.done // moved.total} %  {rate}")
    )
