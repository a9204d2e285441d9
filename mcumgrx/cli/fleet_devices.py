"""Which devices `mcumgrx dfu` of several is about: listed in a file, or seen and fitting a pattern; with a Dask cluster
also at which of its workers, as it is written behind an address or as the workers see it.
"""

from __future__ import annotations

import asyncio
import fnmatch
import glob
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..address import Address
from ..errors import DeviceNotFound, McumgrError, UsageError
from ..events import Note, Progress
from ..isolation import said
from .scan import Found, Search, Tell

if TYPE_CHECKING:
    from ..flows.fleet import Member
    from ..gateways import Gateways
    from ..registry import Registry
    from .context import Context

__all__ = ["bound", "listed", "look_here", "matching"]

# How long is looked for devices that fit a pattern.
_SCAN_S = 5.0


def listed(path: Path, *, bound: bool = False) -> list[str]:
    """The addresses in a file: one in a line; `#` begins a comment. Raises `UsageError` with the number of the line.

    With `bound` a worker may stand behind an address: `serial:/dev/ttyACM0 @hall-1`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the list of devices cannot be read: {error}") from error
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        address = "" if line.startswith("#") else line.partition(" #")[0].strip()
        if not address:
            continue
        at = _split_at(address)[1]
        try:
            Address.parse(_split_at(address)[0])
            if at is not None and not bound:
                raise UsageError(f"the device is at the worker {at}", hint="give the cluster's scheduler with --dask")
        except UsageError as error:
            raise UsageError(f"{path}, line {number}: {error}", hint=error.hint) from error
        found.append(address)
    if not found:
        raise UsageError(f"{path} names no device", hint="it has an address in each line, such as udp:192.0.2.7")
    return found


def _split_at(text: str) -> tuple[str, str | None]:
    """The address, and the worker behind it if there is one."""
    address, found, worker = text.rpartition(" @")
    return (address.rstrip(), worker.strip()) if found else (text, None)


async def matching(patterns: Sequence[str], context: Context) -> list[str]:
    """The addresses of the devices that can be seen and fit one of the patterns, `ble:Sensor-*`, by name or address.

    Raises `DeviceNotFound` for a pattern that fits none.
    """
    from ..registry import default_registry

    registry = default_registry()
    found: dict[str, None] = {}
    for pattern in patterns:
        scheme = _scheme_of(pattern)
        search = _search(registry, scheme, context.renderer.tell)
        await search.look(_SCAN_S)
        search.refuse_if_blind()
        seen = [address for one in search.devices() if (address := _fits(one, scheme, pattern)) is not None]
        fitting = list(dict.fromkeys(seen))
        found |= dict.fromkeys(fitting)
        _tell_of(pattern, len(fitting), context.progress)
    return list(found)


def _scheme_of(pattern: str) -> str:
    """Where is looked for devices that fit. Raises `UsageError` for what is no pattern."""
    scheme, _, wanted = pattern.partition(":")
    if not wanted:
        raise UsageError(f"{pattern!r} is no pattern of addresses", hint="as in --match 'ble:Sensor-*'")
    return scheme


def _tell_of(pattern: str, fitting: int, progress: Progress) -> None:
    """How many devices fit. Raises `DeviceNotFound` where none does."""
    if not fitting:
        raise DeviceNotFound(f"no device fits {pattern}", hint="what there is shows 'mcumgrx scan'")
    progress(Note(f"{pattern} fits {fitting} device{'' if fitting == 1 else 's'}"))


def _search(registry: Registry, scheme: str, tell: Tell) -> Search:
    """A device of a scheme that cannot look may be a detail of another's, as `usb:` is of `serial:`."""
    plugin = registry.transports.get(scheme)
    looks = plugin is None or plugin.watch is not None or plugin.discover is not None
    return Search(registry, scheme if looks else None, None, False, tell)


async def look_here(scheme: str) -> list[Found]:
    """What can be seen from the computer on which this runs, in a thread: transports may block."""

    async def look() -> list[Found]:
        from ..registry import default_registry

        search = _search(default_registry(), scheme, lambda event, fields: None)
        await search.look(_SCAN_S)
        search.refuse_if_blind()
        return [replace(one, details=dict(one.details)) for one in search.devices()]

    from ..threads import in_thread

    return await in_thread(lambda: asyncio.run(look()))


def _fits(one: Found, scheme: str, pattern: str) -> str | None:
    """The address of a device by which, or by whose name, it fits; a USB device has two, of which one is a detail."""
    others = [str(value) for key, value in one.details.items() if key.endswith("_address")]
    for address in (one.address, *others):
        if address.startswith(f"{scheme}:") and (
            fnmatch.fnmatchcase(address, pattern) or fnmatch.fnmatchcase(f"{scheme}:{one.name}", pattern)
        ):
            return address
    return None


# -- at which worker ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    """A device as one worker sees it."""

    address: str
    worker: str
    signal_dbm: float | None


async def bound(
    addresses: Sequence[str], patterns: Sequence[str], executor: Gateways, progress: Progress
) -> list[Member]:
    """The devices with their workers.

    A device without one is at the only worker, or at that which sees it; of several that hear a radio the nearest has
    it. Raises `UsageError` where several workers have a port of this name or the link cannot look, `DeviceNotFound`
    where none sees it.
    """
    from ..flows.fleet import Member

    found: dict[str, Member] = {}
    looked: dict[str, list[tuple[str, Found]]] = {}

    async def seen(scheme: str, pattern: str) -> list[_Seen]:
        if scheme not in looked:
            looked[scheme] = await _look(scheme, executor, progress)
        return _fitting(looked[scheme], scheme, pattern)

    for text in addresses:
        address, worker = _split_at(text)
        if worker is None and len(executor.names) == 1:
            worker = executor.names[0]
        elif worker is None:
            scheme = address.partition(":")[0]
            worker = _only(address, await seen(scheme, glob.escape(address)))
        elif worker not in executor.names:
            raise UsageError(
                f"{text}: no worker of the cluster has this name", hint=f"there are {', '.join(executor.names)}"
            )
        member = Member(address, at=worker)
        found[member.name] = member
    for pattern in patterns:
        those = await seen(_scheme_of(pattern), pattern)
        _tell_of(pattern, len(those), progress)
        members = [Member(one.address, at=one.worker) for one in those]
        found |= {member.name: member for member in members}
    return list(found.values())


async def _look(scheme: str, executor: Gateways, progress: Progress) -> list[tuple[str, Found]]:
    """What each worker sees. Raises what keeps all of them from looking."""
    told = await executor.everywhere(look_here, scheme)
    failures = {worker: one for worker, one in told.items() if isinstance(one, BaseException)}
    if failures and len(failures) == len(told):
        error = next(iter(failures.values()))
        raise error if isinstance(error, McumgrError) else UsageError(f"the workers cannot look: {said(error)}")
    for worker, error in failures.items():
        progress(Note(f"the worker {worker} cannot look for devices: {said(error)}", warning=True))
    return [(worker, one) for worker, those in sorted(told.items()) if isinstance(those, list) for one in those]


def _fitting(seen: Sequence[tuple[str, Found]], scheme: str, pattern: str) -> list[_Seen]:
    """Of devices that several workers hear, the nearest; ports of the same name are different devices."""
    nearest: dict[str, _Seen] = {}
    for worker, one in seen:
        address = _fits(one, scheme, pattern)
        if address is None:
            continue
        signal = one.details.get("signal_dbm")
        new = _Seen(address, worker, float(signal) if isinstance(signal, int | float) else None)
        key = address if new.signal_dbm is not None else f"{address} @{worker}"
        known = nearest.get(key)
        if known is None or (known.signal_dbm or 0.0) < (new.signal_dbm or 0.0):
            nearest[key] = new
    return list(nearest.values())


def _only(address: str, those: Sequence[_Seen]) -> str:
    hint = f"write which one is meant: '{address} @WORKER'"
    if not those:
        raise DeviceNotFound(f"no worker sees {address}", address=address, hint=hint)
    if len(those) > 1:
        raise UsageError(f"{address} is at {' and at '.join(one.worker for one in those)}", hint=hint)
    return those[0].worker
