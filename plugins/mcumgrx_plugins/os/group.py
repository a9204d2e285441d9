"""`OsGroup`: the commands of group 0 over a client; it fills the role `mcumgrx.contracts.OsGroup`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import TypeVar

from mcumgrx.plugin_api import (
    Body,
    Bootloader,
    DeviceError,
    Echo,
    Group,
    Hint,
    LinkLost,
    MalformedReply,
    McumgrError,
    NotDone,
    OsErrorCode,
    Params,
    ReadBootloader,
    ReadBootloaderMode,
    ReadParams,
    RequestTimeout,
    Reset,
    SmpCommand,
    SmpError,
    UsageError,
    explaining,
)
from mcumgrx.plugin_api import OsGroup as OsRole

from .messages import (
    BOOT_MODE_MAXIMUM,
    INFO_ALL,
    INFO_FIELDS,
    ControlConsoleEcho,
    DeviceTime,
    Info,
    MemoryPools,
    QueryBootloader,
    ReadActiveB0Slot,
    ReadDatetime,
    ReadInfo,
    ReadMemoryPools,
    ReadTasks,
    Tasks,
    WriteDatetime,
)

R = TypeVar("R")

# Plain codes of servers without the command, or without an answer to this question: most have neither (8); errors of
# the group in their version 1 form are 1, 3 and 5; Zephyr 3.5 sends a bare 3 for a question it does not know.
_CANNOT_TELL = frozenset({SmpError.NOT_SUPPORTED, SmpError.NO_ENTRY, SmpError.INVALID, SmpError.UNKNOWN})

_QUERIES = "MCUboot knows 'mode', and with the nRF Connect SDK 'active_b0_slot'"
_FORMATS = (
    f"Zephyr knows the letters {' '.join(INFO_FIELDS)} (b only if built with "
    f"CONFIG_MCUMGR_GRP_OS_INFO_BUILD_DATE_TIME) and {INFO_ALL}; others are the application's own"
)
_LONG_INFO = "ask for fewer fields at once, or raise CONFIG_MCUMGR_GRP_OS_INFO_MAX_RESPONSE_SIZE"
_POOLS_OPTION = "CONFIG_MCUMGR_GRP_OS_MPSTAT (Zephyr 4.4 or later)"
_LAST_RESORT = "--force is the last resort: it restarts the device in the middle of what it does, which may break that"
_CLOCK_OPTION = "CONFIG_MCUMGR_GRP_OS_DATETIME (Zephyr 3.6 or later, and a devicetree alias rtc)"
_CLOCK_NOT_SET = OsErrorCode.RTC_NOT_SET.hint
_CLOCK_TEXT = "its clock may keep only some years: try a time of today"


# A clock of whole seconds, and the time that an answer takes over a slow link.
_CLOCK_TOLERANCE_S = 5.0


class Farewell(Enum):
    """The last that was heard of a device that was told to restart."""

    ANSWER = "answer"
    END_OF_LINK = "end of link"
    SILENCE = "silence"
    NONSENSE = "nonsense"  # an answer that cannot be read


@dataclass(frozen=True, slots=True)
class ClockSet:
    """A clock that was set: what it says now, or None where it cannot be read. `answered`: the device said yes."""

    answered: bool
    now: DeviceTime | None


class OsGroup(Group, OsRole):
    """Group 0 of a connected device. Every method raises the errors of `Client.request`."""

    async def echo(self, text: str) -> str:
        """Send `text` and get it back; how long it can be, the device's buffers decide."""
        with _needs("CONFIG_MCUMGR_GRP_OS_ECHO", "in MCUboot's recovery that is CONFIG_BOOT_MGMT_ECHO"):
            return await self.request(Echo(text))

    async def console_echo(self, on: bool) -> None:
        """Let the device's console echo what is typed, or not. Zephyr applications refuse this."""
        await self.request(ControlConsoleEcho(on))

    async def in_recovery(self) -> bool:
        """Whether MCUboot's recovery answers, and not an application of Zephyr.

        MCUboot takes a setting of the console's echo (and does nothing), Zephyr has no such command. An application
        of Apache Mynewt takes it too, and turns its echo off.
        """
        try:
            await self.console_echo(False)
        except DeviceError as error:
            if error.says(SmpError.NOT_SUPPORTED):
                return False
            raise
        return True

    async def tasks(self) -> Tasks:
        """The threads: priorities, states, stacks."""
        with _needs("CONFIG_MCUMGR_GRP_OS_TASKSTAT"):
            return await self.request(ReadTasks())

    async def memory_pools(self) -> MemoryPools:
        """The memory pools and how full they are."""
        with _needs(_POOLS_OPTION):
            return await self.request(ReadMemoryPools())

    async def clock(self) -> DeviceTime:
        """The device's clock."""
        with _needs(_CLOCK_OPTION), explaining(((OsErrorCode.RTC_NOT_SET, SmpError.NO_ENTRY), _CLOCK_NOT_SET)):
            return await self.request(ReadDatetime())

    async def set_clock(self, time: datetime) -> None:
        """Set the device's clock, in UTC; a time without a time zone counts as UTC."""
        refusals = (OsErrorCode.INVALID_FORMAT, OsErrorCode.RTC_COMMAND_FAILED, SmpError.INVALID)
        with _needs(_CLOCK_OPTION), explaining((refusals, _CLOCK_TEXT)):
            await self.request(WriteDatetime(time))

    async def set_and_read_clock(self, time: datetime | None = None) -> ClockSet:
        """As `set_clock` (default: to the time of this computer), and read it.

        Raises `NotDone` where the clock shows another time, and what `set_clock` raises where it cannot be read.
        """
        begin = datetime.now(UTC)  # the calendar's time, which no event loop has
        wanted = begin if time is None else time if time.tzinfo is not None else time.replace(tzinfo=UTC)
        lost: McumgrError | None = None
        try:
            await self.set_clock(wanted)
        except McumgrError as error:
            if not error.may_be_done or isinstance(error, LinkLost):
                raise
            lost = error
        try:
            found = await self.clock()
        except (DeviceError, MalformedReply, RequestTimeout) as error:
            if lost is not None:
                lost.hint = f"it cannot be read either: {error}"
                raise lost from error
            if isinstance(error, DeviceError) and error.says(OsErrorCode.RTC_NOT_SET, SmpError.NO_ENTRY):
                raise NotDone("the device took the time, and says that its clock has not been set") from error
            return ClockSet(True, None)
        if found.time is None:
            if lost is not None:
                raise lost
            return ClockSet(True, found)
        off_s = abs((found.time - wanted) - (datetime.now(UTC) - begin)).total_seconds()
        if off_s > _CLOCK_TOLERANCE_S:
            said = "took the time" if lost is None else "gave no answer to the time that could be read"
            raise NotDone(f"the device {said}, and its clock shows {found.text}") from lost
        return ClockSet(lost is None, found)

    async def reset(self, *, force: bool = False, boot_mode: int | None = None) -> None:
        """Restart the device: asked once, never repeated.

        Many links drop before the answer has left the device, so a missing answer or a link lost meanwhile count as
        done; whether it has restarted shows when it is back. `force` only tells an application that would refuse.
        `boot_mode` 1 asks for the bootloader's recovery mode; devices built without that ignore it silently.

        Raises `DeviceError` where the device refuses, `LinkLost` where the link was gone before.
        """
        await self.restart(force=force, boot_mode=boot_mode)

    async def restart(self, *, force: bool = False, boot_mode: int | None = None) -> Farewell:
        """As `reset`, and tell what was heard of it."""
        if boot_mode is not None and not 0 <= boot_mode <= BOOT_MODE_MAXIMUM:
            raise UsageError(f"the boot mode {boot_mode} is not in the range 0 to {BOOT_MODE_MAXIMUM}")
        was_connected = self.client.connected
        try:
            await self.client.request(Reset(force, boot_mode), repeats=0)
        except RequestTimeout:
            return Farewell.SILENCE
        except MalformedReply:
            return Farewell.NONSENSE
        except LinkLost:
            if not was_connected:
                raise
            return Farewell.END_OF_LINK
        except DeviceError as error:
            if error.may_be_done:
                return Farewell.NONSENSE
            if not force and error.says(SmpError.BUSY):
                # The application's reset hook says no with this code unless it has a better one; MCUboot, while it
                # writes the image of another core, which a forced reset of an application would break off.
                error.hint = Hint(error.hint or "try again later", "; ", _LAST_RESORT)
            elif error.says(SmpError.NOT_SUPPORTED):
                error.hint = "its firmware was built without CONFIG_REBOOT"
            raise
        return Farewell.ANSWER

    async def params(self) -> Params:
        """The device's buffers, asked anew. `Client.params` remembers them, and takes a refusal for an answer."""
        with _needs("CONFIG_MCUMGR_GRP_OS_MCUMGR_PARAMS", "nothing else needs it"):
            return await self.request(ReadParams())

    async def info(self) -> Info:
        """What the device tells of its firmware, asked field by field; what it does not know is None.

        A field that it cannot tell is no error, unless that is so with all of them.
        """
        found: dict[str, str] = {}
        refusal: DeviceError | None = None
        for letter, name in INFO_FIELDS.items():
            try:
                found[name] = await self.info_text(letter)
            except DeviceError as error:
                if not error.says(OsErrorCode.INVALID_FORMAT, SmpError.INVALID):
                    raise
                refusal = error
        if refusal is not None and not found:
            raise refusal
        return Info(**found)

    async def info_text(self, format: str | None = None) -> str:
        """One text with the fields that the letters of `format` ask for (`INFO_FIELDS`, `INFO_ALL`, the device's own).

        Its order is that of `INFO_FIELDS`, whatever that of the letters. Without a format: the kernel's name.
        """
        hints = ((OsErrorCode.INVALID_FORMAT, SmpError.INVALID), _FORMATS), (SmpError.MESSAGE_SIZE, _LONG_INFO)
        with _needs("CONFIG_MCUMGR_GRP_OS_INFO"), explaining(*hints):
            return await self.request(ReadInfo(format))

    async def board(self) -> str | None:
        """The board's name, as Zephyr's build has it, or None where the device cannot tell."""
        return (await self._told(ReadInfo("i")) or "").strip() or None

    async def bootloader(self) -> Bootloader:
        """The bootloader's name and mode; what the device cannot tell stays unknown."""
        if (name := await self._told(ReadBootloader())) is None:
            return Bootloader()
        return replace(await self._told(ReadBootloaderMode()) or Bootloader(), name=name)

    async def active_b0_slot(self) -> int | None:
        """The slot that MCUboot itself was started from (0 or 1), or None where the device cannot tell.

        Only firmware of the nRF Connect SDK with a first-stage bootloader can.
        """
        return await self._told(ReadActiveB0Slot())

    async def _told(self, command: SmpCommand[R]) -> R | None:
        """The result, or None where the device has no answer, rather than none at the moment."""
        try:
            return await self.request(command)
        except DeviceError as error:
            if error.group is not None or error.says(*_CANNOT_TELL):
                return None
            raise

    async def query_bootloader(self, query: str) -> Body:
        """The answer to any query of the bootloader, as it is. Raises `DeviceError` where it has none."""
        unknown = (OsErrorCode.QUERY_YIELDS_NO_ANSWER, SmpError.INVALID, SmpError.NO_ENTRY)
        with _needs("CONFIG_MCUMGR_GRP_OS_BOOTLOADER_INFO"), explaining((unknown, _QUERIES)):
            return await self.request(QueryBootloader(query))


def _needs(option: str, more: str = "MCUboot's recovery never has this command") -> AbstractContextManager[None]:
    """What raises "not supported" inside gets the hint which build option the firmware lacks."""
    lacks = f"its firmware was built without CONFIG_MCUMGR_GRP_OS, or without {option}; {more}"
    return explaining((SmpError.NOT_SUPPORTED, lacks))
