"""Commands that ask a running server: `ps`, `load`, `unload`."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated, Any

import typer

from myllm.cli.common import print_json, print_table

HEADINGS = ("MODEL", "ROLE", "STATE", "BUSY", "QUEUED", "MEMORY", "CONTEXT", "PID")
Model = Annotated[str, typer.Argument(help="A model's name, as `myllm list` shows it.")]


def ps(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the engines that run now."""
    from myllm.cli.client import answer_of, required_server

    with closing(required_server(ctx.obj.settings())) as server:
        instances = answer_of(server.get("/api/instances"))["instances"]
    if as_json:
        print_json(instances)
    else:
        print_table(HEADINGS, [_row(one) for one in instances])


def load(ctx: typer.Context, model: Model) -> None:
    """Load a model, so that its first answer comes at once."""
    _act(ctx, model, "load", {})


def unload(
    ctx: typer.Context,
    model: Model,
    force: Annotated[bool, typer.Option("--force", help="Let running answers end first.")] = False,
) -> None:
    """Stop a model's engines and free their memory."""
    _act(ctx, model, "unload", {"force": "true"} if force else {})


def _act(ctx: typer.Context, model: str, verb: str, query: dict[str, str]) -> None:
    from urllib.parse import quote

    from myllm.cli.client import answer_of, required_server

    with closing(required_server(ctx.obj.settings())) as server:
        path = f"/api/models/{quote(model, safe='')}/{verb}"
        print(answer_of(server.post(path, params=query))["message"])


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    loading = f" {one['progress']:.0%}" if one["state"] == "loading" else ""
    return (
        one["model"],
        one["role"],
        one["state"] + loading,
        f"{one['slots']['busy']}/{one['slots']['total']}",
        str(one["queued"]),
        f"{one['memory']['measured_mb']} MB",
        str(one["context_size"]),
        str(one["pid"]),
    )
