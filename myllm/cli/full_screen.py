"""The whole terminal for one command: drawn again and again, with keys, and restored at its end."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

_ENDINGS = (signal.SIGTERM, signal.SIGHUP)


class FullScreen:
    """What is drawn, and the keys that are pressed."""

    def __init__(self, live: Live, has_keys: bool) -> None:
        self._live = live
        self._has_keys = has_keys

    def show(self, frame: RenderableType) -> None:
        """Draw `frame` in place of what was there."""
        self._live.update(frame, refresh=True)

    def wait(self, seconds: float) -> str:
        """Wait for a key, at most so long; returns "" without one."""
        if not self._has_keys:
            time.sleep(seconds)
            return ""
        stdin = sys.stdin.fileno()
        ready, _, _ = select.select([stdin], [], [], seconds)
        if not ready:
            return ""
        pressed = os.read(stdin, 64)
        if not pressed:  # nothing can be typed any more
            self._has_keys = False
        return pressed.decode(errors="replace")


@contextmanager
def full_screen(console: Console) -> Iterator[FullScreen]:
    """Take the terminal. It is as before when the context has been left, also by an exception or
    a signal that ends the process (which raises SystemExit here)."""
    from rich.live import Live

    before = {number: signal.signal(number, _leave) for number in _ENDINGS}
    try:
        with _keys() as has_keys, Live(console=console, screen=True, auto_refresh=False) as live:
            yield FullScreen(live, has_keys)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _keys() -> Iterator[bool]:
    """Read keys as they are pressed, without showing them; yields False without a keyboard."""
    if not sys.stdin.isatty():
        yield False
        return
    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    try:
        tty.setcbreak(stdin)
        now = termios.tcgetattr(stdin)
        # Ctrl+Z would leave the shell with the terminal as it is here.
        now[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(stdin, termios.TCSANOW, now)
        yield True
    finally:
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
