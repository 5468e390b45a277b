"""`GET /metrics`: one copy of all counts on the event loop, rendered in a thread."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from myllm import __version__
from myllm.engine.engine import Engine
from myllm.errors import MyLLMError
from myllm.gateway.gateway import Gateway
from myllm.gateway.metrics.engine_counts import EngineCounts
from myllm.gateway.metrics.engine_polls import EnginePolls
from myllm.gateway.metrics.moment import Machine, Moment
from myllm.gateway.metrics.request_counts import RequestCounts
from myllm.gateway.planner import without_engines
from myllm.incidents import failures
from myllm.launcher.devices import Devices, GpuReadings
from myllm.supervisor.spec import InstanceKey, main_role


@dataclass(frozen=True)
class Counts:
    """The observers that count for `/metrics`."""

    requests: RequestCounts = field(default_factory=RequestCounts)
    engines: EngineCounts = field(default_factory=EngineCounts)


class Exporter:
    """Renders the metrics of one server, which runs builds of `engine`."""

    def __init__(
        self,
        gateway: Gateway,
        counts: Counts,
        devices: Devices,
        gpus: GpuReadings,
        engine: Engine,
    ) -> None:
        self.polls = EnginePolls(gateway.supervisor)
        self._gateway = gateway
        self._counts = counts
        self._devices = devices
        self._gpus = gpus
        self._build = {
            "version": __version__,
            "engine_version": engine.version,
            "engine_commit": engine.commit,
            "backends": ",".join(engine.backends),
        }
        self._one_at_a_time = asyncio.Lock()

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics in the best format that an Accept header allows, and its type."""
        async with self._one_at_a_time:  # scrapes must not take every thread
            on_disk = await self._on_disk()
            return await asyncio.to_thread(self._render, self._moment(on_disk), accept)

    async def _on_disk(self) -> tuple[InstanceKey, ...]:
        try:
            found = await self._gateway.models.all()
        except MyLLMError:  # the folder cannot be read, which the API tells clients that need it
            found = self._gateway.models.running()
        return tuple(InstanceKey(model.name, main_role(model)) for model in found)

    def _moment(self, on_disk: tuple[InstanceKey, ...]) -> Moment:
        gateway = self._gateway
        return Moment(
            requests=self._counts.requests.copy(),
            engines=self._counts.engines.copy(),
            snapshot=gateway.snapshot(),
            on_disk=on_disk,
            shows_all=gateway.models.are_all(),
            answers=self.polls.answers(),
            restores=gateway.slot_cache.restores(),
            budget_mb=without_engines(gateway.scheduler.fleet.memory.limits),
            failures=failures(),
        )

    def _render(self, moment: Moment, accept: str) -> tuple[bytes, str]:
        # Imported late: prometheus-client takes time at the start, and memory of servers without
        # a monitor.
        from myllm.gateway.metrics.collector import render

        machine = Machine(self._devices(), self._gpus())
        return render(moment, machine, self._build, accept)
