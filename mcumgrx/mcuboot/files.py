"""Files with images: read from paths, bytes and open files; large images stay on the disk."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import BinaryIO, TypeAlias

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot.build_dir import load_build
from mcumgrx.mcuboot.file_bytes import FileBytes, unreadable
from mcumgrx.mcuboot.image import Image
from mcumgrx.mcuboot.kinds import SIGNED_HINT
from mcumgrx.mcuboot.package import Package, parse_package
from mcumgrx.mcuboot.tlv import MAX_FILE_BYTES

__all__ = ["IN_MEMORY_BYTES", "load_image", "load_package"]

IN_MEMORY_BYTES = 4 * 1024 * 1024
"""Files are read at once up to this size; larger ones stay on the disk."""


Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


def load_image(source: Source, *, max_bytes: int = MAX_FILE_BYTES) -> Image:
    """Read and check the one image that a file holds, by its path, from bytes or from an open binary file.

    Whatever `load_package` reads is taken, if there is one image in it. Raises `ImageError` as that does, and for
    several images.
    """
    return load_package(source, max_bytes=max_bytes).choose().image


def load_package(source: Source, *, max_bytes: int = MAX_FILE_BYTES) -> Package:
    """Read and check all images that a file holds: a signed binary, an Intel HEX, a package, a build directory.

    The path `-` is standard input. A signed binary that is named by its path and larger than `IN_MEMORY_BYTES` is not
    kept in memory but left where it is, as `FileBytes`, and stays open as long as the image is in use.

    Raises `ImageError` for files that cannot be read, that are larger than `max_bytes`, or that hold no image; for a
    package of which a part is missing or damaged; and for archives that are made to do harm.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return parse_package(bytes(source))
    path, data = _read(source, max_bytes)
    if data is None:
        return load_build(path)
    if len(data) > max_bytes:
        raise _too_large(path, max_bytes)
    package = None
    try:
        package = parse_package(data, path=path or None)
    finally:
        # Now, however long somebody keeps the error.
        if isinstance(data, FileBytes) and (package is None or package.images[0].image.data is not data):
            data.close()
    return package


def _read(source: str | os.PathLike[str] | BinaryIO, max_bytes: int) -> tuple[str, bytes | FileBytes | None]:
    """The path and what is there; None for a directory."""
    if isinstance(source, (str, os.PathLike)) and os.fspath(source) != "-":
        path = os.fspath(source)
        try:
            if os.path.isdir(path):
                return path, None
            _refuse_devices(path)
            with open(path, "rb") as stream:
                status = os.fstat(stream.fileno())
                size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                if size > max_bytes:
                    raise _too_large(path, max_bytes)
                # What is asked for takes memory at once, and not all files tell their size (/proc, pipes).
                return path, stream.read(size or max_bytes + 1) if size <= IN_MEMORY_BYTES else FileBytes(path)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL character
            raise unreadable(path, error) from error
    opened = sys.stdin.buffer if isinstance(source, (str, os.PathLike)) else source
    name = getattr(opened, "name", None)
    path = name if isinstance(name, str) else ""
    try:
        data = opened.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # ValueError: a closed file
        raise unreadable(path, error) from error
    if not isinstance(data, bytes):
        raise ImageError("the image file is open in text mode", path=path or None, hint='open it with mode "rb"')
    return path, data


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
