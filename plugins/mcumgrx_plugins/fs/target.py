"""Where a download goes: a file of this computer, standard output, another open stream.

Writing may block for as long as it likes: a pipe that nobody reads, a share that does not answer. So all of it is done
in threads, behind the download (`WriteBehind`).
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol, runtime_checkable

from mcumgrx.plugin_api import UsageError, in_thread, lock_file

from .local import LocalFileError, check_inherited, is_null_device, local_errors, open_descriptor, special_kind

_STDOUT = 1

# How long a write that does not end may keep a command that has been told to end.
_LAST_WRITE_S = 0.4

# To open a file that others may put in its place or take away meanwhile.
_ATTEMPTS = 10


class Sink(Protocol):
    """Where a download goes."""

    def write(self, data: bytes, /) -> object: ...


@runtime_checkable
class PartialFile(Sink, Protocol):
    """Where a download goes on: a binary file, open for reading and writing."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def truncate(self) -> object: ...


# -- behind the download ----------------------------------------------------------------------------------------------


class WriteBehind:
    """Passes on what is written, in order, from a thread. A failure is raised by the next `write`, or by `drain`.

    Before the first `write` it can be read and sought as what is behind it.
    """

    def __init__(self, sink: PartialFile | OpenStream | StandardOutput) -> None:
        self._sink = sink
        self._waiting: list[bytes] = []
        self._writer: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    def write(self, data: bytes, /) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiting.append(data)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="mcumgrx file writer")

    async def drain(self) -> None:
        """Wait until all is written."""
        if self._writer is not None:
            await self._writer
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Write what there is, if that can be done at once."""
        writer = self._writer
        if writer is not None:
            await asyncio.wait([writer], timeout=_LAST_WRITE_S)
            writer.cancel()

    async def _write(self) -> None:
        try:
            while self._waiting:
                data = b"".join(self._waiting)
                self._waiting.clear()
                await in_thread(self._sink.write, data)
        except Exception as error:
            self._failure = error
            self._waiting.clear()
        finally:
            self._writer = None

    def read(self, size: int, /) -> bytes:
        return self._partial.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._partial.seek(offset, whence)

    def truncate(self) -> None:
        self._partial.truncate()

    @property
    def _partial(self) -> PartialFile:
        if not isinstance(self._sink, PartialFile):
            raise TypeError("what was written there cannot be read")
        return self._sink


# -- streams ----------------------------------------------------------------------------------------------------------


def is_standard_output(path: Path) -> bool:
    """Whether this names standard output, `-` aside."""
    return open_descriptor(str(path)) == _STDOUT


class OpenStream:
    """What takes bytes at once and gives nothing back: a stream that this process has open already, or `/dev/null`."""

    def __init__(self, name: str, number: int) -> None:
        self._name = name
        self._number = number

    def write(self, data: bytes, /) -> None:
        with local_errors(self._name, "written"):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._number, rest) :]


class StandardOutput(OpenStream):
    """Standard output, for bytes. On a terminal they are kept, so that they can be made harmless first."""

    # A terminal is for reading; more is meant for a file.
    TERMINAL_BYTES = 1024 * 1024

    def __init__(self) -> None:
        super().__init__("standard output", _STDOUT)
        self.kept = bytearray() if os.isatty(_STDOUT) else None

    def write(self, data: bytes, /) -> None:
        if self.kept is None:
            super().write(data)
        elif len(self.kept) + len(data) > self.TERMINAL_BYTES:
            raise UsageError("the file is too large for a terminal", hint="name a file to write it to")
        else:
            self.kept += data


def open_target(path: Path, *, resume: bool) -> Destination | OpenStream:
    """Where a download to `path` goes. Raises `LocalFileError`; `UsageError` for `resume` of what is no file."""
    name = str(path)
    number = open_descriptor(name)
    with local_errors(name, "written"):
        if number is None:
            try:
                status = path.stat()
            except FileNotFoundError:
                return Destination(path, resume=resume)
            if is_null_device(status):
                number = _null()
            elif (kind := special_kind(status)) is not None:
                raise LocalFileError(
                    f"{name} cannot be written: it is {kind}, and a download goes to a regular file",
                    path=name,
                    hint="name a file, or - for standard output",
                )
            else:
                return Destination(path, resume=resume)
        else:
            check_inherited(number)
    if resume:
        raise UsageError(f"{name} is no regular file: a download to it cannot be resumed")
    return OpenStream(name, number)


@functools.cache
def _null() -> int:
    return os.open(os.devnull, os.O_WRONLY)


# -- files ------------------------------------------------------------------------------------------------------------

_REMOVE = "move it away, or name another file here"


class Destination:
    """A local file to be written: what arrives goes to `NAME.part` beside it, which takes its place when it is whole.

    That is a regular file of this user with no other name, and locked meanwhile: what somebody else has put there, be
    it a link to another file, is neither written to nor replaced.

    Raises `LocalFileError` where it cannot be written. Threads may call it one after the other.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        self._name = str(path)
        self._lock = threading.Lock()
        self._closed = False
        self._begun = resume
        with local_errors(self._name, "written"):
            self._final = Path(os.path.realpath(path))  # a link stays a link
            self._mode: int | None = None
            with suppress(FileNotFoundError):
                self._mode = stat.S_IMODE(os.stat(self._final).st_mode)
                if not os.access(self._final, os.W_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        self.part = self._final.with_name(f"{self._final.name}.part")
        with local_errors(str(self.part), "written"):
            self._descriptor = _open_part(self.part, self._name)

    def read(self, size: int, /) -> bytes:
        with local_errors(str(self.part), "read"):
            return os.read(self._descriptor, size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        with local_errors(str(self.part), "read"):
            return os.lseek(self._descriptor, offset, whence)

    def truncate(self) -> None:
        with local_errors(str(self.part), "written"):
            os.ftruncate(self._descriptor, os.lseek(self._descriptor, 0, os.SEEK_CUR))

    def write(self, data: bytes, /) -> None:
        hint = "make room, then run the same command again with --resume to go on from there"
        with self._lock, local_errors(str(self.part), "written", hint):
            if self._closed:
                raise ValueError("it is closed")
            self._begin()
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def finish(self) -> None:
        """It is whole: let it take its place."""
        with self._lock, local_errors(self._name, "written"):
            if self._closed:
                raise ValueError("it is closed")
            self._begin()  # of an empty file nothing arrives
            if self._mode is not None and hasattr(os, "fchmod"):
                os.fchmod(self._descriptor, self._mode)
            os.fsync(self._descriptor)
            if not _is_at(self.part, self._descriptor):
                raise LocalFileError(f"{self.part} has been replaced meanwhile", path=self._name, hint=_REMOVE)
            if os.name == "nt":  # where what is open cannot be moved
                self._close()
            os.replace(self.part, self._final)
            self._close()

    def abandon(self, *, keep: bool) -> int:
        """It is not whole; returns how many bytes are kept for `resume`."""
        with self._lock, suppress(OSError):
            if self._closed:
                return 0
            size = os.fstat(self._descriptor).st_size
            is_there = _is_at(self.part, self._descriptor)
            if os.name == "nt":
                self._close()
            # What an earlier download has left, and is still as it was, is kept in any case.
            if is_there and (size == 0 or (self._begun and not keep)):
                os.unlink(self.part)
            self._close()
            return size if is_there and self._begun and keep else 0
        return 0

    def _begin(self) -> None:
        """What an earlier download has left is thrown away when there is something better."""
        if not self._begun:
            os.ftruncate(self._descriptor, 0)
            self._begun = True

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            with suppress(OSError):
                os.close(self._descriptor)


def _open_part(part: Path, name: str) -> int:
    """Open `part` for this process alone. Raises `LocalFileError`, `OSError`."""
    flags = os.O_RDWR | os.O_CREAT
    for flag in ("O_BINARY", "O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC"):
        flags |= getattr(os, flag, 0)
    for _ in range(_ATTEMPTS):
        with suppress(FileNotFoundError):
            _check_part(os.lstat(part), part)  # before it is opened, which may do something to a device
        descriptor = os.open(part, flags, 0o666)
        try:
            _check_part(os.fstat(descriptor), part)
            if not lock_file(descriptor):
                raise LocalFileError(
                    f"another download to {name} is under way, into {part}",
                    path=name,
                    hint="wait until it has ended, or name another file here",
                )
            if _is_at(part, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # it was that of another download, which has ended between the two calls
    raise LocalFileError(f"{part} does not stay the same file", path=name, hint=_REMOVE)


def _check_part(status: os.stat_result, part: Path) -> None:
    kind = special_kind(status)
    if kind is None and status.st_nlink > 1:
        kind = "a file that has another name as well (a hard link)"
    if kind is None and hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        kind = "a file of another user"
    if kind is not None:
        raise LocalFileError(
            f"{part} is {kind}, and so not what a download has left there", path=str(part), hint=_REMOVE
        )


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
