"""What an engine's process takes of this machine."""

from __future__ import annotations

import psutil

from myllm.launcher.devices import HOST
from myllm.launcher.local.devices import GpuReader

_MIB = 2**20


def used_by(pid: int, gpus: GpuReader | None) -> dict[str, int]:
    """What the engine `pid` takes on each device, in MiB; empty when it is no more.

    On the host this is its resident memory, which is all its own, as engines do not map files.
    """
    try:
        resident = psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:
        return {}
    if resident == 0:  # it has ended, and was not reaped yet
        return {}
    return {HOST: resident // _MIB, **(gpus.used_mb(pid) if gpus is not None else {})}
