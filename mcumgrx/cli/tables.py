"""Tables of texts that fit a terminal, and that may grow while something is looked for."""

from __future__ import annotations

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
    import textwrap  # only here: every command would pay for them

    from rich.cells import cell_len, set_cell_size

    def padded(cells: Sequence[str]) -> str:
        return "  ".join(set_cell_size(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()

    rows = [tuple(printable(cell) for cell in row.cells) for row in table.rows]
    widths = [max(cell_len(line[at]) for line in (table.titles, *rows)) for at in range(len(table.titles))]
    others = sum(widths[1:]) + 2 * len(widths[1:])
    widths[0] = min(widths[0], max(_NARROWEST, width - others))
    lines = [padded(table.titles)]
    for row, cells in zip(table.rows, rows, strict=True):
        first = cells[0]
        if cell_len(first) > widths[0]:
            first = set_cell_size(first, widths[0] - 3).rstrip() + "..."
        lines.append(padded((first, *cells[1:])))
        if below:
            whole = (f"{table.titles[0]}: {cells[0]}",) if first != cells[0] else ()
            for text in (*whole, *(printable(text) for text in row.below)):
                lines += textwrap.wrap(
                    text, width, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
                )
    return lines
