"""Connection profiles: `mcumgr conn add|delete|show`, in the file where Apache's program keeps them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mcumgrx.errors import UsageError, system_says

from .connection import check_conntype

_FILE = ".mcumgr.cp.json"  # in the home folder
_KEYS = ("MyName", "MyType", "MyConnString")


@dataclass(frozen=True, slots=True)
class Profile:
    """A named connection; `type` may be one that only Apache's program has."""

    name: str
    type: str
    connstring: str


def find(name: str) -> Profile:
    """The profile `name`. Raises `UsageError` where there is none."""
    found = _profiles().get(name)
    if found is None:
        raise UsageError(f'connection profile "{name}" doesn\'t exist')
    return found


def add(words: list[str]) -> None:
    """`NAME type=TYPE connstring=STRING`; one of the same name is replaced."""
    name, *assignments = words
    values = {"type": "", "connstring": ""}
    for assignment in assignments:
        key, _, value = assignment.partition("=")
        if key not in values:
            raise UsageError(f"Unknown variable {key}", hint="there are type and connstring")
        values[key] = value
    if not values["type"]:
        raise UsageError("Must specify a connection type", hint=f"mcumgr conn add {name} type=serial connstring=…")
    check_conntype(values["type"])
    _write({**_profiles(), name: Profile(name, values["type"], values["connstring"])})
    print(f"Connection profile {name} successfully added")


def delete(words: list[str]) -> None:
    """`NAME`."""
    (name,) = words
    left = _profiles()
    del left[find(name).name]
    _write(left)
    print(f"Connection profile {name} successfully deleted.")


def show(words: list[str]) -> None:
    """All of them, or the one of this name."""
    found = [one for _, one in sorted(_profiles().items()) if not words or one.name == words[0]]
    if not found:
        print(f"No connection profiles found matching {words[0]}" if words else "No connection profiles found!")
        return
    print("Connection profiles: ")
    for one in found:
        print(f"  {one.name}: type={one.type}, connstring='{one.connstring}'")


def _profiles() -> dict[str, Profile]:
    path = _path()
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {entry[_KEYS[0]]: Profile(*(str(entry[key]) for key in _KEYS)) for entry in entries}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {system_says(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"error reading connection profile config ({path})", hint="move it out of the way") from error


def _write(profiles: Mapping[str, Profile]) -> None:
    """As a whole, or not at all."""
    path = _path()
    entries = [
        dict(zip(_KEYS, (one.name, one.type, one.connstring), strict=True)) for _, one in sorted(profiles.items())
    ]
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        fresh.write_text(json.dumps(entries, indent=4), encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        raise UsageError(f"{path} cannot be written: {system_says(error)}") from error


def _path() -> Path:
    try:
        return Path.home() / _FILE
    except RuntimeError as error:
        raise UsageError("there is no home folder for connection profiles", hint="set HOME") from error
