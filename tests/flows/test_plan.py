"""The plan: one table over situation, bootloader and mode, and each refusal and warning by itself. No device."""

from __future__ import annotations

import hashlib
import json
import re

import pytest

from mcumgrx.errors import PlanRefused, UsageError
from mcumgrx.flows import DeviceState, DfuPolicy, Mode, Plan, make_plan
from mcumgrx.flows.plan import Confirm, Erase, Mark, Prove, Reset, Step, Upload
from mcumgrx.mcuboot import Image, ImageFlag, TlvType, parse_image, trailer_magic
from mcumgrx.protocol.standard import Bootloader, BootloaderMode, ImageState, Slot, SlotInfo
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

SITUATIONS = {
    "empty": listed(OLD),
    "staged": listed(OLD, slot(1, "1.1.0", NEW.hash)),
    "test pending": listed(OLD, slot(1, "1.1.0", NEW.hash, "p")),
    "permanent pending": listed(OLD, slot(1, "1.1.0", NEW.hash, "pm")),
    "other pending": listed(OLD, slot(1, "1.0.5", THIRD_HASH, "p")),
    "on trial": listed(slot(0, "1.1.0", NEW.hash, "a"), slot(1, "1.0.0", OLD_HASH, "c")),
    "other on trial": listed(slot(0, "1.0.5", THIRD_HASH, "a"), slot(1, "1.0.0", OLD_HASH, "c")),
    "running": listed(slot(0, "1.1.0", NEW.hash, "ac"), slot(1, "1.0.0", OLD_HASH)),
}

# U upload, t mark for a test, p mark as permanent (with ? where the device may know no marks), R reset, P prove,
# C confirm, - nothing to do, ! refused. Columns: test-and-confirm, confirm-only, test-only, upload-only.
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
DIRECT_XIP = """
    empty               URP     URP     URP     U
    staged              RP      RP      RP      -
    test pending        RP      RP      RP      -
    permanent pending   RP      RP      RP      -
    other pending       URP     URP     URP     U
    on trial            C       C       -       -
    other on trial      !       !       !       !
    running             -       -       -       -
"""
# Its list says permanent of a test as well.
DIRECT_XIP_REVERT = SWAP.replace("permanent pending   RP      RP ", "permanent pending   RPC     RPC")
SINGLE = """
    empty               !       !       !       !
    staged              !       !       !       !
    test pending        !       !       !       !
    permanent pending   !       !       !       !
    other pending       !       !       !       !
    on trial            C       C       -       -
    other on trial      !       !       !       !
    running             -       -       -       -
"""
LOADER = """
    empty               !       !       !       U
    staged              !       !       !       -
    test pending        !       !       !       -
    permanent pending   !       !       !       -
    other pending       !       !       !       U
    on trial            C       C       -       -
    other on trial      !       !       !       !
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


def letters(steps: tuple[Step, ...]) -> str:
    text = ""
    for step in steps:
        match step:
            case Mark():
                text += ("p" if step.permanent else "t") + ("" if step.required else "?")
            case _:
                text += {Erase: "E", Upload: "U", Reset: "R", Prove: "P", Confirm: "C"}[type(step)]
    return text or "-"


def planned(images: ImageState, image: Image = NEW, /, mode: int = BootloaderMode.SWAP_MOVE, **policy: object) -> Plan:
    state = DeviceState(images, bootloader=Bootloader("MCUboot", mode))
    return make_plan(image, state, DfuPolicy(**policy))  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "situation", "how", "expected"), CELLS)
def test_every_situation_bootloader_and_mode(mode: int, situation: str, how: Mode, expected: str) -> None:
    images = SITUATIONS[situation]
    if expected == "!":
        with pytest.raises(PlanRefused) as refusal:
            make_plan(NEW, DeviceState(images, bootloader=Bootloader(None, mode)), DfuPolicy(how))
        assert refusal.value.hint
        return
    plan = make_plan(NEW, DeviceState(images, bootloader=Bootloader(None, mode)), DfuPolicy(how))
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
    assert "goes back to 1.1.0" in (refusal.hint or "")


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
    with pytest.raises(PlanRefused) as refusal:
        make_plan(padded(NEW, 8192), state, DfuPolicy())
    assert "without --pad" in (refusal.value.hint or "")


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
    assert plan.warnings == ()
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
    for version in ("1.1.0", "1.1.1", "1.1.0.5"):
        assert "runs the newest image" in refused(running(version), mode=mode).message
    build = parse_image(build_image("1.1.0+9", payload_size=64))
    assert "the bootloader may ignore it" in planned(running("1.1.0"), build, mode=mode).warnings[0]
    # Of two equal versions the one in slot 0 runs.
    in_slot_1 = listed(slot(1, "1.1.0", OLD_HASH, "ac"))
    assert planned(in_slot_1, mode=mode).slot == 0
    state = DeviceState(running("1.2.0"), bootloader=Bootloader(None, mode))
    assert make_plan(NEW, state, DfuPolicy(Mode.UPLOAD_ONLY)).has(Upload)


# -- ways without a way back ----------------------------------------------------------------------------------------


def test_no_way_back_is_always_said() -> None:
    for mode, situation in (
        (BootloaderMode.OVERWRITE, "empty"),
        (BootloaderMode.DIRECT_XIP, "empty"),
        (BootloaderMode.SWAP_MOVE, "permanent pending"),
    ):
        assert any("no way back" in text for text in planned(SITUATIONS[situation], mode=mode).warnings)
    assert not planned(listed(OLD)).warnings


def test_padded_files_are_told_of() -> None:
    (warning,) = planned(listed(OLD), padded(NEW, 8192)).warnings
    assert "any reset installs it" in warning
    (warning,) = planned(listed(OLD), padded(NEW, 8192, confirmed=True)).warnings
    assert "it stays" in warning
    plan = make_plan(padded(NEW, 8192), DeviceState(listed(OLD)), DfuPolicy(Mode.UPLOAD_ONLY))
    assert "any reset installs it" in plan.warnings[0]


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


def test_recovery_is_refused_unless_only_an_upload_is_wanted() -> None:
    for images in (IN_RECOVERY, ImageState(())):
        for how in (Mode.TEST_AND_CONFIRM, Mode.CONFIRM_ONLY, Mode.TEST_ONLY):
            with pytest.raises(PlanRefused, match="serial recovery") as refusal:
                make_plan(NEW, DeviceState(images), DfuPolicy(how))
            assert "--mode upload-only" in (refusal.value.hint or "")
        plan = make_plan(NEW, DeviceState(images), DfuPolicy(Mode.UPLOAD_ONLY))
        assert plan.steps == (Upload(NEW.size, 0, "1.1.0"),)
        assert any("written over the application" in text for text in plan.warnings)


def test_recovery_with_the_image_in_place_has_nothing_to_do() -> None:
    images = ImageState((slot(0, "1.1.0", NEW.hash),))
    assert make_plan(NEW, DeviceState(images), DfuPolicy(Mode.UPLOAD_ONLY)).steps == ()


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
