"""`mcumgrx dfu` of several devices that is ended in the middle, or has no room for its ledger; each a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import QUICK, Cli, command_line, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits are different there")

ImageFile = Callable[..., str]


def shelf(tmp_path: Path, *more: str) -> list[str]:
    """Three devices that keep their state, the first of which is quick; `more` are options of the others."""
    options = ["", *[f",{','.join(more)}" if more else ""] * 2]
    return [f"sim:unit-{n},{QUICK},state={tmp_path / f'{n}.json'}{options[n]}" for n in range(3)]


def several(addresses: list[str]) -> list[str]:
    return [text for address in addresses for text in ("-d", address)]


def test_ctrl_c_in_the_middle(tmp_path: Path, image_file: ImageFile, run_process: Cli) -> None:
    new, ledger = image_file("1.1.0", payload_size=20_000), tmp_path / "ledger.json"
    addresses = shelf(tmp_path, "link=raw", "baud=9600")
    words = ["dfu", new, *several(addresses), "--jobs", "2", "--ledger", str(ledger), "--json"]
    with subprocess.Popen(
        command_line(*words), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        moving = False
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            told = json.loads(line)
            moving |= told.get("event") == "bytes" and told["address"] == addresses[1]
            if moving and any('"device_ends"' in one for one in lines):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
        process.wait(60)
    assert process.returncode == 130
    records = [json.loads(line) for line in (*lines, *rest.splitlines())]
    (told,) = (one["text"] for one in records if str(one.get("text", "")).startswith("interrupted: 1 done"))
    assert "2 in the middle" in told
    entries = {entry["address"]: entry["verdict"] for entry in json.loads(ledger.read_text())["devices"].values()}
    assert entries == dict(zip(addresses, ["done", "unknown", "unknown"], strict=True))
    again = run_process("dfu", new, *several(shelf(tmp_path)), "--ledger", str(ledger))
    assert again.exit == 0, again.err
    assert "left by the ledger: 2 of 3 devices" in again.err
    assert again.out.startswith("done: 3 done of 3 devices")


def test_a_full_disk_for_the_ledger_costs_the_ledger_alone(tmp_path: Path, image_file: ImageFile) -> None:
    import resource

    ledger = tmp_path / "ledger.json"
    words = command_line("dfu", image_file("1.1.0"), "-d", f"sim:a,{QUICK}", "-d", f"sim:b,{QUICK}", "--no-cache")
    ended = subprocess.run(
        [*words, "--ledger", str(ledger)],
        env=environment(PYTHONDONTWRITEBYTECODE="1"),  # Python 3.11 keeps a module that it could write in part
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)),  # the third write fails
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("done: 2 done of 2 devices")
    assert ended.stderr.count("the ledger cannot be written") == 1
    assert [name for name in os.listdir(tmp_path) if "ledger" in name] == []
