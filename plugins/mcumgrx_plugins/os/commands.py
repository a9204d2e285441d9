"""The commands `mcumgrx os …`. Imports nothing heavy: help must stay quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from mcumgrx.plugin_api import (
    Argument,
    CliContext,
    Note,
    Option,
    RequestTimeout,
    UsageError,
    aligned,
    cli_command,
    value_text,
)

if TYPE_CHECKING:
    from datetime import datetime as Datetime

    from .messages import DeviceTime, Info, MemoryPool, Task

_MODES = {
    -1: "unknown",
    0: "single slot",
    1: "swap using scratch",
    2: "overwrite only",
    3: "swap using move",
    4: "direct XIP",
    5: "direct XIP with revert",
    6: "RAM load",
    7: "firmware loader",
    8: "single slot, RAM load",
    9: "swap using offset",
}


# -- echo -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EchoResult:
    """What came back, and whether it is what was sent."""

    text: str
    same: bool

    def lines(self) -> list[str]:
        return [self.text] if self.same else [self.text, "(this is not what was sent)"]


@cli_command(
    Argument("text", "what to send"),
    epilog="mcumgrx os echo hello -d serial:/dev/ttyACM0",
)
async def echo(context: CliContext, text: str) -> EchoResult:
    """Send TEXT to the device and print what comes back."""
    from .group import OsGroup

    async with context.connect() as client:
        back = await client.group(OsGroup).echo(text)
    return EchoResult(back, back == text)


# -- reset ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResetResult:
    """The reset was asked for; whether the device restarted shows when it is back.

    `last_heard`: `answer`, `end of link`, `silence`, or `nonsense` for an answer that cannot be read.
    """

    forced: bool
    boot_mode: int | None
    last_heard: str = "answer"

    def lines(self) -> list[str]:
        mode = "" if self.boot_mode is None else f" with boot mode {self.boot_mode}, if its firmware knows boot modes"
        return [_SAID[self.last_heard].format(mode=mode), "whether it is back was not looked at"]


_SAID = {
    "answer": "the device restarts{mode}",
    "end of link": "the device restarts{mode}: the link has ended",
    "silence": "a reset was sent{mode}; no answer came, as none comes from devices that restart at once",
    "nonsense": "a reset was sent{mode}; the answer to it cannot be read",
}


@cli_command(
    Option("--force", "Restart even if the application objects.", type=bool, default=False),
    Option(
        "--boot-mode",
        "Where to start: application, bootloader (recovery mode), or a number that the firmware defines.",
        metavar="MODE",
    ),
    epilog="mcumgrx os reset --boot-mode bootloader -d /dev/ttyACM0",
)
async def reset(context: CliContext, force: bool, boot_mode: str | None) -> ResetResult:
    """Restart the device. It does not wait until the device is back."""
    from .group import Farewell, OsGroup

    mode = None if boot_mode is None else _boot_mode(boot_mode)
    async with context.connect() as client:
        # A harmless request first: the silence of a device that answers tells something.
        await client.params()
        heard = await client.group(OsGroup).restart(force=force, boot_mode=mode)
        if heard is Farewell.SILENCE and client.last_heard_s is None:
            raise _never_heard()
    return ResetResult(force, mode, heard.value)


def _never_heard() -> RequestTimeout:
    return RequestTimeout(
        "the device has answered nothing, neither before the reset nor to it: it is not known whether it restarts",
        what="reset",
        timeout_s=0.0,
    )


def _boot_mode(text: str) -> int:
    from .messages import BOOT_MODE_MAXIMUM, BOOT_MODES

    if text.lower() in BOOT_MODES:
        return BOOT_MODES[text.lower()]
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= BOOT_MODE_MAXIMUM:
        raise UsageError(
            f"{text!r} is not a boot mode",
            hint=f"use {', '.join(BOOT_MODES)}, or a number from 0 to {BOOT_MODE_MAXIMUM}",
        )
    return number


# -- params -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ParamsResult:
    """The device's buffers, and the largest message that fits device and link together, in bytes."""

    buf_size: int
    buf_count: int
    largest_message: int
    extra: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        return [
            f"buffers          {self.buf_count} of {self.buf_size} bytes",
            f"largest message  {self.largest_message} bytes over this link",
            *(f"{key:<15}  {value_text(value)}" for key, value in self.extra.items()),
        ]


@cli_command(epilog="mcumgrx os params -d serial:/dev/ttyACM0")
async def params(context: CliContext) -> ParamsResult:
    """Show the size and number of the device's buffers for SMP messages."""
    from .group import OsGroup

    async with context.connect() as client:
        found = await client.group(OsGroup).params()
        return ParamsResult(found.buf_size, found.buf_count, client.limits.message(found.buf_size), found.extra)


# -- info -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InfoResult:
    """What the device tells of its firmware: the `fields` told apart, or one `text` with those of `format`."""

    fields: Info | None = None
    format: str | None = None
    text: str | None = None

    def lines(self) -> list[str]:
        if self.fields is None:
            return [self.text or ""]
        values = [(one.name, getattr(self.fields, one.name)) for one in fields(self.fields)]
        return aligned([(name, value) for name, value in values if value])


@cli_command(
    Argument("format", "letters of the fields to show as the device puts them, such as sv", required=False),
    Option("--all", "Show all fields as the device puts them, the application's own too.", type=bool, default=False),
    epilog="""
    mcumgrx os info -d serial:/dev/ttyACM0
    mcumgrx os info --all -d serial:/dev/ttyACM0
    mcumgrx os info sv -d /dev/ttyACM0
    """,
)
async def info(context: CliContext, format: str | None, all: bool) -> InfoResult:
    """Show what the device tells of its firmware: kernel, versions, build, board.

    Every field is asked for by itself. With FORMAT or --all the device puts several into one line, in the order s
    kernel, n node name, r release, v version, b build time, m machine, p processor, i board, o operating system;
    its application may know more letters.
    """
    from .group import OsGroup
    from .messages import INFO_ALL

    if all and format is not None:
        raise UsageError("FORMAT and --all exclude each other", hint=f"--all is the same as the letter {INFO_ALL}")
    if all:
        format = INFO_ALL
    async with context.connect() as client:
        group = client.group(OsGroup)
        if format is None:
            return InfoResult(await group.info())
        return InfoResult(None, format, await group.info_text(format))


# -- bootloader -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BootloaderResult:
    """The bootloader as far as the device tells; `mode` is MCUboot's number, `updates_by` says what it means."""

    name: str | None
    mode: int | None
    updates_by: str
    no_downgrade: bool
    active_b0_slot: int | None = None
    extra: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        if self.name is None:
            return ["the device does not tell (older firmware, or built without CONFIG_MCUMGR_GRP_OS_BOOTLOADER_INFO)"]
        rows = [("bootloader", self.name)]
        rows.append(("updates by", self.updates_by + ("" if self.mode is None else f" (mode {self.mode})")))
        if self.no_downgrade:
            rows.append(("downgrades", "refused"))
        if self.active_b0_slot is not None:
            rows.append(("started by", f"a first-stage bootloader, from its slot {self.active_b0_slot}"))
        rows += [(key, text) for key, value in self.extra.items() if (text := value_text(value))]
        return aligned(rows)


@dataclass(frozen=True, slots=True)
class BootloaderAnswer:
    """What the device answered to a query, as it is."""

    query: str
    answer: dict[str, object]

    def lines(self) -> list[str]:
        if not self.answer:
            return ["the device knows this query, and answers nothing"]
        rows = {key: value_text(value) for key, value in self.answer.items()}
        mode = self.answer.get("mode")
        if self.query == "mode" and isinstance(mode, int) and not isinstance(mode, bool) and mode in _MODES:
            rows["mode"] += f" ({_MODES[mode]})"
        return [f"{key}  {value}" for key, value in rows.items()]


@cli_command(
    Argument("query", "what to ask instead, such as mode or active_b0_slot", required=False),
    epilog="""
    mcumgrx os bootloader -d /dev/ttyACM0
    mcumgrx os bootloader active_b0_slot -d /dev/ttyACM0
    """,
)
async def bootloader(context: CliContext, query: str | None) -> BootloaderResult | BootloaderAnswer:
    """Show which bootloader the device has, how it updates, and whether it refuses downgrades.

    With QUERY, any question that its firmware may know, its answer is shown as it is.
    """
    from .group import OsGroup

    async with context.connect() as client:
        group = client.group(OsGroup)
        if query is not None:
            return BootloaderAnswer(query, await group.query_bootloader(query))
        found = await group.bootloader()
        active = None if found.name is None else await group.active_b0_slot()
    return BootloaderResult(
        name=found.name,
        mode=None if found.mode == -1 else int(found.mode),
        updates_by=_MODES.get(found.mode, "a way that this version of mcumgrx does not know"),
        no_downgrade=found.no_downgrade,
        active_b0_slot=active,
        extra=found.extra,
    )


# -- datetime ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DatetimeResult:
    """The device's clock: its own `text`, the time in UTC, and by how many seconds it is ahead of this computer's.

    `set` says that it has been set just now. `utc` and `ahead_s` are None for a text that is no time; the text is empty
    where the clock cannot be read after that.
    """

    text: str
    utc: str | None
    ahead_s: float | None
    set: bool
    extra: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        extra = [f"{key}  {value_text(value)}" for key, value in self.extra.items()]
        said = ["set, says the device"] if self.set else []
        if not self.text:
            return [*said, "(its clock cannot be read)"]
        if self.utc is None or self.ahead_s is None:
            return [*said, self.text, "(mcumgrx cannot read this as a time)", *extra]
        # A second is the resolution of most devices, and of this comparison.
        away = f"{abs(self.ahead_s):.0f} s {'ahead of' if self.ahead_s > 0 else 'behind'} this computer's clock"
        away = "as this computer's clock" if abs(self.ahead_s) < 1.5 else away
        return [f"{'set to ' if self.set else ''}{self.utc} UTC, {away}", *extra]


@cli_command(
    Option("--set", "Set it: 'now', or a time such as 2026-02-28T12:34:56 (UTC, or with a zone).", metavar="TIME"),
    epilog="""
    mcumgrx os datetime -d /dev/ttyACM0
    mcumgrx os datetime --set now -d /dev/ttyACM0
    mcumgrx os datetime --set 2026-02-28T12:34:56+01:00 -d /dev/ttyACM0
    """,
)
async def datetime(context: CliContext, set: str | None) -> DatetimeResult:
    """Show the device's clock, or set it and show what it says then.

    A device's clock has no time zone: it is taken to run in UTC, and set to UTC, unless it names a zone itself.
    """
    from datetime import UTC
    from datetime import datetime as Datetime

    from .group import OsGroup

    wanted = None if set is None or set.lower() == "now" else _time(set)
    async with context.connect() as client:
        group = client.group(OsGroup)
        if set is None:
            found: DeviceTime | None = await group.clock()
        else:
            done = await group.set_and_read_clock(wanted)
            found = done.now
            if not done.answered:
                context.progress(Note("no answer to the setting could be read; the clock shows the time", warning=True))
        now = Datetime.now(UTC)
    if found is None:
        return DatetimeResult("", None, None, True)
    if found.time is None:
        return DatetimeResult(found.text, None, None, set is not None, found.extra)
    return DatetimeResult(
        text=found.text,
        utc=_utc(found.time),
        ahead_s=round((found.time - now).total_seconds(), 1),
        set=set is not None,
        extra=found.extra,
    )


def _time(text: str) -> Datetime:
    """What is typed as a time; one without a zone is UTC. Raises `UsageError`."""
    from datetime import UTC
    from datetime import datetime as Datetime

    from .messages import WriteDatetime

    try:
        time = Datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a time", hint="write now, 2026-02-28T12:34:56 (UTC) or 2026-02-28T12:34:56+01:00"
        ) from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    WriteDatetime(time).body()  # refuses what no device takes, before one is asked
    return time


def _utc(time: Datetime) -> str:
    from contextlib import suppress
    from datetime import UTC

    with suppress(OverflowError):  # on the first or last day of the calendar
        time = time.astimezone(UTC)
    return time.isoformat(" ", "milliseconds" if time.microsecond else "seconds").removesuffix("+00:00")


# -- tasks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TasksResult:
    """The threads; stack sizes in bytes, what the device does not tell is None."""

    tasks: tuple[Task, ...]
    extra: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        if not self.tasks:
            return ["the device lists no thread", *_named(self.extra)]
        names = list(dict.fromkeys(key for task in self.tasks for key in task.extra))
        head = ("thread", "priority", "id", "state", "stack used", "switches", "runtime", "last check", "next check")
        rows = [(*head, *names)]
        for task in self.tasks:
            told = (task.context_switches, task.runtime, task.last_checkin, task.next_checkin)
            rows.append(
                (
                    task.name or "(no name)",
                    *_numbers(task.prio, task.tid, task.state),
                    _stack(task.stack_used_bytes, task.stack_size_bytes),
                    *_numbers(*told),
                    *(value_text(task.extra[name]) if name in task.extra else "" for name in names),
                )
            )
        return [*aligned(rows, head=True), *_named(self.extra)]


def _numbers(*values: int | None) -> list[str]:
    return ["" if value is None else str(value) for value in values]


def _stack(used: int | None, size: int | None) -> str:
    if size is None:
        return "" if used is None else f"{used} bytes"
    # Nothing used at all is what builds without CONFIG_INIT_STACKS say.
    if not used:
        return f"? of {size} bytes"
    return f"{used} of {size} bytes" + (f" ({100 * used / size:.0f} %)" if size > 0 else "")


@cli_command(
    epilog="""
    mcumgrx os tasks -d serial:/dev/ttyACM0
    mcumgrx os tasks --json -d serial:/dev/ttyACM0
    """
)
async def tasks(context: CliContext) -> TasksResult:
    """Show the device's threads: priority, state, and how much of each stack has ever been used.

    Priorities and states are the numbers of the device's kernel; threads without a name have their priority for it.
    """
    from .group import OsGroup

    async with context.connect() as client:
        found = await client.group(OsGroup).tasks()
    return TasksResult(found.tasks, found.extra)


# -- pools ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PoolsResult:
    """The memory pools; `block_bytes` is the size of one block. What the device does not tell is None."""

    pools: tuple[MemoryPool, ...]
    extra: dict[str, object] = field(default_factory=dict)

    def lines(self) -> list[str]:
        if not self.pools:
            return ["the device lists no memory pool", *_named(self.extra)]
        names = list(dict.fromkeys(key for pool in self.pools for key in pool.extra))
        rows: list[tuple[str, ...]] = [("pool", "block", "blocks", "free", "least free", *names)]
        for pool in self.pools:
            rows.append(
                (
                    pool.name or "(no name)",
                    "" if pool.block_bytes is None else f"{pool.block_bytes} bytes",
                    *_numbers(pool.blocks, pool.free, pool.least_free),
                    *(value_text(pool.extra[name]) if name in pool.extra else "" for name in names),
                )
            )
        sizes = {pool.block_bytes for pool in self.pools}
        heaps = ["(no block size is told: Zephyr counts the bytes of its heaps)"] if sizes == {None} else []
        return [*aligned(rows, head=True), *heaps, *_named(self.extra)]


@cli_command(epilog="mcumgrx os pools -d serial:/dev/ttyACM0")
async def pools(context: CliContext) -> PoolsResult:
    """Show the device's memory pools, how full they are and have been (Zephyr 4.4 or later, Apache Mynewt).

    Zephyr's pools are its heaps, which have numbers for names and are counted in bytes.
    """
    from .group import OsGroup

    async with context.connect() as client:
        found = await client.group(OsGroup).memory_pools()
    return PoolsResult(found.pools, found.extra)


# -- words ------------------------------------------------------------------------------------------------------------


def _named(values: Mapping[str, object]) -> list[str]:
    """A line for each of what an answer holds beside what was asked for."""
    return [f"{key}: {value_text(value)}" for key, value in values.items()]
