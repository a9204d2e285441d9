"""Group 9 against the simulated device and recorded answers: words and lines, exit statuses, the interactive loop."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcumgrx.client import Client
from mcumgrx.errors import DeviceError, MalformedReply, McumgrError, RequestTimeout
from mcumgrx.events import Note
from mcumgrx.messages.message import Reply, decode_body, encode_body
from mcumgrx.protocol.header import Header, Op
from mcumgrx.registry import default_registry
from mcumgrx.sim.device import DeviceConfig
from mcumgrx.sim.groups.shell import ShellCommand, ShellConfig, ShellServer, Terminal
from mcumgrx.testing.golden import Exchange, read_rows
from mcumgrx_plugins.shell import commands
from mcumgrx_plugins.shell.console import Console, harmless
from mcumgrx_plugins.shell.group import ShellGroup
from mcumgrx_plugins.shell.messages import Execute, ShellOutput, plain_text, quoted

from ..support.simulated import CutAnswers, Desk

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


# -- the message ------------------------------------------------------------------------------------------------------


def recorded() -> Iterator[tuple[str, Exchange]]:
    """Every exchange of group 9 in the recordings."""
    for path in sorted(GOLDEN.glob("zephyr-*.jsonl")):
        for row in read_rows(path):
            if isinstance(row, Exchange) and row.header.group == 9:
                yield f"{path.stem}: {row.name}", row


RECORDED = list(recorded())


@pytest.mark.parametrize(("name", "row"), RECORDED, ids=[name for name, _ in RECORDED])
def test_recorded_exchanges(name: str, row: Exchange) -> None:
    assert row.response is not None
    argv = row.request_body.get("argv")
    command = Execute(tuple(argv or ()))
    if argv is not None and row.header.op == Op.WRITE:
        assert command.request().payload == row.request[8:]
    header = Header.unpack(row.response)
    reply = Reply(header.op, header.version, header.flags, header.group, header.sequence, 0, row.response[8:])
    said = row.response_body
    if "o" in said:
        assert command.result(reply) == ShellOutput(said["o"], said["ret"])
        return
    with pytest.raises(DeviceError) as refused:
        command.result(reply)
    expected = said["err"]["rc"] if "err" in said else said["rc"]
    assert (refused.value.rc, refused.value.name is not None) == (expected, True)


def test_a_command_whose_answer_cannot_be_read_has_run() -> None:
    desk = Desk()
    desk.device.add_group(ShellServer(ShellConfig()))
    desk.transport = CutAnswers(desk.device, (Op.WRITE, 9, 0))
    with pytest.raises(MalformedReply, match="may have carried it out") as raised:
        desk.command(commands.run, command=("kernel", "version"))
    assert "has run" in str(raised.value.hint)


def test_the_recordings_are_there() -> None:
    assert len(RECORDED) == 24


def result(body: dict[str, Any] | bytes) -> ShellOutput:
    payload = body if isinstance(body, bytes) else encode_body(body)
    return Execute(("x",)).result(Reply(3, 1, 0, 9, 0, 0, payload))


def test_the_exit_status_of_older_servers_is_in_rc() -> None:
    assert result({"o": "text", "rc": -8}) == ShellOutput("text", -8)
    assert result({"o": "", "rc": 0, "more": 1}) == ShellOutput("", 0, {"more": 1})
    assert result({"o": "", "ret": 3, "rc": 0}) == ShellOutput("", 3)
    assert result({"o": ""}) == ShellOutput("", 0)


def test_malformed_answers() -> None:
    for body in ({"ret": 0}, {"o": b"", "ret": 0}, {"o": "", "ret": "0"}):
        with pytest.raises(MalformedReply):
            result(body)


@pytest.mark.parametrize("size", [5, 23, 24, 200, 300])
@pytest.mark.parametrize("head", [b"\xbf", b"\xa2"])
def test_output_that_was_cut_in_the_middle_of_a_character(size: int, head: bytes) -> None:
    text = ("x" * size).encode() + "ü".encode()[:1]
    if len(text) < 24:
        length = bytes([0x60 + len(text)])
    else:
        length = bytes([0x78, len(text)]) if len(text) < 256 else b"\x79" + len(text).to_bytes(2, "big")
    payload = head + b"\x61o" + length + text + b"\x63ret\x00" + (b"\xff" if head == b"\xbf" else b"")
    assert result(payload) == ShellOutput("x" * size + "?", 0)


@given(st.binary(max_size=40))
def test_any_payload_is_an_answer_or_malformed(payload: bytes) -> None:
    for data in (payload, b"\xbfao" + payload):
        with suppress(DeviceError, MalformedReply):
            result(data)


# -- words and lines --------------------------------------------------------------------------------------------------


def device_words(line: str) -> list[str]:
    """The words that Zephyr's shell makes of a line, by the rules of its `shell_utils.c`."""
    words: list[str] = []
    word: str | None = None
    quote = ""
    at = 0
    line = line.strip(" \t\n\r\v\f")  # it trims the line first
    while at < len(line):
        char = line[at]
        at += 1
        if quote:
            assert word is not None
            if char == quote:
                quote = ""
            elif char == "\\" and line[at : at + 1] == quote:
                word += line[at]
                at += 1
            else:
                # In quotation marks \0… and \x… are characters by their number.
                assert not (char == "\\" and line[at : at + 1] in ("0", "x"))
                word += char
        elif char in " \t\n\r\v\f":
            if word is not None:
                words.append(word)
            word = None
        elif char in "\"'":
            quote, word = char, word or ""
        elif char == "\\":
            word = (word or "") + line[at : at + 1]
            at += 1
        else:
            word = (word or "") + char
    assert not quote
    return [*words, word] if word is not None else words


QUOTED = {
    "plain": "plain",
    "": '""',
    "two words": '"two words"',
    "it's": '"it\'s"',
    'say "hi"': '"say "\\"hi\\"',
    "back\\slash": "back\\\\slash",
    "\\x41 \\0": '\\\\"x41 "\\\\0',
    "ends with space ": '"ends with space "',
}


@pytest.mark.parametrize(("word", "expected"), QUOTED.items())
def test_quoting(word: str, expected: str) -> None:
    assert quoted([word]) == (expected,)
    assert device_words(expected) == [word]


@given(st.lists(st.text("ab\\\"' 0x\t", max_size=8) | st.text(max_size=5).filter(lambda text: "\0" not in text)))
def test_words_arrive_as_they_were(words: list[str]) -> None:
    line = " ".join(quoted(words))
    assert device_words(line) == words
    assert shlex.split(line) == words, "as the simulated shell takes it apart"


def test_plain_text() -> None:
    assert plain_text("\r\n\x1b[1;31mnope: command not found\r\n\x1b[m") == "nope: command not found"
    assert plain_text("\r\n") == ""
    assert plain_text("\r\none\r\n\r\ntwo\r\n") == "one\n\ntwo"
    assert plain_text("a\x1b]0;title\x07b\x1b]8;;x\x1b\\c\x1bMd\x9b2Je") == "abcde"
    assert plain_text("bell\x07 and \x08 stay for the command line") == "bell\x07 and \x08 stay for the command line"
    assert harmless("a\x07\tb\n\u202ec\ud800") == "a\\x07\tb\n\\u202ec\\ud800"


# -- the group --------------------------------------------------------------------------------------------------------


def run(desk: Desk, *argv: str, **options: Any) -> ShellOutput:
    async def work(client: Client) -> ShellOutput:
        return await client.group(ShellGroup).run(argv, **options)

    return desk.client(work)


def echo(terminal: Terminal, arguments: list[str]) -> int:
    terminal.print("|".join(arguments))
    return len(arguments)


def shell(*commands: ShellCommand, **options: Any) -> Desk:
    desk = Desk()
    desk.device.add_group(ShellServer(ShellConfig((ShellCommand("args", "", echo), *commands), **options)))
    return desk


def test_run() -> None:
    desk = shell()
    assert run(desk, "args", "one", "two words", 'a "b" \\') == ShellOutput('\r\none|two words|a "b" \\\r\n', 3)
    assert run(desk, "frobnicate").status == -8
    assert run(Desk(DeviceConfig.like("zephyr-3.2")), "nope").status == -8
    legacy = shell(legacy_rc=True)
    assert run(legacy, "args", "x") == ShellOutput("\r\nx\r\n", 1)


def test_long_output_is_cut_but_not_lost() -> None:
    many = ShellCommand("many", "", lambda terminal, arguments: terminal.print("ü" * 200))
    assert run(shell(many, output_size=100), "many").text == "\r\n" + "ü" * 48 + "?"


def test_refusals_and_their_hints() -> None:
    wide = ShellCommand("wide", "", lambda terminal, arguments: terminal.print("x" * 500))
    for argv, code, hint in (
        (("wide",), "MESSAGE_SIZE", "the command did run"),
        (("x" * 300,), "COMMAND_TOO_LONG", "CONFIG_SHELL_CMD_BUFF_SIZE"),
        ((), "EMPTY_COMMAND", ""),
    ):
        with pytest.raises(DeviceError) as error:
            run(shell(wide), *argv)
        assert error.value.name == code
        assert hint in (error.value.hint or "")
    with pytest.raises(DeviceError) as error:
        run(Desk(DeviceConfig(groups=(0, 1))), "help")
    assert "CONFIG_MCUMGR_GRP_SHELL" in (error.value.hint or "")
    with pytest.raises(DeviceError) as error:
        run(Desk(DeviceConfig.like("zephyr-3.2")), "x" * 300)
    assert "255" in (error.value.hint or "")


def test_a_command_is_never_repeated() -> None:
    count = 0

    def counted(terminal: Terminal, arguments: list[str]) -> int:
        nonlocal count
        count += 1
        return 0

    desk = shell(ShellCommand("counted", "", counted))
    desk.faults.drop_replies = 1
    with pytest.raises(RequestTimeout) as error:
        run(desk, "counted")
    assert "--timeout" in (error.value.hint or "")
    assert count == 1


def test_a_slow_command_gets_its_time() -> None:
    desk = Desk()
    assert run(desk, "kernel", "sleep", "9000").status == 0
    with pytest.raises(RequestTimeout):
        run(Desk(), "kernel", "sleep", "11000")
    assert run(Desk(), "kernel", "sleep", "11000", timeout_s=20.0).status == 0


# -- commands ---------------------------------------------------------------------------------------------------------


def test_the_run_command() -> None:
    desk = shell()
    done = desk.command(commands.run, command=("args", "a b", "c"))
    assert (done.line, done.status, done.exit_code) == ('args "a b" c', 2, 13)
    assert done.lines() == ["a b|c"]
    assert desk.events == [Note("the command returned 2", warning=True)]
    whole = desk.command(commands.run, command=('args "a b" c',))
    assert (whole.line, whole.lines()) == ('args "a b" c', ["a b|c"])
    none = desk.command(commands.run, command=("args",))
    assert (none.exit_code, none.lines()) == (0, [])


def mcumgrx(*arguments: str, cwd: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "mcumgrx", *arguments, "-d", "sim:"],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=150,
        check=False,
    )


def test_exit_codes(tmp_path: Path) -> None:
    good = mcumgrx("shell", "run", "kernel", "version", cwd=tmp_path)
    assert (good.returncode, good.stdout.strip()) == (0, "Zephyr version 4.4.0")
    bad = mcumgrx("shell", "run", "nope", "--json", cwd=tmp_path)
    assert bad.returncode == 13
    found = json.loads(bad.stdout.splitlines()[-1])["result"]
    assert (found["line"], found["status"]) == ("nope", -8)
    assert "\x1b" not in bad.stdout


def test_lines_from_a_pipe(tmp_path: Path) -> None:
    done = mcumgrx("shell", "open", cwd=tmp_path, stdin='kernel version\r\n\n  echo "a  b"  \nnope\necho last')
    assert done.stdout == "Zephyr version 4.4.0\na  b\nnope: command not found\nlast\n"
    assert done.returncode == 0
    assert "the command returned -8" in done.stderr
    failed = mcumgrx("shell", "open", cwd=tmp_path, stdin="echo first\nnope\n")
    assert (failed.returncode, failed.stdout) == (13, "first\nnope: command not found\n")
    refused = mcumgrx("shell", "open", cwd=tmp_path, stdin=f"{'x' * 300}\necho never\n")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert mcumgrx("shell", "open", cwd=tmp_path).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pseudo-terminal")
def test_typed_lines(tmp_path: Path) -> None:
    """On a terminal: a prompt, errors and a Ctrl-C that do not end it, Ctrl-D, and a terminal that is as before."""
    import pty
    import termios

    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = subprocess.Popen(
        [sys.executable, "-m", "mcumgrx", "shell", "open", "-d", "sim:"],
        cwd=tmp_path,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**os.environ, "TERM": "dumb"},
    )
    try:
        shown = ""

        def until(text: str) -> None:
            nonlocal shown
            while text not in shown:
                shown += os.read(master, 4096).decode(errors="replace")
            shown = shown.partition(text)[2]

        until("device:~$ ")
        os.write(master, b"kernel version\r")
        until("Zephyr version 4.4.0")
        until("device:~$ ")
        os.write(master, b"x" * 300 + b"\r")
        until("too long")
        until("device:~$ ")
        os.write(master, b"half a li")
        until("half a li")
        os.write(master, b"\x03echo still here\r")  # Ctrl-C throws the half one away, and no more
        until("\nstill here")
        until("device:~$ ")
        os.write(master, b"\x04")
        assert process.wait(timeout=150) == 0
        assert termios.tcgetattr(slave) == before
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)
        os.close(slave)


async def test_a_console_that_cannot_be_read_or_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> Any:
        raise OSError(5, "Input/output error")

    console = Console()
    console.is_terminal = False
    monkeypatch.setattr("mcumgrx_plugins.shell.console.os.read", broken)
    with pytest.raises(McumgrError, match="input cannot be read"):
        await console.line("")
    monkeypatch.undo()
    monkeypatch.setattr("mcumgrx_plugins.shell.console.os.write", broken)
    with pytest.raises(McumgrError, match="output cannot be written"):
        console.show("text")


def test_it_is_a_plugin_like_any_other() -> None:
    registry = default_registry()
    assert registry.groups[9].name == "shell"
    assert [name for name in registry.commands if name.startswith("shell ")] == ["shell run", "shell open"]


def test_the_payload_of_a_request() -> None:
    assert decode_body(Execute(("kernel", "version")).request().payload) == {"argv": ["kernel", "version"]}
    assert not Execute(("x",)).request().repeatable
