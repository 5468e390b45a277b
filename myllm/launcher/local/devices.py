"""How much memory this machine and its GPUs have, and how much of it is free."""

from __future__ import annotations

from typing import Protocol

import psutil

from myllm.cgroups import MemoryLimit, memory_limit
from myllm.launcher.devices import HOST, DeviceMemory

_MIB = 2**20


class GpuReader(Protocol):
    """A source of figures about GPUs; keys are llama.cpp's names of the devices."""

    def memory(self) -> dict[str, DeviceMemory]:
        """All GPUs that engines can see."""
        ...

    def used_mb(self, pid: int) -> dict[str, int]:
        """MiB that the process has on each GPU; empty when that is not known."""
        ...

    def is_working(self, pid: int) -> bool:
        """Whether a GPU that the process uses computes at this moment, for any process."""
        ...


def read_devices(gpus: GpuReader | None) -> dict[str, DeviceMemory]:
    """The memory of the host and of each GPU, as it is now."""
    facts = psutil.virtual_memory()
    host = within(facts.total, facts.available, memory_limit())
    return {HOST: host, **(gpus.memory() if gpus is not None else {})}


def within(total: int, available: int, limit: MemoryLimit | None) -> DeviceMemory:
    """The machine's bytes, or the container's limit where that is less."""
    if limit is not None:
        total, available = min(total, limit.total), min(available, limit.free)
    return DeviceMemory(total // _MIB, available // _MIB)
