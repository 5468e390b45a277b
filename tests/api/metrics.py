"""Reading `/metrics` in tests, with the parsers of prometheus-client."""

from __future__ import annotations

from collections.abc import Iterable

import httpx
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.9,text/plain;version=0.0.4;q=0.3"
"""What Prometheus sends, shortened."""

Series = tuple[str, frozenset[tuple[str, str]]]
"""A sample's name and labels."""


def families(api: httpx.Client, accept: str = "", **headers: str) -> list[Metric]:
    """Scrape the server, in the format that `accept` asks for."""
    answer = api.get("/metrics", headers={"Accept": accept, **headers})
    assert answer.status_code == 200, answer.text
    return parsed(answer.text, answer.headers["content-type"])


def parsed(text: str, media_type: str) -> list[Metric]:
    """Parse an answer of this type."""
    if media_type.startswith("application/openmetrics-text; version=1.0.0"):
        return list(openmetrics.text_string_to_metric_families(text))
    assert media_type.startswith("text/plain; version=0.0.4")
    return list(text_string_to_metric_families(text))


def samples(found: Iterable[Metric]) -> dict[Series, float]:
    """Return all samples; none may occur twice."""
    table: dict[Series, float] = {}
    for family in found:
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in table, key
            table[key] = sample.value
    return table


def counts(found: Iterable[Metric]) -> dict[Series, float]:
    """Return everything of our own that only grows, and that no clock decides: counters, and how
    many values histograms have, and their sums of tokens."""
    kinds = ("counter", "histogram")
    ours = (family for family in found if family.name.startswith("myllm_"))
    counted = samples(family for family in ours if family.type in kinds)
    timed = ("_seconds_total", "_seconds_sum", "_bucket")
    return {key: value for key, value in counted.items() if not key[0].endswith(timed)}


def grown(before: dict[Series, float], after: dict[Series, float]) -> dict[Series, float]:
    """Return by how much each count has grown, without those that have not."""
    assert before.keys() <= after.keys()
    growth = {key: value - before.get(key, 0) for key, value in after.items()}
    return {key: value for key, value in growth.items() if value}


def series(name: str, **labels: str) -> Series:
    return name, frozenset(labels.items())


def demo(name: str, role: str = "generate", **labels: str) -> Series:
    """Return a series of the demo model."""
    return series(name, model_name="demo", role=role, **labels)
