"""What every command group of the simulated device is made of: requests taken apart, answers put together, refusals.

A group is a `GroupServer` with a handler for each (op, command). Requests are read as strictly as Zephyr's zcbor does
it, answers written as it writes them. Which groups a device has is `device`'s business.

Sources: Zephyr `subsys/mgmt/mcumgr/util/src/zcbor_bulk.c` (requests), `smp/src/smp.c` (errors).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import cbor2

from mcumgrx.errors import McumgrError
from mcumgrx.protocol.codec import decode_item
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import Op
from mcumgrx.sim.bootloader import Bootloader
from mcumgrx.sim.config import DeviceConfig
from mcumgrx.sim.flash import Flash

__all__ = [
    "MISSING",
    "Call",
    "Device",
    "GroupError",
    "GroupServer",
    "Handler",
    "HandlerFailed",
    "Kind",
    "Persistent",
    "Refused",
    "Unanswered",
    "encode",
    "read_map",
]

Body = Mapping[str, Any]

MISSING = 0xFFFFFFFF
"""`SIZE_MAX` of a 32-bit device: what `off` and `len` hold when they were left out, and when somebody sends it."""

MAX_NESTING = 16
"""Levels of maps and arrays in a request. Zephyr's limit depends on the build (10 were seen to work)."""

Kind = Literal["uint", "int", "number", "text", "bytes", "flag", "any"]
"""`uint` and `int` have 32 bits, a `number` may have a fraction, `any` is whatever CBOR has, null included."""


class Refused(Exception):
    """The request ends in a plain `rc`, whatever its SMP version: an error of the SMP layer."""

    def __init__(self, rc: int) -> None:
        super().__init__(f"rc {rc}")
        self.rc = rc


class GroupError(Exception):
    """The request ends in one of the group's own codes.

    `rsn` is the text that servers with verbose errors put beside the code for version 1; `extra` goes behind the
    error in the answer, which some commands do.
    """

    def __init__(self, rc: int, *, rsn: str | None = None, extra: Body | None = None) -> None:
        super().__init__(f"group code {rc}")
        self.rc = rc
        self.rsn = rsn
        self.extra = dict(extra or {})


class HandlerFailed(McumgrError):
    """A mistake in a command group of a simulated device, whoever wrote it; its own exception is the cause.

    It ends the links to the device, and with them the test or `sim serve`: a real device would be silent, which looks
    like a mistake of the client.
    """

    def __init__(self, what: str, error: Exception) -> None:
        super().__init__(
            f"the simulated device has a mistake in {what}: {type(error).__name__}: {error}",
            hint="it is the simulated device's, not the client's: the exception behind this one tells where",
        )
        self.__cause__ = error


class Unanswered(Exception):
    """The request gets no answer, and so do those behind it in the same message."""


class Device(Protocol):
    """The device that a group is in: what its handlers may ask, and do to it.

    Attributes:
        requests: taken up so far.
        boots: resets since the device was made, the first start included.
    """

    config: DeviceConfig
    flash: Flash
    bootloaders: tuple[Bootloader, ...]
    requests: int
    boots: int

    @property
    def b0_slot(self) -> int: ...

    @property
    def bootloader(self) -> Bootloader: ...

    @property
    def groups(self) -> Mapping[int, GroupServer]: ...

    @property
    def served(self) -> Mapping[int, GroupServer]: ...

    @property
    def running_slot(self) -> int: ...

    @property
    def running_slots(self) -> tuple[int, ...]: ...

    def request_reset(self, boot_mode: int = 0) -> None: ...

    def erase_storage(self) -> None: ...


@dataclass(slots=True)
class Call:
    """One request as a handler sees it: `now` is the device's clock in seconds, `payload` still undecoded."""

    # Not frozen: making one would take four times as long, and there is one for every request.

    device: Device
    op: int
    version: int
    payload: bytes = field(repr=False)
    now: float

    def read(self, *, ended: bool = True, **kinds: Kind) -> dict[str, Any]:
        """The values of these keys, those that are missing left out. Raises `Refused` with `EINVAL`.

        Only handlers that have parameters call it: the others take any payload, even none. With `ended` false a map of
        indefinite length may lack its end.
        """
        return read_map(self.payload, kinds, ended=ended)


Handler = Callable[[Call], Body]


class GroupServer:
    """One command group. Subclasses set `group` and add to `handlers` in their constructor.

    ::

        class HeaterServer(GroupServer):
            group = 100
            name = "heater"

            def __init__(self) -> None:
                super().__init__({(Op.READ, 0): self.temperature})

            def temperature(self, call: Call) -> Body:
                return {"mdeg": 21500}

    A handler returns the answer's map, or raises `GroupError` or `Refused`; anything else that it raises is a mistake
    (`HandlerFailed`). What it writes to the device's flash takes its time by itself.
    """

    group: ClassVar[int]
    name: ClassVar[str] = ""
    legacy_codes: ClassVar[Mapping[int, int]] = {}
    """What version 1 clients get for the group's codes; `EUNKNOWN` for those that are not here."""

    def __init__(self, handlers: Mapping[tuple[Op, int], Handler]) -> None:
        self.handlers = dict(handlers)

    def restarted(self) -> None:
        """The device has been reset: forget what was only in its RAM."""


@runtime_checkable
class Persistent(Protocol):
    """A group with something to keep in the device's state file.

    `changes` counts what `snapshot`, which is JSON-safe, would show differently. `restore` raises `ValueError`,
    `KeyError` or `TypeError` for anything else.
    """

    changes: int

    def snapshot(self) -> dict[str, Any]: ...

    def restore(self, found: Mapping[str, Any]) -> None: ...


# -- requests ---------------------------------------------------------------------------------------------------------

_TEXT, _BYTES = 3, 2
_ARRAY, _MAP, _TAG = 4, 5, 6
_BREAK = 0xFF


def read_map(payload: bytes, kinds: Mapping[str, Kind], *, ended: bool = True) -> dict[str, Any]:
    """Decode the map at the start of `payload`: the keys in `kinds` by their kind, the others skipped.

    Bytes behind the map are ignored. Raises `Refused` with `EINVAL` for what zcbor refuses: no map, a key that is no
    text, a wanted key twice or with a value of another kind, numbers outside of 32 bits, anything cut off.
    """
    found = _read_plain(payload, kinds)
    if found is not None:
        return found
    try:
        return _read_map(payload, kinds, ended=ended)
    # An index beyond the end is a cut payload; cbor2 raises whatever a malformed value leads to.
    except (IndexError, ValueError, cbor2.CBORError, RecursionError) as error:
        raise Refused(SmpError.INVALID) from error


# What a decoded value has to be; numbers are those of a 32-bit device.
_FITS: Mapping[str, Callable[[Any], bool]] = {
    "uint": lambda value: type(value) is int and 0 <= value <= MISSING,
    "int": lambda value: type(value) is int and -0x80000000 <= value <= 0x7FFFFFFF,
    "number": lambda value: type(value) in (int, float),
    "text": lambda value: type(value) is str,
    "bytes": lambda value: type(value) is bytes,
    "flag": lambda value: type(value) is bool,
    "any": lambda value: True,
}


def _read_plain(payload: bytes, kinds: Mapping[str, Kind]) -> dict[str, Any] | None:
    """What `_read_map` finds, for maps as clients usually send them: encoded anew, it is the same to the byte.

    None for anything else, be it right or wrong. Uploads come by the hundred thousand; this takes a fraction of the
    time.
    """
    try:
        found = decode_item(payload, MAX_NESTING)
    except ValueError:
        return None
    if type(found) is not dict or cbor2.dumps(found) != payload:
        return None
    wanted = {}
    for key, value in found.items():
        if type(key) is not str:
            return None
        if (kind := kinds.get(key)) is not None:
            fits = _FITS.get(kind)
            if fits is None or not fits(value):
                return None
            wanted[key] = value
    return wanted


def _read_map(payload: bytes, kinds: Mapping[str, Kind], *, ended: bool = True) -> dict[str, Any]:
    major, count, at = _head(payload, 0)
    if major != _MAP:
        raise ValueError("not a map")
    found: dict[str, Any] = {}
    while count is None or count > 0:
        if count is None:
            if (not ended and at == len(payload)) or payload[at] == _BREAK:
                break
        else:
            count -= 1
        key_major, key_length, key_at = _head(payload, at)
        at = _end(payload, at, MAX_NESTING)
        if key_major != _TEXT or key_length is None:
            raise ValueError("a key is no text")
        key = payload[key_at:at].decode("utf-8", "surrogateescape")
        end = _end(payload, at, MAX_NESTING)
        if key in kinds:
            if key in found:
                raise ValueError(f"{key} is there twice")
            found[key] = _value(payload, at, end, kinds[key])
        at = end
    return found


def _value(payload: bytes, start: int, end: int, kind: Kind) -> Any:
    if kind not in _FITS:
        raise TypeError(f"{kind!r} is no kind of value")  # a mistake of the handler, not of the request
    major, argument, at = _head(payload, start)
    if kind in ("text", "bytes"):
        if major != (_TEXT if kind == "text" else _BYTES) or argument is None:
            raise ValueError(f"not {kind} in one piece")
        data = payload[at:end]
        # Zephyr looks at no encoding; what is no UTF-8 goes through as it is.
        return data.decode("utf-8", "surrogateescape") if kind == "text" else data
    value = cbor2.loads(payload[start:end])
    if not _FITS[kind](value) or (major == _TAG and kind != "any"):
        raise ValueError(f"not {kind}")
    return value


def _head(data: bytes, at: int) -> tuple[int, int | None, int]:
    """Major type, argument (None: indefinite length) and where the head ends."""
    major, info = data[at] >> 5, data[at] & 0x1F
    at += 1
    if info < 24:
        return major, info, at
    if info == 31 and major in (_BYTES, _TEXT, _ARRAY, _MAP):
        return major, None, at
    if info > 27:
        raise ValueError("reserved")
    length = 1 << (info - 24)
    if at + length > len(data):
        raise IndexError("cut")
    return major, int.from_bytes(data[at : at + length], "big"), at + length


def _end(data: bytes, at: int, levels: int) -> int:
    """Where the item at `at` ends. Raises `ValueError` or `IndexError` if it is none."""
    if levels == 0:
        raise ValueError("nested too deeply")
    major, argument, at = _head(data, at)
    if major in (_BYTES, _TEXT):
        if argument is None:
            while data[at] != _BREAK:
                if data[at] >> 5 != major:
                    raise ValueError("a chunk of another type")
                at = _end(data, at, 1)
            return at + 1
        if at + argument > len(data):
            raise IndexError("cut")
        return at + argument
    if major == _TAG:
        return _end(data, at, levels - 1)
    if major in (_ARRAY, _MAP):
        if argument is None:
            while data[at] != _BREAK:
                at = _end(data, at, levels - 1)
                if major == _MAP:
                    at = _end(data, at, levels - 1)
            return at + 1
        for _ in range(argument * (2 if major == _MAP else 1)):  # ends at the end of data, whatever it claims
            at = _end(data, at, levels - 1)
    return at


# -- answers ----------------------------------------------------------------------------------------------------------


def encode(value: object, *, canonical: bool = False) -> bytes:
    """CBOR as Zephyr writes it: maps and arrays of indefinite length (definite if `canonical`), shortest numbers."""
    if value is True or value is False:
        return b"\xf5" if value else b"\xf4"
    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return _argument(0, value) if value >= 0 else _argument(1, -1 - value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, (bytes, bytearray)):
        return _argument(_BYTES, len(value)) + bytes(value)
    if isinstance(value, dict) or isinstance(value, Mapping):  # noqa: SIM101 - asking for a Mapping is slow
        items: list[bytes] = []
        for key, part in value.items():
            items.append(_text(key) if isinstance(key, str) else encode(key, canonical=canonical))
            items.append(encode(part, canonical=canonical))
        return _container(_MAP, items, len(value), canonical)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, (list, tuple)):
        items = [encode(part, canonical=canonical) for part in value]
        return _container(_ARRAY, items, len(value), canonical)
    raise TypeError(f"{type(value).__name__} has no place in an answer")


@functools.lru_cache(maxsize=256)
def _text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogateescape")
    return _argument(_TEXT, len(data)) + data


def _float(value: float) -> bytes:
    """32 bits where they hold the number, as `float` does on a device, else 64."""
    try:
        short = struct.pack(">f", value)
    except OverflowError:
        short = b""
    if short and (value != value or struct.unpack(">f", short)[0] == value):
        return b"\xfa" + short
    return b"\xfb" + struct.pack(">d", value)


def _container(major: int, items: list[bytes], count: int, canonical: bool) -> bytes:
    if canonical:
        return _argument(major, count) + b"".join(items)
    return bytes([major << 5 | 31]) + b"".join(items) + bytes([_BREAK])


def _argument(major: int, value: int) -> bytes:
    if value < 24:
        return bytes([major << 5 | value])
    for info, length in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if value < 1 << 8 * length:
            return bytes([major << 5 | info]) + value.to_bytes(length, "big")
    raise ValueError(f"{value} does not fit 64 bits")
