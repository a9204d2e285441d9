"""Lines from whoever sits at the terminal, or from a pipe, and text back to them.

Blocking, and therefore in a thread, which is left behind where nobody waits for the line any more.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, Self

from mcumgrx.plugin_api import McumgrError, in_thread

_STDIN, _STDOUT = 0, 1
_CHARACTERS = 6  # of what `termios.tcgetattr` returns: the keys
_LINE_BYTES = 64 * 1024  # what is longer is no command line

# Characters that do something to a terminal instead of being shown.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def harmless(text: str) -> str:
    """Lines of text without effect on a terminal: control characters become `\\x1b`, `\\u202e`; tabs and newlines stay.

    The same as the command line does with results, which are not shown before a command ends.
    """
    return "".join(
        char.encode("unicode_escape").decode("ascii")
        if char not in "\n\t" and unicodedata.category(char) in _UNSAFE
        else char
        for char in text
    )


class Console:
    """Standard input and output of the process, for the time of a `with` block.

    `is_terminal` says that somebody types: lines are asked for with a prompt, and can be edited and recalled where
    Python has `readline`.
    """

    def __init__(self) -> None:
        self.is_terminal = os.isatty(_STDIN) and os.isatty(_STDOUT)
        self._rest = b""
        self._ended = False
        self._before: list[Any] | None = None

    def __enter__(self) -> Self:
        if self.is_terminal:
            self._before = _terminal_settings()
            with suppress(ImportError):
                import readline  # noqa: F401 - `input` uses it from now on
        return self

    def __exit__(self, *raised: object) -> None:
        # A thread that still waits for a line has the terminal as `readline` needs it: without echo.
        if self._before is not None:
            _restore_terminal(self._before)

    async def line(self, prompt: str) -> str | None:
        """The next line, without its end; None when there is none any more."""
        try:
            if not self.is_terminal:
                return await in_thread(self._next_line)
            with self._clearing_lines():
                return await in_thread(_typed, prompt)
        except (OSError, ValueError) as error:
            raise McumgrError(f"the input cannot be read: {error}") from error

    @contextmanager
    def _clearing_lines(self) -> Iterator[None]:
        """While a line is typed, Ctrl-C throws that away, as in every shell; it ends a command that runs.

        So it is no signal then, but the key that kills a line: to the terminal, and to `readline`, which takes its keys
        from there.
        """
        termios = _termios()
        if termios is None or self._before is None:
            yield
            return
        typing = termios.tcgetattr(_STDIN)
        no_key = bytes([os.fpathconf(_STDIN, "PC_VDISABLE")])
        interrupt, typing[_CHARACTERS][termios.VINTR] = typing[_CHARACTERS][termios.VINTR], no_key
        typing[_CHARACTERS][termios.VKILL] = interrupt
        with suppress(termios.error):
            termios.tcsetattr(_STDIN, termios.TCSANOW, typing)
        try:
            yield
        finally:
            _restore_terminal(self._before)

    def show(self, text: str) -> None:
        """Write a text of whole lines, made harmless."""
        if text:
            self._write(f"{harmless(text)}\n")

    def end_line(self) -> None:
        """Move to a new line, where Ctrl-D has left the cursor behind the prompt."""
        if self.is_terminal:
            self._write("\n")

    def _write(self, text: str) -> None:
        rest = memoryview(text.encode(errors="replace"))
        try:
            while rest:
                rest = rest[os.write(_STDOUT, rest) :]
        except OSError as error:
            raise McumgrError(f"the output cannot be written: {error.strerror or error}") from error

    def _next_line(self) -> str | None:
        # Not sys.stdin: its lock would be held by this thread when the interpreter ends.
        while b"\n" not in self._rest and not self._ended and len(self._rest) < _LINE_BYTES:
            block = os.read(_STDIN, 4096)
            self._ended = not block
            self._rest += block
        line, end, self._rest = self._rest.partition(b"\n")
        return None if not line and not end else line.decode(errors="replace").removesuffix("\r")


def _typed(prompt: str) -> str | None:
    try:
        return input(prompt)
    except EOFError:
        return None


def _termios() -> ModuleType | None:
    try:
        import termios
    except ImportError:  # Windows, where nothing has to be put back
        return None
    return termios


def _terminal_settings() -> list[Any] | None:
    termios = _termios()
    if termios is not None:
        with suppress(termios.error):
            settings: list[Any] = termios.tcgetattr(_STDIN)
            return settings
    return None


def _restore_terminal(settings: list[Any]) -> None:
    termios = _termios()
    if termios is not None:
        with suppress(termios.error):
            termios.tcsetattr(_STDIN, termios.TCSADRAIN, settings)
