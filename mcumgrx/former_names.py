"""How plugins from before version 1.0 of the contract define the commands of a group: constants as class attributes."""

from __future__ import annotations

import inspect
from typing import Any

from .messages.message import Body, CommandFacts, Result, SmpCommand
from .protocol.header import Op

_KEYWORDS = {name: name for name in ("group", "op", "what", "repeatable", "timeout_s", "changes", "errors")}
_KEYWORDS["command"] = "number"


class _Facts:
    """Read from the attributes of the class when they are needed: some are set after its definition."""

    def __get__(self, command: object, kind: type) -> CommandFacts:
        given: dict[str, Any] = {_KEYWORDS[name]: getattr(kind, name, None) for name in _KEYWORDS}
        given = {name: value for name, value in given.items() if value is not None}
        lacks = [name for name, keyword in (("group", "group"), ("command", "number")) if keyword not in given]
        if lacks:
            raise TypeError(f"the command {kind.__name__} has no {' and no '.join(lacks)}")
        return CommandFacts(**{"changes": given.get("op") is Op.WRITE, **given})


class Command(SmpCommand[Result]):
    """A `SmpCommand` whose facts are class attributes, `command` for the number. New ones are class keywords."""

    __slots__ = ()

    facts = _Facts()

    def __init_subclass__(cls) -> None:
        for name, kind in inspect.get_annotations(cls).items():
            if name in _KEYWORDS and "ClassVar" not in str(kind):
                raise TypeError(
                    f"the field {name!r} of {cls.__name__} has the name of a constant of every command: give those as "
                    f"keywords, class {cls.__name__}(SmpCommand[...], group=..., number=..., op=...)"
                )

    def body(self) -> Body:
        return {}  # of its own, or none: fields were not sent by themselves
