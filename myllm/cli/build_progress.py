"""Show a build: a bar with percentage, rate and time on a terminal, otherwise a few lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from myllm.cli.common import say
from myllm.escaping import in_lines, on_one_line

if TYPE_CHECKING:
    from myllm.engine.progress import Progress, ProgressListener

_TITLES = {
    "wait": "Waiting",
    "download": "Fetching llama.cpp",
    "unpack": "Unpacking",
    "tools": "Fetching build tools",
    "configure": "Configuring",
    "compile": "Compiling llama.cpp",
    "install": "Installing",
    "check": "Checking the engine on this CPU",
}
_PLAIN_STEP_PERCENT = 10
_NOTE_WIDTH = 40


@contextmanager
def show_progress() -> Iterator[ProgressListener]:
    """Yield a listener that shows a build on stderr until the block ends."""
    if not sys.stderr.isatty():
        yield _PlainLines().show
        return
    from rich.progress import (
        BarColumn,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.progress import Progress as Bar

    from myllm.cli.common import console

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", style="bold", markup=False),
        BarColumn(bar_width=20),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    # The bar disappears at the end; the caller prints the results after it.
    with Bar(*columns, console=console(stderr=True), transient=True) as bar:
        yield _TerminalBar(bar).show


class _PlainLines:
    """For logs: a line when a phase begins, and one per tenth of it."""

    def __init__(self) -> None:
        self._phase = ""
        self._shown_percent = 0

    def show(self, progress: Progress) -> None:
        if progress.phase == "note":
            say(progress.detail, stderr=True, flush=True)
            return
        title = _TITLES[progress.phase]
        if progress.phase != self._phase:
            self._phase, self._shown_percent = progress.phase, 0
            counted = progress.phase in ("compile", "check")
            detail = f"{progress.total} steps" if counted else progress.detail
            say(f"{title}: {detail}" if detail else title, stderr=True, flush=True)
        if not progress.total:
            return
        percent = progress.done * 100 // progress.total
        if percent >= self._shown_percent + _PLAIN_STEP_PERCENT:
            self._shown_percent = percent - percent % _PLAIN_STEP_PERCENT
            say(f"{title}: {percent}%", stderr=True, flush=True)


class _TerminalBar:
    """One bar that starts anew with each phase."""

    def __init__(self, bar: object) -> None:
        from rich.progress import Progress as Bar

        assert isinstance(bar, Bar)
        self._bar = bar
        self._phase = ""
        self._task = bar.add_task("Looking around", total=None, note="")
        self._began, self._began_at = time.monotonic(), 0

    def show(self, progress: Progress) -> None:
        if progress.phase == "note":
            self._bar.console.print(in_lines(progress.detail))
            return
        if progress.phase != self._phase:
            self._phase = progress.phase
            self._bar.remove_task(self._task)
            title = _TITLES[progress.phase]
            self._task = self._bar.add_task(title, total=None, note="")
            self._began, self._began_at = time.monotonic(), progress.done
        self._bar.update(
            self._task,
            completed=progress.done,
            total=progress.total or None,
            note=on_one_line(self._note(progress)),
        )

    def _note(self, progress: Progress) -> str:
        if progress.phase == "wait":
            return progress.detail  # another process sets the pace
        return self._rate(progress) if progress.total else progress.detail[:_NOTE_WIDTH]

    def _rate(self, progress: Progress) -> str:
        """Steps per second of this run; steps that an earlier run finished do not count."""
        elapsed = time.monotonic() - self._began
        if elapsed < 1:
            return ""
        per_second = (progress.done - self._began_at) / elapsed
        if progress.phase == "unpack":
            return f"{per_second / 1e6:.1f} MB/s"
        left = (progress.total - progress.done) / per_second if per_second else 0.0
        remaining = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
        return f"{progress.done}/{progress.total} {per_second:.1f}/s, {remaining} left"
