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

from mcumgrx.mcuboot import load_image

from ..support.zephyr import READY, ServerFiles, ZephyrServer, find_server

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def board(tmp_path: Path) -> AsyncIterator[ZephyrServer]:
    async with find_server("serial", "qemu_cortex_m0").start(tmp_path) as server:
        yield server


def resigned(files: ServerFiles, version: str, folder: Path) -> Path:
    """The application that runs there, as another version; this bootloader checks hashes, no signatures."""
    if find_spec("imgtool") is None:
        pytest.skip("imgtool is not installed")
    header = load_image(files.signed_image).header
    content = files.signed_image.read_bytes()
    payload = folder / "payload.bin"
    payload.write_bytes(content[header.header_size : header.header_size + header.image_size])
    made = folder / f"app-{version}.bin"
    layout = ["--header-size", str(header.header_size), "--pad-header", "--align", "4", "--slot-size", str(96 * 1024)]
    command = [sys.executable, "-m", "imgtool.main", "sign", "--version", version, *layout, str(payload), str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made


async def mcumgrx(server: ZephyrServer, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and JSON lines of a command."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "mcumgrx", *arguments, "-d", server.address, "--json"),
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


async def test_test_swap_confirm(board: ZephyrServer, tmp_path: Path) -> None:
    image = resigned(board.files, "2.0.0", tmp_path)
    code, records = await mcumgrx(board, "dfu", str(image))
    assert code == 0, records[-1]
    assert (await slots(board))[0] == ("2.0.0", True)


async def test_an_unconfirmed_image_is_reverted(board: ZephyrServer, tmp_path: Path) -> None:
    image = resigned(board.files, "3.0.0", tmp_path)
    code, records = await mcumgrx(board, "dfu", str(image), "--mode", "test-only")
    assert code == 0, records[-1]
    assert (await slots(board))[0] == ("3.0.0", False)
    board.output.text = ""
    code, _ = await mcumgrx(board, "os", "reset")
    assert code == 0
    await board.output.until(READY)
    version, confirmed = (await slots(board))[0]
    assert (version, confirmed) == ("0.0.0", True)
