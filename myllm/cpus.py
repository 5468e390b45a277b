"""How many threads can compute at once: the CPUs that this process may run on, and the quota of CPU
time that a container or a service unit leaves it.

A fraction of a CPU is rounded down; a quota below one CPU still gives one thread. An engine's
threads wait for each other after each operation, so where one is stopped because the quota is used
up, the others wait, too. And a quota stops everything in the container: more threads than it has
whole CPUs would use up the time that the server needs to hand out what was computed.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from myllm.cgroups import cpu_limit

_ROOT = Path("/")


def usable_cpus(root: Path = _ROOT) -> int:
    """Logical CPUs whose whole time this process can have; at least 1. `root` is as in cgroups."""
    return _within_quota(len(_allowed()), root)


def usable_cores(root: Path = _ROOT) -> int:
    """Cores whose whole time this process can have; at least 1.

    Computing threads want a core each: two on one core's logical CPUs are hardly faster than one.
    """
    cpus = root / "sys/devices/system/cpu"
    cores = {_core(cpus / f"cpu{number}" / "topology", number) for number in _allowed()}
    return _within_quota(len(cores), root)


def machine_cores() -> int:
    """Cores of the machine, whoever may use them."""
    return psutil.cpu_count(logical=False) or os.cpu_count() or 1


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _core(topology: Path, number: int) -> str:
    """What tells the core of a logical CPU from others: the logical CPUs that it has."""
    try:
        return (topology / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(number)


def _within_quota(count: int, root: Path) -> int:
    quota = cpu_limit(root)
    return max(1, count if quota is None else min(count, int(quota)))
