"""How large the messages of a transfer are: as large as device and link take, which not every device tells truly.

A message that is too large for a buffer on the way is lost without a word: a device may have room for 2048 bytes, but
only two line buffers of a UART in front of them, or no reassembly behind Bluetooth LE. So what is larger than always
works has to prove itself, and what gets lost again and again is sent smaller.
"""

from __future__ import annotations

__all__ = ["MessageSize", "rungs"]

# What has worked wherever something did: clients have used these for their smallest chunks for years.
_SMALL = (128, 64)

# Answers to messages of one size before the next larger one is tried; doubled each time that fails.
_GOOD = 32
_MOST_PATIENT = 4096


def rungs(largest: int, safe: int, least: int) -> list[int]:
    """The sizes to try one after the other, the largest first: all of it, one write or line, 128, 64 bytes.

    Arguments:
        safe: what a single write or line carries.
        least: what the transfer needs.
    """
    found = [max(largest, least)]
    for size in (safe, *_SMALL):
        if max(size, least) < found[-1]:
            found.append(max(size, least))
    return found


class MessageSize:
    """The size of the messages of one transfer. Bytes, SMP header included.

    Arguments:
        largest: what device and link take, as far as they tell.
        safe, least: see `rungs`.
        current: what to begin with; default: the largest.
    """

    def __init__(self, largest: int, *, safe: int, least: int, current: int | None = None) -> None:
        self.largest = max(largest, least)
        self.current = self.largest if current is None else max(least, min(current, self.largest))
        self._least = least
        self._rungs = rungs(self.largest, safe, least)
        self._before: int | None = None  # what worked before `current` was tried
        self._answers = 0
        self._enough = _GOOD

    def answered(self) -> bool:
        """A message of this size has arrived. True if it is time to try larger ones: `current` has changed."""
        self._before = None
        self._answers += 1
        if self._answers < self._enough or self.current >= self.largest:
            return False
        self._answers = 0
        self._before = self.current
        self.current = min(self.largest, 2 * self.current)
        return True

    def halve(self) -> bool:
        """Too many messages of this size are damaged on their way. True if `current` has changed."""
        smaller = max(self._least, self.current // 2)
        if smaller >= self.current:
            return False
        self.current, self._before = smaller, None
        self._answers = 0
        return True

    def failed(self) -> bool:
        """Messages of this size get lost. True if there is a smaller one: `current` has changed."""
        smaller = self._before or next((size for size in self._rungs if size < self.current), None)
        if smaller is None:
            return False
        self.current, self._before = smaller, None
        self._answers = 0
        self._enough = min(_MOST_PATIENT, 2 * self._enough)
        return True
