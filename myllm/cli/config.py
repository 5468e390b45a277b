"""`myllm config show`: each setting, its value, and where it was set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from myllm.cli.common import Globals, print_json
from myllm.cli.tables import Column, print_table

if TYPE_CHECKING:
    from myllm.settings import Settings

config_app = typer.Typer(no_args_is_help=True)
_COLUMNS = (Column("SETTING"), Column("VALUE", prose=True), Column("SOURCE", prose=True))
_MASK = "***"
# The settings that options before the command set.
_OPTIONS = {"models_dir": "--models-dir", "log_level": "--verbose"}


@config_app.command("show")
def show(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print each setting, its value (secrets masked) and where it was set."""
    from myllm.settings import SECRET
    from myllm.settings_files import PREFIX, config_file, read_toml

    given: Globals = ctx.obj
    settings: Settings = given.settings()
    path = config_file()
    of_file = dict.fromkeys(read_toml(path), str(path))
    values = settings.model_dump(mode="json")
    shown: list[dict[str, Any]] = []
    for name in type(settings).model_fields:
        value = _masked(name, values[name]) if name in SECRET else values[name]
        source, where = _source(name, given, of_file)
        entry = {"name": f"{PREFIX}{name.upper()}", "value": value}
        shown.append(entry | {"source": source, "where": where})
    if as_json:
        print_json(shown)
    else:
        print_table(_COLUMNS, [_row(each) for each in shown])


def _source(name: str, given: Globals, of_file: Mapping[str, str]) -> tuple[str, str | None]:
    """What kind of source a setting comes from, and which one; the strongest source wins."""
    from myllm.settings_files import PREFIX

    if (name == "models_dir" and given.models_dir) or (name == "log_level" and given.verbose):
        return "command line", _OPTIONS[name]
    wanted = f"{PREFIX}{name.upper()}"
    # The case does not matter, and an empty variable is an unset one.
    found = [each for each, value in os.environ.items() if each.upper() == wanted and value]
    if found:
        variable = found[-1]
        if variable in given.of_env_file:
            return "env file", str(given.env_file)
        return "environment", variable
    if name in of_file:
        return "file", of_file[name]
    return "default", None


def _masked(name: str, value: str | None) -> str | None:
    """A secret without what is secret about it."""
    if not value:
        return value
    return _without_password(value) if name == "database_url" else _MASK


def _without_password(url: str) -> str:
    if url.startswith("sqlite:"):
        return url
    from urllib.parse import quote

    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the server cannot read it, either
        return _MASK
    secret = {name: _MASK for name in parsed.query if "password" in name.lower()}
    shown = parsed.update_query_dict(secret).render_as_string(hide_password=True)
    return shown.replace(quote(_MASK), _MASK)


def _row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    value, where = entry["value"], entry["where"]
    if isinstance(value, list):
        value = ",".join(map(str, value))
    text = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
    return entry["name"], text, entry["source"] + (f" {where}" if where else "")
