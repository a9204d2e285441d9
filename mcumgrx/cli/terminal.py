"""What commands say on a terminal: one moving line for what is under way, a line that stays for each stage done; or
a table that grows.

rich draws what moves, and is imported when something does. Everything else is in `plain`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import textwrap
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from ..events import Bytes, Note, Stage, StageName
from .exit_codes import Failure
from .plain import PlainRenderer
from .render import Line, harmless
from .streams import Beside, write_line
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

    def stage_begun(self, stage: Stage) -> None:
        self._running = _Running(stage, self._unicode, self._verbose)
        if self._live is None:
            self._live = _start_live(self.err, self._colour)
        self._live.update(self._running, refresh=True)

    def stage_ended(self, stage: Stage) -> None:
        self._stop_live()
        took = duration_text(stage.elapsed_s) if stage.elapsed_s >= 0.05 else ""
        self._stage_line(("✓" if self._unicode else "+", "ok"), stage.name, stage.text, took)

    def bytes_moved(self, event: Bytes) -> None:
        if self._running is not None:
            self._running.moved(event)

    def status(self, text: str) -> None:
        if self._running is None:
            self.stage_begun(Stage("", text))
        else:
            self._running.stage = dataclasses.replace(self._running.stage, text=text)

    def note(self, note: Note) -> None:
        mark = ("!", "warn") if note.warning else ("·" if self._unicode else "-", "dim")
        self.line([_INDENT, mark, " ", (note.text, "warn" if note.warning else "")], hang=4)

    def failure(self, failure: Failure) -> None:
        self._flush_device_text()
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

    def pause(self) -> None:
        self._stop_live()

    def close(self) -> None:
        super().close()
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


class _Running:
    """The moving line of one stage: a spinner, then its text or a bar with bytes, rate and the time that is left.

    With `verbose` what the rate is made of stands in a second line.
    """

    _RATE_WINDOW_S = 4.0

    def __init__(self, stage: Stage, unicode: bool, verbose: bool = False) -> None:
        from time import monotonic

        self.stage = stage
        self._verbose = verbose
        self._unicode = unicode
        self._clock = monotonic
        self._begin = monotonic()
        self._bytes: Bytes | None = None
        self._samples: deque[tuple[float, int]] = deque()

    def moved(self, event: Bytes) -> None:
        self._bytes = event
        self._samples.append((event.elapsed_s, event.done))
        while event.elapsed_s - self._samples[0][0] > self._RATE_WINDOW_S and len(self._samples) > 2:
            self._samples.popleft()

    def standing(self) -> str:
        """What was under way and how far it had come, in words."""
        if self._bytes is None:
            return self.stage.text
        text = self.stage.text or "stopped"
        return f"{text}, {size_text(self._bytes.done)} of {size_text(self._bytes.total)} done"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        width = min(options.max_width - _TYPED, _MAX_WIDTH)
        elapsed_s = self._clock() - self._begin
        spinner = _SPINNER if self._unicode else _ASCII_SPINNER
        text = Text(f"{_INDENT}", no_wrap=True, overflow="crop", end="")
        text.append(spinner[int(elapsed_s * 10) % len(spinner)], "cyan")
        text.append(f" {self.stage.name:<{_NAME_WIDTH}}", "bold")
        room = width - len(text)
        if self._bytes is not None and self._bytes.total > 0:
            self._append_bar(text, room, self._bytes)
        else:
            took = duration_text(elapsed_s) if elapsed_s >= 1 else ""
            said = printable(self.stage.text)
            space = max(8, room - len(took) - 2)
            if len(said) > space:
                said = said[: space - 1] + ("…" if self._unicode else "~")
            text.append(said.ljust(space + 2))
            text.append(took, "dim")
        if self._verbose and self._bytes is not None and self._bytes.speed is not None:
            text.end = "\n"
            yield text
            text = Text(" " * _TEXT_COLUMN, no_wrap=True, overflow="crop", end="")
            text.append(speed_text(self._bytes.speed, short=True), "dim")
            text.truncate(width)
        yield text

    def _append_bar(self, text: Text, room: int, event: Bytes) -> None:
        rate = event.speed.now if event.speed is not None else self._bytes_per_s()
        stats = f"{100 * event.done // event.total:>3} %  {_progress(event)}"
        if rate is not None:
            stats += f"  {rate_text(rate):>8}"
            if rate > 0 and event.done < event.total:
                stats += f"  {duration_text((event.total - event.done) / rate)} left"
        bar = max(8, room - max(len(stats), _STATS_WIDTH) - 2)
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

    def _bytes_per_s(self) -> float | None:
        """Over the last seconds; what a device does in bursts evens out."""
        if len(self._samples) < 2:
            return None
        (begin_s, begin), (end_s, end) = self._samples[0], self._samples[-1]
        return (end - begin) / (end_s - begin_s) if end_s > begin_s else None


def _progress(event: Bytes) -> str:
    """`85.2/212 KB`"""
    done, total = size_text(event.done), size_text(event.total)
    if done.split()[1] == total.split()[1]:
        done = done.split()[0]
    return f"{done}/{total}"
