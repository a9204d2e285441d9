"""What commands return, as JSON has it and as lines for people."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from enum import Enum
from typing import Any

from ..events import Note, Stage
from ..plugin_api import aligned

SCHEMA = 1
"""Version of the JSON output; it changes when a script written for the last one could break."""


def to_data(value: object) -> Any:
    """`value` in what JSON has: dataclasses as objects, bytes as hexadecimal, numbers that JSON lacks as null.

    A method `as_dict()` says it better where there is one.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    as_dict = getattr(value, "as_dict", None)
    if callable(as_dict) and not isinstance(value, type):
        return to_data(as_dict())
    if isinstance(value, Enum):
        return to_data(value.value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): to_data(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((to_data(item) for item in value), key=str)
    if isinstance(value, Iterable):
        return [to_data(item) for item in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return str(value)  # paths, versions, addresses


def _key(key: object) -> str:
    data = to_data(key)
    return data if isinstance(data, str) else json.dumps(data)


def json_line(record: Mapping[str, object]) -> str:
    """One line of JSON; everything outside ASCII is escaped, so that no terminal and no encoding minds it."""
    return json.dumps({"schema": SCHEMA, **{key: to_data(item) for key, item in record.items()}}, allow_nan=False)


def to_lines(value: object) -> list[str]:
    """`value` for people: by its method `lines()`, else its fields (`field: value`, aligned) or a table of them."""
    if value is None:
        return ["done"]
    lines = getattr(value, "lines", None)
    if callable(lines):
        return [line if isinstance(line, str) else str(line) for line in lines()]
    if isinstance(value, str):
        return value.splitlines()
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        if not value:
            return ["none"]
        rows = [_fields(item) for item in value]
        if all(row is not None for row in rows):
            return _table([row for row in rows if row is not None])
        return [_short(item) for item in value]
    row = _fields(value)
    if row is None:
        return [_short(value)]
    width = max((len(name) for name in row), default=0) + 1
    return [f"{name + ':':<{width}} {text}" for name, text in row.items()]


def _fields(value: object) -> dict[str, str] | None:
    """Names and texts of a dataclass or mapping; what the device did not say is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        pairs: list[tuple[str, object]] = [(name, getattr(value, name)) for name in names]
    elif isinstance(value, Mapping):
        pairs = [(str(key), item) for key, item in value.items()]
    else:
        return None
    row: dict[str, str] = {}
    for name, item in pairs:
        if name == "extra" and isinstance(item, Mapping):
            row.update({str(key): _short(more) for key, more in item.items()})
        elif item is not None:
            row[name.replace("_", " ")] = _short(item)
    return row


def _short(value: object) -> str:
    """One value in one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum) and isinstance(value, int):
        return value.name.lower().replace("_", " ")
    data = to_data(value)
    if isinstance(data, str):
        return data
    if isinstance(data, float):
        return f"{data:g}"
    if data == [] or data == {}:
        return "none"
    if isinstance(data, list) and all(isinstance(item, (str, int)) for item in data):
        return ", ".join(str(item) for item in data)
    return json.dumps(data)


def _table(rows: list[dict[str, str]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return aligned([names, *([row.get(name, "-") for name in names] for row in rows)])


# -- events -----------------------------------------------------------------------------------------------------------


def event_name(event: object) -> str:
    """As in JSON: `device_text` for a `DeviceText`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(event).__name__).lower()


def event_text(event: object) -> str:
    """An event in one line for people: its text, or its fields where it has none."""
    text = getattr(event, "text", None)
    if isinstance(event, Stage):
        return f"{event.name}: {text}{' (done)' if event.finished else ''}"
    if isinstance(event, Note) and event.warning:
        return f"warning: {text}"
    if isinstance(text, str):
        return text
    row = _fields(event)
    if row is None:
        return _short(event)
    told = ", ".join(f"{name} {value}" for name, value in row.items())
    return f"{event_name(event).replace('_', ' ')}: {told}" if told else event_name(event).replace("_", " ")
