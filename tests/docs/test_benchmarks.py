"""The benchmarks run; what they measure is not judged here, because a test machine is never quiet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_startup() -> None:
    script = ROOT / "benchmarks" / "startup.py"
    done = subprocess.run([sys.executable, str(script), "--runs", "2", "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["runs"] == 2
    assert [row["command"] for row in found["results"]] == [
        "python -c pass",
        "mcumgrx --version",
        "mcumgrx --help",
        "mcumgrx image inspect FILE",
    ]
    assert found["results"][0]["ratio"] == 1
    assert all(row["median_ms"] > 0 for row in found["results"])


def test_every_script_is_listed() -> None:
    page = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "benchmarks").glob("*.py"):
        assert f"`{path.name}`" in page
