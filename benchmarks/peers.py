"""How fast whole clients are, beside `smpclient` and `mcumgr-toolkit`, against the same device on the same links.

::

    python benchmarks/peers.py [--quick] [--rounds N] [--json]

Needs the peers: ``pip install 'mcumgrx[bench]'``; one that is missing is left out, and said to be.

The device is `mcumgrx sim serve --instant`, a process of its own for each link and delay: a pseudo-terminal with
buffers of 384 bytes and UDP on the loopback interface with 2048, as Zephyr has by default, four of each. Its flash,
requests and links take no time except the delay, half of it each way. The contestants are processes of their own, too,
which open the link anew for each batch and take turns in every round, so that whatever else the machine does meets all
of them.
Opening, the question for the buffers and three echoes come before the clock.

* *echo*: 16 characters there and back, one at a time: requests per second, and the client's CPU time for each.
* *upload*: an image, each client with the message size and the window that it chooses itself. KB are 1000 bytes. A
  chunk is one request; how many there were is what the client tells.
* *idle*: the client's CPU time while a link is open and nothing happens.

*mcumgrx* has its defaults; *mcumgrx, 1* has `UploadOptions(window=1)`, one chunk on its way at a time, as all the
others have. *gain* is the median of the ratios to `smpclient` within a round, more than 1 where mcumgrx, with its
defaults, is the better one.

*bare* is no client: the same bytes written to the socket or terminal and the answer read, by system calls alone; for
the upload, the shortest loop that does it. What an echo takes there is the time of the simulator and the system, which
is in everybody's. Without a delay the device is the slower part, so there rates say less than CPU times; with one, all
who send one request at a time wait for the same thing.
"""

from __future__ import annotations

import argparse
import asyncio
import binascii
import json
import os
import platform
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

TEXT = "0123456789abcdef"
BUFFERS = {"pty": 384, "udp": 2048}
DELAYS_MS = (0, 10, 30)
WARM_UP = 3

# Requests of a batch, and bytes of an upload, by delay in milliseconds: half a second each, or somewhat more.
ECHOES = {0: 500, 10: 40, 30: 15}
UPLOAD_BYTES = {"pty": {0: 600_000, 10: 48_000, 30: 24_000}, "udp": {0: 4_000_000, 10: 300_000, 30: 120_000}}
SLOT_BYTES = 8 * 1024 * 1024

# What is aimed at without a delay, in bytes/s, and in CPU time for a chunk beside smpclient's.
RATE_BARS = {"pty": 3e6, "udp": 10e6}
CPU_BAR = 1 / 4
ATTEMPTS = 3

FILE = "/lfs1/bench.bin"

# --- the contestants, each in a process of its own ------------------------------------------------------------------


class Contestant(ABC):
    """Does one batch at a time, and returns how many seconds it took by the clock and of the processor."""

    distribution: str | None = None
    works: tuple[str, ...] = ("echo", "upload", "idle")
    chunks: int | None = None
    repeated: int | None = None

    @abstractmethod
    def echo(self, address: str, count: int) -> tuple[float, float]:
        """`count` echoes, one after the other."""

    @abstractmethod
    def upload(self, address: str, image: bytes) -> tuple[float, float]:
        """One image; leaves the number of requests in `chunks`, if it is known."""

    def file(self, address: str, content: bytes) -> tuple[float, float]:
        """One file, as `upload`; only some of them are asked, by `servers.py`."""
        raise NotImplementedError

    @abstractmethod
    def idle(self, address: str, seconds: float) -> tuple[float, float]:
        """Keep a link open on which nothing happens."""


class Stopwatch:
    """`with` block whose time counts: `times` are wall and CPU seconds of this process, with all its threads."""

    def __enter__(self) -> Stopwatch:
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return self

    def __exit__(self, *exception: object) -> None:
        self.times = time.perf_counter() - self._wall, time.process_time() - self._cpu


class Mcumgrx(Contestant):
    distribution = "mcumgrx"
    window: int | None = None

    def __init__(self) -> None:
        import mcumgrx
        from mcumgrx.contracts import ImageGroup, UploadOptions
        from mcumgrx.events import Bytes
        from mcumgrx.mcuboot import parse_image
        from mcumgrx.messages.standard import Echo

        self._connect, self._echo, self._group, self._parse = mcumgrx.connect, Echo, ImageGroup, parse_image
        self._options, self._progress = UploadOptions(window=self.window), Bytes

    def echo(self, address: str, count: int) -> tuple[float, float]:
        async def work(client: Any) -> Stopwatch:
            with Stopwatch() as watch:
                for _ in range(count):
                    assert await client.request(self._echo(TEXT)) == TEXT
            return watch

        return self._run(address, work)

    def upload(self, address: str, image: bytes) -> tuple[float, float]:
        parsed = self._parse(image)

        async def work(client: Any) -> Stopwatch:
            group = client.group(self._group)
            speeds: list[Any] = []

            def note(event: object) -> None:
                if isinstance(event, self._progress):
                    speeds.append(event.speed)

            with Stopwatch() as watch:
                assert (await group.upload(parsed, self._options, note)).offset == len(image)
            self.chunks = -(-len(image) // max(1, speeds[-1].chunk_bytes)) + speeds[-1].retransmissions
            self.repeated = speeds[-1].retransmissions
            return watch

        return self._run(address, work)

    def file(self, address: str, content: bytes) -> tuple[float, float]:
        from mcumgrx_plugins.fs.group import FsGroup

        async def work(client: Any) -> Stopwatch:
            with Stopwatch() as watch:
                await client.group(FsGroup).upload(content, FILE)
            return watch

        return self._run(address, work)

    def idle(self, address: str, seconds: float) -> tuple[float, float]:
        async def work(client: Any) -> Stopwatch:
            with Stopwatch() as watch:
                await asyncio.sleep(seconds)
            return watch

        return self._run(address, work)

    def _run(self, address: str, work: Any) -> tuple[float, float]:
        async def run() -> tuple[float, float]:
            async with self._connect(address) as client:
                await client.params()
                for _ in range(WARM_UP):
                    await client.request(self._echo(TEXT))
                watch: Stopwatch = await work(client)
                return watch.times

        return asyncio.run(run())


class OneByOne(Mcumgrx):
    window = 1
    works = ("upload",)


class Smpclient(Contestant):
    distribution = "smpclient"

    def __init__(self) -> None:
        from smpclient import SMPClient
        from smpclient.generics import success
        from smpclient.requests.os_management import EchoWrite
        from smpclient.transport.serial import SMPSerialTransport
        from smpclient.transport.udp import SMPUDPTransport

        class OnPort(SMPUDPTransport):
            """It has no way to name another port than 1337."""

            async def connect(self, address: str, timeout_s: float, port: int = 1337) -> None:
                host, _, given = address.rpartition(":")
                await super().connect(host, timeout_s, int(given))

        self._client, self._success, self._echo = SMPClient, success, EchoWrite
        self._transports = {"serial": SMPSerialTransport, "udp": OnPort}

    def _open(self, address: str) -> AbstractAsyncContextManager[Any]:
        scheme, _, target = address.partition(",")[0].partition(":")
        client: AbstractAsyncContextManager[Any] = self._client(self._transports[scheme](), target)
        return client

    def echo(self, address: str, count: int) -> tuple[float, float]:
        async def work(client: Any) -> Stopwatch:
            with Stopwatch() as watch:
                for _ in range(count):
                    answer = await client.request(self._echo(d=TEXT))
                    assert self._success(answer)
                    assert answer.r == TEXT
            return watch

        return self._run(address, work)

    def upload(self, address: str, image: bytes) -> tuple[float, float]:
        async def work(client: Any) -> Stopwatch:
            with Stopwatch() as watch:
                offsets = [offset async for offset in client.upload(image)]
            assert offsets[-1] == len(image)
            self.chunks = len(offsets)
            return watch

        return self._run(address, work)

    def file(self, address: str, content: bytes) -> tuple[float, float]:
        async def work(client: Any) -> Stopwatch:
            with Stopwatch() as watch:
                async for _ in client.upload_file(content, FILE):
                    pass
            return watch

        return self._run(address, work)

    def idle(self, address: str, seconds: float) -> tuple[float, float]:
        async def work(client: Any) -> Stopwatch:
            with Stopwatch() as watch:
                await asyncio.sleep(seconds)
            return watch

        return self._run(address, work)

    def _run(self, address: str, work: Any) -> tuple[float, float]:
        async def run() -> tuple[float, float]:
            async with self._open(address) as client:
                for _ in range(WARM_UP):
                    await client.request(self._echo(d=TEXT))
                watch: Stopwatch = await work(client)
                return watch.times

        return asyncio.run(run())


class Toolkit(Contestant):
    """Written in Rust; its Python interface blocks."""

    distribution = "mcumgr-toolkit"

    def __init__(self) -> None:
        from mcumgr_toolkit import MCUmgrClient

        self._client = MCUmgrClient

    @contextmanager
    def _open(self, address: str) -> Iterator[Any]:
        scheme, _, target = address.partition(",")[0].partition(":")
        if scheme == "udp":
            host, _, port = target.rpartition(":")
            opened = self._client.udp(host, int(port))
        else:
            opened = self._client.serial(target)
        with opened as client:
            client.use_auto_frame_size()
            for _ in range(WARM_UP):
                client.os_echo(TEXT)
            yield client

    def echo(self, address: str, count: int) -> tuple[float, float]:
        with self._open(address) as client, Stopwatch() as watch:
            for _ in range(count):
                assert client.os_echo(TEXT) == TEXT
        return watch.times

    def upload(self, address: str, image: bytes) -> tuple[float, float]:
        told: list[int] = []
        with self._open(address) as client, Stopwatch() as watch:
            client.image_upload(image, progress=lambda done, total: told.append(done))
        self.chunks = len(told)
        return watch.times

    def file(self, address: str, content: bytes) -> tuple[float, float]:
        with self._open(address) as client, Stopwatch() as watch:
            client.fs_file_upload(FILE, content)
        return watch.times

    def idle(self, address: str, seconds: float) -> tuple[float, float]:
        with self._open(address), Stopwatch() as watch:
            time.sleep(seconds)
        return watch.times


class Bare(Contestant):
    """No client: the bytes of one request, and the answer read until it is whole."""

    works = ("echo", "upload")

    def __init__(self) -> None:
        import cbor2

        from mcumgrx.protocol.codec import build_message
        from mcumgrx.protocol.console import ConsoleFraming

        self._encode, self._decode, self._build, self._framing = cbor2.dumps, cbor2.loads, build_message, ConsoleFraming
        self._echo = build_message(2, 1, 0, 0, 7, 0, b"\xa1ad\x70" + TEXT.encode())

    def echo(self, address: str, count: int) -> tuple[float, float]:
        with self._open(address) as ask:
            for _ in range(WARM_UP):
                ask(self._echo)
            with Stopwatch() as watch:
                for _ in range(count):
                    ask(self._echo)
        return watch.times

    def upload(self, address: str, image: bytes) -> tuple[float, float]:
        chunk_bytes = 1472 - 26 if address.startswith("udp:") else 380 - 26
        with self._open(address) as ask, Stopwatch() as watch:
            offset = self.chunks = 0
            while offset < len(image):
                first = {"len": len(image)} if offset == 0 else {}
                data = image[offset : offset + chunk_bytes - (8 if offset == 0 else 0)]
                payload = self._encode({"off": offset, "data": data, **first})
                answer = ask(self._build(2, 1, 0, 1, self.chunks % 256, 1, payload))
                offset = self._decode(answer[8:])["off"]
                self.chunks += 1
        return watch.times

    @contextmanager
    def _open(self, address: str) -> Iterator[Callable[[bytes], bytes]]:
        """A function that sends a message and returns the answer."""
        scheme, _, target = address.partition(":")
        if scheme == "udp":
            host, _, number = target.rpartition(":")
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                link.settimeout(5)
                link.connect((host, int(number)))

                def ask(message: bytes) -> bytes:
                    link.send(message)
                    return link.recv(4096)

                yield ask
            return
        import tty

        port = os.open(target, os.O_RDWR | os.O_NOCTTY)
        framing = self._framing()

        def ask_port(message: bytes) -> bytes:
            os.write(port, framing.encode(message)[0])
            line = os.read(port, 4096)
            while not line.endswith(b"\n"):
                line += os.read(port, 4096)
            return binascii.a2b_base64(line[2:])[2:]

        try:
            tty.setraw(port)
            yield ask_port
        finally:
            os.close(port)

    def idle(self, address: str, seconds: float) -> tuple[float, float]:
        raise NotImplementedError


CONTESTANTS: dict[str, type[Contestant]] = {
    "mcumgrx": Mcumgrx,
    "mcumgrx, 1": OneByOne,
    "smpclient": Smpclient,
    "mcumgr-toolkit": Toolkit,
    "bare": Bare,
}


def work_off(name: str) -> None:
    """The process of one contestant: an order a line on standard input, its times a line on standard output."""
    import logging

    logging.disable(logging.CRITICAL)
    try:
        contestant = CONTESTANTS[name]()
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if order["work"] == "upload":
            from mcumgrx.sim.images import build_image

            # Another one each time, so that none goes on where one before has failed.
            amount: Any = build_image(f"1.1.{random.randrange(65536)}", payload_size=order["amount"])
        elif order["work"] == "file":
            amount = random.Random(5).randbytes(order["amount"])
        else:
            amount = order["amount"]
        try:
            wall_s, cpu_s = getattr(contestant, order["work"])(order["address"], amount)
        except Exception as error:  # whatever theirs raise
            found: dict[str, Any] = {"failed": f"{type(error).__name__}: {error}"[:120]}
        else:
            found = {"wall_s": wall_s, "cpu_s": cpu_s, "chunks": contestant.chunks, "repeated": contestant.repeated}
        print(json.dumps(found), flush=True)


class Worker:
    """A contestant's process, seen from outside."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.works = CONTESTANTS[name].works
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--contestant", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.missing: str | None = self._read().get("missing")

    def do(self, work: str, address: str, amount: float) -> dict[str, Any]:
        """Its times, or `failed` with the reason."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"work": work, "address": address, "amount": amount}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"error: the process of {self.name} has ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


# --- the device -----------------------------------------------------------------------------------------------------


@contextmanager
def device(link: str, delay_ms: int) -> Iterator[str]:
    """A served device; gives its address."""
    options = f"sim:bench,buf_size={BUFFERS[link]},slot_size={SLOT_BYTES},latency={delay_ms / 2000}"
    words = [sys.executable, "-m", "mcumgrx", "sim", "serve", options, "--instant", "--json"]
    process = subprocess.Popen(
        [*words, "--pty"] if link == "pty" else [*words, "--udp", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stdout is not None
    try:
        event = json.loads(process.stdout.readline() or "{}")
        if event.get("event") != "listening":
            raise SystemExit(f"error: the simulated device cannot be served: {event}")
        yield event["address"]
    finally:
        process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)
        process.communicate(timeout=20)


# --- the run --------------------------------------------------------------------------------------------------------


def measure(workers: list[Worker], rounds: int, scale: float, idle_s: float) -> list[dict[str, Any]]:
    """Every measurement, a dictionary each. `scale` shortens the batches."""
    found: list[dict[str, Any]] = []
    links = ["pty", "udp"] if os.name == "posix" else ["udp"]
    shuffle = random.Random(5).shuffle
    with ExitStack() as stack:
        addresses = {
            (link, delay_ms): stack.enter_context(device(link, delay_ms)) for link in links for delay_ms in DELAYS_MS
        }
        for _ in range(rounds):
            for (link, delay_ms), address in addresses.items():
                echoes = max(10, int(ECHOES[delay_ms] * scale))
                size = max(4_000, int(UPLOAD_BYTES[link][delay_ms] * scale))
                turns = [
                    (worker, work, amount)
                    for worker in workers
                    for work, amount in (("echo", echoes), ("upload", size))
                    if work in worker.works
                ]
                shuffle(turns)
                for worker, work, amount in turns:
                    times = patiently(worker, work, address, amount)
                    place = {"link": link, "delay_ms": delay_ms, "work": work, "of": worker.name, "amount": amount}
                    found.append({**place, **times})
        for link in links:
            for worker in workers:
                if "idle" in worker.works:
                    times = worker.do("idle", addresses[link, 0], idle_s)
                    found.append({"link": link, "delay_ms": 0, "work": "idle", "of": worker.name, **times})
    return found


def patiently(worker: Worker, work: str, address: str, amount: float) -> dict[str, Any]:
    """A batch, once more where it fails: some give a chunk up after 2.5 s, which a busy machine can take."""
    for _ in range(ATTEMPTS):
        times = worker.do(work, address, amount)
        if "failed" not in times:
            return times
        print(f"{worker.name}, {work} over {address}: {times['failed']}", file=sys.stderr)
    raise SystemExit(f"error: {worker.name} has failed {ATTEMPTS} times")


def summary(found: list[dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """A row for each link, delay and kind of work: what the median batch of each contestant did."""
    rows: list[dict[str, Any]] = []
    for link, delay_ms, work in dict.fromkeys(place_of(one) for one in found):
        row: dict[str, Any] = {"link": link, "delay_ms": delay_ms, "work": work, "results": {}}
        for name in names:
            batches = [one for one in found if place_of(one) == (link, delay_ms, work) and one["of"] == name]
            if not batches:
                continue
            if work == "idle":
                row["results"][name] = {"cpu_percent": round(100 * batches[0]["cpu_s"] / batches[0]["wall_s"], 2)}
                continue
            rate = statistics.median(one["amount"] / one["wall_s"] for one in batches)
            cpu_s = statistics.median(one["cpu_s"] / one["amount"] for one in batches)
            if work == "echo":
                row["results"][name] = {"requests_per_s": round(rate, 1), "cpu_us_per_request": round(1e6 * cpu_s, 1)}
            else:
                row["results"][name] = {"kb_per_s": round(rate / 1000, 1), "cpu_us_per_kb": round(1e9 * cpu_s, 1)}
                if all(one["chunks"] for one in batches):
                    cpu_s = statistics.median(one["cpu_s"] / one["chunks"] for one in batches)
                    row["results"][name]["cpu_us_per_chunk"] = round(1e6 * cpu_s, 1)
        row["gain"] = {} if work == "idle" else _gain([one for one in found if place_of(one) == (link, delay_ms, work)])
        rows.append(row)
    return rows


def place_of(one: dict[str, Any]) -> tuple[str, int, str]:
    return one["link"], one["delay_ms"], one["work"]


def _gain(batches: list[dict[str, Any]]) -> dict[str, float]:
    """Of mcumgrx over `smpclient`, in time and in CPU time; nothing where one of them is missing."""
    ours, theirs = ([one for one in batches if one["of"] == name] for name in ("mcumgrx", "smpclient"))
    if not ours or not theirs:
        return {}
    pairs = list(zip(ours, theirs, strict=True))
    return {
        key: round(statistics.median(their[key] / our[key] for our, their in pairs), 2) for key in ("wall_s", "cpu_s")
    }


# Key of a value → its heading, and which gain belongs to it.
UNITS = {
    "requests_per_s": ("requests/s (echo)", "wall_s"),
    "cpu_us_per_request": ("CPU per request (echo), us", "cpu_s"),
    "kb_per_s": ("KB/s (image upload)", "wall_s"),
    "cpu_us_per_kb": ("CPU per KB (image upload), us", "cpu_s"),
    "cpu_us_per_chunk": ("CPU per chunk (image upload), us", ""),
    "cpu_percent": ("CPU of an idle connection, %", ""),
}


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """The bars, and whether they hold here."""
    lines = []
    for row in rows:
        if row["work"] != "upload" or row["delay_ms"]:
            continue
        ours, bar = row["results"]["mcumgrx"], RATE_BARS[row["link"]]
        lines.append(
            f"{row['link']} without delay: {ours['kb_per_s'] / 1000:.2f} MB/s, at least {bar / 1e6:g} wanted: "
            f"{'held' if ours['kb_per_s'] * 1000 >= bar else 'missed'}"
        )
        theirs = row["results"].get("smpclient")
        if theirs is not None:
            share = ours["cpu_us_per_chunk"] / theirs["cpu_us_per_chunk"]
            toolkit = row["results"].get("mcumgr-toolkit")
            beside = (
                f"; for a KB {ours['cpu_us_per_kb'] / toolkit['cpu_us_per_kb']:.2f} of mcumgr-toolkit's"
                if toolkit is not None
                else ""
            )
            lines.append(
                f"{row['link']}: CPU for a chunk {share:.2f} of smpclient's, at most {CPU_BAR:g} wanted: "
                f"{'held' if share <= CPU_BAR else 'missed'}{beside}"
            )
    return lines


def show(found: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    print(f"Python {found['python']} on {found['platform']}; {versions}; {found['rounds']} interleaved rounds")
    names = [name for name in CONTESTANTS if any(name in row["results"] for row in found["results"])]
    for key, (title, gain) in UNITS.items():
        print(f"\n{title:<34}" + "".join(f"{name:>16}" for name in names) + ("    gain" if gain else ""))
        for row in found["results"]:
            values = {name: result[key] for name, result in row["results"].items() if key in result}
            if not values:
                continue
            delay = "" if key == "cpu_percent" else f", {row['delay_ms']} ms"
            cells = "".join(f"{values[name]:>16,}" if name in values else f"{'':>16}" for name in names)
            ratio = f"{row['gain'][gain]:>7.2f}x" if gain in row["gain"] else ""
            print(f"  {row['link'] + delay:<32}{cells}{ratio}".rstrip())
    print()
    for line in found["verdicts"]:
        print(line)
    for name, why in found["missing"].items():
        print(f"\n{name} is left out: {why}\nhint: pip install 'mcumgrx[bench]'")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure mcumgrx beside other clients, against the simulated device.")
    parser.add_argument("--quick", action="store_true", help="a single short round, for a first look")
    parser.add_argument("--rounds", type=int, help="rounds, of which the median counts [default: 5]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--contestant", choices=tuple(CONTESTANTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant is not None:
        work_off(arguments.contestant)
        return
    rounds = arguments.rounds if arguments.rounds is not None else 1 if arguments.quick else 5
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    workers = [Worker(name) for name in CONTESTANTS]
    try:
        present = [worker for worker in workers if worker.missing is None]
        scale, idle_s = (0.15, 0.3) if arguments.quick else (1.0, 3.0)
        names = [worker.name for worker in present]
        results = summary(measure(present, rounds, scale, idle_s), names)
    finally:
        for worker in workers:
            worker.close()
    versions: dict[str, str] = {}
    for worker in present:
        distribution = CONTESTANTS[worker.name].distribution
        if distribution is not None:
            try:
                versions[distribution] = version(distribution)
            except PackageNotFoundError:
                versions[distribution] = "unknown"
    found = {
        "benchmark": "peers",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "missing": {worker.name: worker.missing for worker in workers if worker.missing is not None},
        "rounds": rounds,
        "results": results,
        "verdicts": verdicts(results),
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
