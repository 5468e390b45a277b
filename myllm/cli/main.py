"""The commands and their global options; each command's code is in a file of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from myllm.cli.command_classes import Command, Commands
from myllm.cli.common import EXIT_BROKEN_PIPE, Globals, say, warning
from myllm.cli.config import config_app
from myllm.cli.doctor import doctor
from myllm.cli.engine import engine_app
from myllm.cli.instances import load, ps, reload, unload
from myllm.cli.key import key_app
from myllm.cli.logs import logs
from myllm.cli.models import copy, list_models, pull, show
from myllm.cli.remove import remove
from myllm.cli.requests import requests
from myllm.cli.run.command import run as run_command
from myllm.cli.serve import serve
from myllm.cli.sessions import sessions_app
from myllm.cli.top import top
from myllm.cli.usage import usage
from myllm.home import provide_home

app = typer.Typer(
    name="myllm",
    cls=Commands,
    help="A private model server: pull a model, serve it, talk to it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from myllm import __version__

        say(f"myllm {__version__}")
        raise typer.Exit


@app.callback()
def global_options(
    ctx: typer.Context,
    models_dir: Annotated[
        Path | None, typer.Option(help="Folder with the models.", show_default=False)
    ] = None,
    env_file: Annotated[
        Path | None,
        typer.Option(help="File with further environment variables.", show_default=False),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options before the command."""
    added: frozenset[str] = frozenset()
    if env_file is not None:
        from myllm.settings_files import load_env_file

        added = load_env_file(env_file)
    ctx.obj = Globals(models_dir, verbose, env_file, added)


app.command("serve")(serve)
app.command("run")(run_command)
app.command("pull")(pull)
app.command("list")(list_models)
app.command("show")(show)
app.command("cp")(copy)
app.command("remove")(remove)
app.command("rm", help="Same as remove.")(remove)
app.command("ps")(ps)
app.command("load")(load)
app.command("unload")(unload)
app.command("stop", help="Same as unload.")(unload)
app.command("reload")(reload)
app.command("logs")(logs)
app.command("requests")(requests)
app.command("top")(top)
app.command("usage")(usage)
app.command("doctor")(doctor)
app.add_typer(sessions_app, name="sessions", help="List, show, remove and move conversations.")
app.add_typer(key_app, name="key", help="Make, list and remove the keys that `serve` requires.")
app.add_typer(config_app, name="config", help="Show the settings and where each was set.")
app.add_typer(engine_app, name="engine", help="Compile llama-server, or see which one is used.")


for each in (app, config_app, sessions_app, key_app, engine_app):
    for command in each.registered_commands:
        command.cls = Command


def run() -> None:
    """Run one command. Raises SystemExit with its exit code, or a failure outside the command."""
    if (home := provide_home()) is not None:
        warning(f"there is no home directory; MyLLM keeps its files in {home}; set HOME")
    try:
        app()
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):
            raise SystemExit(EXIT_BROKEN_PIPE) from None
        raise
