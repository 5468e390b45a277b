"""The classes of all commands: they clean up arguments and turn a failure into one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from myllm.cli.failures import report
from myllm.settings_types import expanded


class Command(TyperCommand):
    """A command whose text arguments are valid Unicode, and in whose paths `~` is expanded."""

    def invoke(self, ctx: Any) -> Any:
        ctx.params = {name: _usable(value) for name, value in ctx.params.items()}
        return super().invoke(ctx)


class Commands(TyperGroup):
    """All commands: a failure of one is one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        ctx.params = {name: _usable(value) for name, value in ctx.params.items()}
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, TyperException, EOFError):
            raise  # typer's own ways to end a command
        except Exception as failure:
            raise typer.Exit(report(failure, bool(ctx.params.get("verbose")))) from failure


def _usable(value: Any) -> Any:
    """Replace lone surrogates, which stand for bytes that are not UTF-8: a path may have them, a
    text may not."""
    if isinstance(value, Path):
        try:
            return expanded(value)
        except ValueError as wrong:
            raise typer.BadParameter(str(wrong)) from None
    if type(value) is str:  # not an Enum
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return type(value)(map(_usable, value))
    return value
