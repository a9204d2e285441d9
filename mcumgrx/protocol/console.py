"""`ConsoleFraming`: SMP messages as lines of base64 on a serial line that also carries a log, a shell, a boot banner.

Used by Zephyr's UART and shell transports, by USB CDC ACM and by MCUboot's serial recovery.

Not here: the lines themselves, which the codec lays and reads (described in `mcumgrx._pycodec`); ports, baud rates, and
how many lines a device can buffer, which are the transport's.
"""

from __future__ import annotations

from typing import ClassVar

from ..errors import MessageTooLarge
from .codec import ConsoleDecoder, build_console_frame
from .framing import MAX_LENGTH, RawMessage
from .header import REPLY_OPS

_AROUND = len(b"\x06\x09") + len(b"\n")  # what a line holds beside its characters
_MAX_CHARACTERS = 87384  # the largest message in a single line

# Text that nobody takes is kept up to this size. A reader that comes every few seconds misses nothing even at 1 Mbaud
# of log; one that never comes costs no more than this.
_MAX_TEXT = 256 * 1024


class ConsoleFraming:
    """Console framing in both directions; the same bytes give the same result in any cut.

    What is taken for a frame and what for text is said at `mcumgrx._pycodec.ConsoleDecoder`.

    Args:
        line_length: longest line to send, marker and newline included. 127 suits every known receiver, whose buffers
            hold 128 bytes; more is right only for a device that was built with larger ones.
        max_length: longest payload to accept, in bytes.
        ops: bit mask of the ops to accept.
    """

    # Bytes of the receiver's message buffer that length and CRC take.
    OVERHEAD: ClassVar[int] = 4
    # Longest message that the length field can tell, header included.
    MAX_MESSAGE: ClassVar[int] = 0xFFFF - 2

    def __init__(self, *, line_length: int = 127, max_length: int = MAX_LENGTH, ops: int = REPLY_OPS) -> None:
        self._characters = min((line_length - _AROUND) // 4 * 4, _MAX_CHARACTERS)
        if self._characters < 4:
            raise ValueError(f"a line_length of {line_length} holds no data")
        self._decoder = ConsoleDecoder(max_length, ops, _MAX_TEXT)

    @property
    def one_line(self) -> int:
        """Bytes of the largest message that goes into a single line."""
        return self._characters // 4 * 3 - self.OVERHEAD

    @property
    def discarded(self) -> int:
        return self._decoder.discarded

    @property
    def garbled(self) -> int:
        """See `Framing.garbled`."""
        return self._decoder.garbled

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
        frame = build_console_frame(message, self._characters)
        if write_bytes is None or len(frame) <= write_bytes:
            return [frame]
        return [frame[start : start + write_bytes] for start in range(0, len(frame), write_bytes)]

    def feed(self, chunk: bytes) -> list[RawMessage]:
        return self._decoder.feed(chunk)

    def reset(self) -> None:
        self._decoder.reset()

    def take_text(self) -> bytes:
        """See `Framing.take_text`. Text is passed on as it comes, a prompt without a newline too."""
        return self._decoder.take_text()
