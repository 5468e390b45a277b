"""What is free, on the machine and in a container, and what engines may have of it."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from myllm.cgroups import MemoryLimit
from myllm.settings import Settings
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


def test_a_limit_never_makes_memory_more() -> None:
    unlimited = MemoryLimit(2**63 - 4096, 2**63 - 4096)
    assert within(8 * GIB, 3 * GIB, unlimited) == DeviceMemory(8192, 3072)
    assert within(8 * GIB, 3 * GIB, MemoryLimit(4 * GIB, GIB)) == DeviceMemory(4096, 1024)
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
