"""Starts real Zephyr SMP servers for tests: firmware as a process of this computer, or in the emulator QEMU.

`MCUMGRX_ZEPHYR_SERVERS` names a directory with `manifest.json` and the files that it lists, as published by
intercreate/smp-server-fixtures for Zephyr 4.4. The `native_sim` ones need Linux on x86 with the 32-bit C library, the
others `qemu-system-arm`. What cannot run skips its test, with the reason.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "MCUMGRX_ZEPHYR_SERVERS"

_BOOT_S = 20.0
_PTY = re.compile(r"connected to pseudotty: (\S+)")
_UDP = re.compile(r"smp_udp: Started")

# The application runs, and its UART driver is up: QEMU's cortex-m0 that gets a byte before that never hears again.
READY = re.compile(r"smp_sample: build time")


class Output:
    """What a server prints beside SMP, as it comes; only the last of it is kept."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream
        self._news = asyncio.Event()
        self._ended = False
        self.text = ""

    async def follow(self) -> None:
        """Read until the server ends; a full pipe would stop it."""
        while chunk := await self._stream.read(65536):
            self.text = (self.text + chunk.decode("utf-8", "replace"))[-100_000:]
            self._news.set()
        self._ended = True
        self._news.set()

    async def until(self, pattern: re.Pattern[str] = READY) -> re.Match[str]:
        """Wait until it has printed `pattern`; everything up to there is then forgotten."""
        async with asyncio.timeout(_BOOT_S):
            while (found := pattern.search(self.text)) is None:
                if self._ended:
                    raise RuntimeError(f"the server has ended: {self.text!r}")
                self._news.clear()
                await self._news.wait()
        self.text = self.text[found.end() :]
        return found


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """An entry of the manifest whose files are there. Sizes in bytes."""

    directory: Path
    entry: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.target}-{self.config}"

    @property
    def config(self) -> str:
        return str(self.entry["config"])

    @property
    def target(self) -> str:
        return str(self.entry["target"])

    @property
    def transport(self) -> str:
        """`serial` (console framing), `serial_raw`, `shell` or `udp`."""
        return str(self.entry["transport"])

    @property
    def buf_size(self) -> int:
        return int(self.entry["buf_size"])

    @property
    def buf_count(self) -> int:
        return int(self.entry["buf_count"])

    @property
    def line_length(self) -> int:
        """Longest line that its UART driver takes, in bytes with the newline."""
        return int(self.entry["line_length_max"] or 128)

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(self.entry["groups"])

    @property
    def tells_params(self) -> bool:
        return self.config != "serial_noparams"

    @property
    def program(self) -> Path:
        return self.directory / str(self.entry["artifact"])

    @property
    def signed_image(self) -> Path:
        """The application for MCUboot, as it can be uploaded."""
        return self.directory / (self.program.name.partition(".merged")[0].removesuffix(".hex") + ".signed.bin")

    def start(self, directory: Path) -> AbstractAsyncContextManager[ZephyrServer]:
        """Run it; `directory` is where it keeps its flash."""
        return _native_sim(self, directory) if self.target == "native_sim" else _qemu(self)


@dataclass(frozen=True, slots=True)
class ZephyrServer:
    """A running server: where to reach it, what its manifest says of it, and what it prints."""

    address: str
    files: ServerFiles
    output: Output

    @property
    def buf_size(self) -> int:
        return self.files.buf_size

    @property
    def buf_count(self) -> int:
        return self.files.buf_count


def servers() -> list[ServerFiles]:
    """All servers whose files are there; none where the variable is not set."""
    directory = Path(os.environ.get(VARIABLE) or "/nonexistent")
    manifest = directory / "manifest.json"
    if not manifest.is_file():
        return []
    entries = json.loads(manifest.read_text(encoding="utf-8"))
    found = [ServerFiles(directory, entry) for entry in entries]
    return [
        files
        for files in found
        if files.program.is_file() and (files.target == "native_sim" or files.entry["qemu_cmd"])
    ]


def find_server(config: str, target: str = "native_sim") -> ServerFiles:
    """The server `config` for `target`; skips the test, with the reason, where there is none."""
    directory = os.environ.get(VARIABLE)
    if not directory:
        pytest.skip(f"{VARIABLE} does not name a directory with Zephyr servers")
    for files in servers():
        if (files.config, files.target) == (config, target):
            return files
    pytest.skip(f"{directory} holds no {config} for {target}")


def native_sim(config: str, directory: Path) -> AbstractAsyncContextManager[ZephyrServer]:
    """Run the `native_sim` server `config`; it ends with the context. `directory` is where it keeps its flash."""
    return find_server(config).start(directory)


@asynccontextmanager
async def _native_sim(files: ServerFiles, directory: Path) -> AsyncIterator[ZephyrServer]:
    command = [str(files.program)]
    if files.transport == "udp":
        with _only_one("udp"):
            async with _running(command, directory) as output:
                await output.until(_UDP)
                host = "[::1]" if files.entry["ip_family"] == "ipv6" else "127.0.0.1"
                yield ZephyrServer(f"udp:{host}:{files.entry['udp_port']}", files, output)
        return
    async with _running(command, directory) as output:
        port = await output.until(_PTY)
        yield ZephyrServer(f"serial:{port[1]}{_options(files)}", files, output)


@asynccontextmanager
async def _qemu(files: ServerFiles) -> AsyncIterator[ZephyrServer]:
    command = shlex.split(str(files.entry["qemu_cmd"]))
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    # Without nodelay each answer costs 40 ms. What the device prints comes out of its second UART, or of its only one.
    log = "" if "null" in command else ",logfile=/dev/stdout"
    command = [
        part.replace("<PORT>", str(port)) + (f",nodelay=on{log}" if part.startswith("socket,id=con") else "")
        for part in ("file:/dev/stdout" if part == "null" else part for part in command)
    ]
    async with _running(command, files.directory) as output:
        await output.until(READY)
        yield ZephyrServer(f"tcp:127.0.0.1:{port}{_options(files)}", files, output)


def _options(files: ServerFiles) -> str:
    return ",framing=raw" if files.transport == "serial_raw" else ""


@asynccontextmanager
async def _running(command: list[str], directory: Path) -> AsyncIterator[Output]:
    """Run a program until the end of the context."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        pytest.skip(f"{Path(command[0]).name} does not run on this computer ({error})")
    assert process.stdout is not None
    output = Output(process.stdout)
    following = asyncio.create_task(output.follow())
    try:
        yield output
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await following
        process._transport.close()  # type: ignore[attr-defined]  # its pipe; Process has no close of its own


@contextmanager
def _only_one(what: str) -> Iterator[None]:
    """Let no other process of this computer do the same: the servers' UDP port is fixed."""
    import fcntl

    with open(Path(tempfile.gettempdir()) / f"mcumgrx-zephyr-{what}.lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back
