"""Measured values and their bounds, as a table or as JSON."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured value, at most `bound` or at least `least`; without both it only informs."""

    name: str
    value: float
    unit: str
    bound: float | None = None
    note: str = ""
    least: float | None = None

    @property
    def ok(self) -> bool:
        """Whether the value is within its bounds."""
        most = self.bound is None or self.value <= self.bound
        return most and (self.least is None or self.value >= self.least)

    def shown_bound(self) -> str:
        """For the table: `1.0 s`, or `>= 1.0 s`, or nothing."""
        if self.least is not None:
            return f">= {_shown(self.least, self.unit)}"
        return "" if self.bound is None else _shown(self.bound, self.unit)


def median_of(
    name: str,
    samples: Sequence[float],
    bound: float | None = None,
    unit: str = "s",
    least: float | None = None,
) -> Figure:
    """The median of `samples`, with their range as the note."""
    low, high = _shown(min(samples), unit), _shown(max(samples), unit)
    note = f"{len(samples)} rounds, {low} to {high}"
    return Figure(name, statistics.median(samples), unit, bound, note, least)


def worst_of(name: str, samples: Sequence[float], bound: float) -> Figure:
    """The largest of `samples`, for a bound that must hold every time."""
    note = f"worst of {len(samples)}, median {_shown(statistics.median(samples), 's')}"
    return Figure(name, max(samples), "s", bound, note)


def collected(figures: Iterable[Figure]) -> list[Figure]:
    """Return all figures, after each has been printed on stderr as soon as it was measured."""
    made = []
    for each in figures:
        made.append(each)
        bound = f" (at most {each.shown_bound()})" if each.bound is not None else ""
        verdict = "" if each.ok else " MISSED"
        value = _shown(each.value, each.unit)
        print(f"{each.name}: {value}{bound}{verdict}  {each.note}", file=sys.stderr, flush=True)
    return made


def print_table(figures: Iterable[Figure]) -> None:
    """Print a row for each figure; plain text if stdout is no terminal."""
    table = Table("figure", box=box.SIMPLE_HEAD)
    table.add_column("measured", justify="right")
    table.add_column("at most", justify="right")
    table.add_column("")
    table.add_column("note", style="dim")
    for each in figures:
        bound = each.shown_bound()
        verdict = ("ok" if each.ok else "[bold red]MISSED[/]") if bound else ""
        table.add_row(each.name, _shown(each.value, each.unit), bound, verdict, each.note)
    show(table)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")


def show(table: Table) -> None:
    """Print `table`, at full width if stdout is a file or a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 180
    console.print(table)


def print_json(figures: Iterable[Figure], **more: object) -> None:
    """Print the figures as JSON, with `more` in the document."""
    rows = [asdict(each) | {"ok": each.ok} for each in figures]
    machine = {"load_average": os.getloadavg(), "cpus": os.cpu_count()}
    document = {"figures": rows} | more | machine
    print(json.dumps(document, indent=2))


def _shown(value: float, unit: str) -> str:
    """Seconds to the millisecond; counts and megabytes as they are."""
    digits = {"s": 3, "ms": 2, "MB": 1, "%": 1, "x": 2}.get(unit, 0)
    return f"{value:.{digits}f} {unit}".strip()
