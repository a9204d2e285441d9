"""The plan of a file's upload: which request is next, and what its answer means. No sending, no waiting.

It is a `mcumgrx.transfer.plan.TransferPlan`: the transfer engine sends what `next` gives, as much at once as its
window allows, and tells what has become of it. That of a download is in `get_plan`.

What makes an upload harder than it looks is a server that does not know a chunk that comes twice (Zephyr `fs_mgmt.c`):

* A first chunk, at offset 0, truncates the file if it had content when it was opened, and is appended if it had none.
  The device counts on in both cases, so only the answer to the first chunk can tell that the file was open already:
  its offset is not where the chunk ends. Hence no other chunk goes out before that answer. If it is not the right one,
  or stays out, the upload is begun anew with closing.
* When a late copy of the first one is executed all the same, the device's offset is ahead by its size. That must not
  be an offset that could be right: no chunk ends where that many bytes lie between it and another place at which the
  device may be.
* Any other chunk is taken at the end of the file only, so that many of them may be on their way. Elsewhere that is
  error 11 with the true offset beside it, and the file is closed; a chunk at that offset continues it. Where we have
  sent a chunk that ends there, those before have arrived, and one behind is missing: on from there, once for all that
  complain of the same gap. Anywhere else the file is not what it should be, and what the device has is compared with
  ours by its hash, or sent again from the start where it has none.
* Who does not tell the true offset (version 1), or knows no closing (before Zephyr 3.3), gets one chunk at a time: of
  a gap all that can be learned is that there is one.
* Nothing is compared with the length that the first chunk announces, so in the end the whole is, by hash or size. The
  device closes a file by itself when it has counted up to that length, so what it hashes is what an application sees;
  but not if it has lost the length, as it does when it closes the file in between. Then, and wherever hash or size is
  not the right one, the file is closed and looked at once more before anything is said against it. It is also closed
  if anything was sent twice. Against a copy of the first chunk that the network makes by itself and delivers behind the
  last one there is no defence.
* A short file takes more round trips than chunks unless its hash is asked for behind the last chunk, without waiting
  for the answer to that: the device works in order. It proves nothing until all chunks are answered, because a file
  that is open has its old content for all others, and that may be the same as the new one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mcumgrx.plugin_api import (
    DeviceError,
    Hint,
    MalformedReply,
    PlanRefused,
    ProtocolError,
    Run,
    SmpCommand,
    SmpError,
    TransferPlan,
    TransferStuck,
)

from .chunks import Chunks, Content, Step
from .messages import (
    CloseFile,
    FileChunk,
    FileHash,
    FileProgress,
    FileStatus,
    FsErrorCode,
    ReadFile,
    ReadHash,
    ReadStatus,
)

# Types of hash that Zephyr has, the better one first.
HASH_TYPES = ("sha256", "crc32")

# How often the device may lose track, without any byte more than ever before getting through in between; whoever
# drives the plan lets ever more time pass before each of them (`stalls`).
_RESTARTS = 12

# Files up to this size are hashed about as fast as a chunk is written, so that the query may be asked like one.
_QUICK_BYTES = 16 * 1024

# A first chunk without an answer is lost, or too large for the link, rather than slow; but the device may also be busy
# with the end of a long file that was there before.
_QUICK_FIRSTS = 2

# Servers before Zephyr 3.3 answer a wrong offset with this plain code, and the right one beside it.
_OLD_WRONG_OFFSET = SmpError.INVALID


class FileDamaged(ProtocolError):
    """What has arrived is not what was sent: `size` bytes were expected."""

    def __init__(self, message: str, *, size: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.size = size


# -- where an upload is -----------------------------------------------------------------------------------------------


class Gone(Enum):
    """Why there is no answer to a request."""

    OVERTAKEN = "one that was sent after it has been answered"
    LOST = "its time is up"
    PUT_OFF = "the device was busy, and has not done it"


class State(ABC):
    """Where an upload is: what it asks for, and the state that follows from what becomes of that.

    `refused` gives None where the plan cannot go on, and the error is the caller's.
    """

    @abstractmethod
    def next(self, up: FilePutPlan) -> Step | None: ...

    @abstractmethod
    def answered(self, up: FilePutPlan, piece: Step, result: Any) -> State: ...

    def refused(self, up: FilePutPlan, piece: Step, error: DeviceError) -> State | None:
        return None

    def gone(self, up: FilePutPlan, piece: Step, why: Gone) -> State:
        return self  # where it is asked for again


class Asking(State):
    """One question, and nothing else before its answer."""

    @abstractmethod
    def command(self, up: FilePutPlan) -> SmpCommand[Any]: ...

    def next(self, up: FilePutPlan) -> Step | None:
        up.waiting = Step(self.command(up), up.chunks.epoch)
        return up.waiting


@dataclass(frozen=True, slots=True)
class Close(Asking):
    """After trouble, so that a first chunk is one, and what was written shows. `look`: at what the device has."""

    look: bool = False

    def command(self, up: FilePutPlan) -> SmpCommand[Any]:
        return CloseFile()

    def answered(self, up: FilePutPlan, piece: Step, result: Any) -> State:
        up.file.was_closed = True
        return SIZE if self.look else up.start_over()

    def refused(self, up: FilePutPlan, piece: Step, error: DeviceError) -> State:
        # What has no such command keeps nothing open.
        up.server.one_at_a_time = True
        return self.answered(up, piece, None)


class Size(Asking):
    """How much the device has."""

    def command(self, up: FilePutPlan) -> SmpCommand[Any]:
        # The answer to a read of the beginning has the size too, if the device has no query for it.
        return ReadFile(up.name, 0) if up.server.size_by_reading else ReadStatus(up.name)

    def answered(self, up: FilePutPlan, piece: Step, result: FileStatus | FileChunk) -> State:
        size = result.size if isinstance(result, FileStatus) else result.length
        if size is None:
            raise MalformedReply("it lacks 'len'")
        return self.told(up, size)

    def refused(self, up: FilePutPlan, piece: Step, error: DeviceError) -> State | None:
        if error.says(FsErrorCode.FILE_NOT_FOUND, SmpError.NO_ENTRY):
            return self.no_file(up)
        if not error.says(SmpError.NOT_SUPPORTED):
            return None
        if up.server.size_by_reading:
            return self.untold(up)
        up.server.size_by_reading = True
        return self

    def told(self, up: FilePutPlan, size: int) -> State:
        if up.size == 0:
            if size:
                raise PlanRefused(
                    f"nothing can replace the {size} bytes in {up.name}: an upload of 0 bytes leaves them there",
                    hint=Hint(
                        "upload at least one byte, or delete the file first, if the device has a shell: ",
                        Run("shell run fs rm", up.name),
                    ),
                )
            return up.verified("size")  # it is there, and empty
        if not 0 < size <= up.size or not up.server.hash_types:
            return up.start_over()
        up.content.prepare(size)
        return Prefix(size)

    def no_file(self, up: FilePutPlan) -> State:
        return up.start_over()

    def untold(self, up: FilePutPlan) -> State | None:
        return None


class Length(Size):
    """In the end, instead of a hash, where the device takes none."""

    def told(self, up: FilePutPlan, size: int) -> State:
        if size == up.size:
            return up.verified("size")
        return up.damaged(f"the file in the device has {size} bytes after {up.size} were written")

    def no_file(self, up: FilePutPlan) -> State:
        return up.damaged("the device has no such file after it was written")

    def untold(self, up: FilePutPlan) -> State:
        return up.verified(None)  # it can only be written to


@dataclass(frozen=True, slots=True)
class Prefix(Asking):
    """Whether the `found` bytes that the device has are the beginning of ours."""

    found: int

    def command(self, up: FilePutPlan) -> SmpCommand[Any]:
        return ReadHash(up.name, up.server.hash_types[0], 0, self.found)

    def answered(self, up: FilePutPlan, piece: Step, result: FileHash) -> State:
        if not up.is_same(result, up.server.hash_types[0], self.found):
            return up.start_over()
        if not up.chunks.furthest:
            up.resumed_from = self.found
        up.file.stays_open = True  # without a first chunk the device is not told the length
        up.file.surely_closed = False
        return up.advance(self.found)

    def refused(self, up: FilePutPlan, piece: Step, error: DeviceError) -> State:
        return self if up.server.lacks_hash(error) and up.server.hash_types else up.start_over()


class First(State):
    """The first chunk, alone."""

    def next(self, up: FilePutPlan) -> Step | None:
        up.waiting = up.cut(0)
        if up.waiting is not None:
            up.waiting.slow = up.file.first_failures >= _QUICK_FIRSTS
        return up.waiting

    def answered(self, up: FilePutPlan, piece: Step, result: FileProgress) -> State:
        if result.offset == piece.end:
            return up.advance(result.offset)
        return up.begin_anew()  # the file was open, or another copy of it came before

    def refused(self, up: FilePutPlan, piece: Step, error: DeviceError) -> State | None:
        if up.file.was_closed or not error.says(FsErrorCode.FILE_WRITE_FAILED, SmpError.UNKNOWN):
            return None
        return self.gone(up, piece, Gone.LOST)  # it may have been appended to what another upload has left open

    def gone(self, up: FilePutPlan, piece: Step, why: Gone) -> State:
        if why is Gone.PUT_OFF:
            return self  # so it is safe to send it again
        up.check = None
        up.file.trouble = True
        up.file.first_failures += 1
        return Close()


class Body(State):
    """The other chunks, many at once."""

    def next(self, up: FilePutPlan) -> Step | None:
        chunks = up.chunks
        if chunks.next < up.size:
            return None if up.server.one_at_a_time and chunks.open else up.cut(chunks.next)
        if (check := up.early_check()) is not None or chunks.open or up.check is not None:
            return check
        # All has been sent, nothing of it is on its way, and it is not known to have arrived.
        up.set_back(up.done_bytes)
        return up.cut(chunks.next)

    def answered(self, up: FilePutPlan, piece: Step, result: FileProgress) -> State:
        if result.offset != piece.end:
            return up.compare()
        return up.advance(result.offset) if result.offset > up.done_bytes else self

    def refused(self, up: FilePutPlan, piece: Step, error: DeviceError) -> State | None:
        excused = up.chunks.missing or piece.again
        if error.says(FsErrorCode.FILE_OFFSET_NOT_VALID):
            wanted = error.reply.get("len")
        elif error.says(_OLD_WRONG_OFFSET) and "off" in error.reply:
            wanted = error.reply["off"]
        elif error.says(_OLD_WRONG_OFFSET) and (excused or not up.chunks.first_bytes):
            return up.begin_anew()  # they go on with nothing that has ended, or that they have not seen begin
        elif error.says(SmpError.UNKNOWN) and excused:
            wanted = None  # version 1 has this code for everything, a wrong offset too
        else:
            return None
        up.file.stays_open = True  # it has closed the file, and forgotten the length
        assert piece.end is not None
        if isinstance(wanted, int):
            return self._told_offset(up, piece, piece.end, wanted)
        up.server.one_at_a_time = True
        return up.compare() if piece.end > up.done_bytes else self  # otherwise it was a copy

    def _told_offset(self, up: FilePutPlan, chunk: Step, end: int, wanted: int) -> State:
        """The device did not take the chunk that ends at `end`, because its file ends at `wanted`."""
        current = chunk.epoch == up.chunks.epoch
        ahead = wanted > up.done_bytes
        if wanted == chunk.offset:
            return up.compare()  # then it was the right place
        if wanted == up.done_bytes or (ahead and wanted in up.chunks.ends):
            following = up.advance(wanted) if ahead else self  # it was the answers that were lost
            # Where it has the end of this chunk it has the chunk, and goes on with those behind.
            if wanted < end and current:
                up.set_back(wanted)
            return following
        return up.compare() if current or ahead else self

    def gone(self, up: FilePutPlan, piece: Step, why: Gone) -> State:
        up.chunks.missing = up.file.trouble = True
        # What has overtaken it tells whether it had arrived. One loss, one reaction: the others of its window are its
        # consequence.
        if why is not Gone.OVERTAKEN and piece.epoch == up.chunks.epoch:
            up.chunks.go_back(up.done_bytes)
        return self


class End(Close):
    """Close, where the device may not have done so by itself."""

    def answered(self, up: FilePutPlan, piece: Step, result: Any) -> State:
        up.file.surely_closed = True
        return up.whole()


class Whole(State):
    """The hash of the whole.

    It may have been asked for in another state, behind the last chunk. So this hears of its answer in every state, and
    mostly leaves that as it is.
    """

    def next(self, up: FilePutPlan) -> Step | None:
        return up.ask_hash() if up.check is None else None

    def answered(self, up: FilePutPlan, piece: Step, result: FileHash) -> State:
        assert isinstance(piece.command, ReadHash)
        type = piece.command.hash_type or ""
        expected = self._take(up, piece)
        # As long as the file is open its old content is hashed, which may be the same: then it proves nothing.
        if up.state is self and piece.epoch == up.chunks.epoch and up.is_same(result, type, up.size):
            return up.verified(type)
        wrong = f"the {type} of the file in the device is not that of what was written"
        return self._failed(up, piece, wrong) if expected else up.state

    def refused(self, up: FilePutPlan, piece: Step, error: DeviceError) -> State | None:
        if not self._take(up, piece):
            return up.state
        if up.server.lacks_hash(error):
            return up.whole() if up.state is self else self._failed(up, piece)
        if error.says(FsErrorCode.FILE_EMPTY, FsErrorCode.FILE_NOT_FOUND):
            return self._failed(up, piece, f"the device has nothing of the {up.size} bytes that were written")
        if up.state is self and up.file.surely_closed:
            return None
        return self._failed(up, piece)  # the file may be open, or not yet there

    def gone(self, up: FilePutPlan, piece: Step, why: Gone) -> State:
        up.server.patient |= self._take(up, piece) and why is Gone.LOST
        return up.state

    def _take(self, up: FilePutPlan, piece: Step) -> bool:
        """Whether it is the query that is waited for; not any more."""
        if piece is not up.check:
            return False
        up.check = None
        return True

    def _failed(self, up: FilePutPlan, check: Step, message: str = "") -> State:
        if check.epoch != up.chunks.epoch:
            return up.state  # what was missing has been sent again since
        if up.state is self:
            return up.damaged(message)
        if up.state is BODY:
            # It was asked for behind the last chunk: so all that has no answer is lost.
            up.set_back(up.done_bytes)
        return up.state


class Done(State):
    def next(self, up: FilePutPlan) -> Step | None:
        return None

    def answered(self, up: FilePutPlan, piece: Step, result: Any) -> State:
        return self


FIRST, BODY, SIZE, END, WHOLE, LENGTH, DONE = First(), Body(), Size(), End(), Whole(), Length(), Done()


# -- what all states share --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Server:
    """What the device's server has shown of itself.

    Attributes:
        one_at_a_time: it does not tell enough for more.
        patient: a query of a hash has got lost, or takes longer than a short file should.
    """

    hash_types: list[str] = field(default_factory=lambda: list(HASH_TYPES))
    size_by_reading: bool = False
    one_at_a_time: bool = False
    patient: bool = False

    def lacks_hash(self, error: DeviceError) -> bool:
        """Whether it says so of the first of the types, which is not asked for again; or of all."""
        if error.says(SmpError.NOT_SUPPORTED):
            self.hash_types.clear()
        elif error.says(FsErrorCode.CHECKSUM_HASH_NOT_FOUND, SmpError.INVALID):
            del self.hash_types[0]
        else:
            return False
        return True


@dataclass(slots=True)
class _File:
    """The file in the device.

    Attributes:
        was_closed: by us, before the first chunk.
        stays_open: the device does not know where it ends.
        surely_closed: by us, in the end.
        trouble: something of it was lost, or came twice.
        again: it is written once more from the start, because it was not right.
    """

    was_closed: bool = False
    stays_open: bool = False
    surely_closed: bool = False
    trouble: bool = False
    again: bool = False
    first_failures: int = 0

    @property
    def must_close(self) -> bool:
        """Whether the device may still have it open when it has the whole.

        After trouble that may be because of a late copy of the first chunk.
        """
        return (self.stays_open or self.trouble) and not self.surely_closed


class FilePutPlan(TransferPlan[Step]):
    """The writing of `content` to the file `name`. Closing and comparing come behind the last chunk.

    Arguments:
        message_bytes: largest message, header included, that device and link take.
        chunk_bytes: at most this much data in a chunk, whatever fits; the first has at least 2 bytes.
        resume: go on from what the device has of the file already, if it is the beginning of this one.

    Attributes:
        resumed_from: what the device had of this content before.
        verified_by: type of the hash, or "size"; None where the device tells neither.
        waiting: for the answer to what no other chunk or query may overtake.
        check: the query of the hash of the whole that is on its way.

    Raises `MessageTooLarge` where not a byte fits beside the path.
    """

    def __init__(
        self,
        content: Content,
        name: str,
        *,
        message_bytes: int,
        chunk_bytes: int | None = None,
        resume: bool = False,
    ) -> None:
        self.name = name
        self.size = content.size
        self.done_bytes = self.resumed_from = 0
        self.verified_by: str | None = None
        self.retransmissions = self.setbacks = self.stalls = 0
        self.chunks = Chunks(content, name, chunk_bytes)
        self.message_bytes, self.least_bytes = self.chunks.sizes(message_bytes)
        self.chunks.room(0, self.message_bytes)
        self.server = _Server()
        self.file = _File(stays_open=self.size == 0)
        # Nothing replaces nothing: the size decides whether an empty file can be made at all.
        self.state: State = Close(look=True) if resume or self.size == 0 else FIRST
        self.waiting: Step | None = None
        self.check: Step | None = None
        self.content = content
        self._furthest = 0

    @property
    def done(self) -> bool:
        return self.state is DONE

    def next(self) -> Step | None:
        """The request to send now; None as long as answers must be awaited, or when the transfer is done."""
        if self.waiting is not None:
            return self.early_check() if self.waiting.end == self.size else None
        return self.state.next(self)

    # -- what happened ------------------------------------------------------------------------------------------------

    def answered(self, piece: Step, result: Any) -> None:
        """The result of `piece`. Raises `PlanRefused`, `FileDamaged` or `TransferStuck` where the transfer ends."""
        if (state := self._concerned(piece)) is not None:
            self.state = state.answered(self, piece, result)

    def refused(self, piece: Step, error: DeviceError) -> bool:
        """The device said no; false where the plan cannot go on, and the error is the caller's."""
        if (state := self._concerned(piece)) is None:
            return True
        following = state.refused(self, piece, error)
        self.state = self.state if following is None else following
        return following is not None

    def overtaken(self, piece: Step) -> None:
        self._gone(piece, Gone.OVERTAKEN)

    def lost(self, piece: Step) -> None:
        self._gone(piece, Gone.LOST)

    def put_off(self, piece: Step) -> None:
        self._gone(piece, Gone.PUT_OFF)

    def _gone(self, piece: Step, why: Gone) -> None:
        if (state := self._concerned(piece)) is not None:
            self.state = state.gone(self, piece, why)

    def _concerned(self, piece: Step) -> State | None:
        """The state to which the fate of `piece` means something; None where nobody waits for it any more."""
        if piece.offset:
            return self.state if self.chunks.settle(piece) and self.state is BODY else None
        if isinstance(piece.command, ReadHash) and piece.command.length is None:
            return WHOLE
        if piece is not self.waiting:
            return None
        self.waiting = None
        return self.state

    def stuck(self, seconds: float) -> TransferStuck:
        return self._stuck(f"for {seconds:.0f} s the device has kept asking for offset {self.done_bytes}")

    def _stuck(self, message: str) -> TransferStuck:
        return TransferStuck(
            message,
            offset=self.done_bytes,
            size=self.size,
            hint="does another client write to the file, or does the device reset? Its log may tell",
        )

    # -- for the states: requests -------------------------------------------------------------------------------------

    def cut(self, offset: int) -> Step | None:
        """The chunk at `offset`; None where there is none that could be told apart from the others."""
        chunk = self.chunks.cut(offset, self.message_bytes, self.done_bytes)
        self.retransmissions += chunk is not None and chunk.again
        return chunk

    def ask_hash(self) -> Step:
        command = ReadHash(self.name, self.server.hash_types[0])
        self.check = Step(command, self.chunks.epoch, slow=not self._is_quick)
        return self.check

    def early_check(self) -> Step | None:
        """The query of the hash behind the last chunk, if that may go out before the answer to the chunk."""
        early = self._is_quick and self.check is None and not self.file.must_close and not self.server.one_at_a_time
        return self.ask_hash() if early and self.server.hash_types else None

    @property
    def _is_quick(self) -> bool:
        return 0 < self.size <= _QUICK_BYTES and not self.server.patient

    # -- for the states: what follows ---------------------------------------------------------------------------------

    def is_same(self, found: FileHash, type: str, size: int) -> bool:
        # Not the same type: the device took its default.
        return found.type in ("", type) and found.length == size and found.output == self.content.digest(type, size)

    def set_back(self, offset: int) -> None:
        """Something is missing behind `offset`."""
        self.setbacks += 1
        self.chunks.go_back(offset)

    def advance(self, offset: int) -> State:
        """The device has all before `offset`."""
        self.done_bytes = offset
        self.chunks.arrived(offset)
        if offset > self._furthest:
            self._furthest = offset
            self.stalls = 0
        return self.whole() if offset == self.size else BODY

    def whole(self) -> State:
        """The device has everything, by its word: does it?"""
        if self.file.must_close:
            return END
        # A hash tells the length too. An empty file has none.
        return WHOLE if self.server.hash_types and self.size else LENGTH

    def compare(self) -> State:
        """The device counts otherwise than we do: what does it have?"""
        return self.begin_anew(look=bool(self.server.hash_types))

    def start_over(self) -> State:
        """What the device has cannot serve; the file is closed already."""
        self.done_bytes = self.resumed_from = self.chunks.next = 0
        self.file.stays_open = self.size == 0
        self.file.surely_closed = False
        return FIRST

    def begin_anew(self, *, look: bool = False) -> State:
        self.file.trouble = True
        self.stalls += 1
        if self.stalls > _RESTARTS:
            raise self._stuck(f"the device has lost track of the upload {self.stalls} times")
        self.chunks.begin_anew()
        self.done_bytes = 0
        self.check = None
        return Close(look)

    def verified(self, by: str | None) -> State:
        self.verified_by = by
        self.done_bytes = self.size
        return DONE

    def damaged(self, message: str) -> State:
        """Close the file and look again; then once more from the start, if there is a reason to hope.

        Otherwise raises `FileDamaged`.
        """
        if not self.file.surely_closed:
            return END
        if self.file.trouble and not self.file.again:
            self.file.again = True
            return self.begin_anew()
        raise FileDamaged(
            message,
            size=self.size,
            hint="does another client or the application write to the file? Upload it again, and if that stays, "
            "look at the device's log",
        )
