"""Commands on a pseudo-terminal of a given width."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_WAIT_S = 60


@contextmanager
def on_terminal(
    env: Mapping[str, str], *arguments: str, columns: int = 60
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run `myllm` on a pseudo-terminal; yield the process and a descriptor to read its screen."""
    ours, theirs = pty.openpty()
    size = {"COLUMNS": str(columns), "LINES": "50", "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-m", "myllm", *arguments],
        env={**env, **size}, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield process, ours
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


def screen_lines(env: Mapping[str, str], *arguments: str, columns: int = 60) -> list[str]:
    """The lines that `myllm` prints on a terminal that is `columns` wide, without colours."""
    with on_terminal(env, *arguments, columns=columns) as (process, screen):
        text = read_all(screen)
        process.wait(_WAIT_S)
    return [line.rstrip() for line in _STYLE.sub("", text).splitlines()]


def read_all(screen: int) -> str:
    """Everything that is printed until the terminal closes."""
    parts = []
    while True:
        try:
            part = os.read(screen, 65536)
        except OSError:  # Linux: no process has it open any more
            part = b""
        if not part:
            return b"".join(parts).decode(errors="replace")
        parts.append(part)
