"""The list for real hardware (`tests/hardware/test_ble.py`), run as its user runs it, on the emulated BlueZ."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image

from .bluez import Daemon, EmulatedBluez, Peripheral, quick

ROOT = Path(__file__).parents[2]
CONFIG = DeviceConfig(
    slot_size=64 * 1024, buf_size=8192, timing=INSTANT, boot_s=0.02, reset_delay_s=0.02, watchdog_s=0.1, request_s=0.0
)
STEPS = ["scan", "connect", "information", "params", "echo", "echo in fragments", "image list", "resubscribe", "dfu"]


def peripheral(config: DeviceConfig = CONFIG, **more: Any) -> Peripheral:
    device = SimulatedDevice(config)
    device.install(build_image("1.0.0", payload_size=2000))
    device.settle()
    return Peripheral(device, **more)


async def run(*arguments: str, **variables: str) -> tuple[int, str]:
    """Exit code and output of pytest on the folder of the hardware's tests."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pytest", os.path.join("tests", "hardware"), "-q", "-rs", "-p", "no:cacheprovider"),
        *arguments,
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
    )
    async with asyncio.timeout(50):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def on(rig: Peripheral, daemon: Daemon, folder: Path, *arguments: str) -> tuple[int, str, Any]:
    """Exit code, output and report of the list for this peripheral."""
    report = folder / "reports" / "rig.json"
    async with EmulatedBluez(daemon, rig):
        code, out = await run("--ble-device", "ble:smp-rig", "--ble-report", str(report), *arguments)
    return code, out, json.loads(report.read_text(encoding="utf-8"))


async def test_all_of_it(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "app.bin"
    file.write_bytes(build_image("1.1.0", payload_size=3000))
    rig = peripheral()
    code, out, report = await on(rig, daemon, tmp_path, "--ble-image", str(file))
    assert code == 0, out
    assert f"report: {tmp_path / 'reports' / 'rig.json'}" in out
    assert list(report["steps"]) == STEPS
    assert {step["result"] for step in report["steps"].values()} == {"passed"}
    assert (report["passed"], report["failed"], report["skipped"]) == (9, 0, 0)
    assert report["emulated"] is True
    steps = report["steps"]
    assert (steps["scan"]["name"], steps["scan"]["signal_dbm"], steps["scan"]["advertises_smp"]) == (
        "smp-rig",
        -42,
        True,
    )
    assert steps["connect"]["write_bytes"] == 244
    assert (steps["params"]["buf_size"], steps["params"]["buf_count"]) == (8192, 4)
    assert (steps["echo in fragments"]["bytes"], steps["echo in fragments"]["fragments"]) == (4096, 17)
    assert len(steps["resubscribe"]["to_the_answer_s"]) == 4
    assert (steps["dfu"]["from_version"], steps["dfu"]["to_version"]) == ("1.0.0", "1.1.0")
    assert str(rig.device.boot_result and rig.device.boot_result.version) == "1.1.0"


async def test_without_an_image_the_device_keeps_its_own(daemon: Daemon, tmp_path: Path) -> None:
    rig = peripheral(replace(CONFIG, buf_size=2475))
    code, out, report = await on(rig, daemon, tmp_path)
    assert code == 0, out
    assert (report["passed"], report["skipped"]) == (8, 1)
    assert report["steps"]["dfu"]["reason"] == "needs an image that may be installed: --ble-image FILE"
    assert report["steps"]["echo in fragments"]["bytes"] == 2475 - 32  # what its buffers hold
    assert rig.device.boots == 1


async def test_what_a_firmware_lacks_is_skipped_with_the_reason(daemon: Daemon, tmp_path: Path) -> None:
    rig = peripheral(replace(CONFIG, os_info=False), model=quick(reassembles=False))
    code, out, report = await on(rig, daemon, tmp_path, "-k", "fragments or information")
    assert code == 0, out
    assert {name: step["result"] for name, step in report["steps"].items()} == dict.fromkeys(
        ("information", "echo in fragments"), "skipped"
    )
    assert "CONFIG_MCUMGR_TRANSPORT_BT_REASSEMBLY" in report["steps"]["echo in fragments"]["reason"]
    assert "no such query" in report["steps"]["information"]["reason"]


async def test_what_goes_wrong_is_in_the_report(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "app.bin"
    file.write_bytes(build_image("1.1.0", payload_size=3000, health="crash"))
    code, _, report = await on(peripheral(), daemon, tmp_path, "-k", "dfu", "--ble-image", str(file))
    assert code == 1
    assert report["failed"] == 1
    assert "did not stay" in report["steps"]["dfu"]["reason"]


async def test_a_device_that_is_not_there(daemon: Daemon, tmp_path: Path) -> None:
    rig = peripheral(name="another")
    code, _, report = await on(rig, daemon, tmp_path, "-k", "scan")
    assert code == 1
    assert "ble:smp-rig was not heard in 5 s; heard were another" in report["steps"]["scan"]["reason"]


async def test_without_a_device_all_of_it_skips(tmp_path: Path) -> None:
    code, out = await run(MCUMGRX_CI="1")
    assert code == 0, out
    assert f"{len(STEPS)} skipped" in out
    assert "needs a device: --ble-device ADDRESS" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--ble-device", "serial:/dev/ttyACM0"), "serial:/dev/ttyACM0 is not a Bluetooth address"),
        (("--ble-device", "Widget"), "--ble-device: "),
        (("--ble-device", "ble:Widget", "--ble-image", "gone.bin"), "there is no file gone.bin"),
    ],
)
async def test_options_that_make_no_sense(arguments: tuple[str, ...], says: str) -> None:
    code, out = await run(*arguments)
    assert code == 4
    assert says in out
    assert "Traceback" not in out
