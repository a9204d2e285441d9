"""What commands say: on a terminal, in a pipe, as JSON. Results go to stdout, everything on the way to stderr.

Text that comes from a device or a file is untrusted: `printable` makes it harmless, and every line passes through it
here, at the last step before a terminal. Output that nobody reads any more (a closed pipe) never stops a command:
an update must not end half way because its progress was piped into `head`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from enum import Enum
from typing import Any, TextIO

from ..events import Bytes, DeviceText, Event, Limit, Note, Speed, Stage, StageName
from ..hints import Hint
from ..isolation import is_wanted, said
from .exit_codes import Exit, Failure
from .streams import streams, write_line
from .text import printable

__all__ = [
    "SCHEMA",
    "JsonRenderer",
    "Line",
    "PlainRenderer",
    "Renderer",
    "Row",
    "Table",
    "duration_text",
    "json_line",
    "make_renderer",
    "printable",
    "rate_text",
    "size_text",
    "speed_text",
    "table_lines",
    "to_data",
    "to_lines",
    "write_line",
]

log = logging.getLogger("mcumgrx.cli")

SCHEMA = 1
"""Version of the JSON output; it changes when a script written for the last one could break."""


# -- text -----------------------------------------------------------------------------------------------------------


def size_text(count: int) -> str:
    """Bytes for people, in thousands as data sheets and radios count: `980 B`, `48.6 KB`, `212 KB`, `1.2 MB`."""
    return _scaled(count, 99.95)


def _scaled(count: float, whole_from: float) -> str:
    """`count` bytes with one decimal, or none from `whole_from` of a unit on."""
    if count < 1000:
        return f"{count:.0f} B"
    value, unit = (count / 1_000, "KB") if count < 999_500 else (count / 1_000_000, "MB")
    return f"{value:.{1 if value < whole_from else 0}f} {unit}"


def rate_text(bytes_per_s: float) -> str:
    """`8.7 KB/s`, `21 KB/s`."""
    return f"{_scaled(bytes_per_s, 9.95)}/s"


def duration_text(seconds: float) -> str:
    """`0.3 s`, `48 s`, `2 min 05 s`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60:02} s"


def _trip_text(seconds: float) -> str:
    """`0.4 ms`, `62 ms`, `1.2 s`."""
    milliseconds = seconds * 1000
    if milliseconds >= 999.5:
        return duration_text(seconds)
    return f"{milliseconds:.{1 if milliseconds < 9.95 else 0}f} ms"


_LIMITS = {
    Limit.LINK: "the link",
    Limit.BUFFERS: "the buffers",
    Limit.DEVICE: "the device",
    Limit.COMPUTER: "this computer",
}


def speed_text(speed: Speed, *, short: bool = False) -> str:
    """What makes the rate: `window 3, 354 B each, round trip 62 ms (95 %: 67 ms), 2 sent again, limited by the link`.

    The `short` one has at most 64 characters.
    """
    texts = [f"window {speed.window}"]
    if speed.chunk_bytes:
        texts.append(f"{speed.chunk_bytes} B each")
    if speed.round_trip_s is not None and speed.slow_round_trip_s is not None:
        usual, slow = _trip_text(speed.round_trip_s), _trip_text(speed.slow_round_trip_s)
        texts.append(f"{usual}, 95 % {slow}" if short else f"round trip {usual} (95 %: {slow})")
    if speed.retransmissions:
        texts.append(f"{speed.retransmissions} again" if short else f"{speed.retransmissions} sent again")
    elif not short:
        texts.append("nothing sent again")
    if speed.limited_by is not None:
        texts.append(f"limit: {speed.limited_by}" if short else f"limited by {_LIMITS[speed.limited_by]}")
    return ", ".join(texts)


# -- values ---------------------------------------------------------------------------------------------------------


def to_data(value: object) -> Any:
    """`value` in what JSON has: dataclasses as objects, bytes as hexadecimal, numbers that JSON lacks as null.

    A method `as_dict()` says it better where there is one.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    as_dict = getattr(value, "as_dict", None)
    if callable(as_dict) and not isinstance(value, type):
        return to_data(as_dict())
    if isinstance(value, Enum):
        return to_data(value.value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_data(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): to_data(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((to_data(item) for item in value), key=str)
    if isinstance(value, Iterable):
        return [to_data(item) for item in value]
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    return str(value)  # paths, versions, addresses


def _key(key: object) -> str:
    data = to_data(key)
    return data if isinstance(data, str) else json.dumps(data)


def json_line(record: Mapping[str, object]) -> str:
    """One line of JSON; everything outside ASCII is escaped, so that no terminal and no encoding minds it."""
    return json.dumps({"schema": SCHEMA, **{key: to_data(item) for key, item in record.items()}}, allow_nan=False)


def to_lines(value: object) -> list[str]:
    """`value` for people: by its method `lines()`, else its fields (`field: value`, aligned) or a table of them."""
    if value is None:
        return ["done"]
    lines = getattr(value, "lines", None)
    if callable(lines):
        return [line if isinstance(line, str) else str(line) for line in lines()]
    if isinstance(value, str):
        return value.splitlines()
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        if not value:
            return ["none"]
        rows = [_fields(item) for item in value]
        if all(row is not None for row in rows):
            return _table([row for row in rows if row is not None])
        return [_short(item) for item in value]
    row = _fields(value)
    if row is None:
        return [_short(value)]
    width = max((len(name) for name in row), default=0) + 1
    return [f"{name + ':':<{width}} {text}" for name, text in row.items()]


def _fields(value: object) -> dict[str, str] | None:
    """Names and texts of a dataclass or mapping; what the device did not say is left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        pairs: list[tuple[str, object]] = [(name, getattr(value, name)) for name in names]
    elif isinstance(value, Mapping):
        pairs = [(str(key), item) for key, item in value.items()]
    else:
        return None
    row: dict[str, str] = {}
    for name, item in pairs:
        if name == "extra" and isinstance(item, Mapping):
            row.update({str(key): _short(more) for key, more in item.items()})
        elif item is not None:
            row[name.replace("_", " ")] = _short(item)
    return row


def _short(value: object) -> str:
    """One value in one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum) and isinstance(value, int):
        return value.name.lower().replace("_", " ")
    data = to_data(value)
    if isinstance(data, str):
        return data
    if isinstance(data, float):
        return f"{data:g}"
    if data == [] or data == {}:
        return "none"
    if isinstance(data, list) and all(isinstance(item, (str, int)) for item in data):
        return ", ".join(str(item) for item in data)
    return json.dumps(data)


def _table(rows: list[dict[str, str]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([row.get(name, "-") for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]


# -- tables that grow -----------------------------------------------------------------------------------------------

WIDTH = 80
"""What a table has to fit in, wherever it goes."""

_NARROWEST = 12  # of a first column that is cut


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: the text of each column, and lines below it for what no column is for."""

    cells: tuple[str, ...]
    below: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under their titles. While it grows, `status` says what is going on."""

    titles: tuple[str, ...]
    rows: tuple[Row, ...]
    status: str = ""


def table_lines(table: Table, *, below: bool = True, width: int = WIDTH) -> list[str]:
    """The table in lines of at most `width` columns; the titles come first.

    The first column gives way where there is not enough room: what does not fit is cut there, and stands whole below.
    The other columns are never cut. Without `below`, one line for each row and no more.
    """
    import textwrap  # only here: every command would pay for it

    rows = [tuple(printable(cell) for cell in row.cells) for row in table.rows]
    widths = [max(_columns(line[at]) for line in (table.titles, *rows)) for at in range(len(table.titles))]
    others = sum(widths[1:]) + 2 * len(widths[1:])
    widths[0] = min(widths[0], max(_NARROWEST, width - others))
    lines = [_padded(table.titles, widths)]
    for row, cells in zip(table.rows, rows, strict=True):
        first = _cut(cells[0], widths[0])
        lines.append(_padded((first, *cells[1:]), widths))
        if below:
            whole = (f"{table.titles[0]}: {cells[0]}",) if first != cells[0] else ()
            for text in (*whole, *(printable(text) for text in row.below)):
                lines += textwrap.wrap(
                    text, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
                )
    return lines


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    pairs = zip(cells, widths, strict=True)
    return "  ".join(text + " " * (width - _columns(text)) for text, width in pairs).rstrip()


def _columns(text: str) -> int:
    """How many columns a terminal needs for the text."""
    if text.isascii():
        return len(text)
    return sum(_columns_of(char) for char in text)


def _columns_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):  # drawn over the one before
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _cut(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    room = width - 3
    kept = ""
    for char in text:
        room -= _columns_of(char)
        if room < 0:
            break
        kept += char
    return kept.rstrip() + "..."


# -- renderers ------------------------------------------------------------------------------------------------------

# Those that can take long enough that a line in a log should tell where it stands; of others it tells the end.
_LONG_STAGES = (StageName.CONNECT, StageName.ERASE, StageName.UPLOAD, StageName.DOWNLOAD, StageName.RETURN)

Line = Sequence[str | tuple[str, str]]
"""Pieces of one line: text, or text with a style: ok, fail, warn, dim or bold."""


class Renderer(ABC):
    """Shows what one command says, from its first event to its result or failure.

    `options` complete the commands that hints name: the device, and how it is reached.
    """

    options: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.last_bytes: Bytes | None = None
        self.stages: list[StageName] = []
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


def make_renderer(*, as_json: bool, verbose: int = 0) -> Renderer:
    """The renderer that fits where stdout and stderr go, and what the user asked for."""
    now = streams()
    out, err = now.out, now.err
    if as_json:
        return JsonRenderer(out, err)
    if err.isatty() and os.environ.get("TERM") != "dumb":
        from .terminal import TerminalRenderer

        return TerminalRenderer(out, err, verbose=verbose)
    return PlainRenderer(out, err, verbose=verbose)


class JsonRenderer(Renderer):
    """One object a line, all on stdout: events first, the result or the error last."""

    # Between two Bytes events; a fast link would fill a log with thousands.
    _INTERVAL_S = 0.25

    def __init__(self, out: TextIO, err: TextIO) -> None:
        super().__init__()
        self._out = out
        self._err = err
        self._due: dict[StageName, float] = {}

    def draw(self, event: Event) -> None:
        if isinstance(event, Bytes) and event.done < event.total:
            if event.elapsed_s < self._due.get(event.stage, 0.0):
                return
            self._due[event.stage] = event.elapsed_s + self._INTERVAL_S
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
        fields = to_data(event)
        if "elapsed_s" in fields:
            fields["elapsed_s"] = round(fields["elapsed_s"], 3)
        if isinstance(event, Stage):
            fields = {"stage": fields.pop("name"), **fields}  # as in the other events
        write_line(self._out, json_line({"event": name, **fields}))

    def show(self, kind: str, value: object) -> None:
        write_line(self._out, json_line({"event": kind, kind: value}))

    def say(self, text: str, style: str = "") -> None:
        if text:
            write_line(self._out, json_line({"event": "text", "text": text}))

    def tell(self, event: str, fields: Mapping[str, object]) -> None:
        write_line(self._out, json_line({"event": event, **fields}))

    def result(self, command: str, value: object) -> None:
        write_line(self._out, json_line({"command": command, "result": value}))

    def failure(self, failure: Failure) -> None:
        error = {
            "code": failure.exit.label,
            "exit": failure.exit.value,
            "kind": failure.kind,
            "message": failure.message,
            "hint": failure.hint,
        }
        write_line(self._out, json_line({"error": {**failure.fields, **error}}))

    def log(self, text: str) -> None:
        write_line(self._err, printable(text))


class PlainRenderer(Renderer):
    """Lines for a pipe, a file or a terminal that cannot do more. `verbose` ones tell what the rate is made of."""

    show_indent = "  "
    _STEP = 10  # per cent between two lines of progress
    _WORTH_S = 10.0  # a transfer that takes longer could do with a hint
    _NARROW = 2  # requests at once, at which more buffers help most

    def __init__(self, out: TextIO, err: TextIO, *, verbose: int = 0) -> None:
        super().__init__()
        self._out = out
        self._err = err
        self._verbose = verbose > 0
        self._open: StageName | None = None
        self._transfer: Bytes | None = None
        self._shown: dict[StageName, int] = {}
        self._device_line = ""

    # Events.

    def draw(self, event: Event) -> None:
        if not isinstance(event, DeviceText):
            self._flush_device_text()
        if isinstance(event, Stage):
            transfer, self._transfer = self._transfer, None
            if event.finished:
                if transfer is not None and transfer.stage is event.name:
                    event = dataclasses.replace(event, text=f"{event.text or 'done'}, {_amount(transfer)}")
                self.stage_ended(event)
                self._open = None
                if transfer is not None and transfer.stage is event.name:
                    self._tell_speed(transfer)
            else:
                self._open = event.name
                self._shown.pop(event.name, None)
                self.stage_begun(event)
        elif isinstance(event, Bytes):
            if self._open is None:  # a transfer outside of any flow
                self._open = event.stage
                self.stage_begun(Stage(event.stage))
            self._transfer = event
            self.bytes_moved(event)
        elif isinstance(event, Note):
            self.note(event)
        else:
            self._device_text(event.text)

    def stage_begun(self, stage: Stage) -> None:
        if stage.text and stage.name in _LONG_STAGES:
            self.line([f"{stage.name}: {stage.text}"])

    def stage_ended(self, stage: Stage) -> None:
        took = f" ({duration_text(stage.elapsed_s)})" if stage.elapsed_s >= 0.05 else ""
        self.line([f"{stage.name}: {stage.text or 'done'}{took}"])

    def bytes_moved(self, event: Bytes) -> None:
        percent = 100 * event.done // event.total if event.total else 100
        step = percent - percent % self._STEP
        if step <= self._shown.get(event.stage, -1 if event.resumed_from else 0):
            return
        self._shown[event.stage] = step
        text = f"{percent} %, {size_text(event.done)} of {size_text(event.total)}"
        self.line([f"{event.stage}: {text}{_present(event)}{self._made_of(event)}"])

    def _made_of(self, event: Bytes) -> str:
        return f" ({speed_text(event.speed, short=True)})" if self._verbose and event.speed is not None else ""

    def _tell_speed(self, transfer: Bytes) -> None:
        """At the end: what made the rate, and what would make it higher. The rate itself has been told."""
        speed = transfer.speed
        if speed is None or transfer.done <= transfer.resumed_from:
            return
        if self._verbose:
            told = dataclasses.replace(speed, limited_by=None) if speed.hint else speed  # the hint comes with it
            self.note(Note(f"{rate_text(speed.average)} on average: {speed_text(told)}"))
        waited = transfer.elapsed_s > self._WORTH_S and speed.window <= self._NARROW
        if speed.limited_by and speed.hint and (self._verbose or (waited and speed.limited_by is Limit.BUFFERS)):
            self.note(Note(self.told(Hint(f"limited by {_LIMITS[speed.limited_by]}: ", speed.hint))))

    def note(self, note: Note) -> None:
        self.line([(("warning" if note.warning else "note") + ": ", "warn" if note.warning else "dim"), note.text])

    def _device_text(self, text: str) -> None:
        """Whole lines as they come; a line that a device never ends is shown when something else is."""
        *lines, self._device_line = (self._device_line + text).replace("\r\n", "\n").split("\n")
        if len(self._device_line) > 400:
            lines.append(self._device_line)
            self._device_line = ""
        for line in lines:
            self.line([("device | ", "dim"), line.strip("\r")])

    def _flush_device_text(self) -> None:
        if self._device_line:
            self._device_text("\n")

    def close(self) -> None:
        self._flush_device_text()
        event, self._transfer = self._transfer, None
        if self._broken:
            return
        if event is not None and self._open is not None and event.done >= event.total:
            self.stage_ended(Stage(event.stage, _amount(event), finished=True, elapsed_s=event.elapsed_s))
            self._open = None
            self._tell_speed(event)

    # The rest.

    def show(self, kind: str, value: object) -> None:
        for line in to_lines(value):
            self.line([self.show_indent, self.told(line)], hang=len(self.show_indent) + 2)

    def say(self, text: str, style: str = "") -> None:
        if style == "prompt":
            self.line([("$ ", "dim"), (text, "bold")])
            return
        if style == "heading":
            self.line([""])
        self.line([(text, "bold" if style == "heading" else style)], hang=3 if text[:1].isdigit() else -1)

    def result(self, command: str, value: object) -> None:
        self.close()
        for line in to_lines(value):
            write_line(self._out, printable(self.told(line)))

    def failure(self, failure: Failure) -> None:
        self.close()
        if failure.exit is Exit.INTERRUPTED:
            self.line([failure.message])
        else:
            self.line([("error: ", "fail"), failure.message], hang=7)
        if failure.hint:
            self.line([("hint: ", "bold"), failure.hint], hang=6)

    def log(self, text: str) -> None:
        self.line([(text, "dim")])

    def line(self, line: Line, hang: int = 0) -> None:
        """One line to stderr, made harmless. `hang` indents the rest of a line that a terminal has to wrap."""
        for row in self.wrapped(line, hang):
            self.put(row)

    def wrapped(self, line: Line, hang: int) -> list[Line]:
        return [harmless(line)]

    def put(self, line: Line) -> None:
        write_line(self._err, "".join(piece if isinstance(piece, str) else piece[0] for piece in line))


def _amount(event: Bytes) -> str:
    """What a transfer moved, `48.6 KB at 21.4 KB/s`, without what was there before."""
    return f"{size_text(event.done - event.resumed_from)}{_rate(event, ' at ')}"


def _present(event: Bytes) -> str:
    """How it goes at the moment, `, 21 KB/s, 12 s left`."""
    speed = event.speed
    if speed is None or event.done >= event.total:
        return _rate(event)
    if event.done <= event.resumed_from:
        return ", there already" if event.resumed_from else ""  # nothing has moved so far: no rate
    left = f", {duration_text(speed.left_s)} left" if speed.left_s is not None else ""
    return f", {rate_text(speed.now)}{left}"


def _rate(event: Bytes, before: str = ", ") -> str:
    if event.elapsed_s <= 0 or event.done <= event.resumed_from:
        return ""
    return before + rate_text((event.done - event.resumed_from) / event.elapsed_s)


def harmless(line: Line) -> Line:
    """The line with every piece made printable."""
    return [printable(piece) if isinstance(piece, str) else (printable(piece[0]), piece[1]) for piece in line]
