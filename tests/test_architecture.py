"""Who may import whom, read from the sources: the one road for data, held to.

`cli → flows → contracts ← group plugins → plugin_api → client → protocol → codec`, `transport plugins → plugin_api →
transport`. Imports inside functions and for type checkers count like any other. Names that packages resolve on first
use (`mcumgrx`, `mcumgrx.plugin_api`) cannot be seen here; both name the same modules for type checkers.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# -- the arrows -----------------------------------------------------------------------------------------------------

# Module or package → what of ours it may import besides itself; the longest name that fits decides. A package stands
# for all that is in it, `module:Name` for that name alone.
CORE: dict[str, set[str]] = {
    # The façade: public names from wherever they live, none of it imported before use.
    "mcumgrx": {"mcumgrx"},
    "mcumgrx.__main__": {"mcumgrx.cli"},
    "mcumgrx._version": set(),
    "mcumgrx._pycbor": set(),
    "mcumgrx._pycodec": {"mcumgrx._pycbor"},
    "mcumgrx.errors": set(),
    "mcumgrx.hints": set(),
    "mcumgrx.hosts": {"mcumgrx.errors", "mcumgrx.threads"},
    "mcumgrx.events": set(),
    "mcumgrx.address": {"mcumgrx.errors"},
    "mcumgrx.mcuboot": {"mcumgrx.errors"},
    "mcumgrx.former_names": {"mcumgrx.messages", "mcumgrx.protocol"},
    "mcumgrx.protocol": {"mcumgrx.errors", "mcumgrx.hints", "mcumgrx._codec", "mcumgrx._pycodec"},
    "mcumgrx.messages": {"mcumgrx.errors", "mcumgrx.protocol"},
    "mcumgrx.transport": {"mcumgrx.errors", "mcumgrx.address", "mcumgrx.protocol.framing"},
    "mcumgrx.group": {"mcumgrx.errors", "mcumgrx.messages.message", "mcumgrx.client"},
    "mcumgrx.memory": {
        "mcumgrx.errors",
        "mcumgrx.interrupted",
        "mcumgrx.link.profile",
        "mcumgrx.locks",
        "mcumgrx.threads",
    },
    "mcumgrx.interrupted": {"mcumgrx.link.profile", "mcumgrx.locks"},
    "mcumgrx.link.profile": {"mcumgrx.messages.standard"},
    "mcumgrx.load": set(),
    "mcumgrx.locks": set(),
    "mcumgrx.pause": set(),
    "mcumgrx.threads": set(),
    "mcumgrx.link.transport_code": {"mcumgrx.errors", "mcumgrx.transport"},
    "mcumgrx.link": {"mcumgrx.errors", "mcumgrx.messages", "mcumgrx.protocol", "mcumgrx.transport"},
    "mcumgrx.link.slots": set(),
    "mcumgrx.link.text": set(),
    "mcumgrx.link.call": {"mcumgrx.errors", "mcumgrx.messages.message"},
    # The part without a loop.
    "mcumgrx.link.table": {"mcumgrx.errors", "mcumgrx.link.call", "mcumgrx.messages", "mcumgrx.protocol"},
    "mcumgrx.client": {
        "mcumgrx.errors",
        "mcumgrx.link",
        "mcumgrx.messages",
        "mcumgrx.protocol",
        "mcumgrx.transport",
    },
    "mcumgrx.transfer": {
        "mcumgrx.errors",
        "mcumgrx.events",
        "mcumgrx.link.profile",
        "mcumgrx.messages",
        "mcumgrx.protocol",
        "mcumgrx.transport:Flow",
        "mcumgrx.transport:Limits",
    },
    "mcumgrx.message_size": {
        "mcumgrx.client",
        "mcumgrx.errors",
        "mcumgrx.link.profile",
        "mcumgrx.messages",
        "mcumgrx.protocol",
        "mcumgrx.transfer.sizes",
    },
    "mcumgrx.bulk": {
        "mcumgrx.client",
        "mcumgrx.errors",
        "mcumgrx.events",
        "mcumgrx.link.stream",
        "mcumgrx.load",
        "mcumgrx.pause",
        "mcumgrx.messages",
        "mcumgrx.protocol",
        "mcumgrx.transfer",
    },
    "mcumgrx.fragments": {
        "mcumgrx.bulk",
        "mcumgrx.client",
        "mcumgrx.events",
        "mcumgrx.message_size",
        "mcumgrx.pause",
        "mcumgrx.messages",
        "mcumgrx.protocol",
        "mcumgrx.transfer",
    },
    "mcumgrx.contracts": {
        "mcumgrx.errors",
        "mcumgrx.events",
        "mcumgrx.mcuboot",
        "mcumgrx.pause",
        "mcumgrx.messages.standard",
    },
    "mcumgrx.plugin_api": {
        "mcumgrx.address",
        "mcumgrx.bulk",
        "mcumgrx.client",
        "mcumgrx.contracts",
        "mcumgrx.errors",
        "mcumgrx.events",
        "mcumgrx.former_names",
        "mcumgrx.fragments",
        "mcumgrx.group",
        "mcumgrx.hosts",
        "mcumgrx.isolation",
        "mcumgrx.locks",
        "mcumgrx.mcuboot",
        "mcumgrx.message_size",
        "mcumgrx.pause",
        "mcumgrx.messages",
        "mcumgrx.protocol",
        "mcumgrx.threads",
        "mcumgrx.transfer",
        "mcumgrx.transport",
    },
    "mcumgrx.isolation": set(),
    "mcumgrx.repair": {"mcumgrx._version"},
    "mcumgrx.registry": {
        "mcumgrx.address",
        "mcumgrx.errors",
        "mcumgrx.group",
        "mcumgrx.isolation",
        "mcumgrx.plugin_api",
        "mcumgrx.repair",
        "mcumgrx.transport",
    },
    "mcumgrx.boot_text": set(),
    "mcumgrx.session": {
        "mcumgrx.address",
        "mcumgrx.boot_text",
        "mcumgrx.client",
        "mcumgrx.contracts",
        "mcumgrx.errors",
        "mcumgrx.events",
        "mcumgrx.link",
        "mcumgrx.memory",
        "mcumgrx.protocol.codes:look_for_tables",
        "mcumgrx.registry",
        "mcumgrx.transport",
    },
    "mcumgrx.gateway_work": {
        "mcumgrx._version",
        "mcumgrx.errors",
        "mcumgrx.events",
        "mcumgrx.flows",
        "mcumgrx.isolation",
        "mcumgrx.memory",
        "mcumgrx.session",
        "mcumgrx.threads",
    },
    "mcumgrx.gateways": {
        "mcumgrx._version",
        "mcumgrx.errors",
        "mcumgrx.events",
        "mcumgrx.flows",
        "mcumgrx.gateway_work",
        "mcumgrx.isolation",
    },
    "mcumgrx.blocking": {
        "mcumgrx.address",
        "mcumgrx.client",
        "mcumgrx.errors",
        "mcumgrx.events",
        "mcumgrx.flows",
        "mcumgrx.mcuboot",
        "mcumgrx.memory",
        "mcumgrx.pause",
        "mcumgrx.registry",
        "mcumgrx.session",
        "mcumgrx.transport",
    },
    "mcumgrx.updating": {
        "mcumgrx.address",
        "mcumgrx.contracts",
        "mcumgrx.events",
        "mcumgrx.flows",
        "mcumgrx.mcuboot",
        "mcumgrx.pause",
        "mcumgrx.session",
        "mcumgrx.transport",
    },
    # The order of an update: behaviour comes through contracts, never from a plugin, a session or a client.
    "mcumgrx.flows": {
        "mcumgrx.contracts",
        "mcumgrx.errors",
        "mcumgrx.events",
        "mcumgrx.isolation",
        "mcumgrx.mcuboot",
        "mcumgrx.pause",
        "mcumgrx.protocol.codes:SmpError",
        "mcumgrx.messages.standard",
    },
    # A device of its own, on the same protocol core. It shares numbers and names of errors with the client, but no
    # message: the same mistake on both sides would not show.
    "mcumgrx.sim": {
        "mcumgrx.address",
        "mcumgrx.errors",
        "mcumgrx.locks",
        "mcumgrx.mcuboot",
        "mcumgrx.protocol.codec",
        "mcumgrx.protocol.console",
        "mcumgrx.protocol.framing",
        "mcumgrx.protocol.header",
        "mcumgrx.protocol.codes",
        "mcumgrx.transport",
    },
    "mcumgrx.testing": {"mcumgrx.errors", "mcumgrx.messages", "mcumgrx.plugin_api", "mcumgrx.protocol", "mcumgrx.sim"},
    # What stands in for a program that uses the package, in whatever way.
    "mcumgrx.testing.pytest_plugin": {"mcumgrx.address", "mcumgrx.testing"},
    "mcumgrx.testing.pytest_async": {"mcumgrx.client", "mcumgrx.session", "mcumgrx.testing"},
    "mcumgrx.testing.recording": {"mcumgrx.blocking", "mcumgrx.errors", "mcumgrx.events", "mcumgrx.messages"},
    "mcumgrx.cli": {"mcumgrx"},
}

# Ours use what every plugin can use, and no more.
PLUGINS: dict[str, set[str]] = {"mcumgrx_plugins": {"mcumgrx.plugin_api", "mcumgrx.sim"}}

# Foreign packages, and the only places that may import them.
FOREIGN: dict[str, set[str]] = {
    "cbor2": {"mcumgrx.messages", "mcumgrx.sim"},
    "cryptography": {"mcumgrx.mcuboot.keys"},  # which does without, too
    "pluggy": {"mcumgrx.plugin_api", "mcumgrx.registry"},
    "click": {"mcumgrx.cli"},
    "distributed": {"mcumgrx.gateways", "mcumgrx.gateway_work"},
    "rich": {"mcumgrx.cli"},
    "serial": {"mcumgrx_plugins.uart"},
    "bleak": {"mcumgrx_plugins.ble"},
    # Of those who test with it, and have it then.
    "pytest": {"mcumgrx.testing.pytest_plugin"},
    "pytest_asyncio": {"mcumgrx.testing.pytest_async"},
    "dbus_fast": {"mcumgrx_plugins.ble"},  # bleak's own way to BlueZ
}

# The standard library's sockets, clocks and threads, and who must do without.
STANDARD: dict[str, set[str]] = {
    "mcumgrx.protocol": {"asyncio", "selectors", "socket", "threading", "time"},
    "mcumgrx.messages": {"asyncio", "selectors", "socket", "threading", "time"},
    "mcumgrx.transfer": {"asyncio", "selectors", "socket", "threading", "time"},
    "mcumgrx.mcuboot": {"asyncio", "socket", "threading", "time"},
    "mcumgrx.mcuboot.file_bytes": {"asyncio", "socket", "time"},  # which threads may share
    "mcumgrx.sim": {"socket", "threading", "time"},
    "mcumgrx.flows": {"socket", "threading", "time"},
    "mcumgrx.link": {"socket", "threading", "time"},
    "mcumgrx.link.call": {"asyncio", "selectors", "socket", "threading", "time"},
    "mcumgrx.link.table": {"asyncio", "selectors", "socket", "threading", "time"},
    "mcumgrx.client": {"socket", "threading", "time"},
    "mcumgrx.bulk": {"socket", "threading", "time"},
    "mcumgrx.message_size": {"socket", "threading", "time"},
    "mcumgrx.session": {"socket", "threading", "time"},
}


# -- reading the sources --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """One module: its dotted name, where it is, and its syntax tree."""

    name: str
    is_package: bool
    path: Path
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name if self.is_package else self.name.rpartition(".")[0]


def sources(*roots: tuple[str, Path]) -> dict[str, Source]:
    """All modules of the top-level packages `name` in the folders `root`."""
    found: dict[str, Source] = {}
    for top, root in roots:
        for path in sorted((root / top).rglob("*.py")):
            parts = list(path.relative_to(root).with_suffix("").parts)
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
            found[name] = Source(name, is_package, path, tree)
    return found


def imports(source: Source, modules: dict[str, Source]) -> Iterator[tuple[int, str, str]]:
    """Line, full module name, and name taken from it (or nothing) of each import, wherever in the file it stands."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, ""
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = source.package.split(".")
                package = package[: len(package) - (node.level - 1)]
                base = ".".join([*package, base] if base else package)
            for alias in node.names:
                # `from . import header` names a module, `from .header import Op` something in one.
                inner = f"{base}.{alias.name}"
                if inner in modules or inner == "mcumgrx._codec":
                    yield node.lineno, inner, ""
                else:
                    yield node.lineno, base, alias.name


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def rule_for(name: str, table: dict[str, set[str]]) -> str | None:
    """The longest name in `table` that `name` is or is within."""
    fitting = [package for package in table if within(name, package)]
    return max(fitting, key=len, default=None)


def where(source: Source, line: int) -> str:
    try:
        return f"{source.path.relative_to(ROOT).as_posix()}:{line}"
    except ValueError:  # a tree planted by a test
        return f"{source.path.as_posix()}:{line}"


def violations(modules: dict[str, Source]) -> list[str]:
    """Every import against the arrows, as a sentence that says where, which, and what is allowed."""
    found: list[str] = []
    for source in modules.values():
        table = PLUGINS if within(source.name, "mcumgrx_plugins") else CORE
        rule = source.name if source.name == "mcumgrx" else rule_for(source.name, table)
        if rule is None or (rule == "mcumgrx" and source.name != "mcumgrx"):
            found.append(f"{where(source, 1)}: {source.name} is in no row of the table of this test: add it")
            continue
        for line, target, part in imports(source, modules):
            problem = _problem(source.name, rule, target, part, table[rule])
            if problem is not None:
                found.append(f"{where(source, line)}: {source.name} imports {target}: {problem}")
    return found


def _problem(name: str, rule: str, target: str, part: str, allowed: set[str]) -> str | None:
    top = target.split(".")[0]
    if top == "__future__" or within(target, name):
        return None
    if top == "mcumgrx_plugins":
        if not within(name, "mcumgrx_plugins"):
            return "the core never imports a plugin"
        mine = ".".join(name.split(".")[:2])
        return None if within(target, mine) else "a plugin imports no other plugin"
    if top == "mcumgrx":
        if name.count(".") == 1 and within(name, "mcumgrx_plugins") and target != "mcumgrx.plugin_api":
            return "a plugin's __init__ imports mcumgrx.plugin_api alone"
        if target == "mcumgrx._version" or f"{target}:{part}" in allowed:
            return None
        if any(within(target, package) for package in (rule, *allowed)):
            return None
        if target == "mcumgrx.hints" and not within(name, "mcumgrx_plugins"):
            return None
        return f"{rule} may import only {', '.join(sorted(allowed)) or 'nothing of ours'}"
    if top in sys.stdlib_module_names:
        banned = rule_for(name, STANDARD)
        if banned is not None and any(within(target, module) for module in STANDARD[banned]):
            return f"{banned} does without {', '.join(sorted(STANDARD[banned]))}"
        return None
    if top not in FOREIGN:
        return "this package is not a dependency: add it to the table, or do without"
    if not any(within(name, package) for package in FOREIGN[top]):
        return f"only {', '.join(sorted(FOREIGN[top]))} may import {top}"
    return None


def printing(modules: dict[str, Source]) -> list[str]:
    """Every print, and every use of the standard streams, outside the command line."""
    found: list[str] = []
    for source in modules.values():
        if within(source.name, "mcumgrx.cli"):
            continue
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                found.append(f"{where(source, node.lineno)}: {source.name} prints; only mcumgrx.cli does")
            if (
                isinstance(node, ast.Attribute)
                and node.attr in ("stdout", "stderr", "__stdout__", "__stderr__")
                and isinstance(node.value, ast.Name)
                and node.value.id == "sys"
            ):
                found.append(f"{where(source, node.lineno)}: {source.name} uses sys.{node.attr}; only mcumgrx.cli does")
    return found


CLOCKS = {"time", "monotonic", "perf_counter", "sleep", "process_time", "time_ns", "monotonic_ns", "perf_counter_ns"}
TIMELESS = (
    "mcumgrx.protocol",
    "mcumgrx.messages",
    "mcumgrx.link",
    "mcumgrx.client",
    "mcumgrx.bulk",
    "mcumgrx.message_size",
    "mcumgrx.transfer",
    "mcumgrx.session",
    "mcumgrx.flows",
    "mcumgrx.sim",
)


def clocks(modules: dict[str, Source]) -> list[str]:
    """Every `time.…()` and `datetime.now()` where time comes from the running loop, so that it can be virtual."""
    found: list[str] = []
    for source in modules.values():
        if not any(within(source.name, package) for package in TIMELESS):
            continue
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            call = f"{node.value.id}.{node.attr}"
            if (node.value.id == "time" and node.attr in CLOCKS) or call in ("datetime.now", "datetime.utcnow"):
                found.append(f"{where(source, node.lineno)}: {source.name} uses {call}; time comes from the loop")
    return found


# Rooms in which no module imports one that imports it, also not on a way round or inside a function.
ROOMS = ("mcumgrx.cli", "mcumgrx.flows", "mcumgrx.transfer", "mcumgrx_plugins")


def circle(modules: dict[str, Source], room: str) -> list[str]:
    """A circle of imports among the modules of this room, or nothing."""
    inside = {name: source for name, source in modules.items() if within(name, room)}
    graph = {
        name: {target for _, target, _ in imports(source, modules) if target in inside and target != name}
        for name, source in inside.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


SYNCHRONOUS = ("mcumgrx.protocol", "mcumgrx.messages", "mcumgrx.transfer")


def awaits(modules: dict[str, Source]) -> list[str]:
    """Everything that waits, or lets others, where bytes and the time come in and values go out."""
    kinds = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    return [
        f"{where(source, node.lineno)}: {source.name} awaits; whoever uses it does"
        for source in modules.values()
        if any(within(source.name, package) for package in SYNCHRONOUS)
        for node in ast.walk(source.tree)
        if isinstance(node, kinds)
    ]


@pytest.fixture(scope="module")
def modules() -> dict[str, Source]:
    return sources(("mcumgrx", ROOT), ("mcumgrx_plugins", ROOT / "plugins"))


# -- the tests ------------------------------------------------------------------------------------------------------


def test_every_import_follows_the_arrows(modules: dict[str, Source]) -> None:
    assert violations(modules) == []


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_has_a_circle_of_imports(room: str, modules: dict[str, Source]) -> None:
    assert circle(modules, room) == []


def test_only_the_command_line_prints(modules: dict[str, Source]) -> None:
    assert printing(modules) == []


def test_time_comes_from_the_running_loop(modules: dict[str, Source]) -> None:
    assert clocks(modules) == []


def test_what_decides_never_awaits(modules: dict[str, Source]) -> None:
    assert awaits(modules) == []


def test_the_tables_name_what_exists(modules: dict[str, Source]) -> None:
    """A row for a module that was renamed would allow nothing and forbid nothing, unseen."""
    named = {*CORE, *PLUGINS}
    for allowed in (*CORE.values(), *PLUGINS.values()):
        named |= {entry.partition(":")[0] for entry in allowed}
    packages = {name.rpartition(".")[0] for name in modules}
    assert sorted(named - set(modules) - packages - {"mcumgrx._codec"}) == []


def test_plugin_entry_points_are_light(modules: dict[str, Source]) -> None:
    """Each `--help` imports them all: beside the plugin interface they import nothing at all."""
    for source in modules.values():
        if source.is_package and source.name.count(".") == 1 and within(source.name, "mcumgrx_plugins"):
            targets = {target for _, target, _ in imports(source, modules)}
            assert targets <= {"__future__", "mcumgrx.plugin_api"}, source.name


# -- sabotage: does the checker see what it must? -------------------------------------------------------------------

SABOTAGE = {
    "mcumgrx/errors.py": ("", None),
    "mcumgrx/flows/ok.py": ("from ..contracts import Device\nfrom mcumgrx import errors\nimport asyncio", None),
    "mcumgrx_plugins/ok/group.py": ("from mcumgrx.plugin_api import Group\nfrom .messages import Read", None),
    "mcumgrx/flows/a.py": ("from mcumgrx_plugins.image.group import ImageGroup", "the core never imports a plugin"),
    "mcumgrx/flows/b.py": ("from .. import session", "mcumgrx.flows.b imports mcumgrx.session"),
    "mcumgrx/flows/c.py": ("def late():\n    from ..client import Client", "mcumgrx/flows/c.py:2"),
    "mcumgrx/flows/d.py": ("from mcumgrx import connect", "mcumgrx.flows.d imports mcumgrx:"),
    "mcumgrx/flows/e.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import mcumgrx.registry",
        "mcumgrx.flows.e imports mcumgrx.registry",
    ),
    "mcumgrx/transfer/f.py": ("import asyncio", "mcumgrx.transfer does without asyncio"),
    "mcumgrx/transfer/g.py": ("from ..client import Client", "mcumgrx.transfer may import only"),
    "mcumgrx/protocol/f.py": ("import asyncio.tasks", "mcumgrx.protocol does without asyncio"),
    "mcumgrx/protocol/g.py": ("from ..client import Client", "mcumgrx.protocol may import only"),
    "mcumgrx/protocol/h.py": ("from time import monotonic", "does without"),
    "mcumgrx/mcuboot/image.py": ("from ..events import Note", "mcumgrx.mcuboot may import only mcumgrx.errors"),
    "mcumgrx/sim/h.py": ("from ..protocol.codes import OsErrorCode", None),
    "mcumgrx/sim/i.py": ("from ..messages.standard import Echo", "mcumgrx.sim may import only"),
    "mcumgrx/sim/i2.py": ("from ..protocol import standard", "mcumgrx.sim may import only"),
    "mcumgrx/messages/standard.py": ("", None),
    "mcumgrx/sim/j.py": ("import mcumgrx_plugins.os.messages", "the core never imports a plugin"),
    "mcumgrx/session.py": ("import click", "only mcumgrx.cli may import click"),
    "mcumgrx/client.py": ("import pluggy", "only mcumgrx.plugin_api, mcumgrx.registry may import pluggy"),
    "mcumgrx/bulk.py": ("import numpy", "not a dependency"),
    "mcumgrx/newcomer.py": ("", "in no row"),
    "mcumgrx_plugins/k/transport.py": ("from mcumgrx.client import Client", "may import only mcumgrx.plugin_api"),
    "mcumgrx_plugins/l/group.py": ("from ..image.group import ImageGroup", "a plugin imports no other plugin"),
    "mcumgrx_plugins/image/__init__.py": ("import mcumgrx.mcuboot", "a plugin's __init__ imports"),
}


def test_the_checker_catches_forbidden_imports(tmp_path: Path) -> None:
    plant(tmp_path, {name: text for name, (text, _) in SABOTAGE.items()})
    planted = sources(("mcumgrx", tmp_path), ("mcumgrx_plugins", tmp_path))
    found = violations(planted)
    for name, (_, expected) in SABOTAGE.items():
        about = [sentence for sentence in found if (tmp_path / name).as_posix() in sentence]
        assert bool(about) == (expected is not None), (name, about)
        if expected is not None:
            assert expected in about[0], name


def test_the_checker_catches_circles(tmp_path: Path) -> None:
    files = {
        "a": "from .b import B",
        "b": "def late():\n    from .c import C",
        "c": "from . import a",
        "d": "from .a import A",
    }
    plant(tmp_path, {f"mcumgrx/cli/{name}.py": text for name, text in files.items()})
    assert set(circle(sources(("mcumgrx", tmp_path)), "mcumgrx.cli")) == {f"mcumgrx.cli.{name}" for name in "abc"}


def test_the_checker_catches_printing_and_clocks(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "mcumgrx/client.py": "import time\nnow = time.monotonic()\nprint(now)",
            "mcumgrx/flows/a.py": "import sys\nsys.stderr.write('x')\nasync def f(time):\n    time.sleep(1)",
            "mcumgrx/cli/ok.py": "print('hello')",
            "mcumgrx/transfer/a.py": "async def f(x):\n    await x",
            "mcumgrx/sim/b.py": "from datetime import datetime\nnow = datetime.now()",
        },
    )
    planted = sources(("mcumgrx", tmp_path))
    assert [sentence.partition(": ")[2] for sentence in printing(planted)] == [
        "mcumgrx.client prints; only mcumgrx.cli does",
        "mcumgrx.flows.a uses sys.stderr; only mcumgrx.cli does",
    ]
    assert [sentence.partition(": ")[2] for sentence in awaits(planted)] == [
        "mcumgrx.transfer.a awaits; whoever uses it does",
        "mcumgrx.transfer.a awaits; whoever uses it does",
    ]
    assert sorted(sentence.partition(": ")[2] for sentence in clocks(planted)) == [
        "mcumgrx.client uses time.monotonic; time comes from the loop",
        "mcumgrx.flows.a uses time.sleep; time comes from the loop",
        "mcumgrx.sim.b uses datetime.now; time comes from the loop",
    ]


def plant(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
