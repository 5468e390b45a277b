"""The engines' own metrics, read from what they answered to polls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from myllm.gateway.metrics.engine_polls import EngineAnswers
from myllm.gateway.metrics.families import MODEL, gauge, labels_of
from myllm.supervisor.spec import InstanceKey


def own_families(answers: Mapping[InstanceKey, EngineAnswers]) -> Iterator[Metric]:
    """Yield the share of each KV cache in use, and `llamacpp_…` for every metric of the engines.

    A counter whose name does not end in `_total` is exported as a gauge: llama-server declares its
    maximum `n_tokens_max` as a counter.
    """
    used = {labels_of(key): _in_use(each.slots) for key, each in answers.items()}
    text = "Share of the KV cache that holds requests under way, from 0 to 1."
    yield gauge("myllm_kv_cache_usage_perc", text, MODEL, used)
    families: dict[str, Metric] = {}
    for key, each in answers.items():
        labels = dict(zip(MODEL, labels_of(key), strict=True))
        for theirs in text_string_to_metric_families(each.metrics.decode()):
            # The parser appends what a counter should end in.
            is_total = f"\n{theirs.name}_total".encode() in each.metrics
            _add(families, theirs, labels, is_total or theirs.type != "counter")
    yield from families.values()


def _add(
    families: dict[str, Metric], theirs: Metric, labels: Mapping[str, str], is_as_declared: bool
) -> None:
    """Add the samples of one engine's metric to the family of the same name."""
    name = theirs.name.replace(":", "_")
    if name not in families:
        kind = theirs.type if is_as_declared else "gauge"
        families[name] = Metric(name, theirs.documentation, kind)
    for sample in theirs.samples:
        suffix = sample.name.removeprefix(theirs.name) if is_as_declared else ""
        families[name].add_sample(name + suffix, {**sample.labels, **labels}, sample.value)


def _in_use(slots: bytes) -> float:
    found: list[dict[str, Any]] = orjson.loads(slots)
    room = sum(each["n_ctx"] for each in found)
    held = sum(each.get("n_prompt_tokens", 0) for each in found if each["is_processing"])
    return held / room if room else 0.0
