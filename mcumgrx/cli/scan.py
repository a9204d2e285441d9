"""`mcumgrx scan`: the devices that the transports can see, each with an address that can be pasted behind `-d`.

All transports look at the same time. A transport that cannot look, or fails, does not keep the others from it. Those
that report while they look have their devices shown at once, the others when they are done.
"""

from __future__ import annotations

import asyncio
import fnmatch
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from ..errors import McumgrError, TransportError, UsageError
from ..events import Note
from ..isolation import is_wanted, said
from ..plugin_api import Option, ReportDiscovered, cli_command
from .exit_codes import Exit
from .tables import Row, Table, table_lines

if TYPE_CHECKING:
    from ..plugin_api import TransportPlugin
    from ..registry import Registry
    from ..transport import Discovered
    from .context import Context

_SCAN_S = 5.0

# A transport is asked to be done in time; this much later it is left alone.
_GRACE_S = 2.0

# Silent devices are the rule, not the exception: most ports have something else behind them.
_ANSWER_S = 1.5
_OPEN_S = 5.0
_PROBES_AT_ONCE = 8

# Between two pictures of what has been found so far.
_DRAW_S = 0.2

_WARNING = "opening a port can reset the board behind it, and sends a few bytes to whatever it is"
_STOPPED = "interrupted: this is what was found until then"

_TITLES = ("name", "address", "signal", "SMP", "last seen")

# The details that have a column of their own.
_SIGNAL, _SMP, _AGE = "signal_dbm", "smp", "last_seen_s"


@dataclass(frozen=True, slots=True)
class Found:
    """One device.

    Attributes:
        address: to be pasted behind `-d`.
        details: what its transport knows of it.
        answers: whether it answered an echo; None when it was not asked.
        problem: why it could not be asked.
    """

    transport: str
    address: str
    name: str
    details: Mapping[str, object]
    answers: bool | None = None
    problem: str | None = None

    @property
    def advertises_smp(self) -> bool:
        return self.details.get(_SMP) is True

    @property
    def offers_smp(self) -> bool:
        """As far as it is known: it says so, or has answered."""
        return self.advertises_smp or self.answers is True

    def row(self) -> Row:
        signal, age = self.details.get(_SIGNAL), self.details.get(_AGE)
        cells = (
            self.name or "-",
            self.address,
            f"{signal} dBm" if signal is not None else "-",
            "yes" if self.offers_smp else "no" if self.answers is False else "-",
            _ago(age) if isinstance(age, (int, float)) else "-",
        )
        known = (_SIGNAL, _SMP, _AGE)
        facts = [fact for key, value in self.details.items() if key not in known and (fact := _fact(key, value))]
        return Row(cells, tuple(text for text in (", ".join(facts), self.problem) if text))


def _ago(seconds: float) -> str:
    return "now" if seconds < 1 else f"{seconds:.0f} s ago"


def _fact(key: str, value: object) -> str:
    """A detail for people: its unit, which the key ends in, stands behind the number; a flag is there or not."""
    if isinstance(value, bool):
        return key.replace("_", " ") if value else ""
    for ending, unit in (("_dbm", "dBm"), ("_s", "s")):
        if key.endswith(ending):
            return f"{key.removesuffix(ending).replace('_', ' ')} {value} {unit}"
    return f"{key.replace('_', ' ')} {value}"


@dataclass(frozen=True, slots=True)
class ScanResult:
    """All that was found.

    Attributes:
        problems: the transports that could not look, and why; people are warned of them.
        left_out: how many other devices were seen, which the filters left out.
        interrupted: it was ended by Ctrl-C before its time.
    """

    devices: tuple[Found, ...]
    problems: Mapping[str, str]
    left_out: int = 0
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        return Exit.INTERRUPTED if self.interrupted else Exit.DONE

    def lines(self) -> list[str]:
        lines: list[str] = []
        if self.devices:
            lines = table_lines(Table(_TITLES, tuple(one.row() for one in self.devices)))
        elif self.left_out:
            lines = [f"nothing found that fits; left out: {_devices(self.left_out)}"]
        return lines or ["nothing found"]


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"


Discover = Callable[[float], Awaitable[Sequence["Discovered"]]]
Watch = Callable[[float, "ReportDiscovered"], Awaitable[None]]
Tell = Callable[[str, Mapping[str, object]], None]


class Search:
    """One look around, and what it has found so far.

    Arguments:
        only: the one transport that is to look; None for all that can.
        name: of devices that are wanted: a part of it or, with `*`, `?` or `[…]`, a pattern for all of it; capitals
            make no difference.
        smp: only devices are wanted that say themselves that they offer SMP.
        tell: told of each device that is wanted, `device_found` and `device_offers_smp`, once each.

    Raises `UsageError` for a transport that there is not, or that cannot look.
    """

    def __init__(self, registry: Registry, only: str | None, name: str | None, smp: bool, tell: Tell) -> None:
        self.failures: dict[str, McumgrError] = {}
        self._registry = registry
        self._plugins = _able(registry, only)
        self._name = (name or "").casefold()
        self._smp = smp
        self._tell = tell
        self._told: set[tuple[str, str, str]] = set()
        self._seen: dict[tuple[str, str], tuple[Found, float]] = {}  # as it was last, and when; those seen first first

    async def look(self, timeout_s: float) -> None:
        """Let all transports look for `timeout_s` seconds; those that fail are in `failures` then."""
        async with asyncio.TaskGroup() as group:
            for plugin in self._plugins:
                group.create_task(self._look(plugin, timeout_s))

    async def _look(self, plugin: TransportPlugin, timeout_s: float) -> None:
        def report(one: Discovered) -> None:
            self._see(Found(plugin.scheme, str(one.address), str(one.name), one.facts))

        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                if plugin.watch is not None:
                    await cast("Watch", self._registry.resolve(plugin, plugin.watch))(timeout_s, report)
                else:
                    assert plugin.discover is not None
                    for one in await cast("Discover", self._registry.resolve(plugin, plugin.discover))(timeout_s):
                        report(one)
        except McumgrError as error:
            self.failures[plugin.scheme] = error
        except TimeoutError:
            self.failures[plugin.scheme] = TransportError(f"the search was not done in {timeout_s:g} s")
        except BaseException as error:  # a plugin's mistake; the other transports have worked
            task = asyncio.current_task()
            cancelled = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling()
            if is_wanted(error) or cancelled:
                raise
            self.failures[plugin.scheme] = self._registry.fault(plugin, f"the search failed: {said(error)}")

    @property
    def problems(self) -> dict[str, str]:
        """The transports that could not look, and why."""
        return {
            scheme: f"{error} ({error.hint})" if error.hint else str(error) for scheme, error in self.failures.items()
        }

    def refuse_if_blind(self) -> None:
        """Raise what kept every transport from looking, if nothing has been found: that is no empty result."""
        if self._seen or len(self.failures) < len(self._plugins) or not self.failures:
            return
        [first, *more] = self.failures.values()
        if not more:
            raise first
        told = "; ".join(f"{scheme}: {problem}" for scheme, problem in self.problems.items())
        raise TransportError(f"none of the transports could look for devices ({told})")

    def _see(self, found: Found) -> None:
        self._seen[found.transport, found.address] = found, asyncio.get_running_loop().time()
        self._announce(found)

    def _announce(self, found: Found) -> None:
        if not self._wants(found):
            return
        for event, due in (("device_found", True), ("device_offers_smp", found.offers_smp)):
            key = (event, found.transport, found.address)
            if due and key not in self._told:
                self._told.add(key)
                self._tell(event, {"device": found})

    def _wants(self, one: Found) -> bool:
        if self._smp and not one.advertises_smp:
            return False
        name = one.name.casefold()
        # Brackets and asterisks are in names as well.
        return self._name in name or fnmatch.fnmatchcase(name, self._name)

    def arrivals(self) -> list[Found]:
        """The devices that are wanted: those that offer SMP first, then in the order in which they were seen first."""
        wanted = [_as_of_now(found, at_s) for found, at_s in self._seen.values() if self._wants(found)]
        return sorted(wanted, key=lambda one: not one.offers_smp)

    def devices(self) -> list[Found]:
        """The devices that are wanted, by transport: those that offer SMP first, the nearest of them first."""
        schemes = [plugin.scheme for plugin in self._plugins]
        return sorted(
            self.arrivals(),
            key=lambda one: (schemes.index(one.transport), not one.offers_smp, -_signal(one)),
        )

    @property
    def left_out(self) -> int:
        return sum(not self._wants(found) for found, _ in self._seen.values())

    async def ask(self, devices: Sequence[Found]) -> None:
        """Ask each device for an echo, several at once."""
        turn = asyncio.Semaphore(_PROBES_AT_ONCE)

        async def ask_in_turn(one: Found) -> None:
            async with turn:
                answer = await _ask(self._registry, one)
            key = (one.transport, one.address)
            found, at_s = self._seen[key]
            found = replace(found, answers=answer.answers, problem=answer.problem)
            self._seen[key] = found, at_s
            self._announce(found)

        async with asyncio.TaskGroup() as group:
            for one in devices:
                group.create_task(ask_in_turn(one))


def _as_of_now(found: Found, at_s: float) -> Found:
    """The device, its age counted from now."""
    age = found.details.get(_AGE)
    if not isinstance(age, (int, float)):
        return found
    age += asyncio.get_running_loop().time() - at_s
    return replace(found, details={**found.details, _AGE: round(age, 1)})


def _signal(one: Found) -> float:
    signal = one.details.get(_SIGNAL)
    return signal if isinstance(signal, (int, float)) else -math.inf


def _able(registry: Registry, only: str | None) -> list[TransportPlugin]:
    every = dict.fromkeys(registry.transports.values())
    able = [plugin for plugin in every if plugin.watch is not None or plugin.discover is not None]
    if only is None:
        return able
    plugin = registry.transports.get(only.rstrip(":").lower())
    if plugin in able:
        assert plugin is not None
        return [plugin]
    names = ", ".join(one.scheme for one in able) or "none"
    said = f"there is no transport {only!r}" if plugin is None else f"{plugin.scheme}: has no way to look for devices"
    raise UsageError(said, hint=f"those that can look: {names}")


async def _ask(registry: Registry, one: Found) -> Found:
    """The device, and whether it answers an echo."""
    from ..errors import DeviceError, RequestTimeout
    from ..messages.standard import Echo
    from ..session import device

    try:
        opened = device(one.address, timeout_s=_ANSWER_S, registry=registry)
        try:
            client = await opened.connect(_OPEN_S)
            await client.request(Echo("mcumgrx"), repeats=1)
        finally:
            await opened.close()
    except DeviceError:
        return replace(one, answers=True)  # MCUboot's recovery knows no echo, and says so
    except RequestTimeout:
        return replace(one, answers=False)
    except McumgrError as error:
        return replace(one, problem=str(error))
    return replace(one, answers=True)


class _Pictures:
    """Of what has been found so far, drawn again and again. `doing` takes the place of the time that is left."""

    def __init__(self, search: Search, timeout_s: float) -> None:
        self.doing = ""
        self._search = search
        self._end_s = asyncio.get_running_loop().time() + timeout_s

    @asynccontextmanager
    async def drawn(self, draw: Callable[[Table], None]) -> AsyncIterator[None]:
        """For a `with` block."""

        async def draw_on_and_on() -> None:
            while True:
                draw(self._table())
                await asyncio.sleep(_DRAW_S)

        task = asyncio.create_task(draw_on_and_on())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()  # only a mistake ends it

    def _table(self) -> Table:
        found = self._search.arrivals()
        left_s = max(0.0, self._end_s - asyncio.get_running_loop().time())
        doing = self.doing or f"looking, {math.ceil(left_s)} s left"
        facts = [f"{len(found)} found"]
        if self._search.left_out:
            facts.append(f"{self._search.left_out} left out")
        return Table(_TITLES, tuple(one.row() for one in found), f"{doing}; {', '.join(facts)}; Ctrl-C ends it")


@cli_command(
    Option("--name", "Only devices with this in their names, or whose names fit a pattern (Sensor-*).", metavar="TEXT"),
    Option(
        "--smp",
        "Only devices that advertise the SMP service. Not every Bluetooth device that has it does, and no port.",
        type=bool,
        default=False,
    ),
    Option("--probe", "Open each and ask it for an echo. This can reset a board.", type=bool, default=False),
    Option("--transport", "Look with this transport only.", metavar="NAME"),
    Option("--scan-time", "How long to look.", type=float, default=_SCAN_S, metavar="SECONDS"),
    needs_device=False,
    epilog="""
Examples:
  mcumgrx scan                      what is there, without touching it
  mcumgrx scan --name 'Sensor-*'    by name; capitals make no difference
  mcumgrx scan --probe              which of it speaks SMP
  mcumgrx scan --transport serial --json
""",
)
async def scan(
    context: Context, name: str | None, smp: bool, probe: bool, transport: str | None, scan_time: float
) -> ScanResult:
    """Look for devices with every transport that can.

    Serial ports are listed whatever is behind them, and so is every Bluetooth
    LE device that advertises. Under SMP stands "yes" for a device that
    advertises the service or has answered, "no" for one that was asked and
    did not answer; of others it is not known, and only --probe tells. A
    device on a network is not found: name it, as udp:192.0.2.7.

    On a terminal the devices appear while the search goes on. Ctrl-C ends it
    early: what was found until then is shown, and the exit code is 130.
    Where none of those asked can look, as without an adapter, it is 3.
    """
    from ..registry import default_registry

    if not scan_time > 0:
        raise UsageError("--scan-time must be more than 0 seconds")
    search = Search(default_registry(), transport, name, smp, context.renderer.tell)
    pictures = _Pictures(search, scan_time)
    interrupted = False
    async with pictures.drawn(context.renderer.table):
        try:
            await search.look(scan_time)
            if probe and (devices := search.devices()):
                context.progress(Note(_WARNING, warning=True))
                pictures.doing = "asking each for an echo"
                await search.ask(devices)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()  # what was asked for is done: the search has ended, and the result is told
            interrupted = True
    if interrupted:
        context.progress(Note(_STOPPED))
    else:
        search.refuse_if_blind()
    for scheme, problem in search.problems.items():
        context.progress(Note(f"{scheme}: {problem}", warning=True))
    return ScanResult(tuple(search.devices()), search.problems, search.left_out, interrupted)
