"""What MyLLM's engines may take of each device's memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from myllm.launcher.devices import HOST, DeviceMemory
from myllm.settings import Settings

GPU_CONTEXT_MB: Final = 680
"""What CUDA itself takes on each GPU that a process uses: its context, kernels, cuBLAS' buffers.
On an H100 with CUDA 13 it was 564 to 590 MiB after a load and 668 to 700 after long prompts,
whatever the model; a measured load replaces it."""


@dataclass(frozen=True)
class DeviceHeadroom:
    """What engines may have of one device, in MiB: together at most (`budget_mb`), at most as
    long as other programs keep what they have (`obtainable_mb`), and without stopping any
    engine (`free_mb`)."""

    budget_mb: int
    obtainable_mb: int
    free_mb: int


def budgets(devices: Mapping[str, DeviceMemory], settings: Settings) -> dict[str, int]:
    """The most that all engines together may take of each device, in MiB.

    That is what the settings say, else all but the reserve; never more than there is.
    """
    return {name: _budget(name, memory, settings) for name, memory in devices.items()}


def headroom(
    devices: Mapping[str, DeviceMemory], settings: Settings, own: Mapping[str, int]
) -> dict[str, DeviceHeadroom]:
    """What engines may have of each device, of which they have `own` now; the reserve stays
    free."""
    table = {}
    for name, budget in budgets(devices, settings).items():
        had = own.get(name, 0)
        free = max(devices[name].free_mb - settings.memory_reserve_mb, 0)
        table[name] = DeviceHeadroom(
            budget, min(budget, free + had), max(min(free, budget - had), 0)
        )
    return table


def _budget(name: str, memory: DeviceMemory, settings: Settings) -> int:
    chosen = settings.memory_budget_mb if name == HOST else settings.gpu_budget_mb
    if chosen is not None:
        return min(chosen, memory.total_mb)
    return max(memory.total_mb - settings.memory_reserve_mb, 0)
