"""Control groups for tests: imitations in a folder, and real groups where permitted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from myllm.cgroups import _groups


def write_group(root: Path, folder: str, **files: object) -> None:
    """Write a group's files; `memory_max=1` is the file memory.max, `cpu_max` cpu.max."""
    path = root / folder.lstrip("/")
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name.replace("_", ".", 1)).write_text(f"{content}\n")


def write_process(root: Path, groups: list[str], mounts: list[str]) -> None:
    """Write proc's files about this process: `groups` as in proc/self/cgroup, each of `mounts` as
    "TOP MOUNTPOINT TYPE OPTIONS"."""
    about = root / "proc" / "self"
    about.mkdir(parents=True)
    (about / "cgroup").write_text("".join(f"{line}\n" for line in groups))
    lines = ["22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw"]
    for number, mount in enumerate(mounts, 30):
        top, point, kind, options = mount.split(" ")
        lines.append(f"{number} 22 0:{number} {top} {point} rw,nosuid - {kind} {kind} {options}")
    (about / "mountinfo").write_text("".join(f"{line}\n" for line in lines))


def can_limit_cpus() -> bool:
    """Whether this process may make a control group with a CPU quota."""
    try:
        with cpu_quota(1.0):
            return True
    except OSError:
        return False


@contextmanager
def cpu_quota(cpus: float) -> Iterator[Path]:
    """Create a group with that quota inside this process's own; yield its file of processes.

    Raises OSError if the system does not permit it. All processes inside must end before the exit.
    """
    own = next(_groups(Path("/"), "cpu"), None)
    if own is None:
        raise OSError("no control groups that limit CPU time")
    folder = own.folder / f"myllm-test-{os.getpid()}"
    period_us, quota_us = 100_000, int(cpus * 100_000)
    folder.mkdir()
    try:
        if own.version == 2:
            (folder / "cpu.max").write_text(f"{quota_us} {period_us}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(period_us))
            (folder / "cpu.cfs_quota_us").write_text(str(quota_us))
        yield folder / "cgroup.procs"
    finally:
        folder.rmdir()


def run_inside(procs: Path, code: str) -> str:
    """Run `code` in a Python process inside that group; return what it prints."""
    join = f"import os; open({str(procs)!r}, 'w').write(str(os.getpid()))\n"
    done = subprocess.run(
        [sys.executable, "-c", join + code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()
