"""Group 8 of the simulated device: download, upload, status, hash, hash types, close.

The server keeps one open file, as Zephyr's does: what was written is seen by others once the file has been closed, and
a write that fails throws away all since the file was opened.

Source: Zephyr `subsys/mgmt/mcumgr/grp/fs_mgmt/src/fs_mgmt.c`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

from mcumgrx.errors import UsageError
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import GroupId, Op
from mcumgrx.sim.files import HASHES, MAX_SEEK, Content, FileSystem, FsConfig, GeneratedFile, PathError, pieces_of
from mcumgrx.sim.groups import Call, GroupError, GroupServer, Handler, Refused

HASH_NAME_BYTES = 8


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


@dataclass(slots=True)
class _OpenFile:
    """The one open file. `offset` is what the server counts, which need not be the size of the file.

    `content` is what has been written so far (None for a download), `kept` how much of what is on the flash it still
    shares.
    """

    name: str
    system: FileSystem
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
        self._systems = [FileSystem(mount) for mount in config.mounts]
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
        except PathError as error:
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
        restored: list[tuple[FileSystem, str, bytes]] = []
        for path, content in dict(found["files"]).items():
            try:
                restored.append((*self._resolve(path), bytes.fromhex(content)))
            except PathError as error:
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

    def _resolve(self, path: str, *, writing: bool = False) -> tuple[FileSystem, str]:
        if len(path) <= 1 or path[0] != "/":
            raise PathError("EINVAL")
        fitting = [system for system in self._systems if f"{path}/".startswith(f"{system.config.point}/")]
        if not fitting:
            raise PathError("ENOENT")
        system = max(fitting, key=lambda system: len(system.config.point))
        if writing and system.config.read_only:
            raise PathError("EROFS")
        key = system.find(path[len(system.config.point) :])
        if writing and path.endswith("/"):
            raise PathError("ENOTDIR")
        return system, key

    def _existing(self, path: str) -> tuple[FileSystem, str, Content]:
        """The file at `path`. Raises `GroupError`."""
        try:
            system, key = self._resolve(path)
        except PathError as error:
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
        except PathError as error:
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
        function, _, _ = HASHES[kind]
        return {**answer, "len": end - offset, "output": function(pieces_of(content, offset, end))}

    def types(self, call: Call) -> dict[str, Any]:
        self.advance(call.now)
        types = {}
        for name in self.config.hashes:
            _, is_bytes, size = HASHES[name]
            types[name] = {"format": int(is_bytes), "size": size}
        return {"types": types}


def _take(call: Call, seconds: float) -> None:
    """Keep the server busy, as writing to the device's flash does."""
    call.device.flash.busy_s += seconds
