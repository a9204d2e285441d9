"""Messages of group 3, settings (Zephyr `settings_mgmt.c`; Mynewt's configuration group has the same numbers)."""

from __future__ import annotations

from dataclasses import dataclass, field

from mcumgrx.plugin_api import Body, ErrorCode, Fields, MalformedReply, Op, SmpCommand

from . import SETTINGS

# Flash that collects its garbage first takes seconds.
_STORAGE_TIMEOUT_S = 15.0


class SettingsErrorCode(ErrorCode):
    """Codes of group 3 (Zephyr `settings_mgmt.h`)."""

    UNKNOWN = 1, "unknown error"
    KEY_TOO_LONG = (
        2,
        "the name is too long",
        "names have at most 31 bytes, unless the firmware sets CONFIG_MCUMGR_GRP_SETTINGS_NAME_LEN",
    )
    KEY_NOT_FOUND = 3, "there is no setting of this name"
    READ_NOT_SUPPORTED = 4, "this setting cannot be read", "its handler in the firmware has no function for that"
    ROOT_KEY_NOT_FOUND = (
        5,
        "the firmware knows no settings below this name, or does not take the value",
        "the first part of the name is that of a handler in the firmware; handlers also say so to a value of a size "
        "that they do not expect",
    )
    WRITE_NOT_SUPPORTED = 6, "this setting cannot be written", "its handler in the firmware has no function for that"
    DELETE_NOT_SUPPORTED = 7, "this setting cannot be deleted"
    SAVE_NOT_SUPPORTED = (
        8,
        "settings cannot be saved",
        "its firmware was built without a place to store them, such as CONFIG_SETTINGS_NVS or CONFIG_SETTINGS_ZMS",
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of a setting: bytes that only the firmware knows the meaning of; Mynewt has a text.

    `max_size` is the size in bytes at which the device cuts values, where that is less than was asked for.
    """

    name: str
    value: bytes | str
    max_size: int | None = None
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadSetting(SmpCommand[Setting], group=SETTINGS, number=0, what="setting query", repeatable=True):
    """The value that the firmware has now. A longer one than `max_size` bytes is cut, and nothing says so."""

    name: str
    max_size: int | None = None

    def parse(self, fields: Fields) -> Setting:
        value = fields.required("val")
        if not isinstance(value, (bytes, str)):
            raise MalformedReply("'val' in it is neither a byte string nor text")
        return Setting(self.name, value, fields.lenient.optional_integer("max_size"), fields.extra())


@dataclass(frozen=True, slots=True)
class WriteSetting(SmpCommand[None], group=SETTINGS, number=0, op=Op.WRITE, what="setting", repeatable=True):
    """Hand a value to the firmware: neither committed nor stored. Zephyr takes bytes, Mynewt a text.

    Sending it twice does the same as once.
    """

    name: str
    value: bytes | str

    def body(self) -> Body:
        return {"name": self.name, "val": self.value}


@dataclass(frozen=True, slots=True)
class DeleteSetting(
    SmpCommand[None],
    group=SETTINGS,
    number=1,
    op=Op.WRITE,
    what="deletion of a setting",
    timeout_s=_STORAGE_TIMEOUT_S,
):
    """Take a setting out of the storage. Not repeated: the second time it may be missed."""

    name: str


@dataclass(frozen=True, slots=True)
class CommitSettings(SmpCommand[None], group=SETTINGS, number=2, op=Op.WRITE, what="commit of the settings"):
    """Let the application take over what has been written. Not repeated: what it does then is its own business."""


@dataclass(frozen=True, slots=True)
class LoadSettings(
    SmpCommand[None],
    group=SETTINGS,
    number=3,
    what="loading of the settings",
    timeout_s=_STORAGE_TIMEOUT_S,
    changes=True,
):
    """Read all settings from the storage, over what has been written since; it has the number of `SaveSettings`."""


@dataclass(frozen=True, slots=True)
class SaveSettings(
    SmpCommand[None],
    group=SETTINGS,
    number=3,
    op=Op.WRITE,
    what="saving of the settings",
    timeout_s=_STORAGE_TIMEOUT_S,
):
    """Write all settings to the storage, or those at and below `name`; older servers ignore the name.

    Not repeated: a save takes long where flash is erased, and nothing is gained by a second.
    """

    name: str | None = None
