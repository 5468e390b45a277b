"""Tables and lists of fields: they fit a terminal, and are plain and complete in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from myllm.cli.common import say
from myllm.escaping import on_one_line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_GAP = 2
_FOLDED_PROSE = 20

Row = tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    On a terminal that is too narrow for all columns, the one with the highest `rank` is left out
    first; one of rank 0 stays, and wraps if necessary. A column of `prose` wraps before another
    column is left out. No text is ever cut.
    """

    heading: str
    rank: int = 0
    prose: bool = False
    right: bool = False


def print_table(columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Print a table that fits the terminal; in a pipe, one aligned line per row."""
    if not sys.stdout.isatty():
        say(plain_table(columns, rows))
        return
    from myllm.cli.common import console

    out = console()
    out.print(fitting_table(columns, rows, out.width), soft_wrap=False)


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """Print names and values; on a terminal, long values wrap next to their names."""
    width = max(len(name) for name, _ in fields)
    if not sys.stdout.isatty():
        for name, value in fields:
            say(f"{name:<{width}}  {on_one_line(value)}".rstrip())
        return
    from rich.table import Table

    from myllm.cli.common import console

    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in fields:
        grid.add_row(name, _text(value))
    console().print(grid, soft_wrap=False)


def plain_table(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """All columns of all rows, one line per row, whatever their width."""
    headings = tuple(column.heading for column in columns)
    lines = [headings, *(tuple(map(on_one_line, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        (cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def fitting_table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Table:
    """The columns that fit into `width` characters, as a rich table."""
    from rich.table import Table

    shown = _fitting(columns, rows, width)
    left = width - sum(shown.values()) - _GAP * (len(shown) - 1)
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for index, least in shown.items():
        column = columns[index]
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=bool(column.rank) and not column.prose,
            overflow="fold",
            max_width=least + max(0, left) if column.prose else None,
        )
    for row in rows:
        table.add_row(*(_text(row[index]) for index in shown))
    return table


def widths_of(columns: Sequence[Column], usual: Row) -> dict[int, int]:
    """The columns for lines that come one by one, by their index, and the width of each: in a pipe
    all columns, on a terminal those that fit if every line is as wide as `usual`."""
    if sys.stdout.isatty():
        from myllm.cli.common import console

        return _fitting(columns, [usual], console().width)
    return {
        index: max(len(column.heading), len(cell))
        for index, (column, cell) in enumerate(zip(columns, usual, strict=True))
    }


def line_of(columns: Sequence[Column], widths: Mapping[int, int], row: Row) -> str:
    """One line of such a table. A longer cell moves those behind it; no text is cut."""
    cells = [
        on_one_line(row[index]).rjust(width)
        if columns[index].right
        else on_one_line(row[index]).ljust(width)
        for index, width in widths.items()
    ]
    return (" " * _GAP).join(cells).rstrip()


def _text(cell: str) -> Text:
    """A cell with its literal text, even if it looks like rich's markup."""
    from rich.text import Text

    return Text(on_one_line(cell), overflow="fold")


def _fitting(columns: Sequence[Column], rows: Sequence[Row], width: int) -> dict[int, int]:
    """The indexes of the shown columns, and the characters that each needs."""
    from rich.cells import cell_len

    shown = {}
    for index, column in enumerate(columns):
        wide = max(map(cell_len, (column.heading, *(on_one_line(row[index]) for row in rows))))
        shown[index] = min(wide, _FOLDED_PROSE) if column.prose else wide
    while sum(shown.values()) + _GAP * (len(shown) - 1) > width:
        last = max(shown, key=lambda index: columns[index].rank)
        if not columns[last].rank:
            break
        del shown[last]
    return shown
