"""What commands say in a pipe or a file, and on a terminal that cannot do more."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TextIO

from ..events import Bytes, DeviceText, Event, Limit, Note, Stage, StageName, Status
from ..hints import Hint
from .data import event_text, to_lines
from .exit_codes import Exit, Failure
from .render import Line, Renderer, harmless
from .streams import write_line, write_text
from .text import LIMITS, duration_text, printable, rate_text, size_text, speed_text

# Those that can take long enough that a line in a log should tell where it stands; of others it tells the end.
_LONG_STAGES = frozenset(
    {
        StageName.CONNECT,
        StageName.ERASE,
        StageName.UPLOAD,
        StageName.DOWNLOAD,
        StageName.RETURN,
        StageName.SOAK,
        StageName.CHECK,
    }
)


class PlainRenderer(Renderer):
    """Lines for a pipe, a file or a terminal that cannot do more. `verbose` ones tell what the rate is made of."""

    show_indent = "  "
    _STEP = 10  # per cent between two lines of progress
    _WORTH_S = 10.0  # a transfer that takes longer could do with a hint
    _NARROW = 2  # requests at once, at which more buffers help most

    def __init__(self, out: TextIO, err: TextIO, *, verbose: int = 0) -> None:
        super().__init__(out, err)
        self._verbose = verbose > 0
        self._open: str | None = None
        self._transfer: Bytes | None = None
        self._shown: dict[str, int] = {}
        self._device_line = ""

    # Events.

    def draw(self, event: Event) -> None:
        if not isinstance(event, DeviceText):
            self._flush_device_text()
        if isinstance(event, Stage):
            transfer, self._transfer = self._transfer, None
            if event.finished:
                if transfer is not None and transfer.stage == event.name:
                    event = dataclasses.replace(event, text=f"{event.text or 'done'}, {_amount(transfer)}")
                self.stage_ended(event)
                self._open = None
                if transfer is not None and transfer.stage == event.name:
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
        elif isinstance(event, DeviceText):
            self._device_text(event.text)
        elif isinstance(event, Status):
            self.status(event.text)
        else:
            self.line([event_text(event)])

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
            self.note(Note(self.told(Hint(f"limited by {LIMITS[speed.limited_by]}: ", speed.hint))))

    def status(self, text: str) -> None:
        """Show what is going on, where that can give way to the next."""

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
        self.write_result([printable(self.told(line)) for line in to_lines(value)])

    def write_result(self, lines: Sequence[str]) -> None:
        write_text(self.out, "".join(f"{line}\n" for line in lines))  # at once: there may be very many

    def failure(self, failure: Failure) -> None:
        self.close()
        if failure.exit == Exit.INTERRUPTED:
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
        write_line(self.err, "".join(piece if isinstance(piece, str) else piece[0] for piece in line))


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
    average = average_rate(event)
    return "" if average is None else before + rate_text(average)


def average_rate(event: Bytes) -> float | None:
    """Bytes per second since the beginning; None where nothing has moved."""
    moved = event.done - event.resumed_from
    return moved / event.elapsed_s if moved > 0 and event.elapsed_s > 0 else None
