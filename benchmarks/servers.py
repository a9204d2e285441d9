"""How fast whole clients are with real Zephyr servers, over wires with a delay and a rate.

::

    MCUMGRX_ZEPHYR_SERVERS=DIRECTORY python benchmarks/servers.py [--quick] [--rounds N] [--uploads N] [--json]

The servers are those of `make test-zephyr`: Zephyr as a process, or in QEMU. Between client and server stands a relay
(`_relay.py`) with the same one-way delay and rate in both directions; to the client it is a serial port (a
pseudo-terminal) or a UDP port. *bridge* means that datagrams are laid as console lines behind the delay, because the
servers with UDP take no images. The contestants are those of `peers.py`; they take turns, in a random order.

* *image*: an upload, from the first request that belongs to it to the last answer; that of mcumgrx is preceded by an
  echo of the largest message, which counts. *file*: the same for a file, but without an echo; mcumgrx also compares
  its hash, which counts, too.
* *limit*: what the wire carries when it never idles: image bytes over the framed bytes of all chunks, plus a round
  trip. Servers can be slower.
* *server*: what the server takes: mcumgrx in the same rounds, with no delay and no limit of the rate. Emulated ones
  take 10 to 25 KB/s from a UART, which changes from one minute to the next.
* *dropped* counts what the server's log says of lines or messages that found no buffer.

`--uploads N` uploads N images in a row through 1 Mbaud and 10 ms, and counts failures, repeated chunks and drops.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _relay import DatagramEnd, End, Pseudoterminal, Relay, StreamEnd
from peers import CONTESTANTS, Worker

from mcumgrx.protocol.console import ConsoleFraming

if TYPE_CHECKING:
    from tests.support.zephyr import ZephyrServer

VARIABLE = "MCUMGRX_ZEPHYR_SERVERS"

# What a server prints when something finds no buffer: the UART's lines, and messages.
DROPPED = re.compile(r"Insufficient buffers|Failed to allocate")

CHUNK_OVERHEAD = 26  # of a message with a chunk: header, and CBOR beside the data


@dataclass(frozen=True, slots=True)
class Scenario:
    """One server behind one wire. `baud` None for no limit; `size` in bytes; `most` at least so much is wanted."""

    config: str
    target: str
    work: str
    size: int
    delay_s: float
    baud: int | None = None
    bridge: bool = False
    share: float | None = None
    """The bar: of the limit."""
    gain: float | None = None
    """The bar: over smpclient."""

    def __str__(self) -> str:
        wire = f"{self.baud:,} baud" if self.baud is not None else "UDP bridge" if self.bridge else "UDP"
        work = "image" if self.work == "upload" else "file"
        return f"{self.target}.{self.config}, {wire}, {self.delay_s * 1000:g} ms, {work} of {self.size:,}"


SCENARIOS = (
    Scenario("serial_recovery", "mps2_an385", "upload", 64_000, 0.01, 115200, share=0.95),
    Scenario("serial_recovery", "mps2_an385", "upload", 64_000, 0.01, 1_000_000, gain=2.5),
    Scenario("serial_recovery_buf2048", "mps2_an385", "upload", 64_000, 0.01, 115200, share=0.95),
    Scenario("serial_recovery_buf2048", "mps2_an385", "upload", 64_000, 0.01, 1_000_000),
    Scenario("serial_recovery_buf2048", "mps2_an385", "upload", 64_000, 0.02, bridge=True, gain=2),
    # This server takes about 25 KB/s whatever the wire does, and native_sim has one buffer to spare.
    Scenario("serial_recovery_buf2048", "mps2_an385", "file", 32_000, 0.02, bridge=True, gain=1.5),
    Scenario("udp", "native_sim", "file", 1_000, 0.02),
    Scenario("udp", "native_sim", "file", 4_000, 0.02, gain=1),
)


def limit_of(scenario: Scenario, server: ZephyrServer) -> float | None:
    """Bytes/s; see the module. None without a rate."""
    if scenario.baud is None:
        return None
    data = server.buf_size - ConsoleFraming.OVERHEAD - CHUNK_OVERHEAD
    framed: int = sum(map(len, ConsoleFraming().encode(bytes(data + CHUNK_OVERHEAD))))
    seconds = scenario.size / data * framed * 10 / scenario.baud + 2 * scenario.delay_s
    return scenario.size / seconds


@asynccontextmanager
async def relayed(scenario: Scenario) -> AsyncIterator[tuple[str, ZephyrServer, Relay]]:
    """The address for the client, the server, and what is between; raises `pytest.skip.Exception` without a server."""
    from tests.support.zephyr import find_server

    with tempfile.TemporaryDirectory() as folder:
        async with find_server(scenario.config, scenario.target).start(Path(folder)) as server:
            scheme, _, target = server.address.partition(",")[0].partition(":")
            port = int(target.rpartition(":")[2])
            far: End = DatagramEnd(port) if scheme == "udp" else await StreamEnd.open(port)
            near = Pseudoterminal() if scenario.baud is not None else DatagramEnd()
            rate = scenario.baud / 10 if scenario.baud is not None else None
            relay = Relay(near, far, delay_s=scenario.delay_s, bytes_per_s=rate, bridge=scenario.bridge)
            try:
                if isinstance(near, Pseudoterminal):
                    yield f"serial:{near.name},baud={scenario.baud}", server, relay
                else:
                    yield f"udp:127.0.0.1:{near.port}", server, relay
            finally:
                relay.close()


async def measure(scenario: Scenario, workers: list[Worker], rounds: int) -> dict[str, Any]:
    """A row: what each contestant did, in bytes/s."""
    row: dict[str, Any] = {"scenario": str(scenario), "results": {}, "gain": None, "limit": None, "server": None}
    if scenario.work == "file":
        workers = [worker for worker in workers if worker.name != "mcumgrx, 1"]  # files have no such option
    try:
        async with relayed(scenario) as (address, server, relay):
            row["limit"] = limit_of(scenario, server)
            times: dict[str, list[float]] = {worker.name: [] for worker in workers}
            failed: dict[str, list[str]] = {worker.name: [] for worker in workers}
            dropped = dict.fromkeys(times, 0)
            repeated = dict.fromkeys(times, 0)
            takes: list[float] = []
            ours = next(worker for worker in workers if worker.name == "mcumgrx")
            for _ in range(rounds):
                with relay.at_once():
                    found = await asyncio.to_thread(ours.do, scenario.work, address, scenario.size)
                if "failed" not in found:
                    takes.append(scenario.size / found["wall_s"])
                turns = list(workers)
                random.shuffle(turns)
                for worker in turns:
                    before = len(DROPPED.findall(server.output.text))
                    found = await asyncio.to_thread(worker.do, scenario.work, address, scenario.size)
                    dropped[worker.name] += len(DROPPED.findall(server.output.text)) - before
                    if "failed" in found:
                        failed[worker.name].append(str(found["failed"]))
                        continue
                    times[worker.name].append(found["wall_s"])
                    repeated[worker.name] += found["repeated"] or 0
            row["server"] = statistics.median(takes) if takes else None
            for name, taken in times.items():
                row["results"][name] = {
                    "bytes_per_s": scenario.size / statistics.median(taken) if taken else None,
                    "dropped": dropped[name],
                    "repeated": repeated[name],
                    "failed": failed[name],
                }
    except _skipped() as skipped:
        row["left_out"] = str(skipped)
    rates = {name: result.get("bytes_per_s") for name, result in row["results"].items()}
    rate, theirs = rates.get("mcumgrx"), rates.get("smpclient")
    row["gain"] = rate / theirs if rate and theirs else None
    row["verdict"] = verdict(scenario, rate, row)
    return row


def verdict(scenario: Scenario, ours: float | None, row: dict[str, Any]) -> str:
    """The bar of a scenario, and whether it holds."""
    limit, gain, server = row["limit"], row["gain"], row["server"]
    if ours is None:
        return ""
    if scenario.share is not None and limit is not None:
        held = "held" if ours >= scenario.share * limit else "missed"
        return f"{ours / limit:.1%} of the limit, at least {scenario.share:.0%} wanted: {held}"
    if scenario.gain is not None and gain is not None:
        held = "held" if gain >= scenario.gain else "missed"
        taken = f"; {ours / server:.0%} of what the server takes" if server else ""
        return f"{gain:.2f} × smpclient, at least {scenario.gain:g} wanted: {held}{taken}"
    return ""


def _skipped() -> type[BaseException]:
    import pytest

    return pytest.skip.Exception


async def in_a_row(count: int, worker: Worker) -> dict[str, Any]:
    """Many uploads through one link after the other."""
    scenario = Scenario("serial_recovery", "mps2_an385", "upload", 16_000, 0.01, 1_000_000)
    found: dict[str, Any] = {"uploads": count, "scenario": str(scenario), "failed": 0, "repeated": 0, "dropped": 0}
    try:
        async with relayed(scenario) as (address, server, _):
            rates = []
            for _ in range(count):
                times = await asyncio.to_thread(worker.do, "upload", address, scenario.size)
                if "failed" in times:
                    found["failed"] += 1
                    found["why"] = times["failed"]
                    continue
                rates.append(scenario.size / times["wall_s"])
                found["repeated"] += times["repeated"] or 0
            found["dropped"] = len(DROPPED.findall(server.output.text))
            found["bytes_per_s"] = statistics.median(rates) if rates else None
    except _skipped() as skipped:
        found["left_out"] = str(skipped)
    return found


def show(found: dict[str, Any]) -> None:
    names = [name for name in CONTESTANTS if any(name in row["results"] for row in found["results"])]
    width = max((len(row["scenario"]) for row in found["results"]), default=0)
    print(f"{'KB/s':<{width}}{'limit':>9}{'server':>9}" + "".join(f"{name:>16}" for name in names))
    for row in found["results"]:
        if "left_out" in row:
            print(f"{row['scenario']:<{width}}  left out: {row['left_out']}")
            continue
        cells = []
        for name in names:
            result = row["results"].get(name, {})
            text = f"{result['bytes_per_s'] / 1000:,.2f}" if result.get("bytes_per_s") else "failed" if result else ""
            cells.append(f"{text:>16}")
        limit, server = (f"{row[name] / 1000:,.2f}" if row[name] else "" for name in ("limit", "server"))
        print(f"{row['scenario']:<{width}}{limit:>9}{server:>9}" + "".join(cells))
    print()
    for row in found["results"]:
        if row.get("verdict"):
            print(f"{row['scenario']}: {row['verdict']}")
        for name, result in row["results"].items():
            told = [f"repeated {result['repeated']} chunks"] if result["repeated"] else []
            told += [f"the server dropped {result['dropped']} lines or messages"] if result["dropped"] else []
            told += [f"failed ({why})" for why in result["failed"]]
            if told:
                print(f"{row['scenario']}: {name}: {'; '.join(told)}")
    many = found["in_a_row"]
    if many is not None:
        print(
            f"{many['uploads']} uploads in a row, {many['scenario']}: {many['failed']} failed, {many['repeated']} "
            f"chunks repeated, {many['dropped']} dropped by the server" + (f" ({many['why']})" if "why" in many else "")
        )


async def measure_all(workers: list[Worker], arguments: argparse.Namespace) -> dict[str, Any]:
    rounds = arguments.rounds if arguments.rounds is not None else 1 if arguments.quick else 3
    chosen = [scenario for scenario in SCENARIOS if arguments.only is None or arguments.only in str(scenario)]
    if arguments.quick:
        chosen = chosen[1:2]
    rows = [await measure(scenario, workers, rounds) for scenario in chosen]
    ours = next(worker for worker in workers if worker.name == "mcumgrx")
    many = await in_a_row(arguments.uploads, ours) if arguments.uploads else None
    return {"benchmark": "servers", "rounds": rounds, "results": rows, "in_a_row": many}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure clients with real Zephyr servers over delayed wires.")
    parser.add_argument("--quick", action="store_true", help="one scenario, one round")
    parser.add_argument("--rounds", type=int, help="rounds, of which the median counts [default: 3]")
    parser.add_argument("--uploads", type=int, default=0, metavar="N", help="also N uploads in a row")
    parser.add_argument("--only", metavar="TEXT", help="only scenarios whose name contains it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if not os.environ.get(VARIABLE):
        why = f"{VARIABLE} does not name a directory with Zephyr servers"
        left_out: dict[str, Any] = {"benchmark": "servers", "results": [], "in_a_row": None, "left_out": why}
        print(json.dumps(left_out, indent=2) if arguments.json else f"left out: {why}")
        return
    if find_spec("pytest") is None:
        parser.error("the servers are started as the tests do it: pip install -e '.[test]'")
    workers = [Worker(name) for name in CONTESTANTS if name != "bare"]
    try:
        found = asyncio.run(measure_all([worker for worker in workers if worker.missing is None], arguments))
    finally:
        for worker in workers:
            worker.close()
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
