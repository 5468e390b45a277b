"""What was measured against what it must not exceed, as a table or as JSON."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from rich import box
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured value. Without a bound it only explains another one."""

    name: str
    value: float
    unit: str
    bound: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether it keeps within its bound."""
        return self.bound is None or self.value <= self.bound


def median_of(
    name: str, samples: Sequence[float], bound: float | None = None, unit: str = "s"
) -> Figure:
    """The median of `samples`, with their range as the note."""
    low, high = _shown(min(samples), unit), _shown(max(samples), unit)
    note = f"{len(samples)} rounds, {low} to {high}"
    return Figure(name, statistics.median(samples), unit, bound, note)


def worst_of(name: str, samples: Sequence[float], bound: float) -> Figure:
    """The largest of `samples`: for what must hold each time, not usually."""
    note = f"worst of {len(samples)}, median {_shown(statistics.median(samples), 's')}"
    return Figure(name, max(samples), "s", bound, note)


def print_table(figures: Iterable[Figure]) -> None:
    """One row a figure; plain text where stdout is no terminal."""
    table = Table("figure", box=box.SIMPLE_HEAD)
    table.add_column("measured", justify="right")
    table.add_column("at most", justify="right")
    table.add_column("")
    table.add_column("note", style="dim")
    for each in figures:
        bound = "" if each.bound is None else _shown(each.bound, each.unit)
        verdict = "" if each.bound is None else ("ok" if each.ok else "[bold red]MISSED[/]")
        table.add_row(each.name, _shown(each.value, each.unit), bound, verdict, each.note)
    console = Console(highlight=False)
    # A file or a pipe has no width that a table should be cut to.
    console.print(table, width=None if console.is_terminal else 160)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")


def print_json(figures: Iterable[Figure]) -> None:
    """The same for programs."""
    rows = [asdict(each) | {"ok": each.ok} for each in figures]
    document = {"figures": rows, "load_average": os.getloadavg(), "cpus": os.cpu_count()}
    print(json.dumps(document, indent=2))


def _shown(value: float, unit: str) -> str:
    """Seconds to the millisecond, counts and megabytes as they are."""
    digits = {"s": 3, "ms": 2, "MB": 1, "%": 1}.get(unit, 0)
    return f"{value:.{digits}f} {unit}".strip()
