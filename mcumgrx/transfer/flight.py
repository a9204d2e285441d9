"""`Flight`: one request of a transfer on its way."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Flight(Generic[T]):
    """One request on its way. Times in seconds.

    Attributes:
        number: counts up from 0 in a transfer.
        queued_s: how much later than `sent_at` it is believed to have left.
        depth: requests that were on their way before it.
        measured: its round trip tells something of the next one's.
        taken: the link has said that it has it.
        late: its time is up.
        request, size: what is sent, and its bytes; set by the engine.
        call: by which the link knows it; set by whoever sends it.
    """

    __slots__ = (
        "call",
        "depth",
        "item",
        "late",
        "measured",
        "number",
        "queued_s",
        "request",
        "sent_at",
        "size",
        "taken",
    )

    def __init__(self, item: T, number: int, sent_at: float, measured: bool) -> None:
        self.item = item
        self.number = number
        self.sent_at = sent_at
        self.queued_s = 0.0
        self.depth = 0
        self.measured = measured
        self.taken = False
        self.late = False
        self.request: Any = None
        self.size = 0
        self.call: Any = None

    @property
    def left_at(self) -> float:
        """When it has left, as far as is known."""
        return self.sent_at + self.queued_s
