"""`Flight`: one request of a transfer on its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True, eq=False)
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

    item: T
    number: int
    sent_at: float
    measured: bool
    queued_s: float = 0.0
    depth: int = 0
    taken: bool = False
    late: bool = False
    request: Any = None
    size: int = 0
    call: Any = None

    @property
    def left_at(self) -> float:
        """When it has left, as far as is known."""
        return self.sent_at + self.queued_s
