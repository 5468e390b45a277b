"""The metrics of models and engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import Metric

from myllm.gateway.metrics.engine_counts import EngineCounts
from myllm.gateway.metrics.families import MODEL, Labels, counter, gauge, histogram, labels_of
from myllm.gateway.metrics.moment import Moment
from myllm.gateway.snapshot import EngineSnapshot, ModelSnapshot
from myllm.launcher.devices import MemoryByDevice
from myllm.supervisor.spec import InstanceKey

STATES: Final = ("unloaded", "waiting", "loading", "ready", "draining", "backing_off")
_MIB: Final = 2**20


def engine_families(moment: Moment) -> Iterator[Metric]:
    """Yield what models and engines do, and what has become of them."""
    models = moment.snapshot.models
    running = {labels_of(each.key): sum(e.busy_slots for e in each.engines) for each in models}
    text = "Requests that hold a slot."
    yield gauge("myllm_num_requests_running", text, MODEL, running)
    waiting = {labels_of(each.key): each.queued for each in models}
    text = "Requests that wait for a slot, or for their model to load."
    yield gauge("myllm_num_requests_waiting", text, MODEL, waiting)
    yield _states(models, moment.on_disk)
    yield from _counts(moment.engines)
    results = {labels_of(key, result): n for (key, result), n in moment.restores.items()}
    text = "Conversations whose KV state was to be restored into a slot."
    yield counter("myllm_kv_restores_total", text, (*MODEL, "result"), results)
    yield from _memory(moment)


def _states(models: tuple[ModelSnapshot, ...], on_disk: tuple[InstanceKey, ...]) -> Metric:
    states = dict.fromkeys(on_disk, "unloaded")
    for each in models:
        state = _state(each)
        if state != "unloaded" or each.key in states:
            states[each.key] = state
    values = {
        labels_of(key, state): float(state == current)
        for key, current in states.items()
        for state in STATES
    }
    text = "1 for the state that the model is in, and 0 for the others."
    return gauge("myllm_model_state", text, (*MODEL, "state"), values)


def _state(model: ModelSnapshot) -> str:
    """The state of the engine that takes requests, or else of the youngest one."""
    if model.engines:
        return max(model.engines, key=_by_use).state
    if model.backoff_s:
        return "backing_off"
    return "waiting" if model.is_needed else "unloaded"


def _by_use(engine: EngineSnapshot) -> tuple[bool, int]:
    return engine.takes_requests, engine.run_id


def _counts(counts: EngineCounts) -> Iterator[Metric]:
    loads = {labels_of(key, result): n for (key, result), n in counts.loads.items()}
    yield counter("myllm_model_loads_total", "Engines started.", (*MODEL, "result"), loads)
    seconds = {labels_of(key): each for key, each in counts.load_seconds.items()}
    text = "From the start of an engine until it took requests."
    yield histogram("myllm_model_load_duration_seconds", text, MODEL, seconds)
    evictions = {labels_of(key, reason): n for (key, reason), n in counts.evictions.items()}
    text = "Loaded engines that were stopped."
    yield counter("myllm_model_evictions_total", text, (*MODEL, "reason"), evictions)
    restarts = {labels_of(key, reason): n for (key, reason), n in counts.restarts.items()}
    text = "Engines started in place of one that died, by what ended that one."
    yield counter("myllm_engine_restarts_total", text, (*MODEL, "reason"), restarts)


def _memory(moment: Moment) -> Iterator[Metric]:
    engines = list(moment.snapshot.engines())
    labels = (*MODEL, "device")
    predicted = _bytes((each.spec.key, each.need_mb) for each in engines)
    text = "Memory that engines are expected to take."
    yield gauge("myllm_engine_memory_predicted_bytes", text, labels, predicted)
    measured = _bytes((each.spec.key, each.used_mb) for each in engines)
    text = "Memory that engines were last measured to take."
    yield gauge("myllm_engine_memory_measured_bytes", text, labels, measured)
    budget: dict[Labels, float] = {(device,): mb * _MIB for device, mb in moment.budget_mb.items()}
    text = "Memory that engines may take together."
    yield gauge("myllm_memory_budget_bytes", text, ("device",), budget)


def _bytes(needs: Iterator[tuple[InstanceKey, MemoryByDevice]]) -> Mapping[tuple[str, ...], float]:
    total: Counter[tuple[str, ...]] = Counter()
    for key, by_device in needs:
        for device, mb in by_device.items():
            total[labels_of(key, device)] += mb * _MIB
    return total
