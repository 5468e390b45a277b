"""How many threads can compute at once: limited by the CPUs that this process may run on, and by
the quota of CPU time of its container or service unit.

A fraction of a CPU is rounded down; a quota below one CPU still gives one thread. An engine's
threads wait for each other after each operation, so when one is stopped because the quota is used
up, the others wait, too. A quota also stops everything else in the container: more threads than it
has whole CPUs would use up the time that the server needs to send results to clients.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from myllm.cgroups import cpu_limit

_ROOT = Path("/")


def usable_cpus(root: Path = _ROOT) -> int:
    """Logical CPUs that this process can use fully; at least 1. `root` is as in `cgroups`."""
    return _within_quota(len(_allowed()), root)


def usable_cores(root: Path = _ROOT) -> int:
    """Cores that this process can use fully; at least 1.

    Each computing thread needs a core: two on one core's logical CPUs are hardly faster than one.
    """
    cpus = root / "sys/devices/system/cpu"
    cores = {_core(cpus / f"cpu{number}" / "topology", number) for number in _allowed()}
    return _within_quota(len(cores), root)


def machine_cores() -> int:
    """All cores of the machine, including those that this process may not use."""
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _core(topology: Path, number: int) -> str:
    """The identity of a logical CPU's core: the list of logical CPUs that share it."""
    try:
        return (topology / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(number)


def _within_quota(count: int, root: Path) -> int:
    quota = cpu_limit(root)
    return max(1, count if quota is None else min(count, int(quota)))
