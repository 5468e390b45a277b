"""Standard input, output and error in any encoding, and output that cannot be written."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

from myllm.cli.common import EXIT_BROKEN_PIPE, EXIT_FAILED, error

# rich prints nothing at a width of 0; typer takes its own variable for a number without a look.
_SIZES = ("COLUMNS", "LINES", "TERMINAL_WIDTH")


def prepare() -> None:
    """See to it that no character makes a stream fail, and forget a size of the terminal that is
    none."""
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
    """Write what is left of the output; returns the exit code, which is `code` if that works."""
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
    """Forget what could not be written; else Python tries once more when it ends, and complains."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
