"""`make demo-ble` shows what it says, and does not say it when it is not so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from .bluez import Daemon

FOLDER = Path(__file__).parent

# All commands end well, and none has done anything.
NOTHING_DONE = """
import sys
sys.path.insert(0, sys.argv[1])
import demo
from mcumgrx.cli.demo import _Shell

async def run(self, *arguments):
    return 0

_Shell.run = run
sys.exit(demo.main([]))
"""


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONUTF8": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=150,
        check=False,
    )


def test_the_whole(running_daemon: Daemon) -> None:
    done = run(str(FOLDER / "demo.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"^\$ (.*)", done.stderr, re.MULTILINE) == [
        "mcumgrx scan",
        "mcumgrx dfu app.bin -d ble:Sensor-12",
        "mcumgrx dfu app.bin -d ble:Sensor-12",
        "mcumgrx image list -d ble:Sensor-12",
    ]
    for row in (r"Sensor-12 +ble:\S+ +-4\d dBm  yes", r"Lamp +ble:\S+ +-5\d dBm  - ", r"Kettle +ble:\S+ +-7\d dBm  - "):
        assert re.search(row, done.stdout)
    assert "done: 1.1.0 is running and confirmed (" in done.stdout
    assert "done: 1.1.0 is already running and confirmed" in done.stdout
    assert "demo-ble: 1.1.0 runs and is confirmed in the emulated device" in done.stdout


def test_it_is_the_device_that_is_believed(running_daemon: Daemon) -> None:
    done = run("-c", NOTHING_DONE, str(FOLDER))
    assert done.returncode == 1
    assert "demo-ble: NOT as expected:\n  version of the device: 1.0.0, not 1.1.0" in done.stdout


def test_without_a_dbus_daemon_it_says_how_to_get_one(tmp_path: Path) -> None:
    done = run(str(FOLDER / "demo.py"), PATH=str(tmp_path))
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: dbus-daemon is not installed")
    assert "apt install dbus" in hint
