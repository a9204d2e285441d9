"""`mcumgrx plugins list`: what is plugged in, what each plugin supplies, and what does not work and why."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..plugin_api import CliContext, cli_command
from .help import NO_BREAK

if TYPE_CHECKING:
    from ..registry import PluginRecord


@dataclass(frozen=True, slots=True)
class PluginList:
    """All plugins that were found, in the order in which they were loaded."""

    plugins: tuple[PluginRecord, ...]

    def lines(self) -> list[str]:
        if not self.plugins:
            return ["no plugins are installed"]
        name_width = max(len(one.name) for one in self.plugins) + 2
        indent = " " * (name_width + 2)
        lines: list[str] = []
        for one in self.plugins:
            origin = " ".join(part for part in (one.distribution or "unknown distribution", one.version) if part)
            state = ", switched off by MCUMGRX_DISABLE_PLUGINS" if one.disabled else ", BROKEN" if one.error else ""
            lines.append(f"{one.name:<{name_width}}  {origin}{state}")
            for kind, names in _by_kind(one.supplies):
                unbroken = ", ".join(name.replace(" ", NO_BREAK) for name in names)
                lines += _wrapped(f"{kind} {unbroken}", indent, " " * (len(kind) + 1))
            if one.error:
                lines += _wrapped(f"error: {one.error}", indent, "       ")
            for warning in one.warnings:
                lines += _wrapped(f"warning: {warning}", indent, "         ")
            if one.hint:
                lines += _wrapped(f"hint: {one.hint}", indent, "      ")
        return lines


def _by_kind(supplies: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """`command os echo`, `command os reset` → `command: os echo, os reset`."""
    kinds: dict[str, list[str]] = {}
    for what in supplies:
        kind, _, name = what.partition(" ")
        kinds.setdefault(kind, []).append(name)
    return [(kind if len(names) == 1 else f"{kind}s", names) for kind, names in kinds.items()]


def _wrapped(text: str, indent: str, hang: str) -> list[str]:
    rows = textwrap.wrap(text, 78, initial_indent=indent, subsequent_indent=indent + hang, break_on_hyphens=False)
    return [row.replace(NO_BREAK, " ") for row in rows]


@cli_command(needs_device=False)
async def list_plugins(context: CliContext) -> PluginList:
    """List the plugins with version, distribution and what they supply, and say what does not work and why."""
    from ..registry import default_registry

    return PluginList(default_registry().plugins)
