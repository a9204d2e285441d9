"""Health checks of `mcumgrx dfu`: a command of the user's, run by the shell, and those of plugins."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial

from ..contracts import HealthCheck, OnTrial, OutsideCheck
from ..errors import UsageError
from ..events import Note
from ..threads import in_thread
from .interrupt import ending_too
from .text import printable

__all__ = ["command_check", "plugin_checks"]

# For what a command has printed last, once it has ended.
_LAST_WORDS_S = 1.0

# Of the shell (POSIX): a command that cannot be executed, and one that cannot be found.
_NOT_RUN = (126, 127)


def plugin_checks() -> tuple[HealthCheck, ...]:
    """The checks of all plugins. Raises `PluginError` for one that cannot be made: nothing is confirmed without it."""
    from ..registry import default_registry

    registry = default_registry()
    found: list[HealthCheck] = []
    for plugin in registry.checks.values():
        function = registry.resolve(plugin, plugin.load)
        assert callable(function)
        found.append(HealthCheck(plugin.name, function))
    return tuple(found)


def command_check(command: str, timeout_s: float) -> OutsideCheck:
    """The check that `command` makes: status 0 is healthy. What it prints is told, in notes.

    In its environment are MCUMGRX_DEVICE (the address), MCUMGRX_VERSION and MCUMGRX_HASH (hexadecimal).
    """
    return OutsideCheck(printable(" ".join(command.split())), partial(_run, command, timeout_s))


async def _run(command: str, timeout_s: float, image: OnTrial) -> str | None:
    process = _start(command, image)
    loop = asyncio.get_running_loop()

    def tell(line: str) -> None:
        loop.call_soon_threadsafe(image.tell, Note(f"health check: {line}"))

    with ending_too(partial(_end, process)):
        reading = asyncio.ensure_future(in_thread(_read, process, tell))
        try:
            status = await in_thread(process.wait, timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            _end(process)
            # What it has left running elsewhere may hold the pipe.
            await asyncio.wait([reading], timeout=_LAST_WORDS_S)
    if status in _NOT_RUN and sys.platform != "win32":
        raise UsageError(f"the command cannot be run (exit status {status} of the shell)")
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"exit status {status}" if status else None


def _start(command: str, image: OnTrial) -> subprocess.Popen[bytes]:
    facts = {"MCUMGRX_DEVICE": image.address, "MCUMGRX_VERSION": image.version, "MCUMGRX_HASH": image.hash.hex()}
    try:
        return subprocess.Popen(
            command,
            shell=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **facts},
            start_new_session=True,  # so that all that it has started can be ended with it
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"the command cannot be started: {error}") from error


def _read(process: subprocess.Popen[bytes], tell: Callable[[str], object]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        text = printable(line.decode(errors="replace").rstrip())
        if text:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                tell(text)
    process.stdout.close()
    process.wait()  # which nobody does after a time-out


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the command, and what it has started."""
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
