"""What a fleet takes of the computer by device: processor and memory for 1, 20 and 100 simulated devices at once.

::

    python benchmarks/fleet.py [--quick] [--json]

A whole update each (read, plan, read again, upload, reset, proof, confirmation) of an image of 100 KB, by
`flows.fleet.update_fleet` with 16 at once, in virtual time; half of the devices crash with the new image, so that
errors are kept as well. The processor's time is the least of three runs, with the work of the simulated devices in it;
memory is what Python has allocated anywhere but in the simulator. *Kept* is what is left by device when all is done,
with the device and the report. *At work* is the most that was found at any 20th event beyond that, by device at work.
Flat means: a hundred devices take no more each than twenty.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from mcumgrx.address import Address
from mcumgrx.events import Event
from mcumgrx.flows.fleet import FleetPolicy, FleetReport, Verdict, update_fleet
from mcumgrx.mcuboot import parse_image
from mcumgrx.registry import default_registry
from mcumgrx.session import SessionDevice
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import SimulatedTransport
from mcumgrx.sim.loop import run

JOBS = 16

# Events between two looks at the memory.
LOOK = 20

# Each device takes at most this much more among 100 than among 20.
FLAT = 1.25


def shelf(count: int) -> list[SessionDevice]:
    """Simulated devices, of which every other one reverts; 1.0.0 runs."""
    old, found = build_image("1.0.0", payload_size=2000), []
    for number in range(count):
        unhealthy = frozenset({"1.1.0"} if number % 2 else ())
        config = DeviceConfig(slot_size=160 * 1024, buf_size=2048, boot_s=1.0, unhealthy=unhealthy)
        device = SimulatedDevice(config, name=f"unit-{number}")
        device.install(old)
        device.settle()
        address = Address("sim", f"unit-{number}")
        found.append(SessionDevice(address, SimulatedTransport(device), default_registry(), timeout_s=1.0))
    return found


def update(devices: list[SessionDevice], image: Any, look: Callable[[], None] = lambda: None) -> FleetReport:
    events = 0

    def tell(event: Event) -> None:
        nonlocal events
        events += 1
        if events % LOOK == 0:
            look()

    report = run(update_fleet(devices, image, progress=tell, fleet=FleetPolicy(jobs=JOBS)))
    expected = len(devices) // 2
    if report.counts[Verdict.FAILED] != expected or report.counts[Verdict.DONE] != len(devices) - expected:
        raise SystemExit(f"error: not what was expected: {dict(report.reasons)}")
    return report


def allocated() -> float:
    """KB that Python has allocated since tracing began, but for what simulated devices hold."""
    traces = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(False, "*/mcumgrx/sim/*")])
    return sum(one.size for one in traces.statistics("filename")) / 1000


def measure(count: int, image: Any) -> dict[str, Any]:
    cpu_s = []
    for _ in range(3):
        devices = shelf(count)
        gc.collect()
        begin = time.process_time()
        update(devices, image)
        cpu_s.append(time.process_time() - begin)

    devices = shelf(count)
    gc.collect()
    tracemalloc.start()
    at_work = [0.0]
    report = update(devices, image, lambda: at_work.append(allocated()))
    gc.collect()
    kept = allocated()
    tracemalloc.stop()
    assert len(report.results) == len(devices)  # which are held until here
    return {
        "devices": count,
        "cpu_ms": 1000 * min(cpu_s) / count,
        "at_work_kb": (max(at_work) - kept) / min(count, JOBS),
        "kept_kb": kept / count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a fleet takes of the computer by device.")
    parser.add_argument("--quick", action="store_true", help="fewer devices and a smaller image")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    image = parse_image(build_image("1.1.0", payload_size=20_000 if arguments.quick else 100_000))
    update(shelf(2), image)  # whatever is imported and cached once
    results = [measure(count, image) for count in ((1, 4, 8) if arguments.quick else (1, 20, 100))]
    flat = all(results[-1][what] <= FLAT * results[-2][what] for what in ("cpu_ms", "at_work_kb", "kept_kb"))
    if arguments.json:
        print(json.dumps({"benchmark": "fleet", "jobs": JOBS, "results": results, "flat": flat}, indent=2))
        return
    print("devices  CPU of each  of each at work  kept of each")
    for row in results:
        print(f"{row['devices']:7}  {row['cpu_ms']:8.1f} ms  {row['at_work_kb']:12.1f} KB  {row['kept_kb']:9.2f} KB")
    print(f"a hundred take no more each than twenty: {'held' if flat else 'missed'}")


if __name__ == "__main__":
    main()
