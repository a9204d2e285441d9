"""Requests out, replies in: sequence numbers, matching, and time-outs as data.

::

    sent = exchange.send(request, deadline=now + 5.0)    # what to write
    for sequence, reply in exchange.receive(chunk): ...  # any cut of bytes, zero or more replies
    for sequence in exchange.expire(now): ...            # whose time is up

Several requests may be in flight. A reply belongs to a request if sequence, group, command and op agree; whatever
else arrives (twice, somebody else's) is counted and dropped; what comes too late is kept apart (`take_late`). The
device gives no meaning to the sequence number: it only copies it.
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

# So long the number of a request that was given up is not used again: an erase may answer that late.
_REST_S = 120.0

# Of what arrives, so much is looked through for one's own request.
_ECHO_BYTES = 4096
_CONSOLE_MARKER = b"\x06\x09"


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
    version: int
    deadline: float | None
    expired: bool = False
    rests_until: float = 0.0


class Exchange:
    """All conversations over one opening of a link.

    Numbers count up from 0 and wrap. One that is still waited for is skipped. One that was given up (`forget`) rests
    for two minutes, so that its late reply cannot be taken for that of a newer request, however many of those there
    are; only where no other is left, the one that has rested longest is used before.

    Attributes:
        ignored: replies that belonged to no request.
        echoed: nothing has been answered so far, but what was sent has come back as it was.
    """

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._next = 0
        self._waiting: dict[int, _Waiting] = {}
        self._resting: dict[int, _Waiting] = {}  # the one that has rested longest first
        self._late: list[tuple[int, Reply]] = []
        self.ignored = 0
        self.echoed = False
        self._own: bytes | None = None  # what would come back of the last request
        self._heard: bytes | None = b""  # of what has come back; None once something was answered

    @property
    def in_flight(self) -> int:
        """Requests that are neither answered, expired nor forgotten."""
        return sum(not waiting.expired for waiting in self._waiting.values())

    @property
    def discarded(self) -> int:
        """Bytes that made no sense to the framing."""
        return self._framing.discarded

    @property
    def garbled(self) -> int:
        """Messages that arrived damaged: answers, each of which is one to some request."""
        return self._framing.garbled

    def send(
        self,
        request: Request,
        *,
        version: int = Version.V2,
        write_bytes: int | None = None,
        deadline: float | None = None,
        now: float = 0.0,
    ) -> Sent:
        """Give `request` a number and lay it out for the link; `now` tells which numbers have rested.

        Raises `MessageTooLarge`, and `ProtocolError` when all 256 numbers are waited for.
        """
        sequence = self._allocate(now)
        writes = self._framing.encode(request.encode(version, sequence), write_bytes)
        # `op | 1` is `op.reply` without the look-up of its name, which would cost as much as laying the message.
        self._waiting[sequence] = _Waiting(request.op | 1, request.group, request.command, version, deadline)
        if self._heard is not None:
            self._own = _as_echoed(writes)
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
        if self._heard is not None:
            self._listen(chunk)
        for op, version, flags, group, sequence, command, payload in self._framing.feed(chunk):
            reply = Reply(op, version, flags, group, sequence, command, payload)
            waiting = self._waiting.get(sequence)
            expected = waiting is not None and (waiting.op, waiting.group, waiting.command) == (op, group, command)
            rests = None if expected else self._resting.get(sequence)
            if rests is not None and (rests.op, rests.group, rests.command) == (op, group, command):
                self._late.append((rests.version, reply))
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s%s", "" if expected else "ignored ", reply)
            if expected:
                del self._waiting[sequence]
                answered.append((sequence, reply))
                self._heard = None
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

    def forget(self, sequence: int, *, now: float = 0.0) -> None:
        """Nobody waits for `sequence` any more; its number rests. Unknown ones are fine."""
        waiting = self._waiting.pop(sequence, None)
        if waiting is not None:
            waiting.rests_until = now + _REST_S
            self._resting[sequence] = waiting

    def withdraw(self, sequence: int) -> None:
        """The request was never sent: its number is free."""
        self._waiting.pop(sequence, None)

    def take_late(self) -> list[tuple[int, Reply]]:
        """Replies since the last call to requests that were given up, each with the version it was asked in."""
        if not self._late:
            return []
        late, self._late = self._late, []
        return late

    def take_text(self) -> bytes:
        """What the device wrote beside its replies since the last call."""
        return self._framing.take_text()

    def _allocate(self, now: float) -> int:
        resting = self._resting
        while resting:
            oldest = next(iter(resting))
            if resting[oldest].rests_until > now and len(self._waiting) + len(resting) < _NUMBERS:
                break
            del resting[oldest]
        for _ in range(_NUMBERS):
            sequence = self._next
            self._next = (self._next + 1) % _NUMBERS
            if sequence not in self._waiting and sequence not in resting:
                return sequence
        raise ProtocolError(f"{_NUMBERS} requests are waiting for their answers")

    def _listen(self, chunk: bytes) -> None:
        """Look for one's own request in what arrives."""
        if self._own is not None and not self.echoed and self._heard is not None:
            self._heard = (self._heard + chunk)[-(_ECHO_BYTES + len(self._own)) :]
            self.echoed = self._own in self._heard


def _as_echoed(writes: list[bytes]) -> bytes:
    """What a loop in the cable or a terminal gives back of a message.

    Of console lines it is the text of the first one: a terminal shows its marker as ^F, and ends lines in its own way.
    """
    message = b"".join(writes)
    if message.startswith(_CONSOLE_MARKER):
        return message.partition(b"\n")[0][len(_CONSOLE_MARKER) :]
    return message
