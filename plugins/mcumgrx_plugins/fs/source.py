"""What is uploaded: a file of this computer, standard input, a pipe, a stream of a caller.

An upload announces its size, and may have to begin anew. So what cannot be sought, or does not tell its size (the files
of `/proc`), is read to its end first; so is what is short, which then cannot change any more. Only a long file stays
on the disk, and is looked at in the end: a change meanwhile is told, and not put down to the device.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import AsyncIterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Protocol, Self, cast

from .local import Digest, LocalFileError, check_inherited, is_null_device, local_errors, open_descriptor, special_kind

MOST_BYTES = 0xFFFFFFFE
"""The largest file that can be announced: a length of 32 bits, of which the last stands for none."""

_BLOCK = 64 * 1024
_IN_MEMORY = 1024 * 1024  # what is not longer is kept there
_STREAM_BYTES = 1024 * 1024 * 1024
_STDIN = 0


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...


class FileContent:
    """A file that can be sought, as `plan.Content`: read piece by piece, never as a whole.

    It stands for the first `size` bytes of the file, by default all that there are now. The hashes are those of what
    has been read: from the beginning on, each byte as it was when it was read first.

    Arguments:
        watched: a file of the system, of which `check_unchanged` tells whether it has changed.
        owned: it was made for this, and is closed by `close`.
    """

    def __init__(
        self,
        file: _Readable,
        *,
        size: int | None = None,
        name: str | None = None,
        watched: bool = False,
        owned: bool = False,
    ) -> None:
        self._file = file
        self._size = file.seek(0, io.SEEK_END) if size is None else size
        self._name = str(getattr(file, "name", "the file")) if name is None else name
        self._digest = Digest()
        self._hashed = 0
        self._watched = watched
        self._owned = owned
        self._lock = threading.RLock()  # a thread may read ahead of the transfer
        self._before = self._status()

    @property
    def size(self) -> int:
        return self._size

    @property
    def in_memory(self) -> bool:
        is_short = isinstance(self._file, SpooledTemporaryFile) and self._size <= _IN_MEMORY
        return is_short or isinstance(self._file, io.BytesIO)

    def close(self) -> None:
        """Close what was opened or made for it; the file of a caller stays open."""
        if self._owned:
            cast(BinaryIO, self._file).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def read(self, offset: int, size: int) -> bytes:
        """Exactly these bytes. Raises `LocalFileError` where the file cannot be read, or has become shorter."""
        with self._lock:
            data = self._read(offset, size)
            if offset <= self._hashed < offset + size:
                self._digest.update(data[self._hashed - offset :])
                self._hashed = offset + size
            return data

    def prepare(self, size: int) -> None:
        pass  # it is read when it is asked for

    def digest(self, type: str, size: int) -> int | bytes:
        return self.hashed(size).value(type)

    def hashed(self, size: int) -> Digest:
        """The hashes of the first `size` bytes."""
        with self._lock:
            while self._hashed < size:
                self.read(self._hashed, min(_BLOCK, size - self._hashed))
            return self._digest if self._hashed == size else self._hash_now(size)

    def check_unchanged(self) -> int:
        """By how many bytes the file has grown since, if what was read is still its beginning.

        Raises `LocalFileError` where it is not: nobody knows then what was sent, the old content or the new.
        """
        now = self._status()
        if now is None or self._before is None or now == self._before:
            return 0
        with suppress(LocalFileError):
            # The time of a file may change without its content.
            if self._hash_now(self._size).value("sha256") == self.digest("sha256", self._size):
                return max(0, now[1] - self._before[1])
        raise LocalFileError(
            f"{self._name} has changed while it was sent: the device may have part of the old content, and of the new",
            path=self._name,
            hint="send it again, when nothing writes to it",
        )

    def _status(self) -> tuple[int, int] | None:
        """Time and size of a file that is watched."""
        if not self._watched:
            return None
        with local_errors(self._name, "read"):
            status = os.fstat(cast(BinaryIO, self._file).fileno())
        return status.st_mtime_ns, status.st_size

    def _hash_now(self, size: int) -> Digest:
        digest = Digest()
        for offset in range(0, size, _BLOCK):
            digest.update(self._read(offset, min(_BLOCK, size - offset)))
        return digest

    def _read(self, offset: int, size: int) -> bytes:
        with local_errors(self._name, "read"):
            self._file.seek(offset)
            data = self._file.read(size)
            while data and len(data) < size and (more := self._file.read(size - len(data))):
                data += more
        if len(data) < size:
            raise LocalFileError(f"{self._name} has become shorter while it was read", path=self._name)
        return data


# -- opening. All of this may block for as long as it likes, and belongs in a thread ----------------------------------


def open_source(path: Path) -> FileContent:
    """The content of a local file. Raises `LocalFileError`."""
    name = str(path)
    number = open_descriptor(name)
    if number is not None:
        return open_stream(number, name)
    with local_errors(name, "read"):
        _check(os.stat(path), name)  # before it is opened, which may do something to a device
        return content_of(cast(BinaryIO, open(path, "rb", buffering=0)), name, ours=True)


def open_stream(number: int = _STDIN, name: str = "standard input") -> FileContent:
    """The content of a stream that is open already, from where it is to its end. Raises `LocalFileError`."""
    with local_errors(name, "read"):
        check_inherited(number)
        status = os.fstat(number)
        _check(status, name, number)
        file = cast(BinaryIO, open(os.dup(number), "rb", buffering=0))  # noqa: SIM115 - closed here, or with the content
        if stat.S_ISREG(status.st_mode) and file.tell() == 0:
            return content_of(file, name, ours=True)
        with file:
            return _collect(file, name)


def content_of(file: BinaryIO, name: str | None = None, *, ours: bool = False) -> FileContent:
    """All of a file that is open, wherever it stands. One of `ours` is watched, and closed with the content or before.

    Raises `LocalFileError`.
    """
    name = str(getattr(file, "name", "the file")) if name is None else name
    with ExitStack() as closing, local_errors(name, "read"):
        if ours:
            closing.callback(file.close)
        size = 0
        if file.seekable():
            with suppress(OSError):  # files of /proc know no end
                size = file.seek(0, io.SEEK_END)
            file.seek(0)
        if size > MOST_BYTES:
            raise _too_large(name, size)
        if size <= _IN_MEMORY:
            # 0 is also the size of what does not tell any (/proc), and one that is told need not be true (/sys).
            return _collect(file, name)
        content = FileContent(file, size=size, name=name, watched=ours, owned=ours)
        closing.pop_all()
        return content


def _check(status: os.stat_result, name: str, number: int | None = None) -> None:
    """Raises `LocalFileError` for what is neither a file nor a stream that ends."""
    kind = special_kind(status)
    if kind is None:
        if status.st_size > MOST_BYTES:
            raise _too_large(name, status.st_size)
    elif stat.S_ISFIFO(status.st_mode) or is_null_device(status):
        pass
    elif number is None or not (stat.S_ISSOCK(status.st_mode) or os.isatty(number)):
        raise LocalFileError(
            f"{name} cannot be read: it is {kind}",
            path=name,
            hint="name a file, or - for what a pipe brings to standard input",
        )


def _too_large(name: str, size: int | None) -> LocalFileError:
    if size is None:
        return LocalFileError(
            f"{name} has more than {_STREAM_BYTES:,} bytes, which is too much to be kept for an upload",
            path=name,
            hint="write it to a file first, and name that",
        )
    return LocalFileError(
        f"{name} is too large: it has {size:,} bytes, and a file in a device has at most {MOST_BYTES:,}", path=name
    )


def _collect(file: BinaryIO, name: str) -> FileContent:
    with _keeping() as kept:
        with local_errors(name, "read"):
            while block := file.read(_BLOCK):
                _keep(kept, block, name)
        return FileContent(kept, name=name, owned=True)


async def collected(source: AsyncIterable[bytes]) -> FileContent:
    """The content of a stream of a caller, whose errors are the caller's."""
    name = "the stream"
    with _keeping() as kept:
        async for block in source:
            _keep(kept, block, name)
        return FileContent(kept, name=name, owned=True)


@contextmanager
def _keeping() -> Iterator[SpooledTemporaryFile[bytes]]:
    """A file for what has to be kept: in memory, and from some size on the disk. Closed where that fails."""
    with ExitStack() as closing:
        yield closing.enter_context(SpooledTemporaryFile(_IN_MEMORY))
        closing.pop_all()  # it is the content's from now on


def _keep(kept: SpooledTemporaryFile[bytes], block: bytes, name: str) -> None:
    with local_errors(f"a temporary file for {name}", "written"):
        kept.write(block)
    if kept.tell() > _STREAM_BYTES:
        raise _too_large(name, None)
