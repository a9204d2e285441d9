"""Tables of texts that fit a terminal, and that may grow while something is looked for."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from .text import printable

WIDTH = 80
"""What a table has to fit in, wherever it goes."""

_NARROWEST = 12  # of a first column that is cut


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table: the text of each column, and lines below it for what no column is for."""

    cells: tuple[str, ...]
    below: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under their titles. While it grows, `status` says what is going on."""

    titles: tuple[str, ...]
    rows: tuple[Row, ...]
    status: str = ""


def table_lines(table: Table, *, below: bool = True, width: int = WIDTH) -> list[str]:
    """The table in lines of at most `width` columns; the titles come first.

    The first column gives way where there is not enough room: what does not fit is cut there, and stands whole below.
    The other columns are never cut. Without `below`, one line for each row and no more.
    """
    import textwrap  # only here: every command would pay for it

    rows = [tuple(printable(cell) for cell in row.cells) for row in table.rows]
    widths = [max(_columns(line[at]) for line in (table.titles, *rows)) for at in range(len(table.titles))]
    others = sum(widths[1:]) + 2 * len(widths[1:])
    widths[0] = min(widths[0], max(_NARROWEST, width - others))
    lines = [_padded(table.titles, widths)]
    for row, cells in zip(table.rows, rows, strict=True):
        first = _cut(cells[0], widths[0])
        lines.append(_padded((first, *cells[1:]), widths))
        if below:
            whole = (f"{table.titles[0]}: {cells[0]}",) if first != cells[0] else ()
            for text in (*whole, *(printable(text) for text in row.below)):
                lines += textwrap.wrap(
                    text, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
                )
    return lines


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    pairs = zip(cells, widths, strict=True)
    return "  ".join(text + " " * (width - _columns(text)) for text, width in pairs).rstrip()


def _columns(text: str) -> int:
    """How many columns a terminal needs for the text."""
    if text.isascii():
        return len(text)
    return sum(_columns_of(char) for char in text)


def _columns_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):  # drawn over the one before
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _cut(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    room = width - 3
    kept = ""
    for char in text:
        room -= _columns_of(char)
        if room < 0:
            break
        kept += char
    return kept.rstrip() + "..."
