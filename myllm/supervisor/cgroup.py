"""What a container or a service unit may take of the machine's memory (Linux control groups)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple


@dataclass(frozen=True)
class Limit:
    """Bytes that this process's groups allow, and how many of them are free now."""

    total: int
    free: int


class _Version(NamedTuple):
    """Where a version of control groups keeps what."""

    mount: str
    limit: str
    used: str
    cache: str


_V2 = _Version("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_V1 = _Version(
    "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
)


def read_limit(root: Path = Path("/")) -> Limit | None:
    """The tightest limit of this process's group and those above it; None without any.

    `root` is where `proc` and `sys` are. Version 1's "no limit" is a limit beyond any memory.
    """
    limits = [limit for folder, version in _groups(root) if (limit := _limit(folder, version))]
    if not limits:
        return None
    return Limit(min(limit.total for limit in limits), min(limit.free for limit in limits))


def _groups(root: Path) -> Iterator[tuple[Path, _Version]]:
    """This process's groups, from the inmost to the top of what is mounted.

    A container often sees only its own group, mounted as the top, under a path that names the
    host's; so what does not exist is left out and the top always looked at.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        version = _V1 if controllers else _V2
        inmost = PurePosixPath(path.lstrip("/"))
        for group in (inmost, *inmost.parents):
            yield root / version.mount / group, version


def _limit(folder: Path, version: _Version) -> Limit | None:
    try:
        total = int((folder / version.limit).read_text())
        used = int((folder / version.used).read_text())
        cache = _cache((folder / "memory.stat").read_text(), version.cache)
    except (OSError, ValueError):  # ValueError: "max", so there is no limit
        return None
    # Cached files that nobody used lately make way when memory is asked for.
    return Limit(total, max(total - used + min(cache, used), 0))


def _cache(statistics: str, name: str) -> int:
    figures = dict(line.split(" ", 1) for line in statistics.splitlines() if " " in line)
    return int(figures.get(name, 0))
