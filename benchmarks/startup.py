"""How long `mcumgrx` takes to start, beside a bare Python interpreter.

::

    python benchmarks/startup.py [--runs 20] [--json]

Every command runs once per round, one after the other, so that whatever else the machine does meets all of them. What
counts is the ratio to the baseline of the same run: milliseconds differ from machine to machine, and from hour to hour
on one of them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BASELINE = "python -c pass"


def commands(image: Path) -> dict[str, list[str]]:
    """What is measured, by the name under which it is shown."""
    program = [sys.executable, "-m", "mcumgrx"]
    return {
        BASELINE: [sys.executable, "-c", "pass"],
        "mcumgrx --version": [*program, "--version"],
        "mcumgrx --help": [*program, "--help"],
        "mcumgrx image inspect FILE": [*program, "image", "inspect", str(image)],
    }


def measure(runs: int) -> dict[str, list[float]]:
    """Seconds of each run of each command. Raises `CalledProcessError` where a command does not work."""
    from mcumgrx.sim.images import build_image

    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "app.signed.bin"
        image.write_bytes(build_image("1.0.0"))
        measured = commands(image)
        times: dict[str, list[float]] = {name: [] for name in measured}
        for round_number in range(runs + 1):
            for name, words in measured.items():
                begin = time.perf_counter()
                subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
                if round_number > 0:  # the first round fills caches and writes bytecode
                    times[name].append(time.perf_counter() - begin)
    return times


def summary(times: dict[str, list[float]]) -> dict[str, object]:
    """Medians and quartiles in milliseconds, and the ratio of the medians to the baseline."""
    base = statistics.median(times[BASELINE])
    rows = []
    for name, seconds in times.items():
        low, median, high = (1000 * value for value in statistics.quantiles(seconds, n=4, method="inclusive"))
        rows.append(
            {
                "command": name,
                "median_ms": round(median, 1),
                "quartiles_ms": [round(low, 1), round(high, 1)],
                "ratio": round(median / 1000 / base, 2),
            }
        )
    return {
        "benchmark": "startup",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "runs": len(times[BASELINE]),
        "results": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how long mcumgrx takes to start.")
    parser.add_argument("--runs", type=int, default=20, help="rounds that count, at least 2 [default: 20]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.runs < 2:
        parser.error("--runs must be at least 2")
    found = summary(measure(arguments.runs))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(f"Python {found['python']} on {found['platform']}, {found['runs']} interleaved runs")
    print(f"{'':<28} {'median':>9} {'quartiles':>19} {'ratio':>7}")
    rows = found["results"]
    assert isinstance(rows, list)
    for row in rows:
        low, high = row["quartiles_ms"]
        print(f"{row['command']:<28} {row['median_ms']:>6.1f} ms {low:>8.1f}–{high:.1f} ms {row['ratio']:>7.2f}")


if __name__ == "__main__":
    main()
