"""The plan of an update as a list that is ticked off: which line an event belongs to. Pure; `terminal` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from ..events import Stage

__all__ = ["Checklist", "Item", "Mark"]

# The stages that a step goes through; of others it is the one of its own name.
_STAGES = {
    "keep": ("confirm",),
    "go-back": ("reset", "return"),
    "name-loader": ("enter",),
    "enter-loader": ("reset", "enter"),
    "upload-installer": ("upload",),
    "enter-recovery": ("enter",),
    "install": ("reset", "return", "enter"),
    "look": ("mark",),
    "prove-bootloader": ("prove",),
    "reset": ("reset", "return"),
}


class Mark(Enum):
    """What stands before a line."""

    OPEN = "open"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(slots=True)
class Item:
    """One line: the step of the plan with this name, then what came of it. `begun`: what its last stage is about."""

    name: str
    text: str
    mark: Mark = Mark.OPEN
    elapsed_s: float = 0.0
    begun: str = ""
    ended: set[str] = field(default_factory=set)

    def takes(self, stage: str) -> bool:
        return stage in _STAGES.get(self.name, (self.name,))


class Checklist:
    """The lines above the steps, and the steps: their names, and what they do.

    A stage belongs to the line under way, or else to the next one that has such a stage. Where neither has one, as when
    a lost link is opened again or an image is taken back, it is told on the line under way.
    """

    def __init__(self, head: Sequence[str], steps: Sequence[tuple[str, str]]) -> None:
        self.head = tuple(head)
        self.items = [Item(name, text.removeprefix(f"{name} ")) for name, text in steps]
        self._at = -1

    @property
    def current(self) -> Item | None:
        """The line under way; the last one that was, between two."""
        return self.items[self._at] if self._at >= 0 else None

    def begins(self, stage: Stage) -> Item | None:
        """The line of a stage that begins; those before it are done."""
        at = self._line_of(stage.name)
        for before in self.items[max(0, self._at) : at]:
            if before.mark is Mark.RUNNING:
                before.mark = Mark.DONE
        self._at = at
        item = self.current
        if item is not None:
            item.mark = Mark.RUNNING
            if item.takes(stage.name):
                item.begun = stage.text
        return item

    def ends(self, stage: Stage) -> None:
        """A stage has ended, with the result that its text tells."""
        if (item := self.current) is not None:
            item.elapsed_s += stage.elapsed_s
            if item.takes(stage.name):
                item.text = stage.text
                item.ended.add(stage.name)

    def finished(self) -> None:
        """All is done that was to do."""
        if (item := self.current) is not None:
            item.mark = Mark.DONE

    def failed(self, standing: str) -> None:
        """The line under way has failed; `standing` says how far it had come. Why is told below the list."""
        if (item := self.current) is not None:
            item.mark, item.text = Mark.FAILED, standing

    def _line_of(self, stage: str) -> int:
        here = self.current
        if here is not None and here.takes(stage):
            another = self.items[self._at + 1 : self._at + 2]
            if stage in here.ended and another and another[0].takes(stage):
                return self._at + 1
            return self._at
        later = (at for at in range(self._at + 1, len(self.items)) if self.items[at].takes(stage))
        return next(later, max(0, self._at) if self.items else -1)
