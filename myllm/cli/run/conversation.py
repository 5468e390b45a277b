"""A conversation on a terminal: messages and commands in turn, until its user leaves."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from myllm.cli.common import error, say
from myllm.cli.run.commands import Commands, Leave, is_command
from myllm.cli.run.messages import PROMPT, reader
from myllm.cli.run.printing import print_answer
from myllm.cli.run.talk import Talk
from myllm.errors import InvalidRequest, MyLLMError

_TURNS_SHOWN = 2
_LINES_SHOWN = 20


def converse(talk: Talk, history: Path, go_on: bool) -> None:
    """Read messages and print answers until the user leaves.

    Ctrl+C stops an answer; twice in a row it raises KeyboardInterrupt. With `go_on` the last turns
    of the conversation are shown first. Raises InvalidRequest at once for a model that cannot chat.
    """
    if (can_chat := talk.about_model()["chat"]) is not True:
        raise InvalidRequest(can_chat)
    source, commands = reader(history), Commands(talk)
    say(f"Talking to {talk.model}. /help shows the commands.")
    if go_on:
        _show_last_turns(talk.messages())
    interrupted = False
    while True:
        try:
            text = source.read()
            interrupted = False
            if text.strip():
                _take(talk, commands, text)
        except (EOFError, Leave):
            break
        except KeyboardInterrupt:
            if interrupted:
                raise
            interrupted = True
            say("\n(Ctrl+C again or /exit leaves)")
        except MyLLMError as failure:
            error(failure.detail)
    _say_how_to_go_on(talk)


def _take(talk: Talk, commands: Commands, text: str) -> None:
    try:
        if is_command(text):
            commands.do(text)
        else:
            print_answer(talk.ask(text.strip()), talk.model, talk.choices.verbose)
    except KeyboardInterrupt:
        say("\n(stopped)")


def _say_how_to_go_on(talk: Talk) -> None:
    """Print how to continue, on a terminal only: a script knows the session's id."""
    if sys.stdout.isatty() and talk.was_answered:
        say(f"Continue with: myllm run {talk.model} --session {talk.session_id}")


def _show_last_turns(messages: list[dict[str, Any]]) -> None:
    questions = [index for index, each in enumerate(messages) if each["role"] == "user"]
    if not questions:
        return
    shown = messages[questions[-_TURNS_SHOWN:][0] :]
    if len(questions) > _TURNS_SHOWN:
        say(f"... ({len(questions) - _TURNS_SHOWN} earlier turns)")
    for message in shown:
        if message["role"] not in ("user", "assistant"):
            continue
        lines = message["content"].splitlines()
        if len(lines) > _LINES_SHOWN:
            lines = [*lines[:_LINES_SHOWN], f"... ({len(lines) - _LINES_SHOWN} more lines)"]
        begin = PROMPT if message["role"] == "user" else ""
        end = " (stopped)" if message["partial"] else ""
        say(begin + "\n".join(lines) + end)
