"""Another implementation as witness: the package `smp` and we read each other's messages and mean the same.

Two programs by different people that agree may still both be wrong; what real servers said is in `test_standard`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from mcumgrx.errors import DeviceError
from mcumgrx.messages.message import Body, Reply, SmpCommand, decode_body, encode_body
from mcumgrx.messages.standard import (
    Echo,
    EraseImage,
    ImageState,
    Params,
    ReadBootloader,
    ReadBootloaderMode,
    ReadImageState,
    ReadParams,
    Reset,
    Slot,
    UploadChunk,
    UploadProgress,
    WriteImageState,
)
from mcumgrx.protocol.codes import SmpError
from mcumgrx.protocol.header import Header, Op

pytest.importorskip("smp", reason="the package smp is not installed")

from smp import header as smp_header
from smp import image_management as smp_image
from smp import os_management as smp_os

pytestmark = pytest.mark.codec

ROUNDS = 10_000
SEED = 20_240_601

Random = random.Random


# -- random requests ------------------------------------------------------------------------------------------------

# Each makes one of our requests and the same one as the peer has it: its class, and its fields.
Pair = tuple[SmpCommand[Any], type[Any], dict[str, Any]]


def text(r: Random, most: int = 40) -> str:
    def char() -> int:
        return r.choice((r.randrange(32, 127), r.randrange(0xA0, 0xD7FF), 0x1F600))

    return "".join(chr(char()) for _ in range(r.randrange(most)))


def number(r: Random, bits: int = 32) -> int:
    """Every length of a CBOR integer about equally often, and its borders."""
    return r.choice((r.getrandbits(r.randrange(1, bits + 1)), 23, 24, 255, 256, 65535, 65536)) % (1 << bits)


def maybe(r: Random, value: Any) -> Any:
    return value if r.random() < 0.5 else None


def given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def echo(r: Random) -> Pair:
    words = text(r)
    return Echo(words), smp_os.EchoWriteRequest, {"d": words}


def params(r: Random) -> Pair:
    return ReadParams(), smp_os.MCUMgrParametersReadRequest, {}


def reset(r: Random) -> Pair:
    force, mode = r.random() < 0.5, maybe(r, r.randrange(256))
    return Reset(force, mode), smp_os.ResetWriteRequest, given(force=1 if force else None, boot_mode=mode)


def bootloader(r: Random) -> Pair:
    if r.random() < 0.5:
        return ReadBootloader(), smp_os.BootloaderInformationReadRequest, {}
    return ReadBootloaderMode(), smp_os.BootloaderInformationReadRequest, {"query": "mode"}


def read_state(r: Random) -> Pair:
    return ReadImageState(), smp_image.ImageStatesReadRequest, {}


def write_state(r: Random) -> Pair:
    digest, confirm = maybe(r, r.randbytes(r.choice((32, 48, 64)))), r.random() < 0.5
    return (
        WriteImageState(digest, confirm),
        smp_image.ImageStatesWriteRequest,
        {**given(hash=digest), "confirm": confirm},
    )


def upload(r: Random) -> Pair:
    offset, data = number(r), r.randbytes(r.randrange(600))
    if offset and r.random() < 0.7:
        return UploadChunk(offset, data), smp_image.ImageUploadWriteRequest, {"off": offset, "data": data}
    length, image, sha, upgrade = number(r), maybe(r, number(r, 8)), maybe(r, r.randbytes(32)), r.random() < 0.5
    fields = given(off=0, data=data, len=length, image=image, sha=sha, upgrade=True if upgrade else None)
    return UploadChunk(0, data, length, image, sha, upgrade), smp_image.ImageUploadWriteRequest, fields


def erase(r: Random) -> Pair:
    slot = maybe(r, number(r, 8))
    return EraseImage(slot), smp_image.ImageEraseRequest, given(slot=slot)


REQUESTS: list[Callable[[Random], Pair]] = [echo, params, reset, bootloader, read_state, write_state, upload, erase]


@pytest.mark.parametrize("make", REQUESTS, ids=lambda make: make.__name__)
def test_requests_both_ways(make: Callable[[Random], Pair]) -> None:
    r = random.Random(f"{SEED} {make.__name__}")
    for _ in range(ROUNDS // len(REQUESTS)):
        command, peer, fields = make(r)
        version, sequence = r.randrange(2), r.randrange(256)

        # Ours, read by the peer.
        ours = command.request().encode(version, sequence)
        read = peer.loads(ours)
        dumped = read.model_dump(exclude_unset=True, exclude={"header", "version", "sequence", "smp_data"})
        assert dumped == fields
        assert (read.header.version, read.header.sequence, read.header.length) == (version, sequence, len(ours) - 8)
        assert (read.header.op, read.header.group_id, read.header.command_id) == (
            command.facts.op,
            command.facts.group,
            command.facts.number,
        )

        # The peer's, read by us.
        theirs = bytes(peer(version=smp_header.Version(version), sequence=sequence, **fields))
        header = Header.unpack(theirs)
        facts = command.facts
        assert header == Header(facts.op, version, 0, len(theirs) - 8, facts.group, sequence, facts.number)
        assert decode_body(theirs[8:]) == command.body()
        assert encode_body(as_peer(command.body())) == theirs[8:]


def as_peer(body: Body) -> Body:
    """The same body as the peer lays it: its keys are sorted, and `force` is 1 where Zephyr's decoder wants true."""
    keys = sorted(body, key=lambda key: (len(key), key))
    return {key: int(body[key] is True) if key == "force" else body[key] for key in keys}


# -- random answers -------------------------------------------------------------------------------------------------

Answer = tuple[SmpCommand[Any], type[Any], dict[str, Any], object]


def echo_answer(r: Random) -> Answer:
    words = text(r)
    return Echo(""), smp_os.EchoWriteResponse, {"r": words}, words


def params_answer(r: Random) -> Answer:
    size, count = 1 + number(r, 16), 1 + number(r, 8)
    return (
        ReadParams(),
        smp_os.MCUMgrParametersReadResponse,
        {"buf_size": size, "buf_count": count},
        Params(size, count),
    )


def reset_answer(r: Random) -> Answer:
    return Reset(), smp_os.ResetWriteResponse, {}, None


def bootloader_answer(r: Random) -> Answer:
    name = text(r, 12)
    return ReadBootloader(), smp_os.BootloaderInformationReadResponse, {"bootloader": name}, name


FLAGS = ("bootable", "pending", "confirmed", "active", "permanent")


def state_answer(r: Random) -> Answer:
    images, slots = [], []
    for number_ in range(r.randrange(4)):
        version, digest = f"{r.randrange(256)}.{r.randrange(256)}.{number(r, 16)}", maybe(r, r.randbytes(32))
        flags: dict[str, Any] = {flag: r.random() < 0.5 for flag in FLAGS if r.random() < 0.7}
        image = maybe(r, r.randrange(3))
        images.append({"slot": number_ % 2, "version": version, **given(image=image, hash=digest), **flags})
        slots.append(Slot(image or 0, number_ % 2, version, digest, **flags))
    split = maybe(r, r.randrange(3))
    fields = {"images": images, **given(splitStatus=split)}
    command, peer = r.choice(
        (
            (ReadImageState(), smp_image.ImageStatesReadResponse),
            (WriteImageState(), smp_image.ImageStatesWriteResponse),
        )
    )
    return command, peer, fields, ImageState(tuple(slots), split)


def upload_answer(r: Random) -> Answer:
    offset, match, rc = number(r), maybe(r, r.random() < 0.5), maybe(r, 0)
    fields = given(off=offset, match=match, rc=rc)
    return UploadChunk(0, b""), smp_image.ImageUploadWriteResponse, fields, UploadProgress(offset, match)


def erase_answer(r: Random) -> Answer:
    return EraseImage(), smp_image.ImageEraseResponse, {}, None


ANSWERS: list[Callable[[Random], Answer]] = [
    echo_answer,
    params_answer,
    reset_answer,
    bootloader_answer,
    state_answer,
    upload_answer,
    erase_answer,
]


@pytest.mark.parametrize("make", ANSWERS, ids=lambda make: make.__name__)
def test_answers_of_the_peer(make: Callable[[Random], Answer]) -> None:
    r = random.Random(f"{SEED} {make.__name__}")
    for _ in range(ROUNDS // 2 // len(ANSWERS)):
        command, peer, fields, result = make(r)
        sequence = r.randrange(256)
        # State answers to a write are, to the peer, answers to a read: only the op differs.
        message = bytes(peer(sequence=sequence, **fields))
        header = Header.unpack(message)
        assert (header.group, header.command, header.sequence) == (command.facts.group, command.facts.number, sequence)
        assert header.op in (command.facts.op.reply, Op.READ_REPLY)
        assert command.result(reply(header, message)) == result


@pytest.mark.parametrize("make", ANSWERS, ids=lambda make: make.__name__)
def test_answers_laid_by_us(make: Callable[[Random], Answer]) -> None:
    """As the simulated device answers: the peer, as a client, takes it."""
    r = random.Random(f"{SEED} ours {make.__name__}")
    for _ in range(ROUNDS // 2 // len(ANSWERS)):
        command, peer, fields, result = make(r)
        body = encode_body(fields)
        facts = command.facts
        message = Header(facts.op.reply, 1, 0, len(body), facts.group, 5, facts.number).pack() + body
        read = peer.loads(message)
        dumped = read.model_dump(exclude_unset=True, exclude={"header", "version", "sequence", "smp_data"})
        assert dumped == fields
        assert command.result(reply(Header.unpack(message), message)) == result


def reply(header: Header, message: bytes) -> Reply:
    return Reply(*header[:3], *header[4:], message[8:])


# -- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [0, 1])
def test_errors_of_the_peer(group: int) -> None:
    first, second, names = {
        0: (smp_os.OSManagementErrorV1, smp_os.OSManagementErrorV2, smp_os.OS_MGMT_RET_RC),
        1: (smp_image.ImageManagementErrorV1, smp_image.ImageManagementErrorV2, smp_image.IMG_MGMT_ERR),
    }[group]
    command: SmpCommand[Any] = ReadParams() if group == 0 else ReadImageState()

    def refused(body: Body) -> DeviceError:
        with pytest.raises(DeviceError) as raised:
            command.result(Reply(command.facts.op.reply, 1, 0, group, 0, command.facts.number, encode_body(body)))
        return raised.value

    for code in (code for code in names if code != 0):
        error = refused(laid_by_peer(second, command, {"err": {"group": group, "rc": int(code)}}))
        assert (error.group, error.rc, error.name) == (group, code, code.name)
    for plain in SmpError:
        if plain != 0:
            error = refused(laid_by_peer(first, command, {"rc": int(plain), "rsn": "no"}))
            assert (error.group, error.rc, error.rsn) == (None, plain, "no")


def laid_by_peer(kind: type[Any], command: SmpCommand[Any], fields: Body) -> Body:
    """Errors have no op and no command of their own in the peer: it wants a whole header, with the length."""
    header = smp_header.Header(
        op=smp_header.OP(command.facts.op.reply),
        version=smp_header.Version.V2,
        flags=smp_header.Flag(0),
        length=len(encode_body(fields)),
        group_id=command.facts.group,
        sequence=0,
        command_id=command.facts.number,
    )
    return decode_body(bytes(kind(header=header, **fields))[8:])
