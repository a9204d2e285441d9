"""A device that answers nothing: told after a few times `--timeout`, with what was asked, and how often."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.sim import loop as virtual
from mcumgrx.sim.device import Answer, SimulatedDevice

Cli = Callable[..., Any]

# What each command asks a device that it does not know.
COMMANDS = {
    "image list": "image list",
    "image upload app.bin": "image list",
    f"image test {'00' * 32}": "image mark",
    "image confirm": "image mark",
    "image erase": "image list",
    "image slots": "slot query",
    "dfu app.bin": "image list",
    "fs put app.bin /lfs1/app.bin": "file size query",
    "fs get /lfs1/app.bin out.bin": "file size query",
    "fs get --resume /lfs1/app.bin app.bin": "file size query",
    "fs hash /lfs1/app.bin": "file hash query",
    "fs size /lfs1/app.bin": "file size query",
    "fs close": "closing of the file",
    "shell run kernel uptime": "shell command",
    "settings get a/b": "setting query",
    "settings set a/b 1": "setting",
    "settings delete a/b": "deletion of a setting",
    "settings save": "saving of the settings",
    "stat list": "statistics list",
    "stat show smp": "statistics query",
    "enum list": "list of command groups",
    "os echo hello": "echo",
    "os info": "information query",
    "os tasks": "task statistics query",
    "os datetime": "clock query",
    "zephyr erase-storage": "erase of the storage",
    "raw 64 0": "request",
}


class Stopwatch:
    """How long commands take in virtual time."""

    elapsed_s = 0.0

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        async def timed() -> Any:
            loop = asyncio.get_running_loop()
            begin = loop.time()
            try:
                return await main
            finally:
                self.elapsed_s = loop.time() - begin

        return virtual.run(timed())


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    watch = Stopwatch()
    monkeypatch.setattr(asyncio, "run", watch.run)
    return watch


def _swallow(device: SimulatedDevice, message: bytes, now: float) -> Answer:
    return Answer((), 0.0)


@pytest.mark.parametrize("link", ["ideal", "ble", "uart", "raw", "datagram"])
@pytest.mark.parametrize(("command", "asked"), COMMANDS.items(), ids=COMMANDS)
def test_it_is_told_soon(
    cli: Cli,
    stopwatch: Stopwatch,
    image_file: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    link: str,
    command: str,
    asked: str,
) -> None:
    monkeypatch.setattr(SimulatedDevice, "handle", _swallow)
    monkeypatch.chdir(tmp_path)
    Path("app.bin").write_bytes(Path(image_file("1.1.0")).read_bytes())
    ended = cli(*command.split(), "-d", f"sim:,link={link}", "--timeout", "1", "--yes")
    assert ended.exit == 4, ended.err
    assert re.search(rf"no answer to the {asked} within 1 s(, asked [23] times)?[;\n]", ended.err), ended.err
    assert "hint: " in ended.err
    assert stopwatch.elapsed_s < 5.5


class Mute:
    """A device that falls silent after so many answers."""

    def __init__(self, answers: int) -> None:
        self.left = answers
        self.since = 0.0
        self._handle = SimulatedDevice.handle

    def __call__(self, device: SimulatedDevice, message: bytes, now: float) -> Answer:
        self.left -= 1
        if self.left < 0:
            return Answer((), 0.0)
        self.since = now
        return self._handle(device, message, now)


# How long it takes until it is told, at most. An update looks once more what the device does now.
FALLING_SILENT = {
    "image upload app.bin --erase-timeout 1.5": 6.5,
    "fs put app.bin /lfs1/app.bin": 6.5,
    "fs get /big/file.bin out.bin": 6.5,
    "dfu app.bin --erase-timeout 1.5": 12.5,
}


@pytest.mark.parametrize("answers", [1, 2, 3, 5, 9, 20])
@pytest.mark.parametrize("link", ["ideal", "ble", "uart", "datagram"])
@pytest.mark.parametrize(("command", "most_s"), FALLING_SILENT.items(), ids=FALLING_SILENT)
def test_so_is_one_that_falls_silent(
    cli: Cli,
    stopwatch: Stopwatch,
    image_file: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    command: str,
    most_s: float,
    link: str,
    answers: int,
) -> None:
    mute = Mute(answers)
    monkeypatch.setattr(SimulatedDevice, "handle", lambda *arguments: mute(*arguments))
    monkeypatch.chdir(tmp_path)
    Path("app.bin").write_bytes(Path(image_file("1.1.0", payload_size=20_000)).read_bytes())
    device = f"sim:,link={link},big_file=60000,slot_size=65536,erase=0.3"
    ended = cli(*command.split(), "-d", device, "--timeout", "1", "--yes")
    assert ended.exit == 4, ended.err
    assert stopwatch.elapsed_s - mute.since < most_s, ended.err
