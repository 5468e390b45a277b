"""Printing an answer as it comes: thoughts dimmed, then the text, then counts and speed.

If stdout is not a terminal, only the text goes there, so that it can be piped on.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from myllm.cli.common import pass_on, say, warning
from myllm.escaping import on_one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from myllm.cli.run.talk import Event

_DIM = "2"


def print_answer(events: Iterator[Event], model: str, verbose: bool) -> None:
    """Print an answer to stdout; with `verbose` its counts and speed to stderr."""
    thoughts, clock = _Thoughts(), _Clock()
    with _waiting(model) as waiting:
        for event in events:
            if "phase" in event:
                waiting(event["phase"])
                continue
            clock.tick()
            waiting(None)
            if event["done"]:
                thoughts.end()
                say(flush=True)
                if "warning" in event:
                    warning(event["warning"])
                if verbose:
                    say(clock.summary(event["usage"]), stderr=True)
            elif "thinking" in event:
                thoughts.add(event["thinking"])
            elif "token" in event:
                thoughts.end()
                pass_on(event["token"])


class _Thoughts:
    """The model's thoughts, between two lines that mark them; on a terminal only."""

    def __init__(self) -> None:
        self._shown = sys.stdout.isatty()
        self._open = False
        self._style = _DIM if has_colour() else ""

    def add(self, text: str) -> None:
        if not self._shown:
            return
        if not self._open:
            self._open = True
            say("Thinking ...", style=self._style)
        # Dims each piece separately, so that the terminal is not left dim when an answer stops.
        say(text, end="", flush=True, style=self._style)

    def end(self) -> None:
        if self._open:
            self._open = False
            say()
            say("... done thinking.", style=self._style)
            say()


class _Clock:
    """Measures when the first and the last token came, in seconds."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self._first: float | None = None
        self._last = self._asked

    def tick(self) -> None:
        self._last = time.monotonic()
        if self._first is None:
            self._first = self._last

    def summary(self, usage: dict[str, Any]) -> str:
        """Counts are the engine's; the speed is that of all tokens after the first one."""
        first = self._first or self._last
        made, seconds = usage["completion_tokens"], self._last - first
        speed = f"{(made - 1) / seconds:.1f} tokens/s" if made > 1 and seconds > 0 else "-"
        return (
            f"prompt: {usage['prompt_tokens']} tokens ({usage['cached_tokens']} cached), "
            f"first token after {first - self._asked:.2f} s; "
            f"answer: {made} tokens in {seconds:.2f} s, {speed}"
        )


def has_colour() -> bool:
    """Whether stdout shows escape sequences, and the user has not turned them off."""
    is_capable = os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return sys.stdout.isatty() and is_capable and not os.environ.get("NO_COLOR")


@contextmanager
def _waiting(model: str) -> Iterator[Callable[[str | None], None]]:
    """A function that shows on a terminal's stderr what the command waits for; None clears it."""
    if not sys.stderr.isatty():
        yield lambda phase: None
        return
    from rich.text import Text

    from myllm.cli.common import console

    status = console(stderr=True).status(Text(on_one_line(f"waiting for {model} ...")))

    def show(phase: str | None) -> None:
        if phase is None:
            status.stop()
        else:
            status.update(Text(on_one_line(f"{model}: {phase}")))

    with status:
        yield show
