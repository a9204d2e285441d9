"""Starts real Zephyr SMP servers for tests: programs that run the firmware as a process of this computer.

`MCUMGRX_ZEPHYR_SERVERS` names a directory with `manifest.json` and the programs that it lists, as published by
intercreate/smp-server-fixtures for Zephyr 4.4. The `native_sim` ones need Linux on x86 with the 32-bit C library.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "MCUMGRX_ZEPHYR_SERVERS"

_PTY = re.compile(r"connected to pseudotty: (\S+)")


@dataclass(frozen=True, slots=True)
class ZephyrServer:
    """A running server: where to reach it, and what its manifest says of it."""

    address: str
    buf_size: int
    buf_count: int


def find_server(config: str, target: str = "native_sim") -> tuple[Path, dict[str, Any]]:
    """The program and manifest entry for `config`; skips the test, with the reason, where there is none."""
    directory = os.environ.get(VARIABLE)
    if not directory:
        pytest.skip(f"{VARIABLE} does not name a directory with Zephyr servers")
    manifest = Path(directory) / "manifest.json"
    if not manifest.is_file():
        pytest.skip(f"there is no {manifest}")
    for entry in json.loads(manifest.read_text(encoding="utf-8")):
        if (entry["config"], entry["target"]) == (config, target):
            program = Path(directory) / entry["artifact"]
            if not program.is_file():
                pytest.skip(f"there is no {program}")
            return program, entry
    pytest.skip(f"{manifest} lists no {config} for {target}")


@asynccontextmanager
async def native_sim(config: str, directory: Path) -> AsyncIterator[ZephyrServer]:
    """Run the `native_sim` server `config` with its serial port on a pseudo-terminal; it ends with the context.

    `directory` is where it keeps its flash.
    """
    program, entry = find_server(config)
    try:
        process = await asyncio.create_subprocess_exec(
            program, cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
    except OSError as error:
        pytest.skip(f"{program.name} does not run on this computer ({error})")
    assert process.stdout is not None
    output = process.stdout
    try:
        async with asyncio.timeout(10):
            while (found := _PTY.search((line := await output.readline()).decode("utf-8", "replace"))) is None:
                if not line:
                    raise RuntimeError(f"{program.name} ended with {await process.wait()}")
        # Its log goes on; a full pipe would stop it.
        draining = asyncio.create_task(output.read())
        try:
            yield ZephyrServer(f"serial:{found[1]}", entry["buf_size"], entry["buf_count"])
        finally:
            draining.cancel()
            await asyncio.gather(draining, return_exceptions=True)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]  # its pipe; Process has no close of its own
