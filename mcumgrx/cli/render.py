"""What all renderers have in common. Results go to stdout, everything on the way to stderr.

Text that comes from a device or a file is untrusted: `printable` makes it harmless, and every line passes through it
at the last step before a terminal. Output that nobody reads any more (a closed pipe) never stops a command: an update
must not end half way because its progress was piped into `head`.
"""

from __future__ import annotations

import dataclasses
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from ..events import Bytes, DeviceText, Event, Note, Stage, Status
from ..hints import Hint
from ..isolation import is_wanted, said
from .data import event_text
from .exit_codes import Failure
from .streams import streams, write_line
from .tables import Table
from .text import printable

log = logging.getLogger("mcumgrx.cli")

Line = Sequence[str | tuple[str, str]]
"""Pieces of one line: text, or text with a style: ok, fail, warn, dim or bold."""


class Renderer(ABC):
    """Shows what one command says, from its first event to its result or failure.

    `options` complete the commands that hints name: the device, and how it is reached. `journal` gets a line for each
    event, for a log.
    """

    options: tuple[str, ...] = ()
    journal: Callable[[str], None] | None = None

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self.out = out
        self.err = err
        self.last_bytes: Bytes | None = None
        self.stages: list[str] = []
        self._broken = False

    def event(self, event: Event) -> None:
        """Show an event. This is the `progress` that commands get."""
        if isinstance(event, Bytes):
            self.last_bytes = event
        elif isinstance(event, Note):
            event = dataclasses.replace(event, text=self.told(event.text))
        if isinstance(event, (Bytes, Stage)):
            name = event.stage if isinstance(event, Bytes) else event.name
            if name not in self.stages:
                self.stages.append(name)
        if self._broken:
            return
        try:
            if self.journal is not None and not isinstance(event, Bytes | DeviceText | Status):
                self.journal(event_text(event))
            self.draw(event)
        except BaseException as error:  # whoever moves the bytes must not stumble over how that is shown
            if is_wanted(error):
                raise
            self._broken = True
            write_line(streams().err, f"warning: what goes on cannot be shown any more: {said(error)}")
            log.info("traceback", exc_info=error)

    def told(self, text: str) -> str:
        """The text with the commands that it names completed."""
        return text.on(self.options) if isinstance(text, Hint) else text

    @abstractmethod
    def draw(self, event: Event) -> None:
        """Show one event."""

    @abstractmethod
    def show(self, kind: str, value: object) -> None:
        """Show a value in between: a plan, before it is carried out."""

    @abstractmethod
    def say(self, text: str, style: str = "") -> None:
        """Show a sentence of a story; with the style `heading`, or `prompt` for a command as it was typed."""

    def table(self, table: Table) -> None:  # noqa: B027 - where nothing moves, the result is all there is
        """Show a table that is still growing, in place of the one before; the result takes its place."""

    def tell(self, event: str, fields: Mapping[str, object]) -> None:  # noqa: B027 - people see the table
        """Tell a script what has happened."""

    @abstractmethod
    def result(self, command: str, value: object) -> None:
        """Show what a command returned."""

    @abstractmethod
    def failure(self, failure: Failure) -> None:
        """Show why a command failed."""

    @abstractmethod
    def log(self, text: str) -> None:
        """Show a line of the log."""

    def pause(self) -> None:  # noqa: B027 - only a live display has something to do
        """Leave the terminal alone until the next event, because a question is being asked there."""

    def close(self) -> None:  # noqa: B027
        """End what is being drawn; called in every case, and harmless when repeated."""


def harmless(line: Line) -> Line:
    """The line with every piece made printable."""
    return [printable(piece) if isinstance(piece, str) else (printable(piece[0]), piece[1]) for piece in line]
