"""What a chunk of an upload costs us, stage by stage, and how much memory transfers take.

::

    python benchmarks/cpu.py [--quick] [--rounds N] [--json]
    python benchmarks/cpu.py --before CHECKOUT [--quick] [--rounds N] [--json]

*Stages.* CPU time for a chunk, its answer included, in microseconds: console lines with messages of 380 bytes, and
datagrams of 1472. Each of these is measured by itself:

* *plan*: which chunk is next, and what its answer means;
* *message*: the chunk as bytes with a header, and the offset in the answer;
* *framing*: the message as it goes over the link, and the answer as it comes;
* *exchange*: sequence numbers, and which request an answer belongs to;
* *window*: whether to send, and the round trips.

A whole upload over a link in memory, where every answer is there at once, takes more than their sum: the rest is
*engine and client*. The same upload over UDP, to a device in another process, takes more than that again: the
*transport*, its system calls and the turns of the event loop, of which one that wakes a task is measured by itself.
What the other end of the link in memory costs is measured as well, and left out.

*Allocations.* The blocks of memory that Python is asked for in each of these stages, for a chunk. For that, nothing is
given back for a while: what there is more of afterwards is all that was asked for. Blocks that grow in place, and
objects that Python keeps to use them again, count for nothing. Beside it, by how many blocks a chunk leaves more behind
than it found, between the first and the last quarter of an upload: nothing may pile up.

*Before.* With `--before` only this is measured: what a chunk of a whole upload costs in another checkout of this
repository, whose codec is built, and in this one, over UDP (datagrams of 1472 bytes) and a pseudo-terminal (console
lines, messages of 380). They take turns, so that what else the machine does meets both; the median of the quotients
counts.

*Memory.* Uploads of files of several sizes, opened by `load_image`, over the link in memory: the peak of what Python
has allocated, the image included, and the blocks that are left after it. Then whole transfers over UDP in a process of
their own: how much its anonymous memory (Linux: `RssAnon`, without mapped files) grows over that of a connected client
that does nothing and has not opened the file. Files of up to 4 MiB are read at once, larger ones stay on the disk. KB
are 1000 bytes, MB 1000 KB.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cbor2
from many import devices

import mcumgrx
from mcumgrx import __version__
from mcumgrx.bulk import upload, window_for
from mcumgrx.client import Client
from mcumgrx.contracts import ImageGroup
from mcumgrx.events import Event
from mcumgrx.link.table import Table
from mcumgrx.mcuboot import load_image
from mcumgrx.messages.message import Reply
from mcumgrx.messages.standard import UploadProgress
from mcumgrx.protocol.codec import IMPLEMENTATION, build_message
from mcumgrx.protocol.console import ConsoleFraming
from mcumgrx.protocol.framing import DatagramFraming, Framing
from mcumgrx.sim.images import build_image
from mcumgrx.transfer.plan import Chunk, ImageUpload, Source, UploadPlan
from mcumgrx.transfer.window import Window
from mcumgrx.transport import Flow, Limits, Transport

MIB = 1024 * 1024
WINDOW = 3
MEMORY_BAR = 20e6

# Framing, and bytes of the largest message.
LINKS: dict[str, tuple[Callable[[], Framing], int]] = {
    "console 380": (ConsoleFraming, 380),
    "datagram 1472": (DatagramFraming, 1472),
}
SHA = bytes(32)


def answer_to(message: bytes, offset: int) -> tuple[bytes, int]:
    """The answer to a chunk, and the offset behind it. `offset` is where the chunk begins."""
    if offset == 0:
        taken = len(cbor2.loads(message[8:])["data"])
    else:
        # All before the data: header, map, "off" and its number, "data" and its length.
        size = 1 if offset < 24 else 2 if offset < 256 else 3 if offset < 65536 else 5
        rest = len(message) - (8 + 1 + 4 + size + 5)
        taken = rest - (1 if rest <= 24 else 2 if rest <= 257 else 3)
    offset += taken
    payload = b"\xbf\x63off\x1a" + offset.to_bytes(4, "big") + b"\xff"
    return build_message(3, 1, 0, 1, message[6], 1, payload), offset


class MemoryLink(Transport):
    """Whatever is sent is a chunk, and is answered at once."""

    def __init__(self, framing: Framing, message_bytes: int) -> None:
        self._framing = framing
        self._limits = Limits(safe_message=message_bytes)
        self._offset = 0
        self._inbox: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._console = isinstance(framing, ConsoleFraming)
        self._other_end = ConsoleFraming(ops=0xFF)

    async def open(self, timeout_s: float) -> None: ...

    async def close(self) -> None: ...

    async def send(self, writes: Sequence[bytes]) -> None:
        self.offer(writes)

    def offer(self, writes: Sequence[bytes]) -> bool:
        self._inbox.append(self.answer(writes[0]))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        return True

    def answer(self, write: bytes) -> bytes:
        """What the other end does."""
        if not self._console:
            answer, self._offset = answer_to(write, self._offset)
            return answer
        message = build_message(*self._other_end.feed(write)[0])
        answer, self._offset = answer_to(message, self._offset)
        return self._other_end.encode(answer)[0]

    async def receive(self) -> bytes:
        if not self._inbox:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._inbox.popleft()

    @property
    def flow(self) -> Flow:
        return Flow(strict=False)

    @property
    def limits(self) -> Limits:
        return self._limits

    def framing(self) -> Framing:
        return self._framing


def plan_of(source: Source, message_bytes: int) -> UploadPlan:
    return UploadPlan(source, ImageUpload(SHA), message_bytes=message_bytes)


async def _nothing_to_settle() -> bool:
    raise SystemExit("error: an answer was lost on a link that loses none")


async def upload_in_memory(source: Source, name: str) -> int:
    """Returns the number of chunks."""
    framing, message_bytes = LINKS[name]
    async with Client(MemoryLink(framing(), message_bytes)) as client:
        client.profile.proven_bytes = message_bytes
        window: Window[Any] = Window(WINDOW, strict=False)
        await upload(client, plan_of(source, message_bytes), window=window, settled=_nothing_to_settle)
        return window.numbers


# --- stages ---------------------------------------------------------------------------------------------------------


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def works_of(name: str, source: bytes) -> tuple[int, dict[str, Callable[[], None]]]:
    """The number of chunks, and the work of each stage for all of them."""
    make_framing, message_bytes = LINKS[name]
    chunks: list[Chunk] = []

    def plan() -> None:
        chunks.clear()
        planned = plan_of(source, message_bytes)
        while not planned.done:
            chunk = planned.next()
            assert chunk is not None
            chunks.append(chunk)
            planned.answered(chunk, UploadProgress(chunk.end))

    plan()
    messages = [chunk.command.request().encode(2, number % 256) for number, chunk in enumerate(chunks)]
    requests = [chunk.command.request() for chunk in chunks]
    writes = [make_framing().encode(message)[0] for message in messages]
    link = MemoryLink(make_framing(), message_bytes)
    answers = [link.answer(write) for write in writes]
    replies = [Reply(*raw) for answer in answers for raw in make_framing().feed(answer)]

    def message() -> None:
        for number, (chunk, reply) in enumerate(zip(chunks, replies, strict=True)):
            chunk.command.request().encode(2, number % 256)
            chunk.command.result(reply)

    def encode() -> None:
        for number, request in enumerate(requests):
            request.encode(2, number % 256)

    def framing() -> None:
        used = make_framing()
        for one, answer in zip(messages, answers, strict=True):
            used.encode(one)
            used.feed(answer)

    def exchange() -> None:
        used = Table(make_framing())
        for request, answer in zip(requests, answers, strict=True):
            used.open(request)
            assert used.receive(answer)

    def window() -> None:
        used: Window[int] = Window(WINDOW, strict=False)
        now = 0.0
        for number in range(len(chunks)):
            assert used.wait_s(now) == 0.0
            flight = used.sent(number, now)
            now += 0.001
            used.answered(flight, now)
            used.advanced(now)

    def event_loop() -> None:
        asyncio.run(_turns(len(chunks)))

    def other_end() -> None:
        used = MemoryLink(make_framing(), message_bytes)
        for write in writes:
            used.answer(write)

    def whole() -> None:
        asyncio.run(upload_in_memory(source, name))

    works = (plan, message, encode, framing, exchange, window, event_loop, other_end, whole)
    return len(chunks), {work.__name__: work for work in works}


def by_stage(cost: dict[str, float]) -> dict[str, float]:
    """What each work costs for a chunk, taken apart where one contains another."""
    cost = dict(cost)
    cost["exchange"] = max(0.0, cost["exchange"] - cost.pop("encode") - cost["framing"])
    known = sum(cost[key] for key in ("plan", "message", "framing", "exchange", "window"))
    total = cost.pop("whole") - cost.pop("other_end")
    turn = cost.pop("event_loop")
    return {**cost, "engine and client": total - known, "in memory": total, "a turn of the loop": turn}


def stages(name: str, source: bytes, rounds: int) -> dict[str, float]:
    """Microseconds a chunk, by stage, but for the transport."""
    chunks, works = works_of(name, source)
    times: dict[str, list[float]] = {key: [] for key in works}
    for _ in range(rounds):
        for key, work in works.items():
            times[key].append(1e6 * cpu_of(work) / chunks)
    return by_stage({key: statistics.median(taken) for key, taken in times.items()})


async def _turns(count: int) -> None:
    loop = asyncio.get_running_loop()
    for _ in range(count):
        future: asyncio.Future[None] = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future


async def upload_over_udp(address: str, source: bytes) -> float:
    """Microseconds a chunk."""
    async with mcumgrx.connect(address) as client:
        await client.params()
        client.profile.proven_bytes = 1472
        window = window_for(client)
        begin = time.process_time()
        plan = UploadPlan(source, ImageUpload(hashlib.sha256(source).digest()), message_bytes=1472)
        await upload(client, plan, window=window, settled=_nothing_to_settle)
        return 1e6 * (time.process_time() - begin) / window.numbers


# --- another checkout -----------------------------------------------------------------------------------------------

SERVED: dict[str, tuple[tuple[str, ...], int]] = {"UDP": (("--udp", "0"), 2048), "pty": (("--pty", "--baud", "0"), 384)}


def chunk_cost(checkout: Path, address: str, size: int) -> float:
    """Microseconds for a chunk of an upload of `size` bytes, by the code in `checkout`, in a process of its own."""
    path = os.pathsep.join(str(checkout / part) for part in (".", "plugins"))
    words = [sys.executable, str(Path(__file__).with_name("_chunks.py")), address, str(size)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        raise SystemExit(f"error: the upload by {checkout} failed: {done.stderr.strip()}")
    found = json.loads(done.stdout)
    if not Path(found["from"]).resolve().is_relative_to(checkout.resolve()):
        raise SystemExit(f"error: {found['from']} was measured, and not {checkout}")
    return float(found["us"])


def compared(before: Path, size: int, rounds: int) -> dict[str, dict[str, float]]:
    """For each link: the medians of both, and of their quotients."""
    here = Path(__file__).resolve().parent.parent
    found = {}
    for name, (link, buffers) in SERVED.items():
        if "--pty" in link and sys.platform == "win32":
            continue
        with devices(1, "--instant", link=link, buf_size=buffers, slot_size=4 * MIB) as (address,):
            pairs = [(chunk_cost(before, address, size), chunk_cost(here, address, size)) for _ in range(rounds)]
        found[name] = {
            "before_us": statistics.median(one for one, _ in pairs),
            "now_us": statistics.median(other for _, other in pairs),
            "quotient": statistics.median(other / one for one, other in pairs),
        }
    return found


def show_compared(found: dict[str, dict[str, float]]) -> None:
    print("CPU for a chunk of an upload, us")
    for name, row in found.items():
        print(f"  {name:<5}{row['before_us']:>8.1f} before,{row['now_us']:>8.1f} now: {row['quotient'] - 1:+.1%}")


# --- allocations ----------------------------------------------------------------------------------------------------


class _Allocator(ctypes.Structure):
    """CPython's `PyMemAllocatorEx`."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("ctx", "malloc", "calloc", "realloc", "free")]


_DOMAINS = (1, 2)  # PYMEM_DOMAIN_MEM, PYMEM_DOMAIN_OBJ


def blocks_of(work: Callable[[], object]) -> int:
    """How many blocks are asked for, given back or not."""
    api = ctypes.pythonapi
    usual = [_Allocator() for _ in _DOMAINS]
    for domain, allocator in zip(_DOMAINS, usual, strict=True):
        api.PyMem_GetAllocator(domain, ctypes.byref(allocator))
    # Any function that does nothing with its arguments will do.
    nothing = ctypes.cast(api.Py_IsInitialized, ctypes.c_void_p).value
    keeping = [_Allocator(one.ctx, one.malloc, one.calloc, one.realloc, nothing) for one in usual]

    def use(allocators: list[_Allocator]) -> None:
        for domain, allocator in zip(_DOMAINS, allocators, strict=True):
            api.PyMem_SetAllocator(domain, ctypes.byref(allocator))

    gc.collect()
    gc.disable()
    use(keeping)
    try:
        before = sys.getallocatedblocks()
        work()
        return sys.getallocatedblocks() - before
    finally:
        use(usual)
        gc.enable()


def allocations(name: str) -> dict[str, float]:
    """Blocks asked for a chunk, by stage."""
    counts: list[tuple[int, dict[str, int]]] = []
    for size in (100_000, 200_000):  # the difference is without what is made once
        chunks, works = works_of(name, bytes(size))
        for work in works.values():
            work()  # what is made at first use
        counts.append((chunks, {key: blocks_of(work) for key, work in works.items()}))
    (fewer, small), (more, large) = counts
    return by_stage({key: (large[key] - small[key]) / (more - fewer) for key in small})


class _Sampled:
    """A source that counts the blocks there are, at a quarter and at three quarters of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._chunks = 0
        self.samples: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, key: slice, /) -> bytes:
        self._chunks += 1
        if key.start >= (1, 3, 5)[len(self.samples)] * len(self) / 4:
            gc.collect()
            self.samples.append((self._chunks, sys.getallocatedblocks()))
        return self._data[key]


def retained(name: str) -> float:
    """Blocks that a chunk leaves behind, as long as the upload lasts."""
    source = _Sampled(bytes(4_000_000))
    asyncio.run(upload_in_memory(source, name))
    (first, before), (last, after) = source.samples
    return (after - before) / (last - first)


# --- memory ---------------------------------------------------------------------------------------------------------


def write_image(path: Path, size: int) -> int:
    """An image that fits a slot of `size` bytes, with the trailer and the sector that a swap needs."""
    path.write_bytes(build_image("1.1.0", payload_size=size - 65536))
    return path.stat().st_size


def memory_of(size: int) -> dict[str, float]:
    """Of an upload over the link in memory, from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.bin"
        write_image(path, size)
        asyncio.run(upload_in_memory(bytes(100_000), "datagram 1472"))  # what is made once
        gc.collect()
        blocks = sys.getallocatedblocks()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        asyncio.run(upload_in_memory(load_image(path).data, "datagram 1472"))
        peak = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        gc.collect()
        return {"bytes": size, "peak_kb": peak / 1000, "blocks_left": sys.getallocatedblocks() - blocks}


def anonymous_kb() -> float:
    """This process's memory without mapped files, in KB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1.024
    raise SystemExit("error: this system does not tell RssAnon")


async def transfer_once(what: str, address: str, path: str) -> dict[str, Any]:
    """`upload` the image in `path`, or `download` the device's large file into it."""
    highest = 0.0

    def note(event: Event) -> None:
        nonlocal highest
        highest = max(highest, anonymous_kb())

    async with mcumgrx.connect(address) as client:
        await client.params()
        idle = anonymous_kb()
        begin = time.perf_counter()
        if what == "upload":
            await client.group(ImageGroup).upload(load_image(path), progress=note)
        else:
            from mcumgrx_plugins.fs.group import FsGroup

            with open(path, "wb") as file:  # noqa: ASYNC230 - nothing else goes on here
                await client.group(FsGroup).download("/big/file.bin", file, progress=note)
        seconds = time.perf_counter() - begin
        highest = max(highest, anonymous_kb())
    return {"growth_kb": highest - idle, "idle_kb": idle, "seconds": seconds}


def transfers(upload_bytes: Sequence[int], download_bytes: int) -> list[dict[str, Any]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.bin"
        for what, size in [*(("upload", size) for size in upload_bytes), ("download", download_bytes)]:
            slot = size if what == "upload" else MIB
            if what == "upload":
                size = write_image(path, size)
            with devices(1, "--instant", slot_size=slot, big_file=download_bytes) as (address,):
                words = [sys.executable, __file__, "--transfer", what, address, str(path)]
                done = subprocess.run(words, capture_output=True, text=True)
            row: dict[str, Any] = {"what": what, "bytes": size}
            if done.returncode:
                row["failed"] = done.stderr.strip().rpartition("\n")[2]
            else:
                row.update(json.loads(done.stdout))
            found.append(row)
    return found


# --- the run --------------------------------------------------------------------------------------------------------


def show(found: dict[str, Any]) -> None:
    print(
        f"mcumgrx {__version__} (codec: {IMPLEMENTATION}), Python {platform.python_version()} on {platform.platform()}"
    )
    print(f"\n{'CPU for a chunk, us':<22}" + "".join(f"{name:>16}" for name in found["stages"]))
    for key in next(iter(found["stages"].values())):
        print(f"  {key.replace('_', ' '):<20}" + "".join(f"{row[key]:>16.1f}" for row in found["stages"].values()))
    total, plain = found["udp_us"], found["stages"]["datagram 1472"]["in memory"]
    print(f"  {'transport, UDP':<20}{'':>16}{total - plain:>16.1f}")
    print(f"  {'over UDP':<20}{'':>16}{total:>16.1f}")
    print(f"\n{'blocks for a chunk':<22}" + "".join(f"{name:>16}" for name in found["blocks"]))
    for key in next(iter(found["blocks"].values())):
        print(f"  {key.replace('_', ' '):<20}" + "".join(f"{row[key]:>16.1f}" for row in found["blocks"].values()))
    print("\nmemory of an upload in memory, the image included")
    for row in found["memory"]:
        print(f"  {row['bytes'] / MIB:>4g} MiB: peak {row['peak_kb']:,.0f} KB, {row['blocks_left']} blocks left")
    print(f"\nmemory of whole transfers over UDP, beyond the idle client; at most {MEMORY_BAR / 1e6:g} MB wanted")
    for row in found["transfers"]:
        what = f"  {row['what']:<9}{row['bytes'] / MIB:>5.1f} MiB: "
        if "failed" in row:
            print(f"{what}failed: {row['failed']}")
            continue
        held = "held" if row["growth_kb"] * 1000 <= MEMORY_BAR else "missed"
        rate = row["bytes"] / row["seconds"] / 1e6
        print(f"{what}{row['growth_kb'] / 1000:,.1f} MB over {row['idle_kb'] / 1000:,.1f}, {rate:.1f} MB/s: {held}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what a chunk of an upload costs, and what memory it takes.")
    parser.add_argument("--quick", action="store_true", help="fewer chunks and rounds, smaller transfers")
    parser.add_argument("--rounds", type=int, help="rounds, of which the median counts [default: 5]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="compare uploads with those of this checkout")
    parser.add_argument("--transfer", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.transfer is not None:
        print(json.dumps(asyncio.run(transfer_once(*arguments.transfer))))
        return
    found: dict[str, Any]
    rounds = arguments.rounds if arguments.rounds is not None else 2 if arguments.quick else 5
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    size = 500_000 if arguments.quick else 2_000_000 if arguments.before is None else 3_900_000
    if arguments.before is not None:
        found = {"benchmark": "cpu", "rounds": rounds, "before": compared(arguments.before, size, rounds)}
        print(json.dumps(found, indent=2)) if arguments.json else show_compared(found["before"])
        return
    source = build_image("1.1.0", payload_size=size)
    with devices(1, "--instant", slot_size=4 * MIB) as (address,):
        udp = [asyncio.run(upload_over_udp(address, source)) for _ in range(rounds)]
    found = {
        "benchmark": "cpu",
        "codec": IMPLEMENTATION,
        "rounds": rounds,
        "stages": {name: stages(name, source, rounds) for name in LINKS},
        "udp_us": statistics.median(udp),
        "blocks": {name: {**allocations(name), "left behind": retained(name)} for name in LINKS},
        "memory": [memory_of(size * MIB) for size in ((1, 8) if arguments.quick else (1, 4, 16, 64))],
        "transfers": [],
    }
    if sys.platform == "linux":
        uploads, download = ((1, 8), 4) if arguments.quick else ((1, 4, 16, 64), 512)
        found["transfers"] = transfers([size * MIB for size in uploads], download * MIB)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
