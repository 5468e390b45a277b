"""The question of a `myllm run` with one question: its PROMPT, the piped text, or both."""

from __future__ import annotations

import select
import sys
from typing import TextIO

import typer

from myllm.cli.common import say, warning
from myllm.errors import InvalidRequest

# A server accepts no more than 16 MiB by default.
_MAX_BYTES = 64 * 2**20
_NOTICE_S = 2.0
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def one_question(prompt: str | None) -> str | None:
    """`prompt`, followed by the text of stdin if that is not a terminal; None without either, which
    begins a conversation.

    Reads stdin to its end, as `cat` does. Raises BadParameter if the question is empty, and
    InvalidRequest if stdin is not text.
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
    """The whole of `stdin`, without empty lines around it."""
    ready, _, _ = select.select([stdin], [], [], _NOTICE_S if may_be_empty else 0)
    if may_be_empty and not ready:
        say(
            "Waiting for the end of stdin, which follows the prompt; with nothing to add, start "
            "this with '< /dev/null'.",
            stderr=True,
            flush=True,
        )
    content = stdin.buffer.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise InvalidRequest(f"stdin has more than {_MAX_BYTES // 2**20} MiB")
    if b"\0" in content:
        raise InvalidRequest("stdin is not text: it has zero bytes, like UTF-16 or a binary file")
    text = content.decode("utf-8-sig", errors="replace")
    if _REPLACEMENT in text and _REPLACEMENT.encode() not in content:
        warning(f"stdin is not all UTF-8; {_REPLACEMENT} replaces the bytes that are not")
    return text.rstrip().lstrip("\r\n")
