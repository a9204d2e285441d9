"""What transfers have learned of a device, so that the next one need not find it out again; and where that is kept.

Nothing here is ever needed, and nothing here replaces a look at the device's state: it only says what to try first. So
nothing here fails either: what cannot be read or written is logged, and not known.

A device is known by what tells it from all others (`Transport.identity`, or a name that its user gives), and by the
kind of link, because what gets lost on one may well arrive over another. Never by a port or an address.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from .errors import UsageError
from .interrupted import InterruptedUploads
from .link.profile import Begun, Learned
from .locks import lock_file, replace_text
from .threads import in_thread

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("mcumgrx.memory")

# Of the file. A newer one is left alone.
_VERSION = 1

_FILE = "devices.json"

MOST_DEVICES = 300
"""So many are remembered, over one kind of link each; those that were not used for the longest time are forgotten."""

SIZES_DAYS = 7.0
"""For so long a size that got lost is not tried again: a firmware update may have brought what was missing."""

_DAY_S = 86400.0

MOST_ID = 200
"""Characters of an identity."""

# Beyond these it is no device of ours, and no file of ours.
_MOST_BYTES = 1 << 20
_MOST_MESSAGE = 8 + 0xFFFF
_MOST_ALIGNMENT = 1 << 16
_MOST_SECONDS = 3600.0
_MOST_DATE = 1e11
_MOST_QUESTIONS = 20
_MOST_QUESTION = 40

# Another process holds the lock for milliseconds. Whoever holds it longer is not waited for.
_LOCK_TRIES = 20
_LOCK_PAUSE_S = 0.01

# The file may be on a share that hangs. Nothing is lost without it but time.
_TIMEOUT_S = 1.0

# Serial numbers that whole series of devices share.
_SHARED_NUMBERS = ("0123456789ABCDEF", "1234567890ABCDEF", "1234567890")


@dataclass(frozen=True, slots=True)
class Known:
    """A device that is remembered. Times are seconds since 1970.

    Attributes:
        id: what tells it from all others.
        link: the kind of link, as the scheme of its address.
        used: when something was last learned of it, or it was last used; not more often than once a day.
        found: when the sizes were found.
    """

    id: str
    link: str
    learned: Learned
    used: float
    found: float

    def as_dict(self) -> dict[str, object]:
        """As JSON takes it: what was learned beside the rest, and the times as dates."""
        learned = asdict(self.learned)
        del learned["unanswered"]
        dates = {name: datetime.fromtimestamp(getattr(self, name), UTC) for name in ("found", "used")}
        return {"id": self.id, "link": self.link, **learned, **dates}


class Memory:
    """The devices that are remembered, in a file of the folder that `cache_folder` names.

    Several processes may use it at once: each reads the file again before it replaces it as a whole.

    Arguments:
        folder: another folder.
        clock: seconds since 1970.
    """

    def __init__(self, folder: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Memory {self._folder or ''}>"

    @property
    def uploads(self) -> InterruptedUploads:
        """Those that were interrupted, in a file beside."""
        return InterruptedUploads(lambda: self.path.parent, clock=self._clock)

    @property
    def path(self) -> Path:
        """The file. Raises `OSError` where a user has no place for such files."""
        return (cache_folder() if self._folder is None else self._folder) / _FILE

    def recall(self, identity: str, link: str) -> Learned:
        """What is known of this device; nothing at all if nothing is. Never fails."""
        try:
            known = _find(self._read(), identity, link)
        except (_Unusable, OSError) as error:
            log.info("nothing is remembered of devices: %s", error)
            return Learned()
        if known is None:
            return Learned()
        learned = replace(known.learned)
        if not self._is_fresh(known):
            learned = Learned(erase_s=learned.erase_s)
        log.info("of %s over %s is known: %s", identity, link, learned)
        return learned

    def remember(self, identity: str, link: str, learned: Learned) -> None:
        """Keep this of the device. Never fails."""
        if learned == Learned(room_bytes=learned.room_bytes):
            return
        now = self._clock()
        try:
            with self._locked():
                try:
                    devices = self._read()
                except _Damaged as error:
                    self._set_aside(error)
                    devices = []
                known = _find(devices, identity, link)
                # The age of what was not found anew must not become less by being remembered again.
                same = known is not None and known.learned.sizes == learned.sizes
                found = known.found if known is not None and same and self._is_fresh(known) else now
                new = Known(identity, link, _rounded(learned), now, found)
                if known is not None and replace(new, used=known.used) == known and 0 <= now - known.used < _DAY_S:
                    return
                kept = [device for device in devices if (device.id, device.link) != (identity, link)]
                kept = sorted(kept, key=lambda device: device.used)[-(MOST_DEVICES - 1) :]
                self._write([*kept, new])
        except (_Unusable, OSError) as error:
            log.info("what was learned of %s is not kept: %s", identity, error)

    def known(self) -> list[Known]:
        """All devices, those used last at the end. Raises `UsageError` for a file that cannot be read."""
        try:
            return sorted(self._read(), key=lambda device: device.used)
        except (_Unusable, OSError) as error:
            raise self._unusable(error) from error

    def forget(self, identity: str | None = None) -> list[Known]:
        """Forget this device over all links, or all devices; returns what was forgotten.

        A damaged file is removed when all is to be forgotten. Raises `UsageError` for one that cannot be changed.
        """
        try:
            self.uploads.forget(identity)
            if not self.path.exists():
                return []
            with self._locked():
                try:
                    devices = self._read()
                except _Damaged:
                    if identity is not None:
                        raise
                    devices = []
                gone = [device for device in devices if identity is None or device.id == identity]
                if identity is None:
                    self.path.unlink(missing_ok=True)
                elif gone:
                    self._write([device for device in devices if device.id != identity])
                return gone
        except (_Unusable, OSError) as error:
            raise self._unusable(error) from error

    # -- the file ------------------------------------------------------------------------------------------------------

    def _is_fresh(self, known: Known) -> bool:
        # Clocks are set back now and then, but a date far ahead says nothing.
        return -1 <= (self._clock() - known.found) / _DAY_S <= SIZES_DAYS

    def _unusable(self, error: Exception) -> UsageError:
        return UsageError(
            f"what is remembered of devices cannot be used: {error}",
            hint="remove the file, or name another folder by MCUMGRX_CACHE_DIR",
        )

    def _read(self) -> list[Known]:
        """All that is in the file. Raises `_Unusable`, `OSError`."""
        try:
            with open(self.path, "rb") as file:
                data = file.read(_MOST_BYTES + 1)
        except FileNotFoundError:
            return []
        if len(data) > _MOST_BYTES:
            raise _Damaged(f"{self.path} is too large")
        try:
            content = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise _Damaged(f"{self.path} is damaged ({error})") from error
        version = content.get("version") if isinstance(content, dict) else None
        if isinstance(version, int) and version > _VERSION:
            raise _Newer(f"{self.path} is from a newer version of mcumgrx")
        if version != _VERSION or not isinstance(content.get("devices"), list):
            raise _Damaged(f"{self.path} is not what mcumgrx has written")
        found = {(one.id, one.link): one for record in content["devices"] if (one := _from_record(record)) is not None}
        return list(found.values())

    def _write(self, devices: list[Known]) -> None:
        """Replace the file as a whole; nobody ever sees half of it."""
        content = json.dumps({"version": _VERSION, "devices": [_to_record(one) for one in devices]}, indent=1)
        replace_text(self.path, content + "\n")

    def _set_aside(self, error: Exception) -> None:
        """Something else is where our file belongs: make room, but do not destroy it."""
        aside = self.path.with_suffix(".bad")
        os.replace(self.path, aside)
        log.info("%s; it is now %s", error, aside)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing the file. Where that cannot be, the last one wins."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for _ in range(_LOCK_TRIES):
                if lock_file(descriptor):
                    break
                time.sleep(_LOCK_PAUSE_S)
            else:
                log.info("%s is locked by another process for long", self.path)
            yield
        finally:
            os.close(descriptor)  # which unlocks it


def cache_folder() -> Path:
    """Where programs of this system keep what they can do without: `MCUMGRX_CACHE_DIR` if that is set.

    Raises `OSError` where the user has no home folder.
    """
    try:
        return _cache_folder()
    except RuntimeError as error:
        raise OSError(str(error)) from error


def _cache_folder() -> Path:
    if named := os.environ.get("MCUMGRX_CACHE_DIR"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "mcumgrx"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "mcumgrx"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The specification asks to ignore relative ones.
    return (Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache") / "mcumgrx"


class Remembered:
    """What is remembered of a device as long as it is held: read when it is met, and written when it is closed.

    Under each of its names: a bootloader may have another one than the application.
    """

    def __init__(self, memory: Memory | None) -> None:
        self._memory = memory
        self._known: dict[tuple[str, str], Learned] = {}
        self._begun: dict[str, Begun] = {}
        self._stored: dict[str, Begun] = {}  # as it was read

    async def recall(self, identity: str, link: str) -> Learned:
        """As `Memory.recall`: the same object for all connections, which transfers add to."""
        if (found := self._known.get((identity, link))) is not None:
            return found
        found = Learned()
        if self._memory is not None:
            found = await self._in_time("read", self._memory.recall, identity, link) or found
            self._known[identity, link] = found
        return found

    async def begun(self, device: str) -> Begun:
        """The upload that was interrupted last: the same object for all connections."""
        if (found := self._begun.get(device)) is None:
            found = Begun()
            if self._memory is not None:
                found = await self._in_time("read", self._memory.uploads.recall, device) or found
            self._begun[device] = found
            self._stored[device] = replace(found)
        return found

    async def store(self) -> None:
        """Keep all of it for the next time, and hold it no longer."""
        known, self._known = self._known, {}
        begun, self._begun = self._begun, {}
        for device, upload in begun.items():
            if self._memory is not None and upload != self._stored.get(device):
                await self._in_time("written", self._memory.uploads.remember, device, replace(upload))
        for (identity, link), learned in known.items():
            if self._memory is not None:
                await self._in_time("written", self._memory.remember, identity, link, replace(learned))

    async def _in_time(self, what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                return await in_thread(function, *args, **kwargs)
        except TimeoutError:
            # It hangs. A thread does so by now, and no other one is left hanging beside it.
            self._memory = None
            log.warning("what is remembered of devices could not be %s within %g s: going on without", what, _TIMEOUT_S)
            return None


class _Unusable(Exception):
    """The file says nothing to us."""


class _Newer(_Unusable):
    """It does to a newer version, which must find it again."""


class _Damaged(_Unusable):
    """It does to nobody."""


def tells_apart(identity: str) -> bool:
    """Whether what a link says can be the identity of one device alone: whole series of adapters say 0001."""
    return (
        len(set(identity)) >= 3
        and len(identity) <= MOST_ID
        and not any(number.startswith(identity.upper()) for number in _SHARED_NUMBERS)
    )


def _find(devices: list[Known], identity: str, link: str) -> Known | None:
    return next((device for device in devices if (device.id, device.link) == (identity, link)), None)


def _rounded(learned: Learned) -> Learned:
    """Hundredths of a second say nothing, and would be news each time."""
    if learned.erase_s is None:
        return learned
    return replace(learned, erase_s=min(_MOST_SECONDS, math.ceil(learned.erase_s * 10) / 10))


def _to_record(known: Known) -> dict[str, object]:
    dates = {"used": int(known.used), "found": int(known.found)}
    learned = {**asdict(known.learned), "unanswered": sorted(known.learned.unanswered)}
    return {"id": known.id, "link": known.link, **dates, **learned}


def _from_record(record: Any) -> Known | None:
    """What a record says, or None if it makes no sense."""
    if not isinstance(record, dict):
        return None
    values: dict[str, Any] = {name: record.get(name) for name in _CAN_BE}
    if not all(can_be(values[name]) for name, can_be in _CAN_BE.items()):
        return None
    values["unanswered"] = frozenset(values["unanswered"] or ())
    identity, link, used, found = (values.pop(name) for name in ("id", "link", "used", "found"))
    return Known(identity, link, Learned(**values), float(used), float(found))


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def _is_number(value: object, most: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most


def _is_text(value: object, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most


def _is_size(value: object) -> bool:
    return value is None or _is_whole(value, _MOST_MESSAGE)


def _are_questions(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MOST_QUESTIONS
        and all(_is_text(one, _MOST_QUESTION) for one in value)
    )


# Values from a file are believed only where they can be true.
_CAN_BE: dict[str, Callable[[Any], bool]] = {
    "id": lambda value: _is_text(value, MOST_ID) and value != "",
    "link": lambda value: isinstance(value, str),
    "used": lambda value: _is_number(value, _MOST_DATE),
    "found": lambda value: _is_number(value, _MOST_DATE),
    "message_bytes": _is_size,
    "refused_bytes": _is_size,
    "room_bytes": _is_size,
    "erase_s": lambda value: value is None or _is_number(value, _MOST_SECONDS),
    "alignment": lambda value: _is_whole(value, _MOST_ALIGNMENT) and not value & (value - 1),
    "unanswered": lambda value: value is None or _are_questions(value),
}
