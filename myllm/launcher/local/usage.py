"""What an engine's process takes of this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

from myllm.launcher.base import EngineUsage
from myllm.launcher.devices import HOST
from myllm.launcher.local.devices import GpuReader

_MIB = 2**20


def memory_mb(pid: int, gpus: GpuReader | None) -> dict[str, int]:
    """What the engine `pid` takes on each device, in MiB; empty when it has ended.

    On the host this is its resident memory, which is all its own, as engines do not map files.
    """
    try:
        resident = psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:
        return {}
    if resident == 0:  # it has ended, and was not reaped yet
        return {}
    return {HOST: resident // _MIB, **(gpus.used_mb(pid) if gpus is not None else {})}


def usage(pid: int) -> EngineUsage | None:
    """What the engine `pid` has used so far; None when it has ended. Raises OSError when the
    system does not let it be read."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return EngineUsage(times.user + times.system, _io_bytes(process))
    except psutil.NoSuchProcess:
        return None
    except psutil.Error as failure:
        raise PermissionError(str(failure)) from failure


def core_wait_s(pid: int) -> float:
    """Seconds for which threads of the engine `pid` have waited for a core, and this machine's
    CPUs for their hypervisor; 0 where the system does not count them, or the engine has ended."""
    waited_ns = 0
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError, ValueError, IndexError):  # one that has just ended
                waited_ns += int(
                    Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[1]
                )
    return waited_ns / 1e9 + float(getattr(psutil.cpu_times(), "steal", 0.0))


def _io_bytes(process: psutil.Process) -> int:
    if not hasattr(process, "io_counters"):
        return 0
    counters = process.io_counters()
    return int(counters.read_chars + counters.write_chars)
