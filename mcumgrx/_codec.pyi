"""Types of the compiled codec; what the names do is said in `mcumgrx._pycodec`."""

from typing import TypeAlias, final

_BytesLike: TypeAlias = bytes | bytearray | memoryview
# op, version, flags, group, sequence, command, payload
_RawMessage: TypeAlias = tuple[int, int, int, int, int, int, bytes]

__all__ = [
    "HEADER_SIZE",
    "ConsoleDecoder",
    "Reassembler",
    "build_console_frame",
    "build_message",
    "build_upload",
    "decode_item",
    "pack_header",
    "read_upload_offset",
    "split_messages",
    "unpack_header",
]

HEADER_SIZE: int

def pack_header(op: int, version: int, flags: int, length: int, group: int, sequence: int, command: int) -> bytes:
    """The eight header bytes.

    Raises ValueError with the name of the first field that is out of range, TypeError when one is no integer.
    """

def unpack_header(data: _BytesLike, offset: int = 0) -> tuple[int, int, int, int, int, int, int]:
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
    payload: _BytesLike,
) -> bytes:
    """Header and payload in one piece; the length field is that of the payload.

    Raises ValueError as `pack_header` does, and for a payload of more than 65535 bytes.
    """

def split_messages(data: _BytesLike, ops: int) -> tuple[list[_RawMessage], int]:
    """The whole messages at the beginning of a datagram, as `Reassembler.feed` gives them, and how many bytes are left.

    It ends at the first message that is not whole or whose op is not in the bit mask `ops`.
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

    def feed(self, chunk: _BytesLike) -> list[_RawMessage]:
        """Take bytes; (op, version, flags, group, sequence, command, payload) of every message now complete.

        Raises TypeError for an object without bytes and BufferError for bytes that are not C-contiguous; both leave
        the state as it was.
        """

def build_console_frame(message: _BytesLike, characters: int) -> bytes:
    """All console lines of `message`, each but the last with `characters` of base64: whole groups of four.

    Raises ValueError for `characters` that are not 4..87384 or no multiple of four, and for a message of more than
    65533 bytes.
    """

@final
class ConsoleDecoder:
    """Takes console lines and the text around them apart; any cut of the same bytes gives the same result.

    `max_length`: longest payload accepted, 0..65535. `ops`: bit mask of the op values accepted, 1..255. `max_text`: how
    much text is kept that nobody takes, in bytes. Not for use by several threads at once.
    """

    def __new__(cls, max_length: int, ops: int, max_text: int) -> ConsoleDecoder: ...
    @property
    def pending(self) -> int:
        """Bytes of lines, markers included, whose message is not complete."""

    @property
    def discarded(self) -> int:
        """Bytes of lines given up since the beginning, those dropped by `reset` included."""

    @property
    def garbled(self) -> int:
        """Messages since the beginning of which no more than the beginning was as it was sent."""

    def reset(self) -> None:
        """Drop the incomplete message and the rest of its line; half a marker becomes text."""

    def take_text(self) -> bytes:
        """The text since the last call, as it came: a prompt without a newline too."""

    def feed(self, chunk: _BytesLike) -> list[_RawMessage]:
        """Take bytes; (op, version, flags, group, sequence, command, payload) of every message now complete.

        Raises TypeError for an object without bytes and BufferError for bytes that are not C-contiguous; both leave
        the state as it was.
        """

def build_upload(
    offset: int,
    data: _BytesLike,
    length: int | None = None,
    image: int | None = None,
    sha: _BytesLike | None = None,
    upgrade: bool = False,
) -> bytes | None:
    """The CBOR map of one chunk of an image, as an encoder of definite lengths and shortest heads lays it.

    None for numbers that are no plain integers or not 0..2**32 - 1, and for strings of more than 65535 bytes.
    """

def read_upload_offset(payload: _BytesLike) -> int | None:
    """The `off` of the usual answer to a chunk: one map with `off` alone or beside an `rc` of 0, and nothing behind it.

    None for any other answer, which is left to a full decoder.
    """

def decode_item(data: _BytesLike, max_depth: int) -> object:
    """The first CBOR item of `data`, of the part of CBOR that SMP has: no tags, no more than `max_depth` levels.

    Raises ValueError for anything else; its text goes on from "it".
    """
