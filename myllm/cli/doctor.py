"""`myllm doctor`: checks that the machine has all that MyLLM needs, and says what to do if not."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from myllm.cli.common import say
from myllm.escaping import on_one_line

if TYPE_CHECKING:
    from myllm.engine.doctor_checks import Check

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red")}


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check compiler, CUDA, memory, disk, model folder and port; exit 1 if one is unusable."""
    from dataclasses import asdict

    from myllm.cli.common import EXIT_FAILED, print_json
    from myllm.cli.machine_checks import machine_checks
    from myllm.engine.doctor_checks import engine_checks

    settings = ctx.obj.settings()
    engine, *tools = engine_checks(settings)
    checks = [engine, *tools, *machine_checks(settings, has_engine=engine.level == "ok")]
    healthy = all(check.level != "failed" for check in checks)
    if as_json:
        print_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
    else:
        _print(checks)
    if not healthy:
        raise typer.Exit(EXIT_FAILED)


def _print(checks: list[Check]) -> None:
    if not sys.stdout.isatty():
        width = max(len(check.name) for check in checks)
        for check in checks:
            finding = on_one_line(check.finding)
            say(f"{_MARKS[check.level][0]} {check.name:<{width}}  {finding}")
            if check.advice:
                say(f"  {'':<{width}}  → {on_one_line(check.advice)}")
        return
    from rich.table import Table
    from rich.text import Text

    from myllm.cli.common import console

    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for check in checks:
        mark, colour = _MARKS[check.level]
        grid.add_row(Text(mark, style=colour), check.name, Text(on_one_line(check.finding)))
        if check.advice:
            grid.add_row("", "", Text(on_one_line(f"→ {check.advice}")))
    console().print(grid, soft_wrap=False)
