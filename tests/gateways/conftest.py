"""Dask clusters of real processes, started with Dask's own commands, and a plugin that only their workers have."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# A transport whose devices do what its target says; an error of its own kind; a link that is noted in a file.
PLUGIN = """
import asyncio, os, signal, sys

from mcumgrx.plugin_api import Address, TransportError, TransportPlugin, hookimpl
from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
from mcumgrx.sim.images import build_image
from mcumgrx.sim.link import SimulatedTransport


@hookimpl
def mcumgrx_transports():
    return [TransportPlugin("odd", "Odd devices", load="odd_plugin:Odd", example="odd:own")]


class OddError(TransportError):
    exit = 64


class Odd(SimulatedTransport):
    def __init__(self, address):
        self.what, _, self.file = address.target.partition("=")
        device = SimulatedDevice(DeviceConfig(slot_size=65536), name="odd")
        device.install(build_image("1.0.0", payload_size=2000))
        super().__init__(device)

    def note(self, text):
        with open(self.file, "a") as file:
            file.write(text + "\\n")

    async def open(self, timeout_s):
        if self.what == "own":
            raise OddError("the odd device is odder than usual", hint="look away")
        await super().open(timeout_s)
        if self.what == "kill":
            self.note("opened")
            os.kill(os.getpid(), signal.SIGKILL)
        if self.what == "hang":
            self.note("opened")

    async def close(self):
        await super().close()
        if self.what == "hang":
            self.note("closed")

    async def receive(self):
        if self.what == "chatter":
            await asyncio.sleep(0)
            return b"endless text " * 4000
        if self.what == "hang":
            await asyncio.get_running_loop().create_future()
        answer = await super().receive()
        if self.what == "exit":
            sys.exit("the plugin gives up")
        if self.what == "noise":
            return answer[:8] + b"\\xbf\\x64list" + b"\\x9f" * (len(answer) + 500)
        return answer
"""


class Cluster:
    """A scheduler and its workers, each a process; what they print is in files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        plugins = folder / "plugins"
        info = plugins / "mcumgrx_odd-1.0.dist-info"
        info.mkdir(parents=True)
        (plugins / "odd_plugin.py").write_text(PLUGIN)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mcumgrx-odd\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[mcumgrx]\nodd = odd_plugin\n")
        self._plugins = plugins
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        port = self.address.rpartition(":")[2]
        self._start("scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard")

    def _start(self, command: str, *words: str, name: str = "scheduler", log: str = "scheduler") -> None:
        with (self._folder / f"{log}.log").open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", command, *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(self._plugins), *sys.path]),
                    "GATEWAY": name,
                    "MCUMGRX_CACHE": str(self._folder / "cache"),
                },
                cwd=self._folder,
            )

    def worker(self, name: str, *words: str) -> None:
        words = ("--nthreads", "8", "--local-directory", str(self._folder), *(words or ("--no-nanny",)))
        self._start("worker", self.address, "--name", name, "--no-dashboard", *words, name=name, log=name)

    async def ready(self, count: int) -> None:
        """Return when so many workers are there."""
        from distributed import Client

        async with Client(self.address, asynchronous=True, set_as_default=False, timeout=60) as client:
            if count:
                await client.wait_for_workers(count, timeout=60)

    def kill(self, name: str) -> None:
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self) -> None:
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """One without workers."""
    pytest.importorskip("distributed", reason='gateways need Dask: pip install "mcumgrx[dask]"')
    if sys.platform == "win32":
        pytest.skip("processes of a cluster are ended by signals")
    found = Cluster(tmp_path)
    yield found
    found.stop()
