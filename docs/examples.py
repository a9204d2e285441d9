"""Runs the examples in README.md and docs/ and compares what they print with what the page says.

::

    python docs/examples.py                      # all pages
    python docs/examples.py --update README.md   # write what was printed into the page

The test suite does the same (`tests/docs`). Standard library only. What is run:

* ```` ```console ````: lines that begin with `$ ` are commands, the lines after one are its output, both streams
  together. A command that fails must be followed by `$ echo $?` and its exit code.
* ```` ```python ````: a whole program, run in a process of its own.

All blocks of a page run in order in one empty folder that holds nothing but copies of `examples/` and `drop-in/`, and
is the home folder. A comment in the line before a block changes what is done with it:

* `<!-- file: NAME -->` writes the block to a file of that name.
* `<!-- same as: PATH -->` says that the block repeats a file of the repository, and checks it.
* `<!-- not executed: REASON -->` leaves the block alone.
* `<!-- needs: MODULE -->` runs the block only where this module is installed.

In the output a line `...` stands for any number of lines; durations and rates may differ. `pip install` is the one
command that is imitated: code and metadata are put on the path as an install does it, because an example must not need
the network.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 150

_FENCE = re.compile(r"^(?P<ticks>```+)(?P<language>[\w{}-]*)\s*$")
_COMMENT = re.compile(r"^<!-- (?P<key>file|same as|not executed|needs): (?P<value>.+?) -->$")
_ASSIGNMENT = re.compile(r"[A-Z][A-Z0-9_]*=")

# Programs that an install would have put on the path. The second is there once its distribution is installed.
_MODULES = {"mcumgrx": "mcumgrx", "mcumgr": "mcumgrx_mcumgr"}

# What differs from run to run: durations, rates, and the numbers of seconds and of bytes a second in JSON.
_VARIABLE = (
    (re.compile(r", (?:\d+ min )?\d+(?:\.\d+)? s left\b"), ""),
    (re.compile(r" \((?:\d+ min )?\d+(?:\.\d+)? s\)$"), ""),
    (re.compile(r"\b(?:\d+ min )?\d+(?:\.\d+)? s\b"), "<time>"),
    (re.compile(r",? (?:at )?\d+(?:\.\d+)? [KM]?B/s"), ""),
    (re.compile(r" \d{4}-\d\d-\d\d$"), " <date>"),
    (re.compile(r'("\w+_s": )(?:null|[\d.e-]+)'), r"\1<number>"),
    # On a busy machine it is the simulated device that is slow.
    (re.compile(r"^note: limited by .*$"), "note: limited by <something>"),
)


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a console block: its text, the output it should give, and where both stand in the page."""

    text: str
    expected: tuple[str, ...]
    line: int
    end: int


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its lines, and the number of its first line, counted from 0."""

    language: str
    lines: tuple[str, ...]
    start: int
    key: str = ""
    value: str = ""

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def commands(self) -> Iterator[Command]:
        """The commands of a console block. Raises `ValueError` for a block that does not begin with one."""
        index = 0
        while index < len(self.lines):
            begin, line = index, self.lines[index]
            if not line.startswith("$ "):
                raise ValueError(f"line {self.start + index + 1} is the output of no command")
            command = line[2:]
            index += 1
            while command.endswith("\\"):
                command = command[:-1] + self.lines[index].removeprefix("> ").strip()
                index += 1
            first = index
            while index < len(self.lines) and not self.lines[index].startswith("$ "):
                index += 1
            yield Command(command, self.lines[first:index], self.start + begin, self.start + first)


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a Markdown page."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    index = 0
    while index < len(lines):
        fence = _FENCE.match(lines[index])
        if fence is None:
            index += 1
            continue
        comment = _COMMENT.match(lines[index - 1]) if index else None
        start = index = index + 1
        while lines[index] != fence["ticks"]:
            index += 1
        key, value = (comment["key"], comment["value"]) if comment else ("", "")
        found.append(Block(fence["language"], tuple(lines[start:index]), start, key, value))
        index += 1
    return found


def pages() -> list[Path]:
    """Every page of README and documentation, those first that take longest."""
    found = [path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts]
    return sorted([ROOT / "README.md", *found], key=lambda path: (path.stem not in ("README", "start"), path))


def comparable(line: str) -> str:
    """`line` without what differs from run to run."""
    for pattern, replacement in _VARIABLE:
        line = pattern.sub(replacement, line)
    return line.rstrip()


def matches(expected: Iterable[str], actual: Iterable[str]) -> bool:
    """Whether the output is as the page says; a line `...` there stands for any number of lines."""
    wanted = [comparable(line) for line in expected]
    got = [comparable(line) for line in actual]
    pattern = "".join(r"(?:[^\n]*\n)*?" if line == "..." else re.escape(line) + "\n" for line in wanted)
    return re.fullmatch(pattern, "".join(line + "\n" for line in got)) is not None


@dataclass(slots=True)
class Runner:
    """Runs the blocks of one page in `folder`; `problems` says where a page is wrong."""

    page: Path
    folder: Path
    problems: list[str] = field(default_factory=list)
    executed: int = 0
    replacements: list[tuple[int, int, list[str]]] = field(default_factory=list)
    exit_code: int = 0
    variables: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        for name in ("examples", "drop-in"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for block in blocks(self.page):
            self._block(block)

    def update(self) -> None:
        """Write what was printed over what the page says, where it differs."""
        lines = self.page.read_text(encoding="utf-8").splitlines()
        for begin, end, output in sorted(self.replacements, reverse=True):
            lines[begin:end] = output
        self.page.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def _block(self, block: Block) -> None:
        if block.key == "not executed" or (block.key == "needs" and find_spec(block.value) is None):
            return
        if block.key == "same as":
            if (ROOT / block.value).read_text(encoding="utf-8") != block.text:
                self._problem(block.start, f"this is not what {block.value} says")
        elif block.key == "file":
            path = self.folder / block.value
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            self._python(block)
        elif block.language == "console":
            for command in block.commands():
                self._console(command)
            if self.exit_code:
                self._problem(block.start, f"the last command of this block ends with {self.exit_code}")
                self.exit_code = 0

    def _python(self, block: Block) -> None:
        self.executed += 1
        code, output = self._spawn([sys.executable, "-c", block.text])
        if code:
            self._problem(block.start, "this program fails:\n" + "\n".join(output))

    def _console(self, command: Command) -> None:
        if command.text == "echo $?":
            output, self.exit_code = [str(self.exit_code)], 0
        else:
            if self.exit_code:
                self._problem(command.line, f"the command before this one ends with {self.exit_code}")
            self.exit_code, output = self._command(shlex.split(command.text))
            self.executed += 1
        if not matches(command.expected, output):
            said = "\n".join(output)
            self._problem(command.line, f"$ {command.text}\nprints (and ends with {self.exit_code}):\n{said}")
            if "..." not in command.expected:
                self.replacements.append((command.end, command.end + len(command.expected), output))

    def _command(self, words: list[str]) -> tuple[int, list[str]]:
        variables: dict[str, str] = {}
        if words[0] == "export":
            name, value = words[1].split("=", 1)
            self.variables[name] = value
            return 0, []
        while _ASSIGNMENT.match(words[0]):
            name, value = words.pop(0).split("=", 1)
            variables[name] = value
        if words[:2] == ["pip", "install"]:
            return self._install(words[-1])
        programs = {"python": [sys.executable]}
        programs |= {name: [sys.executable, "-m", module] for name, module in _MODULES.items()}
        if words[0] not in programs:
            raise ValueError(f"{self.page.name}: {words[0]!r} is none of the commands that an example can use")
        return self._spawn(programs[words[0]] + words[1:], variables)

    def _spawn(self, words: list[str], variables: dict[str, str] | None = None) -> tuple[int, list[str]]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MCUMGRX_", "COV_"))}
        if "MCUMGRX_PURE_PYTHON" in os.environ:
            environment["MCUMGRX_PURE_PYTHON"] = os.environ["MCUMGRX_PURE_PYTHON"]
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a hundred starts that compile everything take twice as long
        path = [os.path.abspath(one) for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
        environment |= {
            "COLUMNS": "80",
            "HOME": str(self.folder),
            "MCUMGRX_CACHE_DIR": str(self.folder / ".cache"),
            "PYTHONPATH": os.pathsep.join([str(self.folder / ".site"), *path]),
            "PYTHONIOENCODING": "utf-8",
            **self.variables,
            **(variables or {}),
        }
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            encoding="utf-8",
            errors="replace",
        )
        return done.returncode, [line.rstrip() for line in done.stdout.splitlines()]

    def _install(self, folder: str) -> tuple[int, list[str]]:
        """What the install of a plain project leaves behind: its packages on the path, and its metadata."""
        source = self.folder / folder
        project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        site = self.folder / ".site"
        name = project["name"].replace("-", "_")
        info = site / f"{name}-{project['version']}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", encoding="utf-8"
        )
        points = [
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
            for group, entries in project.get("entry-points", {}).items()
        ]
        (info / "entry_points.txt").write_text("\n".join(points), encoding="utf-8")
        for found in sorted(source.iterdir()):
            if (found / "__init__.py").exists():
                shutil.copytree(found, site / found.name)
        return 0, []

    def _problem(self, line: int, text: str) -> None:
        place = self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page
        self.problems.append(f"{place}:{line + 1}: {text}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the examples of README and documentation.")
    parser.add_argument("pages", nargs="*", type=Path, help="default: all")
    parser.add_argument("--update", action="store_true", help="write what was printed into the pages")
    arguments = parser.parse_args()
    failed = False
    for page in arguments.pages or pages():
        with tempfile.TemporaryDirectory() as folder:
            runner = Runner(page.resolve(), Path(folder))
            runner.run()
        if arguments.update:
            runner.update()
        failed = failed or bool(runner.problems)
        print(f"{page}: {runner.executed} executed, {len(runner.problems)} problems")
        for problem in runner.problems:
            print(problem, end="\n\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
