"""All that a scrape shows, at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from myllm.gateway.metrics.engine_counts import EngineCounts
from myllm.gateway.metrics.engine_polls import EngineAnswers
from myllm.gateway.metrics.request_counts import RequestCounts
from myllm.gateway.snapshot import Snapshot
from myllm.launcher.devices import DeviceMemory, GpuReading, MemoryByDevice
from myllm.supervisor.spec import InstanceKey


@dataclass(frozen=True)
class Moment:
    """What was copied on the event loop, so that a thread can read it.

    `on_disk` are the models of the client's scope in their main roles; unless it `shows_all`, no
    other is shown. `restores` are those of `SlotCache.restores`. `budget_mb` is what engines may
    take together on each bounded device. `failures` counts the exceptions in background work.
    """

    requests: RequestCounts
    engines: EngineCounts
    snapshot: Snapshot
    on_disk: tuple[InstanceKey, ...]
    shows_all: bool
    answers: Mapping[InstanceKey, EngineAnswers]
    restores: Mapping[tuple[InstanceKey, str], int]
    budget_mb: MemoryByDevice
    failures: Mapping[str, int]


@dataclass(frozen=True)
class Machine:
    """What the thread reads by itself: the memory of devices, and what GPUs do."""

    memory: Mapping[str, DeviceMemory]
    gpus: Mapping[str, GpuReading]
