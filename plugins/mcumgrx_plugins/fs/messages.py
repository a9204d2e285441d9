"""Messages of group 8 (Zephyr `fs_mgmt.c`), and its codes.

Which chunk when, and what an answer to one means, is the business of `plan`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mcumgrx.plugin_api import Body, ErrorCode, Fields, Fragment, Hint, MalformedReply, Op, Run, SmpCommand

from . import FS

_MOUNT_POINT = "a path begins with the mount point of a file system, as in /lfs1/name"


class FsErrorCode(ErrorCode):
    """Codes of group 8 (Zephyr `fs_mgmt.h`)."""

    # Whatever else the file system says; which of it is likely, depends on the command (`group`).
    UNKNOWN = 1, "unknown error"
    FILE_INVALID_NAME = 2, "that is not a valid path", _MOUNT_POINT
    # The same where it is the directory or the file system that is missing, but for uploads, which have a code for it.
    FILE_NOT_FOUND = 3, "there is no such file", _MOUNT_POINT
    FILE_IS_DIRECTORY = 4, "that is a directory", "name a file in it"
    FILE_OPEN_FAILED = 5, "the file cannot be opened", "the device's log may tell why"
    FILE_SEEK_FAILED = 6, "the file cannot be read or written at this offset"
    FILE_READ_FAILED = 7, "reading the file failed"
    FILE_TRUNCATE_FAILED = 8, "the old content of the file cannot be thrown away"
    FILE_DELETE_FAILED = 9, "the old file cannot be deleted"
    FILE_WRITE_FAILED = (
        10,
        "writing the file failed",
        "its file system is probably full: while a file is replaced, the old one needs room too",
    )
    FILE_OFFSET_NOT_VALID = 11, "the file does not end at this offset"
    FILE_OFFSET_LARGER_THAN_FILE = 12, "the offset is at or behind the end of the file", "see its size ('fs size')"
    CHECKSUM_HASH_NOT_FOUND = (
        13,
        "the device does not know this type of hash",
        Hint(Run("fs hashes"), " lists those it knows; their names are in lower case"),
    )
    MOUNT_POINT_NOT_FOUND = 14, "no file system is mounted there, or a directory of the path is missing", _MOUNT_POINT
    READ_ONLY_FILESYSTEM = 15, "its file system is read-only"
    FILE_EMPTY = 16, "the file is empty", "an empty file has no hash"


# -- download ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileChunk(Fragment):
    """A piece of a file, empty at its end and behind; its `length`, the size of the whole, comes only at offset 0."""

    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadFile(SmpCommand[FileChunk], group=FS, number=0, what="file download", repeatable=True):
    """The piece of a file at `offset`; how large it is, the device decides."""

    name: str
    offset: int

    def body(self) -> Body:
        return {"name": self.name, "off": self.offset}

    def parse(self, fields: Fields) -> FileChunk:
        length = fields.optional_integer("len") if self.offset == 0 else fields.lenient.optional_integer("len")
        return FileChunk(fields.integer("off"), fields.data("data"), length, fields.extra())


# -- upload -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileProgress:
    """How many bytes the device counts after a chunk."""

    offset: int
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WriteFile(SmpCommand[FileProgress], group=FS, number=0, op=Op.WRITE, what="file upload"):
    """A piece of a file, to be written at its end; at offset 0 with the `length` of the whole.

    The device neither compares the length with the data nor knows a piece that comes twice: at offset 0 it truncates
    the file or appends to it, depending on what was there when it was opened.
    """

    name: str
    offset: int
    data: bytes
    length: int | None = None

    def body(self) -> Body:
        body: Body = {"name": self.name, "off": self.offset}
        if self.length is not None:
            body["len"] = self.length
        body["data"] = self.data
        return body

    def parse(self, fields: Fields) -> FileProgress:
        return FileProgress(fields.integer("off"), fields.extra())


# -- size and hash ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileStatus:
    """The size of a file in bytes, without what was written since it was opened."""

    size: int
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadStatus(SmpCommand[FileStatus], group=FS, number=1, what="file size query", repeatable=True):
    """The size of a file."""

    name: str

    def parse(self, fields: Fields) -> FileStatus:
        size = fields.integer("len")
        if size < 0:
            raise MalformedReply(f"it says that the file has {size} bytes")
        return FileStatus(size, fields.extra())


@dataclass(frozen=True, slots=True)
class FileHash:
    """The hash of `length` bytes of a file from `offset` on: a number (checksums) or bytes, as the type defines."""

    type: str
    offset: int
    length: int
    output: int | bytes
    extra: Body = field(default_factory=dict)

    @property
    def hex(self) -> str:
        """The output as tools print it, checksums with eight digits."""
        return self.output.hex() if isinstance(self.output, bytes) else f"{self.output:08x}"


@dataclass(frozen=True, slots=True)
class ReadHash(SmpCommand[FileHash], group=FS, number=2, what="file hash query", repeatable=True, timeout_s=30.0):
    """The hash of a file or of `length` bytes of it; without a type the device's default, which is crc32 or sha256.

    The device reads the whole range before it answers.
    """

    name: str
    hash_type: str | None = None
    offset: int = 0
    length: int | None = None

    def body(self) -> Body:
        body = {"name": self.name, "type": self.hash_type, "off": self.offset or None, "len": self.length}
        return {key: value for key, value in body.items() if value is not None}

    def parse(self, fields: Fields) -> FileHash:
        type, offset, length = fields.text("type"), fields.integer("off", 0), fields.integer("len")
        output = fields.required("output")
        if isinstance(output, bool) or not isinstance(output, (int, bytes)):
            raise MalformedReply("'output' in it is neither a whole number nor a byte string")
        if isinstance(output, int) and output < 0:
            raise MalformedReply(f"'output' in it is {output}")
        return FileHash(type, offset, length, output, fields.extra())


@dataclass(frozen=True, slots=True)
class HashType:
    """A type of hash that the device can take: its name, whether the output is bytes or a number, bytes of output.

    What the device does not tell is None.
    """

    name: str
    is_bytes: bool | None = None
    size: int | None = None
    extra: Body = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadHashTypes(SmpCommand[tuple[HashType, ...]], group=FS, number=3, what="query of hash types", repeatable=True):
    """The types of hash that the device can take, in its order."""

    def parse(self, fields: Fields) -> tuple[HashType, ...]:
        found = {name: _hash_type(name, item) for name, item in fields.named_maps("types")}
        # A name is worth something without anything beside it.
        return tuple(found.get(name, HashType(name)) for name in fields.map("types"))


def _hash_type(name: str, fields: Fields) -> HashType:
    format = fields.optional_integer("format")
    return HashType(name, None if format is None else format == 1, fields.optional_integer("size"), fields.extra())


# -- close ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CloseFile(SmpCommand[None], group=FS, number=4, op=Op.WRITE, what="closing of the file", repeatable=True):
    """Let the device close the file that it has open, if any (Zephyr 3.3 and later)."""
