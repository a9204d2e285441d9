"""What `image inspect -d` says of an image and a device, side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcumgrx.cli.main import main
from mcumgrx.mcuboot import ImageRole, PackageImage, parse_image
from mcumgrx.mcuboot.boards import is_same_board
from mcumgrx.messages.standard import Bootloader, BootloaderMode, ImageState, Slot, SlotInfo
from mcumgrx.sim.images import build_image
from mcumgrx_plugins.image.compare import DeviceFacts, compared

APP = parse_image(build_image("1.1.0", payload_size=3000))
SWAP, XIP = BootloaderMode.SWAP_MOVE, BootloaderMode.DIRECT_XIP


def device(
    version: str = "1.0.0",
    mode: int = SWAP,
    *,
    board: str | None = None,
    other: Slot | None = None,
    sizes: tuple[SlotInfo, ...] | None = None,
    running: int = 0,
    no_downgrade: bool = False,
) -> DeviceFacts:
    active = Slot(0, running, version, b"\x01" * 32, bootable=True, active=True, confirmed=True)
    slots = (active,) if other is None else (active, other)
    return DeviceFacts(ImageState(slots), sizes, Bootloader("MCUboot", mode, no_downgrade), board)


WAITING = Slot(0, 1, "1.1.0", APP.hash, bootable=True, pending=True)
ONE = PackageImage(APP)

CASES = [
    (ONE, device(), ["it is newer than 1.0.0, which runs"], []),
    (ONE, device("1.1.0"), ["it has the version that runs (1.1.0), and is another image"], []),
    (
        ONE,
        device("1.1.0", XIP),
        [],
        ["it has the version that runs (1.1.0), and is another image: this bootloader runs"],
    ),
    (ONE, device("2.0.0"), ["it is older than 2.0.0, which runs: a downgrade"], []),
    (ONE, device("2.0.0", no_downgrade=True), [], ["it is older than 2.0.0, which runs: a downgrade, which the boot"]),
    (ONE, device("2.0.0", XIP), [], ["it is older than 2.0.0"]),
    (ONE, device("strange"), [], []),
    (ONE, device(other=WAITING), ["it is in slot 1 of the device (pending)", "it is newer"], []),
    (ONE, device(sizes=(SlotInfo(0, 1, 4096),)), ["it is newer", "it fits slot 1: 3,656 of 4,096 bytes"], []),
    (
        ONE,
        device(sizes=(SlotInfo(0, 1, 4096, max_image_size=3000),)),
        ["it is newer"],
        ["it does not fit slot 1: 3,656"],
    ),
    (PackageImage(APP, 1), device(), [], ["the device shows no image 1"]),
    (
        PackageImage(APP, board="a"),
        device(board="b"),
        ["it is newer"],
        ["the file is for the board a, and the device is b"],
    ),
    (PackageImage(APP, board="a"), device(board="a/x"), ["the board is a/x, as the file says", "it is newer"], []),
    (PackageImage(APP, 0, 1), device(mode=XIP), ["it is newer", "it is linked for slot 1, which is free"], []),
    (PackageImage(APP, 0, 1), device(mode=XIP, running=1), ["it is newer"], ["it is linked for slot 1, which runs"]),
    (PackageImage(APP, 0, 1, ImageRole.BOOTLOADER), device(), ["it is newer"], ["it would replace the bootloader"]),
    (ONE, device(mode=BootloaderMode.RAM_LOAD), ["it is newer"], ["it is made to run from flash"]),
]


@pytest.mark.parametrize(("image", "facts", "good", "wrong"), CASES)
def test_what_is_said(image: PackageImage, facts: DeviceFacts, good: list[str], wrong: list[str]) -> None:
    for told, expected in zip(compared(image, facts), (good, wrong), strict=True):
        assert [text[: len(begin)] for text, begin in zip(told, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("file", "told", "number", "same"),
    [
        ("nrf52840dk", "nrf52840dk", 0, True),
        ("nrf52840dk_nrf52840", "nrf52840dk", 0, True),
        ("nrf52840dk", "nrf52840dk_nrf52840", 0, True),
        ("nrf52840dk/nrf52840", "nrf52840dk", 0, True),
        ("nRF52840DK@2/nrf52840", "nrf52840dk@1.0.0/nrf52840", 0, True),
        ("nrf5340dk/nrf5340/cpuapp", "nrf5340dk/nrf5340/cpuapp/ns", 0, False),
        ("nrf5340dk/nrf5340/cpunet", "nrf5340dk/nrf5340/cpuapp", 1, True),
        ("nrf5340dk_nrf5340_cpunet", "nrf5340dk", 1, True),
        ("nrf52dk", "nrf52840dk", 0, False),
        ("nrf52840dk", "nrf52840dongle", 0, False),
    ],
)
def test_names_of_boards(file: str, told: str, number: int, same: bool) -> None:
    assert is_same_board(file, told, number) is same


def test_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "app.bin"
    path.write_bytes(bytes(APP.data))
    assert main(["image", "inspect", str(path), "-d", "sim:"]) == 0
    assert "  device: it is newer than 1.0.0, which runs\n" in capsys.readouterr().out
    monkeypatch.setenv("MCUMGRX_DEVICE", "udp:192.0.2.1")  # which a look at a file does not ask
    assert main(["image", "inspect", str(path)]) == 0
    assert "device:" not in capsys.readouterr().out
