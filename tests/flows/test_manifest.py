"""Manifest updates of the nRF Connect SDK: one image names the others, and all of them run from the same side."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcumgrx.cli.main import main
from mcumgrx.errors import Outcome, UsageError
from mcumgrx.events import StageName
from mcumgrx.flows import Ending, Mode
from mcumgrx.flows.plan import Confirm, Look, Mark, Upload
from mcumgrx.mcuboot import parse_image
from mcumgrx.sim import bootloader as boot
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.images import build_image
from tests.support.in_place import InPlace, config_of

KINDS = (boot.Mode.DIRECT_XIP, boot.Mode.DIRECT_XIP_REVERT)


def a_set(version: str, *others: str, **how: object) -> dict[int, bytes]:
    """Image 0 of this version, and the others that it names."""
    beside = [build_image(one, payload_size=1500, image=number) for number, one in enumerate(others, 1)]
    owner = build_image(version, payload_size=1500, manifest=beside, **how)  # type: ignore[arg-type]
    return {0: owner, **dict(enumerate(beside, 1))}


def desk_of(mode: boot.Mode, *others: str) -> InPlace:
    """A device that runs 1.0.0 and these others from slot 0."""
    desk = InPlace(config_of(mode, 1 + len(others), manifest=True), ("1.0.0", *others))
    for number, image in a_set("1.0.0", *others).items():
        desk.place(number, 0, image)
    desk.device.bootloader.set_next(0, active=True, confirm=True)
    assert desk.running == ["1.0.0", *others]
    return desk


def order(desk: InPlace) -> list[str]:
    plan = desk.plans[-1]
    return [f"{kind.__name__}{number}" for kind in (Upload, Look, Mark, Confirm) for number, _ in plan.tasks(kind)]


@pytest.mark.parametrize("mode", KINDS)
def test_all_go_to_the_same_side_and_one_is_marked(mode: boot.Mode) -> None:
    desk = desk_of(mode, "5.0.0", "7.0.0")
    # An older version of image 1, and image 2 as it runs: only the version of the manifest's image counts.
    report = desk.update(a_set("1.1.0", "4.0.0", "7.0.0"))
    assert report.ending is Ending.CONFIRMED
    assert (desk.running, desk.sides) == (["1.1.0", "4.0.0", "7.0.0"], [1, 1, 1])
    marked = ["Mark0", "Confirm0"] if mode is boot.Mode.DIRECT_XIP_REVERT else []
    assert order(desk) == ["Upload1", "Upload2", "Upload0", "Look0", *marked]
    assert desk.told(StageName.MARK)[0] == "the set of 1.1.0 of image 0 is complete"
    assert desk.after_reset() == ["1.1.0", "4.0.0", "7.0.0"]
    # Once more: nothing to do. And to the side from which it came, where image 2 lies already.
    assert desk.update(a_set("1.1.0", "4.0.0", "7.0.0")).ending is Ending.NOTHING_TO_DO
    assert desk.update(a_set("1.2.0", "6.0.0", "7.0.0")).ending is Ending.CONFIRMED
    assert order(desk)[:2] == ["Upload1", "Upload0"]
    assert (desk.after_reset(), desk.sides) == (["1.2.0", "6.0.0", "7.0.0"], [0, 0, 0])


@pytest.mark.parametrize("mode", KINDS)
def test_what_does_not_belong_together_is_refused(mode: boot.Mode) -> None:
    desk = desk_of(mode, "5.0.0")
    new, other = a_set("1.1.0", "5.1.0"), a_set("1.1.0", "5.2.0")
    assert "names another image 1" in desk.refuses({0: new[0], 1: other[1]}).message
    assert "names an image 1 that is not in slot 1" in desk.refuses({0: new[0]}).message
    assert "names 2 other images" not in desk.refuses(a_set("0.9.0", "5.1.0")).message
    assert "not newer" in desk.refuses(a_set("0.9.0", "5.1.0")).message
    swaps = InPlace(config_of(boot.Mode.SWAP_MOVE, 2), ("1.0.0", "5.0.0"))
    assert "which is for direct XIP alone" in swaps.refuses(new).message
    three = desk_of(mode, "5.0.0", "7.0.0")
    assert "the device has image 2 as well" in three.refuses(new).message


def test_the_image_with_the_manifest_is_enough_where_the_others_are_there() -> None:
    desk = desk_of(boot.Mode.DIRECT_XIP_REVERT, "5.0.0")
    new = a_set("1.1.0", "5.1.0")
    desk.place(1, 1, new[1])
    assert desk.update({0: new[0]}).ending is Ending.CONFIRMED
    assert (desk.running, desk.sides) == (["1.1.0", "5.1.0"], [1, 1])


def test_a_set_of_which_one_is_refused_does_not_run() -> None:
    desk = desk_of(boot.Mode.DIRECT_XIP_REVERT, "5.0.0")
    desk.device.bootloaders[1].verify = lambda image: str(image.version) != "5.1.0"
    error = desk.fails(a_set("1.1.0", "5.1.0"))
    assert error.outcome is Outcome.REJECTED
    assert "5.1.0 of image 1 is gone" in error.message
    assert "1.1.0 of image 0 names it, and was passed over" in error.message
    assert (desk.running, desk.sides) == (["1.0.0", "5.0.0"], [0, 0])
    assert desk.after_reset() == ["1.0.0", "5.0.0"]


def test_a_trial_that_crashes_takes_all_back() -> None:
    desk = desk_of(boot.Mode.DIRECT_XIP_REVERT, "5.0.0")
    error = desk.fails(a_set("1.1.0", "5.1.0", health="crash"))
    assert error.outcome in (Outcome.REJECTED, Outcome.REVERTED)
    assert (desk.running, desk.sides) == (["1.0.0", "5.0.0"], [0, 0])


def test_a_set_on_trial_is_confirmed_by_its_one_image() -> None:
    desk = desk_of(boot.Mode.DIRECT_XIP_REVERT, "5.0.0")
    new = a_set("1.1.0", "5.1.0")
    assert desk.update(new, mode=Mode.TEST_ONLY).ending is Ending.ON_TRIAL
    assert desk.update(new).ending is Ending.CONFIRMED
    assert desk.after_reset() == ["1.1.0", "5.1.0"]


def test_a_device_that_misses_one_is_seen_before_the_mark() -> None:
    """Somebody erases image 1 between the uploads and the mark: the list does not call the set bootable."""
    desk = desk_of(boot.Mode.DIRECT_XIP_REVERT, "5.0.0")
    real = desk.device.image.upload

    def losing(call: object) -> dict[str, object]:
        answer = real(call)  # type: ignore[arg-type]
        if desk.held(0)[1] == "1.1.0":
            desk.device.bootloaders[1].secondary.erase()
        return answer

    desk.device.image.handlers[(2, 1)] = losing  # type: ignore[index]
    error = desk.fails({0: a_set("1.1.0", "5.1.0")[0], 1: a_set("1.1.0", "5.1.0")[1]})
    assert error.outcome is Outcome.REJECTED
    assert "does not call it bootable" in error.message
    assert desk.after_reset() == ["1.0.0", "5.0.0"]


def test_manifests_are_read_from_files() -> None:
    images = a_set("1.1.0", "5.1.0", "7.0.0")
    owner = parse_image(images[0])
    assert owner.manifest == tuple(parse_image(images[number]).hash for number in (1, 2))
    assert parse_image(images[1]).manifest is None
    assert parse_image(build_image("1.0.0", tlvs={0x76: b"\1\0\0\0\2\0\0\0" + bytes(32)})).manifest is None


def test_what_has_no_set() -> None:
    for wrong in ({"images": 1, "mode": boot.Mode.DIRECT_XIP}, {"images": 2}):
        with pytest.raises(UsageError, match="a manifest is for several images"):
            DeviceConfig(manifest=True, **wrong)  # type: ignore[arg-type]


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = f"sim:set,images=2,mode=direct-xip-revert,manifest=yes,erase=0.3,state={tmp_path / 'state.json'}"
    files = []
    for number, data in a_set("1.1.0", "5.1.0").items():
        file = tmp_path / f"{number}.bin"
        file.write_bytes(data)
        files.append(f"{number}={file}")
    assert main(["dfu", *files, "-d", device]) == 0
    assert "see that the set of 1.1.0" in capsys.readouterr().err
    assert main(["dfu", *files, "-d", device]) == 0
    assert "nothing to do" in capsys.readouterr().out
