"""Standard input, output and error in any encoding, and output that cannot be written."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

from myllm.cli.common import EXIT_BROKEN_PIPE, EXIT_FAILED, error

# rich prints nothing at a width of 0, and typer does not check that its variable is a number.
_SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH")


def prepare() -> None:
    """Make the streams accept every character, and drop environment variables with an invalid
    terminal size."""
    for stream, errors in (
        (sys.stdin, "replace"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
    for name in _SIZES:
        given = os.environ.get(name, "1")
        if not given.isdecimal() or int(given) == 0:
            del os.environ[name]


def finish(code: str | int | None) -> str | int | None:
    """Flush the output; return the exit code, which is `code` if that works."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            _drop(stream)
            code = EXIT_BROKEN_PIPE
        except OSError as failure:
            _drop(stream)
            error(f"the output cannot be written: {failure.strerror}")
            code = EXIT_FAILED
    return code


def _drop(stream: TextIO) -> None:
    """Drop unwritten output; otherwise Python tries again at exit, and prints an error."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
