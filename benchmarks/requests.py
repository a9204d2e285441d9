"""What a single request costs: echoes over UDP without a delay, one at a time, beside what no client can do without.

::

    python benchmarks/requests.py [--quick] [--json] [--before CHECKOUT]

The device is a process that answers each datagram at once, by system calls alone. The contestants are processes of
their own, which take turns in every round; a batch is a few thousand echoes of 16 characters, and some before the
clock. Time of the processor is that of the contestant.

* *mcumgrx*: `client.request(Echo(…))`; with `--before` that of another checkout as well, side by side;
* *reader*: the floor of asyncio: a socket, `add_reader` and a future for each answer, no time-out, no SMP;
* *time-out*: the same with `asyncio.timeout` around the wait;
* *endpoint*: asyncio's own datagram endpoint in place of `add_reader`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

TEXT = "0123456789abcdef"
ECHO = bytes.fromhex("0a0000140000 0700") + b"\xa1ad\x70" + TEXT.encode()
WARM_UP = 50

Ask = Callable[[], Awaitable[object]]
Measured = tuple[float, float]  # requests per second, CPU seconds for each


async def batch(ask: Ask, count: int) -> Measured:
    for _ in range(WARM_UP):
        await ask()
    cpu, begin = time.process_time(), time.perf_counter()
    for _ in range(count):
        await ask()
    return count / (time.perf_counter() - begin), (time.process_time() - cpu) / count


async def mcumgrx(port: int, count: int) -> Measured:
    from mcumgrx import connect

    try:
        from mcumgrx.messages.standard import Echo
    except ImportError:  # an earlier checkout
        from mcumgrx.protocol.standard import Echo  # type: ignore[import-not-found, no-redef]

    async with connect(f"udp:127.0.0.1:{port}") as client:
        assert await client.request(Echo(TEXT)) == TEXT
        return await batch(lambda: client.request(Echo(TEXT)), count)


async def reader(port: int, count: int, timeout_s: float | None = None) -> Measured:
    loop = asyncio.get_running_loop()
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setblocking(False)
    link.connect(("127.0.0.1", port))
    answer: asyncio.Future[bytes] = loop.create_future()
    loop.add_reader(link, lambda: answer.set_result(link.recv(4096)))

    async def ask() -> None:
        nonlocal answer
        answer = loop.create_future()
        link.send(ECHO)
        if timeout_s is None:
            await answer
            return
        async with asyncio.timeout(timeout_s):
            await answer

    try:
        return await batch(ask, count)
    finally:
        loop.remove_reader(link)
        link.close()


class Answers(asyncio.DatagramProtocol):
    answer: asyncio.Future[bytes]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.answer.set_result(data)


async def endpoint(port: int, count: int) -> Measured:
    loop = asyncio.get_running_loop()
    transport, answers = await loop.create_datagram_endpoint(Answers, remote_addr=("127.0.0.1", port))

    async def ask() -> None:
        answers.answer = loop.create_future()
        transport.sendto(ECHO)
        await answers.answer

    try:
        return await batch(ask, count)
    finally:
        transport.close()


async def timed(port: int, count: int) -> Measured:
    return await reader(port, count, timeout_s=5.0)


CONTESTANTS: dict[str, Callable[[int, int], Awaitable[Measured]]] = {
    "mcumgrx": mcumgrx,
    "reader": reader,
    "time-out": timed,
    "endpoint": endpoint,
}


def device() -> None:
    """Answers every request with its own body under the key of an echo's answer, for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        print(link.getsockname()[1], flush=True)
        while True:
            message, where = link.recvfrom(4096)
            link.sendto(bytes((message[0] | 1,)) + message[1:8] + b"\xa1ar" + message[11:], where)


class Process:
    """This script as another process, as `role`, with `checkout` in place of what is installed."""

    def __init__(self, role: str, checkout: Path | None = None) -> None:
        path = {} if checkout is None else {"PYTHONPATH": os.pathsep.join(map(str, (checkout, checkout / "plugins")))}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--role", role],
            env={**os.environ, **path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def measure(self, port: int, count: int) -> Measured:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{port} {count}\n")
        self._process.stdin.flush()
        rate, cpu_s = json.loads(self.read())
        return rate, cpu_s

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


def work_as(role: str) -> None:
    if role == "device":
        device()
    for line in sys.stdin:
        port, count = map(int, line.split())
        print(json.dumps(asyncio.run(CONTESTANTS[role](port, count))), flush=True)


def measure(rounds: int, count: int, before: Path | None) -> dict[str, dict[str, float]]:
    served = Process("device")
    contestants = {name: Process(name) for name in CONTESTANTS}
    if before is not None:
        contestants = {"before": Process("mcumgrx", before.resolve())} | contestants
    try:
        port = int(served.read())
        found: dict[str, list[Measured]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, process in contestants.items():
                found[name].append(process.measure(port, count))
    finally:
        for process in (served, *contestants.values()):
            process.end()
    ours = [rate for rate, _ in found["mcumgrx"]]
    return {
        name: {
            "requests_per_s": statistics.median(rate for rate, _ in batches),
            "cpu_us": 1e6 * statistics.median(cpu_s for _, cpu_s in batches),
            # Within a round, because the rest of the machine is never the same.
            "ours_is": statistics.median(our / rate for our, (rate, _) in zip(ours, batches, strict=True)),
        }
        for name, batches in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure single requests over UDP.")
    parser.add_argument("--quick", action="store_true", help="a few short batches")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="compare with this one")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role is not None:
        work_as(arguments.role)
        return
    rounds, count = (3, 500) if arguments.quick else (15, 4000)
    found = measure(rounds, count, arguments.before)
    if arguments.json:
        print(json.dumps({"benchmark": "requests", "results": found}, indent=2))
        return
    print(f"{'':10} {'requests/s':>11} {'CPU each':>10} {'mcumgrx is':>11}")
    for name, row in found.items():
        print(f"{name:10} {row['requests_per_s']:11,.0f} {row['cpu_us']:7.1f} us {row['ours_is']:10.2f}×")


if __name__ == "__main__":
    main()
