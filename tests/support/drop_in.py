"""The program `mcumgr` of the folder `drop-in`, which no test installs, and what a stranger does with it.

`Harness` asks and reads as the helper of Zephyr's pytest-twister-harness does (`twister_harness/helpers/mcumgr.py`):
the same commands, the same regular expressions. What it finds is in the shape of the class that takes its place.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent.parent / "drop-in"
if str(FOLDER) not in sys.path:
    sys.path.insert(0, str(FOLDER))

# Its folder has just been put on the path.
from mcumgrx_mcumgr import MCUmgr, MCUmgrException, MCUmgrImage, commands  # noqa: E402
from mcumgrx_mcumgr.codes import first_version  # noqa: E402
from mcumgrx_mcumgr.connection import address_of  # noqa: E402
from mcumgrx_mcumgr.main import main  # noqa: E402

__all__ = [
    "Harness",
    "MCUmgr",
    "MCUmgrException",
    "MCUmgrImage",
    "address_of",
    "commands",
    "environment",
    "first_version",
    "main",
    "mcumgr",
]

_PROGRAM = [sys.executable, "-W", "error", "-m", "mcumgrx_mcumgr"]

_PLACE = re.compile(r"image=(\d+)\s+slot=(\d+)")
_FIELDS = {
    "version": re.compile(r"version:\s+(\S+)"),
    "flags": re.compile(r"flags:\s+(.+)"),
    "hash": re.compile(r"hash:\s+(\w+)"),
}


def environment(**variables: str) -> dict[str, str]:
    """For a process that finds the program."""
    path = os.pathsep.join([str(FOLDER), *(entry for entry in sys.path if entry)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1", **variables}


def mcumgr(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own."""
    return subprocess.run(
        [*_PROGRAM, *words], capture_output=True, encoding="utf-8", env=environment(**variables), timeout=120
    )


class Harness:
    """See the module. A command whose exit code is not 0 fails the test."""

    def __init__(self, connection: str) -> None:
        self.connection = connection

    def run_command(self, command: str) -> str:
        done = mcumgr(*shlex.split(f"{self.connection} {command}"))
        assert done.returncode == 0, done.stderr
        assert "Error" not in done.stdout, done.stdout + done.stderr
        return done.stdout

    def reset_device(self) -> None:
        self.run_command("reset")

    def image_upload(self, image: Path, slot: int | None = None, timeout: int = 30) -> None:
        self.run_command(f"-t {timeout} image upload {image}" + (f" -e -n {slot}" if slot is not None else ""))

    def get_image_list(self) -> list[MCUmgrImage]:
        found: list[MCUmgrImage] = []
        for line in self.run_command("image list").splitlines():
            if place := _PLACE.search(line):
                found.append(MCUmgrImage(int(place[1]), int(place[2])))
            for name, pattern in _FIELDS.items():
                if found and (field := pattern.search(line)):
                    setattr(found[-1], name, field[1])
        return found

    def get_hash_to_test(self) -> str:
        return next(image.hash for image in self.get_image_list() if "active" not in image.flags)

    def image_test(self, hash: str) -> None:
        self.run_command(f"image test {hash}")

    def image_confirm(self, hash: str) -> None:
        self.run_command(f"image confirm {hash}")
