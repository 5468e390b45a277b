"""How one finished request is counted, whatever became of it."""

from __future__ import annotations

from asyncio import CancelledError
from typing import Any

import pytest

from myllm.errors import EngineDied, ModelNotFound, MyLLMError, QueueFull
from myllm.gateway.metrics.request_counts import RequestCounts
from myllm.gateway.request_record import RequestRecord, no_gaps
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.supervisor.spec import InstanceKey

KEY = InstanceKey("demo", "generate")
DEATH = EngineDied("killed")


def record(**fields: Any) -> RequestRecord:
    """A chat that was answered, with `fields` of it changed."""
    whole = RequestRecord("id", "POST", "/api/chat", "native", "127.0.0.1", began_at=100.0)
    chat = {
        "handler": "/api/chat", "status": 200, "ended_at": 109.0, "model": KEY, "tickets": 1,
        "queued_s": 1.0, "granted_at": 101.0, "first_token_at": 103.0, "last_token_at": 108.0,
        "prompt_tokens": 30, "cached_tokens": 20, "generated_tokens": 7, "finish_reason": "length",
        "gaps": [4, 2, *no_gaps()[2:]], "gaps_s": 0.5,
    }  # fmt: skip
    for name, value in (chat | fields).items():
        setattr(whole, name, value)
    return whole


def counted(*records: RequestRecord) -> RequestCounts:
    counts = RequestCounts()
    for each in records:
        counts.request_ended(each)
    return counts


def test_an_answered_request() -> None:
    counts = counted(record(), record(finish_reason="stop"))
    demo = counts.models[KEY]
    assert demo.finished == {"length": 1, "stop": 1, "abort": 0}
    tokens = demo.prompt_tokens, demo.cached_tokens, demo.generated_tokens
    assert tokens == (60, 40, 14)
    seconds = {
        name: getattr(demo, name).sum
        for name in ("first_token", "e2e", "queue", "prefill", "decode", "gaps")
    }
    assert seconds == {
        "first_token": 6, "e2e": 18, "queue": 2, "prefill": 4, "decode": 10, "gaps": 1,
    }  # fmt: skip
    assert demo.gaps.counts[:3] == [8, 4, 0]
    assert (demo.prompt.sum, demo.generation.sum) == (60, 14)
    assert not counts.errors
    assert not counts.rejections


@pytest.mark.parametrize("left", [GeneratorExit(), CancelledError()])
@pytest.mark.parametrize("status", [200, 0])
def test_a_client_that_left_is_no_failure(left: BaseException, status: int) -> None:
    cut = record(error=left, status=status, finish_reason=None)
    counts = counted(cut)
    assert counts.models[KEY].finished["abort"] == 1
    assert counts.models[KEY].generated_tokens == 7
    assert not counts.errors


def test_a_client_that_left_the_queue_has_no_first_token() -> None:
    gone = {"granted_at": None, "first_token_at": None, "last_token_at": None, "gaps": None}
    counts = counted(record(error=CancelledError(), status=0, generated_tokens=0, **gone))
    demo = counts.models[KEY]
    assert demo.finished["abort"] == sum(demo.e2e.counts) == 1
    assert sum(demo.queue.counts) == sum(demo.first_token.counts) == sum(demo.gaps.counts) == 0


@pytest.mark.parametrize(
    ("error", "kind"), [(DEATH, "EngineDied"), (ValueError("a fault of ours"), "InternalError")]
)
def test_a_failure_is_counted_by_its_class_alone(error: Exception, kind: str) -> None:
    counts = counted(record(error=error))
    assert counts.errors == {(KEY, kind): 1}
    assert KEY not in counts.models
    assert not counts.rejections


def test_a_rejected_request_is_a_failure_without_a_slot() -> None:
    full = QueueFull("too many")
    counts = counted(
        record(error=full, status=429, granted_at=None),
        record(error=full, status=429, model=None, granted_at=None),  # over the limit of its key
        record(error=DEATH, status=500),
    )
    assert counts.rejections == {(KEY, "QueueFull"): 1, (None, "QueueFull"): 1}
    assert counts.errors == {**counts.rejections, (KEY, "EngineDied"): 1}


@pytest.mark.parametrize("error", [ModelNotFound("made up", []), None])
def test_a_name_that_does_not_exist_is_no_label(error: MyLLMError | None) -> None:
    secret = record(handler="", method="SECRET", path="/secret", status=404, model=None)
    secret.error = error
    secret.tickets = 0
    counts = counted(secret)
    assert counts.http == {("", "other", 404): 1}
    assert counts.errors == ({} if error is None else {(None, "ModelNotFound"): 1})
    assert not counts.models


def test_a_query_to_an_engine_is_no_request_of_its_model() -> None:
    counts = counted(record(tickets=0))
    assert not counts.models
    assert sum(counts.http.values()) == 1


def test_embeddings_have_no_times_of_tokens() -> None:
    key = InstanceKey("demo", "embed")
    text = {"finish_reason": None, "generated_tokens": 0, "gaps": None, "last_token_at": None}
    embed = counted(record(model=key, **text)).models[key]
    assert embed.finished["stop"] == 1
    assert sum(embed.e2e.counts) == sum(embed.queue.counts) == sum(embed.prompt.counts) == 1
    for each in (embed.first_token, embed.prefill, embed.decode, embed.generation):
        assert sum(each.counts) == 0


def test_resumes_count_but_not_the_death_that_ends_the_answer() -> None:
    counts, ticket = RequestCounts(), RequestInfo().ticket(KEY)
    for ticket.deaths in (1, 2, 3):
        counts.resumed(ticket, DEATH)
    assert counts.models[KEY].resumed == 2


def test_a_copy_stays_as_it_is() -> None:
    counts = counted(record(), record(error=DEATH), record(error=DEATH, granted_at=None))
    same = counts.copy()
    for each in (record(), record(error=DEATH), record(error=DEATH, granted_at=None)):
        counts.request_ended(each)
    assert (same.models[KEY].prompt_tokens, counts.models[KEY].prompt_tokens) == (30, 60)
    assert same.models[KEY].finished["length"] == sum(same.models[KEY].e2e.counts) == 1
    assert same.errors.total() == 2
    assert same.rejections.total() == 1
    assert same.http.total() == 3
    assert sum(same.http_seconds["/api/chat", "POST"].counts) == 3
