"""A simulated device behind a pseudo-terminal, in its own process; and `pty_simulator`, which starts it for a test.

    python tests/support/pty_simulator.py IMAGE [KEY=VALUE …]

KEY is a field of `DeviceConfig`, VALUE is JSON; `flash=instant` takes the time out of the flash. The first line printed
is the path to open. After it comes a line for each thing that happens: `power booting`, `early 12` for 12 bytes that
came while the device was restarting. The process ends with its standard input. Like a UART the terminal stays open
through a reset, the device prints as it starts, and what nobody reads is lost.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

ALL_OPS = 0xFF


async def serve(image: bytes, options: dict[str, Any]) -> None:
    """Run the device until standard input ends."""
    import tty

    from mcumgrx.protocol.codec import build_message
    from mcumgrx.protocol.console import ConsoleFraming
    from mcumgrx.sim.device import DeviceConfig, Power, SimulatedDevice
    from mcumgrx.sim.flash import INSTANT
    from mcumgrx.sim.link import runner_of

    if options.pop("flash", "") == "instant":
        options["timing"] = INSTANT
    if "unhealthy" in options:
        options["unhealthy"] = frozenset(options["unhealthy"])
    device = SimulatedDevice(DeviceConfig(**options))
    device.install(image)
    runner = runner_of(device)
    loop = asyncio.get_running_loop()
    framing = ConsoleFraming(ops=ALL_OPS)
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)

    def write(data: bytes) -> None:
        with suppress(BlockingIOError):
            os.write(master, data)

    def reply(message: bytes) -> None:
        for chunk in framing.encode(message):
            write(chunk)

    def readable() -> None:
        data = os.read(master, 65536)
        if runner.advance() is not Power.RUNNING:
            print(f"early {len(data)}", flush=True)
        for message in framing.feed(data):
            runner.submit(build_message(*message), reply)
        framing.take_text()

    def power_changed(power: Power) -> None:
        print(f"power {power.value}", flush=True)
        if power is Power.BOOTING:
            framing.reset()
            write(b"*** Booting MCUboot ***\r\n")
        elif power is Power.RUNNING:
            version = device.boot_result.version if device.boot_result else None
            write(f"*** Booting Zephyr OS, application {version} ***\r\nuart:~$ ".encode())

    ended = asyncio.Event()
    device.listeners.append(power_changed)
    runner.advance()
    device.settle()
    loop.add_reader(master, readable)
    loop.add_reader(sys.stdin, lambda: ended.set() if not os.read(0, 4096) else None)
    print(os.ttyname(slave), flush=True)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(master)
        loop.remove_reader(sys.stdin)
        runner.stop()
        os.close(master)
        os.close(slave)


class PtySimulator:
    """A running simulator: its `path`, and what it has reported since."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._news = asyncio.Event()
        self.path = ""
        self.events: list[str] = []

    async def listen(self) -> None:
        """Read reports until the process ends."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            text = line.decode().strip()
            if not self.path and text.startswith("/"):
                self.path = text
                self.events.clear()
            else:
                self.events.append(text)
            self._news.set()
        self._news.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until `condition` holds after a report. Raises `RuntimeError` when the process ends first."""
        while not condition():
            if self._process.stdout is None or self._process.stdout.at_eof():
                raise RuntimeError("the simulator has ended")
            self._news.clear()
            await self._news.wait()

    async def kill(self) -> None:
        """End the process at once, as unplugging does."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()


@asynccontextmanager
async def pty_simulator(image: Path, **options: object) -> AsyncIterator[PtySimulator]:
    """Start a simulator that runs `image`; it is gone at the end in every case."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        str(image),
        *(f"{key}={json.dumps(value)}" for key, value in options.items()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    simulator = PtySimulator(process)
    listening = asyncio.create_task(simulator.listen())
    try:
        async with asyncio.timeout(50):
            await simulator.until(lambda: simulator.path)
        yield simulator
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(50):
                await process.wait()
        except TimeoutError:
            await simulator.kill()
        await listening


def main() -> None:
    image, *pairs = sys.argv[1:]
    options = {key: json.loads(value) for key, _, value in (pair.partition("=") for pair in pairs)}
    asyncio.run(serve(Path(image).read_bytes(), options))


if __name__ == "__main__":
    main()
