"""The core's own messages: a table of (bytes, value) read in both directions, and recorded answers of real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.errors import DeviceError, MalformedReply
from mcumgrx.messages.message import Body, Fields, Reply, SmpCommand, decode_body, encode_body
from mcumgrx.messages.standard import (
    UNREADABLE,
    Bootloader,
    BootloaderMode,
    Echo,
    EraseImage,
    ImageState,
    Params,
    ReadBootloader,
    ReadBootloaderMode,
    ReadImageState,
    ReadParams,
    ReadSlotInfo,
    Reset,
    Slot,
    SlotInfo,
    UploadChunk,
    UploadProgress,
    WriteImageState,
)
from mcumgrx.protocol.header import Header, Op

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

HASH = bytes(range(32))
FIRST_DATA = bytes.fromhex("3db8f396") + bytes(28)


def reply_to(command: SmpCommand[Any], payload: bytes) -> Reply:
    facts = command.facts
    return Reply(facts.op.reply, 1, 0, facts.group, 0, facts.number, payload)


# -- the table ------------------------------------------------------------------------------------------------------

# (command, its whole message as version 2 with sequence 9, body of an answer, result). Requests and the answers of
# Zephyr and MCUboot are as recorded, or as laid down in the protocol's documentation.
TABLE: list[tuple[SmpCommand[Any], str, str, object]] = [
    (Echo("hello"), "0a00000900000900 a1 6164 6568656c6c6f", "bf 6172 6568656c6c6f ff", "hello"),
    (Echo(""), "0a00000400000900 a1 6164 60", "bf 6172 60 ff", ""),
    (ReadParams(), "0800000100000906 a0", "bf 686275665f73697a65 190180 696275665f636f756e74 04 ff", Params(384, 4)),
    (
        ReadParams(),
        "0800000100000906 a0",
        "a3 686275665f73697a65 190400 696275665f636f756e74 01 69696e73745f726f6c65 02",
        Params(1024, 1, {"inst_role": 2}),
    ),
    (Reset(), "0a00000100000905 a0", "bf ff", None),
    (Reset(), "0a00000100000905 a0", "bf 627263 00 ff", None),  # MCUboot
    (Reset(force=True), "0a00000800000905 a1 65666f726365 f5", "", None),
    (Reset(boot_mode=1), "0a00000c00000905 a1 69626f6f745f6d6f6465 01", "bf ff", None),
    (
        Reset(force=True, boot_mode=0),
        "0a00001300000905 a2 65666f726365 f5 69626f6f745f6d6f6465 00",
        "bf ff",
        None,
    ),
    (ReadBootloader(), "0800000100000908 a0", "bf 6a626f6f746c6f61646572 674d4355626f6f74 ff", "MCUboot"),
    (
        ReadBootloaderMode(),
        "0800000c00000908 a1 657175657279 646d6f6465",
        "bf 646d6f6465 03 ff",
        Bootloader(None, BootloaderMode.SWAP_MOVE),
    ),
    (
        ReadBootloaderMode(),
        "0800000c00000908 a1 657175657279 646d6f6465",
        "bf 646d6f6465 20 6c6e6f2d646f776e6772616465 f5 ff",
        Bootloader(None, -1, no_downgrade=True),
    ),
    (
        ReadBootloaderMode(),
        "0800000c00000908 a1 657175657279 646d6f6465",
        "bf 646d6f6465 182a ff",
        Bootloader(None, 42),
    ),
    (
        ReadImageState(),
        "0800000100010900 a0",
        "bf 66696d61676573 9f"
        "  bf 64736c6f74 00 6776657273696f6e 65312e302e30 6468617368 5820" + HASH.hex() + ""
        "     68626f6f7461626c65 f5 6770656e64696e67 f4 69636f6e6669726d6564 f5 66616374697665 f5"
        "     697065726d616e656e74 f4 ff"
        "  bf 64736c6f74 01 6776657273696f6e 67392e382e372e36 6770656e64696e67 f5 ff"
        "ff 6b73706c6974537461747573 00 ff",
        ImageState(
            (
                Slot(0, 0, "1.0.0", HASH, bootable=True, confirmed=True, active=True),
                Slot(0, 1, "9.8.7.6", pending=True),
            ),
            0,
        ),
    ),
    (ReadImageState(), "0800000100010900 a0", "bf 66696d61676573 80 ff", ImageState(())),
    (ReadImageState(), "0800000100010900 a0", "bf ff", ImageState(())),  # SUIT devices have no such key
    (
        ReadImageState(),
        "0800000100010900 a0",
        "a1 66696d61676573 81 a4 65696d616765 01 64736c6f74 01 6a636f6d70726573736564 f5 6776657273696f6e 61 31",
        ImageState((Slot(1, 1, "1", extra={"compressed": True}),)),
    ),
    (
        WriteImageState(HASH),
        "0a00003100010900 a2 6468617368 5820" + HASH.hex() + " 67636f6e6669726d f4",
        "bf 66696d61676573 9f ff ff",
        ImageState(()),
    ),
    (WriteImageState(confirm=True), "0a00000a00010900 a1 67636f6e6669726d f5", "bf ff", ImageState(())),
    (
        WriteImageState(HASH, confirm=True),
        "0a00003100010900 a2 6468617368 5820" + HASH.hex() + " 67636f6e6669726d f5",
        "bf ff",
        ImageState(()),
    ),
    (
        UploadChunk(0, FIRST_DATA, 4096, 0, HASH),
        "0a00006100010901 a5 65696d616765 00 636c656e 191000 636f6666 00 63736861 5820" + HASH.hex() + ""
        " 6464617461 5820" + FIRST_DATA.hex(),
        "bf 636f6666 1820 ff",
        UploadProgress(32),
    ),
    (
        UploadChunk(0, b"\x01", 1, None, None, upgrade=True),
        "0a00001b00010901 a4 636c656e 01 636f6666 00 6775706772616465 f5 6464617461 4101",
        "bf 636f6666 01 656d61746368 f5 ff",
        UploadProgress(1, match=True),
    ),
    (
        UploadChunk(65536, b"\x01\x02"),
        "0a00001200010901 a2 636f6666 1a00010000 6464617461 420102",
        "bf 627263 00 636f6666 190200 ff",  # MCUboot
        UploadProgress(512),
    ),
    (
        UploadChunk(5, b""),
        "0a00000c00010901 a2 636f6666 05 6464617461 40",
        "a2 636f6666 07 656d61746368 f4",
        UploadProgress(7, match=False),
    ),
    (EraseImage(), "0a00000100010905 a0", "bf ff", None),
    (EraseImage(3), "0a00000700010905 a1 64736c6f74 03", "bf ff", None),
    (
        ReadSlotInfo(),
        "0800000100010906 a0",
        "bf 66696d61676573 9f bf 65696d616765 00 65736c6f7473 9f"
        "  bf 64736c6f74 00 6473697a65 1a00080000 ff"
        "  bf 64736c6f74 01 627263 0a 6f75706c6f61645f696d6167655f6964 00 ff"
        "ff 6e6d61785f696d6167655f73697a65 1a0007f000 ff ff ff",
        (
            SlotInfo(0, 0, 0x80000, max_image_size=0x7F000),
            SlotInfo(0, 1, None, 10, 0, 0x7F000),
        ),
    ),
]


@pytest.mark.parametrize(("command", "message", "answer", "result"), TABLE)
def test_messages_both_ways(command: SmpCommand[Any], message: str, answer: str, result: object) -> None:
    expected = bytes.fromhex(message)
    assert command.request().encode(1, 9).hex(" ") == expected.hex(" ")
    facts = command.facts
    assert Header.unpack(expected) == Header(facts.op, 1, 0, len(expected) - 8, facts.group, 9, facts.number)
    assert decode_body(expected[8:]) == command.body()
    assert command.result(reply_to(command, bytes.fromhex(answer))) == result


@pytest.mark.parametrize("version", [0, 1])
def test_both_versions_differ_in_the_version_bits_alone(version: int) -> None:
    message = Echo("x").request().encode(version, 3)
    assert message[0] == version << 3 | Op.WRITE
    assert message[1:] == Echo("x").request().encode(1 - version, 3)[1:]


@pytest.mark.parametrize(
    ("command", "repeatable"),
    [
        (Echo("x"), True),
        (ReadParams(), True),
        (ReadImageState(), True),
        (WriteImageState(HASH), True),
        (UploadChunk(0, b""), True),
        (Reset(), False),
        (EraseImage(), False),
    ],
)
def test_what_may_be_sent_again(command: SmpCommand[Any], repeatable: bool) -> None:
    assert command.request().repeatable is repeatable


def test_what_takes_long_says_so() -> None:
    assert EraseImage().facts.timeout_s >= 60
    assert ReadImageState().facts.timeout_s > 5
    assert ReadParams().facts.timeout_s is None


@pytest.mark.parametrize(("body", "extra"), [({}, {}), ({"mode": "swap"}, {"mode": "swap"}), ({"mode": None}, {})])
def test_a_bootloader_whose_mode_is_no_number_is_one_that_is_not_known(body: Body, extra: Body) -> None:
    answer = reply_to(ReadBootloaderMode(), encode_body({**body, "no-downgrade": True}))
    assert ReadBootloaderMode().result(answer) == Bootloader(None, BootloaderMode.UNKNOWN, True, extra)


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (Echo("x"), {}),
        (Echo("x"), {"r": b"x"}),
        (ReadParams(), {"buf_size": 384}),
        (ReadParams(), {"buf_size": 0, "buf_count": 4}),
        (ReadParams(), {"buf_size": 384, "buf_count": 0}),
        (ReadParams(), {"buf_size": -1, "buf_count": 4}),
        (ReadParams(), {"buf_size": "384", "buf_count": 4}),
        (ReadBootloader(), {}),
        (ReadImageState(), {"images": 5}),
        (ReadImageState(), {"images": {"0": {}}}),
        (UploadChunk(0, b""), {}),
        (UploadChunk(0, b""), {"off": -1}),
        (UploadChunk(0, b""), {"off": 1.0}),
        (ReadSlotInfo(), {"images": [{"slots": 5}]}),
    ],
)
def test_answers_that_break_the_protocol(command: SmpCommand[Any], body: Body) -> None:
    payload = encode_body(body)
    with pytest.raises(MalformedReply) as raised:
        command.result(reply_to(command, payload))
    assert raised.value.payload == payload


def test_an_odd_value_costs_that_value_and_not_the_list() -> None:
    good = {"slot": 0, "version": "1.0.0", "hash": HASH, "active": True, "confirmed": 1}
    odd = {"slot": "1", "image": None, "version": b"\xff", "hash": HASH.hex(), "pending": "yes", "vendor": 1.5}
    body: Body = {"images": [good, 5, odd], "splitStatus": "none"}
    state = ReadImageState().result(reply_to(ReadImageState(), encode_body(body)))
    assert state.slots == (
        Slot(0, 0, "1.0.0", HASH, active=True, confirmed=True),
        Slot(0, UNREADABLE, "", extra={key: value for key, value in odd.items() if key != "image"}),
    )
    assert (state.split_status, state.extra) == (None, {"splitStatus": "none"})


def test_odd_sizes_of_slots() -> None:
    body: Body = {"images": [{"image": "0", "slots": [{"slot": 0, "size": b""}, None, {"slot": 1, "size": 4096}]}]}
    first, second = ReadSlotInfo().result(reply_to(ReadSlotInfo(), encode_body(body)))
    assert (first.image, first.slot, first.size) == (UNREADABLE, 0, None)
    assert (second.slot, second.size) == (1, 4096)


def test_a_final_check_that_is_neither_true_nor_false() -> None:
    command = UploadChunk(0, b"")
    assert command.result(reply_to(command, encode_body({"off": 1, "match": "yes"}))).match is None


# -- the image list -------------------------------------------------------------------------------------------------


def test_finding_slots_in_the_image_list() -> None:
    running = Slot(0, 0, "1.0.0", HASH, active=True, confirmed=True)
    waiting = Slot(0, 1, "1.1.0", HASH[::-1])
    network = Slot(1, 0, "2.0.0", HASH, active=True)
    state = ImageState((running, waiting, network))
    assert state.active() is running
    assert state.active(1) is network
    assert state.other() is waiting
    assert state.other(1) is None
    assert state.active(2) is None
    assert state.holding(HASH) == (running,)
    assert state.holding(HASH, 1) == (network,)
    both = replace(waiting, hash=HASH)
    assert ImageState((running, both)).holding(HASH) == (running, both)
    assert ImageState((Slot(0, 0, "1"),)).holding(HASH) == ()


@pytest.mark.parametrize(
    ("mode", "swaps"), [(-1, True), (0, False), (1, True), (2, False), (3, True), (4, False), (9, True), (42, False)]
)
def test_which_bootloaders_can_swap_back(mode: int, swaps: bool) -> None:
    assert Bootloader("MCUboot", mode).swaps is swaps


# -- recorded exchanges ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One recorded exchange: whole messages, and their bodies as the recording has them."""

    server: str
    name: str
    request: bytes
    response: bytes
    asked: Any
    answered: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.server}: {self.name}"


def plain(value: Any) -> Any:
    """A recorded body with its byte strings as such."""
    if isinstance(value, dict):
        return bytes.fromhex(value["$hex"]) if set(value) == {"$hex"} else {key: plain(v) for key, v in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def rows() -> Iterator[Row]:
    """All exchanges of groups 0 and 1 that were answered."""
    for path in sorted(GOLDEN.glob("zephyr-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "request_hex" in row and row["response_hex"] is not None and row["request"]["group"] in (0, 1):
                yield Row(
                    path.stem,
                    row["name"],
                    bytes.fromhex(row["request_hex"]),
                    bytes.fromhex(row["response_hex"]),
                    plain(row["request"]["body"]),
                    plain(row["response"]["body"]) or {},
                )


ROWS = list(rows())


def our_command(row: Row) -> SmpCommand[Any] | None:
    """What we would send for this row's request, or None for a command of a plugin, or one that only a test sends."""
    header, asked = Header.unpack(row.request), row.asked
    if not isinstance(asked, dict) or "__undecodable__" in asked:
        return None
    kind = (header.group, header.command, header.op)
    if kind == (0, 0, Op.WRITE) and set(asked) == {"d"} and isinstance(asked["d"], str):
        return Echo(asked["d"])
    if kind == (0, 5, Op.WRITE):
        return Reset(asked.get("force", False), asked.get("boot_mode"))
    if kind == (0, 6, Op.READ):
        return ReadParams()
    if kind == (0, 8, Op.READ) and asked in ({}, {"query": "mode"}):
        return ReadBootloaderMode() if asked else ReadBootloader()
    if kind == (1, 0, Op.READ):
        return ReadImageState()
    if kind == (1, 0, Op.WRITE):
        return WriteImageState(asked.get("hash"), asked["confirm"])
    if kind == (1, 1, Op.WRITE) and {"off", "data"} <= set(asked):
        options = (asked.get("len"), asked.get("image"), asked.get("sha"), asked.get("upgrade", False))
        return UploadChunk(asked["off"], asked["data"], *options)
    if kind == (1, 5, Op.WRITE):
        return EraseImage(asked.get("slot"))
    if kind == (1, 6, Op.READ):
        return ReadSlotInfo()
    return None


FLAGS = ("bootable", "pending", "confirmed", "active", "permanent")


def expected_result(command: SmpCommand[Any], body: dict[str, Any]) -> object:
    """The result that the recorded body means, put together without the code under test."""
    match command:
        case Echo():
            return body["r"]
        case Reset() | EraseImage():
            return None
        case ReadParams():
            return Params(body["buf_size"], body["buf_count"])
        case ReadImageState() | WriteImageState():
            slots = [
                Slot(0, one["slot"], one["version"], one["hash"], **{flag: one.get(flag, False) for flag in FLAGS})
                for one in body["images"]
            ]
            return ImageState(tuple(slots), body.get("splitStatus"))
        case UploadChunk():
            return UploadProgress(body["off"])
        case ReadSlotInfo():
            return tuple(
                SlotInfo(one["image"], slot["slot"], slot["size"], upload_image_id=slot.get("upload_image_id"))
                for one in body["images"]
                for slot in one["slots"]
            )
    raise AssertionError(command)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_recorded_answers(row: Row) -> None:
    header = Header.unpack(row.response)
    reply = Reply(*header[:3], *header[4:], row.response[8:])
    assert header.length == len(reply.payload)
    assert reply.body() == row.answered
    command = our_command(row)
    if command is None:
        return
    if "err" in row.answered or row.answered.get("rc", 0) != 0:
        with pytest.raises(DeviceError) as raised:
            command.result(reply)
        group = row.answered.get("err", {}).get("group")
        rc = row.answered.get("err", row.answered)["rc"]
        assert (raised.value.group, raised.value.rc) == (group, rc)
        assert raised.value.rsn == row.answered.get("rsn")
        assert raised.value.name is not None
    else:
        assert command.result(reply) == expected_result(command, row.answered)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_recorded_requests(row: Row) -> None:
    """What we send is what real servers answered to: the same fields, and the same bytes where the order is ours."""
    command = our_command(row)
    if command is None:
        return
    header = Header.unpack(row.request)
    ours = command.request().encode(header.version & 1, header.sequence)
    assert decode_body(ours[8:]) == row.asked
    if list(command.body()) == list(row.asked) and header.version in (0, 1):
        assert ours.hex() == row.request.hex()


def test_the_recordings_cover_our_messages() -> None:
    commands = [command for row in ROWS if (command := our_command(row)) is not None]
    assert len(ROWS) > 300
    assert len(commands) > 200
    assert {type(command) for command in commands} == {type(row[0]) for row in TABLE}


def test_unknown_keys_are_kept() -> None:
    fields = Fields({"images": [{"slot": 0, "board": "x"}], "more": 1})
    state = ReadImageState().parse(fields)
    assert state.slots[0].extra == {"board": "x"}
    assert state.extra == {"more": 1}
