"""Commands as they are run: the options of every command, results, failures, logs."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from mcumgrx._version import __version__
from mcumgrx.cli.command import make_command
from mcumgrx.plugin_api import Argument, CliContext, DeviceText, Option, PluginError, UsageError, cli_command
from mcumgrx.protocol.header import Header
from mcumgrx.sim.device import Answer, SimulatedDevice

Cli = Callable[..., Any]


# -- options ----------------------------------------------------------------------------------------------------------


def test_echo(cli: Cli) -> None:
    ended = cli("os", "echo", "hello", "-d", "sim:")
    assert (ended.exit, ended.out, ended.err) == (0, "hello\n", "")


def test_json(cli: Cli) -> None:
    ended = cli("os", "echo", "hello", "-d", "sim:", "--json")
    assert ended.records == [{"schema": 1, "command": "os echo", "result": {"text": "hello", "same": True}}]
    assert ended.err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["-d", "sim:", "os", "echo", "hi"],
        ["os", "-d", "sim:", "echo", "hi"],
        ["os", "echo", "-d", "sim:", "hi"],
        ["os", "echo", "hi", "--device", "sim:"],
        ["-d", "sim:", "os", "echo", "hi", "-d", "sim:"],
    ],
    ids=" ".join,
)
def test_the_device_can_be_named_anywhere(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments).out == "hi\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["os", "echo", "hi", "-d", "sim:a", "-d", "sim:b"],
        ["-d", "sim:a", "os", "echo", "hi", "-d", "sim:b"],
        ["os", "-d", "sim:a", "echo", "-d", "sim:b", "hi"],
        ["os", "-d", "sim:a", "--device", "sim:b"],
    ],
    ids=" ".join,
)
def test_of_two_devices_none_is_chosen_in_silence(cli: Cli, arguments: list[str]) -> None:
    ended = cli(*arguments)
    assert (ended.exit, ended.out) == (2, "")
    assert ended.err.startswith("error: -d is given more than once: sim:a and sim:b\n")


def test_a_device_on_the_command_line_is_no_second_one_beside_the_environment(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCUMGRX_DEVICE", "serial:/no where")
    assert cli("os", "echo", "hi", "-d", "sim:").out == "hi\n"
    assert "'/no where'" in cli("os", "echo", "hi").err or "/no where" in cli("os", "echo", "hi").err


def test_the_environment_is_the_weakest(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCUMGRX_DEVICE", "sim:")
    assert cli("os", "echo", "hi").out == "hi\n"
    monkeypatch.setenv("MCUMGRX_DEVICE", "serial:/nowhere")
    monkeypatch.setenv("MCUMGRX_JSON", "1")
    assert cli("-d", "sim:", "os", "echo", "hi").result["text"] == "hi"
    assert cli("os", "echo", "hi").exit == 3
    assert cli("os", "nonsense").error["exit"] == 2


def test_without_a_device_the_hint_shows_how_to_name_one(cli: Cli) -> None:
    ended = cli("os", "echo", "hi")
    assert ended.exit == 2
    said, hint = ended.err.splitlines()
    assert said == "error: no device is given"
    assert "-d sim:" in hint
    assert "-d serial:/dev/ttyACM0,baud=115200" in hint
    assert "MCUMGRX_DEVICE" in hint
    assert cli("dfu", "no-such-file", "--json").error["message"] == "no device is given"


@pytest.mark.parametrize(
    ("address", "code", "message"),
    [
        ("foo:", 2, "no plugin knows addresses that begin with 'foo:'"),
        ("nonsense", 2, "'nonsense' is not a device address"),
        ("sim:,colour=red", 2, "sim: does not know the option 'colour'"),
        ("serial:/nowhere/at/all", 3, "/nowhere/at/all"),
    ],
)
def test_addresses_that_lead_nowhere(cli: Cli, address: str, code: int, message: str) -> None:
    ended = cli("os", "echo", "hi", "-d", address)
    assert ended.exit == code
    assert message in ended.err.splitlines()[0]
    assert ended.err.splitlines()[1].startswith("hint: ")
    assert cli("os", "echo", "hi", "-d", address, "--json").error["exit"] == code


def test_a_refusal_of_the_device(cli: Cli) -> None:
    ended = cli("os", "params", "-d", "sim:,params=no", "--json")
    assert ended.exit == 5
    assert ended.error["kind"] == "DeviceError"
    assert ended.error["rc"] == 8
    assert ended.error["code"] == "device-refused"


# -- logs -------------------------------------------------------------------------------------------------------------


def test_a_log_file_has_everything_and_stays_plain(cli: Cli, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert cli("os", "echo", "hi\x1b[31m", "-d", "sim:", "--log-file", str(log)).err == ""
    assert cli("os", "echo", "-d", "sim:x,colour=red", "y", "--log-file", str(log)).exit == 2
    text = log.read_text("utf-8")
    assert "mcumgrx.link" in text
    assert "Traceback" in text
    assert "\x1b" not in text


def test_a_log_file_tells_what_was_asked_for_and_what_came_of_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def logged(*arguments: str) -> str:
        log = tmp_path / "log.txt"
        log.unlink(missing_ok=True)
        cli(*arguments, "--log-file", str(log))
        return log.read_text("utf-8")

    text = logged("os", "echo", "hello you", "-d", "sim:")
    assert f"mcumgrx.story: mcumgrx {__version__} (" in text
    assert f'command: mcumgrx os echo "hello you" -d sim: --log-file {tmp_path}' in text
    assert "result: hello you\n" in text
    assert text.splitlines()[-1].endswith("exit code 0 (done)")

    monkeypatch.setenv("MCUMGRX_DEVICE", "sim:,params=no")
    text = logged("os", "params", "--json")
    assert "os params, device: sim:,params=no" in text
    assert "-d comes from MCUMGRX_DEVICE: sim:,params=no" in text
    assert "error: the device refused the buffer query: " in text
    assert "hint: " in text
    assert text.splitlines()[-1].endswith("exit code 5 (device-refused)")

    text = logged("raw", "os", "0", "--write")  # with an event on the way
    assert "what it has done was not looked at" in text
    assert "result: {" in text

    for arguments in (["os", "echo"], ["os", "nonsense"]):
        text = logged(*arguments)
        assert f"command: mcumgrx {' '.join(arguments)}" in text
        assert "error: " in text
        assert text.splitlines()[-1].endswith("exit code 2 (usage)")


def odd_log_files(folder: Path) -> list[tuple[str, str]]:
    """Paths that cannot take a log, and what is said of each."""
    read_only = folder / "gone" / "log"
    files = [(str(folder), "Is a directory"), (str(read_only), "No such file or directory")]
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe")
        files.append((str(folder / "pipe"), "it is a pipe that nobody reads"))
    if Path("/dev/full").exists():
        files.append(("/dev/full", "No space left on device"))
    return files


def test_a_log_file_that_cannot_be_written_costs_a_warning(cli: Cli, tmp_path: Path) -> None:
    for path, reason in odd_log_files(tmp_path):
        ended = cli("os", "echo", "hi", "-d", "sim:", "--log-file", path)
        assert (ended.exit, ended.out) == (0, "hi\n")
        assert ended.err.count("warning: ") == ended.err.count("\n") == 1
        assert path in ended.err
        assert reason in ended.err


def test_verbosity_adds_up(cli: Cli) -> None:
    assert "mcumgrx." not in cli("os", "echo", "hi", "-d", "sim:").err
    once = cli("-v", "os", "echo", "hi", "-d", "sim:")
    twice = cli("-v", "os", "echo", "hi", "-d", "sim:", "-v")
    assert len(once.err) < len(twice.err)
    assert "mcumgrx.link: " in twice.err
    assert "asyncio" not in twice.err
    assert once.out == twice.out == "hi\n"


def test_logging_is_left_as_it_was(cli: Cli) -> None:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    cli("os", "echo", "hi", "-d", "sim:", "-vv")
    assert (root.level, list(root.handlers)) == before


# -- commands of one's own --------------------------------------------------------------------------------------------


def run(function: Any, *arguments: str) -> int:
    """Run an async function as the command `test it`."""
    made = make_command("test it", function, function.__mcumgrx_command__)
    code: int = made.main(list(arguments), standalone_mode=False)
    return code


def test_parameters_reach_the_function_with_their_types() -> None:
    got: dict[str, Any] = {}

    @cli_command(
        Argument("number", "", type=int),
        Argument("files", "", type=Path, many=True),
        Option("--rate-limit", "", type=float, default=2.5),
        Option("--kind", "", choices=("a", "b"), default="a"),
        Option("--fast", "", type=bool),
        Option("--path", "", type=Path),
        Option("--count", "", type=int, default=16),
        needs_device=False,
    )
    async def function(context: CliContext, **values: Any) -> None:
        got.update(values)

    assert run(function, "0x10", "f1", "f2", "--fast", "--kind", "b", "--count", "-3") == 0
    assert got == {
        "number": 16,
        "files": (Path("f1"), Path("f2")),
        "rate_limit": 2.5,
        "kind": "b",
        "fast": True,
        "path": None,
        "count": -3,
    }
    with pytest.raises(click.UsageError, match="is not one of 'a', 'b'"):
        run(function, "1", "--kind", "c")


def test_two_parameters_cannot_have_one_name() -> None:
    @cli_command(Argument("name", ""), Option("--name", ""))
    async def function(context: CliContext, name: str) -> None: ...

    with pytest.raises(PluginError, match="two parameters 'name'"):
        run(function)


def test_help_is_the_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    @cli_command(epilog="mcumgrx test it -d sim:")
    async def function(context: CliContext) -> None:
        """First paragraph of
        the help.

        Second paragraph.
        """

    run(function, "--help")
    out = capsys.readouterr().out
    assert "  First paragraph of the help.\n\n  Second paragraph.\n" in out
    assert out.endswith("\nExample:\n  mcumgrx test it -d sim:\n")


@pytest.mark.parametrize(("options", "answer"), [([], False), (["--yes"], True)])
def test_a_question_that_nobody_can_answer(options: list[str], answer: bool) -> None:
    answers: list[bool] = []

    @cli_command(needs_device=False)
    async def function(context: CliContext) -> None:
        answers.append(await context.confirm("Erase it?"))

    run(function, *options)
    assert answers == [answer]


def test_text_from_the_device_is_harmless_wherever_it_ends_up(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "\x1b[2J\x07evil"

    @cli_command(needs_device=False)
    async def function(context: CliContext) -> dict[str, str]:
        context.progress(DeviceText(evil + "\n"))
        logging.getLogger("mcumgrx.test").warning("%s", evil)
        return {evil: evil}

    @cli_command(needs_device=False)
    async def failing(context: CliContext) -> None:
        raise UsageError(evil, hint=evil)

    run(function)
    assert run(failing) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\x07" not in out + err
    assert (out + err).count("evil") == 6


def test_a_result_can_carry_an_exit_code() -> None:
    class Result:
        exit_code = 13

        def lines(self) -> list[str]:
            return []

    @cli_command(needs_device=False)
    async def function(context: CliContext) -> Result:
        return Result()

    assert run(function) == 13


def test_timeout_reaches_the_command() -> None:
    got: list[float | None] = []

    @cli_command(needs_device=False)
    async def function(context: CliContext) -> None:
        got.append(context.timeout_s)

    run(function)
    run(function, "--timeout", "1.5")
    assert got == [None, 1.5]


@pytest.mark.usefixtures("virtual_time")
def test_a_warning_on_the_way_is_an_event_for_scripts_and_a_line_for_people(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = SimulatedDevice.handle
    busy = bytes.fromhex("bf6272630aff")  # {"rc": 10}

    def refuse(device: SimulatedDevice, message: bytes, now: float) -> Answer:
        """The image list, for some seconds."""
        answer = handle(device, message, now)
        if Header.unpack(message).group != 1 or now > 5.0:
            return answer
        told = (reply[:2] + len(busy).to_bytes(2, "big") + reply[4:8] + busy for reply in answer.replies)
        return answer._replace(replies=tuple(told))

    monkeypatch.setattr(SimulatedDevice, "handle", refuse)
    text = "the device is busy, and is asked for the image list again for up to 30 s"
    ended = cli("image", "list", "-d", "sim:", "--json")
    assert ended.err == ""
    assert ended.records[0] == {"schema": 1, "event": "note", "text": text, "warning": True}
    assert [sorted(record) for record in ended.records[1:]] == [["command", "result", "schema"]]
    ended = cli("image", "list", "-d", "sim:")
    assert ended.err == f"warning: {text}\n"
    assert ended.out.startswith("slot 0")
