"""`mcumgrx demo`: what an update looks like, with nothing but this program.

It only types commands: each one is run as a user would run it, in a process of its own, and what it ended with is
compared with what was to be expected. The device is simulated; with a file and an address it is a real one.
"""

from __future__ import annotations

import os
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..plugin_api import Option, UsageError, cli_command
from .exit_codes import Exit
from .streams import streams
from .text import duration_text

if TYPE_CHECKING:
    from .context import Context

# The link's speed makes the upload long enough to be seen.
_ADDRESS = "sim:demo,state=device.json,speed=16000"
_PAYLOAD_BYTES = 56 * 1024
_FILES = {"1.1.0": "healthy", "1.2.0": "crash"}

# Settings of the user's shell that must not reach the commands of the demonstration.
_KEPT_VARIABLES = ("MCUMGRX_PURE_PYTHON", "MCUMGRX_DISABLE_PLUGINS")


@dataclass(frozen=True, slots=True)
class DemoStep:
    """One command and how it ended."""

    command: str
    exit: int
    expected: int


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What was shown, and what was not as expected."""

    steps: tuple[DemoStep, ...]
    problems: tuple[str, ...]
    elapsed_s: float

    @property
    def exit_code(self) -> int:
        return Exit.BUG if self.problems else Exit.DONE

    def lines(self) -> list[str]:
        if self.problems:
            return ["demo: NOT as expected:", *(f"  {problem}" for problem in self.problems)]
        return [
            f"demo: all as expected, in {duration_text(self.elapsed_s)}",
            "next: mcumgrx --help, or your own device: mcumgrx dfu FILE -d ADDRESS",
        ]


@dataclass(frozen=True, slots=True)
class RealUpdate:
    """The update of a real device, which ended with the code of its command."""

    command: str
    exit: int

    @property
    def exit_code(self) -> int:
        return self.exit

    def lines(self) -> list[str]:
        return [] if self.exit == Exit.DONE else [f"demo: the update ended with code {self.exit}"]


@cli_command(
    Option("--firmware", "Update a real device with this file instead; -d names the device.", type=Path),
    needs_device=False,
    epilog="""
    Examples:
      mcumgrx demo
      mcumgrx demo --firmware zephyr.signed.bin -d /dev/ttyACM0
    """,
)
async def demo(context: Context, firmware: Path | None) -> DemoResult | RealUpdate:
    """Show an update, the same one again, and a bad one that the device takes back, in less than a minute.

    The device is simulated, and everything is done by ordinary commands, shown as they are run. Nothing is left
    behind.
    """
    with streams().released():  # its commands write to it themselves
        return await _show(context, firmware)


async def _show(context: Context, firmware: Path | None) -> DemoResult | RealUpdate:
    if firmware is not None:
        return await _on_real_device(context, firmware)
    if context.settings.device:
        context.say(f"Without --firmware it is a simulated device that is updated, not {context.settings.device}.")
    with tempfile.TemporaryDirectory(prefix="mcumgrx-demo-") as folder:
        return await _on_simulated_device(context, Path(folder))


async def _on_real_device(context: Context, firmware: Path) -> RealUpdate:
    if not context.settings.device:
        raise UsageError("no device is given for the firmware", hint="name it with -d, for example -d /dev/ttyACM0")
    shell = _Shell(context, Path.cwd())
    code = await shell.run("dfu", str(firmware), "-d", context.settings.device)
    return RealUpdate(shell.steps[-1].command, code)


async def _on_simulated_device(context: Context, folder: Path) -> DemoResult:
    import asyncio

    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    for version, health in _FILES.items():
        (folder / f"app-{version}.bin").write_bytes(_image(version, health))
    shell = _Shell(context, folder)

    context.say(
        "A simulated device runs version 1.0.0. Its flash takes time, its link is slow, and its bootloader swaps "
        "images, like those of real devices.",
        "heading",
    )
    await shell.run("image", "list", "-d", _ADDRESS)

    context.say("1. An update: upload, boot once on trial, prove that the new version runs, confirm it.", "heading")
    await shell.run("dfu", "app-1.1.0.bin", "-d", _ADDRESS)
    await shell.check_running("1.1.0", "the update")

    context.say("2. The same command again: it reads the device first, and what is done is not done twice.", "heading")
    await shell.run("dfu", "app-1.1.0.bin", "-d", _ADDRESS)
    await shell.check_nothing_to_do("app-1.1.0.bin")

    context.say(
        "3. A bad update: 1.2.0 crashes as it starts. Nobody confirms it, so the bootloader goes back to 1.1.0, and "
        "the command must find that out and end with exit code 7.",
        "heading",
    )
    code = await shell.run("dfu", "app-1.2.0.bin", "-d", _ADDRESS, expected=Exit.REVERTED)
    context.say(f"The exit code is {code}{', as expected' if code == Exit.REVERTED else ''}. What is in the device:")
    await shell.run("image", "list", "-d", _ADDRESS)
    await shell.check_running("1.1.0", "the bad update")

    context.say("")
    return DemoResult(tuple(shell.steps), tuple(shell.problems), round(loop.time() - begin_s, 3))


def _image(version: str, health: str) -> bytes:
    """An image that carries something in the place of a signature: the simulated bootloader checks none, but without
    it every command would warn of that."""
    from ..mcuboot import TLV_INFO_MAGIC, TlvType, parse_image
    from ..sim.images import build_image

    plain = build_image(version, payload_size=_PAYLOAD_BYTES, health=health)
    at = parse_image(plain).header.hashed_size
    (size,) = struct.unpack_from("<2xH", plain, at)
    signature = struct.pack("<HH", TlvType.ECDSA_SIG, 70) + bytes(70)
    return plain[:at] + struct.pack("<HH", TLV_INFO_MAGIC, size + len(signature)) + plain[at + 4 :] + signature


class _Shell:
    """Types commands, and keeps what they ended with."""

    def __init__(self, context: Context, folder: Path) -> None:
        self.steps: list[DemoStep] = []
        self.problems: list[str] = []
        self._context = context
        self._folder = folder
        settings = context.settings
        self._environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("MCUMGRX_") or name in _KEPT_VARIABLES
        }
        self._environment["MCUMGRX_NO_CACHE"] = "1"  # nothing is left behind
        self._environment["MCUMGRX_VERBOSE"] = str(settings.verbose)
        if settings.log_file is not None:
            self._environment["MCUMGRX_LOG_FILE"] = str(settings.log_file.absolute())
        if settings.json:
            self._environment["MCUMGRX_JSON"] = "1"

    async def run(self, *arguments: str, expected: int = Exit.DONE) -> int:
        """Run `mcumgrx` with these arguments, its output going where ours goes."""
        line = " ".join(["mcumgrx", *arguments])
        self._context.say(line, "prompt")
        code, _ = await self._start(arguments)
        self.steps.append(DemoStep(line, code, int(expected)))
        if code != expected:
            self.problems.append(f"{line}: ended with code {code}, not {int(expected)}")
        return code

    async def check_running(self, version: str, after: str) -> None:
        """See, with a command that is not shown, that `version` runs and is confirmed."""
        state = await self._ask("image", "list", "-d", _ADDRESS)
        active = [slot for slot in _maps(state, "slots") if slot.get("active")]
        shown = ", ".join(f"{slot.get('version')}" for slot in active) or "nothing known"
        if [slot.get("version") for slot in active] != [version] or not active[0].get("confirmed"):
            self.problems.append(f"after {after} the device runs {shown}, not {version}, confirmed")

    async def check_nothing_to_do(self, file: str) -> None:
        """See, with a command that is not shown, that an update with `file` has nothing to do."""
        report = await self._ask("dfu", file, "-d", _ADDRESS, "--dry-run")
        plan = report.get("plan")
        if not isinstance(plan, dict) or plan.get("steps") != []:
            self.problems.append(f"{file} runs, but is still planned to be installed")

    async def _ask(self, *arguments: str) -> dict[str, object]:
        """The result of a command that is run behind the scenes; empty if there is none."""
        import json

        _, output = await self._start([*arguments, "--json"], quiet=True)
        try:
            result = json.loads(output.splitlines()[-1])["result"]
        except (ValueError, LookupError, TypeError):
            return {}
        return result if isinstance(result, dict) else {}

    async def _start(self, arguments: tuple[str, ...] | list[str], *, quiet: bool = False) -> tuple[int, bytes]:
        import asyncio
        from asyncio.subprocess import DEVNULL, PIPE

        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "mcumgrx",
            *arguments,
            cwd=self._folder,
            env=self._environment,
            stdin=DEVNULL,
            stdout=PIPE if quiet else None,
            stderr=DEVNULL if quiet else None,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            # Ctrl-C on a terminal has reached the command as well, and it is on its way; other signals have not.
            try:
                await asyncio.wait_for(process.wait(), 1.0)
            except TimeoutError:
                process.terminate()
                await process.wait()
            raise
        assert process.returncode is not None
        return process.returncode, output or b""


def _maps(value: dict[str, object], key: str) -> list[dict[str, object]]:
    items = value.get(key)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
