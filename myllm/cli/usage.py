"""`myllm usage`: what each key used of each model, through the running server or from the store."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Literal

import typer

from myllm.cli.common import print_json, say
from myllm.cli.session_api import session_api
from myllm.cli.tables import Column, print_table
from myllm.escaping import on_one_line

_COUNTS: Final = {
    "requests": Column("REQUESTS", right=True),
    "prompt_tokens": Column("PROMPT", right=True),
    "cached_tokens": Column("CACHED", rank=2, right=True),
    "generated_tokens": Column("GENERATED", right=True),
    "slot_seconds": Column("SLOT SECONDS", rank=1, right=True),
    "errors": Column("ERRORS", rank=3, right=True),
}
# A spreadsheet would take a cell that begins so for a formula.
_FORMULA: Final = ("=", "+", "-", "@")


def usage(
    ctx: typer.Context,
    by: Annotated[
        Literal["key", "model", "day"], typer.Option(help="What to add up by.")
    ] = "model",
    since: Annotated[
        str, typer.Option(help="How far back, such as 12h, or a date such as 2026-01-31 (UTC).")
    ] = "7d",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
) -> None:
    """Show requests, tokens, seconds in slots and errors of each key, model or day."""
    if as_json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other")
    with session_api(ctx.obj.settings()) as api:
        found = api.get("/api/usage", by=by, since=since).json()
    if as_json:
        print_json(found)
    elif as_csv:
        say(csv_of(by, found["usage"]), end="")
    else:
        rows = [_row(each[by] or "-", each) for each in found["usage"]]
        print_table([Column(by.upper()), *_COUNTS.values()], [*rows, _row("all", found["total"])])


def csv_of(by: str, sums: Sequence[dict[str, Any]]) -> str:
    """Return the sums with a line of headings; spreadsheets take no name for a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([by, *_COUNTS])
    writer.writerows(_harmless([each[by], *(each[name] for name in _COUNTS)]) for each in sums)
    return text.getvalue()


def _harmless(cells: Iterable[Any]) -> list[Any]:
    names = [on_one_line(cell) if isinstance(cell, str) else cell for cell in cells]
    return [
        f"'{each}" if isinstance(each, str) and each.startswith(_FORMULA) else each
        for each in names
    ]


def _row(name: str, sums: dict[str, Any]) -> tuple[str, ...]:
    return name, *(str(sums[each]) for each in _COUNTS)
