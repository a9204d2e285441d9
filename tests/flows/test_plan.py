"""The plan: one table over situation, bootloader and mode, and each refusal and warning by itself. No device."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from dataclasses import replace
from typing import Any

import pytest

from mcumgrx.errors import PlanRefused, UsageError
from mcumgrx.flows import DeviceState, DfuPolicy, Mode, Plan, make_plan
from mcumgrx.flows.plan import Confirm, EnterLoader, EnterRecovery, Erase, Look, Mark, Prove, Reset, Step, Upload
from mcumgrx.hints import Hint
from mcumgrx.mcuboot import Image, ImageFlag, Tlv, TlvType, parse_image, trailer_magic
from mcumgrx.messages.standard import Bootloader, BootloaderMode, ImageState, Slot, SlotInfo
from mcumgrx.sim.images import build_image

NEW = parse_image(build_image("1.1.0", payload_size=1024))
OLD_HASH = hashlib.sha256(b"old").digest()
THIRD_HASH = hashlib.sha256(b"third").digest()


def slot(number: int, version: str, hash: bytes | None, flags: str = "", image: int = 0) -> Slot:
    """Flags as letters: active, confirmed, pending, permanent (m)."""
    return Slot(
        image,
        number,
        version,
        hash,
        bootable=True,
        active="a" in flags,
        confirmed="c" in flags,
        pending="p" in flags,
        permanent="m" in flags,
    )


def listed(*slots: Slot) -> ImageState:
    return ImageState(slots, split_status=0)


OLD = slot(0, "1.0.0", OLD_HASH, "ac")


def situations(new: Image) -> dict[str, ImageState]:
    return {
        "empty": listed(OLD),
        "staged": listed(OLD, slot(1, "1.1.0", new.hash)),
        "test pending": listed(OLD, slot(1, "1.1.0", new.hash, "p")),
        "permanent pending": listed(OLD, slot(1, "1.1.0", new.hash, "pm")),
        "other pending": listed(OLD, slot(1, "1.0.5", THIRD_HASH, "p")),
        "on trial": listed(slot(0, "1.1.0", new.hash, "a"), slot(1, "1.0.0", OLD_HASH, "c")),
        "other on trial": listed(slot(0, "1.0.5", THIRD_HASH, "a"), slot(1, "1.0.0", OLD_HASH, "c")),
        "running": listed(slot(0, "1.1.0", new.hash, "ac"), slot(1, "1.0.0", OLD_HASH)),
    }


SITUATIONS = situations(NEW)
IN_RAM = parse_image(build_image("1.1.0", payload_size=1024, flags=ImageFlag.RAM_LOAD, load_address=0x2001_0000))

# U upload, t mark for a test, p mark as permanent (with ? where the device may know no marks), L look whether the next
# boot takes it, R reset, P prove, C confirm, N enter the bootloader's recovery, - nothing to do, ! refused. Columns:
# test-and-confirm, confirm-only, test-only, upload-only.
SWAP = """
    empty               UtRPC   UpRP    UtRP    U
    staged              tRPC    pRP     tRP     -
    test pending        RPC     RPC     RP      -
    permanent pending   RP      RP      RP      -
    other pending       UtRPC   UpRP    UtRP    U
    on trial            C       C       -       -
    other on trial      !       !       !       !
    running             -       -       -       -
"""
UNKNOWN = re.sub(r"(U?)([tp])R", r"\1\2?R", SWAP)
OVERWRITE = """
    empty               UpRP    UpRP    UtRP    U
    staged              pRP     pRP     tRP     -
    test pending        RP      RP      RP      -
    permanent pending   RP      RP      RP      -
    other pending       UpRP    UpRP    UtRP    U
    on trial            C       C       -       -
    other on trial      !       !       !       !
    running             -       -       -       -
"""
# What is newer and not shown for the next boot has been postponed by the application.
DIRECT_XIP = """
    empty               ULRP    ULRP    ULRP    U
    staged              !       !       !       -
    test pending        RP      RP      RP      -
    permanent pending   RP      RP      RP      -
    other pending       ULRP    ULRP    ULRP    U
    on trial            C       C       -       -
    other on trial      !       !       !       !
    running             -       -       -       -
"""
# Some lists say permanent of a test as well.
DIRECT_XIP_REVERT = SWAP.replace("permanent pending   RP      RP ", "permanent pending   RPC     RPC")
SINGLE = """
    empty               NURP    NURP    NURP    NU
    staged              NURP    NURP    NURP    NU
    test pending        NURP    NURP    NURP    NU
    permanent pending   NURP    NURP    NURP    NU
    other pending       NURP    NURP    NURP    NU
    on trial            C       C       -       -
    other on trial      !       !       !       !
    running             -       -       -       -
"""
# What lies in slot 1 is the loader, and no mark means anything; more of it in test_loader. F enter the loader.
LOADER = """
    empty               FURP    FURP    FURP    FU
    staged              FURP    FURP    FURP    FU
    test pending        FURP    FURP    FURP    FU
    permanent pending   FURP    FURP    FURP    FU
    other pending       FURP    FURP    FURP    FU
    on trial            C       C       -       -
    other on trial      FURP    FURP    FURP    FU
    running             -       -       -       -
"""

TABLE = {
    BootloaderMode.UNKNOWN: UNKNOWN,
    BootloaderMode.SWAP_SCRATCH: SWAP,
    BootloaderMode.SWAP_MOVE: SWAP,
    BootloaderMode.SWAP_OFFSET: SWAP,
    BootloaderMode.OVERWRITE: OVERWRITE,
    BootloaderMode.DIRECT_XIP: DIRECT_XIP,
    BootloaderMode.DIRECT_XIP_REVERT: DIRECT_XIP_REVERT,
    BootloaderMode.RAM_LOAD: UNKNOWN,
    BootloaderMode.SINGLE_SLOT: SINGLE,
    BootloaderMode.SINGLE_SLOT_RAM_LOAD: SINGLE,
    BootloaderMode.FIRMWARE_LOADER: LOADER,
}


def rows(table: str) -> dict[str, list[str]]:
    found = {}
    for name, line in zip(SITUATIONS, table.strip().splitlines(), strict=True):
        found[name] = line.split()[-4:]
    return found


CELLS = [
    pytest.param(mode, situation, how, expected, id=f"{mode.name.lower()}-{situation}-{how.value}")
    for mode, table in TABLE.items()
    for situation, row in rows(table).items()
    for how, expected in zip(Mode, row, strict=True)
]


LETTERS: dict[type[Step], str] = {
    EnterLoader: "F",
    EnterRecovery: "N",
    Erase: "E",
    Upload: "U",
    Look: "L",
    Reset: "R",
    Prove: "P",
    Confirm: "C",
}


def letters(steps: tuple[Step, ...]) -> str:
    text = ""
    for step in steps:
        match step:
            case Mark():
                text += ("p" if step.permanent else "t") + ("" if step.required else "?")
            case _:
                text += LETTERS[type(step)]
    return text or "-"


def planned(images: ImageState, image: Image = NEW, /, mode: int = BootloaderMode.SWAP_MOVE, **policy: object) -> Plan:
    state = DeviceState(images, bootloader=Bootloader("MCUboot", mode))
    return make_plan(image, state, DfuPolicy(**policy))  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "situation", "how", "expected"), CELLS)
def test_every_situation_bootloader_and_mode(mode: int, situation: str, how: Mode, expected: str) -> None:
    new = IN_RAM if mode == BootloaderMode.RAM_LOAD else NEW
    state = DeviceState(situations(new)[situation], bootloader=Bootloader(None, mode))
    if expected == "!":
        with pytest.raises(PlanRefused) as refusal:
            make_plan(new, state, DfuPolicy(how))
        assert refusal.value.hint
        return
    plan = make_plan(new, state, DfuPolicy(how))
    assert letters(plan.steps) == expected
    assert len(plan.texts) == len(plan.steps)
    assert plan.to_version == "1.1.0"
    if not plan.steps:
        assert plan.notes  # somebody will want to know why
    assert json.loads(json.dumps(plan.as_dict()))["to_version"] == "1.1.0"


def test_a_bootloader_mode_of_the_future_is_taken_for_one_that_swaps() -> None:
    assert letters(planned(listed(OLD), mode=42).steps) == "UtRPC"


def test_the_steps_name_versions_and_slots() -> None:
    assert planned(listed(OLD), erase=True).texts == (
        "erase slot 1",
        f"upload 1.1.0 ({NEW.size:,} bytes) to slot 1",
        "mark it for a test boot",
        "reset the device and wait for it to return",
        "prove that 1.1.0 runs",
        "confirm 1.1.0, so that it stays",
    )


def test_the_other_slot_is_the_target_when_slot_1_runs() -> None:
    images = listed(slot(1, "1.0.0", OLD_HASH, "ac"))
    plan = planned(images, mode=BootloaderMode.DIRECT_XIP, erase=True)
    assert plan.slot == 0
    assert plan.steps[0] == Erase(0)


def test_erase_asks_for_a_clean_start_even_when_the_image_is_there() -> None:
    assert letters(planned(SITUATIONS["staged"], erase=True).steps) == "EUtRPC"
    assert letters(planned(SITUATIONS["permanent pending"], erase=True).steps) == "EUtRPC"
    plan = planned(SITUATIONS["running"], erase=True)
    assert letters(plan.steps) == "-"
    assert "nothing is erased: there is nothing to upload" in plan.notes


def test_the_same_image_in_both_slots_is_never_marked_by_hash() -> None:
    # By hash the device would find the running one first.
    both = listed(slot(0, "1.1.0", NEW.hash, "a"), slot(1, "1.1.0", NEW.hash, "c"))
    assert letters(planned(both).steps) == "C"
    assert letters(planned(both, mode=BootloaderMode.OVERWRITE).steps) == "C"
    confirmed = listed(slot(0, "1.1.0", NEW.hash, "ac"), slot(1, "1.1.0", NEW.hash))
    assert letters(planned(confirmed).steps) == "-"


def test_another_image_waiting_behind_the_wanted_one_is_told() -> None:
    images = listed(slot(0, "1.1.0", NEW.hash, "ac"), slot(1, "2.0.0", THIRD_HASH, "p"))
    plan = planned(images)
    assert letters(plan.steps) == "-"
    assert plan.warnings == ("slot 1 holds 2.0.0, which the next reset installs in its place",)


def test_a_waiting_image_is_given_up_with_a_warning() -> None:
    (warning,) = planned(SITUATIONS["other pending"]).warnings
    assert "1.0.5" in warning


# -- refusals -------------------------------------------------------------------------------------------------------


def refused(images: ImageState, image: Image = NEW, /, **policy: object) -> PlanRefused:
    with pytest.raises(PlanRefused) as refusal:
        planned(images, image, **policy)  # type: ignore[arg-type]
    assert refusal.value.stage == "plan"
    assert refusal.value.hint
    return refusal.value


def test_an_unconfirmed_running_image_is_never_touched() -> None:
    refusal = refused(SITUATIONS["other on trial"])
    assert "1.0.5 is not confirmed" in refusal.message
    assert "mcumgrx image confirm" in (refusal.hint or "")
    assert refusal.slot == 0


def test_the_image_that_a_trial_goes_back_to_needs_only_a_reset() -> None:
    images = listed(slot(0, "2.0.0", THIRD_HASH, "a"), slot(1, "1.1.0", NEW.hash, "c"))
    refusal = refused(images)
    assert "2.0.0 runs on trial" in refusal.message
    assert "go back to it with 'mcumgrx os reset'" in (refusal.hint or "")


def padded(image: Image, size: int, *, confirmed: bool = False) -> Image:
    data = bytearray(image.data.ljust(size, b"\xff"))
    data[-16:] = trailer_magic(8)
    if confirmed:
        data[-24] = 1
    return parse_image(bytes(data))


@pytest.mark.parametrize(
    ("size", "largest", "fits"),
    [(NEW.size, None, True), (NEW.size - 1, None, False), (4096, NEW.size, True), (4096, NEW.size - 1, False)],
)
def test_a_file_that_does_not_fit_is_refused(size: int, largest: int | None, fits: bool) -> None:
    slots = (SlotInfo(0, 0, 100), SlotInfo(0, 1, size, max_image_size=largest), SlotInfo(1, 1, 100))
    state = DeviceState(listed(OLD), slots)
    if fits:
        assert make_plan(NEW, state, DfuPolicy()).has(Upload)
        return
    with pytest.raises(PlanRefused, match=rf"does not fit: it has {NEW.size:,} bytes, slot 1 takes"):
        make_plan(NEW, state, DfuPolicy(Mode.UPLOAD_ONLY))


def test_a_slot_of_unknown_size_takes_everything() -> None:
    state = DeviceState(listed(OLD), (SlotInfo(0, 1, rc=10), SlotInfo(0, 0)))
    assert make_plan(NEW, state, DfuPolicy()).has(Upload)


def test_a_padded_file_that_would_fit_without_its_padding_is_told_so() -> None:
    state = DeviceState(listed(OLD), (SlotInfo(0, 1, 8192, max_image_size=4096),))
    with pytest.raises(PlanRefused, match="does not fit") as refusal:
        make_plan(padded(NEW, 8192), state, DfuPolicy(Mode.CONFIRM_ONLY))
    assert "add --trim" in (refusal.value.hint or "")
    plan = make_plan(padded(NEW, 8192), state, DfuPolicy(trim=True))
    assert plan.steps[0] == Upload(NEW.size, 1, "1.1.0", trimmed=True)


def test_a_hash_of_another_length_is_refused() -> None:
    images = listed(slot(0, "1.0.0", hashlib.sha512(b"old").digest(), "ac"))
    refusal = refused(images)
    assert "256 bits" in refusal.message
    assert "512 bits" in refusal.message
    assert "--sha 512" in (refusal.hint or "")


def test_without_hashes_only_an_upload_is_possible() -> None:
    images = listed(slot(0, "1.0.0", None, "ac"))
    refused(images)
    plan = make_plan(NEW, DeviceState(images), DfuPolicy(Mode.UPLOAD_ONLY))
    assert letters(plan.steps) == "U"
    assert "the device lists no hashes: the upload cannot be checked" in plan.warnings


def test_an_image_number_that_the_device_does_not_have_is_refused() -> None:
    # A server with one image ignores the number, and would write its only one.
    assert "no image 1" in refused(listed(OLD), image=1).message
    state = DeviceState(listed(OLD), (SlotInfo(1, 1, 65536),))
    assert make_plan(NEW, state, DfuPolicy(image=1, erase=True)).steps[0] == Erase(3)


def test_each_image_has_its_own_slots() -> None:
    images = listed(OLD, slot(0, "0.9.0", THIRD_HASH, "ac", image=1), slot(1, "1.2.0", THIRD_HASH, "p", image=1))
    plan = planned(listed(*images.slots[:2]), image=1, erase=True)
    assert plan.from_version == "0.9.0"
    assert plan.steps[0] == Erase(3)
    assert planned(images).warnings == ("the reset also installs 1.2.0 of image 1",)


def test_an_image_that_cannot_boot_is_only_uploaded() -> None:
    image = parse_image(build_image("1.1.0", payload_size=64, flags=ImageFlag.NON_BOOTABLE))
    assert "not bootable" in refused(listed(OLD), image).message
    assert letters(make_plan(image, DeviceState(listed(OLD)), DfuPolicy(Mode.UPLOAD_ONLY)).steps) == "U"


# -- versions -------------------------------------------------------------------------------------------------------


def running(version: str) -> ImageState:
    return listed(slot(0, version, OLD_HASH, "ac"))


def test_a_downgrade_is_told() -> None:
    assert planned(running("1.1.1")).warnings == ("this is a downgrade, from 1.1.1 to 1.1.0",)
    assert planned(running("1.1.0")).warnings == ("another image with the same version 1.1.0 runs",)
    assert planned(running("1.0.9.7")).warnings == ()
    assert planned(running("1.0.9.7")).from_version == "1.0.9+7"


def test_a_version_that_is_none_is_shown_as_it_is() -> None:
    plan = planned(running("main-g1234"), upgrade_only=True)
    assert plan.from_version == "main-g1234"
    assert plan.warnings == ()


def test_a_downgrade_is_refused_where_the_bootloader_refuses_it() -> None:
    bootloader = Bootloader("MCUboot", BootloaderMode.SWAP_MOVE, no_downgrade=True)
    with pytest.raises(PlanRefused, match=r"older than 1\.1\.1"):
        make_plan(NEW, DeviceState(running("1.1.1"), bootloader=bootloader), DfuPolicy())
    assert make_plan(NEW, DeviceState(running("1.1.0"), bootloader=bootloader), DfuPolicy()).has(Upload)


def test_upgrade_only_refuses_all_that_is_not_newer() -> None:
    assert planned(running("1.0.9"), upgrade_only=True).has(Upload)
    for version in ("1.1.0", "1.1.0.3", "1.1.1"):
        assert "--upgrade-only" in (refused(running(version), upgrade_only=True).hint or "")


@pytest.mark.parametrize("mode", [BootloaderMode.DIRECT_XIP, BootloaderMode.DIRECT_XIP_REVERT, BootloaderMode.RAM_LOAD])
def test_a_bootloader_that_runs_the_newest_image_needs_a_newer_one(mode: BootloaderMode) -> None:
    flags = ImageFlag.RAM_LOAD if mode is BootloaderMode.RAM_LOAD else 0
    new = parse_image(build_image("1.1.0", payload_size=64, flags=flags))
    for version in ("1.1.0", "1.1.1", "1.1.0.5"):
        assert "runs the newest image" in refused(running(version), new, mode=mode).message
    build = parse_image(build_image("1.1.0+9", payload_size=64, flags=flags))
    assert "the bootloader may ignore it" in planned(running("1.1.0"), build, mode=mode).warnings[0]
    # Of two equal versions the one in slot 0 runs.
    in_slot_1 = listed(slot(1, "1.1.0", OLD_HASH, "ac"))
    assert planned(in_slot_1, new, mode=mode).slot == 0
    state = DeviceState(running("1.2.0"), bootloader=Bootloader(None, mode))
    assert make_plan(NEW, state, DfuPolicy(Mode.UPLOAD_ONLY)).has(Upload)


# -- ways without a way back ----------------------------------------------------------------------------------------


def test_no_way_back_is_always_said() -> None:
    for mode, situation in (
        (BootloaderMode.OVERWRITE, "empty"),
        (BootloaderMode.DIRECT_XIP, "empty"),
        (BootloaderMode.SWAP_MOVE, "permanent pending"),
    ):
        plan = planned(SITUATIONS[situation], mode=mode)
        assert any("no way back" in text for text in plan.warnings)
        assert plan.no_way_back
    assert not planned(listed(OLD)).warnings


def test_each_cell_of_the_table_either_has_a_way_back_or_says_why_not() -> None:
    """The rule, told from the steps: what is marked to stay, or is started by a bootloader that knows no trial."""
    counted = dict.fromkeys((True, False), 0)
    for mode, situation, how, expected in (cell.values for cell in CELLS):
        new = IN_RAM if mode == BootloaderMode.RAM_LOAD else NEW
        if expected == "!":
            continue
        plan = make_plan(
            new, DeviceState(situations(new)[situation], bootloader=Bootloader(None, mode)), DfuPolicy(how)
        )
        done = letters(plan.steps)
        starts = "R" in done
        one_way = mode in (BootloaderMode.OVERWRITE, BootloaderMode.DIRECT_XIP)
        marked = situation == "permanent pending" and mode is not BootloaderMode.DIRECT_XIP_REVERT
        loader = mode is BootloaderMode.FIRMWARE_LOADER and "U" in done
        final = (starts and (one_way or marked or "p" in done)) or loader or "N" in done
        assert bool(plan.no_way_back) == final, (mode, situation, how, done)
        assert set(plan.no_way_back) <= set(plan.warnings)
        assert all("no way back" in text for text in plan.no_way_back)
        counted[final] += 1
    assert min(counted.values()) > 40, counted


@pytest.mark.parametrize("how", [Mode.TEST_AND_CONFIRM, Mode.TEST_ONLY])
@pytest.mark.parametrize(
    ("confirmed", "effect"), [(False, "for a test boot, planned or not"), (True, "for good, with no way back")]
)
def test_a_padded_file_is_refused_where_a_way_back_is_promised(how: Mode, confirmed: bool, effect: str) -> None:
    file = padded(NEW, 8192, confirmed=confirmed)
    for mode in (BootloaderMode.UNKNOWN, BootloaderMode.SWAP_MOVE, BootloaderMode.DIRECT_XIP_REVERT):
        with pytest.raises(PlanRefused) as refusal:
            make_plan(file, DeviceState(listed(OLD), bootloader=Bootloader(None, mode)), DfuPolicy(how))
        assert effect in refusal.value.message
        assert f"add --trim to send it without its padding, {NEW.size:,} of 8,192 bytes" in (refusal.value.hint or "")
        state = DeviceState(listed(OLD), bootloader=Bootloader(None, mode))
        plan = make_plan(file, state, DfuPolicy(how, trim=True))
        assert f"upload 1.1.0 ({NEW.size:,} bytes, without its padding) to slot 1" in plan.texts
        assert plan.image is not None
        assert plan.image.data == NEW.data
        assert not any("reset installs it" in text for text in plan.warnings)


@pytest.mark.parametrize("confirmed", [False, True])
def test_a_padded_file_is_sent_as_it_is_where_no_way_back_is_promised(confirmed: bool) -> None:
    file = padded(NEW, 8192, confirmed=confirmed)
    for how, mode in (
        (Mode.CONFIRM_ONLY, BootloaderMode.SWAP_MOVE),
        (Mode.UPLOAD_ONLY, BootloaderMode.SWAP_MOVE),
        (Mode.TEST_AND_CONFIRM, BootloaderMode.OVERWRITE),
        (Mode.TEST_AND_CONFIRM, BootloaderMode.DIRECT_XIP),
    ):
        plan = make_plan(file, DeviceState(listed(OLD), bootloader=Bootloader(None, mode)), DfuPolicy(how))
        assert plan.image is None
        assert any(("it stays" if confirmed else "any reset installs it") in text for text in plan.warnings)
        assert bool(plan.no_way_back) == (confirmed or (how, mode) != (Mode.UPLOAD_ONLY, BootloaderMode.SWAP_MOVE))


def test_swap_using_offset_takes_no_file_of_the_size_of_the_slot() -> None:
    state = DeviceState(listed(OLD), (SlotInfo(0, 1, 8192),), Bootloader(None, BootloaderMode.SWAP_OFFSET))
    for how in Mode:
        with pytest.raises(PlanRefused, match="swap using offset keeps a sector") as refusal:
            make_plan(padded(NEW, 8192), state, DfuPolicy(how))
        assert "--trim" in (refusal.value.hint or "")
        assert make_plan(padded(NEW, 8192), state, DfuPolicy(how, trim=True)).has(Upload)


def test_padding_of_an_image_that_is_there_already_changes_nothing() -> None:
    assert letters(planned(SITUATIONS["staged"], padded(NEW, 8192)).steps) == "tRPC"
    assert letters(planned(SITUATIONS["running"], padded(NEW, 8192)).steps) == "-"


# -- the file against the bootloader ----------------------------------------------------------------------------------


def image(flags: int = 0, load_address: int = 0, **more: Any) -> Image:
    return parse_image(build_image("1.1.0", payload_size=1024, flags=flags, load_address=load_address, **more))


def finding(file: Image, mode: int, how: Mode = Mode.TEST_AND_CONFIRM, **more: Any) -> str:
    """`refused: ` with its reason, or all warnings."""
    images = more.pop("images", listed(OLD))
    slots = more.pop("slots", None)
    try:
        plan = make_plan(file, DeviceState(images, slots, Bootloader(None, mode)), DfuPolicy(how, **more))
    except PlanRefused as refusal:
        return f"refused: {refusal.message}" if refusal.hint else "refused without a hint"
    return "; ".join(plan.warnings)


ROM = image(ImageFlag.ROM_FIXED, 0x84000)
ENCRYPTED = image(ImageFlag.ENCRYPTED_AES128)
COMPRESSED = image(ImageFlag.COMPRESSED_LZMA2)
M = BootloaderMode

AGAINST = [
    (ROM, M.DIRECT_XIP, Mode.TEST_AND_CONFIRM, r"^(?!refused).*0x84000.*only if slot 1"),
    (ROM, M.DIRECT_XIP_REVERT, Mode.TEST_AND_CONFIRM, r"^(?!refused).*0x84000"),
    (ROM, M.UNKNOWN, Mode.TEST_AND_CONFIRM, r"^(?!refused).*0x84000"),
    (ROM, M.UNKNOWN, Mode.CONFIRM_ONLY, "^refused: .*0x84000.*no way back"),
    (ROM, M.SWAP_MOVE, Mode.TEST_AND_CONFIRM, r"^(?!refused).*0x84000.*slot 0 alone"),
    (ROM, M.SWAP_MOVE, Mode.CONFIRM_ONLY, "^refused: .*0x84000.*no way back"),
    (ROM, M.OVERWRITE, Mode.TEST_AND_CONFIRM, "^refused: .*0x84000.*no way back"),
    (ROM, M.OVERWRITE, Mode.UPLOAD_ONLY, r"^(?!refused).*0x84000"),
    (IN_RAM, M.RAM_LOAD, Mode.TEST_AND_CONFIRM, r"^(?!.*RAM)"),
    (NEW, M.RAM_LOAD, Mode.TEST_AND_CONFIRM, "^refused: this bootloader loads images into RAM"),
    (NEW, M.RAM_LOAD, Mode.UPLOAD_ONLY, "^this bootloader loads images into RAM"),
    (IN_RAM, M.SWAP_SCRATCH, Mode.TEST_AND_CONFIRM, r"^(?!refused).*into RAM at 0x20010000"),
    (IN_RAM, M.SWAP_SCRATCH, Mode.CONFIRM_ONLY, "^refused: .*into RAM at 0x20010000.*no way back"),
    (IN_RAM, M.OVERWRITE, Mode.TEST_ONLY, "^refused: .*into RAM"),
    (IN_RAM, M.DIRECT_XIP, Mode.TEST_AND_CONFIRM, "^refused: .*into RAM"),
    (IN_RAM, M.UNKNOWN, Mode.CONFIRM_ONLY, r"^(?!refused).*into RAM"),
    (ENCRYPTED, M.SWAP_MOVE, Mode.TEST_AND_CONFIRM, "^$"),
    (ENCRYPTED, M.DIRECT_XIP, Mode.TEST_AND_CONFIRM, "^refused: the file is encrypted.*direct XIP"),
    (ENCRYPTED, M.DIRECT_XIP_REVERT, Mode.CONFIRM_ONLY, "^refused: the file is encrypted"),
    (ENCRYPTED, M.DIRECT_XIP, Mode.UPLOAD_ONLY, "^the file is encrypted"),
    (image(ImageFlag.ENCRYPTED_AES256 | ImageFlag.RAM_LOAD), M.RAM_LOAD, Mode.TEST_ONLY, "^refused: .*encrypted.*RAM"),
    (COMPRESSED, M.OVERWRITE, Mode.TEST_AND_CONFIRM, r"^(?!refused).*MCUBOOT_DECOMPRESS_IMAGES"),
    (COMPRESSED, M.SWAP_MOVE, Mode.TEST_AND_CONFIRM, r"^(?!refused).*MCUBOOT_DECOMPRESS_IMAGES"),
    (COMPRESSED, M.DIRECT_XIP, Mode.TEST_AND_CONFIRM, "^refused: the file is compressed"),
]


@pytest.mark.parametrize(("file", "mode", "how", "expected"), AGAINST)
def test_what_the_header_says_against_the_mode(file: Image, mode: int, how: Mode, expected: str) -> None:
    assert re.search(expected, finding(file, mode, how))


def test_a_compressed_file_has_to_fit_once_it_is_unpacked() -> None:
    packed = replace(
        COMPRESSED, tlvs=(*COMPRESSED.tlvs, Tlv(TlvType.DECOMP_SIZE, struct.pack("<I", 9000), protected=True))
    )
    slots = (SlotInfo(0, 0, 9511), SlotInfo(0, 1, 9511))
    assert "it has 9,512 bytes then, slot 0 takes 9,511" in finding(packed, M.OVERWRITE, slots=slots)
    assert "refused" not in finding(packed, M.OVERWRITE, slots=(SlotInfo(0, 0, 9512), SlotInfo(0, 1, 9512)))


SLOT_BYTES = 128 * 1024


@pytest.mark.parametrize(
    ("mode", "spare", "expected"),
    [
        (M.SWAP_MOVE, 0, "^refused: the file fits slot 1 only without the trailer"),
        (M.SWAP_OFFSET, 32, "^refused: "),
        (M.SWAP_MOVE, 200, "^the file may be too large to be swapped"),
        (M.SWAP_SCRATCH, 2000, "^$"),
        (M.SWAP_MOVE, 2000, "^the file may be too large"),
        (M.SWAP_MOVE, 6000, "^$"),
        (M.OVERWRITE, 0, "^refused: "),
        (M.OVERWRITE, 64, "^this bootloader overwrites the old image: there is no way back$"),
        (M.UNKNOWN, 0, "^$"),
        (M.SWAP_MOVE, -1, "^refused: the file does not fit"),
    ],
)
def test_the_trailer_needs_room_behind_the_image(mode: int, spare: int, expected: str) -> None:
    file = parse_image(build_image("1.1.0", payload_size=SLOT_BYTES - spare - 0x200 - 40, signed=False))
    assert file.size == SLOT_BYTES - spare
    assert re.search(expected, finding(file, mode, slots=(SlotInfo(0, 0, SLOT_BYTES), SlotInfo(0, 1, SLOT_BYTES))))


def signed(kind: TlvType, hash_type: TlvType = TlvType.SHA256, *, pure: bool = False) -> Image:
    size = {TlvType.SHA256: 32, TlvType.SHA384: 48, TlvType.SHA512: 64}[hash_type]
    tlvs = (Tlv(hash_type, bytes(size)), Tlv(kind, bytes(64)), *([Tlv(TlvType.SIG_PURE, b"\x01")] if pure else []))
    return replace(NEW, tlvs=tlvs, hash=bytes(size), hash_type=hash_type)


@pytest.mark.parametrize(
    ("file", "device_bits", "hint"),
    [
        (signed(TlvType.ECDSA_SIG, TlvType.SHA384), 256, "sign with a P-256, RSA or Ed25519 key"),
        (signed(TlvType.ED25519, TlvType.SHA512, pure=True), 256, "(Ed25519 (pure)) goes with 512 bits alone"),
        (signed(TlvType.ED25519, TlvType.SHA512), 256, "sign the file with imgtool --sha 256"),
        (signed(TlvType.ED25519), 512, "sign the file with imgtool --sha 512"),
        (signed(TlvType.ED25519), 384, "sign with a P-384 key"),
        (signed(TlvType.ECDSA_SIG), 512, "an Ed25519 key and --sha 512"),
        (signed(TlvType.RSA3072_PSS), 384, "(RSA-3072) goes with 256 bits alone: sign with a P-384 key"),
        (NEW, 512, "sign the file with imgtool --sha 512"),
        (NEW, 384, "sign with a P-384 key"),
    ],
)
def test_the_hash_that_is_advised_is_one_that_the_key_allows(file: Image, device_bits: int, hint: str) -> None:
    refusal = refused(listed(slot(0, "1.0.0", bytes(device_bits // 8), "ac")), file)
    assert f"works with {device_bits} bits" in refusal.message
    assert hint in (refusal.hint or "")


# -- several images ---------------------------------------------------------------------------------------------------

NET = slot(0, "1.0.5", THIRD_HASH, "ac", image=1)


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ((), r"^the file needs image 1 at version 1\.2\.0 or later, which the device does not list"),
        ((NET,), r"^refused: .*1\.2\.0 or later, but the one that runs is 1\.0\.5"),
        ((NET, slot(1, "1.2.0", OLD_HASH, "p", image=1)), r"^the reset also installs 1\.2\.0 of image 1$"),
        ((slot(0, "1.2.0.7", THIRD_HASH, "ac", image=1),), "^$"),
        ((slot(0, "1.3.0", OLD_HASH, "ac", image=1), slot(1, "1.0.0", THIRD_HASH, "p", image=1)), "^refused: .*waits"),
        ((slot(0, "1.0.0", THIRD_HASH, "ac", image=2),), "^refused: .*the device has no such image"),
    ],
)
def test_what_the_file_needs_of_other_images(others: tuple[Slot, ...], expected: str) -> None:
    file = image(needs={1: "1.2.0"})
    assert re.search(expected, finding(file, M.SWAP_MOVE, images=listed(OLD, *others)))
    assert "refused" not in finding(file, M.SWAP_MOVE, Mode.UPLOAD_ONLY, images=listed(OLD, *others))


def test_a_file_that_needs_itself_needs_nothing() -> None:
    assert finding(image(needs={0: "9.0.0"}), M.SWAP_MOVE) == ""


def test_a_security_counter_is_told() -> None:
    counted = replace(NEW, tlvs=(*NEW.tlvs, Tlv(TlvType.SEC_CNT, struct.pack("<I", 7), protected=True)))
    assert any("security counter is 7" in note for note in planned(listed(OLD), counted).notes)


def test_another_image_than_0_is_marked_to_stay_because_nobody_could_confirm_it() -> None:
    plan = planned(listed(OLD, NET), image=1)
    assert letters(plan.steps) == "UpRP"
    assert "it is marked to stay before it has run, and there is no way back" in plan.warnings[0]
    plan = make_plan(NEW, DeviceState(listed(OLD, NET)), DfuPolicy(Mode.TEST_ONLY, image=1))
    assert letters(plan.steps) == "Ut?RP"
    assert "cannot be confirmed from here" in plan.warnings[0]
    on_trial = listed(OLD, slot(0, "1.1.0", NEW.hash, "a", image=1), slot(1, "1.0.5", THIRD_HASH, "c", image=1))
    assert planned(on_trial, image=1).steps == (Confirm("1.1.0", NEW.hash),)
    assert planned(SITUATIONS["on trial"]).steps == (Confirm("1.1.0"),)


def test_an_image_that_is_never_listed_can_only_be_seen_to_leave_its_slot() -> None:
    staged = listed(OLD, slot(1, "1.0.0", THIRD_HASH, image=1))
    plan = planned(staged, image=1)
    assert plan.steps[-1] == Prove("1.1.0", listed=False)
    assert any("does not list what runs of image 1" in text for text in plan.warnings)


def network_core() -> Image:
    payload = struct.pack("<II", 0x2100_1000, 0x0100_8B01) + bytes(range(200))
    return parse_image(build_image("1.1.0", payload=payload))


def test_an_image_of_the_network_core_leaves_the_slot_of_the_application() -> None:
    plan = planned(listed(OLD), network_core())
    assert plan.steps[-1] == Prove("1.1.0", listed=False)
    assert "linked for the network core" in plan.warnings[0]
    refusal = refused(listed(OLD, NET), network_core())
    assert "add --image 1" in (refusal.hint or "")
    assert planned(listed(OLD, NET), network_core(), image=1).steps[-1] == Prove("1.1.0")


def test_the_reset_ends_the_trial_of_a_later_image_and_puts_off_that_of_an_earlier_one() -> None:
    later = listed(OLD, slot(0, "1.0.5", THIRD_HASH, "a", image=1), slot(1, "0.9.0", OLD_HASH, "c", image=1))
    assert "1.0.5 of image 1 runs on trial: the reset also ends that" in planned(later).warnings
    earlier = listed(slot(0, "1.0.0", OLD_HASH, "a"), slot(1, "0.9.0", THIRD_HASH, "c"), NET)
    refusal = refused(earlier, image=1)
    assert "1.0.0 of image 0 runs on trial, and the installation of image 1 would put off its end" in refusal.message
    assert "'mcumgrx image confirm'" in (refusal.hint or "")
    # A bootloader that does not swap goes back whatever waits.
    warnings = planned(earlier, image=1, mode=BootloaderMode.DIRECT_XIP_REVERT).warnings
    assert "1.0.0 of image 0 runs on trial: the reset also ends that" in warnings


def test_an_image_number_that_is_not_listed_names_the_way_past_the_list() -> None:
    file = replace(NEW, path="net core.bin")
    hint = refused(listed(OLD), file, image=1).hint
    assert isinstance(hint, Hint)
    assert """'mcumgrx image upload "net core.bin" --image 1 -d sim:'""" in hint.on(("-d", "sim:"))
    state = DeviceState(listed(OLD), (SlotInfo(0, 0, 4096), SlotInfo(0, 1, 4096)))
    with pytest.raises(PlanRefused, match="the device has no image 1"):
        make_plan(NEW, state, DfuPolicy(Mode.UPLOAD_ONLY, image=1))


def test_upload_only_says_what_the_next_reset_does() -> None:
    def warnings(situation: str, mode: BootloaderMode) -> tuple[str, ...]:
        state = DeviceState(SITUATIONS[situation], bootloader=Bootloader(None, mode))
        return make_plan(NEW, state, DfuPolicy(Mode.UPLOAD_ONLY)).warnings

    assert warnings("empty", BootloaderMode.SWAP_MOVE) == ()
    assert warnings("test pending", BootloaderMode.SWAP_MOVE) == ("the next reset installs 1.1.0",)
    assert "may start it" in warnings("empty", BootloaderMode.DIRECT_XIP)[0]
    assert "mark it before a reset" in warnings("empty", BootloaderMode.DIRECT_XIP_REVERT)[0]


def test_a_compressed_image_runs_under_the_hash_of_its_content() -> None:
    unpacked = hashlib.sha256(b"unpacked").digest()
    packed = Image(
        header=NEW.header.__class__(0, 512, 40, 100, ImageFlag.COMPRESSED_LZMA2, NEW.version),
        tlvs=(NEW.tlvs[0].__class__(TlvType.DECOMP_SHA, unpacked, protected=True),),
        hash=NEW.hash,
        hash_type=TlvType.SHA256,
        content_size=700,
        padded=False,
        pad_confirmed=False,
        data=bytes(700),
    )
    assert letters(planned(listed(slot(0, "1.1.0", unpacked, "ac")), packed).steps) == "-"
    assert letters(planned(listed(slot(0, "1.1.0", unpacked, "a")), packed).steps) == "C"
    assert letters(planned(listed(OLD, slot(1, "1.1.0", packed.hash)), packed).steps) == "tRPC"


# -- MCUboot's serial recovery --------------------------------------------------------------------------------------

IN_RECOVERY = ImageState((slot(0, "1.0.0", OLD_HASH),))


def test_a_list_without_an_active_slot_is_recovery_only_when_all_else_agrees() -> None:
    with_status = DeviceState(ImageState(IN_RECOVERY.slots, split_status=0))
    known = DeviceState(IN_RECOVERY, bootloader=Bootloader("MCUboot", BootloaderMode.SWAP_MOVE))
    for state in (with_status, known):
        assert not state.recovery
        plan = make_plan(NEW, state, DfuPolicy())
        assert plan.warnings == ("the device does not say which image runs",)
        assert plan.from_version is None
    assert make_plan(NEW, known, DfuPolicy(erase=True)).steps[0] == Erase(None)


# -- policy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 0},
        {"chunk_bytes": 0},
        {"image": -1},
        {"reconnects": -1},
        {"erase_timeout_s": 0},
        {"boot_timeout_s": float("nan")},
        {"quiet_s": -1},
        {"grace_s": -0.5},
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        DfuPolicy(**wrong)  # type: ignore[arg-type]


# -- an upload that was interrupted ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begun", "policy", "resumed"),
    [
        ((NEW.file_sha256, 500), {}, 500),
        ((NEW.file_sha256, 500), {"erase": True}, 0),
        ((NEW.hash, 500), {}, 0),
        ((NEW.file_sha256, NEW.size), {}, 0),
        (None, {}, 0),
    ],
)
def test_the_plan_tells_where_an_upload_goes_on(
    begun: tuple[bytes, int] | None, policy: dict[str, Any], resumed: int
) -> None:
    plan = make_plan(NEW, DeviceState(listed(OLD), begun=begun), DfuPolicy(**policy))
    upload = next(step for step in plan.steps if isinstance(step, Upload))
    assert upload.resumed_from == resumed
    assert (f", resumed at 500 of {NEW.size:,} bytes" in upload.text) == bool(resumed)
    assert plan.as_dict()["resumed_from"] == resumed


def test_a_file_that_is_padded_goes_on_as_it_was_sent() -> None:
    file = padded(NEW, 65536)
    for trim, sha in ((True, NEW.file_sha256), (False, file.file_sha256)):
        state = DeviceState(listed(OLD), begun=(sha, 900))
        plan = make_plan(file, state, DfuPolicy(Mode.UPLOAD_ONLY, trim=trim))
        assert f"resumed at {f'900 of {NEW.size:,} bytes' if trim else '1 of 66 KB'}" in plan.texts[0]
        assert plan.as_dict()["resumed_from"] == 900


def test_of_several_images_the_one_that_was_begun_is_gone_on_with() -> None:
    net = parse_image(build_image("2.1.0", payload_size=20_000, image=1))
    state = DeviceState(
        ImageState((*listed(OLD).slots, replace(listed(OLD).slots[0], image=1)), 0), begun=(net.file_sha256, 14_000)
    )
    plan = make_plan({0: NEW, 1: net}, state, DfuPolicy())
    assert [step.resumed_from for _, step in plan.tasks(Upload)] == [0, 14_000]
    assert "resumed at 14 of 21 KB of image 1" in plan.texts[1]
    assert plan.as_dict()["resumed_from"] == 14_000


def test_every_step_says_why() -> None:
    for mode, situation, how, expected in (cell.values for cell in CELLS):
        if expected == "!":
            continue
        new = IN_RAM if mode == BootloaderMode.RAM_LOAD else NEW
        plan = make_plan(
            new, DeviceState(situations(new)[situation], bootloader=Bootloader(None, mode)), DfuPolicy(how)
        )
        assert [text for _, text, _ in plan.told] == [*plan.texts]
        assert all(why and why not in text for _, text, why in plan.told)
        assert plan.notes or any(name == "upload" for name, _, _ in plan.told)  # why nothing is uploaded
        fields = plan.as_dict()["steps"]
        assert isinstance(fields, list)
        assert [(step["name"], step["text"], step["why"]) for step in fields] == [*plan.told]


def test_of_several_images_each_line_says_why() -> None:
    net = parse_image(build_image("2.1.0", payload_size=20_000, image=1))
    images = ImageState((*listed(OLD).slots, replace(listed(OLD).slots[0], image=1)), 0)
    plan = make_plan({0: NEW, 1: net}, DeviceState(images, begun=(net.file_sha256, 14_000)), DfuPolicy())
    assert [name for name, _, _ in plan.told] == ["upload", "upload", "mark", "reset", "prove", "confirm"]
    assert [why for _, _, why in plan.told][:3] == [
        "no other slot holds it",
        "an upload has left 14,000 bytes, if the device has not restarted since",
        "if it does not run, the old one comes back",
    ]
