"""Whole updates of an emulated board with MCUboot, through the command line.

The emulator loads its files into slot 0 before every start, whatever was there; slot 1 and the trailers stay. That is
enough for test, swap and confirm, and for a revert; a confirmed image is gone after one more reset.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.errors import Exit
from mcumgrx.mcuboot import load_image
from mcumgrx.sim.images import build_package

from ..support.zephyr import READY, ServerFiles, ZephyrServer, find_server

pytestmark = pytest.mark.timeout(180)

BOARD = "qemu_cortex_m0"
SLOT_BYTES = 512 * 1024  # no less than any server here has; imgtool only checks that the image fits


@pytest.fixture
async def board(tmp_path: Path) -> AsyncIterator[ZephyrServer]:
    async with find_server("serial", BOARD).start(tmp_path) as server:
        yield server


def resigned(files: ServerFiles, version: str, folder: Path, kind: str = "bin") -> Path:
    """The application that runs there, as another version; this bootloader checks hashes, no signatures.

    `kind` is `bin`, `hex`, or `zip` as a package of the nRF Connect SDK.
    """
    if find_spec("imgtool") is None:
        pytest.skip("imgtool is not installed")
    header = load_image(files.signed_image).header
    content = files.signed_image.read_bytes()
    payload = folder / "payload.bin"
    payload.write_bytes(content[header.header_size : header.header_size + header.image_size])
    made = folder / f"app-{version}.{'hex' if kind == 'hex' else 'bin'}"
    layout = ["--header-size", str(header.header_size), "--pad-header", "--align", "4", "--slot-size", str(SLOT_BYTES)]
    if header.load_address:
        layout += ["--load-addr", hex(header.load_address)]
    if kind == "hex":
        layout += ["--hex-addr", "0x10000"]
    command = [sys.executable, "-m", "imgtool.main", "sign", "--version", version, *layout, str(payload), str(made)]
    subprocess.run(command, check=True, capture_output=True)
    if kind == "zip":
        package = folder / "dfu_application.zip"
        package.write_bytes(build_package({0: made.read_bytes()}))
        return package
    return made


async def mcumgrx(server: ZephyrServer, *arguments: str, link: str = "") -> tuple[int, list[dict[str, Any]]]:
    """Exit code and JSON lines of a command; `link` are options of its address."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "mcumgrx", *arguments, "-d", server.address + link, "--json"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()]


async def slots(server: ZephyrServer) -> dict[int, tuple[str, bool]]:
    """Slot → version, and whether it is confirmed."""
    code, records = await mcumgrx(server, "image", "list")
    assert code == 0
    return {slot["slot"]: (slot["version"], slot["confirmed"]) for slot in records[-1]["result"]["slots"]}


@pytest.mark.parametrize("kind", ["bin", "hex", "zip"])
async def test_test_swap_confirm(board: ZephyrServer, tmp_path: Path, kind: str) -> None:
    image = resigned(board.files, "2.0.0", tmp_path, kind)
    code, records = await mcumgrx(board, "dfu", str(image))
    assert code == 0, records[-1]
    assert (await slots(board))[0] == ("2.0.0", True)


@pytest.mark.parametrize("kind", ["bin", "hex", "zip"])
async def test_an_unconfirmed_image_is_reverted(board: ZephyrServer, tmp_path: Path, kind: str) -> None:
    image = resigned(board.files, "3.0.0", tmp_path, kind)
    code, records = await mcumgrx(board, "dfu", str(image), "--mode", "test-only")
    assert code == 0, records[-1]
    assert (await slots(board))[0] == ("3.0.0", False)
    board.output.text = ""
    code, _ = await mcumgrx(board, "os", "reset")
    assert code == 0
    await board.output.until(READY)
    version, confirmed = (await slots(board))[0]
    assert (version, confirmed) == ("0.0.0", True)


async def test_an_image_that_fails_its_health_check_is_taken_back(board: ZephyrServer, tmp_path: Path) -> None:
    package = resigned(board.files, "4.0.0", tmp_path, "zip")
    code, records = await mcumgrx(board, "dfu", str(package), "--health-check", "false", "--rollback")
    assert code == Exit.REVERTED, records[-1]
    assert (await slots(board))[0] == ("0.0.0", True)


@pytest.mark.parametrize("kind", ["bin", "hex", "zip"])
async def test_the_newest_image_runs_from_ram(tmp_path: Path, kind: str) -> None:
    """RAM load: nothing is marked and nothing is swapped; the old image stays where it is."""
    async with find_server("serial_recovery_buf2048", "mps2_an385").start(tmp_path) as board:
        image = resigned(board.files, "2.0.0", tmp_path, kind)
        code, records = await mcumgrx(board, "dfu", str(image), "--yes")
        assert code == 0, records[-1]
        _, records = await mcumgrx(board, "image", "list")
        running = [slot["version"] for slot in records[-1]["result"]["slots"] if slot["active"]]
        assert running == ["2.0.0"]
