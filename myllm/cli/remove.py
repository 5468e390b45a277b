"""`myllm remove`, or `rm`: deletes models, through the running server if it has them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from myllm.cli.common import EXIT_FAILED, error, say
from myllm.cli.completion import complete_model
from myllm.cli.models import registry_of, size_text
from myllm.errors import AliasGiven, InvalidRequest, MyLLMError
from myllm.escaping import in_lines

if TYPE_CHECKING:
    from myllm.models.registry import Model
    from myllm.settings import Settings


def remove(
    ctx: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(help="Models, as `myllm list` shows them.", autocompletion=complete_model),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if it is answering.")] = False,
) -> None:
    """Delete models from the disk; a running server unloads them first."""
    settings, registry = ctx.obj.settings(), registry_of(ctx)
    removed = 0
    for name in names:
        try:
            model = registry.find(name)
            registry.removable(model.name)
            if not yes and not _is_meant(name, model):
                say(f"Kept {model.name}")
                continue
            if not _remove_on_server(settings, model, force):
                registry.remove(model.name)
            say(f"Removed {model.name}")
            removed += 1
        except MyLLMError as failure:
            error(failure.detail)
    if removed < len(names):
        raise typer.Exit(EXIT_FAILED)


def _is_meant(name: str, model: Model) -> bool:
    """Whether the user wants to delete `model`, which the command line calls `name`.

    Asks on a terminal. Elsewhere a model's own name is enough, and an alias raises InvalidRequest.
    """
    from myllm.models.registry import untagged

    called = untagged(name)
    if not sys.stdin.isatty():
        if called != model.name:
            raise InvalidRequest(f"{AliasGiven(called, model.name).detail}, or give --yes")
        return True
    if called == model.name:
        question = f"Delete {model.path} ({size_text(model.size_bytes)})?"
    else:
        question = (
            f"'{called}' is an alias of '{model.name}'; remove the model '{model.name}' "
            f"({size_text(model.size_bytes)})?"
        )
    return typer.confirm(in_lines(question))


def _remove_on_server(settings: Settings, model: Model, force: bool) -> bool:
    """Let the running server remove `model`; False if none runs, or its model is another one."""
    from contextlib import closing

    from myllm.cli.client import answer_of, error_of, long_wait_s, running_server

    server = running_server(settings)
    if server is None:
        return False
    with closing(server) as client:
        route = f"/api/models/{model.name}"
        known = client.get(route)
        if known.status_code == 401:
            raise error_of(known.status_code, known.text)
        if not known.is_success or known.json()["path"] != str(model.path):
            return False
        query = {"force": "true"} if force else {}
        answer_of(client.delete(route, params=query, timeout=long_wait_s(settings)))
        return True
