"""What the line of a UART does with bytes, without the line and without a clock.

`Wire` knows when what was handed over will have left, `Noise` when more arrives than any device has to say.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

log = logging.getLogger("mcumgrx.uart")

# A start, eight data bits and a stop.
_BITS_PER_BYTE = 10

# An answer that comes when, at the baud rate, half of its request cannot have left, comes over no UART of that speed.
_TOO_EARLY = 0.5

# Of messages that were never answered, so many are remembered; an answer may still come.
_MOST_SENT = 64

# What arrives faster than this for long is no answer of a device: 12 Mbaud and USB full speed bring half as much. It is
# left in the system's buffers, which drop it, so that a stream of noise leaves the processor to others.
_MAX_BYTES_PER_S = 2_000_000
_BURST_BYTES = 256 * 1024

# So many bytes at once, one time after the other for so long, are no answers either: those leave gaps.
_CROWD = 2048
_CROWDED_S = 0.05


class _Sent(NamedTuple):
    writes: Sequence[bytes]
    size: int
    end: int  # of all bytes that were sent, up to it


class Wire:
    """A line with so many baud, by what is said of it; None where nothing is. Times are those of the loop, in seconds.

    Attributes:
        baud: None from when answers have come earlier than it allows: then it is only a number.
        ends_at: when the last byte handed over will have left.
    """

    def __init__(self, baud: int | None) -> None:
        self.baud = baud
        self.ends_at = 0.0
        self._told = baud
        self._bytes = 0
        self._sent: deque[_Sent] = deque(maxlen=_MOST_SENT)

    def opened(self) -> None:
        self.baud, self.ends_at = self._told, 0.0
        self._sent.clear()

    def begins(self, writes: Sequence[bytes], size: int) -> None:
        """A message goes out, as so many bytes."""
        self._bytes += size
        self._sent.append(_Sent(writes, size, self._bytes))

    def takes(self, size: int, now: float) -> None:
        """So many bytes are handed over."""
        self.ends_at = now if self.baud is None else max(self.ends_at, now) + self._seconds(size)

    def left_s(self, now: float) -> float:
        """Until all of them have left."""
        return max(0.0, self.ends_at - now)

    def answered(self, writes: Sequence[bytes], now: float) -> bool:
        """All has left up to this message, and whether that is the last one."""
        sent = next((sent for sent in self._sent if sent.writes is writes), None)
        if sent is None:
            return False
        self._sent.remove(sent)
        behind = self._bytes - sent.end
        if self.baud is not None and (early_s := self.ends_at - self._seconds(behind) - now) > 0:
            self.ends_at -= early_s
            if early_s > _TOO_EARLY * self._seconds(sent.size):
                # USB CDC ACM and pseudo-terminals take any baud rate and keep to none.
                log.debug("the line is faster than %d baud", self.baud)
                self.baud, self.ends_at = None, now
        return behind == 0

    def _seconds(self, size: int) -> float:
        return 0.0 if self.baud is None else size * _BITS_PER_BYTE / self.baud


class Noise:
    """Whether what arrives may be answers."""

    def __init__(self) -> None:
        self._allowance = float(_BURST_BYTES)
        self._asked_at = 0.0  # when it was last to be read, and when something was
        self._read_at = 0.0
        self._crowded_since: float | None = None  # since then each read has brought much

    def pause_s(self, now: float) -> float:
        """For how long nothing is to be read, before the next time."""
        self._allowance = min(float(_BURST_BYTES), self._allowance + (now - self._asked_at) * _MAX_BYTES_PER_S)
        self._asked_at = now
        pause_s = -self._allowance / _MAX_BYTES_PER_S
        if self._crowded_since is not None and now - self._crowded_since > _CROWDED_S:
            # It does not end. As long a pause as it took to digest leaves half of the processor to others.
            pause_s = max(pause_s, now - self._read_at)
        return pause_s

    def brought(self, size: int, now: float) -> None:
        """So many bytes were read."""
        self._allowance -= size
        self._read_at = now
        if size < _CROWD:
            self._crowded_since = None
        elif self._crowded_since is None:
            self._crowded_since = now
