"""The devices whose memory engines take: their names and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

HOST: Final = "host"
"""The name of the machine's own memory; GPUs have llama.cpp's names: `CUDA0`, `CUDA1`, …"""

MemoryByDevice = Mapping[str, int]
"""MiB by device name."""


@dataclass(frozen=True)
class DeviceMemory:
    """One device's memory in MiB. Free is what could be taken now, page cache included."""

    total_mb: int
    free_mb: int


@dataclass(frozen=True)
class GpuReading:
    """What a GPU does now; None for what it does not report. `utilization` runs from 0 to 1."""

    total_bytes: int
    used_bytes: int
    utilization: float | None
    power_w: float | None
    temperature_c: int | None


Devices = Callable[[], Mapping[str, DeviceMemory]]
"""`Launcher.devices`."""

GpuReadings = Callable[[], Mapping[str, GpuReading]]
"""Reads every GPU that engines can see, by llama.cpp's name; may take some milliseconds."""
