"""Advice that names commands of mcumgrx, and names them so that they work where they are read.

A hint is text. Where it tells the user to run something, that is a `Run` and not a piece of the text: the command
line, which knows the device and how it was reached, completes it (`Hint.on`), so that it can be pasted as it stands.
Everybody else reads the plain text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Self

_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]~-]+")
_SPECIAL = re.compile(r'(["\\$`])')


def quoted(word: str) -> str:
    """`word` as a shell takes it: in double quotes where it needs some, which cmd.exe and PowerShell know as well."""
    if _PLAIN.fullmatch(word):
        return word
    return '"' + _SPECIAL.sub(r"\\\1", word) + '"'


class Run:
    """A command of mcumgrx that a hint tells to run: `Run("image confirm")`, `Run("image upload", path)`.

    `command` is its name and what else is fixed; each of `arguments` is one word, whatever is in it. One that needs no
    device has `device=False`.
    """

    def __init__(self, command: str, *arguments: str, device: bool = True) -> None:
        self.words = (*command.split(), *arguments)
        self.device = device

    def on(self, options: Sequence[str]) -> str:
        """The command in quotes, with `options` (`-d ADDRESS` and the like) where it concerns a device."""
        words = ("mcumgrx", *self.words, *(options if self.device else ()))
        return f"'{' '.join(quoted(word) for word in words)}'"

    def __str__(self) -> str:
        return self.on(())


class Hint(str):
    """What the user can do: texts, and the commands (`Run`) between them.

    ::

        Hint("confirm it with ", Run("image confirm"), ", or reset the device")
    """

    __slots__ = ("parts",)
    parts: tuple[str | Run, ...]

    def __new__(cls, *parts: str | Run) -> Self:
        flat = tuple(one for part in parts for one in (part.parts if isinstance(part, Hint) else (part,)))
        hint = super().__new__(cls, "".join(str(part) for part in flat))
        hint.parts = flat
        return hint

    def on(self, options: Sequence[str]) -> str:
        """The text, with every command completed by these options."""
        return "".join(part.on(options) if isinstance(part, Run) else part for part in self.parts)

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)
