"""How many threads are worth running under an affinity or a quota."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from myllm.cpus import usable_cores, usable_cpus
from tests.control_groups import cpu_quota, run_inside, write_group, write_process

SHOW = "from myllm.cpus import usable_cores, usable_cpus; print(usable_cores(), usable_cpus())"


def tree(root: Path, quota: str, siblings: Collection[str] = ()) -> Path:
    """A container with that quota on a machine whose CPUs share cores as `siblings` says."""
    write_process(root, ["0::/"], ["/ /sys/fs/cgroup cgroup2 rw"])
    write_group(root, "sys/fs/cgroup", cpu_max=quota)
    for number, shared in enumerate(siblings):
        topology = root / f"sys/devices/system/cpu/cpu{number}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{shared}\n")
    return root


def allow(monkeypatch: pytest.MonkeyPatch, *cpus: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cpus))


@pytest.mark.parametrize(
    ("quota", "threads"),
    [
        ("max 100000", 4),
        ("800000 100000", 4),
        ("400000 100000", 4),
        ("390000 100000", 3),
        ("150000 100000", 1),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("1000 100000", 1),
    ],
)
def test_a_quota_allows_as_many_threads_as_whole_cpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, threads: int
) -> None:
    allow(monkeypatch, 0, 1, 2, 3)
    root = tree(tmp_path, quota)
    assert (usable_cores(root), usable_cpus(root)) == (threads, threads)


def test_two_logical_cpus_of_one_core_are_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(tmp_path, "max 100000", ["0-1", "0-1", "2-3", "2-3"])
    allow(monkeypatch, 0, 1, 2, 3)
    assert (usable_cores(root), usable_cpus(root)) == (2, 4)
    allow(monkeypatch, 0, 1)
    assert (usable_cores(root), usable_cpus(root)) == (1, 2)
    allow(monkeypatch, 1, 2)
    assert (usable_cores(root), usable_cpus(root)) == (2, 2)


def test_an_affinity_to_one_cpu_is_one_thread() -> None:
    cpu = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{cpu}]); {SHOW}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1 1\n"


@pytest.mark.needs_cpu_quota
@pytest.mark.parametrize("cpus", [0.5, 1, 1.5])
def test_the_quota_of_a_real_group(cpus: float) -> None:
    with cpu_quota(cpus) as procs:
        assert run_inside(procs, SHOW) == "1 1"
