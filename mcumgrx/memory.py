"""What transfers have learned of a device, so that the next one need not find it out again.

Nothing here is ever needed, and nothing here replaces a look at the device's state: it only says what to try first.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Learned"]


@dataclass(slots=True)
class Learned:
    """Of one device. Sizes in bytes, times in seconds; None for what nobody has found out.

    Attributes:
        message_bytes: largest message that has arrived whole.
        refused_bytes: smallest message that got lost again and again.
        erase_s: longest that the answer to an opening chunk has taken.
        alignment: chunks that end elsewhere are cut by the device.
    """

    message_bytes: int | None = None
    refused_bytes: int | None = None
    erase_s: float | None = None
    alignment: int = 1
