"""Writes the parts of README.md and docs/ that follow from the code: commands, options, exit codes, error tables.

::

    python docs/generate.py            # write
    python docs/generate.py --check    # say what is out of date, and change nothing

A part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; what is around it is written by hand. The test
suite checks that every part is up to date (`tests/docs`).
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import click
from api import plugin_surface, python_surface, simulation_surface

from mcumgrx import errors
from mcumgrx.cli.arguments import global_options
from mcumgrx.cli.exit_codes import Exit, exit_for
from mcumgrx.cli.tree import CORE_COMMANDS, make_root
from mcumgrx.errors import ErrorCode, McumgrError, Outcome
from mcumgrx.plugin_api import Argument, CliSpec, Option
from mcumgrx.protocol.codes import ImageErrorCode, OsErrorCode, SmpError
from mcumgrx.registry import default_registry
from mcumgrx.sim.boards import BOARDS
from mcumgrx_plugins.enum.messages import EnumErrorCode
from mcumgrx_plugins.fs.messages import FsErrorCode
from mcumgrx_plugins.settings.messages import SettingsErrorCode
from mcumgrx_plugins.shell.messages import ShellErrorCode
from mcumgrx_plugins.stat.messages import StatErrorCode
from mcumgrx_plugins.zephyr.messages import ZephyrErrorCode

ROOT = Path(__file__).resolve().parent.parent

_PART = re.compile(r"(<!-- begin (?P<name>[\w-]+) -->\n).*?(<!-- end (?P=name) -->)", re.DOTALL)

EXIT_MEANINGS = {
    Exit.DONE: "done, or nothing had to be done",
    Exit.BUG: "a bug in mcumgrx or in a plugin",
    Exit.USAGE: "the command line, an address or an option makes no sense",
    Exit.NO_LINK: "no such device, no link to it, or the link was lost",
    Exit.NO_ANSWER: "no answer in time, or none that makes sense",
    Exit.DEVICE_REFUSED: "the device said no",
    Exit.BAD_FILE: "the file is not one that the device can take",
    Exit.REVERTED: "the device went back to its old image, or did not take the new one",
    Exit.PLUGIN: "a plugin is missing, broken or in conflict",
    Exit.UNPROVEN: "it is not proven that the new image runs for good",
    Exit.UNHEALTHY: "the new image failed its health check, and is left unconfirmed",
    Exit.PLAN_REFUSED: "refused before anything was changed",
    Exit.FLEET: "some of several devices failed",
    Exit.REMOTE_FAILED: "a command that ran on the device failed",
    Exit.OUTPUT_LOST: "done, but the result could not be written: a full disk",
    Exit.FAILED: "a command of a plugin has failed, as it says; 64 to 113 are exit codes of plugins' own",
    Exit.INTERRUPTED: "interrupted by Ctrl-C, SIGTERM or SIGHUP",
}

OUTCOME_MEANINGS = {
    Outcome.REVERTED: "the new image ran, was not confirmed, and the bootloader went back to the old one",
    Outcome.REJECTED: "the bootloader did not take the new image: signature, hash, downgrade, …",
    Outcome.NEVER_SWAPPED: "the old image runs and the new one still waits",
    Outcome.OTHER_IMAGE: "neither the old nor the new image runs",
    Outcome.MIXED: "of several images some run and others do not",
    Outcome.FROZEN: "an image on trial outlasts its reset, because another one waits and cannot be installed",
    Outcome.NO_RETURN: "the device has not answered since its reset",
    Outcome.UNSEEN: "the new image has left its slot, and the device does not list what runs of it",
    Outcome.NOT_CONFIRMED: "the new image runs but could not be confirmed",
    Outcome.UNHEALTHY: "the new image runs but failed its health check",
}


# -- commands ---------------------------------------------------------------------------------------------------------


def commands() -> dict[str, tuple[str, click.Command, CliSpec]]:
    """Every command of mcumgrx itself by its full name: one line about it, the click command, its description."""
    ours = {
        name
        for record in default_registry().plugins
        if record.distribution == "mcumgrx"
        for name in (what.removeprefix("command ") for what in record.supplies if what.startswith("command "))
    }
    known = {**{name: default_registry().commands[name] for name in ours}, **CORE_COMMANDS}
    root = make_root()
    context = click.Context(root, info_name="mcumgrx")
    found: dict[str, tuple[str, click.Command, CliSpec]] = {}
    for name in sorted(known):
        command: click.Command | None = root
        for word in name.split(" "):
            assert isinstance(command, click.Group)
            command = command.get_command(context, word)
        assert command is not None
        spec: CliSpec = command.spec  # type: ignore[attr-defined]
        found[name] = (known[name].summary, command, spec)
    return found


def _usage(name: str, spec: CliSpec) -> str:
    words = [f"mcumgrx {name}"]
    for one in spec.parameters:
        if isinstance(one, Argument):
            word = one.name.upper() + ("…" if one.many else "")
            words.append(word if one.required else f"[{word}]")
    device = {True: ["-d ADDRESS"], None: ["[-d ADDRESS]"], False: []}[spec.needs_device]
    return " ".join([*words, *device])


def command_table() -> str:
    """For the README: every command name, those of a group in one row."""
    root = make_root()
    context = click.Context(root, info_name="mcumgrx")
    rows: dict[str, tuple[str, str]] = {}
    for name, (summary, _, _) in commands().items():
        first, _, second = name.partition(" ")
        section = root.get_command(context, first)
        if isinstance(section, click.Group):
            summary = _sentence(section.help or "")
        before = rows[first][0] if first in rows else f"`mcumgrx {first}`"
        rows[first] = (f"{before} `{second}`" if second else before, summary)
    return _table(("Command", "What it is for"), rows.values())


def address_table() -> str:
    """For the README: an address for every kind of link."""
    rows = []
    for plugin in dict.fromkeys(default_registry().transports.values()):
        if plugin.load.startswith("mcumgrx_plugins."):
            also = "".join(f"; `{alias}:` is the same" for alias in plugin.aliases)
            rows.append((f"`{plugin.example or f'{plugin.scheme}:'}`", plugin.summary + also))
    return _table(("Address", "Device"), rows)


def command_reference() -> str:
    """For the reference: every command with its arguments, options and examples."""
    parts: list[str] = []
    for name, (_, command, spec) in commands().items():
        parts += [f"## mcumgrx {name}", f"```text\n{_usage(name, spec)}\n```", _prose(command.help or "")]
        arguments = [one for one in spec.parameters if isinstance(one, Argument)]
        if arguments:
            parts.append(
                _table(("Argument", ""), [(f"`{one.name.upper()}`", _sentence(one.help)) for one in arguments])
            )
        options = [one for one in spec.parameters if isinstance(one, Option)]
        if options:
            found = {parameter.name or "": parameter for parameter in command.params}
            rows = [_option_row(one, found) for one in options]
            parts.append(_table(("Option", "", "Default", "Environment"), rows))
        if spec.epilog:
            parts.append("```text\n" + inspect.cleandoc(spec.epilog) + "\n```")
    return "\n\n".join(parts)


def _option_row(one: Option, click_options: Mapping[str, click.Parameter]) -> tuple[str, ...]:
    option = click_options[one.name]
    assert isinstance(option, click.Option)
    flag = one.flag if option.is_flag else f"{one.flag} {option.metavar}"
    if option.is_flag:
        default = "yes" if one.default else "no"
    elif isinstance(one.default, float):
        default = f"{one.default:g}"
    else:
        default = "" if one.default is None else str(one.default)
    return f"`{flag}`", _sentence(one.help), default, f"`{option.envvar}`"


def global_option_table() -> str:
    """The options that every command has."""
    rows = []
    for option in global_options():
        flags = ", ".join(f"`{flag}`" for flag in option.opts)
        if option.metavar:
            flags += f" {option.metavar}"
        rows.append((flags, _sentence(option.help or ""), f"`{option.envvar}`"))
    return _table(("Option", "", "Environment"), rows)


# -- errors -----------------------------------------------------------------------------------------------------------


def exit_code_table() -> str:
    """Number, label in JSON, meaning."""
    return _table(("Code", "In JSON", "Meaning"), [(str(int(c)), f"`{c.label}`", EXIT_MEANINGS[c]) for c in Exit])


def exception_table() -> str:
    """Every exception: its exit code, what it means, its fields."""
    rows = []
    for name, kind in sorted(vars(errors).items()):
        if not isinstance(kind, type) or not issubclass(kind, McumgrError) or kind is McumgrError:
            continue
        parameters = inspect.signature(kind).parameters.values()
        needed = {one.name: None for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty}
        fields = [one.name for one in parameters if one.name not in ("message", "hint")]
        code = None if kind is errors.FlowError else exit_for(kind("", **needed))
        rows.append(
            (
                f"`{name}`",
                f"`{kind.__mro__[1].__name__}`",
                "by its outcome" if code is None else f"{int(code)}",
                _sentence(" ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())),
                ", ".join(f"`{field}`" for field in fields) or "–",
            )
        )
    return _table(("Exception", "Is a", "Exit code", "Meaning", "Fields beside `message`, `hint`"), rows)


def outcome_table() -> str:
    """How an update that failed has ended, and the exit code."""
    rows = []
    for outcome in Outcome:
        code = exit_for(errors.FlowError("", stage="", outcome=outcome))
        rows.append((f"`{outcome.name}`", f"`{outcome.value}`", str(int(code)), OUTCOME_MEANINGS[outcome]))
    return _table(("Outcome", "In JSON", "Exit code", "Meaning"), rows)


def device_error_table(table: type[ErrorCode]) -> str:
    """The codes of one table: number, name, sentence, remedy."""
    rows = [(str(int(code)), f"`{code.name}`", code.sentence, code.hint or "–") for code in table if code or code.hint]
    return _table(("Code", "Name", "Meaning", "Remedy"), rows)


# -- what was run -----------------------------------------------------------------------------------------------------

HARDWARE_REPORTS = ROOT / "tests" / "hardware" / "reports"


def hardware_table() -> str:
    """For the page on Bluetooth LE: what the committed reports of `tests/hardware` say. Without one: never run."""
    rows: dict[str, list[tuple[str, ...]]] = {system: [] for system in ("Linux", "Windows", "macOS")}
    for path in sorted(HARDWARE_REPORTS.glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if report["emulated"]:
            continue  # it says nothing about hardware
        counts = [f"{report[name]} {name}" for name in ("passed", "failed", "skipped") if report[name]]
        steps = ", ".join(name for name, step in report["steps"].items() if step["result"] == "passed")
        device = report["steps"].get("information", {}).get("text") or report["device"]
        row = (report["date"], f"{device}; bleak {report['bleak']}", f"{', '.join(counts)} ({steps})", f"`{path.name}`")
        rows.setdefault(report["system"], []).append(row)
    lines = [(system, *row) for system, found in rows.items() for row in found or [("", "", "**never run**", "")]]
    return _table(("System", "Date", "Device", "Result", "Report"), lines)


# -- the simulated device ---------------------------------------------------------------------------------------------


def board_table() -> str:
    """What `board=NAME` of a simulated device stands for."""
    head = ("Board", "Says that it is", "Images", "Each slot", "Written by", "A slot is erased in", "Bootloader")
    rows = []
    for name, board in BOARDS.items():
        erase_s = board.timing.erase_s_per_sector * board.slot_size / board.sector_size
        loader = f", the loader's {board.loader_size // 1024} KiB," if board.loader_size else ""
        rows.append(
            (
                f"`{name}`",
                f"`{board.target}`",
                str(board.images),
                f"{board.slot_size // 1024} KiB{loader} in sectors of {board.sector_size // 1024} KiB",
                f"{board.write_size} byte{'s' if board.write_size > 1 else ''}",
                f"{erase_s:.1f} s",
                f"`{board.mode.name.lower().replace('_', '-')}`",
            )
        )
    return _table(head, rows)


# -- Markdown ---------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _sentence(text: str) -> str:
    return re.sub(r" \[default: [^\]]*\]", "", text).strip().rstrip(".")


def _prose(text: str) -> str:
    """Help as Markdown: what is indented stays as it is."""
    parts = []
    for paragraph in text.split("\n\n"):
        paragraph = paragraph.replace("\b\n", "")
        indented = all(line.startswith(" ") for line in paragraph.splitlines())
        parts.append(f"```text\n{inspect.cleandoc(paragraph)}\n```" if indented and paragraph.strip() else paragraph)
    return "\n\n".join(parts).strip()


PARTS: dict[str, Callable[[], str]] = {
    "plugin-surface": plugin_surface,
    "python-surface": python_surface,
    "simulation-surface": simulation_surface,
    "command-table": command_table,
    "address-table": address_table,
    "command-reference": command_reference,
    "global-options": global_option_table,
    "exit-codes": exit_code_table,
    "hardware": hardware_table,
    "boards": board_table,
    "exceptions": exception_table,
    "outcomes": outcome_table,
    "smp-errors": lambda: device_error_table(SmpError),
    "os-errors": lambda: device_error_table(OsErrorCode),
    "image-errors": lambda: device_error_table(ImageErrorCode),
    "stat-errors": lambda: device_error_table(StatErrorCode),
    "settings-errors": lambda: device_error_table(SettingsErrorCode),
    "fs-errors": lambda: device_error_table(FsErrorCode),
    "shell-errors": lambda: device_error_table(ShellErrorCode),
    "enum-errors": lambda: device_error_table(EnumErrorCode),
    "zephyr-errors": lambda: device_error_table(ZephyrErrorCode),
}


def generated(page: Path) -> str:
    """The text of the page with all its parts up to date. Raises `KeyError` for a part that nobody knows."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}{PARTS[match['name']]()}\n{match[3]}"

    return _PART.sub(part, page.read_text(encoding="utf-8"))


def pages() -> list[Path]:
    """The pages that have generated parts."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path for path in found if _PART.search(path.read_text(encoding="utf-8"))]


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated parts of README and documentation.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is out of date")
    arguments = parser.parse_args()
    stale = [page for page in pages() if generated(page) != page.read_text(encoding="utf-8")]
    for page in stale:
        print(f"{'out of date' if arguments.check else 'written'}: {page.relative_to(ROOT)}")
        if not arguments.check:
            page.write_text(generated(page), encoding="utf-8")
    return int(arguments.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
