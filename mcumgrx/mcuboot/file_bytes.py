"""`FileBytes`: the bytes of a file that stay on the disk until they are asked for."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import weakref
from functools import lru_cache, partial

from mcumgrx.errors import ImageError, system_says

__all__ = ["FileBytes", "unreadable"]

_BLOCK = 16 * 1024
"""What is read at once, and has a hash of its own."""

_BLOCKS_KEPT = 16
"""Of those read last: uploads of one image to several devices are at different places of it."""


class FileBytes:
    """The bytes of a file that stay on the disk, and are read as they are asked for.

    They have a length and give `bytes` by slices; `bytes(...)` reads all of them. They compare equal to the same bytes
    elsewhere, and are pickled as plain `bytes`. Threads may share them. The file is closed with the last reference, or
    by `close`.

    They stand for what the file held when it was opened here. Whatever is read later is compared with hashes made then,
    so that it is either the same or an error: of a file that a build writes to meanwhile, never a mixture. A build that
    puts a new file in its place (by a rename) changes nothing, as the old one remains until it is closed.

    Raises `ImageError` whenever the file cannot be read, or has changed.
    """

    # Not a mapping of the file: one that becomes shorter would end the process (SIGBUS).

    __hash__ = None  # type: ignore[assignment]  # equal bytes have one that would take reading all of it

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        try:
            file = open(self.path, "rb", buffering=0)  # noqa: SIM115 - closed with the last reference
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
            raise unreadable(self.path, error) from error
        self._finalizer = weakref.finalize(self, file.close)
        whole, marks = hashlib.sha256(), []
        try:
            self._size = os.fstat(file.fileno()).st_size
            for offset in range(0, self._size, _BLOCK):
                block = _read_exactly(file, self.path, offset, min(_BLOCK, self._size - offset))
                whole.update(block)
                marks.append(_mark(block))
        except OSError as error:
            self.close()
            raise unreadable(self.path, error) from error
        except ImageError:
            self.close()
            raise
        self.sha256 = whole.digest()
        # Neither the cache nor what it calls may know this object, or it would not go away with its last reference.
        self._block = lru_cache(_BLOCKS_KEPT)(partial(_read_block, file, self.path, self._size, b"".join(marks)))

    def close(self) -> None:
        """Close the file before the last reference is gone; no more can be read then."""
        self._finalizer()

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, key: slice, /) -> bytes:
        if not isinstance(key, slice):
            raise TypeError("the bytes of a file are read by slices; bytes(...) reads them all")
        start, stop, step = key.indices(self._size)
        if step != 1:
            return bytes(self)[key]
        if stop <= start:
            return b""
        first, last = start // _BLOCK, (stop - 1) // _BLOCK
        skipped = first * _BLOCK
        if first == last:
            return self._block(first)[start - skipped : stop - skipped]
        found = b"".join(map(self._block, range(first, last + 1)))
        return found[start - skipped : stop - skipped]

    def __bytes__(self) -> bytes:
        return self[:]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FileBytes):
            return self._size == other._size and self.sha256 == other.sha256
        if isinstance(other, (bytes, bytearray, memoryview)):
            return self._size == len(other) and self.sha256 == hashlib.sha256(other).digest()
        return NotImplemented

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        return bytes, (bytes(self),)

    def __repr__(self) -> str:
        return f"<FileBytes of {self.path!r}, {self._size}>"


_MARK_BYTES = 16


def _mark(block: bytes) -> bytes:
    return hashlib.blake2b(block, digest_size=_MARK_BYTES).digest()


def _read_block(file: io.FileIO, path: str, size: int, marks: bytes, index: int) -> bytes:
    """Block `index` of the file, if it is still what it was."""
    offset = index * _BLOCK
    block = _read_exactly(file, path, offset, min(_BLOCK, size - offset))
    if not marks.startswith(_mark(block), index * _MARK_BYTES):
        raise _changed(path, "has changed")
    return block


def _read_exactly(file: io.FileIO, path: str, offset: int, size: int) -> bytes:
    try:
        data = _read_at(file, offset, size)
        while data and len(data) < size and (more := _read_at(file, offset + len(data), size - len(data))):
            data += more
    except (OSError, ValueError) as error:  # ValueError: closed
        raise unreadable(path, error) from error
    if len(data) < size:
        raise _changed(path, "has become shorter")
    return data


def _changed(path: str, what: str) -> ImageError:
    return ImageError(
        f"{path} {what} since it was opened",
        path=path,
        hint="a build may be writing it: let it finish, then run the same command again",
    )


_SEEKING = threading.Lock()


def _pread(file: io.FileIO, offset: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, offset)


def _seek_and_read(file: io.FileIO, offset: int, size: int) -> bytes:
    with _SEEKING:
        file.seek(offset)
        return file.read(size)


_read_at = _pread if hasattr(os, "pread") else _seek_and_read  # Windows has none


def unreadable(path: str, error: Exception) -> ImageError:
    """What to tell of an image file at `path` (or "") that gave this error."""
    if isinstance(error, FileNotFoundError):
        return ImageError(f"no such file: {path}", path=path, hint="check the path; has the build succeeded?")
    # Windows refuses to open a directory with a PermissionError.
    if isinstance(error, IsADirectoryError) or (path and "\0" not in path and os.path.isdir(path)):
        return ImageError(
            f"{path} is a directory", path=path, hint="name the file itself, in a build directory zephyr.signed.bin"
        )
    if isinstance(error, PermissionError):
        return ImageError(f"no permission to read {path}", path=path, hint="check the file's owner and mode")
    reason = system_says(error)
    return ImageError(f"cannot read {path or 'the image'}: {reason}", path=path or None)
