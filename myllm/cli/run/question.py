"""The question of a `myllm run` that asks only one: its PROMPT, what is piped into it, or both."""

from __future__ import annotations

import select
import sys
from typing import TextIO

import typer

from myllm.cli.common import say, warning
from myllm.errors import InvalidRequest

# A server takes no more than 16 MiB by default.
_MOST_BYTES = 64 * 2**20
_NOTICE_S = 2.0
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def one_question(prompt: str | None) -> str | None:
    """`prompt`, followed by what stdin holds if that is no terminal; None: there is a terminal
    to talk on, and nothing to ask yet.

    Stdin is read to its end, like `cat` does. Raises BadParameter when nothing is asked, and
    InvalidRequest for what is no text.
    """
    is_terminal = sys.stdin.isatty()
    if is_terminal and prompt is None:
        return None
    piped = "" if is_terminal else _read(sys.stdin, may_be_empty=prompt is not None)
    question = "\n\n".join(part for part in ((prompt or "").strip(), piped) if part)
    if not question:
        raise typer.BadParameter("the prompt is empty")
    return question


def _read(stdin: TextIO, may_be_empty: bool) -> str:
    """All of `stdin`, without empty lines around it."""
    ready, _, _ = select.select([stdin], [], [], _NOTICE_S if may_be_empty else 0)
    if may_be_empty and not ready:
        say(
            "Waiting for the end of stdin, which follows the prompt; with nothing to add, start "
            "this with '< /dev/null'.",
            stderr=True,
            flush=True,
        )
    content = stdin.buffer.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise InvalidRequest(f"stdin has more than {_MOST_BYTES // 2**20} MiB")
    if b"\0" in content:
        raise InvalidRequest("stdin is no text: it has bytes of zero, as UTF-16 and binaries have")
    text = content.decode("utf-8-sig", errors="replace")
    if _REPLACEMENT in text and _REPLACEMENT.encode() not in content:
        warning(f"stdin is not all UTF-8; {_REPLACEMENT} stands for what is not")
    return text.rstrip().lstrip("\r\n")
