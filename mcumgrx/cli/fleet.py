"""`mcumgrx dfu` of several devices: which they are, their plans as one table, one that lives, and the report."""

from __future__ import annotations

import asyncio
import fnmatch
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..address import Address
from ..errors import DeviceNotFound, Exit, UsageError
from ..events import Bytes, Event, Note, Stage
from .scan import Found, Search
from .tables import Row, Table, table_lines
from .text import duration_text, rate_text

if TYPE_CHECKING:
    from ..flows import DfuPolicy
    from ..flows.fleet import DeviceResult, FleetPlan, FleetPolicy, FleetReport
    from ..flows.variants import Files
    from .context import Context

__all__ = ["FleetOptions", "FleetResult", "Ledger", "PlansView", "listed", "matching", "update_all"]

# Between two pictures of the table.
_DRAW_S = 0.2

# So many devices are shown while they are updated; the status line counts the others.
_MOST_ROWS = 16

# Between two events of the bytes of one device in JSON.
_TOLD_S = 1.0

_BAR = 16

# Of the plans: a terminal of 80 columns, less what a renderer indents them by.
_PLANS_WIDTH = 64

# How long is looked for devices that fit a pattern.
_SCAN_S = 5.0


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

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> FleetOptions:
        """Those among all options of the command."""
        return cls(**{one.name: options[one.name] for one in fields(cls)})

    def are_meant(self, context: Context) -> bool:
        """Whether it is a fleet, and not one device."""
        return bool(self.match or self.devices or len(context.settings.devices) > 1)

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
        """All devices that are named, listed, or seen and fit; each once."""
        found = [*context.settings.devices]
        if self.devices is not None:
            found += listed(self.devices)
        found += await matching(self.match, context)
        return list(dict.fromkeys(found))


# -- which devices -----------------------------------------------------------------------------------------------------


def listed(path: Path) -> list[str]:
    """The addresses in a file: one in a line; `#` begins a comment. Raises `UsageError` with the number of the line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the list of devices cannot be read: {error}") from error
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        address = "" if line.startswith("#") else line.partition(" #")[0].strip()
        if not address:
            continue
        try:
            Address.parse(address)
        except UsageError as error:
            raise UsageError(f"{path}, line {number}: {error}", hint=error.hint) from error
        found.append(address)
    if not found:
        raise UsageError(f"{path} names no device", hint="it has an address in each line, such as udp:192.0.2.7")
    return found


async def matching(patterns: Sequence[str], context: Context) -> list[str]:
    """The addresses of the devices that can be seen and fit one of the patterns, `ble:Sensor-*`, by name or address.

    Raises `DeviceNotFound` for a pattern that fits none.
    """
    from ..registry import default_registry

    registry = default_registry()
    found: dict[str, None] = {}
    for pattern in patterns:
        scheme, _, wanted = pattern.partition(":")
        if not wanted:
            raise UsageError(f"{pattern!r} is no pattern of addresses", hint="as in --match 'ble:Sensor-*'")
        plugin = registry.transports.get(scheme)
        looks = plugin is None or plugin.watch is not None or plugin.discover is not None
        search = Search(registry, scheme if looks else None, None, False, context.renderer.tell)
        await search.look(_SCAN_S)
        search.refuse_if_blind()
        seen = [address for one in search.devices() if (address := _fits(one, scheme, pattern)) is not None]
        fitting = list(dict.fromkeys(seen))
        if not fitting:
            raise DeviceNotFound(f"no device fits {pattern}", hint="what there is shows 'mcumgrx scan'")
        context.progress(Note(f"{pattern} fits {len(fitting)} device{'' if len(fitting) == 1 else 's'}"))
        found |= dict.fromkeys(fitting)
    return list(found)


def _fits(one: Found, scheme: str, pattern: str) -> str | None:
    """The address of a device by which, or by whose name, it fits; a USB device has two, of which one is a detail."""
    others = [str(value) for key, value in one.details.items() if key.endswith("_address")]
    for address in (one.address, *others):
        if address.startswith(f"{scheme}:") and (
            fnmatch.fnmatchcase(address, pattern) or fnmatch.fnmatchcase(f"{scheme}:{one.name}", pattern)
        ):
            return address
    return None


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
        self._entries[result.identity or result.address] = {
            "address": result.address,
            "verdict": result.verdict.value,
            "reason": result.reason,
            "exit": int(result.exit),
            "to_version": None if plan is None else plan.to_version,
            "hash": None if plan is None else plan.hash,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        beside = self._path.with_name(f".{self._path.name}.new")
        beside.write_text(json.dumps({"devices": self._entries}, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(beside, self._path)


# -- the doing of it ---------------------------------------------------------------------------------------------------


async def update_all(
    context: Context, options: FleetOptions, images: Files, policy: DfuPolicy, dry_run: bool
) -> FleetResult:
    """Plan, show, ask, update, and tell of each device."""
    from ..flows.fleet import update_fleet

    fleet = options.policy
    ledger = None if options.ledger is None else Ledger(options.ledger)
    addresses = await options.addresses(context)
    devices = [context.device_at(address) for address in addresses]
    listener = _Listener(context, addresses, ledger)
    if ledger is not None:
        left = len(ledger.left(addresses))
        context.progress(Note(f"left by the ledger: {left} of {len(addresses)} devices; all of them are read"))

    async def on_plans(plans: FleetPlan) -> bool:
        listener.rest()
        context.show("plans", PlansView(plans))
        if dry_run or not plans.todo:
            return False
        for reason in plans.no_way_back:
            context.warn(reason)
        if plans.no_way_back and not await context.confirm("Go on, with no way back?"):
            raise UsageError(
                f"nothing was changed, because nobody has agreed: {'; '.join(plans.no_way_back)}",
                hint="give --yes, or answer the question with y",
            )
        return True

    async with listener:
        report = await update_fleet(devices, images, policy, listener, fleet=fleet, on_plans=on_plans)
    return FleetResult(report, dry_run)


@dataclass(slots=True)
class _Standing:
    """Where the update of one device stands."""

    stage: str = ""
    begun: bool = False
    bytes: Bytes | None = None
    result: DeviceResult | None = None
    told_s: float = field(default=-_TOLD_S)


class _Listener:
    """Keeps where each device stands, draws it again and again on a terminal, and passes on what stays."""

    def __init__(self, context: Context, addresses: Sequence[str], ledger: Ledger | None) -> None:
        self._context = context
        self._ledger = ledger
        self._standing = {address: _Standing() for address in addresses}
        self._task: asyncio.Task[None] | None = None
        self._resting = False

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._draw_on_and_on())

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task])

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
            self._standing[event.address].begun = True
        elif isinstance(event, DevicePlanned | DeviceEnds):
            self._standing[event.address].result = event.result
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
        if isinstance(inner, Bytes):
            if inner.elapsed_s < standing.told_s + _TOLD_S and inner.done < inner.total:
                return
            standing.told_s = inner.elapsed_s
        if self._context.settings.json:
            from .json_lines import event_data

            told = event_data(inner)
            self._context.renderer.tell(str(told.pop("event")), {"address": event.address, **told})

    def _note(self, result: DeviceResult) -> None:
        if self._ledger is None:
            return
        try:
            self._ledger.note(result)
        except OSError as error:
            self._context.warn(f"the ledger cannot be written: {error}")
            self._ledger = None

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
            if standing.begun and (result is None or (result.report is None and result.error is None)):
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
