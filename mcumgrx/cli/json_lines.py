"""What commands say as JSON, for scripts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TextIO

from ..events import Bytes, Event, Stage, StageName
from .data import json_line, to_data
from .exit_codes import Failure
from .render import Renderer
from .streams import write_line
from .text import printable

__all__ = ["JsonRenderer"]


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
