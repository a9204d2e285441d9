"""How fast uploads are over serial lines that damage bytes, in virtual time.

::

    python benchmarks/dirty.py [--quick] [--json] [--before CHECKOUT]

Each byte, in both directions, is replaced by another with the given probability; console framing notices that by its
CRC, on both sides, and drops the message. Every row is the median over several fixed sequences of chance, of the time
from the first request of a client to the end of the upload of a 55 KB image, erase included, which the simulated flash
does at once. `--before` runs the same with another checkout of mcumgrx, side by side, and tells the ratio.

A device that one request too many crashes counts as a failure, and so does an upload that ends with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mcumgrx.client import Client
from mcumgrx.mcuboot import parse_image
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.flash import INSTANT
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import LinkModel, SimulatedTransport
from mcumgrx.sim.loop import run
from mcumgrx_plugins.image.group import ImageGroup

IMAGE_BYTES = 55_000
CORRUPTION = (0.0, 1e-4, 5e-4, 1e-3)
SEEDS, FEW_SEEDS = range(9), range(3)

OLD = build_image("1.0.0", payload_size=1000)
NEW = parse_image(build_image("1.1.0", payload_size=IMAGE_BYTES))


@dataclass(frozen=True, slots=True)
class Scenario:
    """One line and one device; `baud` 0 is a line without a speed (a socket, a pseudo-terminal)."""

    baud: int
    latency_s: float
    buf_count: int
    buf_size: int

    def __str__(self) -> str:
        line = f"{self.baud:,} baud" if self.baud else "no baud rate"
        return f"{line}, {self.latency_s * 1000:g} ms, {self.buf_count} × {self.buf_size}"

    @property
    def model(self) -> LinkModel:
        model = replace(LinkModel.uart(self.baud or 1_000_000), latency_s=self.latency_s)
        return model if self.baud else replace(model, bytes_per_s=None)

    @property
    def config(self) -> DeviceConfig:
        # Line buffers for any burst: what they lose is another matter.
        return DeviceConfig(
            buf_count=self.buf_count, buf_size=self.buf_size, line_count=None, timing=INSTANT, slot_size=128 * 1024
        )


SCENARIOS = (
    Scenario(0, 0.001, 4, 384),
    Scenario(0, 0.004, 4, 384),
    Scenario(1_000_000, 0.001, 4, 384),
    Scenario(115_200, 0.002, 4, 384),
    Scenario(0, 0.001, 2, 384),
    Scenario(1_000_000, 0.001, 4, 1024),
)


class DirtyLine(SimulatedTransport):
    """A link on which each byte is replaced with a probability."""

    def __init__(self, device: SimulatedDevice, model: LinkModel, corruption: float, seed: int) -> None:
        super().__init__(device, model)
        self._corruption = corruption
        self._chance = random.Random(seed)

    def _arrived(self, connection: int, writes: tuple[bytes, ...]) -> None:
        super()._arrived(connection, tuple(map(self._damaged, writes)))

    def _deliver(self, connection: int, chunk: bytes) -> None:
        super()._deliver(connection, self._damaged(chunk))

    def _damaged(self, data: bytes) -> bytes:
        if not self._corruption:
            return data
        chance = self._chance
        return bytes(byte ^ chance.randrange(1, 256) if chance.random() < self._corruption else byte for byte in data)


@dataclass(frozen=True, slots=True)
class Row:
    """Seconds: of each upload that came to its end, by seed."""

    scenario: Scenario
    corruption: float
    seconds: tuple[float, ...]
    failures: int
    crashes: int

    @property
    def median_s(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("inf")


def measure(scenario: Scenario, corruption: float, seeds: Sequence[int]) -> Row:
    seconds: list[float] = []
    failures = crashes = 0
    for seed in seeds if corruption else seeds[:1]:
        device = SimulatedDevice(scenario.config)
        device.install(OLD)
        try:
            seconds.append(run(_upload(device, DirtyLine(device, scenario.model, corruption, seed))))
        except Exception as error:
            print(f"{scenario}, {corruption:g}, seed {seed}: {error!r}", file=sys.stderr)
            failures += 1
        crashes += device.crashes
    return Row(scenario, corruption, tuple(seconds), failures, crashes)


async def _upload(device: SimulatedDevice, transport: SimulatedTransport) -> float:
    loop = asyncio.get_running_loop()
    async with Client(transport) as client:
        begin = loop.time()
        await client.group(ImageGroup).upload(NEW)
        return loop.time() - begin


def before(checkout: Path, arguments: Sequence[str]) -> list[dict[str, Any]]:
    """The same rows, measured with another checkout."""
    paths = os.pathsep.join(map(str, (checkout, checkout / "plugins")))
    done = subprocess.run(
        [sys.executable, __file__, "--json", *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)["results"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure uploads over lines that damage bytes, in virtual time.")
    parser.add_argument("--quick", action="store_true", help="fewer sequences of chance")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="compare with this one")
    arguments = parser.parse_args()
    seeds = FEW_SEEDS if arguments.quick else SEEDS
    rows = [measure(scenario, corruption, seeds) for scenario in SCENARIOS for corruption in CORRUPTION]
    if arguments.json:
        found = [{**asdict(row), "title": str(row.scenario), "median_s": row.median_s} for row in rows]
        print(json.dumps({"benchmark": "dirty", "results": found}, indent=2))
        return
    old = before(arguments.before, ["--quick"] if arguments.quick else []) if arguments.before else None
    print(f"{'line and device':38} {'per byte':>9} {'median':>9} {'longest':>9} {'failed':>7} {'crashed':>8}", end="")
    print(f" {'before':>9} {'failed':>7} {'times faster':>13}" if old else "")
    for number, row in enumerate(rows):
        longest_s = max(row.seconds, default=float("inf"))
        print(
            f"{row.scenario!s:38} {row.corruption:9g} {row.median_s:7.2f} s {longest_s:7.2f} s "
            f"{row.failures:7} {row.crashes:8}",
            end="",
        )
        if old:
            one = old[number]
            print(f" {one['median_s']:7.2f} s {one['failures']:7} {one['median_s'] / row.median_s:13.1f}", end="")
        print()


if __name__ == "__main__":
    main()
