"""What commands say on a terminal: one moving line for what is under way, a line that stays for each stage done; a plan
that is ticked off; or a table that grows.

rich draws what moves, and is imported when something does. Everything else is in `plain`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from ..events import Bytes, Note, Stage, StageName
from .checklist import Checklist, Item
from .checklist import Mark as ListMark
from .exit_codes import Failure
from .plain import PlainRenderer, average_rate
from .render import Line, harmless
from .streams import Beside, write_line, write_text
from .tables import WIDTH, Table, table_lines
from .text import duration_text, printable, rate_text, size_text, speed_text

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.live import Live
    from rich.text import Text

_STYLES: dict[str, dict[str, Any]] = {
    "ok": {"fg": "green"},
    "fail": {"fg": "red", "bold": True},
    "warn": {"fg": "yellow"},
    "dim": {"dim": True},
    "bold": {"bold": True},
}

_NAME_WIDTH = max(len(name) for name in StageName) + 2
_MAX_WIDTH = 100
_INDENT = "  "
_DONE = "done: "
_STATS_WIDTH = len("100 %  999.9/999.9 KB  99 KB/s  59 s left")
_TEXT_COLUMN = len(_INDENT) + 2 + _NAME_WIDTH

# What a plan on the screen says better, so that these lines are left out then.
_BEFORE_THE_PLAN = (StageName.CONNECT, StageName.READ, StageName.PLAN)

# Lines of a plan that is ticked off, for a small terminal.
_MOST_ROWS = 12


class TerminalRenderer(PlainRenderer):
    """A line that moves for the stage under way; each finished stage becomes a line with ✓ and how long it took."""

    show_indent = " " * _TEXT_COLUMN

    def __init__(self, out: TextIO, err: TextIO, *, verbose: int = 0) -> None:
        super().__init__(out, err, verbose=verbose)
        self._colour = not os.environ.get("NO_COLOR")
        self._unicode = _can_show(err, "✓✗━╸⠋…")
        self._running: _Running | None = None
        self._live: Live | None = None
        self._tables = 0  # drawn; each turns the spinner by one
        self._early: list[Stage] = []  # done, and not shown: a plan says it all once more
        self._list: _List | None = None
        self._left = 0  # rows that a question has left of it on the screen, with its own

    def stage_begun(self, stage: Stage) -> None:
        if stage.name not in _BEFORE_THE_PLAN:
            self._show_early()
        if self._list is not None:
            self._list.begins(stage)
            self._draw_list()
            return
        self._running = _Running(stage, self._unicode, self._verbose)
        if self._live is None:
            self._live = _start_live(self.err, self._colour)
        self._live.update(self._running, refresh=True)

    def stage_ended(self, stage: Stage) -> None:
        if self._list is not None:
            self._list.ends(stage)
            self._draw_list()
            return
        self._stop_live()
        if stage.name in _BEFORE_THE_PLAN:
            self._early.append(stage)
        else:
            self._stage_done(stage)

    def _stage_done(self, stage: Stage) -> None:
        took = duration_text(stage.elapsed_s) if stage.elapsed_s >= 0.05 else ""
        self._stage_line(("✓" if self._unicode else "+", "ok"), stage.name, stage.text, took)

    def _show_early(self) -> None:
        early, self._early = self._early, []
        for stage in early:
            self._stage_done(stage)

    def show(self, kind: str, value: object) -> None:
        made = getattr(value, "checklist", None)
        if made is None:
            super().show(kind, value)
            return
        self._early.clear()
        self._stop_live()
        self._list = _List(made(), self._unicode, self._verbose)
        self._draw_list()

    def _draw_list(self) -> None:
        assert self._list is not None
        if self._live is None:
            if self._left:
                write_text(self.err, f"\x1b[{self._left}A\x1b[J")
                self._left = 0
            self._live = _start_live(self.err, self._colour)
        self._live.update(self._list, refresh=True)

    def bytes_moved(self, event: Bytes) -> None:
        running = self._running if self._list is None else self._list.running
        if running is not None:
            running.bytes = event

    def status(self, text: str) -> None:
        if self._list is not None:
            self._list.tells(text)
        elif self._running is None:
            self.stage_begun(Stage("", text))
        else:
            self._running.stage = dataclasses.replace(self._running.stage, text=text)

    def note(self, note: Note) -> None:
        self._show_early()
        mark = ("!", "warn") if note.warning else ("·" if self._unicode else "-", "dim")
        self.line([_INDENT, mark, " ", (note.text, "warn" if note.warning else "")], hang=4)

    def failure(self, failure: Failure) -> None:
        self._flush_device_text()
        self._show_early()
        if self._list is not None:
            self._list.fails()
            self._end_list()
        if self._running is not None:
            name, text = self._running.stage.name, self._running.standing()
            self._stop_live()
            if name:
                self._stage_line(("✗" if self._unicode else "x", "fail"), name, text, "")
        super().failure(failure)

    def table(self, table: Table) -> None:
        if self._live is None:
            self._live = _start_live(self.err, self._colour, auto_refresh=False)
        self._tables += 1
        with contextlib.suppress(OSError):
            self._live.update(_Growing(table, self._unicode, self._tables), refresh=True)

    def write_result(self, lines: Sequence[str]) -> None:
        done = self._styled(_DONE, "ok") if self.out.isatty() else _DONE
        super().write_result([done + line.removeprefix(_DONE) if line.startswith(_DONE) else line for line in lines])

    def result(self, command: str, value: object) -> None:
        super().close()
        self._show_early()
        if self._list is not None:
            self._list.checklist.finished()
            self._end_list()
        super().result(command, value)

    def pause(self) -> None:
        if self._list is not None and self._live is not None:
            self._left = self._list.rows + 1
            self._live.transient = False
        self._stop_live()

    def close(self) -> None:
        super().close()
        self._show_early()
        self._end_list()

    def _end_list(self) -> None:
        """Leave it on the screen as it is now, if it is shown there."""
        shown, self._list, self._left = self._list, None, 0
        if shown is not None and self._live is not None:
            self._live.transient = False
            with contextlib.suppress(OSError):
                self._live.refresh()
        self._stop_live()

    def _stop_live(self) -> None:
        self._running = None
        if self._live is not None:
            live, self._live = self._live, None
            with contextlib.suppress(OSError):
                live.stop()

    def _stage_line(self, mark: tuple[str, str], name: str, text: str, took: str) -> None:
        """`  ✓ upload   48.6 KB at 21.4 KB/s                       2.3 s`"""
        head: list[str | tuple[str, str]] = [_INDENT, mark, " ", (f"{name:<{_NAME_WIDTH}}", "bold")]
        room = _width() - _TEXT_COLUMN - (len(took) + 2 if took else 0)
        rows = textwrap.wrap(printable(text), max(20, room), break_on_hyphens=False) or [""]
        first: list[str | tuple[str, str]] = [*head, rows[0]]
        if took:
            first += [" " * max(2, room - len(rows[0]) + 2), (took, "dim")]
        self.put(first)
        for row in rows[1:]:
            self.put([" " * _TEXT_COLUMN, row])

    def wrapped(self, line: Line, hang: int) -> list[Line]:
        line = harmless(line)
        text = "".join(piece if isinstance(piece, str) else piece[0] for piece in line)
        width = _width()
        if not hang or len(text) <= width:
            return [line]
        hang = max(0, hang)  # negative: wrapped without indentation
        *head, last = line  # only the last piece is ever long
        body, style = (last, "") if isinstance(last, str) else last
        rows = textwrap.wrap(body, max(20, width - hang), break_on_hyphens=False, break_long_words=False)
        first: Line = [*head, (rows[0], style)]
        rest: list[Line] = [[" " * hang, (row, style)] for row in rows[1:]]
        return [first, *rest]

    def put(self, line: Line) -> None:
        text = "".join(piece if isinstance(piece, str) else self._styled(*piece) for piece in line)
        if self._live is not None:
            from rich.text import Text

            with contextlib.suppress(OSError):
                self._live.console.print(Text.from_ansi(text), soft_wrap=True)
            return
        write_line(self.err, text)

    def _styled(self, text: str, style: str) -> str:
        return click.style(text, **_STYLES[style]) if self._colour and style in _STYLES else text


def _width() -> int:
    return min(shutil.get_terminal_size().columns, _MAX_WIDTH)


def _can_show(stream: TextIO, text: str) -> bool:
    try:
        text.encode(getattr(stream, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _start_live(stream: TextIO, colour: bool, *, auto_refresh: bool = True) -> Live:
    from rich.console import Console
    from rich.live import Live

    console = Console(
        file=cast(TextIO, Beside(stream)),
        force_terminal=True,
        no_color=not colour,
        highlight=False,
        markup=False,
        emoji=False,
    )
    live = Live(
        console=console,
        auto_refresh=auto_refresh,
        refresh_per_second=10,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    live.start()
    return live


_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_ASCII_SPINNER = "|/-\\"

_LEAST_BAR = 8

# Room is left for the ^C that a terminal prints: wrapped to a line of its own it could not be cleared.
_TYPED = 3


class _Growing:
    """A table while it grows: as many rows as the terminal has room for, then a spinner and the status."""

    def __init__(self, table: Table, unicode: bool, turn: int) -> None:
        self._table = table
        spinner = _SPINNER if unicode else _ASCII_SPINNER
        self._spinner = spinner[turn % len(spinner)]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        def line(text: str, style: str = "") -> Text:
            return Text(text, style, no_wrap=True, overflow="crop")

        # Beside the rows: the titles, the status, how many do not fit, and the line that the command was typed in.
        room = max(1, console.height - 4)
        titles, *rows = table_lines(self._table, below=False, width=min(options.max_width, WIDTH))
        if rows:
            yield line(titles, "bold")
        for row in rows[:room]:
            yield line(row)
        if len(rows) > room:
            yield line(f"... and {len(rows) - room} more, all of them at the end", "dim")
        status = Text(no_wrap=True, overflow="crop", end="")
        status.append(self._spinner, "cyan")
        status.append(f" {printable(self._table.status)}")
        status.truncate(options.max_width - _TYPED)
        yield status


class _List:
    """A plan that is ticked off: what it is about, then a line for each step, of which one moves."""

    def __init__(self, checklist: Checklist, unicode: bool, verbose: bool) -> None:
        self.checklist = checklist
        self.running: _Running | None = None
        self._unicode = unicode
        self._verbose = verbose and self.rows < _MOST_ROWS
        self._name_width = max([_NAME_WIDTH, *(len(item.name) + 2 for item in checklist.items)])

    @property
    def rows(self) -> int:
        return len(self.checklist.head) + len(self.checklist.items)

    def begins(self, stage: Stage) -> None:
        before, item = self.checklist.current, self.checklist.begins(stage)
        if item is not None:
            named = dataclasses.replace(stage, name=item.name)
            if self.running is None or item is not before:
                self.running = _Running(named, self._unicode, self._verbose, self._name_width)
            self.running.stage = named

    def ends(self, stage: Stage) -> None:
        moved = None if self.running is None else self.running.bytes
        if moved is not None and moved.stage == stage.name and moved.resumed_from:
            stage = dataclasses.replace(stage, text=f"{stage.text}, resumed at {_about(moved.resumed_from)}")
        self.checklist.ends(stage)
        if (item := self.checklist.current) is not None and not item.takes(stage.name):
            self.tells(item.begun)

    def tells(self, text: str) -> None:
        if self.running is not None:
            self.running.stage = dataclasses.replace(self.running.stage, text=text)

    def fails(self) -> None:
        if self.running is not None:
            self.checklist.failed(self.running.standing())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        width = min(options.max_width, _MAX_WIDTH)
        for head in self.checklist.head:
            yield Text(self._fitting(f"{_INDENT}{printable(head)}", width), no_wrap=True)
        for item in self.checklist.items:
            if item.mark is ListMark.RUNNING and self.running is not None:
                yield self.running
                if item is not self.checklist.items[-1]:
                    yield Text("")
            else:
                yield self._line(item, width if item.mark is not ListMark.OPEN else width - _TYPED)

    def _line(self, item: Item, width: int) -> Text:
        from rich.text import Text

        sign, style = _SIGNS[item.mark][0 if self._unicode else 1], _SIGNS[item.mark][2]
        took = duration_text(item.elapsed_s) if item.elapsed_s >= 0.05 and item.mark is ListMark.DONE else ""
        text = Text(_INDENT, no_wrap=True, overflow="crop")
        text.append(sign, style)
        text.append(f" {item.name:<{self._name_width}}", "dim" if item.mark is ListMark.OPEN else "bold")
        room = width - len(text) - (len(took) + 2 if took else 0)
        text.append(self._fitting(printable(item.text), room).ljust(room if took else 0))
        text.append(f"  {took}" if took else "", "dim")
        return text

    def _fitting(self, text: str, room: int) -> str:
        return text if len(text) <= room else text[: max(0, room - 1)] + ("…" if self._unicode else "~")


_SIGNS = {
    ListMark.OPEN: ("·", "-", "dim"),
    ListMark.RUNNING: ("·", "-", "cyan"),
    ListMark.DONE: ("✓", "+", "green"),
    ListMark.FAILED: ("✗", "x", "bold red"),
}


class _Running:
    """The moving line of one stage: a spinner, then its text or a bar with bytes, rate and the time that is left.

    With `verbose` what the rate is made of stands in a second line.
    """

    def __init__(self, stage: Stage, unicode: bool, verbose: bool = False, name_width: int = _NAME_WIDTH) -> None:
        from time import monotonic

        self.stage = stage
        self._verbose = verbose
        self._unicode = unicode
        self._name_width = name_width
        self._clock = monotonic
        self._begin = monotonic()
        self.bytes: Bytes | None = None

    def standing(self) -> str:
        """What was under way and how far it had come, in words."""
        if self.bytes is None:
            return self.stage.text
        text = self.stage.text or "stopped"
        return f"{text}, {size_text(self.bytes.done)} of {size_text(self.bytes.total)} done"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        width = min(options.max_width - _TYPED, _MAX_WIDTH)
        elapsed_s = self._clock() - self._begin
        spinner = _SPINNER if self._unicode else _ASCII_SPINNER
        text = Text(f"{_INDENT}", no_wrap=True, overflow="crop", end="")
        text.append(spinner[int(elapsed_s * 10) % len(spinner)], "cyan")
        text.append(f" {self.stage.name:<{self._name_width}}", "bold")
        room = width - len(text)
        if self.bytes is not None and self.bytes.total > 0:
            self._append_bar(text, room, self.bytes)
        else:
            took = duration_text(elapsed_s) if elapsed_s >= 1 else ""
            said = printable(self.stage.text)
            space = max(8, room - len(took) - 2)
            if len(said) > space:
                said = said[: space - 1] + ("…" if self._unicode else "~")
            text.append(said.ljust(space + 2))
            text.append(took, "dim")
        if self._verbose and self.bytes is not None and self.bytes.speed is not None:
            text.end = "\n"
            yield text
            text = Text(" " * _TEXT_COLUMN, no_wrap=True, overflow="crop", end="")
            text.append(speed_text(self.bytes.speed, short=True), "dim")
            text.truncate(width)
        yield text

    def _append_bar(self, text: Text, room: int, event: Bytes) -> None:
        rate = event.speed.now if event.speed is not None else average_rate(event)
        stats = f"{100 * event.done // event.total:>3} %  {_progress(event)}"
        more = []
        if event.resumed_from:
            resumed = f", resumed at {_about(event.resumed_from)}"
            fits = len(stats) + len(resumed) <= room - _LEAST_BAR - 2
            more.append(resumed if fits else f", from {_about(event.resumed_from)}")
        if rate is not None:
            more.append(f"  {rate_text(rate):>8}")
            if rate > 0 and event.done < event.total:
                more.append(f"  {duration_text((event.total - event.done) / rate)} left")
        for piece in more:  # as many as there is room for
            if len(stats) + len(piece) > room - _LEAST_BAR - 2:
                break
            stats += piece
        bar = max(_LEAST_BAR, room - max(len(stats), min(_STATS_WIDTH, room - _LEAST_BAR - 2)) - 2)
        done = bar * min(event.done, event.total) / event.total
        full = int(done)
        if self._unicode:
            half = "╸" if done - full >= 0.5 else ""
            text.append("━" * full + half, "green" if event.done >= event.total else "cyan")
            text.append("━" * (bar - full - len(half)), "dim")
        else:
            text.append("#" * full)
            text.append("." * (bar - full), "dim")
        text.append(f"  {stats}")


def _about(count: int) -> str:
    """`34 KB`: without the digits that `size_text` has where it tells what moves."""
    return size_text(count) if count < 10_000 else size_text(round(count, -3)).replace(".0 ", " ")


def _progress(event: Bytes) -> str:
    """`85.2/212 KB`"""
    done, total = size_text(event.done), size_text(event.total)
    if done.split()[1] == total.split()[1]:
        done = done.split()[0]
    return f"{done}/{total}"
