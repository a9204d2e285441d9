"""Requests and replies: the CBOR body, and every way in which a device says no.

A `SmpCommand` is one typed request; a group is a set of them. `Reply` is what came back, still undecoded, so that a
malformed body is an error of that one request. The core's own commands are in `standard`, the codes in `codes`.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Protocol, TypeGuard, TypeVar, cast

import cbor2

from ..errors import DeviceError, ErrorCode, MalformedReply, MessageTooLarge, UsageError
from ..protocol import codec
from ..protocol.codes import SmpError, error_table
from ..protocol.header import HEADER_SIZE, MAX_PAYLOAD, GroupId, Op

log = logging.getLogger("mcumgrx.messages")

Result = TypeVar("Result")

Body = dict[str, object]

# How deep lists and maps of an answer may be nested: no known answer has more than five levels.
MAX_LEVELS = 32

# Of a device's own text in a message.
_SHOWN_RSN = 200


@dataclass(slots=True)
class Request:
    """One request, ready but for its sequence number: what it has in common with others of its kind, and its map.

    `facts.repeatable` says that sending it twice does the same as sending it once, so that it may be repeated when no
    answer comes: true for what only reads, and for chunks that carry their offset. `facts.changes` says that the device
    is not the same afterwards.
    """

    facts: CommandFacts
    payload: bytes

    def __str__(self) -> str:
        """For logs: its name and its number."""
        return f"{self.facts.what} {self.facts.group}/{self.facts.number}"

    @property
    def what(self) -> str:
        """Its name for people."""
        return self.facts.what

    @property
    def repeatable(self) -> bool:
        return self.facts.repeatable

    @property
    def changes(self) -> bool:
        return self.facts.changes

    @property
    def size(self) -> int:
        """Bytes of the whole message, header included."""
        return HEADER_SIZE + len(self.payload)

    def encode(self, version: int, sequence: int) -> bytes:
        """The message on the wire. Raises `MessageTooLarge` where the length field cannot hold it."""
        facts, payload = self.facts, self.payload
        if len(payload) > MAX_PAYLOAD:
            raise MessageTooLarge(
                f"the {facts.what} of {self.size} bytes is larger than SMP allows",
                size=self.size,
                limit=HEADER_SIZE + MAX_PAYLOAD,
            )
        return codec.build_message(facts.op, version, 0, facts.group, sequence, facts.number, payload)


@dataclass(slots=True)  # frozen, it would take six times as long to make, as the request does that it answers
class Reply:
    """One reply with its body undecoded."""

    op: int
    version: int
    flags: int
    group: int
    sequence: int
    command: int
    payload: bytes

    def body(self) -> Body:
        """The decoded body. Raises `MalformedReply`."""
        return decode_body(self.payload)

    def value(self) -> object:
        """What the payload holds, be it a map with text keys or not. Raises `MalformedReply`."""
        return _decode(self.payload)

    def __str__(self) -> str:
        """For logs: one short line, whatever the payload holds."""
        shown = self.payload[:24].hex()
        more = "…" if len(self.payload) > 24 else ""
        return f"reply {self.group}/{self.command} seq {self.sequence} {len(self.payload)} B {shown}{more}"


def encode_body(body: Mapping[str, object]) -> bytes:
    """CBOR as every server takes it: one definite map, shortest integers, keys in the given order.

    Raises `UsageError` for a text that is no UTF-8, such as one that the command line could not decode.
    """
    try:
        return cbor2.dumps(dict(body))
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object!r} is not a text that can be sent") from error


def decode_body(payload: bytes) -> Body:
    """Decode the body of a reply; bytes behind the top-level map are ignored, as the servers do.

    An empty payload counts as an empty map, and entries whose key is no text are passed over: `Reply.value` has them.
    Raises `MalformedReply` for what is not one map of what SMP consists of; see `codec.decode_item`.
    """
    if not payload:
        return {}
    value = _decode(payload)
    if not isinstance(value, dict):
        raise MalformedReply(f"it is {_kind(value)}, not a map", payload=payload)
    return _with_text_keys(value)


def _decode(payload: bytes) -> object:
    """The only place where bytes of a device become values."""
    try:
        return codec.decode_item(payload, MAX_LEVELS)
    except ValueError as error:
        raise MalformedReply(f"it {error}", payload=payload) from None


def _with_text_keys(value: dict[object, object]) -> Body:
    return {key: item for key, item in value.items() if isinstance(key, str)}


def _kind(value: object) -> str:
    """For messages: what of CBOR a decoded value is."""
    return _KINDS.get(type(value), "a value of another kind")


_KINDS = {
    type(None): "null",
    bool: "true or false",
    int: "an integer",
    float: "a floating point number",
    str: "text",
    bytes: "a byte string",
    list: "a list",
    dict: "a map",
}


# Groups whose errors came under another group's number: statistics' until Zephyr 4.4 (issue 104748 there).
_MISLABELLED = frozenset({(GroupId.STATISTICS, GroupId.ZEPHYR_BASIC)})

# From here on codes of SMP version 1 are the group's own (Zephyr `MGMT_ERR_EPERUSER`).
_FIRST_OF_GROUP = 256

_FROM_A_HOOK = "this group is not that of the request: a hook in the device's application says no, for its own reason"


def raise_for_error(
    body: Mapping[str, object],
    *,
    group: int,
    number: int,
    what: str,
    errors: type[ErrorCode] | HasErrors | None = None,
) -> None:
    """Raise `DeviceError` if `body` says no, in any of the shapes that servers use.

    Checked before any other key, because an error can stand beside results: `err` (SMP version 2), then `ret` as a map
    (the same under the name Zephyr 3.4 gave it), then a plain `rc`. A code is that of the group which the answer names;
    hooks of an application say no with codes of any group. Unknown codes and groups are kept as numbers. `errors` is
    the table of `group`, where another one than `error_table` has is to be used.
    """
    for key in ("err", "ret"):
        status = body.get(key)
        # The shell's `ret` is an exit status, an integer; only the map with both numbers is an error.
        if isinstance(status, dict):
            rc, rc_group = status.get("rc"), status.get("group", group)
            if _is_int(rc) and _is_int(rc_group):
                if rc != 0:
                    rc_group = group if (group, rc_group) in _MISLABELLED else rc_group
                    error = _device_error(
                        body, what, rc_group, rc, _code(rc_group, rc, errors if rc_group == group else None)
                    )
                    if rc_group != group and error.hint is None:
                        error.hint = _FROM_A_HOOK
                    raise error
                return
    rc = body.get("rc")
    if not _is_int(rc) or rc == 0:
        return
    if group == GroupId.SHELL and number == 0 and "o" in body:
        return  # old servers put the shell command's exit status here
    if rc >= _FIRST_OF_GROUP and (code := _code(group, rc, errors)) is not None:
        raise _device_error(body, what, group, rc, code)
    raise _device_error(body, what, None, rc, SmpError.find(rc))


def _code(group: int, rc: int, errors: type[ErrorCode] | HasErrors | None) -> ErrorCode | None:
    table = _table(errors) or error_table(group)
    return None if table is None else table.find(rc)


def _table(errors: type[ErrorCode] | HasErrors | None) -> type[ErrorCode] | None:
    return errors if errors is None or isinstance(errors, type) else errors.error_table()


def _device_error(
    body: Mapping[str, object], what: str, group: int | None, rc: int, code: ErrorCode | None
) -> DeviceError:
    rsn = body.get("rsn")
    rsn = rsn if isinstance(rsn, str) else None
    where = "" if group is None else f" of group {group}"
    said = f"error {rc}{where}" if code is None else f"{code.sentence or code.name} (error {rc}{where}, {code.name})"
    if rsn:
        said += f'; it says "{rsn if len(rsn) <= _SHOWN_RSN else rsn[:_SHOWN_RSN] + "…"}"'
    return DeviceError(
        f"the device refused the {what}: {said}",
        group=group,
        rc=rc,
        code=code,
        rsn=rsn,
        reply=dict(body),
        hint=code.hint if code is not None else None,
    )


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


class Fields:
    """Reads the values of a decoded map by key and type; what nobody asked for is kept by `extra()`.

    A missing key gives the default; a key without a default is required. A null is a missing value. Booleans are never
    taken for integers, but 0 and 1 are taken for booleans (older servers sent them).

    A value of a wrong type raises `MalformedReply` naming the key. Not so in the entries of a list (`maps`,
    `named_maps`), and not where `lenient` is asked: there it costs that value and nothing else. It counts as missing,
    and stays in `extra()`.

    `told`: the reply has a body at all. One without is taken only by commands that read nothing from it.
    """

    def __init__(self, body: Mapping[str, object], *, told: bool = True) -> None:
        self._body = body
        self._told = told
        self._tolerant = False
        self._where = ""
        self._read: set[str] = set()

    @property
    def lenient(self) -> Fields:
        """The same, for values that the result can do without."""
        other = Fields(self._body, told=self._told)
        other._tolerant, other._where, other._read = True, self._where, self._read
        return other

    @staticmethod
    def _inner(body: dict[object, object], where: str, *, tolerant: bool) -> Fields:
        inner = Fields(_with_text_keys(body))
        inner._tolerant, inner._where = tolerant, where
        return inner

    def integer(self, key: str, default: int | None = None) -> int:
        value = self._get(key)
        return value if _is_int(value) else self._instead(key, value, "an integer", default)

    def optional_integer(self, key: str) -> int | None:
        value = self._get(key)
        return value if _is_int(value) else self._passed_over(key, value, "an integer", None)

    def number(self, key: str, default: float | None = None) -> float:
        """A number with or without a fraction."""
        value = self._get(key)
        return float(value) if _is_number(value) else self._instead(key, value, "a number", default)

    def optional_number(self, key: str) -> float | None:
        value = self._get(key)
        return float(value) if _is_number(value) else self._passed_over(key, value, "a number", None)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._text(key)
        return value if isinstance(value, str) else self._instead(key, value, "text", default)

    def optional_text(self, key: str) -> str | None:
        value = self._text(key)
        return value if isinstance(value, str) else self._passed_over(key, value, "text", None)

    def data(self, key: str, default: bytes | None = None) -> bytes:
        value = self._get(key)
        return value if isinstance(value, bytes) else self._instead(key, value, "a byte string", default)

    def optional_data(self, key: str) -> bytes | None:
        value = self._get(key)
        return value if isinstance(value, bytes) else self._passed_over(key, value, "a byte string", None)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._get(key)
        return bool(value) if _is_flag(value) else self._instead(key, value, "true or false", default)

    def optional_flag(self, key: str) -> bool | None:
        value = self._get(key)
        return bool(value) if _is_flag(value) else self._passed_over(key, value, "true or false", None)

    def values(self, key: str) -> list[object]:
        """The list `key`; a missing one is empty. Raises `MalformedReply` for anything but a list."""
        value = self._get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._bad(key, value, "a list")
        return value

    def required(self, key: str) -> object:
        """The value of `key`, whatever it is. Raises `MalformedReply` where there is none."""
        value = self._get(key)
        if value is None:
            raise self._bad(key, None, "")
        return value

    def entries(self, key: str) -> list[object]:
        """The list `key`. Raises `MalformedReply` for anything but a list, and where there is none."""
        self.required(key)
        return self.values(key)

    def maps(self, key: str) -> Iterator[Fields]:
        """The maps in the list `key`; a missing list is empty. What is no map in it, or empty, is passed over."""
        odd: list[int] = []
        values, name = self.values(key), self._name(key)
        for index, item in enumerate(values):
            if isinstance(item, dict) and item:
                yield self._inner(item, f"{name}[{index}]", tolerant=True)
            else:
                odd.append(index)
        if odd:  # told once: there may be as many as an answer has bytes
            what = f"{len(odd)} of {len(values)} entries of {name} in the reply are no maps, or empty"
            log.info("passed over: %s; the first, [%d], is %s", what, odd[0], _kind(values[odd[0]]))

    def map(self, key: str) -> Body:
        """The map `key`, of which entries without a text for a key are passed over.

        Raises `MalformedReply` for anything but a map, and where there is none.
        """
        return _with_text_keys(self._map(key))

    def pairs(self, key: str) -> list[tuple[object, object]]:
        """The keys and values of the map `key`, in the device's order: all of those that come twice, and of any kind.

        Raises as `map` does.
        """
        value = self._map(key)
        return list(getattr(value, "pairs", value.items()))

    def _map(self, key: str) -> dict[object, object]:
        value = self.required(key)
        if not isinstance(value, dict):
            raise self._bad(key, value, "a map")
        return value

    def nested(self, key: str) -> Fields:
        """The map `key`, to be read like this one. Raises `MalformedReply` for anything but a map, and for none."""
        return self._inner(self._map(key), self._name(key), tolerant=self._tolerant)

    def optional_nested(self, key: str) -> Fields | None:
        """The map `key`, or None where there is none."""
        value = self._get(key)
        if isinstance(value, dict):
            return self._inner(value, self._name(key), tolerant=self._tolerant)
        return self._passed_over(key, value, "a map", None)

    def integers(self, key: str) -> list[int]:
        """The integers of the list `key`; a missing one is empty. What is none in it is passed over."""
        return [value for value in self._listed(key, "an integer", _is_int) if _is_int(value)]

    def numbers(self, key: str) -> list[float]:
        """The numbers, with or without a fraction, of the list `key`; otherwise as `integers`."""
        return [float(value) for value in self._listed(key, "a number", _is_number) if _is_number(value)]

    def texts(self, key: str) -> list[str]:
        """The texts of the list `key`; otherwise as `integers`."""
        return [value for value in self._listed(key, "text", _is_text) if _is_text(value)]

    def named_maps(self, key: str) -> Iterator[tuple[str, Fields]]:
        """The maps in the map `key` with their names; a missing map is empty. What is no map in it is passed over.

        Raises `MalformedReply` for anything but a map.
        """
        value = self._get(key)
        if value is not None and not isinstance(value, dict):
            raise self._bad(key, value, "a map")
        for name, item in _with_text_keys(value or {}).items():
            where = f"{self._name(key)}[{name!r}]"
            if isinstance(item, dict):
                yield name, self._inner(item, where, tolerant=True)
            else:
                log.info("passed over: %s in the reply is %s, not a map", where, _kind(item))

    def _listed(self, key: str, wanted: str, fits: Callable[[object], bool]) -> list[object]:
        values = self.values(key)
        odd = [index for index, value in enumerate(values) if not fits(value)]
        if odd:  # and stay in `extra`, as they are
            self._read.discard(key)
            what = f"{len(odd)} of {len(values)} entries of {self._name(key)} in the reply are not {wanted}"
            log.info("passed over: %s; the first, [%d], is %s", what, odd[0], _kind(values[odd[0]]))
        return values

    def extra(self) -> Body:
        """Keys that were not read, or not as what they are: newer servers add some, and they are shown, not dropped."""
        if not self._told:
            raise MalformedReply("it is empty, and should hold a map")
        return {key: value for key, value in self._body.items() if key not in self._read}

    def ignore(self, *keys: str) -> None:
        """Count `keys` as read."""
        self._read.update(keys)

    def _get(self, key: str) -> object:
        if not self._told:
            raise MalformedReply(f"it is empty, and should hold {key!r}")
        self._read.add(key)
        return self._body.get(key)

    def _text(self, key: str) -> object:
        """A text as a byte string says the same; that is taken where an odd value is no error."""
        value = self._get(key)
        if not self._tolerant or not isinstance(value, bytes):
            return value
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            return value
        return text if text.isprintable() else value

    def _instead(self, key: str, value: object, wanted: str, default: Result | None) -> Result:
        """What stands for a value that is not there, or not `wanted`."""
        if default is None:
            raise self._bad(key, value, wanted)
        return self._passed_over(key, value, wanted, default)

    def _passed_over(self, key: str, value: object, wanted: str, instead: Result) -> Result:
        if value is not None:
            if not self._tolerant:
                raise self._bad(key, value, wanted)
            self._read.discard(key)
            log.info("passed over: %s in the reply is %s, not %s", self._name(key), _kind(value), wanted)
        return instead

    def _name(self, key: str) -> str:
        return f"{self._where}[{key!r}]" if self._where else repr(key)

    def _bad(self, key: str, value: object, wanted: str) -> MalformedReply:
        name = self._name(key)
        return MalformedReply(f"it lacks {name}" if value is None else f"{name} in it is {_kind(value)}, not {wanted}")


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str)


def _is_flag(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value in (0, 1)


class HasErrors(Protocol):
    """What names a group once for all: its number, and the table of its own codes (`plugin_api.GroupPlugin`)."""

    @property
    def id(self) -> int: ...

    def error_table(self) -> type[ErrorCode] | None: ...


@dataclass(frozen=True, slots=True)
class CommandFacts:
    """What all requests of one class of commands have in common; see `SmpCommand`."""

    group: int
    number: int
    op: Op = Op.READ
    what: str = "request"
    repeatable: bool = False
    timeout_s: float | None = None
    changes: bool = False
    errors: type[ErrorCode] | HasErrors | None = None

    def error_table(self) -> type[ErrorCode] | None:
        """The group's own codes, where the command names them."""
        return _table(self.errors)


class SmpCommand(Generic[Result]):
    """One typed request of a group; subclasses are frozen dataclasses whose fields are the request's values.

    ::

        @dataclass(frozen=True, slots=True)
        class SetTemperature(SmpCommand[float], group=100, number=0, op=Op.WRITE, what="temperature setting"):
            degrees: float

            def body(self) -> Body:
                return {"mdeg": round(self.degrees * 1000)}

            def parse(self, fields: Fields) -> float:
                return fields.integer("mdeg") / 1000

    Where the map has the fields as they are, and the answer says nothing, neither method is needed.

    What is the same for all requests of the class stands behind its base, and is its one attribute `facts`; so fields
    can have any name but that and those of the methods here:

        group: its number, or the `GroupPlugin` that has number and table of errors.
        number: of the command in the group.
        op: `Op.READ`, which is the default, or `Op.WRITE`.
        what: a name for people, in messages.
        repeatable: sending it twice does the same as sending it once; so it may be repeated when no answer comes.
        timeout_s: for commands that need longer than the client's default.
        changes: whether the device is another afterwards: false for a write that is an echo, true for a read that does
            something; what writes and reads are for where nothing is said.
        errors: the table of the group's own codes, where `group` is a number.

    A class derived from a command takes over what it does not name. Raises `TypeError` at the definition of a class
    that lacks what it needs.
    """

    __slots__ = ()

    facts: ClassVar[CommandFacts]

    def __init_subclass__(
        cls,
        *,
        group: int | HasErrors | None = None,
        number: int | None = None,
        errors: type[ErrorCode] | None = None,
        **more: Any,
    ) -> None:
        super().__init_subclass__()
        fields = inspect.get_annotations(cls)
        if taken := _METHODS.intersection(fields):
            raise TypeError(f"the field {min(taken)!r} of {cls.__name__} has the name of a method of every command")
        for name in _KEYWORDS.intersection(vars(cls)).difference(fields):
            if not hasattr(vars(cls)[name], "__get__"):
                raise TypeError(
                    f"{name!r} of {cls.__name__} is a keyword: class {cls.__name__}(SmpCommand[…], {name}=…)"
                )
        if "facts" in cls.__dict__:
            return  # `dataclass` makes a class with slots anew, and has no keywords for it
        named: dict[str, Any] = {**more}
        if group is not None:
            named["group"] = group if isinstance(group, int) else getattr(group, "id", group)
            named["errors"] = None if isinstance(group, int) else group
        if number is not None:
            named["number"] = number
        for name, most in (("group", 0xFFFF), ("number", 0xFF)):
            if name in named and not (isinstance(named[name], int) and 0 <= named[name] <= most):
                raise TypeError(f"the {name} of {cls.__name__} is {named[name]!r}, not a number from 0 to {most}")
        if errors is not None:
            named["errors"] = errors
        known: CommandFacts | None = getattr(cls, "facts", None)
        if known is None or "op" in named:
            named.setdefault("changes", named.get("op") is Op.WRITE)
        if known is not None:
            cls.facts = replace(known, **named)
        elif "group" in named and "number" in named:
            cls.facts = CommandFacts(**named)
        elif len(named) > 1 or "parse" in cls.__dict__:  # one is `changes`, which nobody has named
            lacks = [name for name in ("group", "number") if name not in named]
            example = f"class {cls.__name__}(SmpCommand[…], group=…, number=…)"
            raise TypeError(f"the command {cls.__name__} has no {' and no '.join(lacks)}: {example}")

    def body(self) -> Body:
        """The request's map: without a method of its own, the fields by their names, but for those that are None.

        An empty one is still sent, because some servers answer nothing without it.
        """
        names: list[str] = [one.name for one in dataclasses.fields(self)] if dataclasses.is_dataclass(self) else []
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def parse(self, fields: Fields) -> Result:
        """The typed result of a successful answer: None without a method of its own, for a `SmpCommand[None]`.

        Raises `MalformedReply` (which `Fields` does by itself).
        """
        return cast("Result", None)

    def request(self) -> Request:
        """The request on the wire, but for its sequence number."""
        return Request(self.facts, encode_body(self.body()))

    def result(self, reply: Reply) -> Result:
        """What `reply` says: the typed result, or `DeviceError` or `MalformedReply` raised."""
        facts = self.facts
        try:
            body = reply.body()
            raise_for_error(body, group=facts.group, number=facts.number, what=facts.what, errors=facts.errors)
            fields = Fields(body, told=bool(reply.payload))
            fields.ignore("rc")  # a zero beside the result: Mynewt, MCUboot, older Zephyr
            return self.parse(fields)
        except MalformedReply as error:
            error.concerns(facts.what, reply.payload)
            raise


_KEYWORDS = frozenset({"group", "number", "command", "op", "what", "repeatable", "timeout_s", "changes", "errors"})
_METHODS = frozenset({"body", "facts", "parse", "request", "result"})
