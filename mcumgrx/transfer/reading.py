"""The plan of reading data in fragments: which part is asked for next, and what to do with what comes.

The size that the device tells first is that of the whole. What comes behind that meanwhile is left out: a log only ever
becomes longer, so that its beginning is consistent.

It is a `transfer.plan.TransferPlan`. Each request names its offset, and can be repeated in any order. How much the
device puts into an answer, the first one shows.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import MalformedReply, McumgrError, NotDone, TransferStuck
from ..messages.message import SmpCommand
from .plan import TransferPlan

# How far a download reads on behind what is missing: answers, twice as many as any window is wide, and bytes.
_AHEAD = 256
_AHEAD_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fragment:
    """What an answer brings: `data` from `offset` on, and the `length` of the whole where it tells that."""

    offset: int
    data: bytes
    length: int | None = None


@dataclass(slots=True, eq=False)
class Reading:
    """The request for what is at `offset`, up to `end` if the device puts as much into its answer as usual.

    `expected`: its answer may still come, as far as is known.
    """

    command: SmpCommand[Any]
    offset: int
    end: int
    expected: bool = True
    slow: ClassVar[bool] = False


class ReadPlan(TransferPlan[Reading]):
    """The reading of data from `offset` on. An answer that stays out can always be asked for again.

    Arguments:
        ask: the request for what is at an offset, whose result is a `Fragment`.
        deliver: called with the data, in order.
        size: of the whole, where it is known; it must be unless `offset` is 0.

    Attributes:
        until: no further than this for now; None for the end. See `go_on`.
        size: 0 as long as it is not known.
        message_bytes: of the answers, about, once one is known; the device decides.
        left_open: the device has not sent the end of it, with which it would close a file.
        grown: there is more behind the `size` bytes that were told first, as in a log that is written to meanwhile.
    """

    stalls = 0  # each request brings what it asks for, or the data has changed

    def __init__(
        self,
        ask: Callable[[int], SmpCommand[Any]],
        deliver: Callable[[bytes], object],
        *,
        offset: int = 0,
        size: int | None = None,
    ) -> None:
        if offset > 0 and size is None:
            raise ValueError("only the answer at offset 0 tells the size")
        self.size = size or 0
        self.until: int | None = None
        self.done_bytes = self.resumed_from = offset
        self.retransmissions = 0
        self.setbacks = 0
        self.left_open = False
        self.grown = False
        self.message_bytes = self.least_bytes = ask(0xFFFFFFFF).request().size
        self._ask = ask
        self._deliver = deliver
        self._size_known = size is not None
        self._piece: int | None = None  # bytes of data in an answer
        self._first: Reading | None = None  # on its way
        self._next = offset
        self._missing: list[tuple[int, int, bool]] = []  # a heap: from, to, whether it was asked for before
        self._early: dict[int, bytes] = {}  # what came before something in front of it
        self._early_from: list[int] = []  # a heap of its keys

    @property
    def done(self) -> bool:
        return self._size_known and self.done_bytes >= self._end

    @property
    def whole(self) -> bool:
        """Whether all of it has been delivered."""
        return self._size_known and self.done_bytes >= self.size

    @property
    def _end(self) -> int:
        return self.size if self.until is None else min(self.size, self.until)

    def go_on(self, size: int) -> None:
        """Be `done` when `size` bytes more, or a little more, have been delivered. Nothing is on its way now."""
        self.until = self.done_bytes + size
        self._next = self.done_bytes
        self._first = None
        self._missing.clear()

    def next(self) -> Reading | None:
        if self._piece is None:
            if self._first is not None or self.done:
                return None
            # Alone: nobody knows yet where the next one has to begin.
            self._first = Reading(self._ask(self._next), self._next, self._next)
            return self._first
        while self._missing:
            start, end, again = heapq.heappop(self._missing)
            start = max(start, self.done_bytes)
            early = self._early.get(start)
            if early is not None:
                start += len(early)
            if start < end:
                self.retransmissions += again
                return Reading(self._ask(start), start, end)
        start = self._next
        if start >= self._end or start - self.done_bytes >= min(_AHEAD * self._piece, max(_AHEAD_BYTES, self._piece)):
            return None
        self._next = min(start + self._piece, self.size)
        return Reading(self._ask(start), start, self._next)

    def answered(self, piece: Reading, result: Fragment) -> None:
        """Raises `MalformedReply` for an answer to another question, and what `changed` makes."""
        self._check(piece.offset, result)
        piece.expected = False
        data = result.data
        if piece.offset + len(data) > self.size:
            data = data[: self.size - piece.offset]
            self.grown = True
        end = piece.offset + len(data)
        self.left_open = self.grown or not 0 < self.size <= end
        if piece is self._first or self._piece is None:
            self._first = None
            self._next = max(self._next, end)
        if end < self.size or self._piece is None:
            self._piece = len(data) or 1
            self.message_bytes = self.least_bytes + len(data)
        if end < piece.end:
            heapq.heappush(self._missing, (end, piece.end, False))
        if piece.offset <= self.done_bytes:
            self._pass_on(piece.offset, data)
            while self._early_from and self._early_from[0] <= self.done_bytes:
                start = heapq.heappop(self._early_from)
                self._pass_on(start, self._early.pop(start))
        elif (known := self._early.get(piece.offset)) is None or len(known) < len(data):
            if known is None:
                heapq.heappush(self._early_from, piece.offset)
            self._early[piece.offset] = data

    def overtaken(self, piece: Reading) -> None:
        if piece.expected:
            self.setbacks += 1
            self.lost(piece)

    def lost(self, piece: Reading) -> None:
        if piece.expected:
            piece.expected = False
            if piece is self._first:
                self._first = None
                self.retransmissions += 1
            else:
                heapq.heappush(self._missing, (piece.offset, piece.end, True))

    def stuck(self, seconds: float) -> TransferStuck:
        return TransferStuck(
            f"for {seconds:.0f} s no answer has brought what comes at offset {self.done_bytes}",
            offset=self.done_bytes,
            size=self.size,
            hint="the device's log may tell more",
        )

    def _pass_on(self, start: int, data: bytes) -> None:
        fresh = data[self.done_bytes - start :] if start < self.done_bytes else data
        if fresh:
            self.done_bytes += len(fresh)
            self._deliver(fresh)

    def _check(self, offset: int, chunk: Fragment) -> None:
        if chunk.offset != offset:
            raise MalformedReply(f"it has the data at offset {chunk.offset}, and {offset} was asked for")
        if not self._size_known:
            if chunk.length is None:
                raise MalformedReply("it lacks 'len'")
            if chunk.length < 0:
                raise MalformedReply(f"it says that there are {chunk.length} bytes")
            self.size = chunk.length
            self._size_known = True
        elif chunk.length is not None and chunk.length < self.size:
            raise self.changed(f"it had {self.size} bytes and has {chunk.length}")
        elif chunk.length is not None and chunk.length > self.size:
            self.grown = True
        if not chunk.data and offset < self.size:
            raise self.changed(f"it ends before {offset} of {self.size} bytes")

    def changed(self, how: str) -> McumgrError:
        """The error for data that has changed while it was read."""
        return NotDone(f"what is read has changed meanwhile: {how}", hint="read it again")
