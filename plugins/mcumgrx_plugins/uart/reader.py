"""`ThreadedPort`: a pyserial port with a thread that reads and one that writes, so that asyncio never waits for it.

For macOS, whose event loop does not watch every terminal, and for Windows, where it watches none. The reading thread
waits in the operating system and posts what comes to the event loop: a byte is there at once, and an idle port costs
nothing. Linux has `LoopPort`.

Knows pyserial, threads and asyncio; addresses, framing and the errors that users see are the transport's.
"""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import TypeVarTuple

import serial

from .stream import MAX_READ, StreamEnded

Ts = TypeVarTuple("Ts")

# On Windows a cancellation is lost when it comes a moment before the call that it is meant for; it is repeated after
# this long. Only ever waited for while closing.
_CANCEL_AGAIN_S = 0.05


# Bytes that the event loop has not taken yet; beyond this the thread leaves the rest to the operating system, which
# drops what its own buffer does not hold.
_MAX_UNREAD = 256 * 1024


class ThreadedPort:
    """One opening of one port. Used from one event loop; thrown away when it has ended.

    The reading thread owns the port from opening to closing, so that nothing is closed while it is in use, an opening
    that takes for ever can be left alone, and an unplugged port is given back at once: while it is held, the same
    device gets another name.
    """

    def __init__(self, port: serial.Serial) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[Exception | None] = self._loop.create_future()
        self._ended: asyncio.Future[Exception | None] = self._loop.create_future()
        self._received = bytearray()
        self._news = asyncio.Event()
        self._posted = 0  # bytes handed to the event loop, counted by the thread
        self._taken = 0  # bytes read from it, counted by the loop
        self._room = threading.Event()
        self._unwritten = 0  # jobs that the writing thread has not reported to be done
        self._jobs: SimpleQueue[tuple[bytes, asyncio.Future[Exception | None]] | None] = SimpleQueue()
        self._leave = False  # the threads are to end
        self._failure: Exception | None = None  # why, where it was not asked for
        self._left = threading.Event()  # the reading thread no longer waits for bytes
        self._closing = threading.Lock()  # held while the port is closed or a wait in it cancelled
        self._reader = threading.Thread(target=self._run, name=f"serial reader {port.port}", daemon=True)
        self._writer = threading.Thread(target=self._write, name=f"serial writer {port.port}", daemon=True)

    # -- on the event loop -------------------------------------------------------------------------------------------

    async def open(self, timeout_s: float) -> None:
        """Open the port. Raises whatever pyserial raises, or `TimeoutError` after `timeout_s` seconds."""
        self._reader.start()
        try:
            async with asyncio.timeout(timeout_s):
                error = await asyncio.shield(self._opened)
        except (TimeoutError, asyncio.CancelledError):
            self._stop()  # should it open after all, its thread closes it
            self._cancel_read()
            raise
        if error is not None:
            raise error

    async def read(self) -> bytes:
        """What has arrived, 1 to `MAX_READ` bytes. Raises `StreamEnded` after all that came before the end."""
        while not self._received:
            self._raise_if_ended()
            self._news.clear()
            await self._news.wait()
        data = bytes(self._received[:MAX_READ])
        del self._received[:MAX_READ]
        self._taken += len(data)
        self._room.set()
        return data

    async def write(self, data: bytes, timeout_s: float) -> None:
        """Hand `data` to the operating system, in one piece.

        Raises `StreamEnded`, or `TimeoutError` when it was not taken in `timeout_s` seconds; how much was is not known.
        """
        self._raise_if_ended()
        taken = self._put(data)
        await asyncio.wait({taken, self._ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        self._raise_if_ended()
        if not taken.done():
            raise TimeoutError
        if (error := taken.result()) is not None:
            raise StreamEnded from error

    def offer(self, data: bytes) -> bool:
        """`write` without waiting: false if nothing was taken. See `ByteStream.offer`."""
        self._raise_if_ended()
        if self._unwritten or os.name != "posix":
            return False
        # The reading thread may be closing the port, and the number then be that of another file.
        if not self._closing.acquire(blocking=False):
            return False
        try:
            if self._leave or not self._port.is_open:
                return False
            taken = os.write(self._port.fileno(), data)
        except OSError:
            return False  # the writing thread meets the same, and ends the port
        finally:
            self._closing.release()
        if taken < len(data):
            self._put(data[taken:])
        return taken > 0

    async def close(self, failure: Exception | None = None) -> None:
        """Close the port, because of `failure` if one is given, and wait until its threads are done with it."""
        self._failure = self._failure or failure
        self._stop()
        self._jobs.put(None)
        while not self._ended.done():
            self._cancel_read()
            await asyncio.wait({self._ended}, timeout=_CANCEL_AGAIN_S)

    def _put(self, data: bytes) -> asyncio.Future[Exception | None]:
        """Leave `data` to the writing thread."""
        taken: asyncio.Future[Exception | None] = self._loop.create_future()
        self._unwritten += 1
        taken.add_done_callback(self._count_written)
        self._jobs.put((data, taken))
        return taken

    def _count_written(self, taken: asyncio.Future[Exception | None]) -> None:
        self._unwritten -= 1

    def _raise_if_ended(self) -> None:
        if self._ended.done():
            raise StreamEnded from self._ended.result()

    def _take(self, data: bytes) -> None:
        self._received += data
        self._news.set()

    def _end(self, error: Exception | None) -> None:
        self._ended.set_result(error)
        self._news.set()

    # -- in the threads ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """The reading thread."""
        try:
            self._port.open()
        except Exception as error:  # OSError, ValueError, termios.error, …: the caller sorts them
            self._post(self._opened.set_result, error)
            self._post(self._end, error)
            return
        self._writer.start()
        self._post(self._opened.set_result, None)
        try:
            while not self._leave:
                data = self._port.read(1)
                try:
                    data += self._port.read(self._port.in_waiting)
                finally:
                    if data:
                        self._posted += len(data)
                        self._post(self._take, data)
                self._wait_for_room()
        except Exception as error:  # pyserial lets a TypeError or struct.error pass when a port vanishes under it
            self._failure = self._failure or error
        self._left.set()
        self._stop()
        self._jobs.put(None)
        while self._writer.is_alive():
            with suppress(Exception):  # the port may be past every call
                self._port.cancel_write()
            self._writer.join(_CANCEL_AGAIN_S)
        with self._closing, suppress(Exception):
            self._port.close()
        self._post(self._end, self._failure)

    def _write(self) -> None:
        """The writing thread."""
        while (job := self._jobs.get()) is not None:
            data, taken = job
            try:
                if not self._hand_over(data):  # cancelled, which happens only while closing
                    return
            except Exception as error:
                self._failure = self._failure or error
                self._stop()
                self._post(taken.set_result, error)
                while not self._left.is_set():
                    self._cancel_read()
                    self._left.wait(_CANCEL_AGAIN_S)
                return
            self._post(taken.set_result, None)

    def _hand_over(self, data: bytes) -> bool:
        """Whether the operating system has taken all of `data`, however long that takes."""
        if os.name != "posix":
            return self._port.write(data) == len(data)
        # Where there is no room to begin with, pyserial tries again and again, and cannot be cancelled.
        file = self._port.fileno()
        while data and not self._leave:
            if select.select([], [file], [], _CANCEL_AGAIN_S)[1]:
                with suppress(BlockingIOError):
                    data = data[os.write(file, data) :]
        return not data

    def _wait_for_room(self) -> None:
        while self._posted - self._taken > _MAX_UNREAD and not self._leave:
            self._room.clear()
            if self._posted - self._taken > _MAX_UNREAD and not self._leave:
                self._room.wait()

    def _stop(self) -> None:
        """Let the threads end. Whoever waits in a call of the port must be woken besides."""
        self._leave = True
        self._room.set()

    def _cancel_read(self) -> None:
        with self._closing, suppress(Exception):
            self._port.cancel_read()

    def _post(self, function: Callable[[*Ts], object], *arguments: *Ts) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to hear it
            self._loop.call_soon_threadsafe(function, *arguments)
