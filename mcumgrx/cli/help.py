"""How help looks: headings, examples, and the option that asks for it. What it says is with each command."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable

import click

from .streams import streams, write_line

NO_BREAK = "\u00a0"
"""A space at which no line is broken; written as an ordinary one."""


class _Formatter(click.HelpFormatter):
    """click's, with headings that stand out on a terminal, and no line break inside `[default: 60]`."""

    def write(self, string: str) -> None:
        super().write(string.replace(NO_BREAK, " "))

    def write_heading(self, heading: str) -> None:
        self.write(f"{'':>{self.current_indent}}{_bold(heading + ':')}\n")

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, args, _bold("Usage:") + " " if prefix is None else prefix)


class HelpContext(click.Context):
    """What help looks like, for commands and groups alike."""

    formatter_class = _Formatter


def _bold(text: str) -> str:
    return click.style(text, bold=True) if streams().out.isatty() and not os.environ.get("NO_COLOR") else text


def help_option() -> click.Option:
    """`--help`, in the words of the other options."""
    return telling("-h", "--help", help="Show this help.", text=lambda ctx: ctx.get_help())


def telling(*flags: str, help: str, text: Callable[[click.Context], str]) -> click.Option:
    """An option with which `text` is shown, and nothing done."""

    def show(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value and not ctx.resilient_parsing:
            write_line(streams().out, text(ctx))
            ctx.exit()

    return click.Option([*flags], is_flag=True, is_eager=True, expose_value=False, callback=show, help=help)


def write_epilog(epilog: str, formatter: click.HelpFormatter) -> None:
    """Examples are shown as they were written, not as a paragraph; a heading is added where there is none."""
    lines = inspect.cleandoc(epilog).splitlines()
    if not lines:
        return
    if not _is_heading(lines[0]):
        title = "Example" if len(lines) == 1 else "Examples"
        lines = [f"{title}:", *(f"  {line}" for line in lines)]
    formatter.write_paragraph()
    for line in lines:
        formatter.write((_bold(line) if _is_heading(line) else line) + "\n")


def _is_heading(line: str) -> bool:
    return line.endswith(":") and line[:1].isupper()
