"""Locks between processes that report which process holds them, and its progress."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from myllm.engine.progress import Progress, ProgressListener

_LOOK_S = 0.5


def _unknown() -> tuple[int, int]:
    return 0, 0


@contextmanager
def hold_lock(
    path: Path,
    work: str,
    progress: ProgressListener,
    timeout_s: float,
    steps: Callable[[], tuple[int, int]] = _unknown,
) -> Iterator[None]:
    """Hold the lock at `path` while doing `work`, such as "compiling the engine".

    While another process holds it, `progress` receives that process's id, and how many `steps` it
    has done and has in all. Raises filelock's Timeout after `timeout_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(path), path.with_suffix(".pid")
    give_up = time.monotonic() + timeout_s
    while not lock.is_locked:
        try:
            lock.acquire(timeout=_LOOK_S)
        except Timeout:
            if time.monotonic() > give_up:
                raise
            done, total = steps()
            progress(Progress("wait", done, total, f"another MyLLM{_named(owner)} is {work}"))
    try:
        owner.write_text(str(os.getpid()))
        yield
    finally:
        with suppress(OSError):
            owner.unlink()
        lock.release()


def _named(owner: Path) -> str:
    """The owner's process id in brackets, if the file has it."""
    try:
        pid = int(owner.read_text())
    except (OSError, ValueError):
        return ""
    return f" (pid {pid})"
