"""Requests out, replies in: sequence numbers, matching, and time-outs as data.

::

    sent = exchange.send(request, deadline=now + 5.0)    # what to write
    for sequence, reply in exchange.receive(chunk): ...  # any cut of bytes, zero or more replies
    for sequence in exchange.expire(now): ...            # whose time is up

Several requests may be in flight. A reply belongs to a request if sequence, group, command and op agree; whatever
else arrives (late, twice, somebody else's) is counted and dropped. The device gives no meaning to the sequence
number: it only copies it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..errors import ProtocolError
from .framing import Framing
from .header import Version
from .message import Reply, Request

__all__ = ["Exchange", "Sent"]

log = logging.getLogger("mcumgrx.protocol")

_NUMBERS = 256  # one byte


@dataclass(frozen=True, slots=True)
class Sent:
    """A request on its way: the `sequence` that its reply will carry, and the `writes` for the link."""

    sequence: int
    writes: list[bytes]


@dataclass(slots=True)
class _Waiting:
    op: int
    group: int
    command: int
    deadline: float | None
    expired: bool = False


class Exchange:
    """All conversations over one opening of a link.

    Numbers count up from 0 and wrap. One that is still waited for is skipped; one that was given up (`forget`) is
    skipped once, that is for a whole round, so that its late reply cannot be taken for that of a newer request.
    """

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._next = 0
        self._waiting: dict[int, _Waiting] = {}
        self._given_up: set[int] = set()
        self.ignored = 0  # replies that belonged to no request

    @property
    def in_flight(self) -> int:
        """Requests that are neither answered, expired nor forgotten."""
        return sum(not waiting.expired for waiting in self._waiting.values())

    @property
    def discarded(self) -> int:
        """Bytes that made no sense to the framing."""
        return self._framing.discarded

    def send(
        self,
        request: Request,
        *,
        version: int = Version.V2,
        write_bytes: int | None = None,
        deadline: float | None = None,
    ) -> Sent:
        """Give `request` a number and lay it out for the link.

        Raises `MessageTooLarge`, and `ProtocolError` when all 256 numbers are waited for.
        """
        sequence = self._allocate()
        writes = self._framing.encode(request.encode(version, sequence), write_bytes)
        # `op | 1` is `op.reply` without the look-up of its name, which would cost as much as laying the message.
        self._waiting[sequence] = _Waiting(request.op | 1, request.group, request.command, deadline)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s %d/%d seq %d %d B", request.what, request.group, request.command, sequence, request.size)
        return Sent(sequence, writes)

    def set_deadline(self, sequence: int, deadline: float) -> None:
        """When the time of a request in flight is up; known only once the link has taken it."""
        if sequence in self._waiting:
            self._waiting[sequence].deadline = deadline

    def receive(self, chunk: bytes) -> list[tuple[int, Reply]]:
        """Take what the link delivered. Returns each reply with the sequence of the request that it answers."""
        answered: list[tuple[int, Reply]] = []
        for op, version, flags, group, sequence, command, payload in self._framing.feed(chunk):
            reply = Reply(op, version, flags, group, sequence, command, payload)
            waiting = self._waiting.get(sequence)
            expected = waiting is not None and (waiting.op, waiting.group, waiting.command) == (op, group, command)
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s%s", "" if expected else "ignored ", reply)
            if expected:
                del self._waiting[sequence]
                answered.append((sequence, reply))
            else:
                self.ignored += 1
        return answered

    def expire(self, now: float) -> list[int]:
        """The requests whose deadline has passed, each once.

        They no longer count as in flight, but a reply that still comes is returned by `receive` until `forget`. When
        nothing is in flight any more, a partly received message is dropped: its rest is not to be expected, and it
        would swallow the next reply.
        """
        expired = [
            sequence
            for sequence, waiting in self._waiting.items()
            if not waiting.expired and waiting.deadline is not None and waiting.deadline <= now
        ]
        for sequence in expired:
            self._waiting[sequence].expired = True
        if expired and not self.in_flight:
            self._framing.reset()
        return expired

    def give_up(self) -> None:
        """Nothing in flight is expected to be answered any more: drop a partly received message, as `expire` does."""
        self._framing.reset()

    def next_deadline(self) -> float | None:
        """When `expire` will have something to say, or None."""
        return min(
            (w.deadline for w in self._waiting.values() if not w.expired and w.deadline is not None), default=None
        )

    def forget(self, sequence: int) -> None:
        """Nobody waits for `sequence` any more; its number stays out of use for a round. Unknown ones are fine."""
        if self._waiting.pop(sequence, None) is not None:
            self._given_up.add(sequence)

    def take_text(self) -> bytes:
        """What the device wrote beside its replies since the last call."""
        return self._framing.take_text()

    def _allocate(self) -> int:
        # Two rounds find a number unless all are waited for: the first may only release those that were given up.
        for _ in range(2 * _NUMBERS):
            sequence = self._next
            self._next = (self._next + 1) % _NUMBERS
            if sequence in self._waiting:
                continue
            if sequence in self._given_up:
                self._given_up.discard(sequence)
                continue
            return sequence
        raise ProtocolError(f"{_NUMBERS} requests are waiting for their answers")
