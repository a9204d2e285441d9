"""`SettingsGroup`: the commands of group 3 over a client.

A value lives in three places: in the firmware's handler (`read` and `write`), in what the application uses (`commit`),
and in the storage (`save`, `load`, `delete`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mcumgrx.plugin_api import DeviceError, Group, UsageError
from mcumgrx.protocol.message import SmpError

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

__all__ = ["EVERYTHING", "LARGEST_SIZE", "SettingsGroup"]

LARGEST_SIZE = 0xFFFFFFFF
"""The largest `max_size` that a server reads, in bytes."""

EVERYTHING = 0xFFFF
"""A `max_size` beyond what any message holds: the device gives what it can, and tells how much that is."""

_NOT_BUILT = "its firmware was built without CONFIG_MCUMGR_GRP_SETTINGS (Zephyr 3.5 or later)"
_NOTHING_STORED = "nothing of this name is stored, or its firmware was built without a place to store settings"
_WANTS_TEXT = 'Apache Mynewt takes texts only: send {"name": "NAME", "val": "VALUE"} with \'raw settings 0 --write\''
_TOO_LARGE = "ask for less with --max-size"


class SettingsGroup(Group):
    """Group 3 of a connected device. Every method raises the errors of `Client.request`, and `UsageError` for a name
    that no setting has.

    Zephyr does not tell what came of `commit`, `load` and `save`: the first two are answered alike whatever happened.
    """

    id = 3

    async def read(self, name: str, max_size: int | None = None) -> Setting:
        """The value of a setting, cut to `max_size` bytes; the device has a limit of its own.

        That limit it tells only to who asks for more.
        """
        _check(name)
        if max_size is not None and not 0 <= max_size <= LARGEST_SIZE:
            raise UsageError(f"no value has {max_size} bytes")
        with _explained():
            try:
                return await self.request(ReadSetting(name, max_size))
            except DeviceError as error:
                if error.group is None and error.rc == SmpError.MESSAGE_SIZE:
                    error.hint = _TOO_LARGE
                raise

    async def write(self, name: str, value: bytes | str) -> None:
        """Give a setting another value for now: neither committed nor stored. Zephyr takes bytes, Mynewt text."""
        _check(name)
        with _explained():
            try:
                await self.request(WriteSetting(name, value))
            except DeviceError as error:
                if error.group is None and error.rc == SmpError.INVALID and isinstance(value, bytes):
                    error.hint = _WANTS_TEXT
                raise

    async def delete(self, name: str) -> None:
        """Take a setting out of the storage; the firmware has its value until it is restarted."""
        _check(name)
        with _explained():
            try:
                await self.request(DeleteSetting(name))
            except DeviceError as error:
                if error.rc == (SmpError.NO_ENTRY if error.group is None else SettingsErrorCode.KEY_NOT_FOUND):
                    error.hint = _NOTHING_STORED
                raise

    async def commit(self) -> None:
        """Let the application use what has been written."""
        with _explained():
            await self.request(CommitSettings())

    async def load(self) -> None:
        """Read everything from the storage; what was written and not saved is lost."""
        with _explained():
            await self.request(LoadSettings())

    async def save(self, name: str | None = None) -> None:
        """Write everything to the storage, or only `name` and what is below it, where the device can."""
        if name is not None:
            _check(name)
        with _explained():
            await self.request(SaveSettings(name))


@contextmanager
def _explained() -> Iterator[None]:
    """What raises "not supported" inside gets the hint which build option the firmware lacks."""
    try:
        yield
    except DeviceError as error:
        if error.group is None and error.rc == SmpError.NOT_SUPPORTED:
            error.hint = _NOT_BUILT
        raise


def _check(name: str) -> None:
    """How long a name can be, the device decides. Raises `UsageError`."""
    try:
        empty = not name.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{name!r} is not a text that can be sent") from error
    if empty:
        raise UsageError("a setting has a name", hint="such as app/interval")
