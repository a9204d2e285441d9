"""CBOR values as JSON and back, without losing what JSON has not.

Byte strings are `{"$hex": "00ff"}`, maps with keys that are no text `{"$map": [[key, value], …]}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

from mcumgrx.plugin_api import Body, UsageError

HEX, MAP = "$hex", "$map"

_LEAST, _LARGEST = -(1 << 64), (1 << 64) - 1
"""What integers of CBOR can be."""

_EXAMPLE = 'such as \'{"name": "app/led", "val": {"$hex": "01"}}\''


def body_from_json(text: str) -> Body:
    """The map that `text` stands for. Raises `UsageError` for what is no JSON, no object, or nothing for CBOR."""
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
        value = _from_json(value)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"the body is not JSON: {error.msg} ({where})", hint=f"write an object, {_EXAMPLE}") from error
    except RecursionError as error:
        raise UsageError("the body is nested too deeply") from error
    except UsageError:
        raise
    except ValueError as error:  # a number with thousands of digits
        raise UsageError(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError("the body is no JSON object, but every request is a map", hint=f"write one, {_EXAMPLE}")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"the body has {twice!r} twice in one object")
    return found


def _no_number(name: str) -> NoReturn:
    raise UsageError(f"the body is not JSON: {name} is no number there")


def _from_json(value: Any) -> Any:
    if isinstance(value, int) and not _LEAST <= value <= _LARGEST:
        raise UsageError(f"{value} does not fit an integer of 64 bits")
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {HEX}:
            return _bytes(value[HEX])
        if set(value) == {MAP}:
            return _map(value[MAP])
        return {_from_json(key): _from_json(item) for key, item in value.items()}
    return value


def _bytes(text: Any) -> bytes:
    try:
        return bytes.fromhex(text)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{json.dumps({HEX: text})} holds no hexadecimal digits", hint='{"$hex": "00ff"}') from error


def _map(pairs: Any) -> dict[Any, Any]:
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise UsageError(f"{MAP} takes a list of keys with their values", hint='{"$map": [[1, "one"], [2, "two"]]}')
    try:
        return {_from_json(key): _from_json(item) for key, item in pairs}
    except TypeError as error:
        raise UsageError(f"a key in {MAP} is a list or an object") from error


def to_json(value: object) -> Any:
    """A decoded value in what JSON has; what has no form there becomes its text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return {HEX: value.hex()}
    if isinstance(value, Mapping):
        names = set(value)
        if all(isinstance(key, str) for key in names) and names not in ({HEX}, {MAP}):
            return {key: to_json(item) for key, item in value.items()}
        return {MAP: [[to_json(key), to_json(item)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return str(value)
