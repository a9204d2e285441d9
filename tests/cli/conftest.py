"""Runs the command line, in this process or in one of its own, and simulated devices that are quick."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.cli.main import main
from mcumgrx.sim import loop as virtual
from mcumgrx.sim.images import build_image

# A simulated device that needs a second or two for a whole update.
QUICK = "slot_size=65536,erase=0.2,boot=0.05,reset_delay=0.02,watchdog=0.2"
PAYLOAD_BYTES = 4000


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    exit: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of JSON on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def result(self) -> Any:
        return self.records[-1]["result"]

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.records[-1]["error"]
        return error


Cli = Callable[..., Ended]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs `mcumgrx` with these arguments in this process."""

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        code = main(list(arguments))
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return run


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands in this process run in virtual time: a simulated device costs no waiting."""
    monkeypatch.setattr(asyncio, "run", virtual.run)


def command_line(*arguments: str) -> list[str]:
    """`mcumgrx` with these arguments, for a process of its own in which a warning is an error."""
    return [sys.executable, "-W", "error", "-m", "mcumgrx", *arguments]


def environment(**more: str) -> dict[str, str]:
    """That of a user: as here, but 80 columns wide and without the settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LINES", "COLUMNS")}
    return {**kept, "COLUMNS": "80", "PYTHONUTF8": "1", **more}


@pytest.fixture
def run_process(tmp_path: Path) -> Cli:
    """Runs `mcumgrx` in a process of its own, in a folder of its own."""

    def run(*arguments: str, **variables: str) -> Ended:
        done = subprocess.run(
            command_line(*arguments),
            cwd=tmp_path,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=150,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def desk(tmp_path: Path) -> str:
    """The address of a quick simulated device that outlives a command; version 1.0.0 runs."""
    return f"sim:{tmp_path.name},state={tmp_path / 'device.json'},{QUICK}"


@pytest.fixture
def image_file(tmp_path: Path) -> Callable[..., str]:
    """Makes an image file; returns its path."""

    def make(version: str, health: str = "healthy", payload_size: int = PAYLOAD_BYTES) -> str:
        path = tmp_path / f"app-{version}.bin"
        path.write_bytes(build_image(version, health=health, payload_size=payload_size))
        return str(path)

    return make
