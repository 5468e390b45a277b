"""Free memory of the machine and of a container, and the memory that a process takes."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from myllm.cgroups import MemoryLimit
from myllm.launcher.devices import HOST, DeviceMemory
from myllm.launcher.local.devices import read_devices, within
from myllm.launcher.local.usage import memory_mb
from tests.serving import wait_until

GIB = 2**30


def test_a_process_that_has_ended_and_was_not_reaped_takes_nothing() -> None:
    with subprocess.Popen(["true"]) as ended:
        wait_until(lambda: psutil.Process(ended.pid).status() == "zombie", 10, "a zombie")
        assert memory_mb(ended.pid, None) == {}


def test_this_machine() -> None:
    host = read_devices(None)[HOST]
    facts = psutil.virtual_memory()
    assert 0 < host.free_mb <= host.total_mb <= facts.total // 2**20
    assert list(read_devices(None)) == [HOST]


def test_memory_that_a_program_takes_is_no_longer_free_and_counts_as_its_own() -> None:
    for _ in range(5):
        taken, used = taken_by_a_program(300_000_000)
        if taken > 100:  # or another program gave memory back at this moment
            break
    assert taken > 100
    assert 286 < used < 400


def taken_by_a_program(size: int) -> tuple[int, int]:
    """How much less memory is free while a program has `size` bytes, and how much counts as its
    own, in MiB."""
    script = f"block = b'x' * {size}; print('has it', flush=True); input()"
    before = read_devices(None)[HOST].free_mb
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        taken = before - read_devices(None)[HOST].free_mb
        used = memory_mb(child.pid, None)
        child.communicate(b"\n")
    assert memory_mb(child.pid, None) == {}
    return taken, used[HOST]


def test_a_limit_never_increases_memory() -> None:
    unlimited = MemoryLimit(2**63 - 4096, 2**63 - 4096)
    assert within(8 * GIB, 3 * GIB, unlimited) == DeviceMemory(8192, 3072)
    assert within(8 * GIB, 3 * GIB, MemoryLimit(4 * GIB, GIB)) == DeviceMemory(4096, 1024)
    assert within(8 * GIB, 3 * GIB, None) == DeviceMemory(8192, 3072)


def test_own_memory_of_this_process() -> None:
    assert memory_mb(os.getpid(), None)[HOST] > 10
