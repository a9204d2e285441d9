"""`SettingsGroup`: the commands of group 3 over a client; it fills the role `mcumgrx.contracts.SettingsGroup`.

A value lives in three places: in the firmware's handler (`read` and `write`), in what the application uses (`commit`),
and in the storage (`save`, `load`, `delete`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mcumgrx.plugin_api import (
    DeviceError,
    Group,
    Hint,
    LinkLost,
    MalformedReply,
    McumgrError,
    NotDone,
    RequestTimeout,
    Run,
    SmpError,
    UsageError,
    explaining,
    value_text,
)
from mcumgrx.plugin_api import SettingsGroup as SettingsRole

from .messages import (
    CommitSettings,
    DeleteSetting,
    LoadSettings,
    ReadSetting,
    SaveSettings,
    Setting,
    SettingsErrorCode,
    WriteSetting,
)

LARGEST_SIZE = 0xFFFFFFFF
"""The largest `max_size` that a server reads, in bytes."""

EVERYTHING = 0xFFFF
"""A `max_size` beyond what any message holds: the device gives what it can, and tells how much that is."""

_NOT_BUILT = "its firmware was built without CONFIG_MCUMGR_GRP_SETTINGS (Zephyr 3.5 or later)"
_NOTHING_STORED = "nothing of this name is stored, or its firmware was built without a place to store settings"
_WANTS_TEXT = 'Apache Mynewt takes texts only: send {"name": "NAME", "val": "VALUE"} with \'raw settings 0 --write\''
_TOO_LARGE = "ask for less with --max-size"
_HARMLESS = "nothing that the device can be asked tells; the same command again does no harm"
_DELETED = f"{_HARMLESS}, and may miss a setting that is deleted"
_OTHER_VALUE = (
    "its handler in the firmware may change values or keep within limits, or take a new one over with ",
    Run("settings commit"),
)


@dataclass(frozen=True, slots=True)
class Written:
    """What is known of a value that was written: `answered`, and `seen`: a read shows it. None: it cannot be read."""

    answered: bool
    seen: bool | None


class SettingsGroup(Group, SettingsRole):
    """Group 3 of a connected device. Every method raises the errors of `Client.request`, and `UsageError` for a name
    that no setting has.

    Zephyr does not tell what came of `commit`, `load` and `save`: the first two are answered alike whatever happened.
    """

    async def read(self, name: str, max_size: int | None = None) -> Setting:
        """The value of a setting, cut to `max_size` bytes; the device has a limit of its own.

        That limit it tells only to who asks for more.
        """
        return await self._read(name, max_size)

    async def _read(self, name: str, max_size: int | None, repeats: int | None = None) -> Setting:
        _check(name)
        if max_size is not None and not 0 <= max_size <= LARGEST_SIZE:
            raise UsageError(f"no value has {max_size} bytes")
        with _explained(), explaining((SmpError.MESSAGE_SIZE, _TOO_LARGE)):
            return await self.client.request(ReadSetting(name, max_size), repeats=repeats)

    async def write(self, name: str, value: bytes | str) -> None:
        """Give a setting another value for now: neither committed nor stored. Zephyr takes bytes, Mynewt text."""
        _check(name)
        hints = [(SmpError.INVALID, _WANTS_TEXT)] if isinstance(value, bytes) else []
        with _explained(), explaining(*hints):
            await self.request(WriteSetting(name, value))

    async def write_and_look(self, name: str, value: bytes | str) -> Written:
        """As `write`, and read it back, which also tells what has become of a write without an answer.

        Raises `NotDone` where the device has another value, and what `write` raises where nothing can be read.
        """
        lost: McumgrError | None = None
        try:
            await self.write(name, value)
        except McumgrError as error:
            if not error.may_be_done or isinstance(error, LinkLost):
                raise
            lost = error
        try:
            found = await self._read(name, EVERYTHING, repeats=None if self.client.answered else 0)
        except (DeviceError, MalformedReply, RequestTimeout) as error:
            if lost is not None:
                lost.hint = f"it cannot be read either: {error}"
                raise lost from error
            return Written(True, None)
        if _is_same(value, found):
            return Written(lost is None, True)
        has = value_text(found.value) if found.value else "nothing"
        if lost is not None:
            raise NotDone(f"{name} is not set: {lost.message.partition(';')[0]}, and the device has {has}") from lost
        raise NotDone(
            f"the device took the value for {name}, and has {has} when asked for it", hint=Hint(*_OTHER_VALUE)
        )

    async def delete(self, name: str) -> None:
        """Take a setting out of the storage; the firmware has its value until it is restarted."""
        _check(name)
        missed = (SmpError.NO_ENTRY, SettingsErrorCode.KEY_NOT_FOUND)
        with _explained(_DELETED), explaining((missed, _NOTHING_STORED)):
            await self.request(DeleteSetting(name))

    async def commit(self) -> None:
        """Let the application use what has been written."""
        with _explained(_HARMLESS):
            await self.request(CommitSettings())

    async def load(self) -> None:
        """Read everything from the storage; what was written and not saved is lost."""
        with _explained(_HARMLESS):
            await self.request(LoadSettings())

    async def save(self, name: str | None = None) -> None:
        """Write everything to the storage, or only `name` and what is below it, where the device can."""
        if name is not None:
            _check(name)
        with _explained(_HARMLESS):
            await self.request(SaveSettings(name))


@contextmanager
def _explained(unsure: str | None = None) -> Iterator[None]:
    """What raises "not supported" inside gets the hint which build option the firmware lacks.

    `unsure`: the hint for what may have been done all the same.
    """
    try:
        yield
    except McumgrError as error:
        if isinstance(error, DeviceError) and error.says(SmpError.NOT_SUPPORTED):
            error.hint = _NOT_BUILT
        elif error.may_be_done and unsure is not None:
            error.hint = unsure
        raise


def _is_same(sent: bytes | str, found: Setting) -> bool:
    """Whether this is the value that was sent, as far as the device gives it.

    It may be cut, and what the firmware keeps in an array comes with zeros behind it.
    """
    wanted, there = _as_bytes(sent), _as_bytes(found.value)
    is_cut = found.max_size is not None and 0 < found.max_size <= len(there) < len(wanted)
    return wanted.startswith(there) if is_cut else there.rstrip(b"\0") == wanted.rstrip(b"\0")


def _as_bytes(value: bytes | str) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def _check(name: str) -> None:
    """How long a name can be, the device decides. Raises `UsageError`."""
    if not name:
        raise UsageError("a setting has a name", hint="such as app/interval")
