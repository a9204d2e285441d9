"""`mcumgrx scan`: the devices that the transports can see, each with an address that can be pasted behind `-d`.

All transports look at the same time. A transport that cannot look, or fails, does not keep the others from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from ..errors import McumgrError, UsageError
from ..events import Note
from ..plugin_api import CommandContext, Option, command

if TYPE_CHECKING:
    from ..plugin_api import TransportPlugin
    from ..registry import Registry
    from ..transport import Discovered

__all__ = ["Found", "ScanResult", "ask_all", "find_devices", "scan"]

_SCAN_S = 5.0

# A transport is asked to be done in time; this much later it is left alone.
_GRACE_S = 0.5

# Silent devices are the rule, not the exception: most ports have something else behind them.
_ANSWER_S = 1.5
_OPEN_S = 5.0
_PROBES_AT_ONCE = 8

_WARNING = "opening a port can reset the board behind it, and sends a few bytes to whatever it is"


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


@dataclass(frozen=True, slots=True)
class ScanResult:
    """All that was found. `problems` names the transports that could not look, and why."""

    devices: tuple[Found, ...]
    problems: Mapping[str, str]

    def lines(self) -> list[str]:
        width = max((len(one.address) for one in self.devices), default=0)
        lines: list[str] = []
        for one in self.devices:
            state = {None: "", True: "speaks SMP", False: "no answer"}[one.answers]
            facts = [one.name, state, *(_fact(key, value) for key, value in one.details.items())]
            lines.append(f"{one.address:<{width}}  {', '.join(fact for fact in facts if fact)}".rstrip())
            if one.problem:
                lines.append(f"{'':<{width}}  {one.problem}")
        lines += [f"{scheme}: {problem}" for scheme, problem in self.problems.items()]
        return lines or ["nothing found"]


def _fact(key: str, value: object) -> str:
    """A detail for people: its unit, which the key ends in, stands behind the number; a flag is there or not."""
    if isinstance(value, bool):
        return key.replace("_", " ") if value else ""
    for ending, unit in (("_dbm", "dBm"), ("_s", "s")):
        if key.endswith(ending):
            return f"{key.removesuffix(ending).replace('_', ' ')} {value} {unit}"
    return f"{key.replace('_', ' ')} {value}"


Discover = Callable[[float], Awaitable[Sequence["Discovered"]]]


async def find_devices(
    registry: Registry, timeout_s: float, only: str | None = None
) -> tuple[list[Found], dict[str, str]]:
    """What the transports find in `timeout_s` seconds, and which of them failed. `only` names one of them.

    Raises `UsageError` for a transport that there is not, or that cannot look.
    """
    plugins = _able(registry, only)

    async def look(plugin: TransportPlugin) -> list[Found]:
        assert plugin.discover is not None
        discover = cast("Discover", registry.resolve(plugin, plugin.discover))
        async with asyncio.timeout(timeout_s + _GRACE_S):
            found = await discover(timeout_s)
        return [Found(plugin.scheme, one.address, one.name, dict(one.details)) for one in found]

    answers = await asyncio.gather(*(look(plugin) for plugin in plugins), return_exceptions=True)
    devices: list[Found] = []
    problems: dict[str, str] = {}
    for plugin, answer in zip(plugins, answers, strict=True):
        match answer:
            case list():
                devices += answer
            case McumgrError():
                problems[plugin.scheme] = f"{answer} ({answer.hint})" if answer.hint else str(answer)
            case TimeoutError():
                problems[plugin.scheme] = f"was not done in {timeout_s:g} s"
            case Exception():  # a plugin's mistake; the other transports have worked
                problems[plugin.scheme] = f"its search failed: {type(answer).__name__}: {answer}"
            case BaseException():
                raise answer
    return devices, problems


def _able(registry: Registry, only: str | None) -> list[TransportPlugin]:
    able = [plugin for plugin in dict.fromkeys(registry.transports.values()) if plugin.discover is not None]
    if only is None:
        return able
    plugin = registry.transports.get(only.rstrip(":").lower())
    if plugin in able:
        assert plugin is not None
        return [plugin]
    names = ", ".join(one.scheme for one in able) or "none"
    said = f"there is no transport {only!r}" if plugin is None else f"{plugin.scheme}: has no way to look for devices"
    raise UsageError(said, hint=f"those that can look: {names}")


async def ask_all(registry: Registry, devices: Sequence[Found]) -> list[Found]:
    """Ask each device for an echo, several at once."""
    from ..errors import DeviceError, RequestTimeout
    from ..protocol.standard import Echo
    from ..session import device

    turn = asyncio.Semaphore(_PROBES_AT_ONCE)

    async def ask(one: Found) -> Found:
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

    async def ask_in_turn(one: Found) -> Found:
        async with turn:
            return await ask(one)

    return list(await asyncio.gather(*(ask_in_turn(one) for one in devices)))


@command(
    Option("--probe", "Open each and ask it for an echo. This can reset a board.", type=bool, default=False),
    Option("--transport", "Look with this transport only.", metavar="NAME"),
    Option("--scan-time", "How long to look.", type=float, default=_SCAN_S, metavar="SECONDS"),
    needs_device=False,
    epilog="""
Examples:
  mcumgrx scan                      what is there, without touching it
  mcumgrx scan --probe              which of it speaks SMP
  mcumgrx scan --transport serial --json
""",
)
async def scan(context: CommandContext, probe: bool, transport: str | None, scan_time: float) -> ScanResult:
    """Look for devices with every transport that can.

    Serial ports are listed whatever is behind them; only --probe shows which
    of them speak SMP. A device on a network is not found: name it, as
    udp:192.0.2.7.
    """
    from ..registry import default_registry

    if not scan_time > 0:
        raise UsageError("--scan-time must be more than 0 seconds")
    registry = default_registry()
    devices, problems = await find_devices(registry, scan_time, transport)
    if probe and devices:
        context.progress(Note(_WARNING, warning=True))
        devices = await ask_all(registry, devices)
    return ScanResult(tuple(devices), problems)
