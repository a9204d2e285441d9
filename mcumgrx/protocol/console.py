"""`ConsoleFraming`: SMP messages as lines of base64 on a serial line that also carries a log, a shell, a boot banner.

Used by Zephyr's UART and shell transports, by USB CDC ACM and by MCUboot's serial recovery. One message is ::

    packet = length (2 bytes, big-endian, of what follows) + message + CRC16 of the message (XMODEM)
    first line       06 09  base64 …  0A
    each other line  04 14  base64 …  0A

Every line is decoded on its own by its receivers, so each but the last holds whole groups of four characters, and
padding stands in the last line only. Sources: Zephyr `mgmt/mcumgr/transport/src/serial_util.c`,
`include/zephyr/mgmt/mcumgr/transport/serial.h`, mynewt-mcumgr `transport/smp-console.md`.

Not here: ports, baud rates, and how many lines a device can buffer; those are the transport's.
"""

from __future__ import annotations

import binascii
import re
from enum import Enum, auto
from typing import ClassVar

from ..errors import MessageTooLarge
from .framing import MAX_LENGTH, DatagramFraming, RawMessage
from .header import HEADER_SIZE, REPLY_OPS

__all__ = ["ConsoleFraming"]

_FIRST = b"\x06\x09"
_NEXT = b"\x04\x14"
_MARKER_SIZE = 2
_LENGTH_SIZE = 2
_CRC_SIZE = 2

# A marker, or the half of one that ends a chunk.
_FIND_MARKER = re.compile(rb"\x06\x09|\x04\x14|[\x06\x04]\Z")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*")
_PADDING = re.compile(rb"=*")

# Text that nobody takes is kept up to this size. A reader that comes every few seconds misses nothing even at 1 Mbaud
# of log; one that never comes costs no more than this.
_MAX_TEXT = 256 * 1024


class _State(Enum):
    TEXT = auto()  # outside a frame's line: log, prompt, banner, or nothing
    HALF_MARKER = auto()  # the last byte was 06 or 04, which may be the first half of a marker
    DATA = auto()  # in the base64 characters behind a marker
    PADDING = auto()  # behind the first "="
    LINE_END = auto()  # a frame's line ended with 0D; its 0A belongs to it


class ConsoleFraming:
    """Console framing in both directions; the same bytes give the same result in any cut.

    A receiver takes what all known senders make and follows the rules of Zephyr's own:

    * A marker counts anywhere in a line, because a prompt or half a log line may stand before it. The frame's text goes
      up to the first byte that is not base64; the rest of that line is text again.
    * Text between the lines of a message does not disturb it. A new first line in the middle of a message begins anew.
    * Bad base64, more bytes than the length says, or a wrong CRC drop the message, without an error: a device whose log
      writes into its frames does that, and the request is repeated.
    * Messages whose op is not in `ops` are dropped: a shell may echo our own requests.

    Args:
        line_length: longest line to send, marker and newline included. 127 suits every known receiver, whose buffers
            hold 128 bytes; more is right only for a device that was built with larger ones.
        max_length: longest payload to accept, in bytes.
        ops: bit mask of the ops to accept.
    """

    # Bytes of the receiver's message buffer that length and CRC take.
    OVERHEAD: ClassVar[int] = _LENGTH_SIZE + _CRC_SIZE
    # Longest message that the length field can tell, header included.
    MAX_MESSAGE: ClassVar[int] = 0xFFFF - _CRC_SIZE

    def __init__(self, *, line_length: int = 127, max_length: int = MAX_LENGTH, ops: int = REPLY_OPS) -> None:
        self._characters = (line_length - _MARKER_SIZE - len(b"\n")) // 4 * 4
        if self._characters < 4:
            raise ValueError(f"a line_length of {line_length} holds no data")
        self._max_packet = min(_LENGTH_SIZE + HEADER_SIZE + max_length + _CRC_SIZE, _LENGTH_SIZE + 0xFFFF)
        self._max_data = -(-self._max_packet // 3) * 4
        # What a checked packet holds is cut into messages as a datagram is: by the header, within its bounds.
        self._content = DatagramFraming(ops=ops)
        self._text = bytearray()
        self._discarded = 0
        self._state = _State.TEXT
        self._half = b""
        self._first = False  # whether the line being read begins a message
        self._data = bytearray()  # its base64 characters
        self._packet: bytearray | None = None  # the message being put together, None outside of one
        self._held = 0  # bytes on the wire of the message and line being put together

    @property
    def one_line(self) -> int:
        """Bytes of the largest message that goes into a single line."""
        return self._characters // 4 * 3 - self.OVERHEAD

    @property
    def discarded(self) -> int:
        return self._discarded

    def encode(self, message: bytes, write_bytes: int | None = None) -> list[bytes]:
        """All lines of `message` in one write, so that nothing comes between them.

        Raises `MessageTooLarge` where the length field cannot hold it.
        """
        if len(message) > self.MAX_MESSAGE:
            raise MessageTooLarge(
                f"a message of {len(message)} bytes does not fit console framing, which carries {self.MAX_MESSAGE}",
                size=len(message),
                limit=self.MAX_MESSAGE,
            )
        length = (len(message) + _CRC_SIZE).to_bytes(_LENGTH_SIZE, "big")
        crc = binascii.crc_hqx(message, 0).to_bytes(_CRC_SIZE, "big")
        text = binascii.b2a_base64(length + message + crc, newline=False)
        size = self._characters
        lines = [_NEXT + text[start : start + size] for start in range(0, len(text), size)]
        lines[0] = _FIRST + text[:size]
        frame = b"\n".join(lines) + b"\n"
        if write_bytes is None or len(frame) <= write_bytes:
            return [frame]
        return [frame[start : start + write_bytes] for start in range(0, len(frame), write_bytes)]

    def feed(self, chunk: bytes) -> list[RawMessage]:
        messages: list[RawMessage] = []
        position, end = 0, len(chunk)
        while position < end:
            match self._state:
                case _State.TEXT:
                    position = self._read_text(chunk, position)
                case _State.HALF_MARKER:
                    position = self._read_second_half(chunk, position)
                case _State.DATA | _State.PADDING:
                    position = self._read_data(chunk, position)
                    if position < end:
                        self._end_line(messages)
                        position = self._read_line_end(chunk, position)
                case _State.LINE_END:
                    position = self._read_line_end(chunk, position)
        if len(self._text) > _MAX_TEXT:
            del self._text[:-_MAX_TEXT]
        return messages

    def reset(self) -> None:
        self._drop()
        if self._state is _State.HALF_MARKER:
            self._text += self._half
            self._state = _State.TEXT
        # What still comes of a line that is being read is dropped like a continuation without a beginning.
        self._first = False
        self._data.clear()

    def take_text(self) -> bytes:
        """See `Framing.take_text`. Text is passed on as it comes, a prompt without a newline too."""
        text = bytes(self._text)
        self._text.clear()
        return text

    # -- the steps of feed: each takes bytes from `position` on and returns where it stopped -------------------------

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

    def _read_data(self, chunk: bytes, position: int) -> int:
        start = position
        if self._state is _State.DATA:
            position = _match_end(_BASE64, chunk, position)
            if chunk[position : position + 1] == b"=":
                self._state = _State.PADDING
        if self._state is _State.PADDING:
            position = _match_end(_PADDING, chunk, position)
        # Beyond the largest packet it is rubbish whatever follows: count it, but keep only enough to know that.
        room = self._max_data + 1 - len(self._data)
        self._data += chunk[start : min(position, start + room)]
        self._held += position - start
        return position

    def _end_line(self, messages: list[RawMessage]) -> None:
        """Take the data of a line whose end is reached."""
        if self._first:
            self._packet = bytearray()
        if self._packet is None:
            self._drop()
            return
        try:
            self._packet += binascii.a2b_base64(self._data, strict_mode=True)
        except binascii.Error:
            self._drop()
            return
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
        found = [] if binascii.crc_hqx(checked, 0) else self._content.feed(checked[:-_CRC_SIZE])
        if found:
            messages += found
            self._packet = None
            self._held = 0
        else:
            self._drop()

    def _read_line_end(self, chunk: bytes, position: int) -> int:
        """Take 0A or 0D 0A behind a frame's text; anything else is text, and may hold the next marker."""
        byte = chunk[position : position + 1]
        if byte == b"\r" and self._state is not _State.LINE_END:
            self._state = _State.LINE_END
            return position + 1
        self._state = _State.TEXT
        return position + 1 if byte == b"\n" else position

    def _drop(self) -> None:
        """Give up the message and line being put together."""
        self._discarded += self._held
        self._held = 0
        self._packet = None


def _match_end(pattern: re.Pattern[bytes], chunk: bytes, position: int) -> int:
    match = pattern.match(chunk, position)
    return match.end() if match is not None else position
