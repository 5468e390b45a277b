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


Devices = Callable[[], Mapping[str, DeviceMemory]]
"""`Launcher.devices`."""
