"""Image files: read from paths, bytes and open files; large ones stay on the disk."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import BinaryIO

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot.file_bytes import FileBytes, unreadable
from mcumgrx.mcuboot.image import Image, parse_image
from mcumgrx.mcuboot.kinds import SIGNED_HINT
from mcumgrx.mcuboot.tlv import MAX_FILE_BYTES

__all__ = ["IN_MEMORY_BYTES", "load_image"]

IN_MEMORY_BYTES = 4 * 1024 * 1024
"""`load_image` reads files up to this size at once; larger ones stay on the disk."""


def load_image(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO, *, max_bytes: int = MAX_FILE_BYTES
) -> Image:
    """Read and check an image from a path, from bytes or from an open binary file.

    A file that is named by its path and larger than `IN_MEMORY_BYTES` is not kept in memory but left where it is, as
    `FileBytes`, and stays open as long as the image is in use.

    Raises `ImageError` for files that cannot be read, that are larger than `max_bytes`, or that `parse_image` refuses.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return parse_image(source)
    data: bytes | FileBytes
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        try:
            _refuse_devices(path)
            with open(path, "rb") as stream:
                status = os.fstat(stream.fileno())
                size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                if size > max_bytes:
                    raise _too_large(path, max_bytes)
                # What is asked for takes memory at once, and not all files tell their size (/proc, pipes).
                data = stream.read(size or max_bytes + 1) if size <= IN_MEMORY_BYTES else FileBytes(path)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
            raise unreadable(path, error) from error
    else:
        name = getattr(source, "name", None)
        path = name if isinstance(name, str) else ""
        try:
            data = source.read(max_bytes + 1)
        except (OSError, ValueError) as error:  # ValueError: a closed file
            raise unreadable(path, error) from error
        if not isinstance(data, bytes):
            raise ImageError("the image file is open in text mode", path=path or None, hint='open it with mode "rb"')
    if len(data) > max_bytes:
        raise _too_large(path, max_bytes)
    try:
        return parse_image(data, path=path or None)
    except ImageError:
        if isinstance(data, FileBytes):
            data.close()  # now, however long somebody keeps the error
        raise


def _refuse_devices(path: str) -> None:
    """Devices are not even opened: that alone resets some boards, and reading one need not end."""
    with contextlib.suppress(OSError, ValueError):  # told when it is opened
        mode = os.stat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            hint = f"the file comes first, the device behind -d. {SIGNED_HINT[0].upper()}{SIGNED_HINT[1:]}"
            raise ImageError(f"{path} is a device, not an image file", path=path, hint=hint)
        if stat.S_ISSOCK(mode):
            raise ImageError(f"{path} is a socket, not an image file", path=path, hint=SIGNED_HINT)


def _too_large(path: str, max_bytes: int) -> ImageError:
    return ImageError(
        f"the file is larger than {max_bytes:,} bytes, too large for an image", path=path or None, hint=SIGNED_HINT
    )
