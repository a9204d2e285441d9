"""What both ends of a transfer on this computer have in common: errors of local files, and hashes of what passed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from mcumgrx.plugin_api import ImageError, McumgrError, system_says


class LocalFileError(ImageError):
    """A file of this computer cannot be read or written; `path` names it."""


@contextmanager
def local_errors(path: str, doing: str = "used", hint: str | None = None) -> Iterator[None]:
    """Errors of the file inside become `LocalFileError`."""
    try:
        yield
    except McumgrError:
        raise  # one for a time-out is an OSError too
    except (OSError, ValueError) as error:  # the latter for a path with a NUL character, and for a closed file
        reason = system_says(error)
        raise LocalFileError(f"{path} cannot be {doing}: {reason}", path=path, hint=hint) from error


# -- what is no regular file ------------------------------------------------------------------------------------------

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISLNK, "a symbolic link"),
)


def special_kind(status: os.stat_result) -> str | None:
    """What it is, for people; None for a regular file."""
    return next((name for fits, name in _KINDS if fits(status.st_mode)), None)


def is_null_device(status: os.stat_result) -> bool:
    """Whether it is the file that is always empty, and takes everything."""
    if not stat.S_ISCHR(status.st_mode):
        return False
    try:
        return status.st_rdev == os.stat(os.devnull).st_rdev
    except OSError:
        return False


_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_BY_NUMBER = re.compile(r"/dev/fd/(\d{1,6})|/proc/(?:self|thread-self)/fd/(\d{1,6})")


def open_descriptor(path: str) -> int | None:
    """The number of the stream that this process has open already, and that `path` names; None for any other path.

    A shell's process substitution, `>(gzip > FILE)`, makes such paths.
    """
    match = _BY_NUMBER.fullmatch(path)
    return _STREAMS.get(path) if match is None else int(match[1] or match[2])


def check_inherited(number: int) -> None:
    """Raises `OSError` for a stream that is not open, or that this program has opened for itself (PEP 446)."""
    if not os.get_inheritable(number) and number not in _STREAMS.values():
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


# -- hashes -----------------------------------------------------------------------------------------------------------


class Digest:
    """The hashes of what has been passed to `update` so far."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._crc32 = 0

    def update(self, data: bytes) -> None:
        self._sha256.update(data)
        self._crc32 = zlib.crc32(data, self._crc32)

    def values(self) -> dict[str, int | bytes]:
        """As the device tells them, by their types."""
        return {"sha256": self._sha256.digest(), "crc32": self._crc32}

    def value(self, type: str) -> int | bytes:
        """Raises `KeyError` for a type that is not known here."""
        return self.values()[type]
