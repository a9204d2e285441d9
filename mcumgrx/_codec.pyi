"""Types of the compiled codec; what the names do is said in `mcumgrx._pycodec`."""

from typing import final

__all__ = ["HEADER_SIZE", "Reassembler", "build_message", "pack_header", "unpack_header"]

HEADER_SIZE: int

def pack_header(op: int, version: int, flags: int, length: int, group: int, sequence: int, command: int) -> bytes:
    """The eight header bytes.

    Raises ValueError with the name of the first field that is out of range, TypeError when one is no integer.
    """

def unpack_header(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int, int, int, int, int, int]:
    """(op, version, flags, length, group, sequence, command) of the header at `offset`; reserved bits are ignored.

    Raises ValueError when the offset is negative or fewer than eight bytes follow it.
    """

def build_message(
    op: int,
    version: int,
    flags: int,
    group: int,
    sequence: int,
    command: int,
    payload: bytes | bytearray | memoryview,
) -> bytes:
    """Header and payload in one piece; the length field is that of the payload.

    Raises ValueError as `pack_header` does, and for a payload of more than 65535 bytes.
    """

@final
class Reassembler:
    """Cuts a stream of bytes into messages; any cut of the same bytes gives the same messages.

    `max_length`: longest payload accepted, in bytes, 0..65535. `ops`: bit mask of the op values accepted, 1..255. An
    implausible header costs one byte, then the search goes on. Not for use by several threads at once.
    """

    def __new__(cls, max_length: int, ops: int) -> Reassembler: ...
    @property
    def pending(self) -> int:
        """Bytes held: the beginning of a message that is not complete."""

    @property
    def discarded(self) -> int:
        """Bytes skipped since the beginning, those dropped by `reset` included."""

    def reset(self) -> None:
        """Drop the incomplete message; its bytes count as discarded."""

    def feed(self, chunk: bytes | bytearray | memoryview) -> list[tuple[int, int, int, int, int, int, bytes]]:
        """Take bytes; (op, version, flags, group, sequence, command, payload) of every message now complete.

        Raises TypeError for an object without bytes and BufferError for bytes that are not C-contiguous; both leave
        the state as it was.
        """
