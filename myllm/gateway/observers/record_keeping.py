"""Fills in the record of each request with what the gateway does for it."""

from __future__ import annotations

import time

from myllm.errors import EngineDied, MyLLMError
from myllm.gateway.observers.observer import Observer
from myllm.gateway.request_record import RequestRecord
from myllm.gateway.scheduling.tickets import Ticket
from myllm.gateway.usage import Usage
from myllm.supervisor.instance import Instance


class RecordKeeping(Observer):
    """Keeps the records of requests; the first observer, so that the others find them complete."""

    def queued(self, ticket: Ticket) -> None:
        if (record := ticket.request.record) is not None:
            record.model = record.model or ticket.key

    def granted(self, ticket: Ticket, instance: Instance) -> None:
        record = ticket.request.record
        if record is None or record.granted_at is not None:
            return
        now = time.monotonic()
        record.model = record.model or ticket.key
        record.granted_at = now
        record.queued_s = now - ticket.enqueued_at
        record.load_s = _load_s(record, instance)

    def first_token(self, ticket: Ticket) -> None:
        record = ticket.request.record
        if record is not None and record.first_token_at is None:
            record.first_token_at = time.monotonic()

    def finished(self, ticket: Ticket, error: BaseException | None) -> None:
        record = ticket.request.record
        if record is None:
            return
        record.model = record.model or ticket.key
        record.tickets += ticket.waits_since > 0 and not ticket.only_asks
        record.error = record.error or error
        if ticket.granted_at is not None:
            record.slot_s += time.monotonic() - ticket.granted_at
        if ticket.usage is not None:
            _add_answer(record, ticket, ticket.usage)

    def rejected(self, ticket: Ticket, error: MyLLMError) -> None:
        record = ticket.request.record
        if record is not None:
            record.model = record.model or ticket.key
            record.error = record.error or error

    def resumed(self, ticket: Ticket, death: EngineDied) -> None:
        record = ticket.request.record
        if record is not None:
            record.deaths += 1
            record.died_at = [*(record.died_at or ()), time.monotonic()]

    def request_ended(self, record: RequestRecord) -> None:
        if record.has_failed:
            record.prompt_tokens = record.cached_tokens = record.generated_tokens = 0
            record.finish_reason = None


def _add_answer(record: RequestRecord, ticket: Ticket, usage: Usage) -> None:
    if not ticket.shares_prompt:
        record.prompt_tokens += usage.prompt_tokens
        record.cached_tokens += usage.cached_tokens
    record.generated_tokens += usage.completion_tokens
    record.finish_reason = record.finish_reason or ticket.finish_reason
    if ticket.last_token_at is not None:
        # The observers hear of the first token a moment after its time was taken.
        earliest = record.last_token_at or record.first_token_at or 0.0
        record.last_token_at = max(earliest, ticket.last_token_at)
    if ticket.gaps is not None:
        record.gaps_s += ticket.gaps_s
        if record.gaps is None:
            record.gaps = ticket.gaps
        else:
            record.gaps = [one + other for one, other in zip(record.gaps, ticket.gaps, strict=True)]


def _load_s(record: RequestRecord, instance: Instance) -> float:
    """How much of the wait of `record` was the load of `instance`."""
    waits_since = time.time() - record.queued_s
    if instance.ready_at is None or instance.ready_at <= waits_since:
        return 0.0
    return instance.ready_at - max(instance.started_at, waits_since)
