"""`myllm` on a pseudo-terminal, as a person uses it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.serving import environment

UP, PASTE, END_OF_PASTE = "\x1b[A", "\x1b[200~", "\x1b[201~"


class Terminal:
    """The screen of the command under test, and its keyboard."""

    def __init__(self, master: int, process: subprocess.Popen[bytes], kind: str) -> None:
        self._master = master
        self._prompt = ">>> " if kind == "dumb" else "\x1b[?2004h"
        self.process = process
        self._seen = b""

    def until(self, words: str, timeout_s: float = 60) -> str:
        """Everything up to and with `words`."""
        deadline = time.monotonic() + timeout_s
        while words.encode() not in self._seen:
            ready, _, _ = select.select([self._master], [], [], 0.5)
            assert time.monotonic() < deadline, f"no {words!r} in {self._seen!r}"
            if ready:
                self._seen += self._read(words)
        end = self._seen.index(words.encode()) + len(words.encode())
        text, self._seen = self._seen[:end], self._seen[end:]
        return text.decode()

    def _read(self, words: str) -> bytes:
        try:
            return os.read(self._master, 4096)
        except OSError:  # the command has ended
            raise AssertionError(f"no {words!r} in {self._seen!r}") from None

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def ready(self) -> None:
        """Wait for the next prompt. One that is edited is drawn again and again, but asks once for
        pasted text to be marked."""
        self.until(self._prompt)

    def say(self, text: str) -> None:
        """Type `text` and Enter at the next prompt."""
        self.ready()
        self.type(f"{text}\r")

    def at_a_persons_pace(self) -> None:
        """CPython's readline sleeps through a Ctrl+C in the instant after it shows its prompt."""
        time.sleep(1)


@contextmanager
def terminal(
    home: Path, *arguments: str, kind: str = "xterm", port: object = 1, **more: str
) -> Iterator[Terminal]:
    """Run a command on a terminal of that `kind`; it ends with the context."""
    master, slave = pty.openpty()
    # Otherwise the command asks the terminal for the cursor position, which this one cannot answer.
    own = {"TERM": kind, "PROMPT_TOOLKIT_NO_CPR": "1"} | more
    process = subprocess.Popen(
        [sys.executable, "-m", "myllm", *arguments],
        env=environment(home, port=port) | own,
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(master, process, kind)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)


def _take_terminal() -> None:
    """Make the pseudo-terminal the one that Ctrl+C comes from."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
