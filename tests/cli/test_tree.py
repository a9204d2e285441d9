"""The tree of commands: help, names that are not there, plugins that do not work."""

from __future__ import annotations

import asyncio
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import pytest

import mcumgrx
from mcumgrx import registry
from mcumgrx.cli import tree, words
from mcumgrx.plugin_api import (
    Argument,
    CliCommand,
    CliContext,
    Event,
    McumgrError,
    Note,
    Option,
    Stage,
    Status,
    cli_command,
    hookimpl,
)
from mcumgrx.registry import Registry

Cli = Callable[..., Any]

HELPS = [
    [],
    ["--help"],
    ["--version"],
    ["dfu", "-h"],
    ["demo", "--help"],
    ["plugins"],
    ["plugins", "list", "--help"],
    ["cache"],
    ["cache", "show", "--help"],
    ["cache", "clear", "--help"],
    ["os"],
    ["os", "echo", "--help"],
    ["os", "reset", "--help"],
    ["os", "params", "--help"],
    ["os", "bootloader", "--help"],
    ["image", "--help"],
    *(["image", name, "--help"] for name in ("list", "upload", "test", "confirm", "erase", "slots", "inspect")),
]

IMPORTS = f"""
import sys
from mcumgrx.cli.main import main

for arguments in {HELPS!r}:
    assert main(arguments) == 0, arguments
    heavy = {{"asyncio", "bleak", "serial", "rich", "cbor2", "dask", "distributed"}} & set(sys.modules)
    assert not heavy, (arguments, heavy)
"""


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", HELPS, ids=" ".join)
def test_help_fits_eighty_columns(cli: Cli, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = cli(*arguments)
    assert (ended.exit, ended.err) == (0, "")
    assert [line for line in ended.out.splitlines() if len(line) > 80] == []
    assert "\x1b" not in ended.out
    assert ended.out.endswith("\n")


def test_help_teaches_by_example(cli: Cli) -> None:
    out = cli().out
    titles = ("Update", "Device", "Tools", "Addresses of devices", "Examples")
    positions = [out.index(f"\n{title}:\n") for title in titles]
    assert positions == sorted(positions)
    assert re.search(r"\n  dfu +Update a device", out)
    assert re.search(r"\n  os +.*echo", out)
    assert "mcumgrx demo " in out
    assert "sim:desk,state=device.json" in out


def test_version(cli: Cli) -> None:
    out = cli("--version").out
    versions = rf"mcumgrx {re.escape(mcumgrx.__version__)} \(codec: (compiled|python), Python"
    assert re.fullmatch(rf"{versions} {re.escape(platform.python_version())}\)\n", out)


def test_help_of_a_command_shows_its_parts(cli: Cli) -> None:
    out = cli("dfu", "--help").out
    for part in ("Arguments:\n  FILE… ", "[default: 60]", "Options of every command:", "Modes:", "Examples:"):
        assert part in out
    assert "[default:\n" not in out


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["dfuu"], "there is no command 'mcumgrx dfuu'", "did you mean 'mcumgrx dfu'?"),
        (["os", "ecko"], "there is no command 'mcumgrx os ecko'", "did you mean 'mcumgrx os echo'?"),
        (["xyzzy"], "there is no command 'mcumgrx xyzzy'", "see 'mcumgrx --help'"),
        (["os", "echo"], "missing argument 'TEXT'", "see 'mcumgrx os echo --help'"),
        (["os", "echo", "a", "b", "-d", "sim:"], "got unexpected extra argument (b)", "see 'mcumgrx os echo --help'"),
        (["dfu", "f", "--chnk", "9"], "no such option '--chnk'", "did you mean --chunk? See 'mcumgrx dfu --help'"),
        (["dfu", "f", "--dry"], "no such option '--dry'", "did you mean --dry-run? See"),
        (["dfu", "f", "--dry_run"], "no such option '--dry_run'", "did you mean --dry-run? See"),
        (["os", "echo", "f", "-json"], "no such option '-j'", "did you mean --json? See"),
        (["os", "echo", "f", "--xyzzy"], "no such option '--xyzzy'", "see 'mcumgrx os echo --help'"),
        (["reset"], "there is no command 'mcumgrx reset'", "did you mean 'mcumgrx os reset'?"),
        (["upgrade"], "there is no command 'mcumgrx upgrade'", "did you mean 'mcumgrx dfu'?"),
        (["flash"], "there is no command", "did you mean 'mcumgrx dfu' or 'mcumgrx image upload'?"),
        (["upload"], "there is no command", "did you mean 'mcumgrx image upload' or 'mcumgrx fs put'?"),
        (["list", "image"], "there is no command 'mcumgrx list'", "did you mean 'mcumgrx image list' or"),
        (["image-list"], "there is no command", "did you mean 'mcumgrx image list'?"),
        (["DFU"], "there is no command", "did you mean 'mcumgrx dfu'?"),
        (["image", "reset"], "there is no command", "did you mean 'mcumgrx os reset'?"),
        (["image", "flash"], "there is no command", "did you mean 'mcumgrx image upload' or 'mcumgrx dfu'?"),
        (["fs", "cat"], "there is no command", "did you mean 'mcumgrx fs get'?"),
        (["help", "osx"], "there is no command 'mcumgrx osx'", "did you mean 'mcumgrx os'?"),
        (["help", "os", "ecko"], "there is no command 'mcumgrx os ecko'", "did you mean 'mcumgrx os echo'?"),
        (["dfu", "f", "--chunk", "many"], "invalid value for '--chunk': 'many' is not a whole number", "see"),
        (["dfu", "f", "--timeout", "0"], "invalid value for '--timeout': it must be more than 0 seconds", "see"),
        (["dfu", "f", "--timeout", "nan"], "invalid value for '--timeout': 'nan' is not a finite number", "see"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_usage_errors(cli: Cli, arguments: list[str], message: str, hint: str) -> None:
    ended = cli(*arguments)
    assert (ended.exit, ended.out) == (2, "")
    said, hinted = ended.err.splitlines()
    assert said.startswith(f"error: {message}")
    assert hint in hinted


def test_help_is_a_command_as_well(cli: Cli) -> None:
    assert cli("help").out == cli("--help").out
    assert cli("help", "os").out == cli("os", "help").out == cli("os", "--help").out
    assert cli("help", "os", "echo").out == cli("os", "help", "echo").out == cli("os", "echo", "--help").out
    assert cli("help", "dfu").out == cli("dfu", "--help").out


def test_what_is_suggested_is_there(cli: Cli) -> None:
    names = {name for names in words._SYNONYMS.values() for name in names} - {"--version"}
    there = {*tree.CORE_COMMANDS, *registry.default_registry().commands}
    assert names <= there


def test_usage_errors_are_objects_with_json(cli: Cli) -> None:
    ended = cli("os", "echo", "--json")
    assert (ended.exit, ended.err) == (2, "")
    assert ended.error == {
        "code": "usage",
        "exit": 2,
        "kind": "UsageError",
        "message": "missing argument 'TEXT'",
        "hint": "see 'mcumgrx os echo --help'",
    }
    assert cli("--json", "nonsense").error["message"] == "there is no command 'mcumgrx nonsense'"
    assert cli("os", "echo", "--", "--json", "more").out == ""  # behind -- it is a text


# -- plugins ----------------------------------------------------------------------------------------------------------


@cli_command(
    Argument("text", "what to say", required=False), Option("--loud", "Say it loud.", type=bool), needs_device=False
)
async def say(context: CliContext, text: str | None, loud: bool) -> str:
    """Say TEXT."""
    return (text or "nothing").upper() if loud else (text or "nothing")


@cli_command(Option("--json", "My own."))
async def clash(context: CliContext, json: str) -> None:
    """Clash."""


@cli_command(needs_device=False)
async def crash(context: CliContext) -> None:
    """Crash."""
    raise ZeroDivisionError("oh")


@cli_command(needs_device=False)
async def leave(context: CliContext) -> None:
    """Leave."""
    sys.exit(4)


@cli_command(needs_device=False)
async def cancel(context: CliContext) -> None:
    """Cancel."""
    raise asyncio.CancelledError


@cli_command(needs_device=False)
async def interrupt(context: CliContext) -> None:
    """Interrupt."""
    raise KeyboardInterrupt


class OddResult:
    """Raises whatever it is asked for."""

    def lines(self) -> list[str]:
        raise SystemExit("lines")

    def as_dict(self) -> dict[str, object]:
        raise GeneratorExit("data")


@cli_command(needs_device=False)
async def odd(context: CliContext) -> OddResult:
    """Return something odd."""
    return OddResult()


class Unspeakable(Event):
    """Its text cannot be had."""

    @property
    def text(self) -> str:
        raise ValueError("broken off")


@cli_command(needs_device=False)
async def stray(context: CliContext) -> str:
    """Print and return something."""
    print("printed\x1b[2J")
    sys.stdout.buffer.write(b"bytes\n")
    context.progress(Unspeakable())
    context.progress(Note("later"))
    return "returned"


class HeadBroken(McumgrError):
    """A vendor's own."""

    exit = 70


class Unworded(McumgrError):
    """One that never calls the constructor of its base."""

    def __init__(self, sensor: int) -> None:
        self.sensor = sensor


@cli_command(Argument("how", "which error"), needs_device=False)
async def fail(context: CliContext, how: str) -> None:
    """Fail."""
    own = HeadBroken("the self-test failed: sensor 3", hint="replace the head")
    raise {"own": own, "plain": McumgrError("it failed"), "unworded": Unworded(3)}[how]


@dataclass(frozen=True)
class WarmingUp(Event):
    """Has no text."""

    degrees: int
    event: str = "mine"


@dataclass(frozen=True)
class Counted(Event):
    """Has one."""

    count: int

    @property
    def text(self) -> str:
        return f"{self.count} counted"


@cli_command(needs_device=False)
async def tell(context: CliContext) -> str:
    """Tell of what goes on."""
    for event in (WarmingUp(21), Counted(3), Stage("calibrate", "both heads"), Status("still at it")):
        context.progress(event)
    context.progress(Stage("calibrate", "2 heads", finished=True, elapsed_s=1.5))
    context.progress({"any": "thing"})  # type: ignore[arg-type]
    return "told"


class Point(EntryPoint):
    """An entry point whose module is here."""

    def load(self) -> ModuleType:
        return sys.modules[__name__] if self.name != "broken" else _explode()


def _explode() -> ModuleType:
    raise ImportError("no module named 'heater'")


@hookimpl
def mcumgrx_commands() -> list[CliCommand]:
    return [
        CliCommand("acme say", "Say something", load=f"{__name__}:say"),
        CliCommand("acme clash", "Clash", load=f"{__name__}:clash"),
        CliCommand("acme crash", "Crash", load=f"{__name__}:crash"),
        CliCommand("acme leave", "Leave", load=f"{__name__}:leave"),
        CliCommand("acme cancel", "Cancel", load=f"{__name__}:cancel"),
        CliCommand("acme interrupt", "Interrupt", load=f"{__name__}:interrupt"),
        CliCommand("acme odd", "Odd", load=f"{__name__}:odd"),
        CliCommand("acme stray", "Stray", load=f"{__name__}:stray"),
        CliCommand("acme fail", "Fail", load=f"{__name__}:fail"),
        CliCommand("acme tell", "Tell", load=f"{__name__}:tell"),
        CliCommand("acme gone", "Gone", load="mcumgrx_acme_gone.commands:gone"),
    ]


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third party's plugin that works, one that is broken, one that is switched off; ours as they are."""
    points = [Point(name, f"mcumgrx_{name}", "mcumgrx") for name in ("acme", "broken", "idle")]
    points += metadata.entry_points(group="mcumgrx")  # type: ignore[arg-type]
    made = Registry(disabled=["idle"], entry_points=points)
    monkeypatch.setattr(registry, "default_registry", lambda: made)


@pytest.mark.usefixtures("acme")
class TestPlugins:
    def test_their_commands_are_like_ours(self, cli: Cli) -> None:
        assert re.search(r"\n  acme +say, clash, crash, ", cli().out)
        assert "Say something" in cli("acme").out
        assert cli("acme", "say", "hello").out == "hello\n"
        assert cli("acme", "say", "hello", "--loud", "--json").result == "HELLO"

    def test_an_option_can_come_from_the_environment(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MCUMGRX_LOUD", "1")
        assert cli("acme", "say", "hello").out == "hello\n"  # that may be an option of another plugin's, or ours
        monkeypatch.setenv("MCUMGRX_ACME_LOUD", "1")
        assert cli("acme", "say", "hello").out == "HELLO\n"

    def test_an_error_of_its_own_is_no_bug(self, cli: Cli) -> None:
        ended = cli("acme", "fail", "own")
        assert (ended.exit, ended.err) == (
            70,
            "error: the self-test failed: sensor 3\nhint: replace the head\n",
        )
        error = cli("acme", "fail", "own", "--json").error
        assert (error["exit"], error["code"], error["kind"]) == (70, "failed", "HeadBroken")
        plain = cli("acme", "fail", "plain", "--json").error
        assert (plain["exit"], plain["code"], plain["message"]) == (15, "failed", "it failed")
        unworded = cli("acme", "fail", "unworded", "--json").error
        assert (unworded["exit"], unworded["message"], unworded["sensor"]) == (15, "3", 3)

    def test_events_of_its_own_are_shown(self, cli: Cli) -> None:
        ended = cli("acme", "tell")
        assert (ended.exit, ended.out) == (0, "told\n")
        assert ended.err.splitlines() == [
            "warming up: degrees 21, event mine",
            "3 counted",
            "calibrate: 2 heads (1.5 s)",
            "dict: any thing",
        ]
        events = [(record.pop("event"), record) for record in cli("acme", "tell", "--json").records[:-1]]
        assert all(record.pop("schema") == 1 for _, record in events)
        assert events == [
            ("warming_up", {"degrees": 21, "event_": "mine"}),
            ("counted", {"count": 3}),
            ("stage", {"stage": "calibrate", "text": "both heads", "finished": False, "elapsed_s": 0.0}),
            ("status", {"text": "still at it"}),
            ("stage", {"stage": "calibrate", "text": "2 heads", "finished": True, "elapsed_s": 1.5}),
            ("dict", {"any": "thing"}),
        ]

    def test_one_that_is_switched_off_is_named(self, cli: Cli) -> None:
        ended = cli("idle", "temperature")
        assert ended.exit == 8
        assert ended.err.splitlines() == [
            "error: the command 'mcumgrx idle' belongs to the plugin 'idle', which is switched off",
            "hint: take it out of MCUMGRX_DISABLE_PLUGINS",
        ]

    def test_one_that_is_broken_is_named_and_breaks_nothing(self, cli: Cli) -> None:
        assert cli("--help").exit == 0
        assert cli("acme", "say").err == ""
        ended = cli("broken", "temperature", "--json")
        assert ended.exit == 8
        assert ended.error["kind"] == "PluginError"
        assert "no module named 'heater'" in ended.error["message"]

    def test_a_command_that_is_not_there_may_be_in_one_that_does_not_work(self, cli: Cli) -> None:
        ended = cli("heater", "on")
        assert ended.exit == 2
        assert "(broken, idle)" in ended.err
        assert "'mcumgrx plugins list'" in ended.err

    def test_a_command_that_cannot_be_loaded_breaks_only_itself(self, cli: Cli) -> None:
        ended = cli("acme", "gone")
        assert ended.exit == 8
        assert "mcumgrx_acme_gone" in ended.err

    def test_why_it_cannot_be_loaded_shows_with_verbosity(self, cli: Cli) -> None:
        assert "Traceback" in cli("acme", "gone", "-vv").err
        assert "Traceback" not in cli("acme", "gone").err

    def test_a_command_cannot_take_the_options_that_all_have(self, cli: Cli) -> None:
        ended = cli("acme", "clash", "--help")
        assert ended.exit == 8
        assert "--json" in ended.err

    def test_a_bug_in_a_plugin_is_its_own(self, cli: Cli) -> None:
        ended = cli("acme", "crash")
        assert ended.exit == 1
        assert "error: this is a bug in the plugin 'acme': ZeroDivisionError: oh" in ended.err
        assert "please tell its author" in ended.err
        assert "Traceback" not in ended.err
        assert "Traceback" in cli("acme", "crash", "-v").err

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("leave", "SystemExit: 4"),
            ("cancel", "CancelledError"),
            ("interrupt", "KeyboardInterrupt"),
            ("odd", "SystemExit: lines"),
        ],
    )
    def test_what_it_raises_is_its_own_whatever_it_is(self, cli: Cli, name: str, said: str) -> None:
        ended = cli("acme", name)
        assert (ended.exit, ended.out) == (1, "")
        assert ended.err.startswith(f"error: this is a bug in the plugin 'acme': {said}\n")
        assert cli("acme", name, "--json").error["exit"] == 1

    def test_results_alone_reach_standard_output(self, cli: Cli) -> None:
        ended = cli("acme", "stray")
        assert (ended.exit, ended.out) == (0, "returned\n")
        printed, raw, warning = ended.err.splitlines()
        assert (printed, raw) == ("printed\\x1b[2J", "bytes")
        assert warning.startswith("warning: what goes on cannot be shown any more: ValueError")
        assert [record.get("result") for record in cli("acme", "stray", "--json").records] == ["returned"]

    def test_the_list_shows_what_works_and_what_does_not(self, cli: Cli) -> None:
        lines = cli("plugins", "list").out.splitlines()
        assert any(re.match(r"os +mcumgrx \S+$", line) for line in lines)
        assert any(re.match(r"broken +unknown distribution, BROKEN$", line) for line in lines)
        assert any("error: it cannot be imported" in line for line in lines)
        assert any(re.match(r"idle .*switched off by MCUMGRX_DISABLE_PLUGINS", line) for line in lines)
        assert all(len(line) <= 80 for line in lines)

    def test_the_list_for_scripts(self, cli: Cli) -> None:
        plugins = {one["name"]: one for one in cli("plugins", "list", "--json").result["plugins"]}
        assert plugins["idle"]["disabled"] is True
        assert plugins["broken"]["supplies"] == []
        assert "command os echo" in plugins["os"]["supplies"]
        assert plugins["os"]["distribution"] == "mcumgrx"
        assert plugins["os"]["error"] is None


def test_switching_off_works_from_outside(run_process: Cli) -> None:
    ended = run_process("os", "echo", "hi", "-d", "sim:", MCUMGRX_DISABLE_PLUGINS="os")
    assert ended.exit == 8
    assert "'os', which is switched off" in ended.err
