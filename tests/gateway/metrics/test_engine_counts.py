"""How the starts and ends of engines are counted, whatever became of them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from myllm.errors import EngineDied, EngineError
from myllm.gateway.metrics.engine_counts import EngineCounts
from myllm.supervisor.exit_cause import Death
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey

KEY = InstanceKey("demo", "generate")
KILLED = {"error": EngineDied("killed"), "death": Death("signal", loading=False, number=9)}


def instance(**fields: Any) -> Instance:
    """An engine that has loaded in 2 s, and was asked to leave."""
    whole = {
        "spec": SimpleNamespace(key=KEY), "ready_at": 12.0, "load_seconds": 2.0, "error": None,
        "death": None, "stop_reason": "idle",
    }  # fmt: skip
    return cast(Instance, SimpleNamespace(**whole | fields))


def life(counts: EngineCounts, **fields: Any) -> None:
    of = instance(**fields)
    counts.engine_started(of)
    if of.ready_at is not None:
        counts.engine_ready(of)
    counts.engine_exited(of)


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({}, "success"),
        (KILLED, "success"),
        ({"ready_at": None}, "cancelled"),
        ({"ready_at": None, "error": EngineError("bad file")}, "failure"),
    ],
)
def test_each_start_is_one_load(fields: dict[str, Any], result: str) -> None:
    counts = EngineCounts()
    life(counts, **fields)
    assert counts.loads == {(KEY, result): 1}
    assert (KEY in counts.load_seconds) is (result == "success")


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("idle", "idle"),
        ("unloaded", "unloaded"),
        ("reloaded", "reloaded"),
        ("evicted for secret-model (embed)", "room"),
        ("the server stops", "shutdown"),
    ],
)
def test_an_eviction_does_not_name_another_model(reason: str, word: str) -> None:
    counts = EngineCounts()
    life(counts, stop_reason=reason)
    assert counts.evictions == {(KEY, word): 1}


def test_an_engine_that_died_or_never_loaded_was_not_evicted() -> None:
    counts = EngineCounts()
    life(counts, **KILLED)
    life(counts, ready_at=None)
    assert not counts.evictions


def test_the_start_after_a_death_is_a_restart() -> None:
    counts = EngineCounts()
    life(counts, **KILLED)
    assert counts.restarts.total() == 0
    life(counts)
    assert +counts.restarts == {(KEY, "signal"): 1}
    life(counts)  # after one that was idle
    assert +counts.restarts == {(KEY, "signal"): 1}


def test_every_reason_of_a_restart_begins_with_0() -> None:
    """Or Prometheus would not see the first restart as an increase."""
    counts = EngineCounts()
    counts.engine_started(instance())
    reasons = {reason for _, reason in counts.restarts}
    assert reasons == {"hung", "too large", "unreachable", "signal", "exit"}


def test_a_copy_stays_as_it_is() -> None:
    counts = EngineCounts()
    life(counts)
    same = counts.copy()
    life(counts, **KILLED)
    life(counts)
    assert same.loads.total() == same.evictions.total() == sum(same.load_seconds[KEY].counts) == 1
    assert same.restarts.total() == 0
