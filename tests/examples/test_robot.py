"""The keywords of `examples/robot`, with the real Robot Framework, at simulated devices."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mcumgrx.sim.images import build_image

from ..support.labs import EXAMPLES

pytestmark = [
    pytest.mark.skipif(find_spec("robot") is None, reason="could not import robot"),
    pytest.mark.timeout(60),
]

FOLDER = EXAMPLES / "robot"
QUICK = "erase=0.1,boot=0.05,reset_delay=0.02,watchdog=0.1"


@pytest.fixture
def device(tmp_path: Path) -> str:
    return (
        f"sim:board,state={tmp_path / 'board.json'},erase=0.1,boot=0.05,reset_delay=0.02,watchdog=0.1,unhealthy=1.9.9"
    )


def robot(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "robot", "--outputdir", folder, "--consolecolors", "off", *words],
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
        capture_output=True,
        text=True,
        check=False,
    )


def case(folder: Path, *lines: str) -> Path:
    """A suite of one test with these keywords."""
    path = folder / "case.robot"
    head = ["*** Settings ***", "Library    mcumgrx_robot", "*** Test Cases ***", "It"]
    path.write_text("\n".join([*head, *(f"    {line}" for line in lines)]), encoding="utf-8")
    return path


def test_the_example(device: str, tmp_path: Path) -> None:
    (tmp_path / "app.bin").write_bytes(build_image("1.1.0", payload_size=4000))
    variables = {"MCUMGRX_DEVICE": device, "IMAGE": str(tmp_path / "app.bin"), "VERSION": "1.1.0"}
    options = [word for name, value in variables.items() for word in ("--variable", f"{name}:{value}")]
    done = robot(tmp_path, *options, FOLDER / "device.robot")
    assert done.returncode == 0, done.stdout
    assert "3 tests, 3 passed" in done.stdout
    assert "1.1.0 runs and is confirmed (was 1.0.0)" in done.stdout
    log = (tmp_path / "output.xml").read_text(encoding="utf-8")
    assert "prove: 1.1.0 runs" in log
    shown = subprocess.run(
        [sys.executable, "-m", "mcumgrx", "image", "list", "-d", device], capture_output=True, text=True, check=True
    ).stdout
    assert "slot 0  1.1.0  active, confirmed" in shown


def test_every_other_keyword(device: str, tmp_path: Path) -> None:
    path = case(
        tmp_path,
        f"Use Device    {device}",
        "${version}=    Running Version",
        "Should Be Equal    ${version}    1.0.0",
        "${value}=    Evaluate    bytes([1, 2])",
        "Write Setting    app/interval    ${value}",
        "${read}=    Read Setting    app/interval",
        "Should Be Equal    ${read}    ${value}",
        "${text}=    Shell    help",
        "Should Not Be Empty    ${text}",
        "${counters}=    Read Statistics    smp_svr_stats",
        "Should Not Be Empty    ${counters}",
        "Reset",
        "Disconnect",
        "Echo    again",
    )
    done = robot(tmp_path, path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Running Version Should Be    2.0.0", "1.0.0 runs, not 2.0.0"),
        ("Running Version    1", "the device lists no running image 1"),
        ("Shell    nonsense", "the command ended with -8"),
        ("Update    {bad}", "1.0.0 "),
    ],
)
def test_what_is_wrong_fails_the_test_and_says_what(device: str, tmp_path: Path, line: str, said: str) -> None:
    bad = tmp_path / "bad.bin"
    bad.write_bytes(build_image("1.9.9", payload_size=4000))
    done = robot(tmp_path, case(tmp_path, f"Use Device    {device}", line.format(bad=bad)))
    assert done.returncode == 1
    assert said in done.stdout


def test_without_a_device_it_says_how_to_name_one(tmp_path: Path) -> None:
    done = robot(tmp_path, case(tmp_path, "Echo    hello"))
    assert done.returncode == 1
    assert "robot --variable MCUMGRX_DEVICE:serial:/dev/ttyACM0" in done.stdout


def test_its_documentation_can_be_made(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "robot.libdoc", "mcumgrx_robot", tmp_path / "keywords.json"],
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
        check=True,
        capture_output=True,
    )
    assert "Running Version Should Be" in (tmp_path / "keywords.json").read_text(encoding="utf-8")
