"""Failures of commands: one line on stderr and an exit code, without a traceback by default."""

from __future__ import annotations

from myllm.cli.common import EXIT_BROKEN_PIPE, EXIT_FAILED, EXIT_USAGE, error, say
from myllm.errors import InvalidSettings, MyLLMError


def report(failure: Exception, verbose: bool) -> int:
    """Print the failure to stderr; return the exit code. `verbose` adds the traceback, except for
    an error that the program raises on purpose."""
    if isinstance(failure, BrokenPipeError):  # the reader has gone, as after `| head`
        return EXIT_BROKEN_PIPE
    if isinstance(failure, MyLLMError):
        error(failure.detail)
        return EXIT_USAGE if isinstance(failure, InvalidSettings) else EXIT_FAILED
    if verbose:
        import traceback

        say("".join(traceback.format_exception(failure)), end="", stderr=True)
    if isinstance(failure, OSError):
        error(_in_words(failure))
    else:
        hint = "" if verbose else "; 'myllm --verbose COMMAND' shows the details"
        error(f"internal error: {_one_line(failure)}{hint}")
    return EXIT_FAILED


def _in_words(failure: OSError) -> str:
    """The system's message, with the name of the file."""
    reason = failure.strerror or _one_line(failure)
    return f"{failure.filename}: {reason}" if failure.filename is not None else reason


def _one_line(failure: Exception) -> str:
    text = " ".join(str(failure).split())
    return f"{type(failure).__name__}: {text}" if text else type(failure).__name__
