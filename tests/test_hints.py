"""Hints that name commands: completed with the device, quoted for a shell, and such that they run."""

from __future__ import annotations

import ast
import pickle
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from mcumgrx.cli.exit_codes import Situation, explain
from mcumgrx.cli.tree import make_root
from mcumgrx.errors import ConnectFailed, DeviceNotFound, ErrorCode, McumgrError, UsageError
from mcumgrx.hints import Hint, Run, quoted
from mcumgrx.protocol.codes import ImageErrorCode, OsErrorCode, SmpError

ROOT = Path(__file__).resolve().parent.parent
ON = ("-d", "ble:My Widget", "--timeout", "20")


def test_a_hint_is_its_text() -> None:
    hint = Hint("confirm it with ", Run("image confirm"), ", or wait")
    assert hint == "confirm it with 'mcumgrx image confirm', or wait"
    assert pickle.loads(pickle.dumps(hint)) == str(hint)


def test_commands_are_completed_where_the_device_is_known() -> None:
    hint = Hint("see ", Run("image list"), Hint(" or ", Run("scan", device=False)))
    assert hint.on(ON) == """see 'mcumgrx image list -d "ble:My Widget" --timeout 20' or 'mcumgrx scan'"""


WORDS = ["a", "", "My Widget", 'a"b', "it's", "$HOME", "`id`", "back\\slash", "sim:a,b=c%2C", "a;b", "C:\\new dir"]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no POSIX shell")
def test_words_are_quoted_as_a_shell_takes_them() -> None:
    script = " ".join(["printf '%s\n'", *map(quoted, WORDS)])
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True).stdout.splitlines() == WORDS


def test_the_command_line_completes_the_hint_of_an_error() -> None:
    error = McumgrError("no", hint=Hint("see ", Run("image list")))
    assert explain(error, Situation(options=("-d", "udp:h"))).hint == "see 'mcumgrx image list -d udp:h'"


DEVICE = ("MCUMGRX_DEVICE", "-d", "foo")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UsageError("'foo' is not a device address", hint="use SCHEME:TARGET"), True),
        (UsageError("--chunk must be at least 1"), False),
        (DeviceNotFound("there is no such port"), True),
        (ConnectFailed("the port is busy"), True),
        (McumgrError("foo"), False),
    ],
)
def test_what_a_variable_has_set_is_told(error: McumgrError, told: bool) -> None:
    hint = explain(error, Situation(environment=(DEVICE,))).hint or ""
    assert ("-d comes from MCUMGRX_DEVICE, which is 'foo'" in hint) is told
    assert (error.hint or "") in hint


# -- every command that the code can name ---------------------------------------------------------------------------


def sources() -> list[Path]:
    return sorted(path for top in ("mcumgrx", "plugins") for path in (ROOT / top).rglob("*.py"))


def named() -> list[tuple[str, list[str]]]:
    """Where, and the words; what is only known when the code runs is `1`, which an option of any type takes."""
    found = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Run":
                if not (node.args and isinstance(node.args[0], ast.Constant)):
                    continue  # a command that was just looked up
                words: list[str] = []
                for number, argument in enumerate(node.args):
                    text = argument.value if isinstance(argument, ast.Constant) else "1"
                    words += str(text).split() if number == 0 else [str(text)]
                found.append((f"{path.relative_to(ROOT).as_posix()}:{node.lineno}", words))
    return found


@pytest.mark.parametrize(("where", "words"), named(), ids=[where for where, _ in named()])
def test_every_command_in_a_hint_exists_and_takes_what_it_is_given(where: str, words: list[str]) -> None:
    command: click.Command = make_root()
    context = click.Context(command, info_name="mcumgrx")
    rest = [*words, "-d", "sim:"]
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, where
        command, context = found, click.Context(found, parent=context, info_name=name)
    command.make_context(command.name, rest, parent=context)


# A command with its quotes, or at the end of a sentence.
_COMMAND = re.compile(r"'mcumgrx (?P<quoted>[a-z][^']*)'|: mcumgrx (?P<last>[a-z].*)")
_WITHOUT_DEVICE = re.compile(r"(plugins|cache|scan|sim|dfu|demo|image inspect)\b|[^ ]* --help")


def texts(tree: ast.Module) -> list[ast.Constant]:
    """Constants that people may read when something goes wrong: not docstrings, nor the examples of the help."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
            skipped.update(id(part) for part in ast.walk(node.body[0]) if isinstance(node.body[0], ast.Expr))
        if isinstance(node, ast.keyword) and node.arg in ("epilog", "help"):
            skipped.update(id(part) for part in ast.walk(node.value))
        if isinstance(node, ast.Assign) and "EXAMPLES" in ast.unparse(node.targets[0]):
            skipped.update(id(part) for part in ast.walk(node.value))
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped
    ]


def test_no_text_names_a_command_for_a_device_that_nobody_completes() -> None:
    found = []
    for path in sources():
        if "sim" in path.parts:
            continue
        for node in texts(ast.parse(path.read_text(encoding="utf-8"))):
            for command in _COMMAND.finditer(str(node.value)):
                words = command["quoted"] or command["last"]
                if not _WITHOUT_DEVICE.match(words):
                    found.append(f"{path.relative_to(ROOT).as_posix()}:{node.lineno}: {words}")
    assert found == [], "name it with mcumgrx.hints.Run"


# -- the tables of errors -------------------------------------------------------------------------------------------

# Their sentence says all there is; what to do follows from the state (`image/refusals.py`), or there is nothing to do.
_SAY_ALL = {SmpError.OK, SmpError.BAD_STATE}


@pytest.mark.parametrize("code", [*SmpError, *OsErrorCode, *ImageErrorCode], ids=lambda code: f"{code!r}")
def test_every_code_has_a_sentence_and_says_what_to_do(code: ErrorCode) -> None:
    assert code.sentence
    assert code.hint or code in _SAY_ALL
