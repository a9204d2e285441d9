"""Messages of group 0.

Those that the core needs too are in `mcumgrx.messages.standard`; what nobody but this group uses belongs here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

from mcumgrx.plugin_api import Body, Fields, Op, SmpCommand, UsageError, value_text

from . import OS

# Values of `boot_mode` in a reset (Zephyr `retention/bootmode.h`); the application may define others.
BOOT_MODE_NORMAL = 0
BOOT_MODE_BOOTLOADER = 1
BOOT_MODES = {"application": BOOT_MODE_NORMAL, "bootloader": BOOT_MODE_BOOTLOADER}

# One byte of retained memory; Zephyr refuses more with rc 3 and does not reset.
BOOT_MODE_MAXIMUM = 255


# -- answers with something under each of several names ---------------------------------------------------------------


def _by_name(entries: Iterable[tuple[object, object]]) -> tuple[list[tuple[str, Fields]], Body]:
    """The maps in `entries` with their names, which need not be unique, and what is no map."""
    named = [(name if isinstance(name, str) else value_text(name), item) for name, item in entries]
    maps = [(name, Fields(_with_text_keys(item)).lenient) for name, item in named if isinstance(item, dict)]
    return maps, {name: item for name, item in named if not isinstance(item, dict)}


def _with_text_keys(value: dict[object, object]) -> Body:
    return {key if isinstance(key, str) else value_text(key): item for key, item in value.items()}


# -- task statistics --------------------------------------------------------------------------------------------------

_STACK_UNIT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Task:
    """One thread; what the firmware does not measure, or not tell as a number, is None.

    `name` is empty for threads without one, and the priority or number as text on builds without names. `prio` is
    negative for cooperative threads of Zephyr, unless it was built to send one byte without sign. `state` is the
    scheduler's own number, `tid` a running one. `runtime` and both check-ins are in cycles or ticks of the device.
    """

    name: str
    prio: int | None = None
    tid: int | None = None
    state: int | None = None
    stack_size_bytes: int | None = None
    stack_used_bytes: int | None = None
    context_switches: int | None = None
    runtime: int | None = None
    last_checkin: int | None = None
    next_checkin: int | None = None
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tasks:
    """All threads in the device's order, two of the same name included."""

    tasks: tuple[Task, ...]
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadTasks(SmpCommand[Tasks], group=OS, number=2, what="task statistics query", repeatable=True):
    """Task statistics. Stack sizes come in words of 4 bytes (Zephyr and Mynewt) and leave here in bytes."""

    def parse(self, fields: Fields) -> Tasks:
        tasks, others = _by_name(fields.pairs("tasks"))
        return Tasks(tuple(_task(name, item) for name, item in tasks), {**fields.extra(), **others})


def _task(name: str, fields: Fields) -> Task:
    size = fields.optional_integer("stksiz")
    if size is None:
        size = fields.optional_integer("stksize")  # the spelling of some clients and the servers written after them
    used = fields.optional_integer("stkuse")
    return Task(
        name=name,
        prio=fields.optional_integer("prio"),
        tid=fields.optional_integer("tid"),
        state=fields.optional_integer("state"),
        stack_size_bytes=None if size is None else size * _STACK_UNIT_BYTES,
        stack_used_bytes=None if used is None else used * _STACK_UNIT_BYTES,
        context_switches=fields.optional_integer("cswcnt"),
        runtime=fields.optional_integer("runtime"),
        last_checkin=fields.optional_integer("last_checkin"),
        next_checkin=fields.optional_integer("next_checkin"),
        extra=fields.extra(),
    )


# -- memory pool statistics -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MemoryPool:
    """One pool of blocks; `least_free` is the lowest number of free blocks so far. What is not told is None.

    Zephyr's pools are its heaps, with running numbers for names: their blocks are bytes, and `block_bytes` is told
    only by builds without `CONFIG_MCUMGR_GRP_OS_MPSTAT_ONLY_SUPPORTED_STATS`.
    """

    name: str
    block_bytes: int | None = None
    blocks: int | None = None
    free: int | None = None
    least_free: int | None = None
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MemoryPools:
    """All pools, in the device's order."""

    pools: tuple[MemoryPool, ...]
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadMemoryPools(SmpCommand[MemoryPools], group=OS, number=3, what="memory pool query", repeatable=True):
    """Memory pool statistics, in the three layouts that servers have.

    Under `mpools` in Mynewt (newtmgr `mpstat.go`) and Zephyr from pull request 119769 on; under `tasks` in Zephyr 4.4;
    at the top level in Zephyr since pull request 107251, and in its documentation, which writes `nrfree` for `nfree`
    in one of two places.
    """

    def parse(self, fields: Fields) -> MemoryPools:
        body = fields.extra()
        tasks = body.get("tasks")
        # A heap of the flat layout could be called "tasks", too: what that holds is no map.
        has_tasks = isinstance(tasks, dict) and (not tasks or any(isinstance(item, dict) for item in tasks.values()))
        key = "mpools" if "mpools" in body else "tasks" if has_tasks else None
        pools, others = _by_name(body.items() if key is None else fields.pairs(key))
        if key is not None:
            others = {**fields.extra(), **others}
        return MemoryPools(tuple(_pool(name, item) for name, item in pools), others)


def _pool(name: str, fields: Fields) -> MemoryPool:
    free = fields.optional_integer("nfree")
    least = fields.optional_integer("min")
    return MemoryPool(
        name=name,
        block_bytes=fields.optional_integer("blksiz"),
        blocks=fields.optional_integer("nblks"),
        free=fields.optional_integer("nrfree") if free is None else free,
        least_free=fields.optional_integer("min'") if least is None else least,
        extra=fields.extra(),
    )


# -- date and time ----------------------------------------------------------------------------------------------------

_TIME = re.compile(
    r"\s*(\d{1,5})-(\d\d?)-(\d\d?)[Tt ](\d\d?):(\d\d?):(\d\d?)(?:[.,](\d{1,9}))?\s*(?:([Zz])|([+-])(\d\d):?(\d\d))?\s*",
    re.ASCII,
)

# Zephyr's parser (`os_mgmt.c`) takes no year before this one.
_FIRST_YEAR = 1900


def parse_time(text: str) -> datetime | None:
    """The time that a device's text means, or None where it is none. One without a time zone counts as UTC.

    Zephyr writes milliseconds without leading zeros (`56.7` is 56.007 s), Mynewt six digits of a fraction.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    numbers, fraction, sign = match.groups()[:6], match[7], match[9]
    zone = UTC
    microseconds = 0
    if fraction is not None:
        is_milliseconds = len(fraction) <= 3 and not (match[8] or sign)
        microseconds = int(fraction) * 1000 if is_milliseconds else int(fraction[:6].ljust(6, "0"))
    try:
        if sign:
            ahead = timedelta(hours=int(match[10]), minutes=int(match[11]))
            zone = timezone(ahead if sign == "+" else -ahead)
        year, month, day, hour, minute, second = map(int, numbers)
        return datetime(year, month, day, hour, minute, second, microseconds, zone)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class DeviceTime:
    """The device's clock: `text` as it says it, and `time`, or None where the text means none."""

    text: str
    time: datetime | None = None
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadDatetime(SmpCommand[DeviceTime], group=OS, number=4, what="clock query", repeatable=True):
    """The device's clock (Zephyr 3.6 and later)."""

    def parse(self, fields: Fields) -> DeviceTime:
        text = fields.text("datetime")
        return DeviceTime(text, parse_time(text), fields.extra())


@dataclass(frozen=True, slots=True)
class WriteDatetime(SmpCommand[None], group=OS, number=4, op=Op.WRITE, what="clock setting"):
    """Set the device's clock to `time`; one without a time zone counts as UTC.

    Sent is UTC, and no zone beside it: Zephyr takes 19 to 25 characters and ignores a zone, Mynewt takes a missing one
    for UTC. Milliseconds are sent where there are any; firmware that does not keep them ignores them. Not repeated
    when no answer comes: the second would set a time that has passed. Raises `UsageError` for years before 1900.
    """

    time: datetime

    @property
    def text(self) -> str:
        """The time as it is sent."""
        try:
            time = self.time.astimezone(UTC) if self.time.tzinfo is not None else self.time
        except OverflowError as error:
            raise UsageError(f"{self.time} is out of range in UTC") from error
        if time.year < _FIRST_YEAR:
            raise UsageError(f"no device takes the year {time.year}", hint=f"years begin with {_FIRST_YEAR}")
        milliseconds = time.microsecond // 1000
        return time.strftime("%Y-%m-%dT%H:%M:%S") + (f".{milliseconds:03}" if milliseconds else "")

    def body(self) -> Body:
        return {"datetime": self.text}


# -- information on the application -----------------------------------------------------------------------------------

INFO_FIELDS: Mapping[str, str] = {
    "s": "kernel",
    "n": "node",
    "r": "release",
    "v": "version",
    "b": "build",
    "m": "machine",
    "p": "processor",
    "i": "board",
    "o": "os",
}
"""The letters of a format, in the order of the answer, and the fields of `Info` that they ask for."""

INFO_ALL = "a"
"""The letter for all of them, and for what the application adds."""


@dataclass(frozen=True, slots=True)
class Info:
    """What the device tells of its firmware; None for what it does not know.

    `release` is mostly a Git description, `version` that of the kernel, `build` date and time of the build, `machine`
    the architecture.
    """

    kernel: str | None = None
    node: str | None = None
    release: str | None = None
    version: str | None = None
    build: str | None = None
    machine: str | None = None
    processor: str | None = None
    board: str | None = None
    os: str | None = None


@dataclass(frozen=True, slots=True)
class ReadInfo(SmpCommand[str], group=OS, number=7, what="information query", repeatable=True):
    """Information on the application, as `uname` has it: fields of `format` (default: the kernel's name) in one text.

    Their order is the device's and they hold spaces themselves, so that only single ones can be told apart.
    """

    format: str | None = None

    def parse(self, fields: Fields) -> str:
        return fields.text("output")


# -- bootloader information -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QueryBootloader(SmpCommand[Body], group=OS, number=8, what="bootloader query", repeatable=True):
    """Any query of the bootloader; the result is the answer as it is."""

    query: str

    def parse(self, fields: Fields) -> Body:
        return fields.extra()


@dataclass(frozen=True, slots=True)
class ReadActiveB0Slot(SmpCommand[int | None], group=OS, number=8, what="bootloader slot query", repeatable=True):
    """The slot that the first-stage bootloader of the nRF Connect SDK (B0) started MCUboot from: 0 or 1."""

    def body(self) -> Body:
        return {"query": "active_b0_slot"}

    def parse(self, fields: Fields) -> int | None:
        return fields.lenient.optional_integer("active")


# -- console echo -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ControlConsoleEcho(
    SmpCommand[None], group=OS, number=1, op=Op.WRITE, what="console echo setting", repeatable=True
):
    """Let the device's console echo what is typed, or not. Zephyr has no such command; MCUboot's recovery says yes."""

    on: bool

    def body(self) -> Body:
        return {"echo": int(self.on)}
