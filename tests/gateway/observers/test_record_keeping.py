"""What the gateway tells of a request ends up in its record."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

from myllm.errors import EngineDied, InvalidRequest
from myllm.gateway.observers.record_keeping import RecordKeeping
from myllm.gateway.request_record import RequestRecord, begin, no_gaps
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.gateway.usage import Usage
from myllm.supervisor.spec import InstanceKey

KEY = InstanceKey("demo", "generate")


def record() -> RequestRecord:
    return RequestRecord("r1", "POST", "/api/chat", "native", "127.0.0.1")


def engine(started_s_ago: float, ready_s_ago: float) -> Any:
    now = time.time()
    return SimpleNamespace(started_at=now - started_s_ago, ready_at=now - ready_s_ago)


def ticket_of(kept: RequestRecord, waited_s: float) -> Ticket:
    since = time.monotonic() - waited_s
    return Ticket(KEY, since, RequestInfo(record=kept), waits_since=since)


def test_a_wait_is_split_into_queue_and_load() -> None:
    kept = record()
    RecordKeeping().granted(ticket_of(kept, 5.0), engine(started_s_ago=4.0, ready_s_ago=1.0))
    assert kept.model == KEY
    assert 4.9 < kept.queued_s < 6
    assert 2.9 < kept.load_s < 3.1


def test_an_engine_that_was_ready_before_costs_no_load() -> None:
    kept = record()
    RecordKeeping().granted(ticket_of(kept, 5.0), engine(started_s_ago=60, ready_s_ago=50))
    assert kept.load_s == 0


def test_of_several_tickets_the_first_waits_count_and_errors_last() -> None:
    keeping, kept, ready = RecordKeeping(), record(), engine(60, 50)
    first, second = ticket_of(kept, 1.0), ticket_of(kept, 9.0)
    for each in (first, second):
        keeping.granted(each, ready)
        each.granted_at = time.monotonic() - 2
        keeping.first_token(each)
    death = EngineDied("The engine has died")
    keeping.resumed(first, death)
    keeping.finished(first, None)
    keeping.finished(second, death)
    assert kept.queued_s < 2
    assert 3.9 < kept.slot_s < 5
    assert (kept.tickets, kept.deaths, kept.error) == (2, 1, death)


def test_a_prompt_counts_once_for_its_choices() -> None:
    keeping, kept = RecordKeeping(), record()
    for number, reason in enumerate(("stop", "length", "stop")):
        each = ticket_of(kept, 1.0)
        each.usage, each.finish_reason = Usage(10, 5 + number, 4), reason
        each.shares_prompt = number == 1
        each.gaps, each.gaps_s, each.last_token_at = no_gaps(), 0.5, 7.0 - number
        each.gaps[number] += 1
        keeping.finished(each, None)
    assert (kept.prompt_tokens, kept.cached_tokens, kept.generated_tokens) == (20, 8, 18)
    assert (kept.finish_reason, kept.gaps_s, kept.last_token_at) == ("stop", 1.5, 7.0)
    assert kept.gaps is not None
    assert kept.gaps[:4] == [1, 1, 1, 0]


def test_a_failed_request_has_no_tokens_and_one_whose_client_left_has() -> None:
    for error, tokens in [(EngineDied("gone"), 0), (asyncio.CancelledError(), 3), (None, 3)]:
        keeping, kept = RecordKeeping(), record()
        for end in (None, error):
            each = ticket_of(kept, 1.0)
            each.usage = Usage(2, 3, 1)
            each.shares_prompt = end is error
            keeping.finished(each, end)
        keeping.request_ended(kept)
        assert kept.generated_tokens == 2 * tokens
        assert kept.has_failed == (tokens == 0)


def test_a_query_counts_as_no_ticket() -> None:
    kept = record()
    asks = ticket_of(kept, 1.0)
    asks.only_asks = True
    RecordKeeping().finished(asks, None)
    assert (kept.tickets, kept.model) == (0, KEY)


def test_a_ticket_that_was_refused_before_the_queue_does_not_count() -> None:
    kept = record()
    refused = InvalidRequest("This request can take more tokens than its key may use")
    RecordKeeping().finished(RequestInfo(record=kept).ticket(KEY), refused)
    assert (kept.tickets, kept.model, kept.error) == (0, KEY, refused)


def test_what_the_server_does_by_itself_has_no_record() -> None:
    ticket = RequestInfo().ticket(KEY)
    assert ticket.request.record is None
    RecordKeeping().granted(ticket, engine(60, 50))
    RecordKeeping().finished(ticket, None)


def test_a_request_finds_its_own_record() -> None:
    import contextvars

    kept = record()

    def asks() -> RequestInfo:
        begin(kept)
        return RequestInfo()

    assert cast(RequestInfo, contextvars.Context().run(asks)).record is kept
    assert RequestInfo().record is None
