"""What is public, as text: every name of the plugin contract with its signature, for docs/reference/api.md.

`generate.py` writes it into the page. Nothing here decides what is public: `__all__` does, and `plugin_api.PROMISED`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from enum import Enum, EnumType
from types import FunctionType, ModuleType
from typing import Any

import mcumgrx
import mcumgrx_plugins
from mcumgrx import plugin_api
from mcumgrx.errors import McumgrError

__all__ = ["plugin_surface", "python_surface", "simulation_surface"]

# Headings, and the module that tells what belongs under each; what no row names is in the last but one.
_HEADINGS = {
    "Descriptions and commands": ("mcumgrx.plugin_api", "mcumgrx.hints"),
    "Groups and messages": ("mcumgrx.group", "mcumgrx.messages.message", "mcumgrx.protocol.header", "mcumgrx.client"),
    "Links": ("mcumgrx.transport", "mcumgrx.address", "mcumgrx.protocol.framing", "mcumgrx.protocol.console"),
    "Progress": ("mcumgrx.events", "mcumgrx.pause"),
    "Roles, images and messages of SMP's own groups": (
        "mcumgrx.contracts",
        "mcumgrx.mcuboot",
        "mcumgrx.messages.standard",
        "mcumgrx.protocol.codes",
    ),
    "Data in fragments": ("mcumgrx.bulk", "mcumgrx.message_size", "mcumgrx.transfer", "mcumgrx.fragments"),
    "Errors": ("mcumgrx.errors",),
    "Other things": (),
    "Names from before 1.0": ("mcumgrx.former_names",),
}
_FORMER = ("Command", "CommandContext", "CommandPlugin", "command")


def plugin_surface() -> str:
    """Everything in `mcumgrx.plugin_api`, under headings."""
    sections: dict[str, list[str]] = {heading: [] for heading in _HEADINGS}
    for name in plugin_api.__all__:
        sections[_heading(name)].append("\n".join(_entry(name, getattr(plugin_api, name), plugin_api)))
    return "\n\n".join(
        f"### {heading}\n\n```text\n" + "\n".join(entries) + "\n```" for heading, entries in sections.items() if entries
    )


def python_surface() -> str:
    """Everything in `mcumgrx` that is not in the contract, and the groups that come with it."""
    names = [name for name in mcumgrx.__all__ if name not in plugin_api.__all__]
    lines = [line for name in names for line in _entry(name, getattr(mcumgrx, name), mcumgrx)]
    for name in mcumgrx_plugins.__all__:
        lines += [line for line in _entry(name, getattr(mcumgrx_plugins, name), mcumgrx_plugins) if line]
    return "```text\n" + "\n".join(lines) + "\n```"


def simulation_surface() -> str:
    """The modules for simulation and tests, with what each has."""
    rows = []
    for module in _SIMULATION:
        found = importlib.import_module(module)
        rows.append(f"{module}\n    {', '.join(sorted(found.__all__))}")
    return "```text\n" + "\n".join(rows) + "\n```"


_SIMULATION = (
    "mcumgrx.sim.boards",
    "mcumgrx.sim.device",
    "mcumgrx.sim.files",
    "mcumgrx.sim.groups",
    "mcumgrx.sim.images",
    "mcumgrx.sim.link",
    "mcumgrx.sim.loop",
    "mcumgrx.testing.golden",
    "mcumgrx.testing.groups",
    "mcumgrx.testing.transports",
)


def _heading(name: str) -> str:
    if name in _FORMER:
        return "Names from before 1.0"
    module = str(getattr(getattr(plugin_api, name), "__module__", "mcumgrx.plugin_api"))
    module = plugin_api.home_of(name) or module
    for heading, modules in _HEADINGS.items():
        if any(module == one or module.startswith(f"{one}.") for one in modules):
            return heading
    return "Other things"


def _entry(name: str, thing: Any, home: ModuleType) -> Iterator[str]:
    if name in _FORMER and thing.__name__ != name:
        yield f"{name} = {thing.__name__}"
    elif isinstance(thing, FunctionType):
        yield f"{name}{_signature(thing)}"
    elif isinstance(thing, type):
        yield from _class(name, thing)
    else:
        yield f"{name} = {thing!r}" if name == "API_VERSION" else name


def _class(name: str, kind: type) -> Iterator[str]:
    bases = [base.__name__ for base in kind.__bases__ if base.__name__ not in ("object", "Generic", "Protocol", "ABC")]
    head = f"class {name}" + (f" < {', '.join(bases)}" if bases else "")
    if isinstance(kind, EnumType):
        values = [int(one) if issubclass(kind, int) else one.value for one in kind]
        members = ", ".join(f"{one.name} = {value!r}" for one, value in zip(kind, values, strict=True))
        yield f"{head}: {members}" if members else head
        return
    promised = plugin_api.PROMISED.get(name)
    yield head + (_signature(kind) if _is_made(kind) and (promised is None or "__init__" in promised) else "")
    if issubclass(kind, McumgrError):
        return
    if promised is not None and dataclasses.is_dataclass(kind):
        yield from (f"    {field.name}: {field.type}" for field in dataclasses.fields(kind) if field.name in promised)
    for part, value in sorted(vars(kind).items()):
        if part.startswith("_") or (promised is not None and part not in promised):
            continue
        function = getattr(value, "__func__", value)
        if isinstance(value, property) and value.fget is not None:
            yield f"    {part}: {value.fget.__annotations__.get('return', '')}"
        elif isinstance(function, FunctionType):
            yield f"    {'async ' if inspect.iscoroutinefunction(function) else ''}{part}{_signature(function)}"


def _is_made(kind: type) -> bool:
    """Whether it is for others to make one."""
    if getattr(kind, "_is_protocol", False):
        return False
    return dataclasses.is_dataclass(kind) or isinstance(vars(kind).get("__init__"), FunctionType)


def _signature(thing: Any) -> str:
    """As in the source, but for `self`."""
    signature = inspect.signature(thing)
    kept = [
        one.replace(default=_default(one.default), annotation=_annotation(one.annotation))
        for one in signature.parameters.values()
        if one.name not in ("self", "cls", "_")
    ]
    result = inspect.Signature.empty if isinstance(thing, type) else _annotation(signature.return_annotation)
    return str(signature.replace(parameters=kept, return_annotation=result))


class _Raw:
    """Shown as this text."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _annotation(annotation: object) -> object:
    return annotation if annotation is inspect.Parameter.empty else _Raw(str(annotation))


def _default(value: Any) -> Any:
    """A default value in words that are the same in every run."""
    if isinstance(value, Enum):
        return _Raw(f"{type(value).__name__}.{value.name}")
    if value is inspect.Parameter.empty or value is None or isinstance(value, (bool, int, float, str, bytes, tuple)):
        return value
    return _Raw(getattr(value, "__name__", "…"))
