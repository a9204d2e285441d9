"""The near end of a transfer: files of this computer, standard input and output, and what can go wrong with them."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import tempfile
import threading
import zlib
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol, cast, runtime_checkable

from mcumgrx.errors import ImageError
from mcumgrx.plugin_api import McumgrError, UsageError

__all__ = [
    "Destination",
    "Digest",
    "FileContent",
    "LocalFileError",
    "PartialFile",
    "Sink",
    "StandardOutput",
    "local_errors",
    "open_source",
    "read_standard_input",
    "spooled",
]

_BLOCK = 64 * 1024
_IN_MEMORY = 1024 * 1024  # of what has to be kept; the rest goes to a temporary file
_STDIN, _STDOUT = 0, 1


class LocalFileError(ImageError):
    """A file of this computer cannot be read or written; `path` names it."""


@contextmanager
def local_errors(path: str, doing: str = "used", hint: str | None = None) -> Iterator[None]:
    """Errors of the file inside become `LocalFileError`."""
    try:
        yield
    except McumgrError:
        raise  # one for a time-out is an OSError too
    except OSError as error:
        raise LocalFileError(f"{path} cannot be {doing}: {error.strerror or error}", path=path, hint=hint) from error


# -- hashes -----------------------------------------------------------------------------------------------------------


class Digest:
    """The hashes of what has been passed to `update` so far."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._crc32 = 0

    def update(self, data: bytes) -> None:
        self._sha256.update(data)
        self._crc32 = zlib.crc32(data, self._crc32)

    def value(self, type: str) -> int | bytes:
        """As the device tells it. Raises `KeyError` for a type that is not known here."""
        values: dict[str, int | bytes] = {"sha256": self._sha256.digest(), "crc32": self._crc32}
        return values[type]


# -- what is uploaded -------------------------------------------------------------------------------------------------


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...


class FileContent:
    """A file that can be sought, as `plan.Content`: read piece by piece, never as a whole."""

    def __init__(self, file: _Readable) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END)

    @property
    def size(self) -> int:
        return self._size

    @property
    def _name(self) -> str:
        return str(getattr(self._file, "name", "the file"))

    def read(self, offset: int, size: int) -> bytes:
        """Exactly these bytes. Raises `LocalFileError` where the file cannot be read, or has become shorter."""
        try:
            self._file.seek(offset)
            data = self._file.read(size)
            while data and len(data) < size and (more := self._file.read(size - len(data))):
                data += more
        except (OSError, ValueError) as error:  # the latter where somebody has closed it
            raise LocalFileError(f"{self._name} cannot be read: {error}", path=self._name) from error
        if len(data) < size:
            raise LocalFileError(f"{self._name} has become shorter while it was read", path=self._name)
        return data

    def digest(self, type: str, size: int) -> int | bytes:
        return self.hashed(size).value(type)

    def hashed(self, size: int) -> Digest:
        """The hashes of the first `size` bytes."""
        digest = Digest()
        for offset in range(0, size, _BLOCK):
            digest.update(self.read(offset, min(_BLOCK, size - offset)))
        return digest


def open_source(path: Path) -> BinaryIO:
    """Open a file to be uploaded. Raises `LocalFileError`."""
    with local_errors(str(path), "read"):
        return open(path, "rb")


async def spooled(source: AsyncIterable[bytes]) -> BinaryIO:
    """All of a stream, where it can be read again: an upload announces its size, and may have to begin anew."""
    file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115 - the caller closes it
    try:
        async for block in source:
            with local_errors("the temporary file", "written"):
                file.write(block)
    except BaseException:
        file.close()
        raise
    return file


async def read_standard_input() -> BinaryIO:
    """All of standard input. Raises `LocalFileError`."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[BinaryIO] = loop.create_future()

    def finish(file: BinaryIO, error: Exception | None) -> None:
        if done.done():
            file.close()
        elif error is None:
            done.set_result(file)
        else:
            file.close()
            done.set_exception(error)

    def read() -> None:
        file = cast(BinaryIO, tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115
        failure: Exception | None = None
        try:
            with local_errors("standard input", "read"):
                while block := os.read(_STDIN, _BLOCK):
                    file.write(block)
        except LocalFileError as error:
            failure = error
        with suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(finish, file, failure)

    # Not in the loop's executor: a process that is interrupted would wait there for the end of the input.
    threading.Thread(target=read, name="mcumgrx standard input", daemon=True).start()
    return await done


# -- what is downloaded -----------------------------------------------------------------------------------------------


class Sink(Protocol):
    """Where a download goes."""

    def write(self, data: bytes, /) -> object: ...


@runtime_checkable
class PartialFile(Sink, Protocol):
    """Where a download goes on: a binary file, open for reading and writing."""

    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...

    def truncate(self) -> object: ...


class StandardOutput:
    """Standard output, for bytes. On a terminal they are kept, so that they can be made harmless first."""

    # A terminal is for reading; more is meant for a file.
    TERMINAL_BYTES = 1024 * 1024

    def __init__(self) -> None:
        self.kept = bytearray() if os.isatty(_STDOUT) else None

    def write(self, data: bytes, /) -> None:
        if self.kept is not None:
            if len(self.kept) + len(data) > self.TERMINAL_BYTES:
                raise UsageError("the file is too large for a terminal", hint="name a file to write it to")
            self.kept += data
            return
        with local_errors("standard output", "written"):
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(_STDOUT, rest) :]


class Destination:
    """A local file to be written: what arrives goes to `NAME.part` beside it, which takes its place when it is whole.

    What is no regular file (`/dev/null`, a pipe) is written at once.

    Raises `LocalFileError` where it cannot be written, `UsageError` for `resume` of what is no regular file.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        with local_errors(str(path), "written"):
            self._direct = path.exists() and not path.is_file()
            if self._direct and resume:
                raise UsageError(f"{path} is no regular file: a download to it cannot be resumed")
            self._final = path if self._direct else path.resolve()  # a link stays a link
            self.part = self._final.with_name(f"{self._final.name}.part")
        with local_errors(str(path if self._direct else self.part), "written"):
            if self._direct:
                self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - `finish` and `abandon` close it
            else:
                # Not truncated: what an earlier download has left is thrown away when there is something better.
                mode = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
                self._file = os.fdopen(os.open(self.part, mode, 0o666), "r+b")
        self._begun = resume or self._direct

    def read(self, size: int, /) -> bytes:
        with local_errors(str(self.part), "read"):
            return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        with local_errors(str(self.part), "read"):
            return self._file.seek(offset, whence)

    def truncate(self) -> None:
        with local_errors(str(self.part), "written"):
            self._file.truncate()

    def write(self, data: bytes, /) -> None:
        hint = None if self._direct else "make room, then run the same command again with --resume to go on from there"
        with local_errors(str(self.path if self._direct else self.part), "written", hint):
            if not self._begun:
                self._file.truncate(0)
                self._begun = True
            self._file.write(data)
            self._file.flush()  # a full disk shows here, where it can be told

    def finish(self) -> None:
        """It is whole: let it take its place."""
        with local_errors(str(self.path), "written"):
            if not self._begun:
                self._file.truncate(0)  # of an empty file nothing arrives
            self._file.flush()
            if not self._direct:
                os.fsync(self._file.fileno())
            self._file.close()
            if not self._direct:
                os.replace(self.part, self._final)

    def abandon(self, *, keep: bool) -> int:
        """It is not whole; returns how many bytes are kept for `resume`."""
        with suppress(OSError):
            self._file.close()
        if self._direct:
            return 0
        with suppress(OSError):
            size = self.part.stat().st_size
            if size > 0 and not self._begun:
                return 0  # left by an earlier download, and still as it was
            if size > 0 and keep:
                return size
            self.part.unlink()
        return 0
