"""`ByteStream`: what a link of bytes does for `UartTransport`, be it a serial port or a socket."""

from __future__ import annotations

from typing import Protocol

MAX_READ = 16 * 1024
"""Bytes that `ByteStream.read` returns at most: far above any answer, and soon digested if it is noise."""


class StreamEnded(Exception):
    """The stream is closed; `__cause__` is what closed it, None when it was `close`."""


class ByteStream(Protocol):
    """One opening of one link, thrown away when it has ended."""

    async def read(self) -> bytes:
        """What has arrived, 1 to `MAX_READ` bytes. Raises `StreamEnded` after all that came before the end."""

    async def write(self, data: bytes, timeout_s: float) -> None:
        """Hand `data` to the operating system, in one piece.

        Raises `StreamEnded`, or `TimeoutError` when it was not taken in `timeout_s` seconds; how much was is not known.
        """

    def offer(self, data: bytes) -> bool:
        """`write` without waiting; false if nothing was taken, because it would have to wait.

        What the system has not taken of it follows by itself, in front of what is written later. Raises `StreamEnded`.
        """

    async def close(self, failure: Exception | None = None) -> None:
        """Close it, because of `failure` if one is given; never raises."""
