"""How the code is built, counted from its sources: what a class keeps, how long a function is, who imports whom.

::

    python benchmarks/structure.py [--against REVISION] [--check] [--top 10] [--json]

Nothing is run, only read. Counted are, worst first:

* attributes of a class: names that its methods assign to `self`. Dataclasses are listed apart: their fields are what
  they are for.
* lines of a function, from `def` to its end, and its branches: `if`, `elif`, `for`, `while`, `except`, `case`, the
  conditional expression and the `if` of a comprehension. A function inside another counts its branches for itself.
* circles of imports between modules, those inside functions and for type checkers included; what is imported by name
  when it is first used is not seen.
* lines of `mcumgrx` and the plugins by room: code without blank lines, comments and docstrings, and all lines.
* what a plugin's link reads of SMP headers, by the names it uses: links move bytes, and the client knows the headers.

`--against` prints a revision of the repository beside it. `--check` ends with 1 where a limit is passed: 20 attributes
of a class, 12 of the client, 50 lines and 12 branches of a function in `link`, `transfer`, `client` and `flows`, and
no circle.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("mcumgrx", "plugins")

MAX_ATTRIBUTES = 20
MAX_CLIENT_ATTRIBUTES = 12
MAX_LINES = 50
MAX_BRANCHES = 12
# Where functions are held to these limits.
ROOMS = ("mcumgrx.link", "mcumgrx.transfer", "mcumgrx.client", "mcumgrx.bulk", "mcumgrx.flows")

_BRANCHES = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case, ast.IfExp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_SCOPES = (*_FUNCTIONS, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class Class:
    name: str
    attributes: int
    dataclass: bool


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    lines: int
    branches: int


@dataclass(slots=True)
class Signs:
    """What was counted in one tree of sources."""

    classes: list[Class] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    circles: list[list[str]] = field(default_factory=list)
    code: Counter[str] = field(default_factory=Counter)
    lines: Counter[str] = field(default_factory=Counter)
    headers: dict[str, list[str]] = field(default_factory=dict)


# -- reading ----------------------------------------------------------------------------------------------------------


def read(root: Path) -> Signs:
    """Count everything below `root`, a checkout."""
    signs = Signs()
    trees: dict[str, tuple[ast.Module, bool]] = {}
    links: set[str] = set()
    for folder in FOLDERS:
        base = root / folder if folder == "plugins" else root
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(base).with_suffix("").parts
            package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if package else parts)
            text = path.read_text(encoding="utf-8")
            tree = ast.parse(text)
            trees[name] = tree, package
            signs.classes += _classes(name, tree)
            signs.functions += _functions(name, tree)
            signs.code[_room(name)] += _code_lines(text, tree)
            signs.lines[_room(name)] += text.count("\n")
            if folder == "plugins" and _has_transport(tree):
                links.add(".".join(parts[:2]))
    for name, (tree, _) in trees.items():
        package_name = ".".join(name.split(".")[:2])
        # The simulated device reads what it answers.
        if package_name in links and package_name != "mcumgrx_plugins.sim" and (found := _header_names(tree)):
            signs.headers[name] = found
    signs.classes.sort(key=lambda one: -one.attributes)
    signs.circles = _circles(trees)
    return signs


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _named(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    """Every class and function in `tree` with its dotted name."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.ClassDef, *_FUNCTIONS)):
            name = f"{prefix}.{node.name}"
            yield name, node
            yield from _named(node, name)
        else:
            yield from _named(node, prefix)


def _classes(module: str, tree: ast.Module) -> Iterator[Class]:
    for name, node in _named(tree, module):
        if not isinstance(node, ast.ClassDef):
            continue
        found: set[str] = set()
        for method in node.body:
            if isinstance(method, _FUNCTIONS) and method.args.args:
                found |= _assigned(method, method.args.args[0].arg)
        plain = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
        if plain:
            found |= {
                part.target.id
                for part in node.body
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
            }
        yield Class(name, len(found), plain)


def _assigned(method: ast.AST, me: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == me
    }


def _functions(module: str, tree: ast.Module) -> Iterator[Function]:
    for name, node in _named(tree, module):
        if isinstance(node, _FUNCTIONS):
            assert node.end_lineno is not None
            yield Function(name, node.end_lineno - node.lineno + 1, _branches(node))


def _branches(node: ast.AST) -> int:
    count = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _SCOPES):
            continue
        count += isinstance(child, _BRANCHES) + (len(child.ifs) if isinstance(child, ast.comprehension) else 0)
        count += _branches(child)
    return count


def _code_lines(text: str, tree: ast.Module) -> int:
    """Lines with something on them that is no comment and no docstring."""
    found: set[int] = set()
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in blank:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        # A text that stands for itself: a docstring, also one behind an attribute.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            assert node.end_lineno is not None
            found.difference_update(range(node.lineno, node.end_lineno + 1))
    return len(found)


def _has_transport(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Transport") for base in node.bases)
        for node in ast.walk(tree)
    )


def _header_names(tree: ast.Module) -> list[str]:
    """Names in a link's code that speak of SMP headers, and constant places in a message, in order."""
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        name = ""
        if isinstance(node, ast.Name):
            name = node.id
        elif isinstance(node, ast.Attribute):
            name = node.attr
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.alias):
            name = node.name
        elif isinstance(node, ast.Subscript) and _in_message(node):
            found.setdefault(ast.unparse(node), node.lineno)
            continue
        words = name.strip("_").lower().split("_")
        if {"sequence", "sequences", "header"} & set(words) and name != "Sequence":  # that is a type
            found.setdefault(name, getattr(node, "lineno", 0))
    return sorted(found, key=lambda name: found[name])


def _in_message(node: ast.Subscript) -> bool:
    base = ast.unparse(node.value)
    where = [node.slice.lower, node.slice.upper] if isinstance(node.slice, ast.Slice) else [node.slice]
    constant = all(part is None or isinstance(part, ast.Constant) for part in where)
    return constant and base.split("[")[0] in ("message", "messages") and base != "messages"


# -- imports ----------------------------------------------------------------------------------------------------------


def _circles(trees: dict[str, tuple[ast.Module, bool]]) -> list[list[str]]:
    """The modules of each circle, along the shortest way round."""
    graph = {name: _imported(name, tree, package, trees) for name, (tree, package) in trees.items()}
    reached = {name: _reachable(name, graph) for name in graph}
    left = {name for name in graph if name in reached[name]}
    found: list[list[str]] = []
    for name in sorted(left):
        if name in left:
            left -= {other for other in reached[name] if name in reached[other]}
            found.append(_way_round(name, graph))
    return found


def _imported(name: str, tree: ast.Module, package: bool, trees: dict[str, tuple[ast.Module, bool]]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                parts = parts[: len(parts) - node.level + package]
                base = ".".join([*parts, base] if base else parts)
            inner = {f"{base}.{alias.name}" for alias in node.names}
            found |= {one for one in inner if one in trees} or {base}
    return (found & trees.keys()) - {name}


def _reachable(name: str, graph: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for other in graph[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found


def _way_round(name: str, graph: dict[str, set[str]]) -> list[str]:
    ways = [[name]]
    seen: set[str] = set()
    for way in ways:
        for other in sorted(graph[way[-1]]):
            if other == name:
                return [*way, name]
            if other not in seen:
                seen.add(other)
                ways.append([*way, other])
    raise AssertionError(f"{name} is in no circle")


# -- limits -----------------------------------------------------------------------------------------------------------


def passed(signs: Signs) -> list[str]:
    """Every limit that is passed, as a sentence."""
    found = [
        f"{one.name} has {one.attributes} attributes, more than {most}"
        for one in signs.classes
        if not one.dataclass and one.attributes > (most := _most_attributes(one.name))
    ]
    for one in signs.functions:
        if not one.name.startswith(ROOMS):
            continue
        if one.lines > MAX_LINES:
            found.append(f"{one.name} has {one.lines} lines, more than {MAX_LINES}")
        if one.branches > MAX_BRANCHES:
            found.append(f"{one.name} has {one.branches} branches, more than {MAX_BRANCHES}")
    return [*found, *(f"imports go round: {' → '.join(circle)}" for circle in signs.circles)]


def _most_attributes(name: str) -> int:
    return MAX_CLIENT_ATTRIBUTES if name == "mcumgrx.client.Client" else MAX_ATTRIBUTES


# -- telling ----------------------------------------------------------------------------------------------------------

Row = tuple[str, int]


def tables(signs: Signs) -> dict[str, list[Row]]:
    """What is shown, by its title, each with the worst first."""
    plain = [one for one in signs.classes if one.dataclass]
    others = [one for one in signs.classes if not one.dataclass]
    return {
        "attributes of a class": [(one.name, one.attributes) for one in others],
        "fields of a dataclass": [(one.name, one.attributes) for one in plain],
        "lines of a function": _worst((one.name, one.lines) for one in signs.functions),
        "branches of a function": _worst((one.name, one.branches) for one in signs.functions),
        "circles of imports": [(" → ".join(circle), len(circle) - 1) for circle in signs.circles],
        "header fields that links read": _worst(
            (f"{name}: {', '.join(found)}", len(found)) for name, found in signs.headers.items()
        ),
        "lines of code": [("in all", signs.code.total()), *signs.code.most_common()],
        "lines": [("in all", signs.lines.total()), *signs.lines.most_common()],
    }


def _worst(rows: Iterator[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: -row[1])


def show(now: Signs, before: Signs | None, revision: str, top: int) -> str:
    shown: list[str] = []
    old_tables = tables(before) if before is not None else None
    for title, rows in tables(now).items():
        width = max((len(name) for name, _ in rows[:top]), default=0)
        if old_tables is None:
            shown += [title, *(f"  {number:6}  {name}" for name, number in rows[:top]), *([] if rows else ["  none"])]
        else:
            old = old_tables[title]
            shown.append(f"{title}, {'now':<{max(0, width + 8 - len(title))}}  {revision}")
            for at in range(min(top, max(len(rows), len(old)))):
                left = f"{rows[at][1]:6}  {rows[at][0]}" if at < len(rows) else ""
                right = f"{old[at][1]:6}  {old[at][0]}" if at < len(old) else ""
                shown.append(f"  {left:<{width + 8}}  {right}".rstrip())
        shown.append("")
    return "\n".join(shown)


def at_revision(revision: str) -> Signs:
    """The signs of a revision of this repository. Raises `CalledProcessError` where git does not know it."""
    packed = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--format=tar", revision, *FOLDERS], check=True, capture_output=True
    ).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        return read(Path(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REVISION", help="of this repository, to be printed beside")
    parser.add_argument("--check", action="store_true", help="end with 1 where a limit is passed")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="rows of each table (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one object, all rows")
    arguments = parser.parse_args()
    now = read(ROOT)
    before = at_revision(arguments.against) if arguments.against else None
    broken = passed(now)
    if arguments.json:
        found = {"now": tables(now), "passed": broken, "before": tables(before) if before is not None else None}
        print(json.dumps(found))
    else:
        print(show(now, before, arguments.against, arguments.top))
        print("\n".join(["limits that are passed:", *(f"  {line}" for line in broken or ["none"])]))
    return 1 if arguments.check and broken else 0


if __name__ == "__main__":
    sys.exit(main())
