"""Commands about the engines of a running server: `ps`, `load`, `unload`, `reload`."""

from __future__ import annotations

import sys
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from myllm.cli.common import print_json, say, warning
from myllm.cli.completion import complete_model
from myllm.cli.tables import Column, fitting_table, print_table
from myllm.errors import KeyRefused
from myllm.escaping import on_one_line

if TYPE_CHECKING:
    import httpx

    from myllm.settings import Settings

COLUMNS = (
    Column("MODEL"),
    Column("ROLE", rank=2),
    Column("STATE"),
    Column("BUSY"),
    Column("QUEUED"),
    Column("MEMORY", rank=1),
    Column("PREDICTED", rank=6),
    Column("CONTEXT", rank=4),
    Column("UNTIL", rank=3),
    Column("PID", rank=5),
)
_REFRESH_S = 1.0
Model = Annotated[
    str,
    typer.Argument(
        help="A model's name, as `myllm list` shows it, or an alias.", autocompletion=complete_model
    ),
]


def ps(
    ctx: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Refresh every second, until Ctrl+C.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the running engines, and the models that wait for memory."""
    from myllm.cli.client import required_server

    with closing(required_server(ctx.obj.settings())) as server:
        if not watch:
            _print_instances(server, as_json)
            return
        with suppress(KeyboardInterrupt):  # the usual end of --watch
            if as_json or not sys.stdout.isatty():
                _print_again_and_again(server, as_json)
            _show_live(server)


def _instances(server: httpx.Client) -> list[dict[str, Any]]:
    from myllm.cli.client import answer_of

    found: list[dict[str, Any]] = answer_of(server.get("/api/instances"))["instances"]
    return found


def _print_instances(server: httpx.Client, as_json: bool) -> None:
    instances = _instances(server)
    if as_json:
        print_json(instances)
    else:
        print_table(COLUMNS, [instance_row(one) for one in instances])
        for sentence in _warnings(instances):
            warning(sentence)


def _warnings(instances: list[dict[str, Any]]) -> list[str]:
    """How the folders of running models differ from what they were started with."""
    return [f"{one['model']}: {sentence}" for one in instances for sentence in one["warnings"]]


def _print_again_and_again(server: httpx.Client, as_json: bool) -> NoReturn:
    """For a pipe: block after block. Raises ServeFailed when the server stops."""
    while True:
        _print_instances(server, as_json)
        if not as_json:
            say()
        sys.stdout.flush()
        time.sleep(_REFRESH_S)


def _show_live(server: httpx.Client) -> NoReturn:
    """For a terminal: one table, in place. Raises ServeFailed when the server stops."""
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from myllm.cli.common import console

    out = console()
    with Live(console=out, auto_refresh=False) as live:
        while True:
            instances = _instances(server)
            table = fitting_table(COLUMNS, [instance_row(one) for one in instances], out.width)
            warnings = [on_one_line(f"warning: {each}") for each in _warnings(instances)]
            below = [Text(each, "yellow") for each in warnings]
            live.update(Group(table, *below), refresh=True)
            time.sleep(_REFRESH_S)


def load(
    ctx: typer.Context,
    model: Model,
    keep_alive: Annotated[
        str | None, typer.Option(help='How long it stays: seconds or "5m"; -1: forever.')
    ] = None,
) -> None:
    """Load a model, so that its first answer need not wait for it."""
    body = {} if keep_alive is None else {"keep_alive": keep_alive}
    _act(ctx, f"{path_of(model)}/load", body=body)


def unload(
    ctx: typer.Context,
    model: Model,
    force: Annotated[bool, typer.Option("--force", help="Even if it is answering.")] = False,
) -> None:
    """Stop a model's engines and free their memory."""
    _act(ctx, f"{path_of(model)}/unload", query={"force": "true"} if force else {})


def reload(
    ctx: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(help="Only this model; default: all.", autocompletion=complete_model),
    ] = None,
) -> None:
    """Replace running engines by new ones, after a change of config.json; no request fails."""
    _act(ctx, "/api/reload" if model is None else f"{path_of(model)}/reload")


def loaded_model(settings: Settings, name: str) -> dict[str, Any] | None:
    """What a running server reports about a model that it has loaded from our models folder; None
    when no such server runs, or it requires another key."""
    from pathlib import Path

    from myllm.cli.client import running_server
    from myllm.models.registry import BUILTIN_DIR, Registry

    server = running_server(settings)
    if server is None:
        return None
    try:
        with closing(server):
            answer = server.get(path_of(name))
    except KeyRefused:
        return None
    shown: dict[str, Any] = answer.json() if answer.is_success else {"loaded": False}
    ours = (Registry(settings.models_dir).models_dir, BUILTIN_DIR)
    return shown if shown["loaded"] and Path(shown["path"]).parent in ours else None


def path_of(model: str) -> str:
    """The path of the route about a model."""
    from urllib.parse import quote

    return f"/api/models/{quote(model, safe='')}"


def _act(
    ctx: typer.Context,
    path: str,
    query: dict[str, str] | None = None,
    body: dict[str, str] | None = None,
) -> None:
    from myllm.cli.client import answer_of, long_wait_s, required_server

    settings = ctx.obj.settings()
    with closing(required_server(settings)) as server:
        wait_s = long_wait_s(settings)
        answer = server.post(path, params=query, json=body or None, timeout=wait_s)
        say(answer_of(answer)["message"])


def instance_row(one: dict[str, Any]) -> tuple[str, ...]:
    """What COLUMNS show of an instance."""
    loading = f" {one['progress']:.0%}" if one["state"] == "loading" else ""
    return (
        one["model"],
        one["role"],
        one["state"] + loading,
        f"{one['slots']['busy']}/{one['slots']['total']}",
        str(one["queued"]),
        f"{one['memory']['measured_mb']} MB",
        f"{one['memory']['estimated_mb']} MB",
        str(one.get("context_size", "")),
        _until(one),
        str(one["pid"] or ""),
    )


def _until(one: dict[str, Any]) -> str:
    """When an idle engine will be unloaded, in local time."""
    from datetime import datetime

    if one.get("pinned"):
        return "pinned"
    expires_at = one.get("expires_at")
    return f"{datetime.fromisoformat(expires_at).astimezone():%H:%M:%S}" if expires_at else ""
