"""ZIP archives, read with distrust: by what their directory says, a member at a time, and never more than it says.

Nothing is written, and nothing is unpacked that was not asked for. Source: PKWARE's APPNOTE.TXT 6.3.
"""

from __future__ import annotations

import re
import struct
import unicodedata
import zlib
from dataclasses import dataclass

from mcumgrx.errors import ImageError
from mcumgrx.mcuboot.kinds import Content

__all__ = ["MAX_MEMBERS", "MAX_MEMBER_BYTES", "Archive", "Member", "shown"]

MAX_MEMBERS = 2000
MAX_MEMBER_BYTES = 12 * 1024 * 1024
"""Of one file, unpacked: more than any image has, also of those for flash on chips of its own. All that is read of an
archive is half as much again; with what unpacking takes, a process stays below 64 MB."""

_MAX_DIRECTORY = 1024 * 1024
_MAX_COMMENT = 0xFFFF
_STEP = 256 * 1024

_END = struct.Struct("<4s4H2IH")
_END64_AT = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENTRY = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_EXTRA = struct.Struct("<HH")

_FULL = 0xFFFFFFFF
_ENCRYPTED = 0x0001 | 0x0040
_UTF8 = 0x0800
_STORED, _DEFLATED = 0, 8
_LINK = 0o120000

_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive, as its directory describes it; sizes in bytes."""

    name: str
    """With `/` between folders, in Unicode's composed form."""
    size: int
    packed: int
    method: int
    flags: int
    crc: int
    offset: int
    raw_name: bytes


class Archive:
    """The files of an archive, by name.

    Raises `ImageError` for an archive that is cut or damaged, and for one that is made to do harm: names that lead out
    of it, links, two files of one name, sizes or counts beyond what firmware has.
    """

    def __init__(self, data: Content) -> None:
        self._data = data
        self._left = MAX_MEMBER_BYTES + MAX_MEMBER_BYTES // 2
        self.members: dict[str, Member] = {}
        directory, count = self._directory()
        at = 0
        for _ in range(count):
            at = self._add(directory, at)
        if at != len(directory):
            raise _damaged("its directory is longer than what it lists")

    # -- the directory ------------------------------------------------------------------------------------------------

    def _directory(self) -> tuple[bytes, int]:
        size = len(self._data)
        tail_at = max(0, size - _END.size - _MAX_COMMENT)
        tail = bytes(self._data[tail_at:size])
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or at + _END.size > len(tail):
            raise _damaged("it has no end")
        _, disk, first_disk, here, count, length, offset, comment = _END.unpack_from(tail, at)
        end = tail_at + at
        if end + _END.size + comment != size:
            raise _damaged("something follows its end")
        if bytes(self._data[max(0, end - _END64_AT.size) : end]).startswith(b"PK\x06\x07"):
            end, disk, first_disk, here, count, length, offset = self._directory64(end - _END64_AT.size)
        if disk or first_disk or here != count:
            raise ImageError("the ZIP archive is one of several volumes", hint="put them together first")
        if count > MAX_MEMBERS or length > _MAX_DIRECTORY:
            raise ImageError(
                f"the ZIP archive holds {count:,} files, more than the {MAX_MEMBERS:,} that are looked at",
                hint="unpack it, and take the signed .bin or dfu_application.zip in it",
            )
        if offset + length != end:
            raise _damaged("its directory is not where it says")
        return bytes(self._data[offset:end]), count

    def _directory64(self, at: int) -> tuple[int, int, int, int, int, int, int]:
        *_, where, _ = _END64_AT.unpack(bytes(self._data[at : at + _END64_AT.size]))
        if where + _END64.size > at:
            raise _damaged("its zip64 end is missing")
        magic, _, _, _, disk, first, here, count, length, offset = _END64.unpack(
            bytes(self._data[where : where + _END64.size])
        )
        if magic != b"PK\x06\x06":
            raise _damaged("its zip64 end is missing")
        return where, disk, first, here, count, length, offset

    def _add(self, directory: bytes, at: int) -> int:
        if at + _ENTRY.size > len(directory):
            raise _damaged("its directory is cut")
        magic, made_by, _, flags, method, _, _, crc, packed, size, n, m, k, _, _, mode, offset = _ENTRY.unpack_from(
            directory, at
        )
        names_at = at + _ENTRY.size
        extra_at = names_at + n
        end: int = extra_at + m + k
        if magic != b"PK\x01\x02" or end > len(directory):
            raise _damaged("its directory is cut")
        raw = directory[names_at:extra_at]
        if _FULL in (size, packed, offset):
            size, packed, offset = _extra64(directory[extra_at : extra_at + m], size, packed, offset)
        name = _name(raw, flags)
        if made_by >> 8 == 3 and (mode >> 16) & 0o170000 == _LINK:
            raise ImageError(f"{shown(name)} in the ZIP archive is a link", hint="packages hold files alone")
        if name.endswith("/"):
            return end
        if name in self.members:
            raise ImageError(f"the ZIP archive holds {shown(name)} twice", hint="build the package again")
        self.members[name] = Member(name, size, packed, method, flags, crc, offset, raw)
        return end

    # -- the files ----------------------------------------------------------------------------------------------------

    def read(self, member: Member, most: int = MAX_MEMBER_BYTES) -> bytes:
        """All of a file, of at most `most` bytes; its length and its checksum are as the directory says."""
        name = shown(member.name)
        if member.size > min(most, self._left):
            raise ImageError(
                f"{name} in the ZIP archive unpacks to {member.size:,} bytes: too much for firmware",
                hint="unpack it, and take the signed .bin",
            )
        if member.flags & _ENCRYPTED:
            raise ImageError(f"{name} in the ZIP archive is encrypted", hint="unpack it with its password first")
        if member.method not in (_STORED, _DEFLATED):
            raise ImageError(
                f"{name} in the ZIP archive is packed with method {member.method}, which is not read here",
                hint="pack it again with deflate, or unpack it and take the signed .bin",
            )
        head = bytes(self._data[member.offset : member.offset + _LOCAL.size])
        if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
            raise _damaged(f"{name} is not where it says")
        *_, n, m = _LOCAL.unpack(head)
        begin = member.offset + _LOCAL.size
        if bytes(self._data[begin : begin + n]) != member.raw_name:
            raise _damaged(f"{name} has another name there")
        begin += n + m
        if begin + member.packed > len(self._data):
            raise _damaged(f"{name} is cut")
        self._left -= member.size
        found = self._stored(member, begin) if member.method == _STORED else self._inflated(member, begin)
        if len(found) != member.size:
            raise _damaged(f"{name} does not have the {member.size:,} bytes that it says")
        if zlib.crc32(found) != member.crc:
            raise _damaged(f"the checksum of {name} is wrong")
        return found

    def _stored(self, member: Member, begin: int) -> bytes:
        return bytes(self._data[begin : begin + min(member.packed, member.size + 1)])

    def _inflated(self, member: Member, begin: int) -> bytes:
        unpacker, found = zlib.decompressobj(-15), bytearray()
        end = begin + member.packed
        try:
            while begin < end and not unpacker.eof and len(found) <= member.size:
                step = unpacker.unconsumed_tail + bytes(self._data[begin : min(end, begin + _STEP)])
                begin += _STEP
                found += unpacker.decompress(step, member.size + 1 - len(found))
                while unpacker.unconsumed_tail and len(found) <= member.size:
                    found += unpacker.decompress(unpacker.unconsumed_tail, member.size + 1 - len(found))
        except zlib.error:
            raise _damaged(f"{shown(member.name)} cannot be unpacked") from None
        return bytes(found)


def shown(name: str) -> str:
    """A name out of an archive, harmless and not too long."""
    text = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in name[:200])
    return text if len(text) <= 60 else f"{text[:57]}..."


def _damaged(what: str) -> ImageError:
    return ImageError(
        f"this is a ZIP archive that is cut or damaged: {what}",
        hint="download or build it again; the copy was not complete",
    )


def _extra64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The sizes that did not fit 32 bits; those that did are not repeated."""
    at = 0
    while at + _EXTRA.size <= len(extra):
        kind, length = _EXTRA.unpack_from(extra, at)
        value = extra[at + _EXTRA.size : at + _EXTRA.size + length]
        at += _EXTRA.size + length
        if kind == 1:
            found = []
            for told in (size, packed, offset):
                if told == _FULL:
                    if len(value) < 8:
                        raise _damaged("its zip64 sizes are missing")
                    told, value = int.from_bytes(value[:8], "little"), value[8:]
                found.append(told)
            return found[0], found[1], found[2]
    return size, packed, offset


def _name(raw: bytes, flags: int) -> str:
    """The name, refused where it could lead elsewhere or do something to a terminal."""
    try:
        name = raw.decode("utf-8")  # what macOS writes even without the flag; no text in CP437 looks like it
    except UnicodeDecodeError:
        if flags & _UTF8:
            raise _damaged("a name in it is no text") from None
        name = raw.decode("cp437")
    # Windows PowerShell separates folders by backslashes.
    name = unicodedata.normalize("NFC", name).replace("\\", "/").removeprefix("./")
    if not name or name.startswith("/") or _DRIVE.match(name) or ".." in name.split("/"):
        raise ImageError(
            f"the ZIP archive has an unsafe name: {shown(name)}", hint="a package names files beside its manifest"
        )
    if not all(one.isprintable() for one in name):
        raise ImageError(f"the ZIP archive has an unsafe name: {shown(name)}", hint="it has control characters")
    return name
