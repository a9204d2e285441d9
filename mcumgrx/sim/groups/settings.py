"""Group 3 of the simulated device: settings with handlers in the firmware, and a place to store them.

A value lives three times: the handler's (written and read), the application's (since the last commit), and the
stored one. Only the last two survive anything.

Sources: Zephyr `subsys/mgmt/mcumgr/grp/settings_mgmt/src/settings_mgmt.c`, `subsys/settings/src/settings.c`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar

from mcumgrx.errors import UsageError
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import GroupId, Op, Version
from mcumgrx.sim.groups import Call, GroupError, GroupServer, Refused


class SettingsErrorCode(IntEnum):
    """Codes of group 3 (Zephyr `settings_mgmt.h`)."""

    UNKNOWN = 1
    KEY_TOO_LONG = 2
    KEY_NOT_FOUND = 3
    READ_NOT_SUPPORTED = 4
    ROOT_KEY_NOT_FOUND = 5
    WRITE_NOT_SUPPORTED = 6
    DELETE_NOT_SUPPORTED = 7
    SAVE_NOT_SUPPORTED = 8


@dataclass(frozen=True, slots=True)
class SettingsHandler:
    """What the firmware has registered for all keys below `root`.

    Attributes:
        root: the part of the name in front of the last keys, such as `app`.
        values: what the firmware begins with, by the rest of the name (`interval` for `app/interval`).
        readable, writable, exported: whether the handler has `get`, `set`, and `export`, which saving needs.
        open: new keys can be written; otherwise only those in `values`.
        value_max: a longer value is refused, in bytes. Zephyr's server reports that like an unknown root.
    """

    root: str
    values: Mapping[str, bytes] = field(default_factory=dict)
    readable: bool = True
    writable: bool = True
    exported: bool = True
    open: bool = False
    value_max: int = 32

    def __post_init__(self) -> None:
        if not self.root or "=" in self.root:
            raise UsageError(f"{self.root!r} is no root of settings")


_HANDLERS = (
    SettingsHandler("app", {"name": b"desk", "interval": (1000).to_bytes(4, "little"), "led": b"\x01"}),
    SettingsHandler("id", {"serial": b"SIM-0001"}, writable=False, exported=False),
    SettingsHandler("user", open=True),
)


@dataclass(frozen=True, slots=True)
class SettingsConfig:
    """Which settings there are, and how the group was built. Sizes in bytes.

    Attributes:
        handlers: what the firmware has registered; the longest root that fits a name takes it.
        backend: there is storage. Without it nothing can be saved, and nothing found to delete.
        stored: what is stored at first, by whole name; handlers get it at each start.
        name_max: longest name, its terminator included (`CONFIG_MCUMGR_GRP_SETTINGS_NAME_LEN`).
        value_max: longest value in an answer; the rest is cut off (`CONFIG_MCUMGR_GRP_SETTINGS_VALUE_LEN`).
        refuses_original: some builds have this group without version 1.
    """

    handlers: tuple[SettingsHandler, ...] = _HANDLERS
    backend: bool = True
    stored: Mapping[str, bytes] = field(default_factory=dict)
    name_max: int = 32
    value_max: int = 32
    refuses_original: bool = False


class SettingsServer(GroupServer):
    """The settings group.

    `runtime`, `applied` and `stored` hold the values by whole name: the handlers', the application's since the last
    commit, and those in the storage.
    """

    group: ClassVar[int] = GroupId.SETTINGS
    name = "settings mgmt"
    legacy_codes: ClassVar[Mapping[int, int]] = {
        SettingsErrorCode.KEY_TOO_LONG: SmpError.INVALID,
        SettingsErrorCode.KEY_NOT_FOUND: SmpError.NO_ENTRY,
        SettingsErrorCode.READ_NOT_SUPPORTED: SmpError.NO_ENTRY,
    }

    def __init__(self, config: SettingsConfig | None = None) -> None:
        super().__init__(
            {
                (Op.READ, 0): self.read,
                (Op.WRITE, 0): self.write,
                (Op.WRITE, 1): self.delete,
                (Op.WRITE, 2): self.commit,
                (Op.READ, 3): self.load,
                (Op.WRITE, 3): self.save,
            }
        )
        self.config = config = config if config is not None else SettingsConfig()
        self.changes = 0
        """Counts what `snapshot` would show differently."""
        self.stored = {name: bytes(value) for name, value in config.stored.items()} if config.backend else {}
        self.runtime: dict[str, bytes] = {}
        self.applied: dict[str, bytes] = {}
        self.restarted()

    def restarted(self) -> None:
        self.runtime = {
            f"{handler.root}/{key}": bytes(value)
            for handler in self.config.handlers
            for key, value in handler.values.items()
        }
        self._load()
        self.changes += 1

    # -- for the state file and the storage ---------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """All values, JSON-safe."""
        return {name: _texts(getattr(self, name)) for name in ("stored", "runtime", "applied")}

    def restore(self, found: Mapping[str, Any]) -> None:
        """Put a snapshot back. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
        stored, runtime, applied = (_values(found[name]) for name in ("stored", "runtime", "applied"))
        self.stored, self.runtime, self.applied = stored, runtime, applied
        self.changes += 1

    def storage_erased(self) -> None:
        """The storage partition has been erased. What is in RAM stays until the next start."""
        self.stored.clear()
        self.changes += 1

    # -- names --------------------------------------------------------------------------------------------------------

    def _name(self, call: Call, wanted: Mapping[str, Any]) -> str:
        """The name in a request. Raises `Refused` and `GroupError`."""
        self._check_version(call)
        name: str = wanted.get("name", "")
        if not name:
            raise Refused(SmpError.INVALID)
        if len(name.encode("utf-8", "surrogateescape")) >= self.config.name_max:
            raise GroupError(SettingsErrorCode.KEY_TOO_LONG)
        return name.partition("\0")[0]

    def _check_version(self, call: Call) -> None:
        if self.config.refuses_original and call.version == Version.V1:
            raise Refused(SmpError.TOO_OLD)

    def _handler(self, name: str) -> SettingsHandler | None:
        fitting = [handler for handler in self.config.handlers if f"{name}/".startswith(f"{handler.root}/")]
        return max(fitting, key=lambda handler: len(handler.root), default=None)

    def _known(self, name: str) -> SettingsHandler:
        handler = self._handler(name)
        if handler is None:
            raise GroupError(SettingsErrorCode.ROOT_KEY_NOT_FOUND)
        return handler

    # -- commands -----------------------------------------------------------------------------------------------------

    def read(self, call: Call) -> dict[str, Any]:
        wanted = call.read(name="text", max_size="uint")
        name = self._name(call, wanted)
        if not self._known(name).readable:
            raise GroupError(SettingsErrorCode.READ_NOT_SUPPORTED)
        if name not in self.runtime:
            raise GroupError(SettingsErrorCode.KEY_NOT_FOUND)
        largest: int = self.config.value_max
        asked: int = wanted.get("max_size", largest)
        answer: dict[str, Any] = {"val": self.runtime[name][: min(asked, largest)]}
        if asked > largest:
            answer["max_size"] = largest
        return answer

    def write(self, call: Call) -> dict[str, Any]:
        wanted = call.read(name="text", val="bytes")
        name = self._name(call, wanted)
        value: bytes = wanted.get("val", b"")
        handler = self._known(name)
        if not handler.writable:
            raise GroupError(SettingsErrorCode.WRITE_NOT_SUPPORTED)
        if name == handler.root or (not handler.open and name not in self.runtime):
            raise GroupError(SettingsErrorCode.KEY_NOT_FOUND)
        if len(value) > handler.value_max:
            # Handlers say EINVAL to a size they do not like, as the lookup does to an unknown root.
            raise GroupError(SettingsErrorCode.ROOT_KEY_NOT_FOUND)
        self.runtime[name] = value
        self.changes += 1
        return {}

    def delete(self, call: Call) -> dict[str, Any]:
        """Takes the value out of the storage alone; one that is not there is no error, where there is storage."""
        name = self._name(call, call.read(name="text"))
        if not self.config.backend:
            raise GroupError(SettingsErrorCode.KEY_NOT_FOUND)
        if self.stored.pop(name, None) is not None:
            self._store(call, name, b"")
        return {}

    def commit(self, call: Call) -> dict[str, Any]:
        self._check_version(call)
        self._commit()
        return {}

    def load(self, call: Call) -> dict[str, Any]:
        self._check_version(call)
        self._load()
        return {}

    def save(self, call: Call) -> dict[str, Any]:
        wanted = call.read(name="text")
        below: str = wanted.get("name", "")
        if below:
            below = self._name(call, wanted)
        self._check_version(call)
        if not self.config.backend:
            raise GroupError(SettingsErrorCode.SAVE_NOT_SUPPORTED)
        for name, value in self.runtime.items():
            handler = self._handler(name)
            exported = handler is not None and handler.exported
            wanted_too = not below or f"{name}/".startswith(f"{below}/")
            if exported and wanted_too and self.stored.get(name) != value:
                self.stored[name] = value
                self._store(call, name, value)
        return {}

    def _commit(self) -> None:
        self.applied = dict(self.runtime)
        self.changes += 1

    def _load(self) -> None:
        """Hand what is stored to the handlers that take it; loading commits too."""
        for name, value in self.stored.items():
            handler = self._handler(name)
            if handler is not None and handler.writable and len(value) <= handler.value_max:
                self.runtime[name] = value
        self._commit()

    def _store(self, call: Call, name: str, value: bytes) -> None:
        timing = call.device.config.timing
        size = len(name.encode("utf-8", "surrogateescape")) + len(value) + 16  # two entries beside name and value
        call.device.flash.busy_s += timing.operation_s + size * timing.write_s_per_byte
        self.changes += 1


def _texts(values: Mapping[str, bytes]) -> dict[str, str]:
    # Names are what a request held; JSON takes no half surrogates.
    return {name.encode("utf-8", "surrogateescape").hex(): value.hex() for name, value in values.items()}


def _values(texts: Mapping[str, str]) -> dict[str, bytes]:
    return {
        bytes.fromhex(name).decode("utf-8", "surrogateescape"): bytes.fromhex(value)
        for name, value in dict(texts).items()
    }
