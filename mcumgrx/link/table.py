"""`Table`: every `Call` over one opening of a link, by its number; finds the call that an answer belongs to.

Several may be on their way. An answer belongs to a call if sequence, group, command and op agree; whatever else arrives
(twice, somebody else's) is counted and dropped. Plain code: bytes in, values out, and the time is passed in::

    call = table.open(request, now=now)              # `call.writes` are for the link
    for call, reply in table.receive(chunk): ...     # any cut of bytes, zero or more answers
    table.give_up(call, now)                         # its time is up: its number rests
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from ..errors import ProtocolError
from ..messages.message import Reply, Request
from ..protocol.framing import Framing
from ..protocol.header import Version
from .call import ANSWERED, GIVEN_UP, Call, Owner

log = logging.getLogger("mcumgrx.link")

_NUMBERS = 256  # one byte

# So long the number of a request that was given up is not used again: an erase may answer that late.
_REST_S = 120.0

# Of what arrives, so much is looked through for one's own request.
_ECHO_BYTES = 4096
_CONSOLE_MARKER = b"\x06\x09"


class Table:
    """The calls of one opening of a link.

    Numbers count up from 0 and wrap. One that is still waited for is skipped. One that was given up rests for two
    minutes, so that its late answer cannot be taken for that of a newer request, however many of those there are; only
    where no other is left, the one that has rested longest is used before.

    Attributes:
        ignored: answers that belonged to no call.
        echoed: nothing has been answered so far, but what was sent has come back as it was.
    """

    def __init__(self, framing: Framing) -> None:
        self._framing = framing
        self._next = 0
        self._calls: dict[int, Call] = {}
        self.ignored = 0
        self.echoed = False
        self._own: bytes | None = None  # what would come back of the last request
        self._heard: bytes | None = b""  # of what has come back; None once something was answered

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._calls.values()))

    @property
    def in_flight(self) -> int:
        """Calls that are neither answered nor given up."""
        return sum(call.state is not GIVEN_UP for call in self._calls.values())

    def open(
        self,
        request: Request,
        version: int = Version.V2,
        owner: Owner | None = None,
        item: Any = None,
        *,
        write_bytes: int | None = None,
        now: float = 0.0,
    ) -> Call:
        """Give `request` a number and lay it out for the link; `now` tells which numbers have rested.

        Raises `MessageTooLarge`, and `ProtocolError` when all 256 numbers are waited for.
        """
        sequence = self._next
        if sequence in self._calls:
            sequence = self._free(now)
        writes = self._framing.encode(request.encode(version, sequence), write_bytes)
        self._next = (sequence + 1) % _NUMBERS
        call = self._calls[sequence] = Call(request, version, sequence, writes, owner, item, now)
        if self._heard is not None:
            self._own = _as_echoed(writes)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("%s seq %d %d B", request, sequence, request.size)
        return call

    def receive(self, chunk: bytes) -> list[tuple[Call, Reply]]:
        """Take what the link delivered. Returns each answer with its call, which was given up before if it is late."""
        found: list[tuple[Call, Reply]] = []
        if self._heard is not None:
            self._listen(chunk)
        for op, version, flags, group, sequence, command, payload in self._framing.feed(chunk):
            reply = Reply(op, version, flags, group, sequence, command, payload)
            call = self._calls.get(sequence)
            if call is not None:
                facts = call.request.facts
                # `op | 1` is `op.reply` without the look-up of its name, which costs as much as laying the message.
                if group != facts.group or command != facts.number or op != facts.op | 1:
                    call = None
            if call is None:
                self.ignored += 1
            else:
                found.append((call, reply))
                if call.state is not GIVEN_UP:
                    call.state = ANSWERED
                    del self._calls[sequence]
                    self._heard = None
            if log.isEnabledFor(logging.DEBUG):
                log.debug("%s%s", "" if call is not None and call.state is ANSWERED else "ignored ", reply)
        return found

    def give_up(self, call: Call, now: float) -> None:
        """Its time is up, or nobody wants its answer: its number rests. Harmless when repeated, or answered."""
        if call.state is not ANSWERED and call.state is not GIVEN_UP:
            call.state = GIVEN_UP
            call.rests_until = now + _REST_S

    def time_out(self, call: Call, now: float) -> bool:
        """`give_up`, because its answer stays out; whether that leaves nothing in flight, so that the framing is reset.

        The rest of a message of which only a part has come would swallow the next answer.
        """
        self.give_up(call, now)
        return not self.in_flight

    def withdraw(self, call: Call) -> None:
        """It was never sent: its number is free."""
        call.state = GIVEN_UP
        self._calls.pop(call.sequence, None)

    def _free(self, now: float) -> int:
        """The next number that can be used."""
        for ahead in range(_NUMBERS):
            sequence = (self._next + ahead) % _NUMBERS
            call = self._calls.get(sequence)
            if call is None or (call.state is GIVEN_UP and call.rests_until <= now):
                return sequence
        resting = [call for call in self._calls.values() if call.state is GIVEN_UP]
        if not resting:
            raise ProtocolError(f"{_NUMBERS} requests are waiting for their answers")
        return min(resting, key=lambda call: call.rests_until).sequence

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
