"""The whole road through the public command line: files made by imgtool, in process and over a pseudo-terminal."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mcumgrx.sim.images import build_image

from .support.pty_simulator import pty_simulator


def mcumgrx(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command and wait for it."""
    return subprocess.run(
        [sys.executable, "-m", "mcumgrx", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=cwd,
        timeout=150,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A firmware of arbitrary bytes, signed by imgtool with an ECDSA key as version 1.2.3."""
    pytest.importorskip("imgtool.main", reason="imgtool is not installed")
    folder = tmp_path_factory.mktemp("signed")
    raw, key, path = folder / "zephyr.bin", folder / "key.pem", folder / "zephyr.signed.bin"
    raw.write_bytes(bytes(range(256)) * 24)

    def imgtool(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "imgtool.main", *arguments], check=True, capture_output=True, timeout=100)

    imgtool("keygen", "--key", str(key), "--type", "ecdsa-p256")
    sizes = ("--header-size", "0x200", "--pad-header", "--slot-size", "0x80000", "--align", "4")
    imgtool("sign", "--key", str(key), "--version", "1.2.3", *sizes, str(raw), str(path))
    return path


def test_a_signed_file_updates_a_device_in_process(signed: Path, tmp_path: Path) -> None:
    device = "sim:desk,state=device.json,erase=0,boot=0.05,reset_delay=0.05"
    first = mcumgrx("dfu", str(signed), "-d", device, "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stdout + first.stderr
    *events, result = [json.loads(line) for line in first.stdout.splitlines()]
    assert result["result"]["ending"] == "confirmed"
    assert {"upload", "mark", "reset", "prove", "confirm"} <= {event.get("stage") for event in events}

    listed = mcumgrx("image", "list", "-d", device, "--json", cwd=tmp_path)
    running = next(slot for slot in json.loads(listed.stdout)["result"]["slots"] if slot["active"])
    assert (running["version"], running["confirmed"]) == ("1.2.3", True)

    again = mcumgrx("dfu", str(signed), "-d", device, "--json", cwd=tmp_path)
    assert again.returncode == 0
    assert json.loads(again.stdout.splitlines()[-1])["result"]["ending"] == "nothing to do"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
async def test_a_signed_file_updates_a_device_over_a_serial_line(signed: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.bin"
    old.write_bytes(build_image("1.0.0", payload_size=3000))
    async with pty_simulator(old, flash="instant", boot_s=0.3) as simulator:
        device = f"serial:{simulator.path}"
        options = ("--quiet-time", "1", "--json", "--device-log")
        update = await asyncio.to_thread(mcumgrx, "dfu", str(signed), "-d", device, *options)
        assert update.returncode == 0, update.stdout + update.stderr
        *events, result = [json.loads(line) for line in update.stdout.splitlines()]
        assert result["result"]["ending"] == "confirmed"
        printed = "".join(event["text"] for event in events if event["event"] == "device_text")
        assert printed.count("*** Booting MCUboot ***") == 1
        assert "application 1.2.3" in printed
        # Not a byte while the device was restarting: in a bootloader's wait window it would hold the device there.
        assert not [event for event in simulator.events if event.startswith("early")]
        listed = await asyncio.to_thread(mcumgrx, "image", "list", "-d", device, "--json")
        running = next(slot for slot in json.loads(listed.stdout)["result"]["slots"] if slot["active"])
        assert (running["version"], running["confirmed"]) == ("1.2.3", True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
async def test_an_unhealthy_image_reverts_over_a_serial_line(tmp_path: Path) -> None:
    old, bad = tmp_path / "old.bin", tmp_path / "bad.bin"
    old.write_bytes(build_image("1.0.0", payload_size=3000))
    bad.write_bytes(build_image("2.0.0", payload_size=3000, health="crash"))
    async with pty_simulator(old, flash="instant", boot_s=0.2, watchdog_s=0.5) as simulator:
        device = f"serial:{simulator.path}"
        update = await asyncio.to_thread(mcumgrx, "dfu", str(bad), "-d", device, "--quiet-time", "1", "--json")
        assert update.returncode == 7, update.stdout + update.stderr
        error = json.loads(update.stdout.splitlines()[-1])["error"]
        assert error["outcome"] == "reverted"
        assert "1.0.0" in error["message"]
