"""`myllm requests`: the last requests of a running server, or each one as it ends."""

from __future__ import annotations

import sys
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from myllm.cli.common import print_json, say, warning
from myllm.cli.completion import complete_model
from myllm.cli.tables import Column, GrowingTable, Row, print_table

if TYPE_CHECKING:
    import httpx

COLUMNS = (
    Column("TIME"),
    Column("KEY", rank=3),
    Column("MODEL"),
    Column("DIALECT", rank=7),
    Column("STATUS"),
    Column("WAIT", rank=4, right=True),
    Column("LOAD", rank=6, right=True),
    Column("FIRST", rank=2, right=True),
    Column("TOKENS", rank=1, right=True),
    Column("TOK/S", rank=5, right=True),
    Column("TOOK", right=True),
    Column("NOTES", rank=8),
)
# While requests are followed, the widths of those to come are not known.
_USUAL = ("12:00:00", "some-service", "some-model-1.5b", "anthropic", "cancelled", "12.34s",
          "12.34s", "12.34s", "12345+1234", "1234.5", "123.45s", "truncated")  # fmt: skip
_POLL_S = 1.0
_MOST = 1000


def requests(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Only requests to it.", autocompletion=complete_model),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only requests with this key.")] = None,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            help="Only queued, running, ok, failed or cancelled ones, or with an HTTP status.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=_MOST, help="How many at most.")
    ] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with each that ends, until Ctrl+C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the last requests, newest first, and those under way."""
    from myllm.cli.client import required_server

    wanted = {"model": model, "key": key, "status": status}
    query = {name: value for name, value in wanted.items() if value is not None}
    with closing(required_server(ctx.obj.settings())) as server:
        if follow:
            with suppress(KeyboardInterrupt):  # the usual end of --follow
                _follow(server, query, limit, as_json)
            return
        shown = _ask(server, query, limit)["requests"]
        if as_json:
            print_json(shown)
        else:
            print_table(COLUMNS, [_row(one) for one in shown])


def _ask(server: httpx.Client, query: dict[str, str], limit: int, after: int = 0) -> dict[str, Any]:
    from myllm.cli.client import answer_of

    asked = query | {"limit": str(limit), "after": str(after)}
    answer: dict[str, Any] = answer_of(server.get("/api/requests", params=asked))
    return answer


def _follow(server: httpx.Client, query: dict[str, str], limit: int, as_json: bool) -> NoReturn:
    """Print the last requests, oldest first, and then each that ends. Raises ServeFailed when the
    server stops."""
    table = GrowingTable(COLUMNS, _USUAL)
    answer = _ask(server, query, limit)
    while True:
        ended = [one for one in reversed(answer["requests"]) if one["number"]]
        lines = map(_as_line, ended) if as_json else table.lines([_row(one) for one in ended])
        for line in lines:
            say(line)
        sys.stdout.flush()
        time.sleep(_POLL_S)
        answer = _ask(server, query, _MOST, answer["last"])
        if len(answer["requests"]) == _MOST:
            warning(f"more than {_MOST} requests have ended at once; older ones are not shown")


def _as_line(one: dict[str, Any]) -> str:
    import json

    return json.dumps(one)


def _row(one: dict[str, Any]) -> Row:
    from myllm.cli.times import clock_time

    ended = one["state"] in ("ok", "failed", "cancelled")
    return (
        clock_time(one["began_at"]),
        one["key"] or one["address"],
        one["model"] or one["path"],
        one["dialect"],
        str(one["status"]) if one["state"] == "failed" and one["status"] else one["state"],
        seconds(one["wait_seconds"]),
        seconds(one["load_seconds"]),
        seconds(one["first_token_seconds"]),
        f"{one['prompt_tokens']}+{one['generated_tokens']}" if ended else "",
        str(one["tokens_per_second"] or "") if ended else "",
        seconds(one["seconds"]),
        ", ".join(_notes(one)),
    )


def _notes(one: dict[str, Any]) -> list[str]:
    notes = []
    if one["resumed"]:
        notes.append(f"resumed {one['resumed']}x")
    if one["truncated"]:
        notes.append("truncated")
    if one["error"]:
        notes.append(one["error"])
    return notes


def seconds(value: float | None) -> str:
    """A duration, or nothing for none."""
    return f"{value:.2f}s" if value else ""
