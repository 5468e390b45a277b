"""Runs the programs that a build or a check needs."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

_PR_SET_PDEATHSIG = 1
_INTERRUPT_GRACE_S = 10.0
_AFTER_KILL_S = 10.0
# Loaded before any fork: between fork and exec a child must not import or allocate much.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def run_logged(
    command: list[str],
    log: Path,
    on_line: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run `command`, append its output to `log`, and return its exit code.

    If this call ends early (by Ctrl+C, or an error in `on_line`), the command and its children
    end too: when this returns or raises, they have been reaped. If this process is killed, the
    kernel interrupts the command, so that ninja leaves no half-written object.
    Raises OSError when the command or the log cannot be opened or written.
    """
    with log.open("a", encoding="utf-8") as writing:
        writing.write(f"$ {' '.join(command)}\n")
        writing.flush()
        # In its own session the command gets no Ctrl+C from the terminal; `_interrupt` sends one.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        assert process.stdout is not None
        try:
            _copy_lines(process.stdout, writing, on_line)
            return process.wait()
        except BaseException:
            _interrupt(process)
            raise
        finally:
            process.stdout.close()


def _copy_lines(reading: IO[str], writing: IO[str], on_line: Callable[[str], None]) -> None:
    for line in reading:
        writing.write(line)
        writing.flush()
        on_line(line.rstrip("\n"))


def die_with_parent() -> None:
    """Run in a child before exec: the kernel interrupts it when this process ends (on Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def run_and_read(command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run one of llama.cpp's programs to its end; `stdout` has both of its outputs.

    Raises OSError when it cannot be run, and subprocess.TimeoutExpired when it does not end and had
    to be killed.
    """
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=clean_environment(),
        timeout=timeout_s,
    )


def clean_environment() -> dict[str, str]:
    """This process's environment without LLAMA_ARG_*, which llama.cpp's programs would read as
    arguments."""
    return {name: value for name, value in os.environ.items() if "LLAMA_ARG_" not in name}


def _interrupt(process: subprocess.Popen[str]) -> None:
    """SIGINT to the process group, then, after a grace period, SIGKILL to the whole tree.

    Ninja runs each compiler in a process group of its own and passes the signal on, but after
    a SIGKILL it could not: so its children are listed before and killed with it.
    """
    # A process that blocks on a full pipe would not stop, so close the pipe first.
    assert process.stdout is not None
    process.stdout.close()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(_INTERRUPT_GRACE_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        process.kill()
        process.wait(_AFTER_KILL_S)
