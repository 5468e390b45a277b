"""Fills in the record of each request with what the gateway does for it."""

from __future__ import annotations

import time

from myllm.errors import EngineDied, MyLLMError
from myllm.gateway.observers.observer import Observer
from myllm.gateway.request_record import RequestRecord
from myllm.gateway.scheduling.tickets import Ticket
from myllm.supervisor.instance import Instance


class RecordKeeping(Observer):
    """Keeps the records of requests; the first observer, so that the others find them complete."""

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
        record.tickets += 1
        record.error = record.error or error
        if ticket.granted_at is not None:
            record.slot_s += time.monotonic() - ticket.granted_at

    def rejected(self, ticket: Ticket, error: MyLLMError) -> None:
        record = ticket.request.record
        if record is not None:
            record.model = record.model or ticket.key
            record.error = record.error or error

    def resumed(self, ticket: Ticket, death: EngineDied) -> None:
        if ticket.request.record is not None:
            ticket.request.record.deaths += 1


def _load_s(record: RequestRecord, instance: Instance) -> float:
    """How much of the wait of `record` was the load of `instance`."""
    waits_since = time.time() - record.queued_s
    if instance.ready_at is None or instance.ready_at <= waits_since:
        return 0.0
    return instance.ready_at - max(instance.started_at, waits_since)
