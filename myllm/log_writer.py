"""Standard error behind a queue, so that writing to it neither blocks nor raises.

A direct write to stderr can do both: it raises once the reader of the pipe has gone or the terminal
is closed, and it blocks while the reader does not read the pipe. A server must survive either.
"""

from __future__ import annotations

import io
import os
import select
import threading
import time
from collections.abc import Callable
from itertools import accumulate
from queue import SimpleQueue

from myllm.incidents import count_failure

STDERR = 2
# About 20,000 lines of requests.
MAX_BYTES = 4 * 2**20
# The thread waits this long for further lines, so that a busy server writes a hundred at once
# instead of switching threads for each.
_GATHER_S = 0.02
_POLL_MS = 1000
_PAUSE_S = 0.1

_Queued = bytes | threading.Event


class LogWriter:
    """Writes lines to the file descriptor `fd` from a thread of its own.

    At most `most_bytes` wait to be written. Further lines are dropped, and so are lines whose write
    fails. When writing works again, the thread calls `on_dropped` with the number of dropped lines.
    """

    def __init__(
        self, fd: int, on_dropped: Callable[[int], None], most_bytes: int = MAX_BYTES
    ) -> None:
        self._fd = fd
        self._on_dropped = on_dropped
        self._most_bytes = most_bytes
        self._queue: SimpleQueue[_Queued] = SimpleQueue()
        # Reentrant, since the garbage collector may run a finalizer that logs during `write`;
        # SimpleQueue is reentrant, too.
        self._lock = threading.RLock()
        self._waiting_bytes = 0
        self._dropped = 0
        self._ends_in_mid_line = False
        # A daemon: it may be blocked in a write forever, and must not keep the process alive.
        threading.Thread(target=self._run, name="log writer", daemon=True).start()

    def write(self, line: bytes) -> None:
        """Queue `line`, which ends with a newline. Never blocks, never raises."""
        with self._lock:
            if self._waiting_bytes + len(line) > self._most_bytes:
                self._dropped += 1
                return
            self._waiting_bytes += len(line)
        self._queue.put(line)

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything queued so far is written; False if that takes too long."""
        reached = threading.Event()
        self._queue.put(reached)
        return reached.wait(timeout_s)

    def _run(self) -> None:
        while True:
            try:
                self._write_next()
            except Exception:  # noqa: BLE001 - such as MemoryError; the next write may work
                count_failure("log writer")  # logging it would need this writer
                time.sleep(_PAUSE_S)

    def _write_next(self) -> None:
        """Wait until the queue has an item, then write everything that is queued."""
        batch = [self._queue.get()]
        if isinstance(batch[0], bytes):
            time.sleep(_GATHER_S)
        batch += [self._queue.get() for _ in range(self._queue.qsize())]
        lines = [each for each in batch if isinstance(each, bytes)]
        try:
            if lines:
                self._write_lines(lines)
        finally:
            for each in batch:
                if isinstance(each, threading.Event):
                    each.set()

    def _write_lines(self, lines: list[bytes]) -> None:
        lost = len(lines)
        try:
            written = self._write_some(b"".join(lines))
            lost = sum(end > written for end in accumulate(map(len, lines)))
        finally:
            with self._lock:
                self._waiting_bytes -= sum(map(len, lines))
                self._dropped += lost
                reported = 0 if lost else self._dropped
                self._dropped -= reported
        if reported:
            self._on_dropped(reported)

    def _write_some(self, data: bytes) -> int:
        """Write `data`; return how many bytes were written, fewer than all if writing failed."""
        rest = memoryview(data)
        try:
            if self._ends_in_mid_line:
                os.write(self._fd, b"\n")
            while rest:
                try:
                    rest = rest[os.write(self._fd, rest) :]
                except BlockingIOError:  # another process has made the terminal non-blocking
                    poll = select.poll()
                    poll.register(self._fd, select.POLLOUT)
                    poll.poll(_POLL_MS)
        except OSError:
            pass
        written = len(data) - len(rest)
        if written:
            self._ends_in_mid_line = data[written - 1] != ord("\n")
        return written


class QueuedStream(io.RawIOBase):
    """What `sys.stderr` writes to while a LogWriter has its file descriptor."""

    def __init__(self, writer: LogWriter, fd: int) -> None:
        self._writer = writer
        self._fd = fd

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def fileno(self) -> int:
        return self._fd

    def write(self, data: object, /) -> int:
        text = bytes(data)  # type: ignore[call-overload]
        self._writer.write(text)
        return len(text)
