"""How much memory the devices have and how much of it is free; what MyLLM may take of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import psutil

from myllm.cgroups import MemoryLimit, memory_limit
from myllm.settings import Settings

HOST: Final = "host"
"""The name of the machine's own memory; GPUs have llama.cpp's names: `CUDA0`, `CUDA1`, …"""

GPU_CONTEXT_MB: Final = 680
"""What CUDA itself takes on each GPU that a process uses: its context, kernels, cuBLAS' buffers.
On an H100 with CUDA 13 it was 564 to 590 MiB after a load and 668 to 700 after long prompts,
whatever the model; a measured load replaces it."""

MemoryByDevice = Mapping[str, int]
"""MiB by device name."""

_MIB: Final = 2**20


@dataclass(frozen=True)
class DeviceMemory:
    """One device's memory in MiB. Free is what could be taken now, page cache included."""

    total_mb: int
    free_mb: int


@dataclass(frozen=True)
class Room:
    """What engines may have of one device, in MiB: together at most (`budget_mb`), at most as
    long as other programs keep what they have (`obtainable_mb`), and without stopping any
    engine (`free_mb`)."""

    budget_mb: int
    obtainable_mb: int
    free_mb: int


class GpuReader(Protocol):
    """Where figures about GPUs come from; keys are llama.cpp's names of the devices."""

    def memory(self) -> dict[str, DeviceMemory]:
        """All GPUs that engines can see."""
        ...

    def used_mb(self, pid: int) -> dict[str, int]:
        """What the process has on each GPU; empty when nobody can tell."""
        ...

    def is_working(self, pid: int) -> bool:
        """Whether a GPU that the process uses computes just now, for whomever."""
        ...


def read_devices(gpus: GpuReader | None) -> dict[str, DeviceMemory]:
    """The memory of the host and of each GPU, as it is now."""
    facts = psutil.virtual_memory()
    host = within(facts.total, facts.available, memory_limit())
    return {HOST: host, **(gpus.memory() if gpus is not None else {})}


def within(total: int, available: int, limit: MemoryLimit | None) -> DeviceMemory:
    """The machine's bytes, or fewer where a container may take fewer."""
    if limit is not None:
        total, available = min(total, limit.total), min(available, limit.free)
    return DeviceMemory(total // _MIB, available // _MIB)


def used_by(pid: int, gpus: GpuReader | None) -> dict[str, int]:
    """What the engine `pid` takes on each device, in MiB; empty when it is no more.

    On the host this is its resident memory, which is all its own, as engines do not map files.
    """
    try:
        resident = psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:
        return {}
    if resident == 0:  # it has ended, and was not reaped yet
        return {}
    return {HOST: resident // _MIB, **(gpus.used_mb(pid) if gpus is not None else {})}


def budgets(devices: Mapping[str, DeviceMemory], settings: Settings) -> dict[str, int]:
    """The most that all engines together may take of each device, in MiB.

    That is what the settings say, else all but the reserve; never more than there is.
    """
    return {name: _budget(name, memory, settings) for name, memory in devices.items()}


def rooms(
    devices: Mapping[str, DeviceMemory], settings: Settings, own: Mapping[str, int]
) -> dict[str, Room]:
    """What engines may have of each device, of which they have `own` now; the reserve stays
    free."""
    table = {}
    for name, budget in budgets(devices, settings).items():
        had = own.get(name, 0)
        free = max(devices[name].free_mb - settings.memory_reserve_mb, 0)
        table[name] = Room(budget, min(budget, free + had), max(min(free, budget - had), 0))
    return table


def _budget(name: str, memory: DeviceMemory, settings: Settings) -> int:
    chosen = settings.memory_budget_mb if name == HOST else settings.gpu_budget_mb
    if chosen is not None:
        return min(chosen, memory.total_mb)
    return max(memory.total_mb - settings.memory_reserve_mb, 0)
