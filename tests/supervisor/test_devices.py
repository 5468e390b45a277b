"""What is free, on the machine and in a container, and what engines may have of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from myllm.settings import Settings
from myllm.supervisor.cgroup import Limit, read_limit
from myllm.supervisor.devices import (
    HOST,
    DeviceMemory,
    Room,
    budgets,
    read_devices,
    rooms,
    used_by,
    within,
)
from tests.serving import wait_until

GIB = 2**30
DEVICES = {HOST: DeviceMemory(16000, 9000), "CUDA0": DeviceMemory(24000, 20000)}


def settings(**given: int) -> Settings:
    return Settings(_env_file=None, **given)  # type: ignore[arg-type,call-arg]


def group(root: Path, folder: str, **files: object) -> None:
    """Write a group's files; `memory_max=1` is the file memory.max."""
    path = root / folder
    path.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (path / name.replace("memory_", "memory.", 1)).write_text(f"{content}\n")


def belongs(root: Path, *lines: str) -> None:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text("\n".join(lines) + "\n")


def test_a_process_that_has_ended_and_was_not_reaped_takes_nothing() -> None:
    with subprocess.Popen(["true"]) as ended:
        wait_until(lambda: psutil.Process(ended.pid).status() == "zombie", 10, "a zombie")
        assert used_by(ended.pid, None) == {}


def test_this_machine() -> None:
    host = read_devices(None)[HOST]
    facts = psutil.virtual_memory()
    assert 0 < host.free_mb <= host.total_mb <= facts.total // 2**20
    assert list(read_devices(None)) == [HOST]


def test_memory_that_a_program_takes_is_no_longer_free_and_counts_as_its_own() -> None:
    script = "block = b'x' * 300_000_000; print('has it', flush=True); input()"
    before = read_devices(None)[HOST].free_mb
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        taken = before - read_devices(None)[HOST].free_mb
        used = used_by(child.pid, None)
        child.communicate(b"\n")
    assert 286 < used[HOST] < 400
    assert taken > 100  # other programs come and go
    assert used_by(child.pid, None) == {}


def test_a_container_of_version_2_sees_its_group_as_the_top(tmp_path: Path) -> None:
    belongs(tmp_path, "0::/")
    group(
        tmp_path,
        "sys/fs/cgroup",
        memory_max=4 * GIB,
        memory_current=3 * GIB,
        memory_stat=f"anon {GIB}\nactive_file {GIB}\ninactive_file {GIB}",
    )
    assert read_limit(tmp_path) == Limit(4 * GIB, 2 * GIB)


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    belongs(tmp_path, "0::/user.slice/user-1.slice/my.service")
    base = "sys/fs/cgroup/user.slice"
    group(tmp_path, base, memory_max=8 * GIB, memory_current=7 * GIB, memory_stat="anon 1")
    tight = {"memory_max": 6 * GIB, "memory_current": GIB, "memory_stat": "inactive_file 0"}
    group(tmp_path, f"{base}/user-1.slice", **tight)
    group(tmp_path, f"{base}/user-1.slice/my.service", memory_max="max", memory_current=GIB)
    assert read_limit(tmp_path) == Limit(6 * GIB, GIB)


def test_a_container_of_version_1_whose_path_is_the_hosts(tmp_path: Path) -> None:
    belongs(tmp_path, "5:cpu:/docker/abc", "4:memory:/docker/abc", "0::/docker/abc")
    group(
        tmp_path,
        "sys/fs/cgroup/memory",
        memory_limit_in_bytes=2 * GIB,
        memory_usage_in_bytes=GIB,
        memory_stat=f"inactive_file 5\ntotal_inactive_file {GIB // 2}",
    )
    assert read_limit(tmp_path) == Limit(2 * GIB, GIB + GIB // 2)


def test_no_groups_no_limit(tmp_path: Path) -> None:
    assert read_limit(tmp_path) is None
    belongs(tmp_path, "0::/")
    group(tmp_path, "sys/fs/cgroup", memory_max="max", memory_current=1, memory_stat="")
    assert read_limit(tmp_path) is None


def test_a_limit_never_makes_memory_more() -> None:
    unlimited = Limit(2**63 - 4096, 2**63 - 4096)
    assert within(8 * GIB, 3 * GIB, unlimited) == DeviceMemory(8192, 3072)
    assert within(8 * GIB, 3 * GIB, Limit(4 * GIB, GIB)) == DeviceMemory(4096, 1024)
    assert within(8 * GIB, 3 * GIB, None) == DeviceMemory(8192, 3072)


def test_budgets_are_set_or_all_but_the_reserve() -> None:
    assert budgets(DEVICES, settings()) == {HOST: 15488, "CUDA0": 23488}
    assert budgets(DEVICES, settings(memory_reserve_mb=1000)) == {HOST: 15000, "CUDA0": 23000}
    chosen = settings(memory_budget_mb=8000, gpu_budget_mb=99999)
    assert budgets(DEVICES, chosen) == {HOST: 8000, "CUDA0": 24000}
    assert budgets({HOST: DeviceMemory(300, 200)}, settings()) == {HOST: 0}


def test_what_other_programs_have_cannot_be_obtained_but_what_engines_have_can() -> None:
    own = {HOST: 2000}
    assert rooms(DEVICES, settings(), own) == {
        HOST: Room(budget_mb=15488, obtainable_mb=10488, free_mb=8488),
        "CUDA0": Room(budget_mb=23488, obtainable_mb=19488, free_mb=19488),
    }
    little = rooms(DEVICES, settings(memory_budget_mb=3000), own)[HOST]
    assert little == Room(budget_mb=3000, obtainable_mb=3000, free_mb=1000)
    over = rooms(DEVICES, settings(memory_budget_mb=1000), own)[HOST]
    assert over.free_mb == 0


def test_own_memory_of_this_process() -> None:
    assert used_by(os.getpid(), None)[HOST] > 10
