"""An update over Bluetooth LE in a terminal, without Bluetooth: `make demo-ble`.

Only the radio and BlueZ are emulated, as in the tests beside this file. The commands are those of a user, in processes
of their own, and everything under them is real: bleak with its BlueZ backend, and a D-Bus, which they find where
DBUS_SYSTEM_BUS_ADDRESS says. Ends with 0 only if the device runs the new image in the end, confirmed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcumgrx.cli import demo
from mcumgrx.cli.arguments import Settings
from mcumgrx.cli.context import Context
from mcumgrx.cli.renderers import make_renderer
from mcumgrx.cli.run import run
from mcumgrx.cli.text import duration_text
from mcumgrx.mcuboot import parse_image

NAME = "Sensor-12"
OLD, NEW = "1.0.0", "1.1.0"
FILE = "app.bin"
VARIABLE = "DBUS_SYSTEM_BUS_ADDRESS"

_SERVE = "--serve"  # the emulation, in a process of its own


# -- the emulation ----------------------------------------------------------------------------------------------------


async def serve() -> None:
    """Be Bluetooth until standard input ends: first the address of the D-Bus is printed, last what has become of the
    device."""
    from bluez import Daemon, EmulatedBluez, Peripheral
    from dbus_fast import Variant

    from mcumgrx.sim.device import DeviceConfig, SimulatedDevice
    from mcumgrx.sim.images import build_image
    from mcumgrx.sim.link import LinkModel
    from mcumgrx.sim.slots import Mark

    class Room(EmulatedBluez):
        """The peripherals are at different distances, and no two signals are of the same strength."""

        def _change(self, path: str, interface: str, **values: Variant) -> None:
            if "RSSI" in values:
                far = 40 + 15 * list(self.peripherals).index(path)
                values["RSSI"] = Variant("n", -far - random.randrange(5))
            super()._change(path, interface, **values)

    # As fast as a phone or a laptop is with Zephyr: 4 packets in 30 ms.
    model = replace(LinkModel.ble(247, 0.03), queue_s=float("inf"))

    def peripheral(number: int, name: str) -> Peripheral:
        device = SimulatedDevice(DeviceConfig(slot_size=128 * 1024, buf_size=2475), name=name)
        device.install(build_image(OLD))
        device.settle()
        return Peripheral(device, name=name, address=f"C0:FF:EE:12:34:{number:02}", model=model, address_type="random")

    sensor, lamp, kettle = peripheral(56, NAME), peripheral(57, "Lamp"), peripheral(58, "Kettle")
    lamp.names_service = False
    kettle.service = None
    daemon = Daemon()
    try:
        async with Room(daemon, sensor, lamp, kettle):
            print(json.dumps({"bus": daemon.address}), flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            result = sensor.device.boot_result
            assert result is not None
            state = {
                "version": str(result.version),
                "hash": result.hash.hex() if result.hash is not None else None,
                "confirmed": sensor.device.bootloader.slots[0].image_ok is Mark.SET,
                "boots": sensor.device.boots,
            }
    finally:
        daemon.close()
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it
        os.write(sys.stdout.fileno(), json.dumps(state).encode() + b"\n")


@asynccontextmanager
async def emulated() -> AsyncIterator[Process]:
    """The emulation as a process; commands that are started meanwhile find it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, _SERVE),
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,  # Ctrl-C is for the commands; this ends with its standard input
    )
    assert process.stdin is not None
    try:
        os.environ[VARIABLE] = (await _line(process))["bus"]
        yield process
    finally:
        process.stdin.close()
        await process.communicate()


async def _line(process: Process) -> Any:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError("the emulation has ended; what it has said stands above")
    return json.loads(line)


# -- the demonstration ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """What was shown, and what was not as expected."""

    problems: tuple[str, ...]
    elapsed_s: float

    def lines(self) -> list[str]:
        if self.problems:
            return ["demo-ble: NOT as expected:", *(f"  {problem}" for problem in self.problems)]
        return [
            f"demo-ble: {NEW} runs and is confirmed in the emulated device, in {duration_text(self.elapsed_s)}",
            "next: your own device: mcumgrx scan, then mcumgrx dfu FILE -d ble:NAME",
        ]


async def show(context: Context) -> Shown:
    """Scan, update, update again, and see in the device itself what has become of it."""
    begin_s = asyncio.get_running_loop().time()
    image = demo._image(NEW, "healthy")
    address = f"ble:{NAME}"
    with tempfile.TemporaryDirectory(prefix="mcumgrx-demo-ble-") as folder:
        (Path(folder) / FILE).write_bytes(image)
        async with emulated() as bluetooth:
            shell = demo._Shell(context, Path(folder))
            context.say(
                "Three peripherals of an emulated BlueZ. One advertises the SMP service, one offers it without saying "
                "so, and one has nothing to do with it.",
                "heading",
            )
            await shell.run("scan")
            context.say(
                "1. An update: upload, boot once on trial, prove that the new version runs, confirm it.", "heading"
            )
            await shell.run("dfu", FILE, "-d", address)
            context.say("2. The same command again: what is done is not done twice.", "heading")
            await shell.run("dfu", FILE, "-d", address)
            context.say("What is in the device:", "heading")
            await shell.run("image", "list", "-d", address)
            assert bluetooth.stdin is not None
            bluetooth.stdin.close()
            state = await _line(bluetooth)
    expected = {"version": NEW, "hash": parse_image(image).hash.hex(), "confirmed": True, "boots": 2}
    wrong = [
        f"{key} of the device: {state[key]}, not {value}" for key, value in expected.items() if state[key] != value
    ]
    context.say("")
    return Shown((*shell.problems, *wrong), round(asyncio.get_running_loop().time() - begin_s, 3))


def main(arguments: list[str]) -> int:
    """The whole program; its exit code."""
    if sys.platform != "linux":
        return _fail("this demonstration needs Linux: it is bleak's BlueZ backend that it runs", "see docs/ble.md")
    from bluez import Daemon

    if not Daemon.installed():
        return _fail(
            "dbus-daemon is not installed, and without it there is no D-Bus of our own",
            "Debian and Ubuntu: apt install dbus; Fedora: dnf install dbus-daemon; Arch: pacman -S dbus",
        )
    if arguments == [_SERVE]:
        asyncio.run(serve())
        return 0
    renderer = make_renderer(as_json=False)
    context = Context("demo-ble", Settings(), renderer)
    try:
        shown = run(lambda: show(context))
        renderer.result("demo-ble", shown)
        return 1 if shown.problems else 0
    except RuntimeError as error:
        return _fail(str(error), "does dbus-daemon start at all? Try: dbus-daemon --session --print-address")
    except KeyboardInterrupt:
        return 130
    finally:
        renderer.close()
        sys.stdout.flush()


def _fail(text: str, hint: str) -> int:
    sys.stderr.write(f"error: {text}\nhint: {hint}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
