"""`myllm key add`, `list` and `rm`: the file of keys that `serve` requires."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from myllm.cli.common import print_json, say

key_app = typer.Typer(no_args_is_help=True)

File = Annotated[
    Path | None,
    typer.Option("--file", help="The keys file."),
]
Name = Annotated[str, typer.Argument(help="A name for the key, such as its user's.")]


@key_app.command("add")
def add(ctx: typer.Context, name: Name, file: File = None) -> None:
    """Make a new key, store its hash and print the key, which is stored nowhere."""
    import secrets

    from myllm.sessions.keys_file import added, read

    path = _path(ctx, file)
    key = secrets.token_urlsafe(32)
    _write(path, added(read(path) if path.exists() else "", path, name, key))
    say(key)
    say(
        f"Keep it: {path} has only its hash. A running server reads it on 'myllm reload'.",
        stderr=True,
    )


@key_app.command("list")
def list_keys(
    ctx: typer.Context,
    file: File = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the names of the keys."""
    from myllm.sessions.keys_file import parse, read

    path = _path(ctx, file)
    names = list(parse(read(path), path))
    if as_json:
        print_json([{"name": name} for name in names])
        return
    for name in names:
        say(name)


@key_app.command("rm")
def rm(ctx: typer.Context, name: Name, file: File = None) -> None:
    """Remove a key."""
    from myllm.sessions.keys_file import read, removed

    path = _path(ctx, file)
    _write(path, removed(read(path), path, name))
    say(f"Removed {name}; a running server refuses it after 'myllm reload'.")


def _path(ctx: typer.Context, file: Path | None) -> Path:
    """The keys file; for a symbolic link its target, so that writing does not replace the link."""
    if file is None:
        raise typer.BadParameter("name the keys file with --file")
    return file.resolve()


def _write(path: Path, text: str) -> None:
    """Write a new file, readable by its owner only, and rename it. Raises InvalidKeysFile."""
    import os
    import tempfile

    from myllm.errors import InvalidKeysFile

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # mkstemp creates its file with mode 0600.
        handle, aside = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".new")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            if path.exists():  # the server's user keeps the file even if root edits it
                before = path.stat()
                os.chown(aside, before.st_uid, before.st_gid)
            os.replace(aside, path)
        finally:
            Path(aside).unlink(missing_ok=True)
    except OSError as failure:
        raise InvalidKeysFile(f"cannot write the keys file {path}: {failure.strerror}") from None
