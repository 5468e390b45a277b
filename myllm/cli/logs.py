"""`myllm logs`: what a model's engines have printed."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from myllm.cli.common import say
from myllm.cli.completion import complete_model
from myllm.limits import LOG_LINES

if TYPE_CHECKING:
    import httpx

    from myllm.settings import Settings

_LOOK_EVERY_S = 0.25
_DATA = "data: "


def logs(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            help="A model's name, as `myllm list` shows it, or an alias.",
            autocompletion=complete_model,
        ),
    ],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines, until Ctrl+C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=LOG_LINES, help="So many last lines.")
    ] = 100,
) -> None:
    """Print what a model's engines have printed, also those that have ended."""
    from myllm.cli.client import running_server

    settings = ctx.obj.settings()
    server = running_server(settings)
    with suppress(KeyboardInterrupt):  # the usual end of --follow
        if server is not None:
            with closing(server):
                printed = _print(_served(server, model, lines, follow), follow)
        else:
            printed = _print(_stored(settings, model, lines, follow), follow)
        if not printed and lines:
            say(f"No engine of '{model}' has printed anything yet", stderr=True)


def _print(pieces: Iterator[str], at_once: bool) -> bool:
    """Print what comes, `at_once` also if stdout is a pipe; returns whether anything came."""
    came = False
    for piece in pieces:
        came = True
        say(piece, end="", flush=at_once)
    return came


def _served(server: httpx.Client, model: str, lines: int, follow: bool) -> Iterator[str]:
    """What the running server has of the model."""
    from urllib.parse import quote

    from myllm.cli.client import error_of
    from myllm.errors import MyLLMError

    path, query = f"/api/logs/{quote(model, safe='')}", {"lines": lines, "follow": follow}
    accepted = {"Accept": "text/event-stream"}  # comments show that a silent server lives
    with server.stream("GET", path, params=query, headers=accepted) as answer:
        if not answer.is_success:
            raise error_of(answer.status_code, answer.read().decode(errors="replace"))
        has_failed = False
        for line in answer.iter_lines():
            if line == "event: error":
                has_failed = True
            elif line.startswith(_DATA):
                if has_failed:
                    raise MyLLMError(json.loads(line.removeprefix(_DATA))["detail"])
                yield line.removeprefix(_DATA) + "\n"


def _stored(settings: Settings, model: str, lines: int, follow: bool) -> Iterator[str]:
    """What earlier servers have left in the state folder."""
    from myllm.launcher.local.log_files import LogFiles
    from myllm.models.registry import Registry
    from myllm.supervisor.spec import log_names

    registry = Registry(settings.models_dir)
    own_name = registry.name_of(model)
    with closing(LogFiles(settings.state_dir / "logs", log_names(own_name), lines)) as files:
        if not files.exist():
            registry.find(own_name)  # raises NotFound if there is no such model
        while True:
            if piece := files.read():
                yield piece
            elif follow:
                time.sleep(_LOOK_EVERY_S)
            else:
                return
