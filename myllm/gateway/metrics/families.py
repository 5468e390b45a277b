"""Metric families of prometheus-client, made of plain tables. Imported with the first scrape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from myllm.gateway.metrics.histogram import Histogram
from myllm.supervisor.spec import InstanceKey

MODEL = ("model_name", "role")
"""The labels of what is counted by model."""

Labels = tuple[str, ...]
_Plain = TypeVar("_Plain", CounterMetricFamily, GaugeMetricFamily)


def counter(
    name: str, text: str, labels: Labels, values: Mapping[Labels, float]
) -> CounterMetricFamily:
    """Return the counter `name`, which ends in `_total`, with a sample for each of `values`."""
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def gauge(
    name: str, text: str, labels: Labels, values: Mapping[Labels, float]
) -> GaugeMetricFamily:
    """Return the gauge `name` with a sample for each of `values`."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def histogram(
    name: str, text: str, labels: Labels, values: Mapping[Labels, Histogram]
) -> HistogramMetricFamily:
    """Return the histogram `name` with its buckets for each of `values`."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for labelled, value in values.items():
        bounds = [*map(floatToGoString, value.bounds), "+Inf"]
        buckets, below = [], 0
        for bound, count in zip(bounds, value.counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric(labelled, buckets, value.sum)
    return family


def labels_of(key: InstanceKey | None, *more: str) -> Labels:
    """Return the values of MODEL for `key`, both empty if it is None, and then `more`."""
    return (*(key or ("", "")), *more)


def _filled(family: _Plain, values: Mapping[Labels, float]) -> _Plain:
    for labelled, value in values.items():
        family.add_metric(labelled, value)
    return family
