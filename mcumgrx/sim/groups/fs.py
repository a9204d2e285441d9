"""Group 8 of the simulated device: download, upload, status, hash, hash types, close; over a file system in RAM.

The server keeps one open file, as Zephyr's does, and the file system below behaves like littlefs: what was written is
seen by others once the file has been closed, and a write that fails throws away all since the file was opened.

Sources: Zephyr `subsys/mgmt/mcumgr/grp/fs_mgmt/src/fs_mgmt.c`, `subsys/fs/fs.c`, littlefs `SPEC.md`.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ClassVar, Self

from mcumgrx.errors import UsageError
from mcumgrx.protocol.header import GroupId, Op
from mcumgrx.protocol.message import SmpError
from mcumgrx.sim.groups import Call, GroupError, GroupServer, Handler, Refused

__all__ = ["FsConfig", "FsErrorCode", "FsMount", "FsServer", "GeneratedFile"]

MAX_SEEK = 0x7FFFFFFF
"""The largest file littlefs knows; no offset behind it can be sought."""
HASH_NAME_BYTES = 8
INLINE_BYTES = 64
"""Files up to this size lie in the directory itself (littlefs with Zephyr's cache of 64 bytes)."""
ENTRY_BYTES = 16
"""What a directory entry takes beside name and inline content, about."""


class FsErrorCode(IntEnum):
    """Codes of group 8 (Zephyr `fs_mgmt.h`)."""

    UNKNOWN = 1
    FILE_INVALID_NAME = 2
    FILE_NOT_FOUND = 3
    FILE_IS_DIRECTORY = 4
    FILE_OPEN_FAILED = 5
    FILE_SEEK_FAILED = 6
    FILE_READ_FAILED = 7
    FILE_TRUNCATE_FAILED = 8
    FILE_DELETE_FAILED = 9
    FILE_WRITE_FAILED = 10
    FILE_OFFSET_NOT_VALID = 11
    FILE_OFFSET_LARGER_THAN_FILE = 12
    CHECKSUM_HASH_NOT_FOUND = 13
    MOUNT_POINT_NOT_FOUND = 14
    READ_ONLY_FILESYSTEM = 15
    FILE_EMPTY = 16


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
        unknown = set(self.hashes) - set(_HASHES)
        if unknown:
            raise UsageError(f"there is no hash type {', '.join(sorted(unknown))}; known are {', '.join(_HASHES)}")
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


def _pieces(content: Content, start: int, end: int) -> Iterator[bytes]:
    for at in range(start, end, _PIECE_BYTES):
        yield content[at : min(at + _PIECE_BYTES, end)]


# Name → function, whether its output is bytes, size of the output.
_HASHES = {"crc32": (_crc32, False, 4), "sha256": (_sha256, True, 32)}


class _PathError(Exception):
    """Why the file system does not do it: the errno that Zephyr's gives."""

    def __init__(self, errno: str) -> None:
        super().__init__(errno)
        self.errno = errno


# errno → code, where it differs between writing and all else; any other is `UNKNOWN`.
_READ_CODES = {
    "EINVAL": FsErrorCode.FILE_INVALID_NAME,
    "ENOENT": FsErrorCode.FILE_NOT_FOUND,
    "EISDIR": FsErrorCode.FILE_IS_DIRECTORY,
}
_WRITE_CODES = {
    "EINVAL": FsErrorCode.FILE_INVALID_NAME,
    "ENOENT": FsErrorCode.MOUNT_POINT_NOT_FOUND,
    "EROFS": FsErrorCode.READ_ONLY_FILESYSTEM,
}


class _FileSystem:
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
        """The file that a path below the mount point leads to. Raises `_PathError` for directories and dead ends.

        The last part need not exist: whether it may be missing is the caller's business.
        """
        parts: list[str] = []
        for part in path.split("/"):
            if part in ("", "."):
                continue
            if part == "..":
                if not parts:
                    raise _PathError("EINVAL")
                parts.pop()
            else:
                parts.append(part)
        key = "/".join(parts)
        if not key or key in self.directories:
            raise _PathError("EISDIR")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if parent in self.files:
                raise _PathError("ENOTDIR")
            if parent not in self.directories:
                raise _PathError("ENOENT")
        if key in self.files and path.endswith("/"):
            raise _PathError("ENOTDIR")
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


@dataclass(slots=True)
class _OpenFile:
    """The one open file. `offset` is what the server counts, which need not be the size of the file.

    `content` is what has been written so far (None for a download), `kept` how much of what is on the flash it still
    shares.
    """

    name: str
    system: _FileSystem
    path: str
    offset: int = 0
    length: int = 0
    content: bytearray | None = None
    kept: int = 0
    deadline: float = 0.0


class FsServer(GroupServer):
    """The file system group.

    `advance` closes the file that nobody has asked for in a while; every command calls it first.
    """

    group: ClassVar[int] = GroupId.FILE_SYSTEM
    name = "fs mgmt"
    legacy_codes: ClassVar[Mapping[int, int]] = {
        FsErrorCode.FILE_INVALID_NAME: SmpError.INVALID,
        FsErrorCode.CHECKSUM_HASH_NOT_FOUND: SmpError.INVALID,
        FsErrorCode.FILE_NOT_FOUND: SmpError.NO_ENTRY,
        FsErrorCode.MOUNT_POINT_NOT_FOUND: SmpError.NO_ENTRY,
    }

    def __init__(self, config: FsConfig | None = None) -> None:
        self.config = config = config if config is not None else FsConfig()
        handlers: dict[tuple[Op, int], Handler] = {
            (Op.READ, 0): self.download,
            (Op.WRITE, 0): self.upload,
            (Op.READ, 1): self.status,
            (Op.WRITE, 4): self.close,
        }
        if config.hashes:
            handlers[Op.READ, 2] = self.hash
            if config.hash_types:
                handlers[Op.READ, 3] = self.types
        super().__init__(handlers)
        self.changes = 0
        """Counts what `snapshot` would show differently."""
        self._systems = [_FileSystem(mount) for mount in config.mounts]
        self._open: _OpenFile | None = None
        self._now = 0.0

    # -- for tests and the state file ---------------------------------------------------------------------------------

    @property
    def files(self) -> dict[str, bytes]:
        """All files by their absolute paths, as they are on the flash: without what is in the open one.

        Generated ones, which never change, are left out, here and in the snapshot.
        """
        return dict(self._files(closed=False))

    def write(self, path: str, content: bytes) -> None:
        """Put a file there as the application would, without taking time. Raises `UsageError` where it cannot be."""
        self._close()
        try:
            system, key = self._resolve(path)
        except _PathError as error:
            raise UsageError(f"{path} cannot be written to: {error.errno}") from error
        old = system.files.get(key)
        system.files[key] = bytes(content)
        if system.blocks_used() > system.config.blocks:
            del system.files[key]
            if old is not None:
                system.files[key] = old
            raise UsageError(f"{path} with {len(content)} bytes does not fit the file system")
        self.changes += 1

    @property
    def open_path(self) -> str | None:
        """The path of the open file."""
        return None if self._open is None else self._open.name

    def snapshot(self) -> dict[str, Any]:
        """All files, as they are once the open one has been closed; JSON-safe."""
        return {"files": {path: content.hex() for path, content in self._files(closed=True)}}

    def restore(self, found: Mapping[str, Any]) -> None:
        """Put a snapshot back in place of all files. Raises `ValueError`, `KeyError` or `TypeError`."""
        restored: list[tuple[_FileSystem, str, bytes]] = []
        for path, content in dict(found["files"]).items():
            try:
                restored.append((*self._resolve(path), bytes.fromhex(content)))
            except _PathError as error:
                raise ValueError(f"no file can be at {path}") from error
        self._open = None
        for system in self._systems:
            generated = {key: content for key, content in system.files.items() if isinstance(content, GeneratedFile)}
            system.files = {**generated}
        for system, key, content in restored:
            system.files[key] = content
        self.changes += 1

    def _files(self, *, closed: bool) -> Iterator[tuple[str, bytes]]:
        opened = self._open if closed else None
        for system in self._systems:
            for key, content in system.files.items():
                mine = opened is not None and opened.system is system and opened.path == key
                if mine and opened is not None and opened.content is not None:
                    content = bytes(opened.content)
                if isinstance(content, GeneratedFile):
                    continue
                yield f"{system.config.point}/{key}", content

    # -- the open file ------------------------------------------------------------------------------------------------

    def restarted(self) -> None:
        self._open = None  # what was not closed is lost

    def advance(self, now: float) -> None:
        """Let the open file be closed if that is due at `now`."""
        opened = self._open
        if opened is not None:
            if now < self._now:
                opened.deadline += now - self._now  # another clock: the idle time goes on there
            if now >= opened.deadline:
                self._close()
        self._now = now

    def _close(self) -> None:
        opened, self._open = self._open, None
        if opened is not None and opened.content is not None:
            content = bytes(opened.content)
            if opened.system.files.get(opened.path) != content:
                self.changes += 1
            opened.system.files[opened.path] = content

    def _done(self, opened: _OpenFile) -> None:
        """After each successful chunk. A length of 0 is one that is not known, so such a file stays open."""
        if 0 < opened.length <= opened.offset:
            self._close()
        else:
            opened.deadline = self._now + self.config.idle_close_s

    # -- paths --------------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        """The path in a request. Raises `Refused`: its length is looked at before anything else."""
        if not 1 <= len(name.encode("utf-8", "surrogateescape")) <= self.config.path_max:
            raise Refused(SmpError.INVALID)
        return name.partition("\0")[0]  # it is a C string from here on

    def _resolve(self, path: str, *, writing: bool = False) -> tuple[_FileSystem, str]:
        if len(path) <= 1 or path[0] != "/":
            raise _PathError("EINVAL")
        fitting = [system for system in self._systems if f"{path}/".startswith(f"{system.config.point}/")]
        if not fitting:
            raise _PathError("ENOENT")
        system = max(fitting, key=lambda system: len(system.config.point))
        if writing and system.config.read_only:
            raise _PathError("EROFS")
        key = system.find(path[len(system.config.point) :])
        if writing and path.endswith("/"):
            raise _PathError("ENOTDIR")
        return system, key

    def _existing(self, path: str) -> tuple[_FileSystem, str, Content]:
        """The file at `path`. Raises `GroupError`."""
        try:
            system, key = self._resolve(path)
        except _PathError as error:
            raise GroupError(_READ_CODES.get(error.errno, FsErrorCode.UNKNOWN)) from error
        if key not in system.files:
            raise GroupError(FsErrorCode.FILE_NOT_FOUND)
        return system, key, system.files[key]

    # -- commands -----------------------------------------------------------------------------------------------------

    def status(self, call: Call) -> dict[str, Any]:
        self.advance(call.now)
        name = call.read(name="text").get("name", "")
        _, _, content = self._existing(self._path(name))
        return {"len": len(content)}

    def close(self, call: Call) -> dict[str, Any]:
        self.advance(call.now)
        self._close()
        return {}

    def download(self, call: Call) -> dict[str, Any]:
        self.advance(call.now)
        wanted = call.read(off="uint", name="text")
        offset: int | None = wanted.get("off")
        if offset is None:
            raise Refused(SmpError.INVALID)
        path = self._path(wanted.get("name", ""))
        opened = self._open
        if opened is None or opened.content is not None or opened.name != path:
            self._close()
            system, key, content = self._existing(path)
            opened = self._open = _OpenFile(path, system, key, length=len(content))
        if offset > MAX_SEEK:
            self._close()
            raise GroupError(FsErrorCode.FILE_SEEK_FAILED)
        data = opened.system.files[opened.path][offset : offset + self._chunk(call)]
        opened.offset = offset + len(data)
        _take(call, len(data) * self.config.read_s_per_byte)
        answer: dict[str, Any] = {"off": offset, "data": data}
        if offset == 0:
            answer["len"] = opened.length
        self._done(opened)
        return answer

    def _chunk(self, call: Call) -> int:
        """Bytes in a download's answer: what is left beside the longest of everything else in it.

        Header 8, map 10, `rc` 4, and `off`, `data` and `len` with an offset each (Zephyr `fs_mgmt_config.h`).
        """
        largest = call.device.config.buf_size - (8 + 10 + 4 + 4 + 5 + 4 + 3 * self.config.offset_bytes)
        return largest if self.config.chunk is None else min(largest, self.config.chunk)

    def upload(self, call: Call) -> dict[str, Any]:
        self.advance(call.now)
        chunk = call.read(off="uint", name="text", data="bytes", len="uint")
        offset: int | None = chunk.get("off")
        data: bytes = chunk.get("data", b"")
        name: str = chunk.get("name", "")
        if offset is None or (offset == 0 and "len" not in chunk):
            raise Refused(SmpError.INVALID)
        opened = self._open_to_write(self._path(name))
        closed_size = len(opened.system.files[opened.path])  # a file's size does not change before it is closed
        if offset == 0:
            opened.length = chunk["len"]
        elif opened.offset == 0:
            opened.offset = closed_size
        # What the server has counted, which is more than the file holds after a first chunk that came twice.
        if offset > 0 and offset != opened.offset:
            self._close()
            raise GroupError(FsErrorCode.FILE_OFFSET_NOT_VALID, extra={"len": opened.offset})
        if data:
            self._append(opened, data, truncate=offset == 0 and closed_size != 0)
            _take(call, len(data) * self.config.write_s_per_byte)
        self._done(opened)
        return {"off": opened.offset}

    def _open_to_write(self, path: str) -> _OpenFile:
        opened = self._open
        if opened is not None and opened.content is not None and opened.name == path:
            return opened
        self._close()
        try:
            system, key = self._resolve(path, writing=True)
        except _PathError as error:
            raise GroupError(_WRITE_CODES.get(error.errno, FsErrorCode.UNKNOWN)) from error
        if key not in system.files:
            system.files[key] = b""
            if system.blocks_used() > system.config.blocks:
                del system.files[key]
                raise GroupError(FsErrorCode.UNKNOWN)
            self.changes += 1
        content = bytearray(system.files[key][:])
        self._open = _OpenFile(path, system, key, content=content, kept=len(content))
        return self._open

    def _append(self, opened: _OpenFile, data: bytes, *, truncate: bool) -> None:
        """Write at the end of the file: an offset of 0 is there too, unless the file had content when it was opened.

        So a first chunk that comes twice is in an empty file twice. One with content is cut each time, but the
        server's offset counts on.
        """
        content, system = opened.content, opened.system
        assert content is not None
        if truncate:
            content.clear()
            opened.kept = 0
        content += data
        shared = opened.kept // system.config.block_size  # littlefs copies on write: the old blocks are still in use
        needed = system.blocks_used() + system.blocks_of(len(content)) - shared
        if needed > system.config.blocks or len(content) > self.config.file_max:
            self._open = None  # a file with an error is not written back when it is closed
            raise GroupError(FsErrorCode.FILE_WRITE_FAILED)
        opened.offset += len(data)
        self.changes += 1

    def hash(self, call: Call) -> dict[str, Any]:
        self.advance(call.now)
        wanted = call.read(type="text", name="text", off="uint", len="uint")
        offset: int = wanted.get("off", 0)
        length: int | None = wanted.get("len")
        kind: str = wanted.get("type", "")
        path = self._path(wanted.get("name", ""))
        if len(kind.encode("utf-8", "surrogateescape")) > HASH_NAME_BYTES or length == 0:
            raise Refused(SmpError.INVALID)
        known = self.config.hashes
        if not kind:
            kind = "crc32" if "crc32" in known else known[0]
        kind = kind.partition("\0")[0]
        if kind not in known:
            raise GroupError(FsErrorCode.CHECKSUM_HASH_NOT_FOUND)
        _, _, content = self._existing(path)
        if offset >= len(content):
            raise GroupError(FsErrorCode.FILE_OFFSET_LARGER_THAN_FILE if content else FsErrorCode.FILE_EMPTY)
        end = len(content) if length is None else min(offset + length, len(content))
        _take(call, (end - offset) * self.config.hash_s_per_byte)
        answer: dict[str, Any] = {"type": kind}
        if offset:
            answer["off"] = offset
        function, _, _ = _HASHES[kind]
        return {**answer, "len": end - offset, "output": function(_pieces(content, offset, end))}

    def types(self, call: Call) -> dict[str, Any]:
        self.advance(call.now)
        types = {}
        for name in self.config.hashes:
            _, is_bytes, size = _HASHES[name]
            types[name] = {"format": int(is_bytes), "size": size}
        return {"types": types}


def _take(call: Call, seconds: float) -> None:
    """Keep the server busy, as writing to the device's flash does."""
    call.device.flash.busy_s += seconds
