"""What a step counts, and over which steps the tokens of an answer are spread."""

from __future__ import annotations

from typing import Any, cast

import pytest

from myllm.errors import EngineDied
from myllm.gateway.activity.history import STEPS, History, Step, columns_of
from myllm.gateway.request_record import RequestRecord
from myllm.supervisor.spec import InstanceKey

DEMO = InstanceKey("demo", "generate")


def history(*ends: float) -> History:
    """With closed steps that end at these times; the first begins at 0."""
    made = History(cast(Any, None), dict)
    made._open = Step(0.0)
    for end in ends:
        made._open.until = end
        made._steps.append(made._open)
        made._open = Step(end)
    return made


def request(**more: Any) -> RequestRecord:
    values = {"began_at": 0.0, "ended_at": 1.0, "status": 200, "model": DEMO} | more
    return RequestRecord("r", "POST", "/api/chat", "native", "::1", **values)


def test_an_answer_within_a_step_counts_there() -> None:
    kept = history(5.0)
    kept.request_ended(request(granted_at=6, first_token_at=7, last_token_at=8, ended_at=8,
                               prompt_tokens=10, generated_tokens=20))  # fmt: skip
    step = kept._open
    assert (step.requests, step.errors) == (1, 0)
    assert (step.prompt_tokens, step.generated_tokens) == (10, 20)


def test_a_long_answer_is_spread_over_the_steps_in_which_it_was_generated() -> None:
    kept = history(5.0, 10.0, 15.0)
    kept.request_ended(request(granted_at=1, first_token_at=3, last_token_at=18, ended_at=20,
                               prompt_tokens=10, generated_tokens=150))  # fmt: skip
    steps = [*kept.last(STEPS), kept._open]
    assert [step.generated_tokens for step in steps] == pytest.approx([20, 50, 50, 30])
    assert [step.prompt_tokens for step in steps] == pytest.approx([10, 0, 0, 0])
    assert [step.requests for step in steps] == [0, 0, 0, 1]


def test_only_failures_and_requests_to_models_count() -> None:
    kept = history()
    kept.request_ended(request(model=None))
    kept.request_ended(request(model=None, status=401))
    kept.request_ended(request(error=EngineDied("dead")))
    kept.request_ended(request(status=200, prompt_tokens=7))  # embeddings, say
    step = kept._open
    assert (step.requests, step.errors, step.prompt_tokens) == (3, 2, 7)


async def test_a_step_is_closed_with_a_sample_of_what_runs() -> None:
    class Nothing:
        active = queued = 0

        def engines(self) -> list[Any]:
            return []

    class Idle:
        def snapshot(self) -> Nothing:
            return Nothing()

        def devices(self) -> dict[str, Any]:
            return {"host": None}

    kept = History(cast(Any, Idle()), dict)
    for number in range(1, 101):
        at = number / 100
        kept.request_ended(request(granted_at=0.0, first_token_at=at, last_token_at=at,
                                   generated_tokens=1))  # fmt: skip
    for _ in range(STEPS + 3):
        await kept._sample()
    steps = kept.last(STEPS)
    assert len(steps) == STEPS
    kept = History(cast(Any, Idle()), dict)
    kept.request_ended(request(first_token_at=0.5, generated_tokens=1))
    await kept._sample()
    await kept._sample()
    shown = columns_of(kept.last(2))
    assert shown["first_token_seconds"] == {"median": [0.5, None], "p95": [0.5, None]}
    assert shown["requests"] == [1, 0]
    assert shown["memory"] == {"host": {"predicted_mb": [0, 0], "measured_mb": [0, 0]}}
    assert columns_of([])["times"] == []


def test_the_95th_percentile() -> None:
    from myllm.gateway.activity.history import _percentiles

    assert _percentiles(range(1, 101)) == (50, 95)
    assert _percentiles([3.0]) == (3.0, 3.0)
