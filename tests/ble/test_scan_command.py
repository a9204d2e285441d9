"""`mcumgrx scan` in a process of its own, which hears the peripherals of an emulated BlueZ."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mcumgrx.sim.device import SimulatedDevice
from mcumgrx.sim.images import build_image

from .bluez import ADDRESS, Daemon, EmulatedBluez, Peripheral

QUIET, FOREIGN = "00:11:22:33:44:66", "00:11:22:33:44:77"


def peripheral(name: str, address: str) -> Peripheral:
    device = SimulatedDevice()
    device.install(build_image("1.0.0"))
    device.settle()
    return Peripheral(device, name=name, address=address)


@asynccontextmanager
async def three_devices(daemon: Daemon) -> AsyncIterator[EmulatedBluez]:
    """One that advertises the SMP service, one that offers it silently, and one that has nothing to do with it."""
    loud, quiet, foreign = (
        peripheral("Sensor-1", ADDRESS),
        peripheral("Sensor-2", QUIET),
        peripheral("Kettle\x1b[2J", FOREIGN),
    )
    quiet.names_service = False
    foreign.service = None
    async with EmulatedBluez(daemon, loud, quiet, foreign) as bluez:
        yield bluez


async def start(*arguments: str, **streams: Any) -> Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "mcumgrx", "scan", "--transport", "ble", *arguments),
        env={**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": streams.pop("TERM", "xterm"), "PYTHONUTF8": "1"},
        stdin=DEVNULL,
        **{"stdout": PIPE, "stderr": PIPE, **streams},
    )


async def ended(process: Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(50):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_in_a_pipe_there_is_the_result_alone(daemon: Daemon) -> None:
    async with three_devices(daemon):
        code, out, err = await ended(await start("--scan-time", "1"))
    assert (code, err) == (0, "")
    rows = [line.split("  ") for line in out.splitlines()]
    assert [[cell.strip() for cell in row if cell] for row in rows] == [
        ["name", "address", "signal", "SMP", "last seen"],
        ["Sensor-1", f"ble:{ADDRESS}", "-42 dBm", "yes", "now"],
        ["Sensor-2", f"ble:{QUIET}", "-42 dBm", "-", "now"],
        ["Kettle\\x1b[2J", f"ble:{FOREIGN}", "-42 dBm", "-", "now"],
    ]


async def test_only_what_is_wanted(daemon: Daemon) -> None:
    async with three_devices(daemon):
        smp, named = await asyncio.gather(
            ended(await start("--smp", "--scan-time", "1")),
            ended(await start("--name", "sensor-*", "--scan-time", "1")),
        )
    assert re.findall(r"ble:\S+", smp[1]) == [f"ble:{ADDRESS}"]
    assert re.findall(r"ble:\S+", named[1]) == [f"ble:{ADDRESS}", f"ble:{QUIET}"]


async def test_events_come_while_it_looks(daemon: Daemon) -> None:
    """A device that is switched on later is told of then, and an interruption ends the search with a result."""
    async with three_devices(daemon) as bluez:
        late = bluez.peripherals[f"/org/bluez/hci0/dev_{QUIET.replace(':', '_')}"]
        late.advertising = False
        process = await start("--json", "--scan-time", "100")
        assert process.stdout is not None
        events = []
        async with asyncio.timeout(50):
            while ("device_found", late.name) not in events:
                event = json.loads(await process.stdout.readline())
                events.append((event["event"], event["device"]["name"]))
                if len(events) == 3:
                    assert sorted(events) == [
                        ("device_found", "Kettle\x1b[2J"),
                        ("device_found", "Sensor-1"),
                        ("device_offers_smp", "Sensor-1"),
                    ]
                    late.advertising = True
        process.send_signal(signal.SIGINT)
        code, out, err = await ended(process)
        assert bluez.calls["StopDiscovery"] == 1
    assert (code, err) == (130, "")
    result = json.loads(out.splitlines()[-1])["result"]
    assert result["interrupted"] is True
    assert [one["address"] for one in result["devices"]] == [f"ble:{one}" for one in (ADDRESS, FOREIGN, QUIET)]
    assert result["devices"][0]["details"].keys() == {"signal_dbm", "smp", "last_seen_s"}


async def on_terminal(daemon: Daemon, term: str, stop: bool) -> tuple[int, str]:
    """What a terminal gets; with `stop`, until the table is there and a Ctrl-C has ended it."""
    import pty

    ours, theirs = pty.openpty()
    loop = asyncio.get_running_loop()
    got = bytearray()
    read = asyncio.Event()
    there = asyncio.Event()

    def take() -> None:
        try:
            got.extend(os.read(ours, 65536))
        except OSError:  # nobody is at the other end any more
            loop.remove_reader(ours)
            read.set()
        if QUIET.encode() in got:
            there.set()

    try:
        async with three_devices(daemon):
            seconds = "100" if stop else "1"
            process = await start("--scan-time", seconds, stdout=theirs, stderr=theirs, TERM=term)
            os.close(theirs)
            loop.add_reader(ours, take)
            async with asyncio.timeout(50):
                if stop:
                    await there.wait()
                    process.send_signal(signal.SIGINT)
                code = await process.wait()
                await read.wait()
    finally:
        os.close(ours)
    return code, got.decode()


@pytest.mark.parametrize("stop", [False, True])
async def test_a_table_grows_on_a_terminal(daemon: Daemon, stop: bool) -> None:
    code, text = await on_terminal(daemon, "xterm", stop)
    assert code == (130 if stop else 0)
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is back
    live, _, result = text.partition("\x1b[?25h")
    assert "found; Ctrl-C ends it" in live
    assert ADDRESS in live
    assert "\x1b[2J" not in text
    shown = [line for line in result.splitlines() if "ble:" in line]
    assert len(shown) == 3
    assert ("interrupted: this is what was found until then" in text) is stop


async def test_a_dumb_terminal_gets_the_result_alone(daemon: Daemon) -> None:
    code, text = await on_terminal(daemon, "dumb", stop=False)
    assert code == 0
    assert "\x1b" not in text
    assert len(text.splitlines()) == 4


async def test_a_probe_finds_the_silent_one(daemon: Daemon) -> None:
    async with three_devices(daemon) as bluez:
        code, out, err = await ended(await start("--name", "sensor", "--probe", "--scan-time", "1", "--json"))
        scans = bluez.calls["StartDiscovery"]
    assert (code, err) == (0, "")
    *events, result = (json.loads(line) for line in out.splitlines())
    assert [(one["event"], one.get("device", {}).get("name")) for one in events].count(
        ("device_offers_smp", "Sensor-2")
    ) == 1
    assert [one["answers"] for one in result["result"]["devices"]] == [True, True]
    assert scans == 2  # all that are asked share one
