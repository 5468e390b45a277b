"""Reads an engine's output as lines.

On stderr an engine prints some lines per request. Waking up for each would cost more than handling
them, and at the moment when the answer must be passed on; so they wait in the pipe and are read
together.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import suppress

from myllm.loops import in_background, note_failure

OnLines = Callable[[Sequence[str]], None]

_EVERY_S, _SOON_S = 0.1, 0.005
# The wanted capacity of a pipe: half a second's output at 1,500 requests per second; and the
# default capacity, where a larger one is not allowed.
_HOLDS, _FEW_HOLD = 2**20, 2**16
# Bytes to read at once; a longer line is cut.
MAX_READ = 2**20
# Reads from the pipe of an engine that has ended; another process may still write to it.
_MAX_AT_END = 8


class Lines:
    """Splits what it is fed into lines, without their ends; a line over the limit into pieces."""

    def __init__(self, on_lines: OnLines) -> None:
        self._on_lines = on_lines
        self._rest = b""

    def feed(self, block: bytes) -> None:
        *whole, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > MAX_READ:
            whole, self._rest = [*whole, self._rest], b""
        if not whole:
            return
        try:
            self._on_lines([line.decode("utf-8", "replace").rstrip("\r") for line in whole])
        except Exception as failure:  # noqa: BLE001 - an engine whose pipe fills up stops
            note_failure("taking in an engine's output", failure)

    def end(self) -> None:
        """Hand over the last line, which lacks its end."""
        if self._rest:
            self.feed(b"\n")


async def read_lines(stream: asyncio.StreamReader, on_lines: OnLines) -> None:
    """Hand over the lines as they come, until the stream ends."""
    lines = Lines(on_lines)
    while block := await stream.read(MAX_READ):
        lines.feed(block)
    lines.end()


class LazyPipe:
    """A pipe whose reading end is here, and is read ten times a second."""

    def __init__(self, on_lines: OnLines) -> None:
        self._lines = Lines(on_lines)
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._much = _FEW_HOLD // 2
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):  # more than this user may have
                self._much = fcntl.fcntl(self._reading, fcntl.F_SETPIPE_SZ, _HOLDS) // 2
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start reading; call it when the child has inherited the writing end."""
        os.close(self.writing)
        self._task = in_background("reading an engine's output", self._read_on())

    def finish(self) -> None:
        """Hand over what is left, without waiting for more. May be called again."""
        if self._reading < 0:
            return
        if self._task is None:
            os.close(self.writing)
        else:
            self._task.cancel()
        for _ in range(_MAX_AT_END):
            if not self._read():
                break
        self._lines.end()
        os.close(self._reading)
        self._reading = -1

    async def _read_on(self) -> None:
        while (block := self._read()) != b"":
            # An engine that finds the pipe full stops computing until it is read.
            is_quick = block is not None and len(block) >= self._much
            await asyncio.sleep(_SOON_S if is_quick else _EVERY_S)

    def _read(self) -> bytes | None:
        """Return what was read; None when nothing has come, and empty bytes at the end."""
        try:
            block = os.read(self._reading, MAX_READ)
        except BlockingIOError:
            return None
        if block:
            self._lines.feed(block)
        return block
