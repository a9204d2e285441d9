"""What people type for a setting, and what its bytes mean: text, hexadecimal, little-endian integers."""

from __future__ import annotations

import codecs
import re

from mcumgrx.plugin_api import UsageError

INTEGER_BYTES = 8
"""The widest integer that is read or written."""

_DEFAULT_INTEGER_BYTES = 4


def parse_value(text: str, type: str, size: int | None = None) -> bytes:
    """The bytes that `text` stands for as a value of `type`; `size` is the width of an integer. Raises `UsageError`."""
    if type not in ("int", "uint"):
        if size is not None:
            raise UsageError("--size is for the types int and uint")
        # What the command line could not decode stays the bytes it was.
        return text.encode("utf-8", "surrogateescape") if type == "text" else _from_hex(text)
    width = _DEFAULT_INTEGER_BYTES if size is None else size
    if not 1 <= width <= INTEGER_BYTES:
        raise UsageError(f"an integer has 1 to {INTEGER_BYTES} bytes, not {width}")
    try:
        number = int(text, 0)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a whole number", hint="write it in decimal, or as 0x1f") from error
    try:
        return number.to_bytes(width, "little", signed=type == "int")
    except OverflowError as error:
        hint = "make it wider with --size" if number > 0 or type == "int" else "use --type int for negative numbers"
        raise UsageError(f"{text} does not fit {type} of {width} bytes", hint=hint) from error


def _from_hex(text: str) -> bytes:
    digits = re.sub(r"[\s:_-]", "", text).lower().removeprefix("0x")
    try:
        return bytes.fromhex(digits)
    except ValueError as error:
        raise UsageError(f"{text!r} is not hexadecimal", hint="two digits for each byte, such as e803") from error


def as_text(value: bytes | str, *, may_be_cut: bool = False) -> str | None:
    """The value as text, or None where it is none. What `may_be_cut` can end inside a character, which is left out."""
    if isinstance(value, str):
        return value
    try:
        return codecs.getincrementaldecoder("utf-8")().decode(value, final=not may_be_cut)
    except UnicodeDecodeError:
        return None


def as_integer(value: bytes | str, *, signed: bool) -> int | None:
    """The value as an integer, little-endian in bytes; None for what is none, or wider than 8 bytes."""
    if isinstance(value, bytes):
        if not 1 <= len(value) <= INTEGER_BYTES:
            return None
        return int.from_bytes(value, "little", signed=signed)
    try:
        number = int(value, 0)
    except ValueError:
        return None
    return number if signed or number >= 0 else None
