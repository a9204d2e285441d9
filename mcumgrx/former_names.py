"""How plugins from before version 1.0 of the contract define the commands of a group: constants as class attributes."""

from __future__ import annotations

import inspect
from typing import Any

from .protocol.message import Result, SmpCommand

__all__ = ["Command"]

_KEYWORDS = {name: name for name in ("group", "op", "what", "repeatable", "timeout_s", "changes", "errors")} | {
    "command": "number"
}


class Command(SmpCommand[Result]):
    """A `SmpCommand` whose facts are class attributes, `command` for the number. New ones are class keywords."""

    __slots__ = ()

    def __init_subclass__(cls, **keywords: Any) -> None:
        own = vars(cls)
        annotations = inspect.get_annotations(cls)
        for name in _KEYWORDS:
            if name in annotations and "ClassVar" not in str(annotations[name]):
                raise TypeError(
                    f"the field {name!r} of {cls.__name__} has the name of a constant of every command: give those as "
                    f"keywords, class {cls.__name__}(SmpCommand[...], group=..., number=..., op=...)"
                )
        facts = {_KEYWORDS[name]: own[name] for name in _KEYWORDS if own.get(name) is not None}
        super().__init_subclass__(**facts, **keywords)
