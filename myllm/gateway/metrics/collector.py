"""Renders all metrics. Imported with the first scrape, as all modules that it imports for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from myllm.gateway.metrics.engine_families import engine_families
from myllm.gateway.metrics.families import Labels, counter, gauge
from myllm.gateway.metrics.moment import Machine, Moment
from myllm.gateway.metrics.own_families import own_families
from myllm.gateway.metrics.request_families import request_families
from myllm.launcher.devices import HOST, GpuReading

_MIB: Final = 2**20


@dataclass(frozen=True, eq=False)
class _Collector(Collector):
    """One moment of the server, and of the machine."""

    moment: Moment
    machine: Machine
    build: Mapping[str, str]

    def collect(self) -> Iterator[Metric]:
        names = {key.model for key in self.moment.on_disk} | {""}
        for family in self._families():
            if not self.moment.shows_all:
                family.samples = [
                    each for each in family.samples if each.labels.get("model_name", "") in names
                ]
            yield family

    def _families(self) -> Iterator[Metric]:
        labels, values = tuple(self.build), tuple(self.build.values())
        yield gauge("myllm_build_info", "The versions that run; always 1.", labels, {values: 1})
        yield from request_families(self.moment.requests)
        yield from engine_families(self.moment)
        yield from own_families(self.moment.answers)
        yield from _machine_families(self.machine)
        failed: dict[Labels, float] = {(task,): n for task, n in self.moment.failures.items()}
        text = "Exceptions in background work."
        yield counter("myllm_background_errors_total", text, ("task",), failed)


def render(
    moment: Moment, machine: Machine, build: Mapping[str, str], accept: str
) -> tuple[bytes, str]:
    """Return the metrics in the best format that an Accept header allows, and its type."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_Collector(moment, machine, build))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _machine_families(machine: Machine) -> Iterator[Metric]:
    host = machine.memory[HOST]
    text = "Memory of this machine, or of its container."
    yield gauge("myllm_host_memory_bytes", text, (), {(): host.total_mb * _MIB})
    text = "Memory of this machine that could be taken now."
    yield gauge("myllm_host_memory_available_bytes", text, (), {(): host.free_mb * _MIB})
    for name, text, field in (
        ("memory_bytes", "Memory of the GPU.", "total_bytes"),
        ("memory_used_bytes", "Memory of the GPU in use, by any process.", "used_bytes"),
        ("utilization_ratio", "Share of the time in which the GPU computes.", "utilization"),
        ("power_watts", "Power that the GPU draws.", "power_w"),
        ("temperature_celsius", "Temperature of the GPU.", "temperature_c"),
    ):
        yield _of_gpus(f"myllm_gpu_{name}", text, field, machine.gpus)


def _of_gpus(name: str, text: str, field: str, gpus: Mapping[str, GpuReading]) -> Metric:
    known = {(device,): getattr(reading, field) for device, reading in gpus.items()}
    return gauge(name, text, ("device",), {k: v for k, v in known.items() if v is not None})
