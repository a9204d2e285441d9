"""File systems of the simulated device, in RAM: what is mounted, how much room it has, where a path leads.

They behave like littlefs. How files are asked for is the business of their command group.

Sources: littlefs `SPEC.md`, Zephyr `subsys/fs/fs.c`.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from mcumgrx.errors import UsageError

__all__ = [
    "HASHES",
    "MAX_SEEK",
    "Content",
    "FileSystem",
    "FsConfig",
    "FsMount",
    "GeneratedFile",
    "PathError",
    "pieces_of",
]

MAX_SEEK = 0x7FFFFFFF
"""The largest file littlefs knows; no offset behind it can be sought."""
INLINE_BYTES = 64
"""Files up to this size lie in the directory itself (littlefs with Zephyr's cache of 64 bytes)."""
ENTRY_BYTES = 16
"""What a directory entry takes beside name and inline content, about."""


_HELLO = b"Hello from a simulated device.\n"

PAGE_BYTES = 4096
_PAGE_FILL = random.Random(1).randbytes(PAGE_BYTES - 8)
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """The content of a file of `size` bytes, up to 2 GB, that takes no memory: it is made where it is read.

    Each page of 4096 bytes begins with its number, in eight bytes with the highest first, so none is like another;
    behind it come always the same 4088 bytes, which look random. A slice gives bytes.
    """

    size: int

    def __post_init__(self) -> None:
        if not 0 <= self.size <= MAX_SEEK:
            raise UsageError(f"no file has {self.size} bytes", hint=f"0 to {MAX_SEEK}")

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, where: slice) -> bytes:
        start, end, step = where.indices(self.size)
        if step != 1:
            raise ValueError("a file is read forward, byte by byte")
        if start >= end:
            return b""
        first = start // PAGE_BYTES
        pages = [part for page in range(first, -(-end // PAGE_BYTES)) for part in (page.to_bytes(8, "big"), _PAGE_FILL)]
        return b"".join(pages)[start - first * PAGE_BYTES : end - first * PAGE_BYTES]


Content = bytes | GeneratedFile


@dataclass(frozen=True, slots=True)
class FsMount:
    """One mounted file system.

    Attributes:
        point: where it is mounted, an absolute path.
        block_size: of the flash below, in bytes.
        blocks: of the flash below; two of them hold the directory.
        files: what is in it at first, by path below `point`, without a slash in front. Directories come with their
            files. A `GeneratedFile` must be on a mount that is read only.
        directories: that are there although they are empty.
        read_only: nothing can be uploaded.
    """

    point: str = "/lfs1"
    block_size: int = 4096
    blocks: int = 64
    files: Mapping[str, Content] = field(default_factory=lambda: {"hello.txt": _HELLO})
    directories: tuple[str, ...] = ()
    read_only: bool = False

    def __post_init__(self) -> None:
        if not self.point.startswith("/") or len(self.point) < 2 or self.point.endswith("/"):
            raise UsageError(f"no file system can be mounted at {self.point!r}")
        if self.block_size < 128 or self.blocks < 2:
            raise UsageError(f"no file system fits {self.blocks} blocks of {self.block_size} bytes")
        if not self.read_only and any(isinstance(content, GeneratedFile) for content in self.files.values()):
            raise UsageError(f"generated files can only be where nothing is written; {self.point} is not read only")

    @classmethod
    def generated(cls, point: str, name: str, size: int) -> Self:
        """A mount with one file of `size` bytes that takes no memory, to be downloaded."""
        blocks = size // (4096 - 8) + 8
        return cls(point=point, blocks=blocks, files={name: GeneratedFile(size)}, read_only=True)


@dataclass(frozen=True, slots=True)
class FsConfig:
    """How the file system group was built, and what is mounted. Sizes in bytes, times in seconds.

    Attributes:
        mounts: the file systems; the longest mount point that fits a path takes it.
        path_max: the longest path a request may name (`CONFIG_MCUMGR_GRP_FS_PATH_LEN`).
        chunk: of a download, where it fits the buffer; None takes the largest that always fits.
        offset_bytes: room kept for each offset in an answer: 3 for files up to 64 KB (Zephyr's default), else 5.
        file_max: the largest file that can be written.
        hashes: the types known, in the order in which they are listed; the first of `crc32` and `sha256` is the one
            used where a request names none.
        hash_types: answers the query for the types.
        idle_close_s: after which the open file is closed. Servers were seen to do it after 3.6 to 4.0 s.
        read_s_per_byte, write_s_per_byte, hash_s_per_byte: how long the server is busy with the file; writing
            includes erasing.
    """

    mounts: tuple[FsMount, ...] = (FsMount(),)
    path_max: int = 64
    chunk: int | None = None
    offset_bytes: int = 3
    file_max: int = MAX_SEEK
    hashes: tuple[str, ...] = ("crc32", "sha256")
    hash_types: bool = True
    idle_close_s: float = 3.8
    read_s_per_byte: float = 1e-6
    write_s_per_byte: float = 20e-6
    hash_s_per_byte: float = 2e-6

    def __post_init__(self) -> None:
        unknown = set(self.hashes) - set(HASHES)
        if unknown:
            raise UsageError(f"there is no hash type {', '.join(sorted(unknown))}; known are {', '.join(HASHES)}")
        if self.idle_close_s <= 0:
            raise UsageError("idle_close_s must be more than 0")


def _crc32(pieces: Iterable[bytes]) -> int:
    value = 0
    for piece in pieces:
        value = zlib.crc32(piece, value)
    return value


def _sha256(pieces: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def pieces_of(content: Content, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, _PIECE_BYTES):
        yield content[at : min(at + _PIECE_BYTES, end)]


# Name → function, whether its output is bytes, size of the output.
HASHES = {"crc32": (_crc32, False, 4), "sha256": (_sha256, True, 32)}


class PathError(Exception):
    """Why the file system does not do it: the errno that Zephyr's gives."""

    def __init__(self, errno: str) -> None:
        super().__init__(errno)
        self.errno = errno


class FileSystem:
    """The files of one mount, as they are on the flash."""

    def __init__(self, config: FsMount) -> None:
        self.config = config
        self.files: dict[str, Content] = {}
        self.directories: set[str] = set()
        for path in config.directories:
            self._make_directories(f"{path}/")
        for path, content in config.files.items():
            self._make_directories(path)
            self.files[path] = content if isinstance(content, GeneratedFile) else bytes(content)
        if self.blocks_used() > config.blocks:
            raise UsageError(f"the files of {config.point} do not fit its {config.blocks} blocks")

    def _make_directories(self, path: str) -> None:
        parts = path.split("/")[:-1]
        self.directories.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))

    def find(self, path: str) -> str:
        """The file that a path below the mount point leads to. Raises `PathError` for directories and dead ends.

        The last part need not exist: whether it may be missing is the caller's business.
        """
        parts: list[str] = []
        for part in path.split("/"):
            if part in ("", "."):
                continue
            if part == "..":
                if not parts:
                    raise PathError("EINVAL")
                parts.pop()
            else:
                parts.append(part)
        key = "/".join(parts)
        if not key or key in self.directories:
            raise PathError("EISDIR")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent in self.files:
                raise PathError("ENOTDIR")
            if parent not in self.directories:
                raise PathError("ENOENT")
        if key in self.files and path.endswith("/"):
            raise PathError("ENOTDIR")
        return key

    def blocks_of(self, size: int) -> int:
        """Blocks that a file of this size takes: each but the first begins with pointers to earlier ones."""
        if size <= INLINE_BYTES:
            return 0
        # Block n > 0 begins with a pointer of 4 bytes for each power of two that divides n, 1 included. Those of blocks
        # 1 to n are 2n in all, less the ones in n. Begun with what cannot be enough, the count is soon found.
        block_size = self.config.block_size
        count = max(1, (size - 4 * 66) // (block_size - 8))
        while count * block_size - 4 * (2 * (count - 1) - (count - 1).bit_count()) < size:
            count += 1
        return count

    def blocks_used(self) -> int:
        """Blocks in use by closed files and the directory, which grows in pairs that it fills to the half."""
        entries = 0
        for path, content in self.files.items():
            inline = len(content) if len(content) <= INLINE_BYTES else 8
            entries += ENTRY_BYTES + len(path) + inline
        pairs = 1 + entries // (self.config.block_size // 2)
        return 2 * pairs + sum(self.blocks_of(len(content)) for content in self.files.values())
