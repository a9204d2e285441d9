"""The board that a package names beside the device's: agreed to, asked about, or not known."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcumgrx.cli.main import main
from mcumgrx.flows import DeviceState, DfuPolicy, Plan, make_plan
from mcumgrx.mcuboot import PackageImage, parse_image
from mcumgrx.messages.standard import Bootloader, BootloaderMode, ImageState, Slot
from mcumgrx.sim.device import SimulatedDevice
from mcumgrx.sim.groups import Call, Unanswered
from mcumgrx.sim.images import build_image, build_package
from tests.support.in_place import CONFIG, InPlace

NEW = parse_image(build_image("1.1.0", payload_size=64))


def planned(package: str, told: str | None, number: int = 0) -> Plan:
    slots = [Slot(one, 0, "1.0.0", bytes([one] * 32), active=True, confirmed=True) for one in (0, 1)]
    state = DeviceState(
        ImageState(tuple(slots), split_status=0),
        bootloader=Bootloader("MCUboot", BootloaderMode.SWAP_MOVE),
        board=told,
    )
    return make_plan(NEW, state, DfuPolicy(image=number, package_boards=((number, package),)))


@pytest.mark.parametrize(
    ("package", "told", "number", "asked"),
    [
        ("nrf52840dk", "nrf52840dk", 0, False),
        ("nrf52840dk", "nrf52840dk/nrf52840", 0, False),
        ("nRF52840DK_nrf52840", "nrf52840dk@1.0.0/nrf52840", 0, False),
        ("nrf5340dk/nrf5340/cpunet", "nrf5340dk/nrf5340/cpuapp", 1, False),  # of another core
        ("nrf5340dk/nrf5340/cpuapp", "nrf5340dk/nrf5340/cpuapp/ns", 0, True),
        ("nrf5340dk", "nrf52840dk", 0, True),
        ("nrf52dk", "nrf52840dk", 0, True),
    ],
)
def test_names_that_differ_are_asked_about(package: str, told: str, number: int, asked: bool) -> None:
    agreed = [text for text in planned(package, told, number).no_way_back if "board" in text]
    assert agreed == (
        [f"the package is for the board {package}, and the device says that it is {told}"] if asked else []
    )
    assert PackageImage(NEW, number, board=package).is_for(told) is not asked


def test_a_device_that_does_not_tell_is_noted() -> None:
    plan = planned("nrf52840dk", None)
    assert "the device does not tell its board; the package is for nrf52840dk" in plan.notes
    assert not plan.no_way_back


def test_nobody_says_nothing() -> None:
    assert PackageImage(NEW).is_for("nrf52840dk") is None


# -- carried out -------------------------------------------------------------------------------------------------------


class Asked:
    """What the device has been asked for its board, and how it answers."""

    def __init__(self, device: SimulatedDevice, *, silent: bool = False) -> None:
        self.count = 0
        server = device.groups[0]
        self._real, self._silent = server.handlers[(0, 7)], silent
        server.handlers[(0, 7)] = self  # type: ignore[index]

    def __call__(self, call: Call) -> object:
        self.count += 1
        if self._silent:
            raise Unanswered
        return self._real(call)


def test_it_costs_one_request() -> None:
    desk = InPlace(CONFIG)
    asked = Asked(desk.device)
    desk.update(build_image("1.1.0", payload_size=1500), package_boards=((0, "mcumgrx_sim"),))
    assert asked.count == 1


def test_a_silent_device_costs_two_seconds_and_goes_on() -> None:
    desk = InPlace(CONFIG)
    Asked(desk.device, silent=True)
    report = desk.update(build_image("1.1.0", payload_size=1500), package_boards=((0, "nrf52840dk"),))
    assert desk.running == ["1.1.0"]
    assert "the device does not tell its board; the package is for nrf52840dk" in desk.notes
    assert any(note.startswith("the device does not tell its board: ") for note in desk.notes)
    told = next(step.elapsed_s for step in report.steps if step.name == "read")
    assert told < 2.5


@pytest.fixture
def package(tmp_path: Path) -> str:
    file = tmp_path / "dfu_application.zip"
    file.write_bytes(build_package({0: build_image("1.1.0", payload_size=2000)}, board="nrf52840dk"))
    return str(file)


def test_on_the_command_line(package: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right, other = (
        f"sim:{name},{options}erase=0.3,state={tmp_path / name}"
        for name, options in (("a", "board=nrf52840,"), ("b", ""))
    )
    assert main(["dfu", package, "-d", right]) == 0
    capsys.readouterr()
    assert main(["dfu", package, "-d", other]) == 11
    told = capsys.readouterr().err
    assert (
        "nobody has agreed: the package is for the board nrf52840dk, and the device says that it is mcumgrx_sim" in told
    )
    assert main(["image", "list", "-d", other]) == 0
    assert "1.1.0" not in capsys.readouterr().out
    assert main(["dfu", package, "-d", other, "--yes"]) == 0
    capsys.readouterr()
    assert main(["image", "inspect", package, "-d", other]) == 0
    assert "the file is for the board nrf52840dk, and the device is mcumgrx_sim" in "".join(capsys.readouterr())
