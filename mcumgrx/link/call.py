"""`Call`: one request on its way, from when it gets its number until that number is free again.

Everybody who has to do with a request holds this object, and nobody its number: the table that finds it by the answer,
the outbox that hands it to the link, and whoever waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, Protocol

from ..errors import McumgrError
from ..messages.message import Reply, Request


class State(Enum):
    """Where a call is."""

    QUEUED = "queued"  # in front of the link, which has not begun it
    LEAVING = "leaving"  # the link is taking it, and cannot be stopped half way
    SENT = "sent"  # the link has it all
    ANSWERED = "answered"
    GIVEN_UP = "given up"  # its time is up, or nobody wants its answer; what comes all the same is late


# Looking one up by its class takes as long as a whole call (Python 3.11), and each request would do so seven times.
QUEUED, LEAVING, SENT, ANSWERED, GIVEN_UP = State


class Call:
    """One request on its way.

    Attributes:
        sequence: what its answer will carry; the device copies it and gives it no meaning.
        version: of SMP, in which it asks.
        writes: what the link gets to send.
        owner: who is told what becomes of it; None for nobody any more.
        item: what the owner wants to find with it.
        put_at: when it was handed to the outbox.
        may_have_arrived: the link has begun to send it, and has not said since that it was not sent.
        rests_until: when its number is free again, once it was given up.
    """

    __slots__ = (
        "item",
        "may_have_arrived",
        "owner",
        "put_at",
        "request",
        "rests_until",
        "sequence",
        "state",
        "version",
        "writes",
    )

    def __init__(
        self,
        request: Request,
        version: int,
        sequence: int,
        writes: Sequence[bytes],
        owner: Owner | None,
        item: Any,
        put_at: float,
    ) -> None:
        self.request = request
        self.version = version
        self.sequence = sequence
        self.writes = writes
        self.owner = owner
        self.item = item
        self.put_at = put_at
        self.state = QUEUED
        self.may_have_arrived = False
        self.rests_until = 0.0

    def __repr__(self) -> str:
        return f"<call {self.sequence} {self.request.what} {self.state.value}>"

    @property
    def size(self) -> int:
        """Bytes on the link."""
        return sum(map(len, self.writes))


class Owner(Protocol):
    """Who has sent a call, and is told what becomes of it. None of this may raise."""

    def left(self, call: Call) -> None:
        """The link has taken it all. May come before `Link.send` returns, and after the answer."""

    def answered(self, call: Call, reply: Reply) -> None:
        """Its answer has come, be it late."""

    def failed(self, call: Call, error: McumgrError) -> None:
        """The link does not take it."""

    def garbled(self, count: int) -> None:
        """So many answers have come damaged, to requests of this owner or of others."""

    def ended(self, reason: McumgrError) -> None:
        """The link has ended, with this error for this owner alone."""

    def look(self, now: float) -> float:
        """Do what is due by `now`; returns when to look again, which may be infinity."""
