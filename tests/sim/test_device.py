"""The simulated device itself: the server's rules byte by byte, uploads, image states, resets, and time."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.errors import UsageError
from mcumgrx.mcuboot import ImageFlag, parse_image
from mcumgrx.protocol.codec import build_message, build_upload
from mcumgrx.protocol.header import Header, Op
from mcumgrx.sim.bootloader import SECONDARY, BootPolicy, Mode, SwapType
from mcumgrx.sim.device import FIRMWARE, DeviceConfig, Power, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.groups import (
    Call,
    GroupError,
    GroupServer,
    Kind,
    Refused,
    _read_map,
    _read_plain,
    encode,
    read_map,
)
from mcumgrx.sim.groups.zephyr import ZephyrConfig, ZephyrErrorCode, ZephyrServer
from mcumgrx.sim.images import build_image

OLD = build_image("1.0.0", payload_size=6_000)
NEW = build_image("1.1.0", payload_size=10_000)
CRASHING = build_image("1.2.0", payload_size=6_000, health="crash")
OLD_HASH, NEW_HASH, CRASHING_HASH = (parse_image(image).hash for image in (OLD, NEW, CRASHING))
NEW_SHA = hashlib.sha256(NEW).digest()

SMALL = DeviceConfig(slot_size=64 * 1024)


class Desk:
    """A device and a clock, with requests as Python values."""

    def __init__(self, config: DeviceConfig = SMALL, *, image: bytes = OLD) -> None:
        self.device = SimulatedDevice(config)
        self.device.install(image)
        self.now = 0.0
        self.busy_s = 0.0

    def raw(self, message: bytes) -> list[bytes]:
        answer = self.device.handle(message, self.now)
        self.busy_s = answer.busy_s
        self.now += answer.busy_s
        return list(answer.replies)

    def ask(
        self, op: int, group: int, command: int, body: object = None, *, version: int = 1, payload: bytes | None = None
    ) -> Any:
        if payload is None:
            payload = cbor2.dumps({} if body is None else body)
        replies = self.raw(build_message(op, version, 0, group, 42, command, payload))
        if not replies:
            return None
        (reply,) = replies
        header = Header.unpack(reply)
        assert header.sequence == 42
        assert header.length == len(reply) - 8
        return cbor2.loads(reply[8:])

    def write(self, command: int, body: object = None, *, group: int = 1, version: int = 1) -> Any:
        return self.ask(Op.WRITE, group, command, body, version=version)

    def images(self) -> dict[int, dict[str, Any]]:
        return {entry["slot"]: entry for entry in self.ask(Op.READ, 1, 0)["images"]}

    def flags(self, slot: int) -> set[str]:
        entry = self.images()[slot]
        return {key for key, value in entry.items() if value is True and key != "bootable"}

    def upload(self, image: bytes, /, chunk_bytes: int = 200, **first: object) -> Any:
        answer = self.write(1, {"off": 0, "len": len(image), "data": image[:chunk_bytes], **first})
        while "off" in answer and 0 < answer["off"] < len(image):
            at = answer["off"]
            answer = self.write(1, {"off": at, "data": image[at : at + chunk_bytes]})
        return answer

    def test(self, digest: bytes) -> Any:
        return self.write(0, {"hash": digest})

    def confirm(self, digest: bytes | None = None) -> Any:
        return self.write(0, {"confirm": True} if digest is None else {"hash": digest, "confirm": True})

    def reset(self, wait_s: float = 600.0) -> None:
        assert self.write(5, group=0) == {}
        self.now += wait_s
        self.device.advance(self.now)


def group_error(group: int, rc: int) -> dict[str, dict[str, int]]:
    return {"err": {"group": group, "rc": rc}}


# -- the SMP layer ----------------------------------------------------------------------------------------------------


def test_requests_that_break_the_protocol() -> None:
    desk = Desk()
    assert desk.raw(b"\x0a\0\0\0\0\0\0") == []
    assert desk.raw(bytes.fromhex("0a000009000007 00 a1".replace(" ", ""))) == [
        bytes.fromhex("0b00000600000700bf62726309ff")
    ]
    # An op that no request has is refused with op 3, whatever it was.
    for op in (1, 3, 4, 5, 6, 7):
        (reply,) = desk.raw(build_message(op, 1, 0, 0, 1, 0, b"\xa0"))
        assert reply == bytes.fromhex("0b00000600000100bf62726308ff")
    # Flags and reserved bits are ignored and not sent back.
    (reply,) = desk.raw(bytes.fromhex("ea7f000400000900a1616460"))
    assert reply == bytes.fromhex("0b00000500000900bf617260ff")


def test_several_requests_in_one_message() -> None:
    echo = bytes.fromhex("0a00000400000100a1616460")
    refused_by_group = bytes.fromhex("0a00000a00010200") + bytes.fromhex("a167636f6e6669726df4")
    refused = bytes.fromhex("0a00000400000300a1616407")
    desk = Desk()
    assert len(desk.raw(echo + refused_by_group + echo)) == 3
    # An error of the SMP layer ends it, and so does a rest that is no header.
    assert len(desk.raw(echo + refused + echo)) == 2
    assert len(desk.raw(echo + b"\0\0\0")) == 1


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "80",
        "a1",
        "bf6164",
        "a1616407",  # wrong type
        "a16164f6",  # null
        "a2616461786164617a",  # known key twice
        "a2016178616460",  # a key that is no text
        "a161647f6178ff",  # text in chunks
        "a16164c06178",  # tagged
        "a161645a7fffffff",  # a length that lies
        "ba7fffffff",
    ],
)
def test_bodies_that_are_refused(payload: str) -> None:
    assert Desk().ask(Op.WRITE, 0, 0, payload=bytes.fromhex(payload)) == {"rc": 3}


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ("a0", ""),
        ("bf61646178ff", "x"),
        ("a161647900017 8".replace(" ", ""), "x"),  # a length in more bytes than it needs
        ("a2617aa1617b9f01ff61646178", "x"),  # unknown keys are skipped, nested ones too
        ("a161646178ffffff", "x"),  # bytes behind the map
    ],
)
def test_bodies_that_are_taken(payload: str, text: str) -> None:
    assert Desk().ask(Op.WRITE, 0, 0, payload=bytes.fromhex(payload)) == {"r": text}


def test_nesting_is_bounded() -> None:
    deep = b"\xa1\x61z" + b"\x81" * 5000 + b"\0"
    with pytest.raises(Refused):
        read_map(deep, {"d": "text"})
    assert Desk(replace(SMALL, buf_size=6000)).ask(Op.WRITE, 0, 0, payload=deep) == {"rc": 3}


@given(st.binary(max_size=200))
def test_no_payload_upsets_the_device(payload: bytes) -> None:
    device = SimulatedDevice(replace(SMALL, timing=INSTANT))
    device.install(OLD)
    for group, op, command in ((0, 2, 0), (0, 0, 7), (0, 0, 8), (1, 2, 0), (1, 2, 1), (1, 2, 5), (0, 2, 5)):
        answer = device.handle(build_message(op, 1, 0, group, 0, command, payload), 0.0)
        assert len(answer.replies) == 1
        cbor2.loads(answer.replies[0][8:])


@given(st.binary(max_size=300))
def test_no_message_upsets_the_device(message: bytes) -> None:
    device = SimulatedDevice(replace(SMALL, timing=INSTANT))
    device.install(OLD)
    for reply in device.handle(message, 0.0).replies:
        assert Header.unpack(reply).length == len(reply) - 8


VALUES = st.recursive(
    st.booleans() | st.integers(-(2**31), 2**64 - 1) | st.text(max_size=40) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_what_is_encoded_means_what_it_was(value: object, canonical: bool) -> None:
    encoded = encode(value, canonical=canonical)
    assert cbor2.loads(encoded) == value
    if canonical:
        assert encoded == cbor2.dumps(value)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=6), st.booleans())
def test_what_is_encoded_is_read_back(body: dict[str, Any], canonical: bool) -> None:
    assert read_map(encode(body, canonical=canonical), dict.fromkeys(body, "any")) == body


def test_messages_and_answers_that_do_not_fit_the_buffers() -> None:
    desk = Desk(replace(SMALL, buf_size=100))
    text = "x" * (100 - 8 - 5)
    assert desk.ask(Op.WRITE, 0, 0, {"d": text}) == {"rc": 7}  # the indefinite map is a byte longer than the request's
    assert desk.ask(Op.WRITE, 0, 0, {"d": text[:-1]}) == {"r": text[:-1]}
    assert desk.ask(Op.WRITE, 0, 0, {"d": text + "x"}) is None


def test_servers_of_other_versions() -> None:
    old = Desk(replace(SMALL, original_only=True, legacy_rc=True, verbose_errors=False))
    (reply,) = old.raw(build_message(Op.WRITE, 1, 0, 0, 5, 0, cbor2.dumps({"d": "a"})))
    assert reply == build_message(Op.WRITE_REPLY, 0, 0, 0, 5, 0, bytes.fromhex("bf6272630061726161ff"))
    assert old.test(bytes(32)) == {"rc": 1}
    young = Desk(replace(SMALL, refuses_original=True, canonical=True))
    assert young.ask(Op.READ, 0, 6, version=0) == {"rc": 12}
    (reply,) = young.raw(build_message(Op.WRITE, 1, 0, 0, 5, 0, cbor2.dumps({"d": "a"})))
    assert reply[8:] == bytes.fromhex("a161726161")


def test_a_group_of_ones_own() -> None:
    class HeaterServer(GroupServer):
        group = 100
        legacy_codes = {3: 6}  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__({(Op.READ, 0): self.temperature, (Op.WRITE, 0): self.set})
            self.target = 0

        def restarted(self) -> None:
            self.target = 0

        def temperature(self, call: Call) -> dict[str, Any]:
            return {"target": self.target}

        def set(self, call: Call) -> dict[str, Any]:
            self.target = call.read(target="int")["target"]
            if self.target > 90:
                raise GroupError(3, rsn="too hot", extra={"limit": 90})
            return {}

    desk = Desk()
    desk.device.add_group(HeaterServer())
    assert desk.ask(Op.WRITE, 100, 0, {"target": -5}) == {}
    assert desk.ask(Op.READ, 100, 0) == {"target": -5}
    assert desk.ask(Op.WRITE, 100, 0, {"target": 91}) == {**group_error(100, 3), "limit": 90}
    assert desk.ask(Op.WRITE, 100, 0, {"target": 91}, version=0) == {"rc": 6, "rsn": "too hot"}
    desk.reset()
    assert desk.ask(Op.READ, 100, 0) == {"target": 0}


def test_configurations_that_cannot_work() -> None:
    wrong: list[dict[str, Any]] = [
        {"buf_size": 10},
        {"buf_count": 1},
        {"boot_s": -1.0},
        {"watchdog_s": 0.0},
        {"line_count": 0},
        {"line_size": 3},
        {"hash_size": 20},
        {"groups": (0, 99)},
    ]
    for options in wrong:
        with pytest.raises(UsageError):
            DeviceConfig(**options)


# -- the OS group -----------------------------------------------------------------------------------------------------


def test_bootloader_information() -> None:
    desk = Desk(replace(SMALL, policy=BootPolicy(downgrade_prevention=True)))
    assert desk.ask(Op.READ, 0, 8) == {"bootloader": "MCUboot"}
    assert desk.ask(Op.READ, 0, 8, {"query": "mode"}) == {"mode": 3, "no-downgrade": True}
    assert desk.ask(Op.READ, 0, 8, {"query": "shoe size"}) == group_error(0, 3)
    assert desk.ask(Op.READ, 0, 8, {"query": "shoe size"}, version=0) == {"rc": 5}


def test_information_by_letters() -> None:
    desk = Desk()
    assert desk.ask(Op.READ, 0, 7, {"format": ""}) == {"output": "Zephyr"}
    assert desk.ask(Op.READ, 0, 7, {"format": "vss"}) == {"output": "Zephyr 4.4.0"}


def test_reset_options() -> None:
    desk = Desk()
    assert desk.ask(Op.WRITE, 0, 5, {"boot_mode": 256}) == {"rc": 3}
    assert not desk.device.reset_pending
    # What cannot be decoded is ignored.
    assert desk.ask(Op.WRITE, 0, 5, payload=b"\x01") == {}
    assert desk.device.reset_pending
    desk.now += 60
    assert desk.ask(Op.WRITE, 0, 5, {"force": True, "boot_mode": 1}) == {}
    assert desk.device.boot_mode == 1


# -- uploads ----------------------------------------------------------------------------------------------------------


def test_an_upload_in_any_chunk_size_ends_in_the_same_flash() -> None:
    contents = set()
    for chunk_bytes in (33, 100, 301):
        desk = Desk()
        assert desk.upload(NEW, chunk_bytes) == {"off": len(NEW)}
        contents.add(desk.device.bootloader.secondary.read(0, len(NEW)))
    assert contents == {NEW}


def test_the_devices_offset_is_the_truth() -> None:
    desk = Desk()
    desk.write(1, {"off": 0, "len": len(NEW), "data": NEW[:100], "sha": NEW_SHA})
    # Too early, too late, and the probe that changes nothing.
    for offset in (1, 99, 101, 5000, 2**31):
        assert desk.write(1, {"off": offset, "data": b"x"}) == {"off": 100}
    assert desk.write(1, {"off": 100}) == {"off": 100}
    # The same first chunk resumes, even with another length; another one begins anew.
    assert desk.write(1, {"off": 100, "data": NEW[100:300]}) == {"off": 300}
    assert desk.write(1, {"off": 0, "len": 77, "data": NEW[:100], "sha": NEW_SHA}) == {"off": 300}
    assert desk.write(1, {"off": 0, "len": len(NEW), "data": NEW[:64], "sha": b"x"}) == {"off": 64}


def test_every_group_error_ends_the_session_but_no_other() -> None:
    desk = Desk()
    first = {"off": 0, "len": len(NEW), "data": NEW[:100]}
    desk.write(1, first)
    assert desk.write(1, {"off": "100"}) == {"rc": 3}
    assert desk.write(1, {"off": 2**31}) == {"off": 100}
    assert desk.write(5, {"slot": 0}) == group_error(1, 9)
    assert desk.write(1, {"off": 2**31}) == {"off": 100}
    assert desk.write(1, {"off": 100, "data": bytes(len(NEW))[:300]}) == {"off": 400}
    assert desk.write(1, {"data": b""}) == group_error(1, 20)
    assert desk.write(1, {"off": 400}) == {"off": 0}
    desk.write(1, first)
    assert desk.write(1, {"off": 2**32 - 1}) == group_error(1, 20)
    assert desk.write(1, {"off": 100}) == {"off": 0}
    desk.write(1, first)
    assert desk.write(5) == {}
    assert desk.write(1, {"off": 100}) == {"off": 0}


def test_a_stale_chunk_after_the_end_changes_nothing() -> None:
    desk = Desk()
    desk.upload(NEW)
    assert desk.write(1, {"off": len(NEW) - 10, "data": b"x" * 10}) == {"off": 0}
    assert desk.images()[1]["hash"] == NEW_HASH


def test_upgrades_only() -> None:
    desk = Desk(image=NEW)
    answer = desk.upload(OLD, upgrade=True)
    assert answer == group_error(1, 27)
    assert desk.upload(build_image("1.1.0+9", payload_size=100), upgrade=True) == group_error(1, 27)
    assert desk.upload(build_image("1.1.1", payload_size=100), upgrade=True)["off"] > 0


def test_a_build_that_checks_what_it_got() -> None:
    desk = Desk(replace(SMALL, image_check=True))
    assert desk.upload(NEW, sha=NEW_SHA) == {"off": len(NEW), "match": True}
    # The same again: nothing is transferred.
    assert desk.write(1, {"off": 0, "len": len(NEW), "data": NEW[:100], "sha": NEW_SHA}) == {
        "off": len(NEW),
        "match": True,
    }
    assert desk.upload(NEW, sha=bytes(32)) == {"off": len(NEW), "match": False}


@pytest.mark.parametrize("progressively", [False, True])
def test_only_what_is_needed_is_erased(progressively: bool) -> None:
    desk = Desk(replace(SMALL, erase_progressively=progressively))
    desk.upload(NEW)
    assert desk.device.flash.erases == 0  # the slot was empty
    slot = desk.device.bootloader.secondary
    desk.test(NEW_HASH)
    desk.write(1, {"off": 0, "len": len(OLD), "data": OLD[:100]})
    # The sectors of the image and that of the trailer, at once or as they are needed.
    assert desk.device.flash.erases == (1 if progressively else -(-len(OLD) // 4096) + 1)
    assert desk.flags(0) == {"active", "confirmed"}, "the mark is gone with the trailer"
    desk.upload(OLD)
    assert slot.read(0, len(OLD)) == OLD
    assert desk.device.flash.writes_over_data == 0


def test_erasing_blocks_and_takes_its_time() -> None:
    desk = Desk(DeviceConfig())
    assert desk.write(5) == {}
    assert desk.busy_s < 0.1, "an empty slot is only looked at"
    desk.upload(NEW)
    assert desk.write(5) == {}
    assert desk.busy_s == pytest.approx(128 * 0.085, abs=0.1)
    assert 10 < desk.busy_s < 12


def test_which_slot_can_be_erased() -> None:
    desk = Desk()
    assert desk.write(5, {"slot": 0}) == group_error(1, 9)
    for slot in (2, 7, 256):
        assert desk.write(5, {"slot": slot}) == group_error(1, 10)
    assert desk.ask(Op.WRITE, 1, 5, payload=b"") == {"rc": 3}
    # Without an image that can be read, even the running slot is erased.
    desk.device.flash.poke(0, b"\0" * 32)
    assert desk.write(5, {"slot": 0}) == {}


def test_a_listed_slot_needs_a_header_and_one_hash() -> None:
    desk = Desk()
    desk.upload(NEW)
    area = desk.device.bootloader.secondary
    # A wrong content does not hide it ...
    desk.device.flash.poke(area.offset + 600, b"wrong")
    assert desk.images()[1]["hash"] == NEW_HASH
    # ... a broken TLV area does.
    desk.device.flash.poke(area.offset + 512 + 10_000, b"\0\0")
    assert set(desk.images()) == {0}


def test_a_frugal_list() -> None:
    desk = Desk(replace(SMALL, frugal_list=True))
    assert desk.images()[0] == {
        "slot": 0,
        "version": "1.0.0",
        "hash": OLD_HASH,
        "bootable": True,
        "confirmed": True,
        "active": True,
    }


# -- test, confirm, reset ---------------------------------------------------------------------------------------------


def prepared(state: str) -> Desk:
    """A device with 1.0.0 and 1.1.0, in one of the four states of the next boot."""
    desk = Desk()
    desk.upload(NEW)
    if state == "TEST":
        assert "images" in desk.test(NEW_HASH)
    elif state == "PERM":
        assert "images" in desk.confirm(NEW_HASH)
    elif state == "REVERT":
        desk.test(NEW_HASH)
        desk.reset()
    return desk


@pytest.mark.parametrize(
    ("state", "running", "other", "test_other", "confirm_other", "test_running", "confirm_running"),
    [
        ("NONE", {"active", "confirmed"}, set(), None, None, 33, None),
        ("TEST", {"active", "confirmed"}, {"pending"}, None, 28, 33, 28),
        ("PERM", {"active", "confirmed"}, {"pending", "permanent"}, 28, None, 33, 28),
        ("REVERT", {"active"}, {"confirmed"}, 28, None, 33, None),
    ],
)
def test_the_table_of_image_states(
    state: str,
    running: set[str],
    other: set[str],
    test_other: int | None,
    confirm_other: int | None,
    test_running: int | None,
    confirm_running: int | None,
) -> None:
    def check(ask: Any, refusal: int | None) -> None:
        desk = prepared(state)
        assert (desk.flags(0), desk.flags(1)) == (running, other)
        hashes = {slot: entry["hash"] for slot, entry in desk.images().items()}
        before = desk.device.flash.snapshot()
        answer = ask(desk, hashes)
        if refusal is None:
            assert {entry["slot"] for entry in answer["images"]} == {0, 1}
        else:
            assert answer == group_error(1, refusal)
            assert desk.device.flash.snapshot() == before

    check(lambda desk, hashes: desk.test(hashes[1]), test_other)
    check(lambda desk, hashes: desk.confirm(hashes[1]), confirm_other)
    check(lambda desk, hashes: desk.test(hashes[0]), test_running)
    check(lambda desk, hashes: desk.confirm(hashes[0]), confirm_running)
    check(lambda desk, hashes: desk.confirm(), confirm_running)


def test_bad_trailers_have_codes_of_their_own() -> None:
    desk = Desk()
    desk.upload(NEW)
    primary, secondary = desk.device.bootloader.slots
    desk.device.flash.poke(secondary.offset + secondary.size - 8, b"\0" * 8)
    assert desk.test(NEW_HASH) == group_error(1, 23)
    desk.device.flash.poke(primary.offset + primary.size - 8, b"\0" * 8)
    assert desk.confirm() == group_error(1, 29)


def test_nothing_can_be_uploaded_over_the_way_back() -> None:
    desk = prepared("REVERT")
    assert desk.upload(CRASHING) == group_error(1, 9)
    assert desk.write(1, {"off": 0, "len": 99, "data": NEW[:64]}, version=0) == {"rc": 6, "rsn": "no slot"}
    desk.confirm()
    assert desk.upload(CRASHING) == {"off": len(CRASHING)}


@pytest.mark.parametrize("mode", [Mode.SWAP_MOVE, Mode.SWAP_OFFSET, Mode.SWAP_SCRATCH])
def test_a_test_is_confirmed_or_reverted(mode: Mode) -> None:
    for confirm in (True, False):
        desk = Desk(replace(SMALL, mode=mode))
        desk.upload(NEW)
        desk.test(NEW_HASH)
        desk.reset()
        assert desk.images()[0]["hash"] == NEW_HASH
        if confirm:
            desk.confirm()
        desk.reset()
        assert desk.images()[0]["hash"] == (NEW_HASH if confirm else OLD_HASH)
        assert desk.flags(0) == {"active", "confirmed"}


def test_overwriting_knows_no_way_back() -> None:
    desk = Desk(replace(SMALL, mode=Mode.OVERWRITE))
    desk.upload(NEW)
    desk.test(NEW_HASH)
    desk.reset()
    desk.reset()
    assert desk.images()[0]["hash"] == NEW_HASH


def test_direct_xip_runs_the_higher_version() -> None:
    desk = Desk(replace(SMALL, mode=Mode.DIRECT_XIP))
    desk.upload(NEW)
    assert desk.flags(1) == {"pending", "permanent"}
    assert desk.test(NEW_HASH) == {"rc": 8}
    desk.reset()
    assert desk.device.running_slot == 1
    assert desk.flags(1) == {"active", "confirmed"}
    assert desk.flags(0) == set()
    # The other slot is the one to write now.
    newest = build_image("1.3.0", payload_size=5_000)
    desk.upload(newest)
    assert desk.images()[0]["version"] == "1.3.0"
    desk.reset()
    assert desk.device.running_slot == 0


def test_direct_xip_with_revert_gives_an_image_one_start() -> None:
    config = replace(SMALL, mode=Mode.DIRECT_XIP_REVERT)
    for confirm in (True, False):
        desk = Desk(config)
        desk.device.bootloader.set_next(0, active=True, confirm=True)
        desk.upload(NEW)
        assert desk.flags(1) == set()
        desk.test(NEW_HASH)
        assert desk.flags(1) == {"pending"}
        desk.reset()
        assert (desk.device.running_slot, desk.flags(0), desk.flags(1)) == (1, {"confirmed"}, {"active"})
        assert desk.upload(OLD)["err"] == {"group": 1, "rc": 9}, "the way back is kept"
        if confirm:
            desk.confirm()
            assert desk.flags(1) == {"active", "confirmed"}
        desk.reset()
        assert desk.device.running_slot == (1 if confirm else 0)


def test_an_image_that_proves_wrong_is_not_installed() -> None:
    desk = Desk()
    wrong = bytearray(NEW)
    wrong[5000] ^= 1
    desk.upload(bytes(wrong))
    assert "images" in desk.test(NEW_HASH)
    desk.reset()
    assert set(desk.images()) == {0}
    assert desk.images()[0]["hash"] == OLD_HASH


# -- the other modes --------------------------------------------------------------------------------------------------

RAM = 0x2000_0000


def ram_image(version: str) -> bytes:
    return build_image(version, payload_size=4_000, flags=ImageFlag.RAM_LOAD, load_address=RAM)


def test_ram_load_runs_the_newest_image_and_knows_no_marks() -> None:
    config = replace(SMALL, mode=Mode.RAM_LOAD, policy=BootPolicy(ram_start=RAM, ram_size=0x100000))
    desk = Desk(config, image=ram_image("1.0.0"))
    assert desk.flags(0) == {"active", "confirmed"}
    assert desk.upload(ram_image("1.1.0"))["off"] > 0
    assert desk.flags(1) == set()
    for body in ({"hash": desk.images()[1]["hash"]}, {"confirm": True}):
        assert desk.write(0, body) == {"rc": 8}
    desk.reset()
    assert (desk.device.running_slot, desk.flags(0), desk.flags(1)) == (1, set(), {"active", "confirmed"})
    # An older one goes to the other slot, and is not chosen; the running slot is not written to.
    desk.upload(ram_image("0.9.0"))
    assert desk.images()[0]["version"] == "0.9.0"
    desk.reset()
    assert desk.device.running_slot == 1
    # What cannot be loaded is erased at the next start.
    desk.upload(build_image("2.0.0", payload_size=100))
    desk.reset()
    assert set(desk.images()) == {1}


@pytest.mark.parametrize("confirm", [True, False])
def test_ram_load_with_revert_knows_marks_and_gives_an_image_one_start(confirm: bool) -> None:
    policy = BootPolicy(ram_start=RAM, ram_size=0x100000, ram_load_revert=True)
    desk = Desk(replace(SMALL, mode=Mode.RAM_LOAD, policy=policy), image=ram_image("1.0.0"))
    desk.device.bootloader.set_next(0, active=True, confirm=True)
    desk.upload(ram_image("1.1.0"))
    desk.test(desk.images()[1]["hash"])
    assert (desk.flags(0), desk.flags(1)) == ({"active", "confirmed"}, {"pending"})
    desk.reset()
    assert (desk.device.running_slot, desk.flags(0), desk.flags(1)) == (1, {"confirmed"}, {"active"})
    if confirm:
        desk.confirm()
        assert (desk.flags(0), desk.flags(1)) == (set(), {"active", "confirmed"})
    desk.reset()
    assert desk.device.running_slot == (1 if confirm else 0)


@pytest.mark.parametrize("mode", [Mode.DIRECT_XIP, Mode.DIRECT_XIP_REVERT])
def test_direct_xip_erases_what_is_built_for_the_wrong_slot_or_wrong_itself(mode: Mode) -> None:
    desk = Desk(replace(SMALL, mode=mode))
    if mode is Mode.DIRECT_XIP_REVERT:
        desk.device.bootloader.set_next(0, active=True, confirm=True)
    wrong = bytearray(NEW)
    wrong[3000] ^= 1
    desk.upload(bytes(wrong))
    if mode is Mode.DIRECT_XIP_REVERT:
        assert "images" in desk.test(NEW_HASH)
    desk.reset()
    assert (desk.device.running_slot, set(desk.images())) == (0, {0})


@pytest.mark.parametrize("confirm", [False, True])
def test_overwriting_leaves_one_image_that_is_confirmed(confirm: bool) -> None:
    desk = Desk(replace(SMALL, mode=Mode.OVERWRITE))
    desk.upload(NEW)
    (desk.confirm if confirm else desk.test)(NEW_HASH)
    assert desk.flags(1) == ({"pending", "permanent"} if confirm else {"pending"})
    desk.reset()
    assert desk.images()[0]["hash"] == NEW_HASH
    assert desk.flags(0) == {"active", "confirmed"}
    assert desk.upload(OLD) == {"off": len(OLD)}, "nothing has to be confirmed first"


@pytest.mark.parametrize("mode", [Mode.SWAP_MOVE, Mode.SWAP_OFFSET, Mode.SWAP_SCRATCH])
@pytest.mark.parametrize("confirm", [False, True])
def test_swapping_shows_the_flags_of_each_state(mode: Mode, confirm: bool) -> None:
    desk = Desk(replace(SMALL, mode=mode))
    desk.upload(NEW)
    assert (desk.flags(0), desk.flags(1)) == ({"active", "confirmed"}, set())
    (desk.confirm if confirm else desk.test)(NEW_HASH)
    assert (desk.flags(0), desk.flags(1)) == (
        {"active", "confirmed"},
        {"pending", "permanent"} if confirm else {"pending"},
    )
    desk.reset()
    images = desk.images()
    assert images[0]["hash"] == NEW_HASH
    if not confirm:
        assert (desk.flags(0), desk.flags(1)) == ({"active"}, {"confirmed"})
        desk.confirm()
        images = desk.images()
    assert desk.flags(0) == {"active", "confirmed"}
    # With swap by offset the old image lies where the server does not look for it any more.
    assert (1 in images) == (mode is not Mode.SWAP_OFFSET)


def test_a_single_slot_can_only_be_looked_at() -> None:
    desk = Desk(replace(SMALL, mode=Mode.SINGLE_SLOT))
    assert set(desk.images()) == {0}
    assert desk.ask(Op.READ, 1, 6) == {"images": [{"image": 0, "slots": [{"slot": 0, "size": 65536}]}]}
    assert desk.upload(NEW) == group_error(1, 9)
    assert desk.test(OLD_HASH) == {"rc": 8}
    assert desk.write(5, {"slot": 1}) == group_error(1, 10)
    assert desk.write(5, {"slot": 0}) == group_error(1, 9)


# -- other firmware ---------------------------------------------------------------------------------------------------


def test_chunks_are_cut_to_write_units_by_old_servers() -> None:
    desk = Desk(replace(SMALL, cuts_chunks=True, write_size=8))
    assert desk.write(1, {"off": 0, "len": len(NEW), "data": NEW[:101]}) == {"off": 96}
    assert desk.write(1, {"off": 96, "data": NEW[96:103]}) == {"off": 96}
    assert desk.upload(NEW, 101) == {"off": len(NEW)}
    assert desk.device.bootloader.secondary.read(0, len(NEW)) == NEW


def test_a_session_outlives_errors_and_erasing_on_old_servers() -> None:
    desk = Desk(replace(SMALL, session_survives=True))
    first = {"off": 0, "len": len(NEW), "data": NEW[:100], "sha": NEW_SHA}
    desk.write(1, first)
    for at in (100, 400):
        desk.write(1, {"off": at, "data": NEW[at : at + 300]})
    assert desk.write(1, {"data": b""}) == group_error(1, 20)
    assert desk.write(5) == {}
    assert desk.write(1, first) == {"off": 700}, "although nothing of it is left"
    at = 700
    while at < len(NEW):
        at = desk.write(1, {"off": at, "data": NEW[at : at + 300]})["off"]
    assert 1 not in desk.images()


def test_what_is_too_large_dies_silently_on_old_servers() -> None:
    size = 64 * 1024 + 400
    junk = NEW[:32].ljust(300, b"\0")
    assert Desk().write(1, {"off": 0, "len": size, "data": junk}) == group_error(1, 30)
    desk = Desk(replace(SMALL, size_check=False))
    at = desk.write(1, {"off": 0, "len": size, "data": junk})["off"]
    answer: Any = {}
    while answer is not None and at < size:
        answer = desk.write(1, {"off": at, "data": b"x" * 300})
        at = answer["off"] if answer else at
    assert answer is None
    assert 65536 - 300 < at <= 65536
    assert desk.write(1, {"off": at, "data": b"x" * 300}) is None
    assert desk.write(1, {"off": 2**31}) == {"off": at}


def test_errors_and_headers_of_other_servers() -> None:
    desk = Desk(replace(SMALL, ret_errors=True))
    assert desk.test(bytes(32)) == {"ret": {"group": 1, "rc": 8}}
    assert desk.ask(Op.READ, 99, 0) == {"rc": 8}
    mynewt = Desk(replace(SMALL, reply_flags=1, legacy_rc=True))
    (reply,) = mynewt.raw(build_message(Op.WRITE, 0, 0, 0, 5, 0, cbor2.dumps({"d": "a"})))
    assert reply == build_message(Op.WRITE_REPLY, 0, 1, 0, 5, 0, bytes.fromhex("bf6272630061726161ff"))


def test_commands_that_came_later() -> None:
    desk = Desk(replace(SMALL, os_info=False, slot_info=False, bootloader_info=False, params=False))
    for group, command in ((0, 6), (0, 7), (0, 8), (1, 6)):
        assert desk.ask(Op.READ, group, command) == {"rc": 8}


def test_a_hash_of_another_size_is_refused() -> None:
    assert Desk().test(bytes(64)) == group_error(1, 24)
    desk = Desk(replace(SMALL, hash_size=64))
    assert desk.test(bytes(32)) == group_error(1, 24)
    assert desk.test(bytes(64)) == group_error(1, 8)
    # An image with a SHA-512 is listed there, one with a SHA-256 is not.
    assert desk.images() == {}
    body = OLD[: 512 + 6000]
    digest = hashlib.sha512(body).digest()
    tlvs = b"\x07\x69" + (4 + 4 + 64).to_bytes(2, "little") + b"\x12\x00\x40\x00" + digest
    desk = Desk(replace(SMALL, hash_size=64), image=body + tlvs)
    assert desk.images()[0]["hash"] == digest


def test_builds_that_allow_less() -> None:
    desk = Desk(replace(SMALL, erases_pending=False, confirms_other=False))
    desk.upload(NEW)
    assert desk.confirm(NEW_HASH) == group_error(1, 32)
    desk.test(NEW_HASH)
    assert desk.write(5) == group_error(1, 9)
    assert desk.upload(OLD) == group_error(1, 9)
    desk.reset()
    desk.confirm()
    assert desk.upload(OLD)["off"] == len(OLD)


def test_direct_upload_names_the_slot() -> None:
    desk = Desk(replace(SMALL, direct_upload=True))
    slots = [{"slot": 0, "size": 65536}, {"slot": 1, "size": 65536, "upload_image_id": 2}]
    assert desk.ask(Op.READ, 1, 6)["images"][0]["slots"] == slots
    for number, taken in ((0, True), (1, False), (2, True), (3, False)):
        assert desk.upload(NEW, image=number) == ({"off": len(NEW)} if taken else group_error(1, 9))


@pytest.mark.parametrize("firmware", FIRMWARE)
def test_known_firmware_can_be_updated(firmware: str) -> None:
    desk = Desk(DeviceConfig.like(firmware, slot_size=64 * 1024))
    answer = desk.upload(NEW)
    assert answer["off"] == len(NEW)
    assert "images" in desk.test(NEW_HASH)
    assert desk.ask(Op.WRITE, 0, 5).get("rc", 0) == 0
    desk.now += 60
    assert desk.images()[0]["hash"] == NEW_HASH


def test_firmware_that_nobody_knows() -> None:
    with pytest.raises(UsageError, match="zephyr-9"):
        DeviceConfig.like("zephyr-9")


def test_groups_are_as_configured() -> None:
    desk = Desk(replace(SMALL, groups=(0, 10)))
    assert desk.ask(Op.READ, 10, 1) == {"groups": [10, 0]}
    assert desk.ask(Op.READ, 1, 0) == {"rc": 8}
    assert Desk().ask(Op.READ, 10, 1) == {"groups": [10, 8, 1, 0, 3, 9, 2, 63]}


def test_version_1_gets_no_answer_where_zephyr_forgets_it() -> None:
    desk = Desk()
    desk.device.add_group(ZephyrServer(ZephyrConfig(fault=ZephyrErrorCode.FLASH_ERASE_FAILED)))
    assert desk.ask(Op.WRITE, 63, 0) == group_error(63, 4)
    assert desk.ask(Op.WRITE, 63, 0, version=0) is None


# -- power and time ---------------------------------------------------------------------------------------------------


def test_a_reset_takes_its_time() -> None:
    desk = Desk(replace(SMALL, boot_s=1.0, reset_delay_s=0.25, request_s=0.0))
    desk.upload(NEW)
    desk.test(NEW_HASH)
    start = desk.now
    assert desk.write(5, group=0) == {}
    assert desk.device.reset_pending
    assert desk.device.deadline == pytest.approx(start + 0.25)
    # Until then the device goes on working.
    desk.now = start + 0.2
    assert desk.ask(Op.WRITE, 0, 0, {"d": "x"}) == {"r": "x"}
    desk.now = start + 0.3
    assert desk.ask(Op.WRITE, 0, 0, {"d": "x"}) is None
    assert desk.device.power is Power.BOOTING
    assert desk.device.deadline is not None
    # The swap erases every sector involved several times.
    assert desk.device.deadline > start + 0.25 + 1.0 + 6 * 0.085
    desk.now = desk.device.deadline
    assert desk.ask(Op.WRITE, 0, 0, {"d": "x"}) == {"r": "x"}


def test_a_crashing_application_is_reverted_by_the_watchdog() -> None:
    desk = Desk()
    seen: list[Power] = []
    desk.upload(CRASHING)
    desk.test(CRASHING_HASH)
    desk.device.listeners.append(seen.append)
    desk.reset(0.0)
    while desk.device.deadline is not None:
        desk.now = desk.device.deadline
        desk.device.advance(desk.now)
        if desk.device.power is Power.HUNG:
            assert desk.ask(Op.READ, 1, 0) is None
    assert seen == [Power.BOOTING, Power.HUNG, Power.BOOTING, Power.RUNNING]
    assert desk.images()[0]["hash"] == OLD_HASH
    assert desk.flags(0) == {"active", "confirmed"}


@pytest.mark.parametrize("version", ["1.1.0", "1.1.0.0", "1.1"])
def test_any_version_can_be_made_unhealthy(version: str) -> None:
    desk = Desk(replace(SMALL, unhealthy=frozenset({version})))
    desk.upload(NEW)
    desk.confirm(NEW_HASH)
    desk.reset(60)
    desk.device.settle()
    healthy = version != "1.1.0"  # versions are compared as the device writes them
    assert (desk.device.power is Power.RUNNING) == healthy
    assert desk.device.running_slot == 0
    header = desk.device.bootloader.primary.header()
    assert header is not None
    assert str(header.version) == "1.1.0"


def test_a_device_without_an_image_stays_dead() -> None:
    device = SimulatedDevice(SMALL)
    device.advance(0.0)
    assert device.power is Power.DEAD
    assert device.handle(build_message(2, 1, 0, 0, 0, 0, b"\xa0"), 1.0).replies == ()
    device.install(OLD)
    assert len(device.handle(build_message(2, 1, 0, 0, 0, 0, b"\xa0"), 2.0).replies) == 1


def test_power_lost_during_an_upload_and_during_the_swap() -> None:
    desk = Desk()
    desk.device.flash.cut_power(after=3)
    answer: Any = {"off": 0}
    at = 0
    while answer is not None:
        first = {"len": len(NEW), "sha": NEW_SHA} if at == 0 else {}
        answer = desk.write(1, {"off": at, "data": NEW[at : at + 300], **first})
        at = answer["off"] if answer is not None else at
    assert desk.device.power is Power.BOOTING
    desk.now += 60
    assert desk.write(1, {"off": at}) == {"off": 0}, "the session was in RAM"
    assert desk.upload(NEW)["off"] == len(NEW)
    desk.test(NEW_HASH)
    desk.device.flash.cut_power(after=7)
    desk.reset()
    assert desk.images()[0]["hash"] == NEW_HASH


def test_the_reset_button() -> None:
    desk = Desk()
    desk.write(1, {"off": 0, "len": len(NEW), "data": NEW[:100]})
    desk.device.reset(desk.now)
    assert desk.device.power is Power.BOOTING
    desk.now += 10
    assert desk.write(1, {"off": 100}) == {"off": 0}


def test_another_clock_goes_on_where_the_first_was() -> None:
    desk = Desk()
    desk.now = 1000.0
    desk.reset(0.1)
    desk.device.advance(desk.now)
    # A new event loop, whose clock begins at 0: what was to happen still happens after the same time.
    desk.device.advance(0.0)
    assert desk.device.deadline == pytest.approx(0.15, abs=0.01)


def test_a_crash_loop_does_not_stop_settling() -> None:
    device = SimulatedDevice(SMALL)
    device.install(CRASHING)
    device.settle()
    assert device.power is Power.HUNG
    assert device.deadline is not None


# -- large slots ------------------------------------------------------------------------------------------------------


def test_a_chunk_costs_the_same_in_a_slot_of_64_mb() -> None:
    """Nothing of the size of the slot is copied for it, nor for the first one, which erases the slot."""
    size = 64 * 1024 * 1024
    desk = Desk(DeviceConfig(slot_size=size, buf_size=2048, timing=INSTANT, request_s=0.0))
    desk.write(1, {"off": 0, "len": size, "data": NEW[:1000]})
    tracemalloc.start()
    try:
        offset = 0
        for _ in range(60):
            data = NEW[:1000] if offset == 0 else bytes(1000)
            assert desk.write(1, {"off": offset, "len": size, "data": data}) == {"off": offset + 1000}
            offset += 1000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024
    assert desk.device.flash.read(desk.device.bootloader.slots[1].offset, 1000) == NEW[:1000]


# -- the short way of reading a request -------------------------------------------------------------------------------

KINDS: dict[str, Kind] = {"off": "uint", "data": "bytes", "name": "text", "upgrade": "flag", "n": "int", "x": "any"}
ITEMS = st.one_of(
    st.integers(-(2**33), 2**33),
    st.binary(max_size=300),
    st.text(max_size=40),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False),
)
MAPS = st.lists(st.tuples(st.sampled_from([*KINDS, "other", "x" * 30, "\u00e4"]), ITEMS), max_size=6)


def outcome(read: Callable[[bytes, Mapping[str, Kind]], dict[str, Any]], payload: bytes) -> dict[str, Any] | None:
    try:
        return read(payload, KINDS)
    except (Refused, IndexError, ValueError, cbor2.CBORError, RecursionError):
        return None


@given(MAPS, st.integers(0, 12))
def test_the_short_way_reads_what_the_thorough_one_does(pairs: list[tuple[str, object]], cut: int) -> None:
    """A key may be there twice, and the end missing."""
    payload = bytes([0xA0 + len(pairs)]) + b"".join(cbor2.dumps(part) for pair in pairs for part in pair)
    payload = payload[: max(0, len(payload) - cut)]
    assert outcome(read_map, payload) == outcome(_read_map, payload)


@given(st.binary(max_size=60), st.sampled_from([b"", b"\xa1", b"\xa2coff", b"\xa1ddata"]))
def test_both_ways_refuse_the_same(rest: bytes, begin: bytes) -> None:
    assert outcome(read_map, begin + rest) == outcome(_read_map, begin + rest)


def test_uploads_go_the_short_way() -> None:
    payload = build_upload(70_000, bytes(600), 80_000, 0, bytes(32), True)
    assert payload is not None
    kinds: dict[str, Kind] = {
        "image": "uint",
        "data": "bytes",
        "len": "uint",
        "off": "uint",
        "sha": "bytes",
        "upgrade": "flag",
    }
    found = _read_plain(payload, kinds)
    assert found == {
        "image": 0,
        "len": 80_000,
        "off": 70_000,
        "sha": bytes(32),
        "upgrade": True,
        "data": bytes(600),
    }
    assert found == cbor2.loads(payload)


# -- no kinder than the real ones -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [ImageFlag.COMPRESSED_LZMA2, ImageFlag.COMPRESSED_LZMA1, ImageFlag.ENCRYPTED_AES128])
@pytest.mark.parametrize("mode", [Mode.SWAP_MOVE, Mode.SWAP_OFFSET, Mode.SWAP_SCRATCH, Mode.OVERWRITE])
def test_what_the_bootloader_cannot_unpack_is_taken_listed_and_erased(mode: Mode, flags: int) -> None:
    """Seen: image group and bootloader of Zephyr 4.4, built without decompression and keys."""
    desk = Desk(replace(SMALL, mode=mode))
    packed = build_image("1.1.0", payload_size=5000, flags=flags)
    digest = parse_image(packed).hash
    assert desk.upload(packed) == {"off": len(packed)}
    assert desk.images()[1]["hash"] == digest
    assert "images" in desk.test(digest)
    desk.reset()
    assert {slot: image["version"] for slot, image in desk.images().items()} == {0: "1.0.0"}


SLOT_OF_104 = replace(SMALL, mode=Mode.SWAP_OFFSET, slot_size=106_496, sector_size=1024)


def image_of(size: int) -> bytes:
    return build_image("1.1.0", payload_size=size - len(build_image("1.1.0", payload_size=0)))


@pytest.mark.parametrize("less", [2048, 3071])
def test_a_small_slot_has_a_small_trailer(less: int) -> None:
    """Seen on a slot of 104 sectors: a trailer for 128 would not have left this room."""
    desk = Desk(SLOT_OF_104)
    new = image_of(106_496 - less)
    assert desk.upload(new) == {"off": len(new)}
    desk.test(parse_image(new).hash)
    desk.reset()
    assert desk.images()[0]["version"] == "1.1.0"


def test_an_image_up_to_the_end_of_its_slot_is_complete_and_not_listed() -> None:
    desk = Desk(SLOT_OF_104)
    new = image_of(106_496 - 1024)
    assert desk.upload(new) == {"off": len(new)}
    assert list(desk.images()) == [0]


def test_the_first_sector_is_the_bootloaders_in_a_swap_using_offset() -> None:
    desk = Desk(SLOT_OF_104)
    large = image_of(106_496)
    first = {"off": 0, "len": len(large), "data": large[:200]}
    assert desk.upload(large)["err"] == {"group": 1, "rc": 12}  # the slot was blank: seen only when it is full
    kept = desk.device.flash.snapshot()
    assert desk.write(1, first)["err"] == {"group": 1, "rc": 13}
    assert desk.device.flash.snapshot() == kept


def test_an_upload_never_writes_behind_its_slot() -> None:
    desk = Desk(replace(SLOT_OF_104, images=2))
    desk.device.install(OLD, 2)
    behind = desk.device.bootloaders[1].primary
    kept = behind.content()
    assert desk.upload(image_of(106_496))["err"] == {"group": 1, "rc": 12}
    assert behind.content() == kept


@pytest.mark.parametrize(("slot", "code", "kept"), [(7, 10, False), (255, 10, False), (0, 9, True)])
def test_an_erase_ends_the_upload_unless_the_slot_is_in_use(slot: int, code: int, kept: bool) -> None:
    desk = Desk()
    desk.write(1, {"off": 0, "len": len(NEW), "data": NEW[:200], "sha": NEW_SHA})
    assert desk.write(5, {"slot": slot}) == {"err": {"group": 1, "rc": code}}
    assert desk.write(1, {"off": 200, "data": NEW[200:300]}) == {"off": 300 if kept else 0}


@pytest.mark.parametrize("value", ["mode", 7, b"\x01", {"a": 1}, None, True, 1.5])
def test_enumeration_takes_any_other_type_for_all_groups(value: object) -> None:
    desk = Desk(replace(SMALL, buf_size=2048))
    everything = desk.ask(Op.READ, 10, 3)
    assert desk.ask(Op.READ, 10, 3, {"groups": value}) == everything


def test_the_shell_needs_no_end_of_its_map() -> None:
    desk = Desk()
    line = cbor2.dumps({"argv": ["echo", "a"]})
    told = desk.ask(Op.WRITE, 9, 0, payload=b"\xbf" + line[1:])
    assert told == {"o": "\r\na\r\n", "ret": 0}
    assert desk.ask(Op.WRITE, 9, 0, payload=b"\xbf" + line[1:-1]) == {"rc": 3}


@pytest.mark.parametrize("mode", [Mode.SWAP_MOVE, Mode.OVERWRITE])
def test_an_application_linked_for_elsewhere_never_comes_up(mode: Mode) -> None:
    desk = Desk(replace(SMALL, mode=mode, address=0x8000))
    for version, address, runs in (("1.1.0", 0x8000, True), ("1.2.0", 0x8000 + SMALL.slot_size, False)):
        new = build_image(version, payload_size=5000, flags=ImageFlag.ROM_FIXED, load_address=address)
        assert desk.upload(new) == {"off": len(new)}
        desk.confirm(parse_image(new).hash)
        desk.reset()
        assert (desk.device.power is Power.RUNNING) == runs


@pytest.mark.parametrize("mode", [Mode.SWAP_SCRATCH, Mode.SWAP_MOVE, Mode.SWAP_OFFSET, Mode.OVERWRITE])
def test_an_empty_primary_is_newer_than_anything(mode: Mode) -> None:
    """Its bytes are compared, 255.255.65535; a swap using move or offset looks at nothing then, and overwriting does
    not compare with an empty slot."""
    device = SimulatedDevice(replace(SMALL, mode=mode, policy=BootPolicy(downgrade_prevention=True)))
    device.install(NEW, SECONDARY)
    device.bootloader.set_pending()
    device.advance(0.0)
    assert (device.power is Power.RUNNING) == (mode is Mode.OVERWRITE)
    erased = device.flash.is_erased(SMALL.slot_size, SMALL.slot_size)
    assert erased == (mode is Mode.SWAP_SCRATCH)


def test_garbage_with_the_flag_not_bootable_loses_its_mark_only() -> None:
    """The flag is looked at before the magic: any bytes whose 17th has that bit."""
    desk = Desk()
    garbage = bytearray(b"\xaa" * 4000)
    garbage[16] = 0x10
    area = desk.device.bootloader.secondary
    desk.device.flash.poke(area.offset, bytes(garbage))
    desk.device.bootloader.set_pending()
    desk.reset()
    assert desk.device.bootloader.swap_type() is SwapType.NONE
    assert area.read(0, 4000) == garbage
