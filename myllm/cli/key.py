"""`myllm key`: the API keys in the store, through the running server or straight from the store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from myllm.cli.common import EXIT_FAILED, error, print_json, say, warning
from myllm.cli.key_api import key_api
from myllm.cli.key_rules import (
    Concurrent,
    Expires,
    Force,
    MaxPriority,
    Models,
    RequestsPerMinute,
    Role,
    RoleOption,
    TokensPerMinute,
    limits_text,
    rules,
)
from myllm.cli.tables import Column, print_fields, print_table
from myllm.cli.times import ago, local

key_app = typer.Typer(no_args_is_help=True)

COLUMNS = (
    Column("NAME"),
    Column("ROLE"),
    Column("MODELS", rank=2, prose=True),
    Column("LIMITS", rank=3, prose=True),
    Column("CREATED", rank=5),
    Column("LAST USED", rank=1),
    Column("EXPIRES", rank=4),
    Column("STATE"),
)
Name = Annotated[str, typer.Argument(help="The name of the key, such as that of its user.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@key_app.command()
def create(
    ctx: typer.Context,
    name: Name,
    role: RoleOption = None,
    models: Models = None,
    rpm: RequestsPerMinute = None,
    tpm: TokensPerMinute = None,
    concurrent: Concurrent = None,
    max_priority: MaxPriority = None,
    expires: Expires = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it; without options, a user may use all models without limits."""
    fields = rules(role, models, rpm, tpm, concurrent, max_priority, expires)
    with key_api(ctx.obj.settings()) as keys:
        made = keys.create({"name": name, **fields}, force)
    _print_key(ctx, made, as_json)


@key_app.command("list")
def list_keys(ctx: typer.Context, as_json: AsJson = False) -> None:
    """List the keys and what each may do."""
    with key_api(ctx.obj.settings()) as keys:
        found = list(keys.all())
    if as_json:
        print_json(found)
    else:
        print_table(COLUMNS, [_row(each) for each in found])


@key_app.command()
def show(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Show what a key may do, and when it was used last."""
    with key_api(ctx.obj.settings()) as keys:
        found = keys.get(name)
    if as_json:
        print_json(found)
    else:
        labels = (column.heading.lower() for column in COLUMNS)
        print_fields(list(zip(labels, _row(found), strict=True)))


@key_app.command()
def update(
    ctx: typer.Context,
    name: Name,
    role: RoleOption = None,
    models: Models = None,
    rpm: RequestsPerMinute = None,
    tpm: TokensPerMinute = None,
    concurrent: Concurrent = None,
    max_priority: MaxPriority = None,
    expires: Expires = None,
    disable: Annotated[
        bool | None,
        typer.Option("--disable/--enable", help="Refuse it for now; accept it again."),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Change what a key may do; what no option names stays as it is."""
    fields = rules(role, models, rpm, tpm, concurrent, max_priority, expires)
    if disable is not None:
        fields["disabled"] = disable
    if not fields:
        raise typer.BadParameter("no option says what to change; see 'myllm key update --help'")
    with key_api(ctx.obj.settings()) as keys:
        changed = keys.change(name, fields, force)
    _warn(changed)
    if as_json:
        print_json(changed)
    else:
        say(f"Changed {changed['name']}; servers follow within 2 seconds")


@key_app.command()
def revoke(
    ctx: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Force = False,
) -> None:
    """Remove a key for good; 'update --disable' only pauses it."""
    if not yes and sys.stdin.isatty() and not typer.confirm(f"Revoke the key of {name}?"):
        say(f"Kept {name}")
        return
    with key_api(ctx.obj.settings()) as keys:
        keys.revoke(name, force)
    say(f"Revoked {name}; servers refuse it within 2 seconds")


@key_app.command()
def rotate(ctx: typer.Context, name: Name, as_json: AsJson = False) -> None:
    """Replace a key by a new one with the same rules and print it; the old one is refused."""
    with key_api(ctx.obj.settings()) as keys:
        made = keys.rotate(name)
    _print_key(ctx, made, as_json)


@key_app.command("import")
def import_(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A file with lines `name:sha256-of-key`.")],
    role: Annotated[Role, typer.Option(help="What the keys are for.")] = Role.USER,
) -> None:
    """Store the keys of the file that earlier versions used; their users keep them."""
    from myllm.errors import Conflict
    from myllm.sessions.keys_file import read

    found = read(path)
    failed: dict[str, list[str]] = {}
    with key_api(ctx.obj.settings()) as keys:
        for name, sha256 in found.items():
            try:
                is_new = keys.add_hashed(name, sha256, role.value)
                say(f"{name}: {'imported' if is_new else 'exists already'}")
            except Conflict as conflict:
                failed.setdefault(conflict.detail, []).append(name)
    for detail, names in failed.items():
        error(f"not imported: {', '.join(names)}: {detail}")
    if failed:
        raise typer.Exit(EXIT_FAILED)


def _print_key(ctx: typer.Context, made: dict[str, Any], as_json: bool) -> None:
    """Print the key on stdout, alone, and on stderr what to do with it."""
    if as_json:
        print_json(made)
    else:
        say(made["key"])
    _warn(made)
    say("Keep it: the store has only its hash, so it cannot be shown again.", stderr=True)
    from myllm.cli.client import own_key

    if made["role"] == Role.ADMIN and not own_key(ctx.obj.settings()):
        say(
            "Servers with this store ask every client for a key from now on. To go on here, put "
            "this one into MYLLM_API_KEY.",
            stderr=True,
        )


def _warn(changed: dict[str, Any]) -> None:
    for sentence in changed["warnings"]:
        warning(sentence)


def _row(key: dict[str, Any]) -> tuple[str, ...]:
    return (
        key["name"],
        key["role"],
        ", ".join(key["models"]) or "all",
        limits_text(key),
        local(key["created_at"]),
        ago(key["last_used_at"]) if key["last_used_at"] else "never",
        local(key["expires_at"]) if key["expires_at"] else "never",
        key["state"],
    )
