"""Readable reference of the compiled codec ``ext/_codec.pyx``.

Here: the SMP header (pack, unpack), one whole message in one allocation, the cutting of datagrams and streams into
messages, the console lines of serial ports, and the one CBOR map that travels often enough to be laid by hand, that of
an image upload. The reading of CBOR comes from `mcumgrx._pycbor`. Not here: other CBOR to be sent (that is cbor2's),
sequence numbers, input or output.

The two modules have the same names, results and exceptions; the tests compare them. Import neither directly: take the
names from `mcumgrx.protocol.codec`, which picks one.

Header, eight bytes, multi-byte fields big-endian (``struct smp_hdr`` of Zephyr's ``mgmt/mcumgr/smp/smp.h``)::

    byte 0  bits 7..5 reserved, 4..3 version (0 = SMP v1, 1 = SMP v2), 2..0 op
    byte 1  flags
    2..3    length of the payload, header not counted
    4..5    group
    byte 6  sequence number
    byte 7  command

Console lines (Zephyr ``mgmt/mcumgr/transport/src/serial_util.c``, ``include/zephyr/mgmt/mcumgr/transport/serial.h``,
``smp-console.md`` of mynewt-mcumgr)::

    packet           length (2 bytes, big-endian, of what follows), messages, CRC16 of the messages (XMODEM)
    first line       06 09  base64 …  0A
    each other line  04 14  base64 …  0A

Image upload, keys in the order of `mcumgrx.messages.standard.UploadChunk`; those in brackets only where given::

    request  {["image": uint], ["len": uint], "off": uint, ["sha": bytes], ["upgrade": true], "data": bytes}
    answer   {["rc": 0], "off": uint}, in either order
"""

from __future__ import annotations

import binascii
import operator
import re
import struct
from enum import Enum, auto
from typing import TYPE_CHECKING, SupportsIndex, final

from mcumgrx._pycbor import decode_item

if TYPE_CHECKING:
    from typing import TypeAlias

    # What the tests feed: anything with a C-contiguous buffer.
    BytesLike: TypeAlias = bytes | bytearray | memoryview
    # op, version, flags, group, sequence, command, payload
    RawMessage: TypeAlias = tuple[int, int, int, int, int, int, bytes]

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

HEADER_SIZE = 8

_HEADER = struct.Struct(">BBHHBB")
_MAX_PAYLOAD = 0xFFFF  # the length field has 16 bits

_FIRST = b"\x06\x09"
_NEXT = b"\x04\x14"
_MARKER_SIZE = 2
_LENGTH_SIZE = 2
_CRC_SIZE = 2
_MAX_CHARACTERS = 87384  # base64 of the longest packet: a line is never longer

# A marker, or the half of one that ends a chunk.
_FIND_MARKER = re.compile(rb"\x06\x09|\x04\x14|[\x06\x04]\Z")
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_PADDING = re.compile(rb"=*")

# CBOR: major types in their place, then the keys as they stand in the map.
_UINT, _BYTES, _MAP = 0x00, 0x40, 0xA0
_HEAD16, _HEAD32 = struct.Struct(">BH"), struct.Struct(">BI")
_IMAGE, _LEN, _OFF, _SHA, _DATA = b"\x65image", b"\x63len", b"\x63off", b"\x63sha", b"\x64data"
_UPGRADE = b"\x67upgrade\xf5"

# {"off": uint}, with "rc": 0 before or behind it or without; definite map, or indefinite as Zephyr sends it.
_RC_ENTRY = rb"\x62rc\x00"
_OFF_ENTRY = rb"\x63off([\x00-\x17]|\x18.|\x19.{2}|\x1a.{4}|\x1b.{8})"
_UPLOAD_ANSWER = re.compile(
    rb"\xbf(?:%(rc)b)?%(off)b\xff|\xbf%(off)b%(rc)b\xff|\xa1%(off)b|\xa2%(rc)b%(off)b|\xa2%(off)b%(rc)b"
    % {b"rc": _RC_ENTRY, b"off": _OFF_ENTRY},
    re.DOTALL,
)


def _field(name: str, value: SupportsIndex, low: int, high: int) -> int:
    """The value as an integer; ValueError names the field when it is out of range."""
    number = operator.index(value)
    if not low <= number <= high:
        raise ValueError(f"{name} must be {low}..{high}, not {number}")
    return number


def _view(data: BytesLike) -> memoryview:
    """A view of the bytes; TypeError when there are none, BufferError when they do not lie in one piece."""
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the bytes are not C-contiguous")
    return view


def pack_header(op: int, version: int, flags: int, length: int, group: int, sequence: int, command: int) -> bytes:
    """The eight header bytes.

    Raises ValueError with the name of the first field that is out of range, TypeError when one is no integer.
    """
    op = _field("op", op, 0, 7)
    version = _field("version", version, 0, 3)
    flags = _field("flags", flags, 0, 0xFF)
    length = _field("length", length, 0, _MAX_PAYLOAD)
    group = _field("group", group, 0, 0xFFFF)
    sequence = _field("sequence", sequence, 0, 0xFF)
    command = _field("command", command, 0, 0xFF)
    return _HEADER.pack(version << 3 | op, flags, length, group, sequence, command)


def unpack_header(data: BytesLike, offset: int = 0) -> tuple[int, int, int, int, int, int, int]:
    """(op, version, flags, length, group, sequence, command) of the header at `offset`.

    The reserved bits of byte 0 are ignored, as the protocol asks of a receiver; so the values always pack again.
    Raises ValueError when the offset is negative or fewer than eight bytes follow it.
    """
    view = _view(data)
    start = operator.index(offset)
    if start < 0 or view.nbytes - start < HEADER_SIZE:
        raise ValueError(f"no {HEADER_SIZE} header bytes at offset {start} of {view.nbytes} bytes")
    first, flags, length, group, sequence, command = _HEADER.unpack_from(view, start)
    return first & 7, first >> 3 & 3, flags, length, group, sequence, command


def build_message(
    op: int, version: int, flags: int, group: int, sequence: int, command: int, payload: BytesLike
) -> bytes:
    """Header and payload in one piece; the length field is that of the payload.

    Raises ValueError as `pack_header` does, and for a payload of more than 65535 bytes.
    """
    header = pack_header(op, version, flags, 0, group, sequence, command)
    view = _view(payload)
    if view.nbytes > _MAX_PAYLOAD:
        raise ValueError(f"payload must be 0..{_MAX_PAYLOAD} bytes, not {view.nbytes}")
    return b"".join((header[:2], view.nbytes.to_bytes(2, "big"), header[4:], view))


def split_messages(data: BytesLike, ops: int) -> tuple[list[RawMessage], int]:
    """The whole messages at the beginning of a datagram, as `Reassembler.feed` gives them, and how many bytes are left.

    It ends at the first message that is not whole or whose op is not in the bit mask `ops`. The reserved bits of
    byte 0 are ignored.
    """
    datagram = bytes(_view(data))
    ops = _field("ops", ops, 1, 0xFF)
    messages: list[RawMessage] = []
    start = 0
    while len(datagram) - start >= HEADER_SIZE:
        op, version, flags, length, group, sequence, command = unpack_header(datagram, start)
        end = start + HEADER_SIZE + length
        if end > len(datagram) or not ops >> op & 1:
            break
        messages.append((op, version, flags, group, sequence, command, datagram[start + HEADER_SIZE : end]))
        start = end
    return messages, len(datagram) - start


@final
class Reassembler:
    """Cuts a stream of bytes into messages; any cut of the same bytes gives the same messages.

    `max_length` is the longest payload accepted, in bytes. `ops` is a bit mask of the op values accepted: a client
    passes ``1 << 1 | 1 << 3`` (the responses), a server ``1 << 0 | 1 << 2`` (the requests).

    A header is implausible when a reserved bit of byte 0 is set, its op is not in `ops` or its length is above
    `max_length`. Then one byte is skipped and the search goes on at the next, each rule as soon as its byte is there.
    So no more than one message that may still become complete is held: 8 + `max_length` bytes. Garbage never raises.

    Not for use by several threads at once.
    """

    __slots__ = ("_buffer", "_discarded", "_max_length", "_ops")

    def __init__(self, max_length: int, ops: int) -> None:
        """Raises ValueError when `max_length` is not 0..65535 or `ops` is not 1..255."""
        self._max_length = _field("max_length", max_length, 0, _MAX_PAYLOAD)
        self._ops = _field("ops", ops, 1, 0xFF)
        self._buffer = bytearray()
        self._discarded = 0

    @property
    def pending(self) -> int:
        """Bytes held: the beginning of a message that is not complete."""
        return len(self._buffer)

    @property
    def discarded(self) -> int:
        """Bytes skipped since the beginning, those dropped by `reset` included."""
        return self._discarded

    def reset(self) -> None:
        """Drop the incomplete message; its bytes count as discarded."""
        self._discarded += len(self._buffer)
        self._buffer.clear()

    def feed(self, chunk: BytesLike) -> list[RawMessage]:
        """Take bytes; (op, version, flags, group, sequence, command, payload) of every message now complete.

        Raises TypeError for an object without bytes and BufferError for bytes that are not C-contiguous; both leave
        the state as it was.
        """
        buffer = self._buffer
        buffer += _view(chunk)
        messages = []
        start = skipped = 0
        while start < len(buffer):
            first = buffer[start]
            if first >> 5 or not self._ops >> (first & 7) & 1:
                start += 1
                skipped += 1
                continue
            if start + 4 > len(buffer):
                break  # the length is not there yet
            length = buffer[start + 2] << 8 | buffer[start + 3]
            if length > self._max_length:
                start += 1
                skipped += 1
                continue
            end = start + HEADER_SIZE + length
            if end > len(buffer):
                break
            _, flags, _, group, sequence, command = _HEADER.unpack_from(buffer, start)
            payload = bytes(buffer[start + HEADER_SIZE : end])
            messages.append((first & 7, first >> 3, flags, group, sequence, command, payload))
            start = end
        del buffer[:start]
        self._discarded += skipped
        return messages


# --- console lines --------------------------------------------------------------------------------------------------


def build_console_frame(message: BytesLike, characters: int) -> bytes:
    """All console lines of `message`, each but the last with `characters` of base64: whole groups of four.

    Every line is decoded on its own by its receivers, so padding stands in the last one only. Raises ValueError for
    `characters` that are not 4..87384 or no multiple of four, and for a message of more than 65533 bytes.
    """
    characters = _field("characters", characters, 4, _MAX_CHARACTERS)
    if characters % 4:
        raise ValueError(f"characters must be a multiple of four, not {characters}")
    view = _view(message)
    if view.nbytes > 0xFFFF - _CRC_SIZE:
        raise ValueError(f"message must be 0..{0xFFFF - _CRC_SIZE} bytes, not {view.nbytes}")
    length = (view.nbytes + _CRC_SIZE).to_bytes(_LENGTH_SIZE, "big")
    crc = binascii.crc_hqx(view, 0).to_bytes(_CRC_SIZE, "big")
    text = binascii.b2a_base64(b"".join((length, view, crc)), newline=False)
    lines = [_NEXT + text[start : start + characters] for start in range(0, len(text), characters)]
    lines[0] = _FIRST + text[:characters]
    lines.append(b"")
    return b"\n".join(lines)


class _State(Enum):
    TEXT = auto()  # outside a frame's line: log, prompt, banner, or nothing
    HALF_MARKER = auto()  # the last byte was 06 or 04, which may be the first half of a marker
    DATA = auto()  # in the base64 characters behind a marker
    PADDING = auto()  # behind the first "="
    DONE = auto()  # the message is complete; the end of its line belongs to it
    LINE_END = auto()  # a frame's line ended with 0D; its 0A belongs to it


@final
class ConsoleDecoder:
    """Takes console lines and the text around them apart; any cut of the same bytes gives the same result.

    It takes what all known senders make and follows the rules of Zephyr's own receiver:

    * A marker counts anywhere in a line, because a prompt or half a log line may stand before it. The frame's text goes
      up to the first byte that is not base64; the rest of that line is text again.
    * Text between the lines of a message does not disturb it. A new first line in the middle of a message begins anew.
    * A message is complete as soon as its length and its CRC are, whether or not its last line ends: some devices leave
      the 0A out. What follows on that line is text.
    * Bad base64, more bytes than the length says, or a wrong CRC drop the message, without an error: a device whose log
      writes into its frames does that, and the request is repeated.
    * A packet is cut as `split_messages` does it; one without any message of `ops` is dropped: a shell may echo our own
      requests.

    `max_length` is the longest payload accepted, `max_text` how much text is kept that nobody takes, both in bytes;
    `ops` a bit mask of op values as for `Reassembler`. No more is held than that text and one packet with its lines:
    under 4 x (`max_length` + 16) bytes. Garbage never raises.

    Not for use by several threads at once.
    """

    __slots__ = (
        "_broken",
        "_data",
        "_discarded",
        "_first",
        "_garbled",
        "_half",
        "_held",
        "_max_data",
        "_max_packet",
        "_max_text",
        "_ops",
        "_packet",
        "_state",
        "_text",
    )

    def __init__(self, max_length: int, ops: int, max_text: int) -> None:
        """Raises ValueError when `max_length` is not 0..65535, `ops` not 1..255 or `max_text` not 0..2**31 - 1."""
        max_length = _field("max_length", max_length, 0, _MAX_PAYLOAD)
        self._ops = _field("ops", ops, 1, 0xFF)
        self._max_text = _field("max_text", max_text, 0, 0x7FFFFFFF)
        self._max_packet = min(_LENGTH_SIZE + HEADER_SIZE + max_length + _CRC_SIZE, _LENGTH_SIZE + 0xFFFF)
        self._max_data = -(-self._max_packet // 3) * 4
        self._text = bytearray()
        self._discarded = 0
        self._state = _State.TEXT
        self._half = b""
        self._first = False  # whether the line being read begins a message
        self._data = bytearray()  # its base64 characters
        self._packet: bytearray | None = None  # the message being put together, None outside of one
        self._held = 0  # bytes on the wire of the message and line being put together
        self._garbled = 0
        self._broken = False  # whether the message being put together counts as garbled already

    @property
    def pending(self) -> int:
        """Bytes of lines, markers included, whose message is not complete."""
        return self._held

    @property
    def discarded(self) -> int:
        """Bytes of lines given up since the beginning, those dropped by `reset` included."""
        return self._discarded

    @property
    def garbled(self) -> int:
        """Messages since the beginning of which no more than the beginning was as it was sent.

        Each was sent, whatever it said. One that is cut short counts as soon as that shows; should it be completed all
        the same, because only the end of a line was damaged, it has counted.
        """
        return self._garbled

    def reset(self) -> None:
        """Drop the incomplete message and the rest of its line; half a marker becomes text."""
        self._give_up()
        if self._state is _State.HALF_MARKER:
            self._text += self._half
            self._state = _State.TEXT
        # What still comes of a line that is being read is dropped like a continuation without a beginning.
        self._first = False
        self._data.clear()

    def take_text(self) -> bytes:
        """The text since the last call, as it came: a prompt without a newline too."""
        text = bytes(self._text)
        self._text.clear()
        return text

    def feed(self, chunk: BytesLike) -> list[RawMessage]:
        """Take bytes; (op, version, flags, group, sequence, command, payload) of every message now complete.

        Raises TypeError for an object without bytes and BufferError for bytes that are not C-contiguous; both leave
        the state as it was.
        """
        data = bytes(_view(chunk))
        messages: list[RawMessage] = []
        position, end = 0, len(data)
        while position < end:
            match self._state:
                case _State.TEXT:
                    position = self._read_text(data, position)
                case _State.HALF_MARKER:
                    position = self._read_second_half(data, position)
                case _State.DATA | _State.PADDING:
                    position = self._read_data(data, position, messages)
                    if position < end and self._in_line:
                        self._end_line(messages)
                        if self._packet is not None and data[position] not in b"\r\n":
                            self._count_garbled()
                        position = self._read_line_end(data, position)
                case _State.DONE | _State.LINE_END:
                    position = self._read_line_end(data, position)
        excess = len(self._text) - self._max_text
        if excess > 0:
            del self._text[:excess]
        return messages

    @property
    def _in_line(self) -> bool:
        return self._state in (_State.DATA, _State.PADDING)

    # The steps of feed: each takes bytes from `position` on and returns where it stopped.

    def _read_text(self, chunk: bytes, position: int) -> int:
        found = _FIND_MARKER.search(chunk, position)
        if found is None:
            self._text += chunk[position:]
            return len(chunk)
        self._text += chunk[position : found.start()]
        if len(found[0]) < _MARKER_SIZE:
            self._half = found[0]
            self._state = _State.HALF_MARKER
        else:
            self._begin_line(found[0])
        return found.end()

    def _read_second_half(self, chunk: bytes, position: int) -> int:
        marker = self._half + chunk[position : position + 1]
        if marker in (_FIRST, _NEXT):
            self._begin_line(marker)
            return position + 1
        self._text += self._half
        self._state = _State.TEXT
        return position

    def _begin_line(self, marker: bytes) -> None:
        self._first = marker == _FIRST
        if self._first:
            self._drop()
        self._held += _MARKER_SIZE
        self._data.clear()
        self._state = _State.DATA

    def _read_data(self, chunk: bytes, position: int, messages: list[RawMessage]) -> int:
        start = position
        if self._state is _State.DATA:
            position = _base64_end(chunk, position)
            if chunk[position : position + 1] == b"=":
                self._state = _State.PADDING
        if self._state is _State.PADDING:
            found = _PADDING.match(chunk, position)
            assert found is not None
            position = found.end()
        # Beyond the largest packet it is rubbish whatever follows: count it, but keep only enough to know that.
        before = len(self._data)
        self._data += chunk[start : min(position, start + self._max_data + 1 - before)]
        characters = self._complete(messages)
        if characters:
            self._held = 0
            self._state = _State.DONE
            return start + characters - before
        self._held += position - start
        return position

    def _complete(self, messages: list[RawMessage]) -> int:
        """Take the message if all of it is there; how many characters of this line it has, else 0.

        What is wrong with it is found out at the end of the line.
        """
        packet = b"" if self._first else self._packet
        if packet is None or len(self._data) < 4:
            return 0
        head = packet[:_LENGTH_SIZE] + _decoded(self._data[:4])
        if len(head) < _LENGTH_SIZE:
            return 0
        total = _LENGTH_SIZE + int.from_bytes(head[:_LENGTH_SIZE], "big")
        characters = -(-(total - len(packet)) // 3) * 4
        if not 0 < characters <= len(self._data) or total > self._max_packet:
            return 0
        whole = bytes(packet) + _decoded(self._data[:characters])
        if len(whole) != total:
            return 0
        if binascii.crc_hqx(whole[_LENGTH_SIZE:], 0):
            return 0
        found = split_messages(whole[_LENGTH_SIZE:-_CRC_SIZE], self._ops)[0]
        if not found:
            return 0
        messages += found
        self._packet = None
        self._broken = False
        return characters

    def _end_line(self, messages: list[RawMessage]) -> None:
        """Take the data of a line whose end is reached."""
        if self._first:
            self._packet = bytearray()
        # Whole groups, of which the last may end in one or two "=": what that leaves, every a2b_base64 takes alike.
        if self._packet is None or len(self._data) % 4 or self._data.endswith(b"==="):
            self._drop()
            return
        self._packet += binascii.a2b_base64(self._data)
        if len(self._packet) > self._max_packet:
            self._drop()
        elif len(self._packet) >= _LENGTH_SIZE:
            length = int.from_bytes(self._packet[:_LENGTH_SIZE], "big")
            missing = _LENGTH_SIZE + length - len(self._packet)
            if missing < 0:
                self._drop()
            elif missing == 0:
                self._end_message(messages)

    def _end_message(self, messages: list[RawMessage]) -> None:
        assert self._packet is not None
        checked = bytes(self._packet[_LENGTH_SIZE:])
        if binascii.crc_hqx(checked, 0):
            self._drop()
        elif found := split_messages(checked[:-_CRC_SIZE], self._ops)[0]:
            messages += found
            self._packet = None
            self._broken = False
            self._held = 0
        else:
            self._give_up()

    def _read_line_end(self, chunk: bytes, position: int) -> int:
        """Take 0A or 0D 0A behind a frame's text; anything else is text, and may hold the next marker."""
        byte = chunk[position : position + 1]
        if byte == b"\r" and self._state is not _State.LINE_END:
            self._state = _State.LINE_END
            return position + 1
        self._state = _State.TEXT
        return position + 1 if byte == b"\n" else position

    def _drop(self) -> None:
        """Give up the message and line being put together, because they are not as they were sent."""
        if self._packet is not None:
            self._count_garbled()
        self._give_up()

    def _give_up(self) -> None:
        self._discarded += self._held
        self._held = 0
        self._packet = None
        self._broken = False

    def _count_garbled(self) -> None:
        self._garbled += not self._broken
        self._broken = True


def _decoded(characters: bytes | bytearray) -> bytes:
    """Whole groups of base64; nothing where they are none."""
    if len(characters) % 4 or characters.endswith(b"===") or b"=" in characters[:-2]:
        return b""
    return binascii.a2b_base64(characters)


def _base64_end(chunk: bytes, position: int) -> int:
    """Where the base64 characters from `position` on end."""
    while position < len(chunk):
        # About a line at a time: the rest of the chunk may be long, and is looked at once for each marker in it.
        part = chunk[position : position + 128]
        other = part.translate(None, _BASE64)  # twenty times as fast as a regular expression
        if other:
            return position + part.index(other[0])
        position += len(part)
    return position


# --- image upload ---------------------------------------------------------------------------------------------------


def build_upload(
    offset: int,
    data: BytesLike,
    length: int | None = None,
    image: int | None = None,
    sha: BytesLike | None = None,
    upgrade: bool = False,
) -> bytes | None:
    """The CBOR map of one chunk of an image, as an encoder of definite lengths and shortest heads lays it.

    None for what the template does not hold, which is left to such an encoder: numbers that are no plain integers or
    not 0..2**32 - 1, and strings of more than 65535 bytes.
    """
    view = _view(data)
    hashed = _view(b"" if sha is None else sha)
    count = 2
    front = back = b""
    try:
        if image is not None:
            front = _IMAGE + _head(_UINT, image)
            count += 1
        if length is not None:
            front += _LEN + _head(_UINT, length)
            count += 1
        front += _OFF + _head(_UINT, offset)
        if sha is not None:
            back = b"".join((_SHA, _head(_BYTES, hashed.nbytes, 0xFFFF), hashed))
            count += 1
        if upgrade:
            back += _UPGRADE
            count += 1
        return b"".join((bytes((_MAP | count,)), front, back, _DATA, _head(_BYTES, view.nbytes, 0xFFFF), view))
    except _NotHeld:
        return None


def read_upload_offset(payload: BytesLike) -> int | None:
    """The `off` of the usual answer to a chunk: one map with `off` alone or beside an `rc` of 0, and nothing behind it.

    None for any other answer: an error, `match`, keys of a vendor, no CBOR at all. That is left to a full decoder.
    """
    found = _UPLOAD_ANSWER.fullmatch(bytes(_view(payload)))
    if found is None:
        return None
    assert found.lastindex is not None
    number = found[found.lastindex]
    return number[0] if len(number) == 1 else int.from_bytes(number[1:], "big")


class _NotHeld(Exception):
    """The template has no room for this."""


def _head(major: int, number: int, largest: int = 0xFFFFFFFF) -> bytes:
    """First bytes of a CBOR item: its major type in bits 7..5, and its shortest argument (RFC 8949, section 3)."""
    if type(number) is not int or not 0 <= number <= largest:
        raise _NotHeld
    if number < 24:
        return bytes((major | number,))
    if number < 0x100:
        return bytes((major | 24, number))
    if number < 0x10000:
        return _HEAD16.pack(major | 25, number)
    return _HEAD32.pack(major | 26, number)
