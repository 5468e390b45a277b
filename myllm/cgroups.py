"""What a container or a service unit may take of the machine's memory and CPUs (Linux control
groups, version 1, version 2, or both side by side).

A limit of a group applies to all groups inside it, so the tightest one from this process's group to
the top counts. `root` is the directory that contains `proc` and `sys`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

_ROOT = Path("/")
# proc/self/cgroup and proc/self/mountinfo; see cgroups(7) and proc_pid_mountinfo(5).
_MEMBERSHIP = re.compile(r"^\d+:(?P<controllers>[^:]*):(?P<path>.*)$", re.MULTILINE)
_MOUNT = re.compile(
    r"^\d+ \d+ \S+ (?P<top>\S+) (?P<point>\S+) .* - (?P<type>cgroup2?) \S+ (?P<options>\S+)$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class MemoryLimit:
    """Bytes that this process's groups allow, and how many of them are free now."""

    total: int
    free: int


def memory_limit(root: Path = _ROOT) -> MemoryLimit | None:
    """The tightest memory limit; None if there is none.

    Version 1 writes "no limit" as a number larger than any memory.
    """
    limits = [limit for group in _groups(root, "memory") if (limit := _memory(group))]
    if not limits:
        return None
    return MemoryLimit(min(limit.total for limit in limits), min(limit.free for limit in limits))


def cpu_limit(root: Path = _ROOT) -> float | None:
    """The tightest CPU quota, in CPUs: 1.5 is 150 ms of CPU time per 100 ms; None without one."""
    limits = (_cpus(group) for group in _groups(root, "cpu"))
    return min((limit for limit in limits if limit is not None), default=None)


class _Group(NamedTuple):
    folder: Path
    version: int


def _groups(root: Path, controller: str) -> Iterator[_Group]:
    """This process's groups that can limit `controller`, from the innermost to the topmost one
    that is mounted."""
    paths = _memberships(root)
    for mount in _MOUNT.finditer(_text(root / "proc/self/mountinfo")):
        if mount["type"] == "cgroup2":
            path, version = paths.get(""), 2
        elif controller in mount["options"].split(","):
            path, version = paths.get(controller), 1
        else:
            continue
        if path is not None:
            innermost = _below(mount["top"], path)
            for group in (innermost, *innermost.parents):
                yield _Group(root / mount["point"].lstrip("/") / group, version)


def _memberships(root: Path) -> dict[str, str]:
    """This process's group by controller; version 2 has one for all, under the empty name."""
    return {
        controller: line["path"]
        for line in _MEMBERSHIP.finditer(_text(root / "proc/self/cgroup"))
        for controller in line["controllers"].split(",")
    }


def _below(top: str, path: str) -> PurePosixPath:
    """The group `path`, relative to the mounted group `top`.

    A container may see its own group as the top, under a path that is the host's or that leads
    out of what is mounted; then the top is the only group that can be read.
    """
    group = PurePosixPath(path)
    if ".." in group.parts or not group.is_relative_to(top):
        return PurePosixPath()
    return group.relative_to(top)


def _memory(group: _Group) -> MemoryLimit | None:
    total, used, cache = (
        ("memory.max", "memory.current", "inactive_file")
        if group.version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    )
    try:
        most, taken = _number(group.folder / total), _number(group.folder / used)
        found = re.search(rf"^{cache} (\d+)$", _text(group.folder / "memory.stat"), re.MULTILINE)
        # The kernel evicts cached files that were not used lately when it needs memory.
        evictable = min(int(found[1]), taken) if found else 0
    except (OSError, ValueError):  # ValueError: "max", so there is no limit
        return None
    return MemoryLimit(most, max(most - taken + evictable, 0))


def _cpus(group: _Group) -> float | None:
    try:
        if group.version == 2:
            quota, period = map(int, (group.folder / "cpu.max").read_text().split())
        else:
            quota = _number(group.folder / "cpu.cfs_quota_us")
            period = _number(group.folder / "cpu.cfs_period_us")
    except (OSError, ValueError):  # ValueError: "max", so there is no limit
        return None
    return quota / period if quota > 0 and period > 0 else None  # -1: version 1's "no limit"


def _number(file: Path) -> int:
    return int(file.read_text())


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
