"""What transfers have learned of a device, so that the next one need not find it out again.

Nothing here is ever needed, and nothing here replaces a look at the device's state: it only says what to try first.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Learned"]


@dataclass(slots=True)
class Learned:
    """Of one device, over one kind of link. Sizes in bytes, times in seconds; None for what nobody has found out.

    Attributes:
        message_bytes: largest message that has arrived whole.
        refused_bytes: smallest message that got lost again and again.
        room_bytes: largest message that device and link said they take, when these two were found.
        erase_s: longest that the answer to an opening chunk has taken.
        alignment: chunks that end elsewhere are cut by the device.
    """

    message_bytes: int | None = None
    refused_bytes: int | None = None
    room_bytes: int | None = None
    erase_s: float | None = None
    alignment: int = 1

    def meets(self, room_bytes: int) -> None:
        """Device and link say now that they take so much: where that is news, what was found of sizes is forgotten."""
        if self.room_bytes != room_bytes:
            self.message_bytes = self.refused_bytes = None
            self.room_bytes = room_bytes

    def refuses(self, size: int) -> bool:
        """Whether messages of `size` bytes are known to get lost."""
        # One that has arrived since says more than one that was lost.
        return self.refused_bytes is not None and (self.message_bytes or 0) < self.refused_bytes <= size
