"""What only shows in a process of its own: Ctrl-C, closed pipes, terminals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import QUICK, command_line, environment

Cli = Callable[..., Any]
ImageFile = Callable[..., str]

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and pseudo-terminals are different there")


def start(tmp_path: Path, *arguments: str, **streams: Any) -> subprocess.Popen[str]:
    variables = streams.pop("variables", {})
    return subprocess.Popen(
        command_line(*arguments),
        cwd=tmp_path,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=streams.pop("stdout", subprocess.PIPE),
        stderr=streams.pop("stderr", subprocess.PIPE),
        encoding="utf-8",
        **streams,
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for what is remembered of devices."""
    monkeypatch.delenv("MCUMGRX_NO_CACHE", raising=False)
    monkeypatch.setenv("MCUMGRX_CACHE_DIR", str(tmp_path / "cache"))


@posix
@pytest.mark.usefixtures("virtual_time", "cache")
def test_an_interrupted_update_goes_on_where_it_was(tmp_path: Path, desk: str, image_file: ImageFile, cli: Cli) -> None:
    file = image_file("1.1.0", payload_size=24_000)
    process = start(tmp_path, "dfu", file, "-d", f"{desk},speed=16000")
    assert process.stderr is not None
    for line in process.stderr:
        if re.match(r"upload: [2-6]\d %", line):
            process.send_signal(signal.SIGINT)
            break
    out, err = process.communicate(timeout=150)
    assert process.returncode == 130
    assert out == ""
    assert err.splitlines()[-1] == "interrupted; run the same command again to continue"
    assert "Traceback" not in err

    planned = cli("dfu", file, "-d", f"{desk},speed=16000", "--dry-run", "--json").result["plan"]
    assert 0 < planned["resumed_from"] < planned["size"]
    assert re.search(r", resumed at \d+ of 25 KB$", planned["steps"][0]["text"])

    ended = cli("dfu", file, "-d", f"{desk},speed=16000", "--json")
    assert ended.exit == 0
    resumed = {record["resumed_from"] for record in ended.records if record.get("event") == "bytes"}
    assert len(resumed) == 1
    assert abs(resumed.pop() - planned["resumed_from"]) < 4000  # what was on its way, the device may have, too
    assert ended.result["ending"] == "confirmed"
    again = cli("dfu", file, "-d", f"{desk},speed=16000", "--mode", "upload-only", "--dry-run", "--json")
    assert again.result["plan"]["resumed_from"] == 0


@posix
@pytest.mark.usefixtures("virtual_time", "cache")
def test_an_update_of_two_images_goes_on_in_the_one_that_it_was_at(
    tmp_path: Path, image_file: ImageFile, cli: Cli
) -> None:
    two = (f"0={image_file('1.1.0', payload_size=4000)}", f"1={image_file('2.1.0', payload_size=24_000)}")
    device = f"sim:two,{QUICK},images=2,speed=16000,state={tmp_path / 'two.json'}"
    process = start(tmp_path, "dfu", *two, "-d", device)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("upload: uploading 2.1.0"):
            break
    for line in process.stderr:
        if re.match(r"upload: [3-6]\d %", line):
            process.send_signal(signal.SIGINT)
            break
    process.communicate(timeout=150)
    assert process.returncode == 130

    plan = cli("dfu", *two, "-d", device, "--dry-run", "--json").result["plan"]
    assert [step["name"] for step in plan["steps"]] == ["upload", "mark", "reset", "prove", "confirm"]
    assert re.search(r", resumed at \d+ of 25 KB of image 1$", plan["steps"][0]["text"])
    assert plan["images"][0]["notes"] == ["1.1.0 is already in slot 1: no upload"]
    assert (plan["images"][0]["size"], plan["images"][1]["resumed_from"]) == (0, plan["resumed_from"])

    ended = cli("dfu", *two, "-d", device, "--json")
    assert ended.exit == 0
    moved = [record for record in ended.records if record.get("event") == "bytes"]
    assert min(record["resumed_from"] for record in moved) > 5000
    assert ended.result["bytes_sent"] < 24_000
    assert ended.result["ending"] == "confirmed"


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_as_json(tmp_path: Path, desk: str, image_file: ImageFile, number: signal.Signals) -> None:
    process = start(tmp_path, "dfu", image_file("1.1.0", payload_size=24_000), "-d", f"{desk},speed=16000", "--json")
    assert process.stdout is not None
    for line in process.stdout:
        if '"event": "bytes"' in line:
            process.send_signal(number)
            break
    out, err = process.communicate(timeout=150)
    assert process.returncode == 130
    assert err == ""
    assert '"code": "interrupted", "exit": 130' in out.splitlines()[-1]


HANGING = """
import asyncio, sys
from mcumgrx.cli.run import run

async def work():
    print("running", flush=True)
    try:
        await asyncio.sleep(60)
    finally:
        print("closing", flush=True)
        await asyncio.sleep(60)

run(work)
"""


@posix
def test_a_second_interruption_ends_what_hangs() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout is not None
    for expected in ("running\n", "closing\n"):
        assert process.stdout.readline() == expected
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=150)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


TWICE = """
import os, threading, time
from mcumgrx.cli.interrupt import Interruptions

interruptions, write = Interruptions(), os.write

def slowly(fd, data):
    write(fd, data)
    time.sleep(0.3)

os.write = slowly
threading.Thread(target=interruptions.abandon).start()
interruptions.abandon()
"""


@posix
def test_two_threads_that_end_the_process_tell_it_once() -> None:
    ended = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=150)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "interrupted\n")


@posix
def test_a_closed_pipe_does_not_end_an_upload(tmp_path: Path, desk: str, image_file: ImageFile, cli: Cli) -> None:
    process = start(tmp_path, "image", "upload", image_file("1.1.0"), "-d", desk, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("upload: ")
    process.stdout.close()
    assert process.wait(100) == 0
    assert cli("image", "list", "-d", desk, "--json").result["slots"][1]["version"] == "1.1.0"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to write to")
def test_a_result_that_is_lost_is_not_taken_for_done(tmp_path: Path) -> None:
    for arguments in (["os", "echo", "hi", "-d", "sim:"], ["--version"]):
        with open("/dev/full", "w") as full:
            process = start(tmp_path, *arguments, stdout=full)
            _, err = process.communicate(timeout=150)
        assert process.returncode == 14
        assert re.fullmatch(r"error: the \w+ cannot be written[a-z ]*: No space left on device\n", err)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to write to")
def test_what_is_done_is_done_whether_it_can_be_told_or_not(
    tmp_path: Path, desk: str, image_file: ImageFile, cli: Cli
) -> None:
    with open("/dev/full", "w") as full:
        process = start(tmp_path, "image", "upload", image_file("1.1.0"), "-d", desk, "--json", stdout=full)
        _, err = process.communicate(timeout=150)
    assert process.returncode == 0
    assert err == "warning: the result cannot be written to standard output: No space left on device\n"
    assert cli("image", "list", "-d", desk, "--json").result["slots"][1]["version"] == "1.1.0"


def read_all(descriptor: int) -> str:
    """What a terminal got, until everybody at its other end has left."""
    got = b""
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:
            chunk = b""
        if not chunk:
            return got.decode("utf-8")
        got += chunk


def on_terminal(tmp_path: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    """Run a command whose output goes to a terminal; its exit code and everything it wrote."""
    import pty

    ours, theirs = pty.openpty()
    try:
        process = start(tmp_path, *arguments, stdout=theirs, stderr=theirs, variables=variables)
        os.close(theirs)
        text = read_all(ours)
        return process.wait(100), text
    finally:
        os.close(ours)


@posix
def test_on_a_terminal(tmp_path: Path, desk: str, image_file: ImageFile) -> None:
    code, text = on_terminal(tmp_path, "image", "upload", image_file("1.1.0"), "-d", desk, TERM="xterm-256color")
    assert code == 0
    assert "\x1b[32m✓\x1b[0m \x1b[1mupload " in text
    assert "━" in text
    assert "KB/s" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0  # the cursor is back
    assert "\r\nuploaded 1.1.0" in text


@posix
def test_on_a_dumb_terminal(tmp_path: Path, desk: str, image_file: ImageFile) -> None:
    code, text = on_terminal(tmp_path, "image", "upload", image_file("1.1.0"), "-d", desk, TERM="dumb")
    assert code == 0
    assert "\x1b" not in text
    assert "upload: 100 %" in text


@posix
def test_errors_and_help_on_a_terminal(tmp_path: Path) -> None:
    code, text = on_terminal(tmp_path, "os", "echo", "hi", TERM="xterm")
    assert code == 2
    assert text.startswith("\x1b[31m\x1b[1merror: \x1b[0m")
    code, text = on_terminal(tmp_path, "os", TERM="xterm", NO_COLOR="1")
    assert code == 0
    assert "\x1b" not in text


# Of a session of its own, the program gets a terminal of its own: Ctrl-C typed there is a signal to it.
ON_ITS_TERMINAL = """
import os, sys
terminal = os.open(sys.argv[1], os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(terminal, number)
os.execv(sys.executable, [sys.executable, "-W", "error", *sys.argv[2:]])
"""

ASKING = """
import sys
from mcumgrx.cli.command import make_command
from mcumgrx.plugin_api import cli_command

@cli_command(needs_device=False)
async def ask(context):
    return "answered " + ("yes" if await context.confirm("Really?\\x1b[2J") else "no")

made = make_command("ask", ask, ask.__mcumgrx_command__)
sys.exit(made.main([], standalone_mode=False))
"""


def typed_at(question: str, typed: str, program: list[str]) -> tuple[int, str]:
    """Run Python with these arguments on a terminal of its own, type when it asks; its exit code and what it wrote."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", ON_ITS_TERMINAL, os.ttyname(theirs), *program],
        start_new_session=True,
        env=environment(TERM="xterm-256color"),
    )
    try:
        text = ""
        while question not in text:
            text += os.read(ours, 1000).decode(errors="replace")
        os.close(theirs)
        os.write(ours, typed.encode())
        text += read_all(ours)
        return process.wait(100), text
    finally:
        os.close(ours)
        process.kill()
        process.wait()


@posix
@pytest.mark.parametrize(
    ("typed", "code", "end"),
    [("y\n", 0, "answered yes"), ("\n", 0, "answered no"), ("never\n", 0, "answered no"), ("\x03", 130, "interrupted")],
    ids=["y", "enter", "never", "Ctrl-C"],
)
def test_a_question_on_a_terminal(typed: str, code: int, end: str) -> None:
    ended, text = typed_at("[y/N] ", typed, ["-c", ASKING])
    assert "Really?\\x1b[2J [y/N] " in text
    assert ended == code
    assert text.splitlines()[-1].endswith(end)


@posix
@pytest.mark.parametrize(
    ("typed", "code", "end"),
    [("y\n", 0, "done: "), ("\n", 11, "hint: "), ("\x03", 130, "interrupted")],
    ids=["y", "enter", "Ctrl-C"],
)
def test_an_update_without_a_way_back_asks_on_a_terminal(
    tmp_path: Path, image_file: ImageFile, typed: str, code: int, end: str
) -> None:
    device = f"sim:,{QUICK},mode=overwrite,state={tmp_path / 'one-way.json'}"
    program = ["-m", "mcumgrx", "dfu", image_file("1.1.0"), "-d", device]
    ended, text = typed_at("Go on all the same? [y/N] ", typed, program)
    assert ended == code
    before, _, after = text.partition("Go on all the same?")
    assert "overwrites the old image: there is no way back" in before
    assert end in after
    assert ("1.1.0 runs" in after) == (code == 0)


def test_output_that_the_encoding_lacks(run_process: Cli, desk: str, image_file: ImageFile) -> None:
    ended = run_process("os", "echo", "naïve ✓", "-d", "sim:", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (ended.exit, ended.out) == (0, "na\\xefve \\u2713\n")
