"""Show a download: size, rate and time left on a terminal, otherwise a line for each tenth."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from myllm.cli.common import say
from myllm.escaping import in_lines, on_one_line

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

_STEP_PERCENT = 10


class PullProgress(Protocol):
    """Receives the progress of a download."""

    def show(self, done: int, total: int) -> None: ...

    def say(self, sentence: str) -> None: ...


@contextmanager
def show_progress(name: str) -> Iterator[PullProgress]:
    """Show the download of `name` on stderr until the block ends."""
    if not sys.stderr.isatty():
        yield _PlainLines(name)
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from myllm.cli.common import console

    columns = (
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        yield _TerminalBar(bar, name)


class _TerminalBar:
    def __init__(self, bar: Bar, name: str) -> None:
        self._bar = bar
        self._name = name
        self._task = bar.add_task(on_one_line(name), total=None)
        self._begun = False

    def show(self, done: int, total: int) -> None:
        if not self._begun:
            # Bytes that an earlier run downloaded count at once, and not as speed.
            self._bar.reset(self._task, total=total, completed=done)
            self._begun = True
        self._bar.update(self._task, completed=done, total=total)

    def say(self, sentence: str) -> None:
        self._bar.console.print(in_lines(sentence))


class _PlainLines:
    def __init__(self, name: str) -> None:
        self._name = name
        self._next = 0

    def show(self, done: int, total: int) -> None:
        percent = 100 * done // total if total else 100
        if percent >= self._next:
            line = f"{self._name}: {percent}% of {total / 1e6:.0f} MB"
            say(line, stderr=True, flush=True)
            self._next = percent - percent % _STEP_PERCENT + _STEP_PERCENT

    def say(self, sentence: str) -> None:
        say(sentence, stderr=True, flush=True)
