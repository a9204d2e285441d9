"""A signal ends a command in whatever stage it is, with a word; each in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .conftest import command_line, environment

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are different there")

_PLUGIN = """
import os
from mcumgrx.plugin_api import CliCommand, cli_command, hookimpl

@hookimpl
def mcumgrx_commands():
    return [CliCommand("slow go", "Go", load="mcumgrx_slow:go")]

{code}
"""


@pytest.fixture
def pipe(tmp_path: Path) -> str:
    """A named pipe: what is read from it blocks, and whoever opens it to write knows that it does."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return str(path)


@pytest.fixture
def slow(tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Installs a plugin with this code in its module; returns the environment that has it."""

    def install(code: str) -> dict[str, str]:
        info = tmp_path / "mcumgrx_slow-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mcumgrx-slow\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[mcumgrx]\nslow = mcumgrx_slow\n")
        (tmp_path / "mcumgrx_slow.py").write_text(_PLUGIN.format(code=code))
        return environment(PYTHONPATH=str(tmp_path))

    return install


@pytest.fixture
def begin() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `mcumgrx`, which does not outlive the test."""
    begun: list[subprocess.Popen[str]] = []

    def start(*arguments: str, env: dict[str, str] | None = None, before: Callable[[], object] | None = None) -> object:
        process = subprocess.Popen(
            command_line(*arguments),
            env=environment() if env is None else env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            preexec_fn=before,
        )
        begun.append(process)
        return process

    yield start  # type: ignore[misc]
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended_by(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """What it says on stderr when the signal ends it."""
    process.send_signal(number)
    _, err = process.communicate(timeout=150)
    assert process.returncode == 130
    assert "Traceback" not in err
    return err


Begin = Callable[..., subprocess.Popen[str]]
Slow = Callable[[str], dict[str, str]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_while_a_plugin_is_imported(number: signal.Signals, pipe: str, slow: Slow, begin: Begin) -> None:
    process = begin("--help", env=slow(f"os.read(os.open({pipe!r}, os.O_RDONLY), 1)"))
    with open(pipe, "w"):
        err = ended_by(process, number)
    assert err == ("interrupted\n" if number == signal.SIGINT else f"interrupted by {number.name}\n")


def test_while_a_plugin_that_catches_everything_is_imported(pipe: str, slow: Slow, begin: Begin) -> None:
    process = begin("--help", env=slow(f"try: os.read(os.open({pipe!r}, os.O_RDONLY), 1)\nexcept BaseException: pass"))
    with open(pipe, "w"):
        assert ended_by(process, signal.SIGTERM) == "interrupted by SIGTERM\n"


@pytest.mark.parametrize("arguments", [["image", "inspect"], ["dfu", "-d", "sim:"]], ids=["inspect", "dfu"])
def test_while_a_file_is_read(arguments: list[str], pipe: str, begin: Begin) -> None:
    process = begin(*arguments, pipe)
    with open(pipe, "w"):  # it is at it
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=150)
    assert process.returncode in (6, 130)  # a pipe may as well be refused
    assert "Traceback" not in err


def test_while_code_blocks_the_loop(pipe: str, slow: Slow, begin: Begin) -> None:
    code = f"""
@cli_command(needs_device=False)
async def go(context):
    try:
        os.read(os.open({pipe!r}, os.O_RDONLY), 1)
    finally:
        print("closed")
"""
    process = begin("slow", "go", env=slow(code))
    with open(pipe, "w"):
        assert ended_by(process, signal.SIGINT) == "closed\ninterrupted\n"


def test_threads_that_hang_keep_no_process(pipe: str, slow: Slow, begin: Begin) -> None:
    code = f"""
@cli_command(needs_device=False)
async def go(context):
    import asyncio
    await asyncio.to_thread(lambda: os.read(os.open({pipe!r}, os.O_RDONLY), 1))
"""
    process = begin("slow", "go", env=slow(code))
    with open(pipe, "w"):
        assert ended_by(process, signal.SIGTERM) == "interrupted by SIGTERM\n"


def test_under_nohup_a_terminal_that_is_closed_ends_nothing(begin: Begin) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"udp:127.0.0.1:{silent.getsockname()[1]}"
        process = begin("os", "echo", "hi", "-d", address, before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        request, sender = silent.recvfrom(1000)
        process.send_signal(signal.SIGHUP)
        # The same bytes as a reply: the operation is one more, and the text stands under another key.
        silent.sendto(bytes([request[0] + 1]) + request[1:].replace(b"ad", b"ar"), sender)
        out, err = process.communicate(timeout=150)
    assert (process.returncode, out, err) == (0, "hi\n", "")


ABANDONED = """
import sys
from mcumgrx.cli.interrupt import ending_too, interruptions

def leave():
    print("ended, too", flush=True)

def fail():
    raise OSError

with interruptions() as signals:
    with ending_too(lambda: print("over already")):
        pass
    with ending_too(fail), ending_too(leave):
        signals.abandon()
"""


def test_what_was_started_is_ended_with_a_process_that_is_abandoned() -> None:
    ended = subprocess.run([sys.executable, "-c", ABANDONED], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (130, "ended, too\n")
