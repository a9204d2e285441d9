"""Files for each slot of an image: which of them a device gets, and that the second run finds nothing to do."""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from mcumgrx.cli.main import main
from mcumgrx.errors import Outcome, PlanRefused
from mcumgrx.flows import DfuPolicy, make_plan
from mcumgrx.flows.device_state import DeviceState
from mcumgrx.flows.variants import chosen, first
from mcumgrx.mcuboot import ImageFlag, PackageImage, by_slot, load_package, parse_image
from mcumgrx.mcuboot.variants import as_pair
from mcumgrx.messages.standard import Bootloader, BootloaderMode, ImageState, Slot, SlotInfo
from mcumgrx.sim.bootloader import Mode
from mcumgrx.sim.images import build_image
from tests.support.in_place import InPlace, config_of

FILES = [build_image("1.1.0", payload=name * 1500) for name in (b"s0", b"s1")]
BOTH = {slot: parse_image(data) for slot, data in enumerate(FILES)}
XIP = BootloaderMode.DIRECT_XIP


def state(slot: int | None, mode: int = XIP, hash: bytes = bytes(32), image: int = 0) -> DeviceState:
    """A device that runs this slot; None for one that does not say which."""
    running = Slot(image, slot or 0, "1.0.0", hash, bootable=True, active=slot is not None, confirmed=True)
    return DeviceState(ImageState((running,), split_status=0), bootloader=Bootloader("MCUboot", mode))


@pytest.mark.parametrize(
    ("device", "slot"),
    [
        (state(0), 1),
        (state(1), 0),
        (state(0, BootloaderMode.DIRECT_XIP_REVERT), 1),
        (state(0, BootloaderMode.UNKNOWN), 1),
        (state(0, BootloaderMode.SWAP_MOVE), 0),
        (state(0, BootloaderMode.OVERWRITE), 0),
        (state(0, BootloaderMode.FIRMWARE_LOADER), 0),
        (replace(state(None, BootloaderMode.UNKNOWN), images=ImageState(())), 0),  # recovery writes to slot 0
        (state(0, hash=BOTH[0].hash), 0),  # it runs already
        (state(1, hash=BOTH[1].hash), 1),
    ],
)
def test_the_file_is_the_one_that_would_run(device: DeviceState, slot: int) -> None:
    assert chosen({0: BOTH}, device) == {0: BOTH[slot]}


def test_images_of_a_pair_run_from_the_same_side() -> None:
    assert chosen({0: BOTH, 1: BOTH, 2: BOTH[0]}, state(1)) == {0: BOTH[0], 1: BOTH[0], 2: BOTH[0]}
    assert first({0: BOTH, 2: BOTH[1]}) == {0: BOTH[0], 2: BOTH[1]}


def test_what_cannot_be_told_is_refused() -> None:
    with pytest.raises(PlanRefused, match="does not say which of these runs"):
        chosen({0: BOTH}, state(None))
    with pytest.raises(PlanRefused, match="would run in slot 1, and there is no file"):
        chosen({0: {0: BOTH[0]}}, state(0))


@pytest.mark.parametrize("mode", ["direct-xip", "direct-xip-revert"])
def test_a_package_goes_from_side_to_side(mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = f"sim:desk,erase=0.3,mode={mode},state={tmp_path / 'state.json'}"
    for version, slot in (("1.1.0", 1), ("1.2.0", 0)):
        package = tmp_path / f"{version}.zip"
        with zipfile.ZipFile(package, "w") as archive:
            for side in (0, 1):
                archive.writestr(f"{side}.bin", build_image(version, payload=b"%d" % side * 3000))
            entries = [{"file": f"{side}.bin", "type": "application", "slot": str(side)} for side in (0, 1)]
            archive.writestr("manifest.json", json.dumps({"files": entries}))
        assert main(["dfu", str(package), "-d", device, "--yes"]) == 0
        assert f"to slot {slot}\n" in capsys.readouterr().err
        assert main(["image", "list", "-d", device]) == 0
        wanted = by_slot(load_package(package).images)[0]
        assert isinstance(wanted, dict)
        assert wanted[slot].hash.hex() in capsys.readouterr().out
        assert main(["dfu", str(package), "-d", device]) == 0
        assert "nothing to do" in capsys.readouterr().out


# -- one file, and two that their addresses alone tell apart -----------------------------------------------------------

BASE, SIZE = 0xC000, 0x10000


def linked(version: str, address: int, *, fixed: bool = True, **how: object) -> bytes:
    """A file that is linked for the slot at this address: by its header, or by its vector table alone."""
    payload = struct.pack("<8I", 0x2000_4000, *[address + 0x281] * 7) + bytes(2000)
    flags = ImageFlag.ROM_FIXED if fixed else 0
    return build_image(version, payload=payload, flags=flags, load_address=address if fixed else 0, **how)  # type: ignore[arg-type]


def with_sizes(device: DeviceState) -> DeviceState:
    return replace(device, slots=tuple(SlotInfo(0, slot, SIZE) for slot in (0, 1)))


REVERT = BootloaderMode.DIRECT_XIP_REVERT


@pytest.mark.parametrize("fixed", [True, False], ids=["flag", "vector"])
@pytest.mark.parametrize(
    ("device", "address", "expected"),
    [
        (with_sizes(state(0)), BASE + SIZE, None),
        (with_sizes(state(0)), BASE, "linked for slot 0, which runs (0x"),
        (with_sizes(state(1)), BASE, None),
        (with_sizes(state(0)), 0x0800_C000, "linked for slot 0, which runs (0x"),  # flash of an STM32
        (state(0), BASE, None),  # of a device that tells no sizes
        (with_sizes(state(0, BootloaderMode.SWAP_MOVE)), BASE, None),
    ],
)
def test_a_file_for_the_running_slot_is_refused(
    device: DeviceState, address: int, expected: str | None, fixed: bool
) -> None:
    image = parse_image(linked("1.1.0", address, fixed=fixed))
    if expected is None:
        assert make_plan(image, device, DfuPolicy()).steps
        return
    with pytest.raises(PlanRefused) as refusal:
        make_plan(image, device, DfuPolicy())
    assert expected in refusal.value.message
    assert "the file that the same build makes for slot 1" in (refusal.value.hint or "")


def test_an_address_beyond_slot_0_is_no_proof_and_refused_where_there_is_no_way_back() -> None:
    image = parse_image(linked("1.1.0", BASE + SIZE))
    with pytest.raises(PlanRefused, match=r"linked for slot 1, which runs .* and there is no way back"):
        make_plan(image, with_sizes(state(1)), DfuPolicy())
    plan = make_plan(image, with_sizes(state(1, REVERT)), DfuPolicy())
    assert any("linked for slot 1, which runs" in text for text in plan.warnings)


def test_one_file_of_a_package_has_the_slot_that_it_names() -> None:
    one = by_slot([PackageImage(BOTH[1], 0, slot=1)])
    assert one == {0: {1: BOTH[1]}}
    assert chosen(one, state(0)) == {0: BOTH[1]}
    assert chosen(one, state(0, BootloaderMode.SWAP_MOVE)) == {0: BOTH[1]}, "where it is sent to, not linked for"
    with pytest.raises(PlanRefused) as refusal:
        chosen(one, state(1))
    assert "for slot 0" in (refusal.value.hint or "")


@pytest.mark.parametrize("fixed", [True, False], ids=["flag", "vector"])
def test_two_files_are_those_of_the_slots_where_they_do_not_overlap(fixed: bool) -> None:
    low, high, near, other = (
        PackageImage(parse_image(linked(version, address, fixed=fixed)))
        for version, address in (("1.1.0", BASE), ("1.1.0", BASE + SIZE), ("1.1.0", BASE + 256), ("1.2.0", BASE + SIZE))
    )
    for pair in ((low, high), (high, low)):
        assert as_pair(*pair) == (replace(low, slot=0), replace(high, slot=1))
    assert as_pair(low, near) is None  # two builds for one slot
    assert as_pair(low, other) is None  # of another version
    assert as_pair(low, PackageImage(BOTH[0])) is None  # which tells nothing


@pytest.mark.parametrize("fixed", [True, False], ids=["flag", "vector"])
@pytest.mark.parametrize("numbered", ["0=", ""])
def test_two_files_go_from_side_to_side(
    fixed: bool, numbered: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = (
        f"sim:desk,erase=0.3,mode=direct-xip-revert,address={BASE},slot_size={SIZE},state={tmp_path / 'state.json'}"
    )
    for version, slot in (("1.1.0", 1), ("1.2.0", 0)):
        files = [tmp_path / f"{version}-{side}.bin" for side in (1, 0)]
        for file, side in zip(files, (1, 0), strict=True):
            file.write_bytes(linked(version, BASE + side * SIZE, fixed=fixed))
        if slot:  # the file for the slot that runs, alone
            assert main(["dfu", str(files[1]), "-d", device]) == 11
            assert "linked for slot 0, which runs" in capsys.readouterr().err
        assert main(["dfu", *(numbered + str(file) for file in files), "-d", device]) == 0
        capsys.readouterr()
        assert main(["image", "list", "-d", device]) == 0
        assert f"slot {slot}  {version}  active, confirmed" in capsys.readouterr().out


def test_a_file_for_another_slot_is_named_in_the_verdict_where_nothing_told_before() -> None:
    """The device tells no sizes, so that the address alone says nothing."""
    desk = InPlace(config_of(Mode.DIRECT_XIP, address=BASE, slot_info=False))
    error = desk.fails(linked("1.1.0", BASE))
    assert error.outcome is Outcome.NEVER_SWAPPED
    assert "linked for a slot at 0xc000, and passed over in any other" in (error.hint or "")
    assert "image erase" in (error.hint or "")
    assert desk.running == ["1.0.0"]
