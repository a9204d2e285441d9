"""The plan of a bulk transfer: which chunk is next, what an answer means, what to do when one is lost.

An upload to an SMP server is go-back-N with cumulative acknowledgement: every answer names the offset that the server
wants next, whether the chunk was taken, was a duplicate, or came behind a gap, and none of these is an error. The
plan turns these answers into the next chunk; it neither sends nor waits::

    plan = UploadPlan(image, ImageUpload(...), message_bytes=380)
    while not plan.done:
        chunk = plan.next_chunk()            # None: wait for answers first
        ...
        plan.acknowledged(chunk, offset)     # or plan.lost(chunk)

Rules and their sources are in the comments; "Zephyr" is `img_mgmt.c`, "MCUboot" is `boot_serial.c`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from ..errors import MalformedReply, MessageTooLarge, TransferStuck
from . import codec
from .message import Command, Reply, Request
from .standard import UploadChunk, UploadProgress

__all__ = ["Chunk", "ImageChunk", "ImageUpload", "Phase", "Source", "UploadMessages", "UploadPlan", "largest_data"]

# The server wants the whole image header in the first chunk (Zephyr: error 22).
FIRST_DATA_MINIMUM = 32

# Answers in a row, or restarts from zero, that bring nothing before the transfer counts as stuck. A healthy device
# needs none; one lost chunk costs one; more than this many cannot be told from a device that never will advance.
STUCK_ANSWERS = 8
STUCK_RESTARTS = 2

# Write sizes of known flash devices reach 32 bytes; a cut larger than this is not alignment.
ALIGNMENT_MAXIMUM = 64


class Source(Protocol):
    """What is uploaded: `bytes`, or anything of known length that gives bytes by slices (an `mmap`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> bytes: ...


class UploadMessages(Protocol):
    """How chunks of one kind of upload look on the wire."""

    def command(self, offset: int, data: bytes, length: int) -> Command[UploadProgress]:
        """The request for `data` at `offset` of `length` bytes in total; at offset 0 it opens the transfer.

        Beside the data, requests at other offsets differ only in that number.
        """


@dataclass(frozen=True, slots=True)
class ImageChunk(UploadChunk):
    """An `UploadChunk` that is laid, and whose usual answer is read, by the codec instead of a CBOR library.

    Only the time differs, not a byte; whatever the codec does not hold goes the general way.
    """

    # No super() in these: a class with slots is made anew, and super() would still name the old one.

    def request(self) -> Request:
        payload = codec.build_upload(self.offset, self.data, self.length, self.image, self.sha, self.upgrade)
        if payload is None:
            return UploadChunk.request(self)
        return Request(self.op, self.group, self.command, payload, self.what, self.repeatable)

    def result(self, reply: Reply) -> UploadProgress:
        offset = codec.read_upload_offset(reply.payload)
        return UploadChunk.result(self, reply) if offset is None else UploadProgress(offset)


@dataclass(frozen=True, slots=True)
class ImageUpload:
    """Chunks of an image. `sha` is the SHA-256 of the whole file, or the first bytes of it, or None."""

    sha: bytes | None = None
    image: int | None = None
    upgrade: bool = False

    def command(self, offset: int, data: bytes, length: int) -> Command[UploadProgress]:
        if offset > 0:
            return ImageChunk(offset, data)
        return ImageChunk(offset, data, length, self.image, self.sha, self.upgrade)

    def smaller(self) -> ImageUpload | None:
        """The same upload with a shorter first message, or None when nothing can be left out.

        Image 0 is the default, and any length of `sha` serves to resume. `upgrade` is what the user asked for.
        """
        if self.image == 0:
            return replace(self, image=None)
        if self.sha is not None and len(self.sha) > 8:
            return replace(self, sha=self.sha[:8])
        return None


def largest_data(message_bytes: int, fixed_bytes: int) -> int:
    """How many data bytes fit a message of `message_bytes` whose rest takes `fixed_bytes`; 0 if none.

    `fixed_bytes` counts the header and the map without the head of the byte string, whose size depends on the answer:
    1 byte below 24, 2 below 256, 3 below 65536 (RFC 8949, section 3).
    """
    room = message_bytes - fixed_bytes
    if room <= 24:
        return max(0, room - 1)
    if room <= 257:
        return max(23, room - 2)
    return max(255, min(room - 3, 0xFFFF))


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece in flight: `size` bytes at `offset`. `epoch` counts how often the plan had gone back before."""

    number: int
    offset: int
    size: int
    epoch: int
    command: Command[UploadProgress]

    @property
    def end(self) -> int:
        return self.offset + self.size


class Phase(Enum):
    FIRST = "first"  # the opening chunk, alone: the device may erase for a minute
    BODY = "body"
    SETTLE = "settle"  # the last chunk went out but its answer did not come: only the device's state can tell
    DONE = "done"


class UploadPlan:
    """The upload of `source`.

    Arguments:
        message_bytes: largest message, header included, that device and link take.
        chunk_bytes: at most this much data in a chunk, whatever fits.
        least_bytes: what `message_bytes` may be halved down to when chunks get lost (a size that always works).
        window: most chunks in flight.
        alignment: chunks end at multiples of this (a power of two), but for the last; learned from the answers.

    Raises `MessageTooLarge` when not even the smallest first chunk fits, `ValueError` for an empty source.
    """

    def __init__(
        self,
        source: Source,
        messages: UploadMessages,
        *,
        message_bytes: int,
        chunk_bytes: int | None = None,
        least_bytes: int | None = None,
        window: int = 1,
        alignment: int = 1,
    ) -> None:
        if len(source) == 0:
            raise ValueError("there is nothing to upload")
        if window < 1 or alignment < 1 or (chunk_bytes is not None and chunk_bytes < 1):
            raise ValueError("window, alignment and chunk size start at 1")
        self.size = len(source)
        self.message_bytes = message_bytes
        self.window = window
        self.alignment = alignment
        self.phase = Phase.FIRST
        self.acknowledged_bytes = 0  # what the device has, by its own word
        self.resumed_from = 0  # what it had before this plan's first chunk
        self.match: bool | None = None  # the device's final check, where it makes one
        self.losses = 0  # in a row
        self.retransmissions = 0
        self._source = source
        self._chunk_bytes = chunk_bytes
        self._least_bytes = min(message_bytes, least_bytes or message_bytes)
        self._next = 0
        self._furthest = 0
        self._epoch = 0
        self._number = 0
        self._in_flight: dict[int, Chunk] = {}
        self._stuck = 0
        self._restarts = 0
        self._session_closed = False
        self._tail_sent = False
        self._opening_epoch = 0
        self._fixed: dict[int, int] = {}  # of `_room`
        self._messages = self._fitting(messages)

    # -- what to do ------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self.phase is Phase.DONE

    @property
    def needs_settling(self) -> bool:
        """The device must be asked whether it has the whole, and `settled` told the answer, before anything else."""
        return self.phase is Phase.SETTLE and not self._in_flight

    @property
    def in_flight(self) -> int:
        return len(self._in_flight)

    def next_chunk(self) -> Chunk | None:
        """The chunk to send now, or None while answers must be awaited (or the transfer is done)."""
        if self.phase is Phase.FIRST:
            # Alone, because the device erases first, and because its answer tells where to go on.
            return None if self._in_flight else self._chunk(0)
        if self.phase is Phase.BODY and len(self._in_flight) < self.window and self._next < self.size:
            return self._chunk(self._next)
        return None

    # -- what happened ---------------------------------------------------------------------------------------------

    def acknowledged(self, chunk: Chunk, offset: int, match: bool | None = None) -> None:
        """The answer to `chunk`: the device wants `offset` next.

        Raises `MalformedReply` for an offset beyond the end, and `TransferStuck` when the device no longer advances.
        """
        self._in_flight.pop(chunk.number, None)
        if self.phase is Phase.DONE:
            return  # an answer to a duplicate; once complete, the server starts again at 0 (Zephyr)
        if not 0 <= offset <= self.size:
            raise MalformedReply(f"the device asks for offset {offset} of {self.size} bytes")
        if match is not None:
            self.match = match
        if self.phase is Phase.FIRST:
            # The answer to an earlier copy of the opening chunk will do; one from before a restart will not.
            if chunk.offset == 0 and chunk.epoch >= self._opening_epoch:
                self._opening_answer(chunk, offset)
        elif offset > self.acknowledged_bytes:
            self._advance(offset)
            if offset < chunk.end:
                self._cut(chunk, offset)
        elif chunk.epoch != self._epoch:
            pass  # complains of a gap that has been dealt with
        elif offset == 0 and self.acknowledged_bytes > 0:
            self._session_gone()
        elif offset < chunk.end:
            # A chunk before this one is missing (or the device has gone back): on from where it says.
            self._go_back(offset)

    def lost(self, chunk: Chunk) -> None:
        """No answer came to `chunk` in time. `losses` counts them in a row; when to give up is the caller's choice."""
        if self._in_flight.pop(chunk.number, None) is None or self.phase is Phase.DONE:
            return
        self.losses += 1
        if chunk.epoch != self._epoch:
            return  # one loss, one reaction: the others of its window are its consequence
        if chunk.command.request().size > self._least_bytes:
            # Perhaps it was too large for a buffer on the way: devices and links drop those in silence.
            self.message_bytes = max(self._least_bytes, self.message_bytes // 2)
        self.window = max(1, self.window // 2)
        if self.phase is Phase.FIRST:
            # Repeating it is safe: with the same sha the device resumes, without it erases again (slow, not wrong).
            self._epoch += 1
        elif self._tail_sent:
            # Resending could be fatal: if all had arrived the session is closed, and a chunk at 0 erases the image.
            self.phase = Phase.SETTLE
        else:
            self._go_back(self.acknowledged_bytes, counts=False)

    def settled(self, complete: bool) -> None:
        """The device has been asked: it holds the whole (`complete`), or it does not."""
        if self.phase is not Phase.SETTLE:
            return
        if complete:
            self.acknowledged_bytes = self.size
            self.phase = Phase.DONE
            return
        self.phase = Phase.BODY
        if self._session_closed:
            self._restart()
        else:
            self._tail_sent = False
            self._go_back(self.acknowledged_bytes)  # then it was the last request that was lost, not its answer

    # -- inside ----------------------------------------------------------------------------------------------------

    def _opening_answer(self, chunk: Chunk, offset: int) -> None:
        if offset == 0:
            self._count_stuck()
            self._epoch += 1
            return
        self.phase = Phase.BODY
        if offset > chunk.end:
            self.resumed_from = offset  # the device kept the session of an earlier attempt with this sha
        self.acknowledged_bytes = 0
        self._advance(offset)
        if offset < chunk.end:
            self._cut(chunk, offset)

    def _advance(self, offset: int) -> None:
        self.acknowledged_bytes = offset
        self._next = max(self._next, offset)
        self._furthest = max(self._furthest, self._next)
        self.losses = 0
        self._stuck = 0
        if offset == self.size:
            self.phase = Phase.DONE

    def _cut(self, chunk: Chunk, offset: int) -> None:
        """The device took only part of the chunk: old Zephyr (< 3.0) and MCUboot write whole flash words only."""
        if chunk.offset < offset:
            unit = min(offset & -offset, ALIGNMENT_MAXIMUM)  # a multiple of the true one will do
            if chunk.end - offset < unit:
                self.alignment = max(self.alignment, unit)
        if chunk.epoch == self._epoch:
            self._go_back(offset, counts=False)

    def _go_back(self, offset: int, *, counts: bool = True) -> None:
        if counts:
            self._count_stuck()
        self._epoch += 1
        self._next = offset
        self.acknowledged_bytes = offset
        if self.phase is Phase.SETTLE:
            self.phase = Phase.BODY

    def _session_gone(self) -> None:
        """The device wants offset 0 after progress: it was reset or erased, or it has finished (Zephyr clears then)."""
        if self._tail_sent:
            self._session_closed = True
            self.phase = Phase.SETTLE
        else:
            self._restart()

    def _restart(self) -> None:
        self._restarts += 1
        if self._restarts > STUCK_RESTARTS:
            raise TransferStuck(
                f"the device has lost the upload {self._restarts} times",
                offset=self.acknowledged_bytes,
                size=self.size,
                hint="is another client connected, or does the device reset? Its log may tell",
            )
        self._epoch += 1
        self._opening_epoch = self._epoch
        self._next = 0
        self.acknowledged_bytes = 0
        self.resumed_from = 0
        self._tail_sent = False
        self._session_closed = False
        self.phase = Phase.FIRST

    def _count_stuck(self) -> None:
        self._stuck += 1
        if self._stuck >= STUCK_ANSWERS:
            at = f"{100 * self.acknowledged_bytes // self.size} %"
            raise TransferStuck(
                f"the upload is stuck at {at}: the device keeps asking for offset {self.acknowledged_bytes}",
                offset=self.acknowledged_bytes,
                size=self.size,
                hint="erase the slot and try again; if it stays, try a smaller --chunk",
            )

    def _fitting(self, messages: UploadMessages) -> UploadMessages:
        """`messages`, made as small as needed for the first chunk to hold an image header."""
        needed = min(FIRST_DATA_MINIMUM, self.size)
        current: UploadMessages = messages
        while largest_data(self.message_bytes, self._fixed_bytes(current, 0)) < needed:
            shorter = current.smaller() if isinstance(current, ImageUpload) else None
            if shorter is None:
                least = self._fixed_bytes(current, 0) + needed + 2
                raise MessageTooLarge(
                    f"a message of {self.message_bytes} bytes is too small for the first chunk of an upload",
                    size=least,
                    limit=self.message_bytes,
                    hint="raise the link's MTU, or enable reassembly in the device "
                    "(CONFIG_MCUMGR_TRANSPORT_BT_REASSEMBLY)",
                )
            current = shorter
        self._fixed.clear()
        return current

    def _fixed_bytes(self, messages: UploadMessages, offset: int) -> int:
        # An empty byte string has a head of one byte.
        return messages.command(offset, b"", self.size).request().size - 1

    def _room(self, offset: int) -> int:
        # From 32 on, offsets of as many bits take as many bytes: encoding one of them tells for all.
        kind = offset if offset < 32 else -offset.bit_length()
        fixed = self._fixed.get(kind)
        if fixed is None:
            fixed = self._fixed[kind] = self._fixed_bytes(self._messages, offset)
        return largest_data(self.message_bytes, fixed)

    def _chunk(self, offset: int) -> Chunk:
        size = self._room(offset)
        if self._chunk_bytes is not None:
            size = min(size, max(self._chunk_bytes, FIRST_DATA_MINIMUM if offset == 0 else 1))
        if offset == 0 and size < min(FIRST_DATA_MINIMUM, self.size):
            self._messages = self._fitting(self._messages)  # the message size was halved since
            size = self._room(offset)
        end = offset + size
        if end >= self.size:
            end = self.size
        elif end - end % self.alignment > offset:
            end -= end % self.alignment
        if end <= offset:
            raise MessageTooLarge(
                f"a message of {self.message_bytes} bytes has no room for data",
                size=self._fixed_bytes(self._messages, offset) + 2,
                limit=self.message_bytes,
            )
        data = bytes(self._source[offset:end])
        self._number += 1
        chunk = Chunk(self._number, offset, end - offset, self._epoch, self._messages.command(offset, data, self.size))
        self._in_flight[chunk.number] = chunk
        if end <= self._furthest:
            self.retransmissions += 1
        self._next = end
        self._furthest = max(self._furthest, end)
        self._tail_sent = self._tail_sent or end == self.size
        return chunk
