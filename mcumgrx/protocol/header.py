"""The eight bytes in front of every SMP message: fields, their names, and the numbers of versions and groups.

Layout (big-endian on the wire whatever older documents say)::

    byte 0    bits 7..5 reserved, 4..3 version, 2..0 op
    byte 1    flags: send 0, ignore on receipt
    byte 2-3  length of the payload, without the header
    byte 4-5  group
    byte 6    sequence
    byte 7    command

Source: Zephyr `include/zephyr/mgmt/mcumgr/smp/smp.h`, `struct smp_hdr`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from . import codec

HEADER_SIZE = 8
MAX_PAYLOAD = 0xFFFF


class Op(IntEnum):
    """What a message does. Values 4 to 7 do not exist."""

    READ = 0
    READ_REPLY = 1
    WRITE = 2
    WRITE_REPLY = 3

    @property
    def reply(self) -> Op:
        """The op of the answer to this request."""
        return Op(self | 1)


# Masks for `codec.Reassembler`: which ops a client, and which a server, can expect to receive.
REPLY_OPS = 1 << Op.READ_REPLY | 1 << Op.WRITE_REPLY
REQUEST_OPS = 1 << Op.READ | 1 << Op.WRITE


class Version(IntEnum):
    """The version bits. Zephyr before 3.4 ignores them and always answers in version 1 form."""

    V1 = 0
    V2 = 1


class GroupId(IntEnum):
    """Command groups with a fixed number; applications use 64 and above."""

    OS = 0
    IMAGE = 1
    STATISTICS = 2
    SETTINGS = 3
    LOG = 4
    CRASH = 5
    SPLIT = 6
    RUN = 7
    FILE_SYSTEM = 8
    SHELL = 9
    ENUMERATION = 10
    TRANSPORT = 11
    ZEPHYR_BASIC = 63
    PER_USER = 64


class Header(NamedTuple):
    """One header. Unknown ops, flags, groups and commands are kept as they are."""

    op: int
    version: int
    flags: int
    length: int
    group: int
    sequence: int
    command: int

    def pack(self) -> bytes:
        """The eight bytes. Raises `ValueError` naming the field that is out of range."""
        return codec.pack_header(*self)

    @classmethod
    def unpack(cls, data: bytes, offset: int = 0) -> Header:
        """Read the header at `offset`. Raises `ValueError` for fewer than eight bytes."""
        return cls(*codec.unpack_header(data, offset))
