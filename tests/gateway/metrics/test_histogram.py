"""The histogram counts as Prometheus defines it: a bound is part of the bucket below it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as TheirHistogram

from myllm.gateway.metrics.families import histogram
from myllm.gateway.metrics.histogram import SECONDS, TOKENS, Histogram

VALUES = [0.0, 0.004, 0.005, 0.0051, 1.0, 7.0, 3600.0, 10240.0, 20000.0, 1e9]


def test_it_exports_what_the_librarys_own_histogram_does() -> None:
    ours, registry = Histogram(SECONDS), CollectorRegistry()
    theirs = TheirHistogram("seconds", "text", ["model"], buckets=SECONDS, registry=registry)
    for value in VALUES:
        ours.observe(value)
        theirs.labels("demo").observe(value)
    [expected] = registry.collect()
    samples = [each for each in expected.samples if not each.name.endswith("_created")]
    assert histogram("seconds", "text", ("model",), {("demo",): ours}).samples == samples


def test_counts_by_the_same_bounds_are_added() -> None:
    one, other = Histogram(TOKENS), Histogram(TOKENS)
    for value in (1, 2, 3):
        one.observe(value)
        other.observe(value)
    one.add(other.counts, other.sum)
    assert (sum(one.counts), one.sum) == (6, 12)
    assert one.counts[:4] == [2, 2, 2, 0]


def test_a_copy_stays_as_it_is() -> None:
    one = Histogram(TOKENS)
    same = one.copy()
    one.observe(5)
    one.add([1] * len(one.counts), 1)
    assert (sum(same.counts), same.sum) == (0, 0)


def test_buckets_cover_hours_and_the_longest_contexts() -> None:
    assert SECONDS[0] <= 0.005
    assert SECONDS[-1] > 2 * 3600
    assert TOKENS[-1] >= 1_000_000
    assert list(SECONDS) == sorted(set(SECONDS))
    assert list(TOKENS) == sorted(set(TOKENS))
