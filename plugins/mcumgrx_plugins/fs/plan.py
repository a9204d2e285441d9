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

from enum import Enum
from typing import Any, Protocol

from mcumgrx.errors import MessageTooLarge, PlanRefused, ProtocolError, TransferStuck
from mcumgrx.plugin_api import Command, DeviceError, Hint, MalformedReply, Run
from mcumgrx.protocol.message import SmpError
from mcumgrx.transfer.plan import largest_data

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
    WriteFile,
)

__all__ = [
    "HASH_TYPES",
    "Content",
    "FileDamaged",
    "FilePutPlan",
    "Phase",
    "Step",
    "is_refusal",
]

# Types of hash that Zephyr has, the better one first.
HASH_TYPES = ("sha256", "crc32")

# How often the device may lose track, without any byte more than ever before getting through in between; whoever
# drives the plan lets ever more time pass before each of them (`stalls`).
_RESTARTS = 12

# Messages are not made so small that less data fits.
_LEAST_DATA = 16

# Heads of byte strings, whose size depends on what is in them.
_HEADS = 8

# Ends of chunks that are no longer needed may pile up so far.
_KEPT_ENDS = 64

# Files up to this size are hashed about as fast as a chunk is written, so that the query may be asked like one.
_QUICK_BYTES = 16 * 1024

# A first chunk without an answer is lost, or too large for the link, rather than slow; but the device may also be busy
# with the end of a long file that was there before.
_QUICK_FIRSTS = 2

# Of a single byte no other chunk could be told apart.
_LEAST_FIRST = 2

# Servers before Zephyr 3.3 answer a wrong offset with this plain code, and the right one beside it.
_OLD_WRONG_OFFSET = SmpError.INVALID


class FileDamaged(ProtocolError):
    """What has arrived is not what was sent: `size` bytes were expected."""

    def __init__(self, message: str, *, size: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.size = size


class Content(Protocol):
    """What is written: `size` bytes that can be read anywhere, more than once."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes:
        """Exactly these bytes."""

    def digest(self, type: str, size: int) -> int | bytes:
        """The hash of the first `size` bytes, of one of `HASH_TYPES`."""


def is_refusal(error: DeviceError, code: FsErrorCode, *plain: SmpError) -> bool:
    """Whether the refusal is `code` of this group, or one of the plain codes that stand for it in version 1."""
    return error.rc in plain if error.group is None else (error.group, error.rc) == (WriteFile.group, code)


def _is_check(piece: Step) -> bool:
    """Whether it asks for the hash of the whole."""
    return isinstance(piece.command, ReadHash) and piece.command.length is None


def _unknown_command(error: DeviceError) -> bool:
    return error.group is None and error.rc == SmpError.NOT_SUPPORTED


# -- writing ----------------------------------------------------------------------------------------------------------


class Phase(Enum):
    """What the next request is for."""

    CLOSE = "close"  # after trouble, so that a first chunk is one, and what was written shows
    SIZE = "size"  # how much the device has
    PREFIX = "prefix"  # whether that is the beginning of ours
    FIRST = "first"
    BODY = "body"
    END = "end"  # close, where the device may not have done so by itself
    HASH = "hash"
    LENGTH = "length"  # instead of a hash, where the device takes none
    DONE = "done"


class Step:
    """One request of the plan. `offset` and `end` are those of a chunk, None for other requests.

    `slow`: nothing goes out before its answer. `session` counts the closings before it, `epoch` how often the plan had
    gone back; `again` means that all of it had been sent before.
    """

    __slots__ = ("again", "command", "end", "epoch", "offset", "open", "session", "slow")

    def __init__(
        self,
        command: Command[Any],
        session: int,
        epoch: int = 0,
        *,
        offset: int | None = None,
        end: int | None = None,
        slow: bool = True,
        again: bool = False,
    ) -> None:
        self.command = command
        self.session = session
        self.epoch = epoch
        self.offset = offset
        self.end = end
        self.slow = slow
        self.again = again
        self.open = True  # nothing has become of it so far

    def __repr__(self) -> str:
        return f"<Step {self.command!r}>"


class FilePutPlan:
    """The writing of `content` to the file `name`; a `TransferPlan`.

    Arguments:
        message_bytes: largest message, header included, that device and link take.
        chunk_bytes: at most this much data in a chunk, whatever fits; the first has at least 2 bytes.
        resume: go on from what the device has of the file already, if it is the beginning of this one.

    Raises `MessageTooLarge` where not a byte fits beside the path.
    """

    tail = False  # closing and comparing come behind the last chunk
    needs_settling = False

    def __init__(
        self,
        content: Content,
        name: str,
        *,
        message_bytes: int,
        chunk_bytes: int | None = None,
        resume: bool = False,
    ) -> None:
        if chunk_bytes is not None and chunk_bytes < 1:
            raise ValueError("a chunk has at least one byte")
        self.name = name
        self.size = content.size
        self.phase = Phase.FIRST
        self.done_bytes = 0
        self.resumed_from = 0  # what the device had of this content before
        self.verified_by: str | None = None  # type of the hash, or "size"; None where the device tells neither
        self.retransmissions = 0
        self.setbacks = 0
        self.one_at_a_time = False  # the device does not tell enough for more
        # More than a whole file needs is not used, so that nobody has to find out whether it would arrive.
        whole = WriteFile(name, 0, b"", self.size).request().size + self.size + _HEADS
        self.message_bytes = min(message_bytes, whole)
        enough = WriteFile(name, self.size, bytes(_LEAST_DATA), self.size).request().size
        self.least_bytes = min(self.message_bytes, enough)
        self._content = content
        self._chunk_bytes = chunk_bytes
        self._hash_types = list(HASH_TYPES)
        self._size_by_reading = False
        # Nothing replaces nothing: the size decides whether an empty file can be made at all.
        self._look_first = resume or self.size == 0
        self._resuming = resume
        if self._look_first:
            self.phase = Phase.CLOSE
        self._was_closed = False  # by us, before the first chunk
        self._stays_open = self.size == 0  # the device does not know where the file ends
        self._surely_closed = False  # by us, in the end
        self._found = 0
        self._fixed: dict[int, int] = {}  # of `_room`
        self._waiting: Step | None = None  # for the answer to what no other chunk or query may overtake
        self._check: Step | None = None  # the query of the hash that is on its way
        self._patient = False  # one has got lost, or takes longer than a short file should
        self._open = 0  # chunks of which nothing has become so far
        self._session = 0
        self._epoch = 0
        self._next = 0
        self._first_size = 0
        self._first_failures = 0
        self._ends: set[int] = set()  # of the chunks of this session, where the device may be
        self._missing = False  # an answer, since the last that brought the transfer on
        self._furthest_sent = 0
        self._furthest = 0
        self.stalls = 0
        self._trouble = False
        self._again = False
        self._room(0)

    @property
    def done(self) -> bool:
        return self.phase is Phase.DONE

    def doubt(self) -> None:
        pass  # nothing ends without an answer

    def next(self) -> Step | None:
        """The request to send now; None as long as answers must be awaited, or when the transfer is done."""
        if self._waiting is not None:
            return self._early_check() if self._waiting.end == self.size else None
        command: Command[Any]
        match self.phase:
            case Phase.BODY:
                return self._next_in_body()
            case Phase.FIRST:
                self._waiting = self._chunk(0)
                return self._waiting
            case Phase.DONE:
                return None
            case Phase.CLOSE | Phase.END:
                command = CloseFile()
            case Phase.SIZE | Phase.LENGTH:
                # The answer to a read of the beginning has the size too, if the device has no query for it.
                command = ReadFile(self.name, 0) if self._size_by_reading else ReadStatus(self.name)
            case Phase.PREFIX:
                command = ReadHash(self.name, self._hash_types[0], 0, self._found)
            case Phase.HASH:
                return self._checking() if self._check is None else None
        self._waiting = Step(command, self._session)
        return self._waiting

    def _next_in_body(self) -> Step | None:
        if self._next < self.size:
            return None if self.one_at_a_time and self._open else self._chunk(self._next)
        if (check := self._early_check()) is not None or self._open or self._check is not None:
            return check
        # All has been sent, nothing of it is on its way, and it is not known to have arrived.
        self.setbacks += 1
        self._go_back(self.done_bytes)
        return self._chunk(self._next)

    def _early_check(self) -> Step | None:
        """The query of the hash behind the last chunk, if that may go out before the answer to the chunk."""
        if self._check is not None or not self._is_quick or self._must_close or self.one_at_a_time:
            return None
        return self._checking() if self._hash_types else None

    def _checking(self) -> Step:
        command = ReadHash(self.name, self._hash_types[0])
        self._check = Step(command, self._session, self._epoch, slow=not self._is_quick)
        return self._check

    @property
    def _must_close(self) -> bool:
        """Whether the device may still have the file open when it has the whole.

        After trouble that may be because of a late copy of the first chunk.
        """
        return (self._stays_open or self._trouble) and not self._surely_closed

    @property
    def _is_quick(self) -> bool:
        return 0 < self.size <= _QUICK_BYTES and not self._patient

    # -- what happened ------------------------------------------------------------------------------------------------

    def answered(self, piece: Step, result: Any) -> None:
        """The result of `piece`. Raises `PlanRefused`, `FileDamaged` or `TransferStuck` where the transfer ends."""
        if piece.offset:
            self._settle(piece)
            if self._is_current(piece) and isinstance(result, FileProgress):
                if result.offset != piece.end:
                    self._compare()
                elif result.offset > self.done_bytes:
                    self._advance(result.offset)
            return
        if _is_check(piece):
            self._checked(piece, result)
            return
        if piece is not self._waiting:
            return
        self._waiting = None
        match self.phase, result:
            case Phase.CLOSE | Phase.END, _:
                self._closed()
            case Phase.SIZE | Phase.LENGTH, FileStatus() | FileChunk():
                size = result.size if isinstance(result, FileStatus) else result.length
                if size is None:
                    raise MalformedReply("it lacks 'len'")
                self._told_size(size)
            case Phase.PREFIX, FileHash():
                self._told_prefix(result)
            case Phase.FIRST, FileProgress():
                if result.offset == piece.end:
                    self.phase = Phase.BODY
                    self._advance(result.offset)
                else:
                    self._begin_anew()  # the file was open, or another copy of it came before

    def refused(self, piece: Step, error: DeviceError) -> bool:
        """The device said no; false where the plan cannot go on, and the error is the caller's."""
        if piece.offset:
            self._settle(piece)
            return not self._is_current(piece) or self._refused_chunk(piece, error)
        if _is_check(piece):
            return piece is not self._check or self._refused_check(piece, error)
        if piece is not self._waiting:
            return True
        self._waiting = None
        match self.phase:
            case Phase.FIRST if not self._was_closed and is_refusal(
                error, FsErrorCode.FILE_WRITE_FAILED, SmpError.UNKNOWN
            ):
                self._first_failed()  # it may have been appended to what another upload has left open
                return True
            case Phase.CLOSE | Phase.END:
                # What has no such command keeps nothing open.
                self.one_at_a_time = True
                self._closed()
                return True
            case Phase.SIZE | Phase.LENGTH:
                return self._refused_size(error)
            case Phase.PREFIX:
                return self._refused_prefix(error)
        return False

    def overtaken(self, piece: Step) -> None:
        if piece.offset:
            # What has overtaken it tells whether it had arrived.
            self._settle(piece)
            if self._is_current(piece):
                self._missing = self._trouble = True
        elif piece is self._check:
            self._check = None
        elif piece.offset == 0 and piece is self._waiting:
            self._first_failed()

    def lost(self, piece: Step) -> None:
        if piece.offset:
            self._settle(piece)
            if self._is_current(piece):
                self._missing = self._trouble = True
                if piece.epoch == self._epoch:
                    # One loss, one reaction: the others of its window are its consequence.
                    self._go_back(self.done_bytes)
        elif piece is self._check:
            self._check = None
            self._patient = True
        elif piece is self._waiting:
            self._waiting = None
            if self.phase is Phase.FIRST:
                self._first_failed()

    def put_off(self, piece: Step) -> None:
        # It has not been executed, so it is safe to send it again.
        if piece is self._check:
            self._check = None
        elif piece is self._waiting:
            self._waiting = None
        else:
            self.lost(piece)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _settle(self, chunk: Step) -> None:
        if chunk.open:
            chunk.open = False
            self._open -= 1

    def _is_current(self, chunk: Step) -> bool:
        """Whether what becomes of it still matters."""
        return self.phase is Phase.BODY and chunk.session == self._session

    def _closed(self) -> None:
        if self.phase is Phase.END:
            self._surely_closed = True
            self._look_at_whole()
            return
        self._was_closed = True
        if self._look_first:
            self.phase = Phase.SIZE
        else:
            self._start_over()

    def _look_at_whole(self) -> None:
        if self._must_close:
            self.phase = Phase.END
        else:
            # A hash tells the length too. An empty file has none.
            self.phase = Phase.HASH if self._hash_types and self.size else Phase.LENGTH

    def _first_failed(self) -> None:
        """The first chunk has no answer, or none that says anything."""
        self._waiting = self._check = None
        self._trouble = True
        self._first_failures += 1
        self.phase = Phase.CLOSE

    def _told_size(self, size: int) -> None:
        if self.phase is Phase.LENGTH:
            if size == self.size:
                self._verified("size")
            else:
                self._is_wrong(f"the file in the device has {size} bytes after {self.size} were written")
        elif self.size == 0:
            if size:
                raise PlanRefused(
                    f"nothing can replace the {size} bytes in {self.name}: an upload of 0 bytes leaves them there",
                    hint=Hint(
                        "upload at least one byte, or delete the file first, if the device has a shell: ",
                        Run("shell run fs rm", self.name),
                    ),
                )
            self._verified("size")  # it is there, and empty
        elif 0 < size <= self.size and self._hash_types:
            self._found = size
            self.phase = Phase.PREFIX
        else:
            self._start_over()

    def _told_prefix(self, result: FileHash) -> None:
        if self._is_same(result, self._hash_types[0], self._found):
            self._look_first = False
            if self._resuming:
                self.resumed_from = self._found
            self._resuming = False
            self._stays_open = True  # without a first chunk the device is not told the length
            self._surely_closed = False
            self.phase = Phase.BODY
            self._advance(self._found)
        else:
            self._start_over()

    def _is_same(self, found: FileHash, type: str, size: int) -> bool:
        # Not the same type: the device took its default.
        return found.type in ("", type) and found.length == size and found.output == self._content.digest(type, size)

    def _checked(self, check: Step, found: FileHash) -> None:
        """The hash of the whole has come, perhaps before the answers to the last chunks."""
        assert isinstance(check.command, ReadHash)
        type = check.command.hash_type or ""
        expected = check is self._check
        if expected:
            self._check = None
        # As long as the file is open its old content is hashed, which may be the same: then it proves nothing.
        current = self.phase is Phase.HASH and (check.session, check.epoch) == (self._session, self._epoch)
        if current and self._is_same(found, type, self.size):
            self._verified(type)
        elif expected:
            self._failed_check(check, f"the {type} of the file in the device is not that of what was written")

    def _failed_check(self, check: Step, message: str) -> None:
        if check.epoch != self._epoch:
            pass  # what was missing has been sent again since
        elif self.phase is Phase.HASH:
            self._is_wrong(message)
        elif self.phase is Phase.BODY:
            # It was asked for behind the last chunk: so all that has no answer is lost.
            self.setbacks += 1
            self._go_back(self.done_bytes)

    def _refused_size(self, error: DeviceError) -> bool:
        if _unknown_command(error) and not self._size_by_reading:
            self._size_by_reading = True
        elif is_refusal(error, FsErrorCode.FILE_NOT_FOUND, SmpError.NO_ENTRY):
            if self.phase is Phase.LENGTH:
                self._is_wrong("the device has no such file after it was written")
            else:
                self._start_over()
        elif _unknown_command(error) and self.phase is Phase.LENGTH:
            self._verified(None)  # it can only be written to
        else:
            return False
        return True

    def _refused_prefix(self, error: DeviceError) -> bool:
        self._learn_hashes(error)
        if not self._hash_types or not self._is_unknown_hash(error):
            self._start_over()
        return True

    def _refused_check(self, check: Step, error: DeviceError) -> bool:
        self._check = None
        if self._is_unknown_hash(error):
            self._learn_hashes(error)
            if self.phase is not Phase.HASH:
                self._failed_check(check, "")
            elif not self._hash_types:
                self.phase = Phase.LENGTH
        elif is_refusal(error, FsErrorCode.FILE_EMPTY) or is_refusal(error, FsErrorCode.FILE_NOT_FOUND):
            self._failed_check(check, f"the device has nothing of the {self.size} bytes that were written")
        elif self.phase is Phase.HASH and self._surely_closed:
            return False
        else:
            self._failed_check(check, "")  # the file may be open, or not yet there
        return True

    def _is_unknown_hash(self, error: DeviceError) -> bool:
        return _unknown_command(error) or is_refusal(error, FsErrorCode.CHECKSUM_HASH_NOT_FOUND, SmpError.INVALID)

    def _learn_hashes(self, error: DeviceError) -> None:
        if _unknown_command(error):
            self._hash_types.clear()
        elif self._is_unknown_hash(error):
            del self._hash_types[0]

    def _refused_chunk(self, chunk: Step, error: DeviceError) -> bool:
        excused = self._missing or chunk.again
        if error.group is not None:
            if not is_refusal(error, FsErrorCode.FILE_OFFSET_NOT_VALID):
                return False
            wanted = error.reply.get("len")
        elif error.rc == _OLD_WRONG_OFFSET and "off" in error.reply:
            wanted = error.reply["off"]
        elif error.rc == _OLD_WRONG_OFFSET and (excused or not self._first_size):
            self._look_first = False  # they go on with nothing that has ended, or that they have not seen begin
            self._begin_anew()
            return True
        elif error.rc == SmpError.UNKNOWN and excused:
            wanted = None  # version 1 has this code for everything, a wrong offset too
        else:
            return False
        self._told_offset(chunk, wanted)
        return True

    def _told_offset(self, chunk: Step, wanted: object) -> None:
        """The device did not take the chunk, because its file ends at `wanted`."""
        self._stays_open = True  # it has closed the file, and forgotten the length
        assert chunk.offset is not None
        assert chunk.end is not None
        if not isinstance(wanted, int):
            self.one_at_a_time = True
            if chunk.end > self.done_bytes:  # otherwise it was a copy
                self._compare()
            return
        if wanted == chunk.offset:
            self._compare()  # then it was the right place
        elif wanted == self.done_bytes or (wanted > self.done_bytes and wanted in self._ends):
            if wanted > self.done_bytes:
                self._advance(wanted)  # it was the answers that were lost
            # Where it has the end of this chunk it has the chunk, and goes on with those behind.
            if wanted < chunk.end and chunk.epoch == self._epoch:
                self.setbacks += 1
                self._go_back(wanted)
        elif chunk.epoch == self._epoch or wanted > self.done_bytes:
            self._compare()

    def _advance(self, offset: int) -> None:
        self.done_bytes = offset
        self._next = max(self._next, offset)
        self._missing = False
        self._ends.discard(offset)
        if len(self._ends) > 2 * self._open + _KEPT_ENDS:
            self._ends = {end for end in self._ends if end > offset}
        if offset > self._furthest:
            self._furthest = offset
            self.stalls = 0
        if offset == self.size:
            self._look_at_whole()

    def _go_back(self, offset: int) -> None:
        self._epoch += 1
        self._next = offset

    def _compare(self) -> None:
        """The device counts otherwise than we do: what does it have?"""
        self._look_first = bool(self._hash_types)
        self._begin_anew()

    def _start_over(self) -> None:
        """What the device has cannot serve; the file is closed already."""
        self._look_first = False
        self._resuming = False
        self.done_bytes = self.resumed_from = self._next = 0
        self._stays_open = self.size == 0
        self._surely_closed = False
        self.phase = Phase.FIRST

    def _begin_anew(self) -> None:
        self._trouble = True
        self.stalls += 1
        if self.stalls > _RESTARTS:
            raise self._stuck(f"the device has lost track of the upload {self.stalls} times")
        self._session += 1
        self._epoch += 1
        self.done_bytes = self._next = 0
        self._ends.clear()
        self._missing = False
        self._check = None
        self.phase = Phase.CLOSE

    def stuck(self, seconds: float) -> TransferStuck:
        return self._stuck(f"for {seconds:.0f} s the device has kept asking for offset {self.done_bytes}")

    def _stuck(self, message: str) -> TransferStuck:
        return TransferStuck(
            message,
            offset=self.done_bytes,
            size=self.size,
            hint="does another client write to the file, or does the device reset? Its log may tell",
        )

    def _verified(self, by: str | None) -> None:
        self.verified_by = by
        self.done_bytes = self.size
        self.phase = Phase.DONE

    def _is_wrong(self, message: str) -> None:
        """Close the file and look again; then once more from the start, if there is a reason to hope.

        Otherwise raises `FileDamaged`.
        """
        if not self._surely_closed:
            self.phase = Phase.END
            return
        if self._trouble and not self._again:
            self._again = True
            self._look_first = False
            self._begin_anew()
            return
        raise FileDamaged(
            message,
            size=self.size,
            hint="does another client or the application write to the file? Upload it again, and if that stays, "
            "look at the device's log",
        )

    def _chunk(self, offset: int) -> Step | None:
        """The chunk to send at `offset`; None where there is none that could be told apart from the others."""
        size = min(self._room(offset), self.size - offset)
        if self._chunk_bytes is not None:
            size = min(size, self._chunk_bytes if offset else max(_LEAST_FIRST, self._chunk_bytes))
        if offset == 0:
            self._first_size = size
        else:
            while size > 1 and self._is_ambiguous(offset + size):
                size -= 1
            if size == 1 and self._open and self._is_ambiguous(offset + size):
                return None
        if size < 1 and self.size > 0:
            raise self._too_small()
        end = offset + size
        data = self._content.read(offset, size)
        command = WriteFile(self.name, offset, data, self.size if offset == 0 else None)
        again = 0 < end <= self._furthest_sent
        self.retransmissions += again
        self._furthest_sent = max(self._furthest_sent, end)
        if offset == 0:
            slow = self._first_failures >= _QUICK_FIRSTS
            return Step(command, self._session, self._epoch, offset=0, end=end, slow=slow, again=again)
        self._next = end
        self._ends.add(end)
        self._open += 1
        return Step(command, self._session, self._epoch, offset=offset, end=end, slow=False, again=again)

    def _is_ambiguous(self, end: int) -> bool:
        """Whether the device could also be at `end`, or another place of ours, after a copy of the first chunk."""
        first = self._first_size
        if not first:
            return False
        before = end - first
        return before == self.done_bytes or before in self._ends or end + first in self._ends

    def _room(self, offset: int) -> int:
        """How much data fits a chunk. Raises `MessageTooLarge` if none."""
        # From 32 on, offsets of as many bits take as many bytes: encoding one of them tells for all.
        kind = offset if offset < 32 else -offset.bit_length()
        fixed = self._fixed.get(kind)
        if fixed is None:
            empty = WriteFile(self.name, offset, b"", self.size if offset == 0 else None)
            fixed = self._fixed[kind] = empty.request().size - 1
        room = largest_data(self.message_bytes, fixed)
        if room < 1 and self.size > 0:
            raise self._too_small()
        return room

    def _too_small(self) -> MessageTooLarge:
        return MessageTooLarge(
            f"a message of {self.message_bytes} bytes has no room for data beside the path",
            size=WriteFile(self.name, 0, b"\0", self.size).request().size,
            limit=self.message_bytes,
            hint="use a shorter path, or raise CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE in the device's firmware",
        )
