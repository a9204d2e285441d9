"""The chunks of a file's upload: how much fits each of them, and where each would leave the device's file.

Which one is next, and what its answer means, is in `plan`.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

from mcumgrx.plugin_api import MessageTooLarge, SmpCommand, largest_data

from .messages import WriteFile

# Heads of byte strings, whose size depends on what is in them.
_HEADS = 8

# Messages are not made so small that less data fits.
_LEAST_DATA = 16

# Of a single byte no other chunk could be told apart.
_LEAST_FIRST = 2

# Ends of chunks that are no longer needed may pile up so far.
_KEPT_ENDS = 64


class Content(Protocol):
    """What is written: `size` bytes that can be read anywhere, more than once."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, size: int) -> bytes:
        """Exactly these bytes."""

    def prepare(self, size: int) -> None:
        """The hash of the first `size` bytes will be asked for."""

    def digest(self, type: str, size: int) -> int | bytes:
        """The hash of the first `size` bytes, of one of `plan.HASH_TYPES`."""


@dataclass(slots=True, eq=False)
class Step:
    """One request of the plan. `offset` and `end` are those of a chunk, None for other requests.

    `slow`: nothing goes out before its answer. `epoch` counts how often the plan had gone back; `again` means that all
    of it had been sent before. `open`: nothing has become of it so far.
    """

    command: SmpCommand[Any]
    epoch: int
    _: KW_ONLY
    offset: int | None = None
    end: int | None = None
    slow: bool = True
    again: bool = False
    open: bool = True

    def __repr__(self) -> str:
        return f"<Step {self.command!r}>"


class Chunks:
    """What is cut from `content` for the file `name`.

    Attributes:
        next: where the next one begins.
        epoch: how often it has been gone back, and `begun` how often when this writing of the file began.
        open: chunks of which nothing has become so far.
        missing: an answer, since the last that brought the transfer on.
        ends: of the chunks of this writing, where the device may be.
        furthest: end of all that was ever sent.
        first_bytes: of data in the first chunk; 0 as long as none was sent.
    """

    def __init__(self, content: Content, name: str, chunk_bytes: int | None) -> None:
        if chunk_bytes is not None and chunk_bytes < 1:
            raise ValueError("a chunk has at least one byte")
        self.next = self.epoch = self.begun = self.open = self.furthest = self.first_bytes = 0
        self.missing = False
        self.ends: set[int] = set()
        self._content = content
        self._name = name
        self._chunk_bytes = chunk_bytes
        self._fixed: dict[int, int] = {}  # of `room`

    def sizes(self, most: int) -> tuple[int, int]:
        """The largest message, header included, that is of use where `most` is allowed, and the smallest."""
        size = self._content.size
        # More than a whole file needs is not used, so that nobody has to find out whether it would arrive.
        most = min(most, WriteFile(self._name, 0, b"", size).request().size + size + _HEADS)
        return most, min(most, WriteFile(self._name, size, bytes(_LEAST_DATA), size).request().size)

    def cut(self, offset: int, message_bytes: int, done_bytes: int) -> Step | None:
        """The chunk at `offset`; None where there is none that could be told apart from the others."""
        whole = self._content.size
        size = min(self.room(offset, message_bytes), whole - offset)
        if self._chunk_bytes is not None:
            size = min(size, self._chunk_bytes if offset else max(_LEAST_FIRST, self._chunk_bytes))
        if offset == 0:
            self.first_bytes = size
        else:
            while size > 1 and self._is_ambiguous(offset + size, done_bytes):
                size -= 1
            if size == 1 and self.open and self._is_ambiguous(offset + size, done_bytes):
                return None
            self.open += 1
            self.next = offset + size
            self.ends.add(self.next)
        end = offset + size
        command = WriteFile(self._name, offset, self._content.read(offset, size), None if offset else whole)
        again = 0 < end <= self.furthest
        self.furthest = max(self.furthest, end)
        return Step(command, self.epoch, offset=offset, end=end, slow=False, again=again)

    def _is_ambiguous(self, end: int, done_bytes: int) -> bool:
        """Whether the device could also be at `end`, or another place of ours, after a copy of the first chunk."""
        first = self.first_bytes
        if not first:
            return False
        before = end - first
        return before == done_bytes or before in self.ends or end + first in self.ends

    def settle(self, chunk: Step) -> bool:
        """Something has become of `chunk`; whether it is one of this writing."""
        if chunk.open:
            chunk.open = False
            self.open -= 1
        return chunk.epoch >= self.begun

    def arrived(self, offset: int) -> None:
        """All before `offset` is in the file."""
        self.next = max(self.next, offset)
        self.missing = False
        self.ends.discard(offset)
        if len(self.ends) > 2 * self.open + _KEPT_ENDS:
            self.ends = {end for end in self.ends if end > offset}

    def go_back(self, offset: int) -> None:
        self.epoch += 1
        self.next = offset

    def begin_anew(self) -> None:
        """What is on its way is of a writing that nobody goes on with."""
        self.go_back(0)
        self.begun = self.epoch
        self.ends.clear()
        self.missing = False

    def room(self, offset: int, message_bytes: int) -> int:
        """How much data fits a chunk. Raises `MessageTooLarge` if none."""
        size = self._content.size
        # From 32 on, offsets of as many bits take as many bytes: encoding one of them tells for all.
        kind = offset if offset < 32 else -offset.bit_length()
        fixed = self._fixed.get(kind)
        if fixed is None:
            empty = WriteFile(self._name, offset, b"", None if offset else size)
            fixed = self._fixed[kind] = empty.request().size - 1
        room = largest_data(message_bytes, fixed)
        if room < 1 and size > 0:
            raise MessageTooLarge(
                f"a message of {message_bytes} bytes has no room for data beside the path",
                size=WriteFile(self._name, 0, b"\0", size).request().size,
                limit=message_bytes,
                hint="use a shorter path, or raise CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE in the device's firmware",
            )
        return room
