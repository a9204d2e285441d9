"""`LoopPort`: a pyserial port that the event loop watches itself, on systems where a terminal can be polled (Linux).

What a thread in between would cost is two changes of context for each message, ten times as much as the system calls.
Only opening and closing are left to a thread: both may wait for the hardware, closing for half a minute.

Knows pyserial and asyncio; addresses, framing and the errors that users see are the transport's.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress

import serial

from .stream import MAX_READ, StreamEnded

# Bytes that nobody has taken yet; beyond this the rest is left to the operating system, which drops what its own buffer
# does not hold.
_MAX_UNREAD = 64 * 1024


class LoopPort:
    """One opening of one port. Used from one event loop; thrown away when it has ended.

    A port that fails is closed at once, whether or not anybody asks: while it is held, the same device gets another
    name.
    """

    def __init__(self, port: serial.Serial) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._fd = -1
        self._opened: asyncio.Future[Exception | None] = self._loop.create_future()
        self._ended: asyncio.Future[Exception | None] = self._loop.create_future()
        self._deciding = threading.Lock()  # held to settle whose the port is that has just been opened
        self._handed_over = False  # by the opening thread, which then no longer closes it
        self._abandoned = False  # nobody waits for the opening any more
        self._closing = False
        self._failure: Exception | None = None  # why it ends, where that was not asked for
        self._received = bytearray()
        self._reading = False
        self._arrival: asyncio.Future[None] | None = None  # of bytes, or of the end
        self._unsent = bytearray()
        self._emptied: asyncio.Future[None] | None = None  # nothing is unsent any more

    # -- opening and closing -------------------------------------------------------------------------------------------

    async def open(self, timeout_s: float) -> None:
        """Open the port. Raises whatever pyserial raises, or `TimeoutError` after `timeout_s` seconds."""
        self._in_thread("opener", self._open)
        try:
            async with asyncio.timeout(timeout_s):
                error = await asyncio.shield(self._opened)
        except (TimeoutError, asyncio.CancelledError):
            with self._deciding:
                self._abandoned = True
                handed_over = self._handed_over
            if handed_over:
                self._begin_closing()
            raise
        if error is not None:
            raise error
        self._fd = self._port.fileno()
        self._watch(True)

    async def close(self, failure: Exception | None = None) -> None:
        """Close the port, because of `failure` if one is given, and wait until that is done."""
        self._failure = self._failure or failure
        self._begin_closing()
        await asyncio.wait({self._ended})

    def _begin_closing(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._fd >= 0:
            # Before the number can be that of another file.
            self._watch(False)
            self._loop.remove_writer(self._fd)
            self._fd = -1
        self._in_thread("closer", self._close)

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._begin_closing()

    def _end(self) -> None:
        self._ended.set_result(self._failure)
        for waiting in (self._arrival, self._emptied):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def _raise_if_ended(self) -> None:
        if self._closing:
            raise StreamEnded from self._failure

    # -- in threads ----------------------------------------------------------------------------------------------------

    def _in_thread(self, what: str, run: Callable[[], None]) -> None:
        threading.Thread(target=run, name=f"serial {what} {self._port.port}", daemon=True).start()

    def _open(self) -> None:
        failure: Exception | None = None
        try:
            self._port.open()
        except Exception as error:  # OSError, ValueError, termios.error, …: the caller sorts them
            failure = error
        with self._deciding:
            self._handed_over = failure is None and not self._abandoned and self._post(self._tell_opened, None)
        if failure is not None:
            self._post(self._tell_opened, failure)
        elif not self._handed_over:
            self._port.close()

    def _tell_opened(self, error: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_result(error)

    def _close(self) -> None:
        with suppress(Exception):  # the port may be past every call
            if self._failure is not None:
                self._port.reset_output_buffer()  # the system would wait for half a minute until it has left
        with suppress(Exception):
            self._port.close()
        self._post(self._end)

    def _post(self, function: Callable[..., object], *arguments: object) -> bool:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the loop is closed: nobody is left to hear it
            return False
        return True

    # -- reading -------------------------------------------------------------------------------------------------------

    async def read(self) -> bytes:
        """What has arrived, 1 to `MAX_READ` bytes. Raises `StreamEnded` after all that came before the end."""
        received = self._received
        while not received:
            if self._ended.done():
                raise StreamEnded from self._ended.result()
            self._arrival = self._loop.create_future()
            await self._arrival
        if len(received) <= MAX_READ:
            data = bytes(received)
            received.clear()
        else:
            data = bytes(received[:MAX_READ])
            del received[:MAX_READ]
        if not self._reading and not self._closing and len(received) < _MAX_UNREAD:
            self._watch(True)
        return data

    def _watch(self, reading: bool) -> None:
        if reading and not self._reading:
            self._loop.add_reader(self._fd, self._readable)
        elif self._reading and not reading:
            self._loop.remove_reader(self._fd)
        self._reading = reading

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, MAX_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._fail(error)
            return
        if not data:
            # A terminal that has nothing says the same as one that is gone.
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            if poll.poll(0):
                self._fail(serial.SerialException("the port is gone"))
            return
        self._received += data
        if len(self._received) >= _MAX_UNREAD:
            self._watch(False)
        arrival = self._arrival
        if arrival is not None and not arrival.done():
            arrival.set_result(None)

    # -- writing -------------------------------------------------------------------------------------------------------

    def offer(self, data: bytes) -> bool:
        """`write` without waiting: false if nothing was taken. See `ByteStream.offer`."""
        self._raise_if_ended()
        if self._unsent:
            return False
        taken = self._write_now(data)
        if taken == 0:
            return False
        if taken < len(data):
            self._unsent += data[taken:]
            self._loop.add_writer(self._fd, self._writable)
        return True

    async def write(self, data: bytes, timeout_s: float) -> None:
        """Hand `data` to the operating system, in one piece.

        Raises `StreamEnded`, or `TimeoutError` when it was not taken in `timeout_s` seconds; how much was is not known.
        """
        self._raise_if_ended()
        taken = 0 if self._unsent else self._write_now(data)
        if taken == len(data):
            return
        if not self._unsent:
            self._loop.add_writer(self._fd, self._writable)
        self._unsent += data[taken:]
        if self._emptied is None or self._emptied.done():
            self._emptied = self._loop.create_future()
        await asyncio.wait({self._emptied}, timeout=timeout_s)
        self._raise_if_ended()
        if not self._emptied.done():
            raise TimeoutError

    def _write_now(self, data: bytes | bytearray) -> int:
        """Bytes that the operating system has taken. Raises `StreamEnded`."""
        try:
            return os.write(self._fd, data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._fail(error)
            raise StreamEnded from error

    def _writable(self) -> None:
        try:
            taken = self._write_now(self._unsent)
        except StreamEnded:
            return  # it closes itself, and that wakes whoever waits
        del self._unsent[:taken]
        if not self._unsent:
            self._loop.remove_writer(self._fd)
            if self._emptied is not None and not self._emptied.done():
                self._emptied.set_result(None)
