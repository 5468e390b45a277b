"""Limits of control groups, read from folders that imitate those of containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from myllm.cgroups import MemoryLimit, cpu_limit, memory_limit
from tests.control_groups import write_group, write_process

GIB = 2**30
V2 = ["/ /sys/fs/cgroup cgroup2 rw"]
V1_MEMORY = "/sys/fs/cgroup/memory cgroup rw,memory"


def test_memory_of_a_version_2_container_that_sees_its_group_as_the_top(tmp_path: Path) -> None:
    write_process(tmp_path, ["0::/"], V2)
    write_group(
        tmp_path,
        "sys/fs/cgroup",
        memory_max=4 * GIB,
        memory_current=3 * GIB,
        memory_stat=f"anon {GIB}\nactive_file {GIB}\ninactive_file {GIB}",
    )
    assert memory_limit(tmp_path) == MemoryLimit(4 * GIB, 2 * GIB)


def test_the_tightest_memory_limit_up_to_the_top_counts(tmp_path: Path) -> None:
    write_process(tmp_path, ["0::/user.slice/user-1.slice/my.service"], V2)
    base = "sys/fs/cgroup/user.slice"
    write_group(tmp_path, base, memory_max=8 * GIB, memory_current=7 * GIB, memory_stat="anon 1")
    tight = {"memory_max": 6 * GIB, "memory_current": GIB, "memory_stat": "inactive_file 0"}
    write_group(tmp_path, f"{base}/user-1.slice", **tight)
    write_group(tmp_path, f"{base}/user-1.slice/my.service", memory_max="max", memory_current=GIB)
    assert memory_limit(tmp_path) == MemoryLimit(6 * GIB, GIB)


def test_memory_of_a_version_1_container_whose_path_is_the_hosts(tmp_path: Path) -> None:
    groups = ["5:cpu:/docker/abc", "4:memory:/docker/abc", "0::/docker/abc"]
    write_process(tmp_path, groups, [f"/docker/abc {V1_MEMORY}"])
    write_group(
        tmp_path,
        "sys/fs/cgroup/memory",
        memory_limit_in_bytes=2 * GIB,
        memory_usage_in_bytes=GIB,
        memory_stat=f"inactive_file 5\ntotal_inactive_file {GIB // 2}",
    )
    assert memory_limit(tmp_path) == MemoryLimit(2 * GIB, GIB + GIB // 2)


def test_no_groups_no_limit(tmp_path: Path) -> None:
    assert (memory_limit(tmp_path), cpu_limit(tmp_path)) == (None, None)
    write_process(tmp_path, ["0::/"], V2)
    write_group(
        tmp_path,
        "sys/fs/cgroup",
        memory_max="max",
        memory_current=1,
        memory_stat="",
        cpu_max="max 100000",
    )
    assert (memory_limit(tmp_path), cpu_limit(tmp_path)) == (None, None)


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("50000 100000", 0.5), ("150000 100000", 1.5), ("20000 10000", 2), ("max 100000", None)],
)
def test_the_quota_of_a_version_2_container(tmp_path: Path, quota: str, cpus: float | None) -> None:
    write_process(tmp_path, ["0::/"], V2)
    write_group(tmp_path, "sys/fs/cgroup", cpu_max=quota)
    assert cpu_limit(tmp_path) == cpus


def test_the_tightest_quota_up_to_the_top_counts(tmp_path: Path) -> None:
    write_process(tmp_path, ["0::/kubepods.slice/pod1/box"], V2)
    write_group(tmp_path, "sys/fs/cgroup/kubepods.slice", cpu_max="400000 100000")
    write_group(tmp_path, "sys/fs/cgroup/kubepods.slice/pod1", cpu_max="100000 50000")
    write_group(tmp_path, "sys/fs/cgroup/kubepods.slice/pod1/box", cpu_max="max 100000")
    assert cpu_limit(tmp_path) == 2


@pytest.mark.parametrize(("quota", "cpus"), [(150_000, 1.5), (-1, None), (0, None)])
def test_the_quota_of_a_version_1_container(tmp_path: Path, quota: int, cpus: float | None) -> None:
    mount = "/docker/abc /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct"
    write_process(tmp_path, ["5:cpu,cpuacct:/docker/abc", "0::/docker/abc"], [mount])
    files = {"cpu_cfs_quota_us": quota, "cpu_cfs_period_us": 100_000}
    write_group(tmp_path, "sys/fs/cgroup/cpu,cpuacct", **files)
    assert cpu_limit(tmp_path) == cpus


def test_a_group_inside_of_a_container_whose_path_is_the_hosts(tmp_path: Path) -> None:
    mount = "/docker/abc /sys/fs/cgroup/cpu cgroup rw,cpu"
    write_process(tmp_path, ["5:cpu:/docker/abc/service"], [mount])
    inner = {"cpu_cfs_quota_us": 100_000, "cpu_cfs_period_us": 100_000}
    write_group(tmp_path, "sys/fs/cgroup/cpu/service", **inner)
    write_group(tmp_path, "sys/fs/cgroup/cpu", **(inner | {"cpu_cfs_quota_us": 400_000}))
    assert cpu_limit(tmp_path) == 1


def test_both_versions_side_by_side(tmp_path: Path) -> None:
    mounts = [
        "/ /sys/fs/cgroup/cpu cgroup rw,cpu",
        "/ /sys/fs/cgroup/unified cgroup2 rw,nsdelegate",
    ]
    write_process(tmp_path, ["1:cpu:/a", "0::/b"], mounts)
    files = {"cpu_cfs_quota_us": 300_000, "cpu_cfs_period_us": 100_000}
    write_group(tmp_path, "sys/fs/cgroup/cpu/a", **files)
    write_group(tmp_path, "sys/fs/cgroup/unified/b", cgroup_procs="1")
    assert cpu_limit(tmp_path) == 3


def test_a_path_outside_of_the_mount_falls_back_to_its_top(tmp_path: Path) -> None:
    write_process(tmp_path, ["0::/../../host.service"], V2)
    write_group(tmp_path, "sys/fs/cgroup", cpu_max="100000 100000")
    assert cpu_limit(tmp_path) == 1


def test_lines_in_an_unknown_form_are_skipped(tmp_path: Path) -> None:
    write_process(tmp_path, ["0::/", "nonsense"], [*V2])
    with (tmp_path / "proc/self/mountinfo").open("a") as mounts:
        mounts.write("nonsense\n30 1 - cgroup\n\n")
    write_group(tmp_path, "sys/fs/cgroup", cpu_max="100000 100000")
    assert cpu_limit(tmp_path) == 1
