"""How fast images go over Bluetooth LE, beside `smpclient`, both through bleak: no radio, but a link that takes time.

::

    python benchmarks/ble.py [--quick] [--rounds N] [--json]

Needs the peers: ``pip install 'mcumgrx[bench]'``. What is missing is left out, and said to be.

There are two stacks between client and device:

* *BlueZ*: bleak's own backend for it, a private dbus-daemon, and an emulated BlueZ (`tests/ble/bluez.py`), which takes
  every write at once, as the real one does. Linux only, with dbus-daemon installed.
* *Bumble*: Bumble's host under bleak (`tests/ble/bumble_backend.py`), HCI over a loopback socket, virtual controllers.

Both clients are processes of their own, so their CPU time is theirs alone: of the client, bleak, and D-Bus messages or
Bumble's host, which both of them need. The other processes have emulation, controllers, GATT server and device.
Opening, the question for the buffers and three echoes come before the clock. smpclient is not changed; over Bumble,
bleak is told within its process that this backend is the system's.

The link carries 4 packets of 251 bytes each way in each connection interval, and has an MTU of 498. On BlueZ's link
bytes flow evenly and arrive one interval later; on Bumble's they wait for the next connection event. The device has 4
buffers and a flash that takes no time:

* *one write*: buffers of 384 bytes, Zephyr's default, and no reassembly: a message is one write.
* *reassembly*: buffers of 2048 bytes; a message takes several writes.

Both clients upload with their defaults. *link* is what the link could carry if nothing had to be waited for. KB are
1000 bytes. Contestants take turns in every round; *gain* is the median of the ratios to `smpclient` within a round,
more than 1 where mcumgrx is the better one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import shutil
import socket
import statistics
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

from peers import TEXT, WARM_UP, Stopwatch

# Where the emulations are.
sys.path.insert(1, str(Path(__file__).resolve().parent.parent))

NAME = "bench"
MTU = 498
PACKETS = 4  # in each connection interval
PACKET_BYTES = 244  # of attribute values in a packet of the link layer
INTERVALS_MS = (7.5, 15.0, 30.0, 45.0)
BUFFERS = {"one write": 384, "reassembly": 2048}
STACKS = ("BlueZ", "Bumble")

# Bytes of an upload times the interval in milliseconds: eight seconds for one chunk at a time, so that the first few,
# before which nobody knows how much there may be on the way, do not decide.
UPLOAD_BYTES_MS = {"one write": 1_000_000, "reassembly": 3_000_000}


# --- the contestants, each in a process of its own ------------------------------------------------------------------


class Contestant(ABC):
    """Uploads over a stack of bleak: the system's own, or the backends that it is given."""

    @abstractmethod
    async def upload(self, stack: Any, image: bytes) -> tuple[float, float]:
        """One image; how many seconds it took by the clock and of the processor."""


class Mcumgrx(Contestant):
    def __init__(self) -> None:
        from mcumgrx.address import Address
        from mcumgrx.contracts import ImageGroup
        from mcumgrx.mcuboot import parse_image
        from mcumgrx.messages.standard import Echo
        from mcumgrx.registry import default_registry
        from mcumgrx.session import SessionDevice
        from mcumgrx_plugins.ble.transport import BleTransport

        address = Address("ble", NAME)
        self._device = lambda stack: SessionDevice(address, BleTransport(address, stack=stack), default_registry())
        self._echo, self._group, self._parse = Echo, ImageGroup, parse_image

    async def upload(self, stack: Any, image: bytes) -> tuple[float, float]:
        parsed = self._parse(image)
        device = self._device(stack)
        try:
            client = await device.connect()
            await client.params()
            for _ in range(WARM_UP):
                await client.request(self._echo(TEXT))
            group = client.group(self._group)
            with Stopwatch() as watch:
                assert (await group.upload(parsed)).offset == len(image)
        finally:
            await device.close()
        return watch.times


class Smpclient(Contestant):
    def __init__(self) -> None:
        from smpclient import SMPClient
        from smpclient.generics import success
        from smpclient.requests.os_management import EchoWrite
        from smpclient.transport.ble import SMPBLETransport

        self._client: Any = lambda: SMPClient(SMPBLETransport(), NAME)
        self._success, self._echo = success, EchoWrite

    async def upload(self, stack: Any, image: bytes) -> tuple[float, float]:
        with contextlib.ExitStack() as patches:
            if stack is not None:
                for kind, backend in stack._asdict().items():
                    target = f"bleak.get_platform_{kind}_backend_type"
                    patches.enter_context(patch(target, lambda backend=backend: (backend, backend.__name__)))
            async with self._client() as client:
                for _ in range(WARM_UP):
                    assert self._success(await client.request(self._echo(d=TEXT)))
                with Stopwatch() as watch:
                    offsets = [offset async for offset in client.upload(image)]
        assert offsets[-1] == len(image)
        return watch.times


CONTESTANTS: dict[str, type[Contestant]] = {"mcumgrx": Mcumgrx, "smpclient": Smpclient}


@asynccontextmanager
async def bumble_stack(port: int) -> AsyncIterator[Any]:
    """Backends over the controller that is served at `port`."""
    from bumble.host import Host
    from bumble.transport.tcp_client import open_tcp_client_transport

    from tests.ble.bumble_backend import Central

    hci = await open_tcp_client_transport(f"127.0.0.1:{port}")
    async with hci, Central.on(Host(hci.source, hci.sink)) as central:
        yield central.stack


async def upload(contestant: Contestant, port: int | None, image: bytes) -> tuple[float, float]:
    backends: AbstractAsyncContextManager[Any] = contextlib.nullcontext() if port is None else bumble_stack(port)
    async with backends as stack:
        return await contestant.upload(stack, image)


def work_off(name: str) -> None:
    """The process of one contestant: an order a line on standard input, its times a line on standard output."""
    import logging

    logging.disable(logging.CRITICAL)
    try:
        contestant = CONTESTANTS[name]()
    except ImportError as error:
        answer(missing=str(error))
        return
    answer(ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        from mcumgrx.sim.images import build_image

        image = build_image("1.1.0", payload_size=order["size"])

        wall_s, cpu_s = asyncio.run(upload(contestant, order["port"], image))
        answer(wall_s=wall_s, cpu_s=cpu_s, size=len(image))


# --- the stands, each in a process of its own ------------------------------------------------------------------------


def simulated(variant: str) -> Any:
    from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
    from mcumgrx.sim.flash import INSTANT
    from mcumgrx.sim.images import build_image

    device = SimulatedDevice(DeviceConfig(buf_size=BUFFERS[variant], buf_count=4, timing=INSTANT))
    device.install(build_image("1.0.0", payload_size=2000))
    device.settle()
    return device


class Stand(ABC):
    """One end of a stack, with one device at a time."""

    @abstractmethod
    def announce(self) -> dict[str, Any]:
        """What contestants have to know."""

    @abstractmethod
    def device(self, variant: str, interval_s: float) -> AbstractAsyncContextManager[object]:
        """A device that can be connected to as long as it is entered."""


class BluezStand(Stand):
    def __init__(self, daemon: Any) -> None:
        self._daemon = daemon

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Stand]:
        from tests.ble.bluez import Daemon

        daemon = Daemon()
        try:
            yield cls(daemon)
        finally:
            daemon.close()

    def announce(self) -> dict[str, Any]:
        return {"bus": self._daemon.address}

    def device(self, variant: str, interval_s: float) -> AbstractAsyncContextManager[object]:
        from tests.ble.bluez import EmulatedBluez, Peripheral, quick

        model = replace(
            quick(MTU, reassembles=variant == "reassembly", interval_s=interval_s),
            bytes_per_s=PACKETS * PACKET_BYTES / interval_s,
        )
        return EmulatedBluez(self._daemon, Peripheral(simulated(variant), name=NAME, model=model))


class BumbleStand(Stand):
    def __init__(self, radio: Any, ports: dict[str, int]) -> None:
        self._radio = radio
        self._ports = ports

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Stand]:
        from bumble.transport.tcp_server import open_tcp_server_transport_with_socket

        from tests.ble.bumble_backend import Controller, Radio

        radio = Radio(packets=PACKETS)
        ports: dict[str, int] = {}
        async with AsyncExitStack() as stack:
            for number, name in enumerate(CONTESTANTS):  # an adapter each
                # asyncio lets packets go at once only where the protocol is named.
                listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
                listening.bind(("127.0.0.1", 0))
                ports[name] = listening.getsockname()[1]
                hci = await stack.enter_async_context(await open_tcp_server_transport_with_socket(listening))
                Controller(radio, f"AA:AA:AA:AA:AA:A{number}", host_source=hci.source, host_sink=hci.sink)
            yield cls(radio, ports)

    def announce(self) -> dict[str, Any]:
        return {"ports": self._ports}

    def device(self, variant: str, interval_s: float) -> AbstractAsyncContextManager[object]:
        from tests.ble.bumble_backend import Peripheral

        self._radio.interval_s = interval_s
        rig = Peripheral(simulated(variant), name=NAME, mtu=MTU, reassembles=variant == "reassembly")
        return rig.on_air(self._radio)


STANDS: dict[str, Any] = {"BlueZ": BluezStand, "Bumble": BumbleStand}


async def stand_by(name: str) -> None:
    """The process of a stand: each line on standard input is a device to be there from then on, and is answered."""
    async with STANDS[name].opened() as stand:
        answer(**stand.announce())
        async with AsyncExitStack() as stack:
            while line := await asyncio.to_thread(sys.stdin.readline):
                order = json.loads(line)
                await stack.aclose()
                await stack.enter_async_context(stand.device(order["variant"], order["interval_ms"] / 1000))
                answer(ready=True)


# --- processes --------------------------------------------------------------------------------------------------------


def answer(**content: Any) -> None:
    print(json.dumps(content), flush=True)


class Worker:
    """A process of this script, seen from outside. Raises SystemExit when it has ended unexpectedly."""

    def __init__(self, role: str, name: str, **variables: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, __file__, f"--{role}", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env={**os.environ, **variables},
        )
        self.first = self._read()

    def do(self, **order: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
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
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()


def why_not(stack: str) -> str | None:
    """Why a stack cannot be had on this machine, or None."""
    if stack == "Bumble":
        return None if find_spec("bumble") else "bumble is not installed; pip install 'mcumgrx[bench]'"
    if sys.platform != "linux":
        return "not Linux"
    return None if shutil.which("dbus-daemon") else "dbus-daemon is not installed"


# --- the run ----------------------------------------------------------------------------------------------------------


def measure(
    stands: list[Worker], contestants: dict[str, list[Worker]], rounds: int, scale: float
) -> list[dict[str, Any]]:
    """Every upload, a dictionary each. `scale` shortens them."""
    found: list[dict[str, Any]] = []
    shuffle = random.Random(5).shuffle
    for number in range(rounds):
        for stand in stands:
            for variant in BUFFERS:
                for interval_ms in INTERVALS_MS:
                    size = int(scale * UPLOAD_BYTES_MS[variant] / interval_ms)
                    turns = list(contestants[stand.name])
                    shuffle(turns)
                    for worker in turns:
                        stand.do(variant=variant, interval_ms=interval_ms)
                        times = worker.do(size=size, port=stand.first.get("ports", {}).get(worker.name))
                        place = {"stack": stand.name, "variant": variant, "interval_ms": interval_ms}
                        found.append({**place, "round": number, "of": worker.name, **times})
    return found


def place_of(one: dict[str, Any]) -> tuple[str, str, float]:
    return one["stack"], one["variant"], one["interval_ms"]


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each stack, variant and interval: what the median upload of each contestant did."""
    rows: list[dict[str, Any]] = []
    for place in dict.fromkeys(place_of(one) for one in found):
        stack, variant, interval_ms = place
        there = [one for one in found if place_of(one) == place]
        results = {}
        for name in CONTESTANTS:
            uploads = [one for one in there if one["of"] == name]
            if uploads:
                results[name] = {
                    "kb_per_s": round(statistics.median(one["size"] / one["wall_s"] for one in uploads) / 1000, 2),
                    "cpu_us_per_kb": round(1e9 * statistics.median(one["cpu_s"] / one["size"] for one in uploads)),
                }
        link = PACKETS * PACKET_BYTES / interval_ms
        row = {"stack": stack, "variant": variant, "interval_ms": interval_ms, "link_kb_per_s": round(link, 1)}
        rows.append({**row, "results": results, "gain": gain(there)})
    return rows


def gain(uploads: list[dict[str, Any]]) -> dict[str, float]:
    """Of mcumgrx over `smpclient`, in time and in CPU time; nothing where one of them is missing."""
    ours, theirs = ({one["round"]: one for one in uploads if one["of"] == name} for name in CONTESTANTS)
    if not ours or not theirs:
        return {}
    return {
        key: round(statistics.median(theirs[number][key] / one[key] for number, one in ours.items()), 2)
        for key in ("wall_s", "cpu_s")
    }


# Key of a value → its heading, and which gain belongs to it.
UNITS = {
    "kb_per_s": ("KB/s (image upload)", "wall_s"),
    "cpu_us_per_kb": ("CPU of the client per KB, us", "cpu_s"),
}


def show(found: dict[str, Any]) -> None:
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    print(f"Python {found['python']} on {found['platform']}; {versions}; {found['rounds']} interleaved rounds")
    for key, (title, ratio) in UNITS.items():
        names = [name for name in CONTESTANTS if any(name in row["results"] for row in found["results"])]
        print(f"\n{title:<34}{'link':>10}" + "".join(f"{name:>12}" for name in names) + "    gain")
        for row in found["results"]:
            place = f"  {row['stack']}, {row['variant']}, {row['interval_ms']:g} ms"
            link = f"{row['link_kb_per_s']:>10}" if key == "kb_per_s" else f"{'':>10}"
            cells = "".join(f"{row['results'][name][key]:>12,}" for name in names)
            gained = f"{row['gain'][ratio]:>7.2f}x" if row["gain"] else ""
            print(f"{place:<34}{link}{cells}{gained}")
    for name, why in found["missing"].items():
        print(f"\n{name} is left out: {why}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure uploads over Bluetooth LE beside smpclient, without a radio.")
    parser.add_argument("--quick", action="store_true", help="a single short round, for a first look")
    parser.add_argument("--rounds", type=int, help="rounds, of which the median counts [default: 2]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--contestant", choices=tuple(CONTESTANTS), help=argparse.SUPPRESS)
    parser.add_argument("--stand", choices=STACKS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant is not None:
        work_off(arguments.contestant)
        return
    if arguments.stand is not None:
        asyncio.run(stand_by(arguments.stand))
        return
    rounds = arguments.rounds if arguments.rounds is not None else 1 if arguments.quick else 2
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    missing = {stack: why for stack in STACKS if (why := why_not(stack)) is not None}
    workers: list[Worker] = []
    try:
        stands = [Worker("stand", stack) for stack in STACKS if stack not in missing]
        workers += stands
        contestants: dict[str, list[Worker]] = {}
        for stand in stands:
            variables = {"DBUS_SYSTEM_BUS_ADDRESS": stand.first["bus"]} if "bus" in stand.first else {}
            there = [Worker("contestant", name, **variables) for name in CONTESTANTS]
            workers += there
            missing.update({worker.name: worker.first["missing"] for worker in there if "missing" in worker.first})
            contestants[stand.name] = [worker for worker in there if "missing" not in worker.first]
        results = summary(measure(stands, contestants, rounds, 0.1 if arguments.quick else 1.0))
    finally:
        for worker in reversed(workers):
            worker.close()
    found = {
        "benchmark": "ble",
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: version(name) for name in (*CONTESTANTS, "bleak", "bumble") if find_spec(name)},
        "missing": missing,
        "rounds": rounds,
        "results": results,
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
