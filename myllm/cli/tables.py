"""Tables and lists of fields: they fit a terminal, and are plain and complete in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from myllm.cli.common import say
from myllm.escaping import on_one_line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_GAP = 2
_FOLDED_PROSE = 20
_WIDEST_GROWN = 40

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
    widths = [_widest(column) for column in zip(*lines, strict=True)]
    padded = (map(_padded, line, widths) for line in lines)
    return "\n".join((" " * _GAP).join(cells).rstrip() for cells in padded)


def fitting_table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Table:
    """The columns that fit into `width` characters, as a rich table."""
    from rich.table import Table

    headings = tuple(column.heading for column in columns)
    cells = zip(headings, *(map(on_one_line, row) for row in rows), strict=True)
    shown = _fitting(columns, list(map(_widest, cells)), width)
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


class GrowingTable:
    """A table whose rows come by and by: in a pipe with all columns, on a terminal with those that
    fit.

    The columns are as wide as the cells of the row `usual`, and grow with wider ones, up to a
    limit; then the headings come again. Longer cells move those behind them; no text is cut.
    """

    def __init__(self, columns: Sequence[Column], usual: Row) -> None:
        self._columns = columns
        self._headings = tuple(column.heading for column in columns)
        self._wide = [_widest(cells) for cells in zip(self._headings, usual, strict=True)]
        self._shown: dict[int, int] = {}

    def lines(self, rows: Sequence[Row]) -> list[str]:
        """The lines for the next rows; the first time, and whenever the columns have changed, with
        the headings before them."""
        clean = [tuple(map(on_one_line, row)) for row in rows]
        # Nothing comes behind the last column that has to be aligned.
        for index in range(len(self._columns) - 1):
            grown = min(_WIDEST_GROWN, _widest(row[index] for row in clean))
            self._wide[index] = max(self._wide[index], grown)
        shown = self._fitting()
        if shown != self._shown:
            self._shown = shown
            clean.insert(0, self._headings)
        return [self._line(row) for row in clean]

    def _fitting(self) -> dict[int, int]:
        if not sys.stdout.isatty():
            return dict(enumerate(self._wide))
        from myllm.cli.common import console

        return _fitting(self._columns, self._wide, console().width)

    def _line(self, row: Row) -> str:
        cells = (
            _padded(row[index], width, self._columns[index].right)
            for index, width in self._shown.items()
        )
        return (" " * _GAP).join(cells).rstrip()


def _padded(cell: str, width: int, right: bool = False) -> str:
    """The cell with spaces up to `width` places of a terminal; Chinese characters take two."""
    from rich.cells import cell_len

    spaces = " " * (width - cell_len(cell))
    return spaces + cell if right else cell + spaces


def _widest(cells: Iterable[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, cells), default=0)


def _text(cell: str) -> Text:
    """A cell with its literal text, even if it looks like rich's markup."""
    from rich.text import Text

    return Text(on_one_line(cell), overflow="fold")


def _fitting(columns: Sequence[Column], wide: Sequence[int], width: int) -> dict[int, int]:
    """The indexes of the columns that are shown, and the places that each needs, if the cells of
    each are so `wide`."""
    shown = {
        index: min(each, _FOLDED_PROSE) if columns[index].prose else each
        for index, each in enumerate(wide)
    }
    while sum(shown.values()) + _GAP * (len(shown) - 1) > width:
        last = max(shown, key=lambda index: columns[index].rank)
        if not columns[last].rank:
            break
        del shown[last]
    return shown
