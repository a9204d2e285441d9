"""What goes wrong on a link to a simulated device, message by message."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

Selector = int | Collection[int] | Callable[[int, bytes], bool]
"""Which messages: a number, several, or a function of number and whole message (header and payload)."""


@dataclass(slots=True)
class Faults:
    """What goes wrong, message by message.

    Requests and answers are counted from 1 each, over all connections; `requests` and `replies` tell how many there
    were. A delayed message is overtaken by those behind it. When the link is cut at a message, that one is lost too.

    ::

        Faults(drop_replies=3)                            the answer to the third request is lost
        Faults(cut_at_request={5, 9}, delay_replies={2: 7.0})
        Faults(drop_requests=lambda number, message: message[7] == 1)
    """

    drop_requests: Selector = ()
    drop_replies: Selector = ()
    duplicate_requests: Selector = ()
    duplicate_replies: Selector = ()
    delay_requests: Mapping[int, float] = field(default_factory=dict)
    delay_replies: Mapping[int, float] = field(default_factory=dict)
    cut_at_request: Selector = ()
    cut_at_reply: Selector = ()
    requests: int = 0
    replies: int = 0

    @property
    def look(self) -> bool:
        """Whether it takes more than a message's number to decide about it."""
        chosen = self.drop_requests, self.duplicate_requests, self.cut_at_request
        return any(map(callable, (*chosen, self.drop_replies, self.duplicate_replies, self.cut_at_reply)))

    def request(self, message: bytes) -> Fate:
        """What becomes of the next request."""
        self.requests += 1
        chosen = self.drop_requests, self.duplicate_requests, self.cut_at_request
        return _fate(self.requests, message, *chosen, self.delay_requests)

    def reply(self, message: bytes) -> Fate:
        """What becomes of the next answer."""
        self.replies += 1
        chosen = self.drop_replies, self.duplicate_replies, self.cut_at_reply
        return _fate(self.replies, message, *chosen, self.delay_replies)


@dataclass(frozen=True, slots=True)
class Fate:
    cut: bool
    copies: int
    delay_s: float


_UNHARMED = Fate(cut=False, copies=1, delay_s=0.0)


def _fate(
    number: int, message: bytes, drop: Selector, duplicate: Selector, cut: Selector, delay: Mapping[int, float]
) -> Fate:
    if not (drop or duplicate or cut or delay):
        return _UNHARMED
    copies = 0 if _selected(drop, number, message) else 2 if _selected(duplicate, number, message) else 1
    return Fate(_selected(cut, number, message), copies, delay.get(number, 0.0))


def _selected(selector: Selector, number: int, message: bytes) -> bool:
    if callable(selector):
        return selector(number, message)
    return number == selector if isinstance(selector, int) else number in selector
