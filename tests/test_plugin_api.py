"""The plugin contract: what is public, and that it is enough."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import mcumgrx
import mcumgrx_plugins
from mcumgrx import plugin_api
from mcumgrx.plugin_api import DeviceError, SmpError, explaining
from mcumgrx.registry import default_registry

ROOT = Path(mcumgrx.__file__).parent


def test_every_public_name_is_there() -> None:
    for module in (mcumgrx, mcumgrx_plugins):
        assert all(getattr(module, name) is not None for name in module.__all__)
    assert len(set(plugin_api.__all__)) == len(plugin_api.__all__)
    for name in plugin_api.__all__:
        assert getattr(plugin_api, name) is not None, name
    assert "hookspec" not in plugin_api.__all__
    assert re.fullmatch(r"\d+\.\d+", plugin_api.API_VERSION)


@pytest.mark.parametrize("module", [mcumgrx, plugin_api, mcumgrx_plugins])
def test_type_checkers_are_told_of_every_public_name(module: Any) -> None:
    tree = ast.parse(inspect.getsource(module))
    imports = [one for one in ast.walk(tree) if isinstance(one, ast.ImportFrom)]
    told = {name.asname for one in imports for name in one.names if name.asname is not None}
    own = {getattr(one, "name", "") for one in tree.body}
    own |= {target.id for one in tree.body if isinstance(one, ast.Assign) for target in one.targets}
    assert told == set(module.__all__) - own


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, mcumgrx.plugin_api; print(*sys.modules)"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "cbor2", "mcumgrx.client", "mcumgrx.messages.message"} & set(there)


def our_types() -> set[str]:
    """The names of all classes of the core and the built-in plugins."""
    found: set[str] = set()
    for path in (*ROOT.rglob("*.py"), *Path(mcumgrx_plugins.__file__).parent.rglob("*.py")):
        if not path.is_relative_to(ROOT / "cli"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    return found


def signatures(name: str, thing: Any) -> Iterator[tuple[str, str]]:
    """Each public function and field of a public thing, with the text of the types in it."""
    if isinstance(thing, FunctionType):
        yield name, " ".join(str(text) for text in thing.__annotations__.values())
    if not isinstance(thing, type):
        return
    if dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            if field.name not in plugin_api.PROMISED.get(name, (field.name,)):
                continue
            yield f"{name}.{field.name}", str(field.type)
    for kind in thing.__mro__:
        if not kind.__module__.startswith("mcumgrx") or (kind is not thing and kind.__name__ in plugin_api.__all__):
            continue
        for part, value in vars(kind).items():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            promised = plugin_api.PROMISED.get(name)
            if promised is not None and part not in promised:
                continue
            if isinstance(function, FunctionType) and (not part.startswith("_") or part in ("__init__", "__call__")):
                yield f"{name}.{part}", " ".join(str(text) for text in function.__annotations__.values())


def test_no_private_type_is_in_a_public_signature() -> None:
    public = {*plugin_api.__all__, *mcumgrx.__all__, *mcumgrx_plugins.__all__}
    private = our_types() - public
    leaks = [
        f"{where}: {word}"
        for module in (plugin_api, mcumgrx, mcumgrx_plugins)
        for name in module.__all__
        for where, text in signatures(name, getattr(module, name))
        for word in re.findall(r"\b[A-Z]\w+", text)
        if word in private
    ]
    assert leaks == []


def test_descriptions_name_what_describes() -> None:
    """What tells a thing apart comes first, and everything else has its name beside it."""
    for kind, first in (
        (plugin_api.TransportPlugin, ["scheme", "summary"]),
        (plugin_api.GroupPlugin, ["id", "name", "summary"]),
        (plugin_api.CliCommand, ["name", "summary"]),
        (plugin_api.Argument, ["name", "help"]),
        (plugin_api.Option, ["flag", "help"]),
    ):
        parameters = inspect.signature(kind).parameters.values()
        assert [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD] == first


def test_every_built_in_group_names_its_errors() -> None:
    for group in default_registry().groups.values():
        table = group.error_table()
        assert table is not None, group.name
        assert issubclass(table, plugin_api.ErrorCode)


def test_a_table_of_errors_that_is_not_there_costs_the_names(caplog: Any) -> None:
    for load in ("no_such_module:Errors", "mcumgrx.errors:Nothing", "mcumgrx.errors:Exit"):
        caplog.clear()
        group = plugin_api.GroupPlugin(70, "acme", "x", load="a:b", errors=load)
        assert group.error_table() is None
        assert f"{load} is no table of errors" in caplog.text


def test_a_refusal_gets_the_hint_beside_its_code() -> None:
    hints = ((SmpError.BUSY, SmpError.INVALID), "first"), (SmpError.INVALID, "second"), (SmpError.NO_ENTRY, None)
    cases = ((SmpError.INVALID, "first"), (SmpError.NO_ENTRY, None), (SmpError.NO_MEMORY, "its own"))
    for code, hint in cases:
        with pytest.raises(DeviceError) as caught, explaining(*hints):
            raise DeviceError("no", group=None, rc=int(code), code=code, hint="its own")
        assert caught.value.hint == hint
