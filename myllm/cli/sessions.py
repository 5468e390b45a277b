"""`myllm sessions`: the stored conversations, through the running server or straight from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from myllm.cli.common import pass_on, print_json, say, write_aside
from myllm.cli.completion import complete_session
from myllm.cli.session_api import session_api
from myllm.cli.tables import Column, print_table
from myllm.cli.times import ago
from myllm.errors import MyLLMError
from myllm.escaping import in_json, on_one_line

sessions_app = typer.Typer(no_args_is_help=True)

COLUMNS = (
    Column("ID"),
    Column("MODEL", rank=2),
    Column("MESSAGES", rank=3, right=True),
    Column("CHANGED", rank=1),
    Column("TITLE", prose=True),
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[
    str,
    typer.Argument(
        help="A session's id, or at least 4 characters with which no other one begins.",
        autocompletion=complete_session,
    ),
]
_MEDIA = {"json": "application/json", "markdown": "text/markdown"}


@sessions_app.command("list")
def list_sessions(
    ctx: typer.Context,
    search: Annotated[
        str, typer.Option(help="Only those with this text in a title or a message.")
    ] = "",
    model: Annotated[str, typer.Option(help="Only conversations with this model.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=500, help="Show at most this many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the most recent conversations."""
    query = {"search": search, "model": model, "limit": limit}
    with session_api(ctx.obj.settings()) as api:
        found = api.get("/api/sessions", **query).json()["sessions"]
    if as_json:
        print_json(found)
    else:
        print_table(COLUMNS, [_row(one) for one in found])


@sessions_app.command()
def show(ctx: typer.Context, session_id: Id, as_json: AsJson = False) -> None:
    """Print a conversation, including superseded messages."""
    with session_api(ctx.obj.settings()) as api:
        session = api.of_one(session_id, lambda one: api.get(f"/api/sessions/{one}")).json()
    if as_json:
        print_json(session)
        return
    title = on_one_line(session["title"])
    say(f"{title}  ({session['model']}, {ago(session['updated_at'])})")
    for message in session["messages"]:
        marks = [name for name in ("partial", "superseded") if message[name]]
        say(f"\n{message['role']}{' (' + ', '.join(marks) + ')' if marks else ''}:")
        if message["content"]:
            say(message["content"])
        for call in message.get("tool_calls", ()):
            say("calls {name}({arguments})".format(**call["function"]))


@sessions_app.command()
def rm(
    ctx: typer.Context,
    session_ids: Annotated[
        list[str],
        typer.Argument(help="Their ids, or beginnings of them.", autocompletion=complete_session),
    ],
) -> None:
    """Forget conversations, with their saved states."""
    failed: list[MyLLMError] = []
    with session_api(ctx.obj.settings()) as api:
        for session_id in session_ids:
            try:
                removed = api.of_one(session_id, lambda one: api.delete(f"/api/sessions/{one}"))
                say(removed.json()["message"])
            except MyLLMError as failure:
                failed.append(failure)
    if failed:
        raise MyLLMError("; ".join(each.detail for each in failed))


@sessions_app.command()
def export(
    ctx: typer.Context,
    session_id: Id,
    form: Annotated[str, typer.Option("--format", help="json or markdown.")] = "json",
    output: Annotated[Path | None, typer.Option(help="A file; default: print it.")] = None,
) -> None:
    """Write a conversation as a file, for another server or for people."""
    with session_api(ctx.obj.settings()) as api:
        exported = api.of_one(
            session_id, lambda one: api.get(f"/api/sessions/{one}/export", format=form)
        )
    text = exported.content.decode(errors="replace")
    if output is not None:
        write_aside(output, text)
    elif form == "json":
        say(in_json(text), end="")
    else:
        pass_on(text)


@sessions_app.command("import")
def import_(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A file that was exported, *.json or *.md.")],
    session_id: Annotated[
        str | None, typer.Option(help="Use this id instead of the file's.")
    ] = None,
) -> None:
    """Store a conversation that was exported."""
    try:
        content = path.read_bytes()
    except OSError as failure:
        raise MyLLMError(f"{path} cannot be read: {failure.strerror}") from failure
    media = _MEDIA["markdown" if path.suffix.lower() in (".md", ".markdown") else "json"]
    query = {} if session_id is None else {"session_id": session_id}
    with session_api(ctx.obj.settings()) as api:
        made = api.post("/api/sessions/import", content, media, **query).json()
    say(f"Session '{made['id']}' stored: {on_one_line(made['title'])}")


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    changed = ago(one["updated_at"])
    return one["id"], one["model"], str(one["message_count"]), changed, one["title"]
