"""Files for each slot of an image: which of them a device gets, and that the second run finds nothing to do."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from mcumgrx.cli.main import main
from mcumgrx.errors import PlanRefused
from mcumgrx.flows.device_state import DeviceState
from mcumgrx.flows.variants import chosen, first
from mcumgrx.mcuboot import by_slot, load_package, parse_image
from mcumgrx.messages.standard import Bootloader, BootloaderMode, ImageState, Slot
from mcumgrx.sim.images import build_image

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
