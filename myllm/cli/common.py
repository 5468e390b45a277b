"""What every command shares: the global options, and how output and errors are printed."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from myllm.escaping import in_json, in_lines

if TYPE_CHECKING:
    from rich.console import Console

    from myllm.settings import Settings

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
"""The exit code that a shell reports for a program ended by SIGPIPE."""


@dataclass(frozen=True)
class Globals:
    """The options before the command, and the variables that `env_file` has added to the
    environment."""

    models_dir: Path | None = None
    verbose: bool = False
    env_file: Path | None = None
    of_env_file: frozenset[str] = frozenset()

    def settings(self, **overrides: Any) -> Settings:
        """The settings with the command line's options on top; None leaves a setting alone."""
        from myllm.settings import load_settings

        _warn_of_unknown_settings()
        if self.verbose:
            overrides.setdefault("log_level", "debug")
        return load_settings(models_dir=self.models_dir, **overrides)


@cache
def _warn_of_unknown_settings() -> None:
    """Warn once, however often a command reads the settings."""
    from myllm.settings import unknown_settings

    for sentence in unknown_settings():
        warning(sentence)


def say(
    text: str = "", *, end: str = "\n", stderr: bool = False, flush: bool = False, style: str = ""
) -> None:
    """Print `text` with its line breaks and tabs; other control characters are escaped.

    Commands print only with this and with a rich `console`. `style` is the number of an escape
    sequence (`2`: dim), for streams that show colours.
    """
    shown = in_lines(text)
    if style:
        shown = f"\033[{style}m{shown}\033[0m"
    print(shown, end=end, file=sys.stderr if stderr else sys.stdout, flush=flush)


def pass_on(text: str) -> None:
    """Print `text` unchanged to a file or a pipe; like `say` on a terminal."""
    if sys.stdout.isatty():
        say(text, end="", flush=True)
    else:
        print(text, end="", flush=True)  # noqa: T201


def console(stderr: bool = False) -> Console:
    """A rich console without markup, which drops colour when its stream is not a terminal. Pass
    text from outside through `on_one_line` or `in_lines` first."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)


def print_json(value: object) -> None:
    """Print one JSON document, indented for people, parseable by scripts."""
    import json

    # Escapes in JSON's own way the characters that the output's encoding lacks.
    unicode = sys.stdout.encoding.lower().startswith("utf")
    say(in_json(json.dumps(value, indent=2, ensure_ascii=not unicode)))


def write_aside(path: Path, text: str) -> None:
    """Write `text` to `path`, completely or not at all; raises MyLLMError on failure."""
    from myllm.errors import MyLLMError

    aside = path.with_name(f".{path.name}.part")
    try:
        aside.write_bytes(text.encode())
        aside.replace(path)
    except OSError as failure:
        raise MyLLMError(f"{path} cannot be written: {failure.strerror}") from failure


def error(text: str) -> None:
    """Print one line `error: …` to stderr, in red on a terminal."""
    _say("error", "1;31", text)


def warning(text: str) -> None:
    """Print one line `warning: …` to stderr, in yellow on a terminal."""
    _say("warning", "1;33", text)


def _say(kind: str, colour: str, text: str) -> None:
    label = f"\033[{colour}m{kind}:\033[0m" if sys.stderr.isatty() else f"{kind}:"
    with contextlib.suppress(OSError):  # stderr is gone, so the message is lost
        print(f"{label} {in_lines(text)}", file=sys.stderr)  # noqa: T201
