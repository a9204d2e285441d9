"""What commands say as JSON, for scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

from ..events import Bytes, Event, Stage
from .data import event_name, event_text, json_line, to_data
from .exit_codes import Failure, exit_label
from .render import Renderer
from .streams import write_line
from .text import printable


class JsonRenderer(Renderer):
    """One object a line, all on stdout: events first, the result or the error last."""

    # Between two Bytes events; a fast link would fill a log with thousands.
    _INTERVAL_S = 0.25

    def __init__(self, out: TextIO, err: TextIO) -> None:
        super().__init__(out, err)
        self._due: dict[str, float] = {}

    def draw(self, event: Event) -> None:
        if isinstance(event, Bytes) and event.done < event.total:
            if event.elapsed_s < self._due.get(event.stage, 0.0):
                return
            self._due[event.stage] = event.elapsed_s + self._INTERVAL_S
        write_line(self.out, json_line(event_data(event)))

    def show(self, kind: str, value: object) -> None:
        write_line(self.out, json_line({"event": kind, kind: value}))

    def say(self, text: str, style: str = "") -> None:
        if text:
            write_line(self.out, json_line({"event": "text", "text": text}))

    def tell(self, event: str, fields: Mapping[str, object]) -> None:
        write_line(self.out, json_line({"event": event, **fields}))

    def result(self, command: str, value: object) -> None:
        write_line(self.out, json_line({"command": command, "result": value}))

    def failure(self, failure: Failure) -> None:
        error = {
            "code": exit_label(failure.exit),
            "exit": int(failure.exit),
            "kind": failure.kind,
            "message": failure.message,
            "hint": failure.hint,
        }
        write_line(self.out, json_line({"error": {**failure.fields, **error}}))

    def log(self, text: str) -> None:
        write_line(self.err, printable(text))


def event_data(event: Event) -> dict[str, object]:
    """An event as an object: its name under `event`, and its fields."""
    fields = to_data(event)
    if not isinstance(fields, dict):  # of a plugin's own, and no dataclass
        fields = {"text": event_text(event)}
    if isinstance(event, Stage | Bytes):
        fields["elapsed_s"] = round(fields["elapsed_s"], 3)
    if isinstance(event, Stage):
        fields = {"stage": fields.pop("name"), **fields}  # as in the other events
    own = {key if key not in ("schema", "event") else f"{key}_": value for key, value in fields.items()}
    return {"event": event_name(event), **own}
