"""What a single request costs: echoes over UDP without a delay, one at a time, beside what no client can do without.

::

    python benchmarks/requests.py [--quick] [--json] [--before CHECKOUT] [--apart]

The device is a process that answers each datagram at once, by system calls alone. The contestants are processes of
their own, which take turns in every round; a batch is a thousand echoes of 16 characters, and some before the
clock. Time of the processor is that of the contestant.

Device and contestants share one processor, where the system lets them be told so (Linux). On two of them each message
wakes a processor that sleeps, and the answer another: in a virtual machine that takes longer than all the rest, of all
contestants alike. A system left to itself changes between both in the middle of a run. `--apart` puts the device on a
processor of its own.

* *mcumgrx*: `client.request(Echo(…))`; with `--before` that of another checkout as well, side by side;
* *reader*: the floor of asyncio: a socket, `add_reader` and a future for each answer, no time-out, no SMP;
* *time-out*: the same with `asyncio.timeout` around the wait;
* *endpoint*: asyncio's own datagram endpoint in place of `add_reader`.

*Where it goes.* The same request in parts, in microseconds of the processor, the least of many batches each, so that
what else the machine does counts for little:

* *messages*: the command as a request in CBOR, and the reply as a result;
* *calls*: a number and a header for the request, and the call that the answer belongs to;
* *loop*: two turns of the event loop, one that brings the answer, one that wakes the task which waits for it;
* *client and link*: the rest of `client.request` over a link in memory, which answers at once;
* *socket*: what it takes more over UDP: three system calls (a datagram sent, a wait, a datagram received), and what has
  left the caches of the processor meanwhile.
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
import timeit
from collections.abc import Awaitable, Callable, Sequence
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


def answer_to(message: bytes) -> bytes:
    """Its own body under the key of an echo's answer."""
    return bytes((message[0] | 1,)) + message[1:8] + b"\xa1ar" + message[11:]


def device() -> None:
    """Answers every request, for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.bind(("127.0.0.1", 0))
        print(link.getsockname()[1], flush=True)
        while True:
            message, where = link.recvfrom(4096)
            link.sendto(answer_to(message), where)


def parts(rounds: int, count: int, over_udp_us: float) -> dict[str, float]:
    """Microseconds of the processor for each part of a request."""
    from mcumgrx.client import Client
    from mcumgrx.link.table import Table
    from mcumgrx.messages.message import Reply
    from mcumgrx.messages.standard import Echo
    from mcumgrx.plugin_api import DatagramFraming, Limits, Transport

    class MemoryLink(Transport):
        limits = Limits(safe_message=256)
        framing = DatagramFraming

        def __init__(self) -> None: ...
        async def open(self, timeout_s: float) -> None: ...
        async def close(self) -> None: ...
        async def send(self, writes: Sequence[bytes]) -> None: ...

        async def receive(self) -> bytes:
            return await asyncio.get_running_loop().create_future()

        def offer(self, writes: Sequence[bytes]) -> bool:
            asyncio.get_running_loop().call_soon(self._take, answer_to(writes[0]))
            return True

        def deliver_to(self, take: Callable[[bytes], None]) -> bool:
            self._take = take
            return True

    async def in_memory() -> float:
        async with Client(MemoryLink()) as client:
            cost = min([(await batch(lambda: client.request(Echo(TEXT)), count))[1] for _ in range(rounds)])
        return 1e6 * cost - least(lambda: answer_to(ECHO))

    async def loop() -> float:
        loop = asyncio.get_running_loop()

        async def turns() -> None:
            future: asyncio.Future[None] = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future

        return 1e6 * min([(await batch(turns, count))[1] for _ in range(rounds)])

    def least(work: Callable[[], object]) -> float:
        return 1e6 * min(timeit.repeat(work, timer=time.process_time, number=count, repeat=rounds)) / count

    command, reply = Echo(TEXT), Reply(3, 1, 0, 0, 0, 0, answer_to(ECHO)[8:])
    request, table = command.request(), Table(DatagramFraming())

    def call() -> None:
        table.receive(answer_to(table.open(request).writes[0]))

    whole, turns = asyncio.run(in_memory()), asyncio.run(loop())
    messages = least(lambda: Echo(TEXT).request()) + least(lambda: command.result(reply))
    calls = least(call) - least(lambda: answer_to(ECHO))
    return {
        "messages": messages,
        "calls": calls,
        "loop": turns,
        "client and link": whole - messages - calls - turns,
        "socket": over_udp_us - whole,
        "over UDP": over_udp_us,
    }


class Process:
    """This script as another process, as `role`, with `checkout` in place of what is installed."""

    def __init__(self, role: str, processor: int, checkout: Path | None = None) -> None:
        path = {} if checkout is None else {"PYTHONPATH": os.pathsep.join(map(str, (checkout, checkout / "plugins")))}
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--role", role],
            env={**os.environ, **path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        if sys.platform == "linux":
            os.sched_setaffinity(self._process.pid, {processor})

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


def measure(rounds: int, count: int, before: Path | None, *, apart: bool) -> dict[str, dict[str, float]]:
    processors = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else [0]
    ours, its = processors[0], processors[-1 if apart else 0]
    served = Process("device", its)
    contestants = {name: Process(name, ours) for name in CONTESTANTS}
    if before is not None:
        contestants = {"before": Process("mcumgrx", ours, before.resolve())} | contestants
    try:
        port = int(served.read())
        found: dict[str, list[Measured]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, process in contestants.items():
                found[name].append(process.measure(port, count))
    finally:
        for process in (served, *contestants.values()):
            process.end()
    rates = [rate for rate, _ in found["mcumgrx"]]
    return {
        name: {
            "requests_per_s": statistics.median(rate for rate, _ in batches),
            "cpu_us": 1e6 * statistics.median(cpu_s for _, cpu_s in batches),
            "least_cpu_us": 1e6 * min(cpu_s for _, cpu_s in batches),
            # Within a round, because the rest of the machine is never the same.
            "ours_is": statistics.median(our / rate for our, (rate, _) in zip(rates, batches, strict=True)),
        }
        for name, batches in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure single requests over UDP.")
    parser.add_argument("--quick", action="store_true", help="a few short batches")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="compare with this one")
    parser.add_argument("--apart", action="store_true", help="the device has a processor of its own (Linux)")
    parser.add_argument("--role", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role is not None:
        work_as(arguments.role)
        return
    rounds, count = (3, 500) if arguments.quick else (60, 1000)
    found = measure(rounds, count, arguments.before, apart=arguments.apart)
    where = parts(rounds, count, found["mcumgrx"]["least_cpu_us"])
    if arguments.json:
        print(json.dumps({"benchmark": "requests", "results": found, "parts_us": where}, indent=2))
        return
    print(f"{'':10} {'requests/s':>11} {'CPU each':>10} {'at least':>10} {'mcumgrx is':>11}")
    for name, row in found.items():
        rate, cost_us, least_us, gain = (row[key] for key in ("requests_per_s", "cpu_us", "least_cpu_us", "ours_is"))
        print(f"{name:10} {rate:11,.0f} {cost_us:7.1f} us {least_us:7.1f} us {gain:10.2f}×")
    print("\nwhere it goes, at least")
    for name, cost_us in where.items():
        print(f"{name:16} {cost_us:5.1f} us")


if __name__ == "__main__":
    main()
