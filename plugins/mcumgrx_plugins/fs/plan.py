"""The plans of a file's upload and download: which request is next, and what its answer means. No sending, no waiting.

An upload::

    plan = FilePutPlan(content, "/lfs1/name", message_bytes=380)
    while (step := plan.next()) is not None:
        ...
        plan.answered(step, result)          # or plan.refused(step, error), plan.lost(step)

What makes it harder than it looks is a server that does not know a chunk that comes twice (Zephyr `fs_mgmt.c`):

* A first chunk, at offset 0, truncates the file if it had content when it was opened, and is appended if it had none.
  The answers count on in both cases, so neither a repeated first chunk nor one to a file that is still open shows.
  Hence the file is closed before every first chunk, and one whose answer is lost is begun anew with closing.
* No other chunk has the size of the first one. When a late copy of the first one is executed all the same, the
  device's offset is ahead by that size, and not by one that could be right.
* Any other chunk is taken at the end of the file only. Elsewhere that is error 11 with the true offset beside it: right
  behind a chunk whose answer was lost, that one has arrived; anywhere else the file is not what it should be, and what
  the device has is compared with ours by its hash, or sent again from the start where it has none.
* Nothing is compared with the length that the first chunk announces, so in the end the whole is, by hash or size.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from mcumgrx.errors import MessageTooLarge, PlanRefused, ProtocolError, TransferStuck
from mcumgrx.plugin_api import Command, DeviceError, MalformedReply
from mcumgrx.protocol.message import SmpError
from mcumgrx.protocol.transfer import largest_data

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

__all__ = ["HASH_TYPES", "Content", "FileDamaged", "FileGetPlan", "FilePutPlan", "Phase", "Step", "is_refusal"]

# Types of hash that Zephyr has, the better one first.
HASH_TYPES = ("sha256", "crc32")

# How often the device may lose track, without any byte more than ever before getting through in between.
_RESTARTS = 5

# Messages are not made so small, by losses, that less data fits.
_LEAST_DATA = 16

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


def _unknown_command(error: DeviceError) -> bool:
    return error.group is None and error.rc == SmpError.NOT_SUPPORTED


# -- writing ----------------------------------------------------------------------------------------------------------


class Phase(Enum):
    """What the next request is for."""

    CLOSE = "close"  # so that a first chunk is one, and what was written shows
    SIZE = "size"  # how much the device has
    PREFIX = "prefix"  # whether that is the beginning of ours
    FIRST = "first"
    BODY = "body"
    END = "end"  # close, so that the application sees the whole
    HASH = "hash"
    LENGTH = "length"  # instead of a hash, where the device takes none
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Step:
    """One request of the plan. `end` is where a chunk ends in the file, None for other requests."""

    number: int
    command: Command[Any]
    end: int | None = None


class FilePutPlan:
    """The writing of `content` to the file `name`.

    Arguments:
        message_bytes: largest message, header included, that device and link take.
        least_bytes: what that may be halved down to when chunks get lost (a size that always works).
        chunk_bytes: at most this much data in a chunk, whatever fits; the first has at least 2 bytes.
        resume: go on from what the device has of the file already, if it is the beginning of this one.

    Raises `MessageTooLarge` where not a byte fits beside the path.
    """

    def __init__(
        self,
        content: Content,
        name: str,
        *,
        message_bytes: int,
        least_bytes: int | None = None,
        chunk_bytes: int | None = None,
        resume: bool = False,
    ) -> None:
        if chunk_bytes is not None and chunk_bytes < 1:
            raise ValueError("a chunk has at least one byte")
        self.name = name
        self.size = content.size
        self.phase = Phase.CLOSE
        self.message_bytes = message_bytes
        self.acknowledged_bytes = 0
        self.resumed_from = 0  # what the device had of this content before
        self.verified_by: str | None = None  # type of the hash, or "size"; None where the device tells neither
        self.losses = 0  # in a row
        self.retransmissions = 0
        self._content = content
        enough = WriteFile(name, self.size, bytes(_LEAST_DATA), self.size).request().size
        self._least_bytes = min(message_bytes, max(enough, least_bytes or message_bytes))
        self._chunk_bytes = chunk_bytes
        self._hash_types = list(HASH_TYPES)
        self._size_by_reading = False
        # Nothing replaces nothing: the size decides whether an empty file can be made at all.
        self._look_first = resume or self.size == 0
        self._resuming = resume
        self._number = 0
        self._found = 0
        self._first_size = 0
        self._lost_ends: set[int] = set()  # of chunks sent from here whose answers did not come
        self._furthest = 0
        self._restarts = 0
        self._trouble = False
        self._again = False
        self._room(0)

    @property
    def done(self) -> bool:
        return self.phase is Phase.DONE

    def next(self) -> Step | None:
        """The request to send now, one at a time; None when the transfer is done."""
        end: int | None = None
        command: Command[Any]
        match self.phase:
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
                command = ReadHash(self.name, self._hash_types[0])
            case Phase.FIRST | Phase.BODY:
                command, end = self._chunk(self.acknowledged_bytes)
        self._number += 1
        return Step(self._number, command, end)

    # -- what happened ------------------------------------------------------------------------------------------------

    def answered(self, step: Step, result: object) -> None:
        """The result of `step`. Raises `PlanRefused`, `FileDamaged` or `TransferStuck` where the transfer ends."""
        if step.number != self._number:
            return
        self._heard()
        match self.phase, result:
            case Phase.CLOSE | Phase.END, _:
                self._closed()
            case Phase.SIZE | Phase.LENGTH, FileStatus() | FileChunk():
                size = result.size if isinstance(result, FileStatus) else result.length
                if size is None:
                    raise MalformedReply("the reply lacks 'len'")
                self._told_size(size)
            case Phase.PREFIX | Phase.HASH, FileHash():
                self._told_hash(result)
            case Phase.FIRST, FileProgress():
                if result.offset == step.end:
                    self.phase = Phase.BODY
                    self._advance(result.offset)
                else:
                    self._begin_anew()  # another copy of it came before
            case Phase.BODY, FileProgress():
                if result.offset == step.end:
                    self._advance(result.offset)
                else:
                    self._doubt()

    def refused(self, step: Step, error: DeviceError) -> bool:
        """The device said no; false where the plan cannot go on, and the error is the caller's."""
        if step.number != self._number:
            return True
        self._heard()
        match self.phase:
            case Phase.CLOSE | Phase.END:
                self._closed()  # what has no such command keeps nothing open
                return True
            case Phase.SIZE | Phase.LENGTH:
                return self._refused_size(error)
            case Phase.PREFIX | Phase.HASH:
                return self._refused_hash(error)
            case Phase.BODY:
                return self._refused_chunk(error)
        return False

    def lost(self, step: Step) -> None:
        """No answer came in time. `losses` counts them in a row; when to give up is the caller's choice."""
        if step.number != self._number:
            return
        self.losses += 1
        if step.end is None:
            return
        self._trouble = True
        self.retransmissions += 1
        if step.command.request().size > self._least_bytes:
            # Perhaps it was too large for a buffer on the way: devices and links drop those in silence.
            self.message_bytes = max(self._least_bytes, self.message_bytes // 2)
        if self.phase is Phase.FIRST:
            self.phase = Phase.CLOSE
        else:
            self._lost_ends.add(step.end)

    def put_off(self, step: Step) -> None:
        """The device was busy and has not done it: `next` gives the same again."""
        if step.number == self._number and step.end is not None:
            self.retransmissions += 1

    # -- inside -------------------------------------------------------------------------------------------------------

    def _heard(self) -> None:
        # Closing comes between two losses of the first chunk, and brings nothing.
        if self.phase is not Phase.CLOSE:
            self.losses = 0

    def _closed(self) -> None:
        if self.phase is Phase.END:
            # A hash tells the length too. An empty file has none.
            self.phase = Phase.HASH if self._hash_types and self.size else Phase.LENGTH
        elif self._look_first:
            self.phase = Phase.SIZE
        else:
            self._start_over()

    def _told_size(self, size: int) -> None:
        if self.phase is Phase.LENGTH:
            if size == self.size:
                self._verified("size")
            else:
                self._damaged(f"the file in the device has {size} bytes after {self.size} were written")
        elif self.size == 0:
            if size:
                raise PlanRefused(
                    f"nothing can replace the {size} bytes in {self.name}: an upload of 0 bytes leaves them there",
                    hint="upload at least one byte, or delete the file first, if the device has a shell: "
                    f"mcumgrx shell run fs rm {self.name}",
                )
            self._verified("size")  # it is there, and empty
        elif 0 < size <= self.size and self._hash_types:
            self._found = size
            self.phase = Phase.PREFIX
        else:
            self._start_over()

    def _told_hash(self, result: FileHash) -> None:
        type = self._hash_types[0]
        size = self._found if self.phase is Phase.PREFIX else self.size
        # Not the same type: the device took its default.
        same = result.type in ("", type) and result.length == size
        same = same and result.output == self._content.digest(type, size)
        if self.phase is Phase.HASH:
            if same:
                self._verified(type)
            else:
                self._damaged(f"the {type} of the file in the device is not that of what was written")
        elif same:
            self._look_first = False
            if self._resuming:
                self.resumed_from = size
            self._resuming = False
            self.phase = Phase.BODY
            self._advance(size)
        else:
            self._start_over()

    def _refused_size(self, error: DeviceError) -> bool:
        if _unknown_command(error) and not self._size_by_reading:
            self._size_by_reading = True
        elif is_refusal(error, FsErrorCode.FILE_NOT_FOUND, SmpError.NO_ENTRY):
            if self.phase is Phase.LENGTH:
                self._damaged("the device has no such file after it was written")
            else:
                self._start_over()
        elif _unknown_command(error) and self.phase is Phase.LENGTH:
            self._verified(None)  # it can only be written to
        else:
            return False
        return True

    def _refused_hash(self, error: DeviceError) -> bool:
        if _unknown_command(error):
            self._hash_types.clear()
        elif is_refusal(error, FsErrorCode.CHECKSUM_HASH_NOT_FOUND, SmpError.INVALID):
            del self._hash_types[0]
        elif self.phase is Phase.PREFIX:
            self._start_over()
            return True
        elif is_refusal(error, FsErrorCode.FILE_EMPTY) or is_refusal(error, FsErrorCode.FILE_NOT_FOUND):
            self._damaged(f"the device has nothing of the {self.size} bytes that were written")
            return True
        else:
            return False
        if not self._hash_types:
            if self.phase is Phase.PREFIX:
                self._start_over()
            else:
                self.phase = Phase.LENGTH
        return True

    def _refused_chunk(self, error: DeviceError) -> bool:
        if error.group is not None:
            if not is_refusal(error, FsErrorCode.FILE_OFFSET_NOT_VALID):
                return False
            wanted = error.reply.get("len")
        elif error.rc == _OLD_WRONG_OFFSET and "off" in error.reply:
            wanted = error.reply["off"]
        elif error.rc == _OLD_WRONG_OFFSET and (self._lost_ends or not self._first_size):
            self._look_first = False  # they go on with nothing that has ended, or that they have not seen begin
            self._begin_anew()
            return True
        elif error.rc == SmpError.UNKNOWN and self._lost_ends:
            wanted = None  # version 1 has this code for everything, a wrong offset too
        else:
            return False
        if isinstance(wanted, int) and wanted in self._lost_ends:
            self._advance(wanted)  # it was the answer that was lost
        else:
            self._doubt()
        return True

    def _advance(self, offset: int) -> None:
        self.acknowledged_bytes = offset
        self._lost_ends.clear()
        if offset > self._furthest:
            self._furthest = offset
            self._restarts = 0
        if offset == self.size:
            self.phase = Phase.END

    def _doubt(self) -> None:
        """The device counts otherwise than we do: what does it have?"""
        self._look_first = bool(self._hash_types)
        self._begin_anew()

    def _start_over(self) -> None:
        """What the device has cannot serve; the file is closed already."""
        self._look_first = False
        self._resuming = False
        self.acknowledged_bytes = self.resumed_from = 0
        self._lost_ends.clear()
        self.phase = Phase.FIRST

    def _begin_anew(self) -> None:
        self._trouble = True
        self._restarts += 1
        if self._restarts > _RESTARTS:
            raise TransferStuck(
                f"the device has lost track of the upload {self._restarts} times",
                offset=self.acknowledged_bytes,
                size=self.size,
                hint="does another client write to the file, or does the device reset? Its log may tell",
            )
        self.acknowledged_bytes = 0
        self._lost_ends.clear()
        self.phase = Phase.CLOSE

    def _verified(self, by: str | None) -> None:
        self.verified_by = by
        self.acknowledged_bytes = self.size
        self.phase = Phase.DONE

    def _damaged(self, message: str) -> None:
        """Once more from the start, if there is a reason to hope; otherwise raises `FileDamaged`."""
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

    def _chunk(self, offset: int) -> tuple[WriteFile, int]:
        size = min(self._room(offset), self.size - offset)
        if self._chunk_bytes is not None:
            size = min(size, self._chunk_bytes if offset else max(_LEAST_FIRST, self._chunk_bytes))
        if offset == 0:
            self._first_size = size
        elif size == self._first_size and size > 1:
            size -= 1  # see the module's text
        if size < 1 and self.size > 0:
            raise self._too_small()
        data = self._content.read(offset, size)
        return WriteFile(self.name, offset, data, self.size if offset == 0 else None), offset + size

    def _room(self, offset: int) -> int:
        """How much data fits a chunk. Raises `MessageTooLarge` if none."""
        empty = WriteFile(self.name, offset, b"", self.size if offset == 0 else None)
        room = largest_data(self.message_bytes, empty.request().size - 1)
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


# -- reading ----------------------------------------------------------------------------------------------------------


class FileGetPlan:
    """The reading of a file from `offset` on: where to read next, and what an answer gives.

    `size` is that of the whole file; None where it is not known yet, which it need not be from offset 0.
    """

    def __init__(self, *, offset: int = 0, size: int | None = None) -> None:
        if offset > 0 and size is None:
            raise ValueError("only the answer at offset 0 tells the size")
        self.offset = offset
        self.size = size

    @property
    def done(self) -> bool:
        return self.size is not None and self.offset >= self.size

    def received(self, chunk: FileChunk) -> bytes:
        """The answer to a request for `offset`; returns its data, and moves on.

        Raises `MalformedReply` for an answer to another question, `FileDamaged` where the file has changed.
        """
        if chunk.offset != self.offset:
            raise MalformedReply(f"the device sent the data at offset {chunk.offset}, asked for {self.offset}")
        if self.size is None:
            if chunk.length is None:
                raise MalformedReply("the reply lacks 'len'")
            if chunk.length < 0:
                raise MalformedReply(f"the reply says that the file has {chunk.length} bytes")
            self.size = chunk.length
        elif chunk.length not in (None, self.size):
            raise self._changed(f"it had {self.size} bytes and has {chunk.length}")
        end = self.offset + len(chunk.data)
        if end > self.size:
            raise self._changed(f"it has more than the {self.size} bytes it had")
        if not chunk.data and self.offset < self.size:
            raise self._changed(f"it ends after {self.offset} of {self.size} bytes")
        self.offset = end
        return chunk.data

    def _changed(self, how: str) -> FileDamaged:
        return FileDamaged(
            f"the file has changed while it was read: {how}",
            size=self.size or 0,
            hint="read it again, when the application does not write to it",
        )
