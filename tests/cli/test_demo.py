"""`mcumgrx demo`: the demonstration demonstrates what it says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcumgrx.cli import demo
from mcumgrx.cli.main import main
from mcumgrx.mcuboot import parse_image
from mcumgrx.sim.images import build_image

from .conftest import PAYLOAD_BYTES, QUICK

Cli = Callable[..., Any]


def test_its_images_need_no_warning() -> None:
    for version, health in demo._FILES.items():
        image = parse_image(demo._image(version, health))
        assert str(image.version) == version
        assert image.warnings == ()


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same on a device that is in a hurry."""
    monkeypatch.setattr(demo, "_ADDRESS", f"sim:demo,state=device.json,{QUICK}")
    monkeypatch.setattr(demo, "_PAYLOAD_BYTES", PAYLOAD_BYTES)


def test_the_whole(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    monkeypatch.setenv("MCUMGRX_CHUNK", "64")  # a setting of the user's that is not for the demonstration
    code = main(["demo"])
    out, err = capfd.readouterr()
    assert code == 0, err
    assert "done: 1.1.0 is running and confirmed" in out
    assert "done: 1.1.0 is already running and confirmed" in out
    assert "error: 1.2.0 did not stay: 1.1.0 runs again" in err
    assert "The exit code is 7, as expected" in err
    assert re.search(r"demo: all as expected, in \d+", out)
    typed = [line for line in err.splitlines() if line.startswith("$ ")]
    assert len(typed) == 5
    assert all(line.startswith("$ mcumgrx ") for line in typed)


def test_what_is_not_as_expected_is_told(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)
    monkeypatch.setattr(demo, "_image", lambda version, health: b"nothing")
    code = main(["demo", "--json"])
    result = json.loads(capfd.readouterr().out.splitlines()[-1])["result"]
    assert code == 1
    assert [step["exit"] for step in result["steps"]] == [0, 6, 6, 6, 0]
    assert result["problems"] == [
        f"{result['steps'][1]['command']}: ended with code 6, not 0",
        "after the update the device runs 1.0.0, not 1.1.0, confirmed",
        f"{result['steps'][2]['command']}: ended with code 6, not 0",
        "app-1.1.0.bin runs, but is still planned to be installed",
        f"{result['steps'][3]['command']}: ended with code 6, not 7",
        "after the bad update the device runs 1.0.0, not 1.1.0, confirmed",
    ]


def test_its_commands_fit_a_terminal() -> None:
    assert len(f"$ mcumgrx dfu app-1.1.0.bin -d {demo._ADDRESS}") <= 80


def test_a_real_update_ends_as_its_command(run_process: Cli, desk: str, tmp_path: Path) -> None:
    (tmp_path / "app.bin").write_bytes(build_image("1.0.0"))  # runs in the simulated device already
    good = run_process("demo", "--firmware", "app.bin", "-d", desk)
    assert good.exit == 0, good.err
    assert "done: 1.0.0 is already running and confirmed" in good.out
    assert run_process("demo", "--firmware", "gone.bin", "-d", desk).exit == 6
    assert run_process("demo", "--firmware", "app.bin").exit == 2
