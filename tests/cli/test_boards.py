"""Updates of simulated boards through the command line: both cores of an nRF5340, and one image of the others."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.sim.boards import BOARDS
from mcumgrx.sim.images import build_image

Cli = Callable[..., Any]
ImageFile = Callable[..., str]

pytestmark = pytest.mark.usefixtures("virtual_time")

OLD, NEW = ("1.0.0", "1.0.0"), ("1.1.0", "2.1.0")


@pytest.fixture
def cores(tmp_path: Path) -> str:
    return f"sim:,board=nrf5340,state={tmp_path / 'cores.json'}"


@pytest.fixture
def runs(cli: Cli, cores: str) -> Callable[[], list[tuple[int, str, bool]]]:
    """The image number, version and confirmation of what runs."""

    def slots() -> list[tuple[int, str, bool]]:
        listed = cli("image", "list", "-d", cores, "--json").result["slots"]
        return [(slot["image"], slot["version"], slot["confirmed"]) for slot in listed if slot["active"]]

    return slots


def network_core(version: str) -> bytes:
    """An image whose code is linked for the network core of an nRF5340."""
    vectors = b"".join(word.to_bytes(4, "little") for word in (0x2100_4000, *[0x0100_8B01 + 4 * n for n in range(15)]))
    return build_image(version, payload=vectors + bytes(3000))


def file(name: str, image: int, version: str, core: str, address: int) -> dict[str, object]:
    """An entry of a manifest, as `generate_zip.py` of the nRF Connect SDK writes it."""
    return {
        "type": "application",
        "board": f"nrf5340dk/nrf5340/{core}",
        "soc": "nrf5340",
        "load_address": address,
        "image_index": str(image),
        "slot_index_primary": str(2 * image + 1),
        "slot_index_secondary": str(2 * image + 2),
        "version_MCUBOOT": version,
        "file": name,
    }


@pytest.fixture(params=["two files", "dfu_application.zip"])
def new(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The new images of both cores, as arguments of `dfu`."""
    application, network = build_image(NEW[0], payload_size=5000), network_core(NEW[1])
    if request.param == "two files":
        (tmp_path / "app.bin").write_bytes(application)
        (tmp_path / "net.bin").write_bytes(network)
        return [f"0={tmp_path / 'app.bin'}", f"1={tmp_path / 'net.bin'}"]
    package = tmp_path / "dfu_application.zip"
    entries = [
        file("app.signed.bin", 0, NEW[0], "cpuapp", 0x1_0200),
        file("net.signed.bin", 1, NEW[1], "cpunet", 0x0100_8800),
    ]
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"format-version": 1, "time": 1750000000, "files": entries}))
        archive.writestr("app.signed.bin", application)
        archive.writestr("net.signed.bin", network)
    return [str(package)]


def test_both_cores_of_an_nrf5340_are_listed(runs: Any) -> None:
    assert runs() == [(0, OLD[0], True), (1, OLD[1], True)]


def test_both_cores_are_updated_with_one_reset(cli: Cli, cores: str, new: list[str], runs: Any) -> None:
    ended = cli("dfu", *new, "-d", cores, "--expect-board", "nrf5340dk")
    assert ended.exit == 0, ended.err
    assert "the board is nrf5340dk/nrf5340/cpuapp, as expected" in ended.err
    assert ended.err.count("reset: the device restarts") == 1
    assert ended.out.startswith("done: 1.1.0 of image 0 and 2.1.0 of image 1 are running and confirmed (")
    assert runs() == [(0, NEW[0], True), (1, NEW[1], True)]


@pytest.mark.skipif(sys.platform == "win32", reason="the command is for a POSIX shell")
def test_both_cores_are_taken_back_if_they_are_not_healthy(cli: Cli, cores: str, new: list[str], runs: Any) -> None:
    ended = cli("dfu", *new, "-d", cores, "--health-check", "false", "--rollback")
    assert ended.exit == 7
    assert "prove: 1.1.0 of image 0 and 2.1.0 of image 1 run" in ended.err
    assert "1.1.0 of image 0 and 2.1.0 of image 1 are not healthy: false: exit status 1; taken back" in ended.err
    assert runs() == [(0, OLD[0], True), (1, OLD[1], True)]


@pytest.mark.parametrize(
    "name", [name for name, board in BOARDS.items() if board.images == 1 and not board.loader_size]
)
def test_every_other_board_takes_an_image(cli: Cli, image_file: ImageFile, name: str) -> None:
    address = f"sim:,board={name}"
    board = BOARDS[name].target
    ended = cli("dfu", image_file("1.1.0"), "-d", address, "--expect-board", board.partition("/")[0], "--yes")
    assert ended.exit == 0, ended.err
    assert ended.out.startswith("done: 1.1.0 is running and confirmed (")
    assert cli("os", "info", "-d", address, "--json").result["fields"]["board"] == board
    refused = cli("dfu", image_file("1.1.0"), "-d", address, "--expect-board", "nrf5340dk", "--dry-run")
    assert refused.exit != 0
    assert f"the device's board is {board}, and not nrf5340dk" in refused.err


def test_a_board_that_nobody_knows(cli: Cli) -> None:
    ended = cli("image", "list", "-d", "sim:,board=nrf53")
    assert ended.exit == 2
    assert "the simulator has no board 'nrf53'" in ended.err
    assert f"known are {', '.join(BOARDS)}" in ended.err
