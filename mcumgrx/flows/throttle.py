"""Fewer events: what one device makes of noise, and what a hundred make of progress, floods nobody."""

from __future__ import annotations

from dataclasses import replace

from ..events import Bytes, DeviceText, Event, Note, Progress, Stage, Status
from .link import now

__all__ = ["Throttled"]

# Between two events of the bytes of a stage, or of what goes on at the moment.
_MOMENT_S = 0.5

# Of all others so many in a row, and after that so many in a second: more than an update tells, whatever becomes of it.
_BURST = 100
_PER_S = 10.0

# Of a text that a device has written.
_LONGEST_TEXT = 500


class Throttled:
    """Passes on to `tell` what can be read; stages and the end of bytes always, so that nothing seems to go on."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._moment_at_s = float("-inf")
        self._room = float(_BURST)
        self._room_at_s = now()
        self._left_out = 0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Bytes | Status):
            ends = isinstance(event, Bytes) and event.done >= event.total
            if ends or now() >= self._moment_at_s + _MOMENT_S:
                self._moment_at_s = now()
                self._tell(event)
        elif isinstance(event, Stage) or self._has_room():
            if self._left_out:
                self._tell(Note(f"{self._left_out} events of the device are left out here"))
                self._left_out = 0
            if isinstance(event, DeviceText) and len(event.text) > _LONGEST_TEXT:
                event = replace(event, text=f"{event.text[:_LONGEST_TEXT]}…")
            self._tell(event)
        else:
            self._left_out += 1

    def _has_room(self) -> bool:
        passed_s, self._room_at_s = now() - self._room_at_s, now()
        self._room = min(self._room + passed_s * _PER_S, _BURST)
        if self._room < 1:
            return False
        self._room -= 1
        return True
