"""How many devices one process updates at once: uploads to many simulated devices, beside uploads to one.

::

    python benchmarks/many.py [--quick] [--devices N] [--json]

Each device is an `mcumgrx sim serve` of its own, over UDP on the loopback interface, with the flash of an nRF52840,
which is what limits a single upload. A few devices are written to alone, then all of them at the same
time from this one process; *share* is the rate of all together, of as many times the rate of one alone. CPU is that of
this process, of one core; as long as that, and what the devices take of the machine, is not full, nothing should be
lost. With `--instant` devices, which take what comes, the last line tells how much a full core does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from typing import Any

import mcumgrx
from mcumgrx.contracts import ImageGroup
from mcumgrx.mcuboot import Image, parse_image
from mcumgrx.sim.images import build_image

SHARE_BAR = 0.9

DEFAULTS = {"erase": 0, "buf_size": 2048, "slot_size": 4194304}


@contextmanager
def devices(count: int, *flags: str, link: Sequence[str] = ("--udp", "0"), **options: int) -> Iterator[list[str]]:
    """So many served devices, with `options` of `sim:`, on the `link` that `sim serve` names; gives their addresses."""
    given = ",".join(f"{key}={value}" for key, value in (DEFAULTS | options).items())
    with ExitStack() as stack:
        processes = []
        for number in range(count):
            words = ["sim", "serve", f"sim:many{number},{given}", *link, *flags, "--json"]
            process = subprocess.Popen(
                [sys.executable, "-m", "mcumgrx", *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                encoding="utf-8",
            )
            processes.append(process)
            stack.callback(process.communicate, timeout=20)
        for process in processes:
            stack.callback(process.send_signal, signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        addresses = []
        for process in processes:
            assert process.stdout is not None
            event = json.loads(process.stdout.readline() or "{}")
            if event.get("event") != "listening":
                raise SystemExit(f"error: the simulated device cannot be served: {event}")
            addresses.append(event["address"])
        yield addresses


async def write_to(addresses: Sequence[str], image: Image) -> tuple[float, float]:
    """Upload to all at the same time: bytes/s of all together, and the share of a core that it took."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(mcumgrx.connect(address)) for address in addresses]
        for client in clients:
            await client.params()
        begin, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as uploads:
            for client in clients:
                uploads.create_task(client.group(ImageGroup).upload(image))
        seconds, cpu_s = time.perf_counter() - begin, time.process_time() - cpu
    return len(addresses) * image.size / seconds, cpu_s / seconds


def measure(count: int, size: int, alone: int) -> dict[str, Any]:
    image = parse_image(build_image("1.1.0", payload_size=size))
    with devices(count) as addresses:
        single = [asyncio.run(write_to([address], image))[0] for address in addresses[:alone]]
        together, cpu = asyncio.run(write_to(addresses, image))
    large = parse_image(build_image("1.1.0", payload_size=4 * size))
    with devices(count, "--instant") as addresses:
        most, full = asyncio.run(write_to(addresses, large))
    one = statistics.median(single)
    return {
        "benchmark": "many",
        "devices": count,
        "alone_bytes_per_s": one,
        "together_bytes_per_s": together,
        "share": together / (count * one),
        "cpu": cpu,
        "instant_bytes_per_s": most,
        "instant_cpu": full,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure uploads to many simulated devices at once.")
    parser.add_argument("--quick", action="store_true", help="few devices and small images")
    parser.add_argument("--devices", type=int, help="how many [default: 20]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    count = arguments.devices if arguments.devices is not None else 4 if arguments.quick else 20
    if count < 1:
        parser.error("--devices must be at least 1")
    found = measure(count, 60_000 if arguments.quick else 400_000, 1 if arguments.quick else 3)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(f"one device alone:    {found['alone_bytes_per_s'] / 1000:,.1f} KB/s")
    print(
        f"{count} devices at once:  {found['together_bytes_per_s'] / 1000:,.1f} KB/s, {found['share']:.1%} of {count} "
        f"times as much, at least {SHARE_BAR:.0%} wanted: {'held' if found['share'] >= SHARE_BAR else 'missed'}; "
        f"{found['cpu']:.0%} of a core"
    )
    print(
        f"{count} instant devices: {found['instant_bytes_per_s'] / 1000:,.1f} KB/s, "
        f"{found['instant_cpu']:.0%} of a core"
    )


if __name__ == "__main__":
    main()
