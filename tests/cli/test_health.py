"""The health gate of `mcumgrx dfu`, as the command line has it: commands, plugins' checks, Ctrl-C."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pytest

from mcumgrx import registry
from mcumgrx.registry import Registry

from .test_interrupt import Begin, begin, ended_by

__all__ = ["begin"]

Cli = Callable[..., Any]
ImageFile = Callable[..., str]
Update = Callable[..., Any]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a POSIX shell")


@pytest.fixture
def update(cli: Cli, desk: str, image_file: ImageFile, virtual_time: None) -> Update:
    """Updates the desk to 1.1.0 with these options."""

    def run(*options: str) -> Any:
        return cli("dfu", image_file("1.1.0"), "-d", desk, *options)

    return run


@pytest.fixture
def runs(cli: Cli, desk: str, virtual_time: None) -> Callable[[], list[tuple[str, bool]]]:
    """The versions on the desk, and whether each is confirmed."""

    def slots() -> list[tuple[str, bool]]:
        listed = cli("image", "list", "-d", desk, "--json").result["slots"]
        return [(slot["version"], slot["confirmed"]) for slot in listed]

    return slots


ON_TRIAL = [("1.1.0", False), ("1.0.0", True)]
DONE = [("1.1.0", True), ("1.0.0", False)]
BACK = [("1.0.0", True), ("1.1.0", False)]


# -- commands ---------------------------------------------------------------------------------------------------------


def test_a_command_that_is_content(update: Update, desk: str, runs: Any, tmp_path: Path) -> None:
    told = tmp_path / "told"
    ended = update("--health-check", f"env | grep ^MCUMGRX_ >{told}; echo warm; echo on >&2", "--soak", "20")
    assert ended.exit == 0, ended.err
    facts = dict(line.split("=", 1) for line in told.read_text().splitlines())
    assert (facts["MCUMGRX_DEVICE"], facts["MCUMGRX_VERSION"]) == (desk, "1.1.0")
    assert len(bytes.fromhex(facts["MCUMGRX_HASH"])) == 32
    assert "  5. watch for 20 s that it stays up\n" in ended.err
    assert "note: health check: warm\nnote: health check: on\n" in ended.err
    assert "soak: 1.1.0 stayed up (20 s)\n" in ended.err
    assert ended.out.startswith("done: 1.1.0 is running and confirmed (")
    assert runs() == DONE


def test_what_it_prints_does_no_harm_to_json(update: Update, runs: Any) -> None:
    ended = update("--json", "--health-check", r"printf '{\033[1m\n\377'; exit 3")
    assert (ended.exit, ended.err) == (10, "")
    *events, last = ended.records
    notes = [record["text"] for record in events if record["event"] == "note"]
    assert notes == ["health check: {\\x1b[1m", "health check: \ufffd"]
    error = last["error"]
    assert (error["code"], error["outcome"], error["stage"]) == ("unhealthy", "unhealthy", "check")
    assert "exit status 3; left unconfirmed" in error["message"]
    assert runs() == ON_TRIAL


def test_an_unhealthy_image_is_taken_back_with_rollback(update: Update, runs: Any) -> None:
    ended = update("--health-check", "false", "--rollback")
    assert ended.exit == 7
    assert "taken back: 1.0.0 runs again" in ended.err
    assert runs() == BACK
    assert update("--rollback").exit == 2
    assert "--rollback needs a check that can fail" in update("--rollback").err


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A named pipe, and the end of it from which a test reads."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield path, end
    os.close(end)


def heard(end: int) -> bytes:
    """What has been written into a pipe: nothing once nobody has it open for writing any more."""
    assert select.select([end], [], [], 60)[0], "nobody writes, and somebody still could"
    return os.read(end, 100)


def test_a_command_that_hangs_is_ended_with_all_that_it_has_started(
    update: Update, runs: Any, pipe: tuple[Path, int]
) -> None:
    command = f"exec 9>{pipe[0]}; echo begun >&9; sleep 300 & wait"
    ended = update("--health-check", command, "--health-timeout", "0.5")
    assert ended.exit == 10
    assert "no result within 0.5 s; left unconfirmed" in ended.err
    assert runs() == ON_TRIAL
    assert heard(pipe[1]) == b"begun\n"
    assert heard(pipe[1]) == b""


@pytest.mark.parametrize(
    ("command", "exit", "text"),
    [
        ("/no/such/command", 9, "the command cannot be run (exit status 127 of the shell)"),
        ("/", 9, "the command cannot be run (exit status 126 of the shell)"),
        ("kill -9 $$", 10, "ended by SIGKILL"),
        ("exit 1", 10, "exit status 1"),
    ],
)
def test_how_commands_end(update: Update, runs: Any, command: str, exit: int, text: str) -> None:
    ended = update("--health-check", command)
    assert ended.exit == exit
    assert text in ended.err
    assert runs() == ON_TRIAL


def test_a_command_of_several_lines_is_named_in_one(update: Update) -> None:
    ended = update("--health-check", "true\ntrue  &&\n\ttrue", "--json")
    assert ended.exit == 0, ended.out
    assert ended.result["plan"]["steps"][4]["text"] == "check that it is healthy: true true && true"


def test_an_empty_command_is_a_mistake(update: Update, runs: Any) -> None:
    assert update("--health-check", " ").exit == 2
    assert runs() == [("1.0.0", True)]


def test_the_command_can_use_the_device_itself(run_process: Cli, desk: str, image_file: ImageFile) -> None:
    command = f"{sys.executable} -m mcumgrx image list | grep '1.1.0  active$'"
    ended = run_process("dfu", image_file("1.1.0"), "-d", desk, "--health-check", command)
    assert ended.exit == 0, ended.err
    assert "note: health check: slot 0  1.1.0  active" in ended.err


def test_the_plan_tells_of_it_and_nothing_is_run(update: Update, tmp_path: Path) -> None:
    ended = update("--dry-run", "--health-check", f"touch {tmp_path / 'run'}", "--soak", "5", "--rollback")
    assert ended.exit == 0
    assert "5. watch for 5 s that it stays up: one that restarts is not confirmed\n6. check that" in ended.out
    assert "note: 1.1.0 is taken back by a reset if it is not healthy" in ended.err
    assert not (tmp_path / "run").exists()
    refused = update("--mode", "confirm-only", "--soak", "5", "--rollback", "--dry-run", "--json")
    assert (refused.exit, refused.error["code"]) == (11, "plan-refused")


# -- checks of plugins ------------------------------------------------------------------------------------------------


PLUGIN = """
from mcumgrx.plugin_api import CheckPlugin, OsGroup, hookimpl

@hookimpl
def mcumgrx_checks():
    return [CheckPlugin("acme heater", "Is it warm?", load="acme_checks:{function}")]

async def warm(client, image):
    assert await client.group(OsGroup).echo(image.version) == "1.1.0"

async def cold(client, image):
    return "it stays cold"

async def broken(client, image):
    raise KeyError("part")

def plain(client, image):
    return None

number = 3
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs a plugin with this check."""

    def install(function: str) -> None:
        (tmp_path / "acme_checks.py").write_text(PLUGIN.format(function=function))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "acme_checks", raising=False)
        points = [EntryPoint("acme", "acme_checks", "mcumgrx"), *entry_points(group="mcumgrx")]
        made = Registry(entry_points=points)
        monkeypatch.setattr(registry, "default_registry", lambda: made)

    return install


@pytest.mark.parametrize(
    ("function", "exit", "text"),
    [
        ("warm", 0, "check: acme heater: healthy"),
        ("cold", 10, "1.1.0 is not healthy: acme heater: it stays cold"),
        ("broken", 9, "could not be checked: acme heater: the check itself failed: KeyError: 'part'"),
        ("plain", 9, "could not be checked: acme heater: the check itself failed: TypeError"),
    ],
)
def test_a_check_of_a_plugin(
    plugin: Callable[[str], None], update: Update, runs: Any, function: str, exit: int, text: str
) -> None:
    plugin(function)
    ended = update()
    assert ended.exit == exit, ended.err
    assert text in ended.err
    assert runs() == (ON_TRIAL if exit else DONE)


@pytest.mark.parametrize("function", ["gone", "number"])
def test_a_check_that_cannot_be_made_stops_it_before_anything_is_changed(
    plugin: Callable[[str], None], update: Update, runs: Any, function: str
) -> None:
    plugin(function)
    ended = update()
    assert ended.exit == 8
    assert "the plugin 'acme' is broken" in ended.err
    assert runs() == [("1.0.0", True)]
    assert update("--mode", "upload-only").exit == 0  # where nothing is checked


# -- ended from outside -----------------------------------------------------------------------------------------------


def test_an_interrupted_check_leaves_it_unconfirmed(
    begin: Begin, cli: Cli, desk: str, image_file: ImageFile, pipe: tuple[Path, int]
) -> None:
    command = f"exec 9>{pipe[0]}; echo begun >&9; sleep 300"
    process = begin("dfu", image_file("1.1.0"), "-d", desk, "--health-check", command, "--rollback")
    assert heard(pipe[1]) == b"begun\n"
    err = ended_by(process, signal.SIGINT)
    assert "warning: interrupted before 1.1.0 was confirmed: it is left as it is" in err
    assert "interrupted; run the same command again to continue" in err
    assert heard(pipe[1]) == b""
    slots = cli("image", "list", "-d", desk, "--json").result["slots"]
    assert [(slot["version"], slot["confirmed"]) for slot in slots] == ON_TRIAL


def test_two_signals_at_once_end_the_command_too(
    begin: Begin, image_file: ImageFile, desk: str, pipe: tuple[Path, int]
) -> None:
    command = f"trap '' INT TERM; exec 9>{pipe[0]}; echo begun >&9; echo begun; sleep 300 & wait; wait"
    process = begin("dfu", image_file("1.1.0"), "-d", desk, "--health-check", command)
    assert heard(pipe[1]) == b"begun\n"
    assert process.stderr is not None
    assert any("health check: begun" in line for line in process.stderr)  # so that it is known by now
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert heard(pipe[1]) == b""
