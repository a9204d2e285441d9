"""The plan of a bulk transfer: which chunk is next, what an answer means, what to do when one is lost.

An upload to an SMP server is go-back-N with cumulative acknowledgement: every answer names the offset that the server
wants next, whether the chunk was taken, was a duplicate, or came behind a gap, and none of these is an error. The
plan turns these answers into the next chunk; it neither sends nor waits, and does not care how many chunks are on
their way (`window` does)::

    plan = UploadPlan(image, ImageUpload(...), message_bytes=380)
    while not plan.done:
        chunk = plan.next()                  # None: wait for answers first
        ...
        plan.acknowledged(chunk, offset)     # or plan.lost(chunk)

`TransferPlan` is what all plans have in common, those of files included.

Rules and their sources are in the comments; "Zephyr" is `img_mgmt.c`, "MCUboot" is `boot_serial.c`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Protocol, TypeVar

from ..errors import DeviceError, MalformedReply, MessageTooLarge, TransferStuck
from ..messages.message import SmpCommand
from ..messages.standard import UploadChunk, UploadProgress

# The server wants the whole image header in the first chunk (Zephyr: error 22).
FIRST_DATA_MINIMUM = 32

# Restarts from zero before the transfer counts as stuck: a healthy device needs none.
STUCK_RESTARTS = 2

# Write sizes of known flash devices reach 32 bytes; a cut larger than this is not alignment.
ALIGNMENT_MAXIMUM = 64


class Piece(Protocol):
    """One request of a transfer.

    Attributes:
        slow: its answer may take far longer than others: the device erases, or reads a whole file. It goes alone.
    """

    @property
    def command(self) -> SmpCommand[Any]: ...

    @property
    def slow(self) -> bool: ...


P = TypeVar("P", bound=Piece)


class TransferPlan(Protocol[P]):
    """What drives a transfer asks of its plan, most of which has a default. Sizes in bytes.

    Attributes:
        size: of the whole; 0 as long as it is not known.
        done_bytes: what is through, by the device's word.
        resumed_from: what was through before this transfer began.
        message_bytes: largest message, header included; may be set at any time.
        least_bytes: the smallest `message_bytes` with which it works.
        tail: all has been sent, so that nothing comes behind what is lost now.
        retransmissions: requests for what had been asked for, or sent, before.
        setbacks: how often something was missing.
        stalls: how often in a row the device has had the very piece that it asks for, and asks for it again; 0 when it
            goes on. That may have its reason: whoever drives the plan lets time pass in between, and decides when to
            give up (`stuck`).
    """

    size: int
    done_bytes: int
    resumed_from: int
    message_bytes: int
    least_bytes: int
    tail: bool = False
    retransmissions: int
    setbacks: int
    stalls: int

    @property
    def done(self) -> bool: ...

    @property
    def needs_settling(self) -> bool:
        """The plan waits for something else than the answer to a request of its own."""
        return False

    def doubt(self) -> None:
        """All has been sent, and for a long time no answer has come."""
        return

    def next(self) -> P | None:
        """The request to send now, or None as long as answers must be awaited."""

    def answered(self, piece: P, result: Any) -> None:
        """The result of `piece`. Raises what ends the transfer."""

    def refused(self, piece: P, error: DeviceError) -> bool:
        """The device said no to `piece`; false if that ends the transfer."""
        return False

    def overtaken(self, piece: P) -> None:
        """A request that was sent after `piece` is answered, and `piece` will not be. Told before that answer."""
        return

    def lost(self, piece: P) -> None:
        """There is no answer to `piece`, nor to what was sent after it."""

    def put_off(self, piece: P) -> None:
        """The device was busy, or had no buffer, and has not done `piece`."""
        self.lost(piece)

    def stuck(self, seconds: float) -> TransferStuck:
        """The error to raise when for so long answers have come, and brought nothing."""


class Source(Protocol):
    """What is uploaded: `bytes`, or anything of known length that gives bytes by slices (an `mmap`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: slice, /) -> bytes: ...


class UploadMessages(Protocol):
    """How chunks of one kind of upload look on the wire."""

    def command(self, offset: int, data: bytes, length: int) -> SmpCommand[UploadProgress]:
        """The request for `data` at `offset` of `length` bytes in total; at offset 0 it opens the transfer.

        Beside the data, requests at other offsets differ only in that number.
        """


@dataclass(frozen=True, slots=True)
class ImageUpload:
    """Chunks of an image. `sha` is the SHA-256 of the whole file, or the first bytes of it, or None."""

    sha: bytes | None = None
    image: int | None = None
    upgrade: bool = False

    def command(self, offset: int, data: bytes, length: int) -> SmpCommand[UploadProgress]:
        if offset > 0:
            # MCUboot's recovery up to Zephyr 3.4 takes the number of each chunk anew, and 0 where there is none: the
            # rest of an image for another core would go over the running application (zephyr #60198). Others ignore it.
            return UploadChunk(offset, data, None, self.image or None)
        return UploadChunk(offset, data, length, self.image, self.sha, self.upgrade)

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


@dataclass(slots=True, eq=False)  # made for each few hundred bytes: frozen it would cost four times as much
class Chunk:
    """The bytes from `offset` to `end`. `epoch` counts how often the plan had gone back before."""

    offset: int
    end: int
    epoch: int
    command: SmpCommand[UploadProgress]

    @property
    def slow(self) -> bool:
        """Most devices erase before they answer the first one."""
        return self.offset == 0

    @property
    def size(self) -> int:
        return self.end - self.offset


class Phase(Enum):
    FIRST = "first"  # the opening chunk, alone: the device may erase for a minute
    BODY = "body"
    SETTLE = "settle"  # the last chunk went out but its answer did not come: only the device's state can tell
    FORGOTTEN = "forgotten"  # likewise, because the device wants to begin anew, which may mean that it has the whole
    DONE = "done"


# Looking one up by its class takes as long as a whole call (Python 3.11), and each chunk would do so five times.
_FIRST, _BODY, _SETTLE, _FORGOTTEN, _DONE = Phase


class _Cutter:
    """Cuts `source` into chunks that fit messages."""

    def __init__(self, source: Source, messages: UploadMessages, message_bytes: int, chunk_bytes: int | None) -> None:
        self._source = source
        self._size = len(source)
        self._chunk_bytes = chunk_bytes
        self._rooms: dict[int, int] = {}  # data that fits, by kind of offset; and for messages of what size
        self._rooms_for = 0
        self._messages = messages
        self._fit(message_bytes)
        self.least_bytes = self._least()

    def chunk(self, offset: int, epoch: int, message_bytes: int, alignment: int) -> Chunk:
        """The chunk at `offset`, as large as messages allow. Raises `MessageTooLarge` where nothing fits."""
        # From 32 on, offsets of as many bits take as many bytes: encoding one of them tells for all.
        kind = offset if offset < 32 else 32 + offset.bit_length()
        if message_bytes != self._rooms_for or (size := self._rooms.get(kind)) is None:
            size = self._room(offset, kind, message_bytes)
        if self._chunk_bytes is not None:
            size = min(size, max(self._chunk_bytes, FIRST_DATA_MINIMUM if offset == 0 else 1))
        if offset == 0 and size < min(FIRST_DATA_MINIMUM, self._size):
            self._fit(message_bytes)  # the message size was made smaller since
            size = self._room(offset, kind, message_bytes)
        end = offset + size
        if end >= self._size:
            end = self._size
        elif alignment > 1 and offset and end - end % alignment > offset:
            # Not the opening chunk: it is alone, so a cut costs nothing, and its answer may tell that there is no unit.
            end -= end % alignment
        if end <= offset:
            raise MessageTooLarge(
                f"a message of {message_bytes} bytes has no room for data",
                size=self._fixed_bytes(self._messages, offset) + 2,
                limit=message_bytes,
            )
        command = self._messages.command(offset, bytes(self._source[offset:end]), self._size)
        return Chunk(offset, end, epoch, command)

    def _room(self, offset: int, kind: int, message_bytes: int) -> int:
        if message_bytes != self._rooms_for:
            self._rooms.clear()
            self._rooms_for = message_bytes
        size = self._rooms[kind] = largest_data(message_bytes, self._fixed_bytes(self._messages, offset))
        return size

    def _fit(self, message_bytes: int) -> None:
        """Make the messages as small as needed for the first chunk to hold an image header."""
        needed = min(FIRST_DATA_MINIMUM, self._size)
        for messages in _ever_smaller(self._messages):
            fixed_bytes = self._fixed_bytes(messages, 0)
            if largest_data(message_bytes, fixed_bytes) >= needed:
                self._messages = messages
                self._rooms.clear()
                return
        raise MessageTooLarge(
            f"a message of {message_bytes} bytes is too small for the first chunk of an upload",
            size=fixed_bytes + needed + 2,
            limit=message_bytes,
            hint="raise the link's MTU, or enable reassembly in the device (CONFIG_MCUMGR_TRANSPORT_BT_REASSEMBLY)",
        )

    def _least(self) -> int:
        """The smallest message that can open the transfer, whatever has to be left out of it."""
        *_, messages = _ever_smaller(self._messages)
        # A byte string of up to 255 bytes has a head of two bytes, one of which `_fixed_bytes` has left out.
        return self._fixed_bytes(messages, 0) + min(FIRST_DATA_MINIMUM, self._size) + 2

    def _fixed_bytes(self, messages: UploadMessages, offset: int) -> int:
        # An empty byte string has a head of one byte.
        return messages.command(offset, b"", self._size).request().size - 1


def _ever_smaller(messages: UploadMessages) -> Iterator[UploadMessages]:
    """These, then the same with a shorter first message each time, until nothing can be left out any more."""
    shorter: UploadMessages | None = messages
    while shorter is not None:
        yield shorter
        shorter = shorter.smaller() if isinstance(shorter, ImageUpload) else None


class UploadPlan(TransferPlan[Chunk]):
    """The upload of `source`.

    Arguments:
        message_bytes: largest message, header included, that device and link take.
        chunk_bytes: at most this much data in a chunk, whatever fits.
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
        alignment: int = 1,
    ) -> None:
        if len(source) == 0:
            raise ValueError("there is nothing to upload")
        if alignment < 1 or (chunk_bytes is not None and chunk_bytes < 1):
            raise ValueError("alignment and chunk size start at 1")
        self.size = len(source)
        self.message_bytes = message_bytes
        self.alignment = alignment
        self.phase = _FIRST
        self.done_bytes = 0
        self.resumed_from = 0
        self.match: bool | None = None  # the device's final check, where it makes one
        self.retransmissions = 0
        self.setbacks = 0
        self.stalls = 0
        self._cutter = _Cutter(source, messages, message_bytes, chunk_bytes)
        self.least_bytes = self._cutter.least_bytes
        self._next = 0
        self._furthest = 0
        self._epoch = 0
        self._restarts = 0
        self._opening: Chunk | None = None  # on its way
        self._unanswered_openings = 0
        self._opening_epoch = 0

    # -- what to do ------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self.phase is _DONE

    @property
    def needs_settling(self) -> bool:
        """The device must be asked whether it has the whole, and `settled` told the answer, before anything else."""
        return self.phase is _SETTLE or self.phase is _FORGOTTEN

    def next(self) -> Chunk | None:
        """The chunk to send now, or None while answers must be awaited (or the transfer is done)."""
        if self.phase is _BODY:
            offset = self._next
            if offset >= self.size:
                return None
        elif self.phase is _FIRST and self._opening is None:
            offset = 0
        else:
            return None
        chunk = self._cutter.chunk(offset, self._epoch, self.message_bytes, self.alignment)
        if self.phase is _FIRST:
            self._unanswered_openings += 1
            # Alone, because the device erases first, and because its answer tells where to go on.
            self._opening = chunk
        self._next = end = chunk.end
        if end <= self._furthest:
            self.retransmissions += 1
        else:
            self._furthest = end
        if end == self.size:
            self.tail = True
        return chunk

    # -- what happened ---------------------------------------------------------------------------------------------

    def acknowledged(self, chunk: Chunk, offset: int, match: bool | None = None) -> None:
        """The answer to `chunk`: the device wants `offset` next. Raises as `answered` does."""
        self.answered(chunk, UploadProgress(offset, match))

    def answered(self, piece: Chunk, result: UploadProgress) -> None:
        """The answer to `piece`.

        Raises `MalformedReply` for an offset beyond the end, and `TransferStuck` when the device keeps losing it all.
        """
        chunk, offset = piece, result.offset
        if chunk.offset == 0:
            self._unanswered_openings -= 1
        if chunk is self._opening:
            self._opening = None
        if self.phase is _DONE:
            return  # an answer to a duplicate; once complete, the server starts again at 0 (Zephyr)
        if not 0 <= offset <= self.size:
            raise MalformedReply(f"the device asks for offset {offset} of {self.size} bytes")
        if result.match is not None and offset == self.size:
            self.match = result.match  # anywhere else it compares nothing
        if self.phase is _FIRST:
            # The answer to an earlier copy of the opening chunk will do; one from before a restart will not.
            if chunk.offset == 0 and chunk.epoch >= self._opening_epoch:
                self._opening = None
                self._opening_answer(chunk, offset)
        elif offset > self.done_bytes:
            self._advance(offset)
            if offset != chunk.end or self.alignment > 1:
                self._learn_alignment(chunk, offset)
            if offset < chunk.end and chunk.epoch == self._epoch:
                # Either the end of this chunk was cut off, or one before it is missing.
                self._go_back(offset, counts=offset <= chunk.offset)
        elif chunk.epoch == self._epoch:  # else it complains of a gap that has been dealt with
            self._wants_again(chunk, offset)

    # Every error ends the session (Zephyr), so none is `refused`. The answer that has `overtaken` a chunk names the
    # offset, which tells whether that had arrived.

    def lost(self, chunk: Chunk) -> None:
        """No answer came to `chunk`, nor to any that was sent after it: on from what is certain.

        Sending again is safe. A chunk that the device has is ignored and answered with what it wants. So is the last
        one, when it has the whole already: that answer is 0, which has to be settled. An opening chunk resumes, by its
        sha; without one the device erases again, which is slow but not wrong.
        """
        if chunk is self._opening:
            self._opening = None
        if self.phase is _FIRST:
            self._epoch += 1
        elif self.phase is _BODY and chunk.epoch == self._epoch:
            # One loss, one reaction: the others of its window are its consequence.
            self._go_back(self.done_bytes, counts=False)

    def doubt(self) -> None:
        """All has been sent and no answer comes any more: only the device's state can tell whether it has the whole."""
        if self.tail and self.phase is _BODY:
            self.phase = _SETTLE

    def settled(self, complete: bool) -> None:
        """The device has been asked: it holds the whole (`complete`), or it does not."""
        if complete and self.needs_settling:
            self.done_bytes = self.size
            self.phase = _DONE
        elif self.phase is _FORGOTTEN:
            self._restart()
        elif self.phase is _SETTLE:
            self.phase = _BODY
            self.tail = False
            self._go_back(self.done_bytes)  # then it was the last request that was lost, not its answer

    @property
    def stray(self) -> bool:
        """An opening chunk was never answered. If it comes late it opens the upload anew, and the device erases."""
        return self._unanswered_openings > 0

    def undone(self) -> None:
        """The device has the whole no more, although it had taken it: from the start."""
        if self.phase is _DONE:
            self._unanswered_openings = 0
            self._restart()

    def stuck(self, seconds: float) -> TransferStuck:
        at = f"{100 * self.done_bytes // self.size} %"
        # Whatever it waits for, it keeps what it has as long as nobody erases it.
        return TransferStuck(
            f"the upload is stuck at {at}: for {seconds:.0f} s the device has kept asking for offset {self.done_bytes}",
            offset=self.done_bytes,
            size=self.size,
            hint="the device keeps its place: run the same command again to go on from there; its log may tell what it "
            "waits for"
            if self.done_bytes
            else "the device answers and writes nothing: its log may tell why. Try a smaller --chunk, 64 for example",
        )

    # -- inside ----------------------------------------------------------------------------------------------------

    def _wants_again(self, chunk: Chunk, offset: int) -> None:
        """The device asks for what was sent before."""
        if offset == 0 and self.done_bytes > 0:
            self._session_gone()
        elif offset < chunk.end:
            # A chunk before this one is missing (or the device has gone back): on from where it says.
            if offset == chunk.offset:
                self.stalls += 1  # or none is: the device holds this one back
            self._go_back(offset)

    def _opening_answer(self, chunk: Chunk, offset: int) -> None:
        if offset == 0:
            self.stalls += 1
            self._epoch += 1
            return
        self.phase = _BODY
        if offset > chunk.end or chunk.end - offset >= ALIGNMENT_MAXIMUM:
            self.resumed_from = offset  # the device kept the session of an earlier attempt with this sha
        self.done_bytes = 0
        self._advance(offset)
        self._learn_alignment(chunk, offset)
        if offset < chunk.end and chunk.epoch == self._epoch:
            self._go_back(offset, counts=False)

    def _advance(self, offset: int) -> None:
        self.done_bytes = offset
        if offset > self._next:
            self._next = offset
            self._furthest = max(self._furthest, offset)
        self.stalls = 0
        if offset == self.size:
            self.phase = _DONE

    def _learn_alignment(self, chunk: Chunk, offset: int) -> None:
        """What the answer to `chunk` tells of the unit in which the device writes.

        Old Zephyr (< 3.0) and MCUboot take whole flash words only. An opening chunk that is answered with less may as
        well have met the upload of an earlier attempt, which stands there; so what it tells against a unit counts, and
        what it tells for one does not.
        """
        if offset == chunk.end:
            if offset < self.size and offset % self.alignment:
                self.alignment = offset & -offset  # it was taken whole, although it ends elsewhere
        elif 0 < chunk.offset < offset < chunk.end:
            unit = min(offset & -offset, ALIGNMENT_MAXIMUM)  # a multiple of the true one will do
            if chunk.end - offset < unit:
                self.alignment = max(self.alignment, unit)

    def _go_back(self, offset: int, *, counts: bool = True) -> None:
        if counts:
            self.setbacks += 1
        self._epoch += 1
        self._next = offset
        self.done_bytes = offset
        if self.needs_settling:
            self.phase = _BODY

    def _session_gone(self) -> None:
        """The device wants offset 0 after progress: it was reset or erased, or it has finished (Zephyr clears then)."""
        if self.tail:
            self.phase = _FORGOTTEN
        else:
            self._restart()

    def _restart(self) -> None:
        self._restarts += 1
        if self._restarts > STUCK_RESTARTS:
            raise TransferStuck(
                f"the device has lost the upload {self._restarts} times",
                offset=self.done_bytes,
                size=self.size,
                hint="is another client connected, or does the device reset? Its log may tell",
            )
        self._epoch += 1
        self._opening_epoch = self._epoch
        self._next = 0
        self.done_bytes = 0
        self.resumed_from = 0
        self.match = None
        self.tail = False
        self._opening = None
        self.phase = _FIRST
