"""Logs every request, and what happens to engines."""

from __future__ import annotations

from typing import Any, Final

import structlog

from myllm.errors import EngineDied
from myllm.gateway.observers.observer import Observer
from myllm.gateway.observers.trace_ids import parent_of, trace_id_of
from myllm.gateway.request_record import RequestRecord
from myllm.gateway.scheduling.tickets import Ticket
from myllm.supervisor.instance import Instance

_log = structlog.get_logger(__name__)
MONITORED: Final = ("/health", "/metrics")
"""Paths that monitors ask for every few seconds."""


class EventLog(Observer):
    """The server's log as an observer.

    A request is one line, with what is known of it: never its body, and no key. With
    `shows_traces`, each names its trace; otherwise only those that belong to a client's.
    """

    def __init__(self, shows_traces: bool = False) -> None:
        self._shows_traces = shows_traces

    def resumed(self, ticket: Ticket, death: EngineDied) -> None:
        _log.warning("engine died under a request", deaths=ticket.deaths, cause=death.detail)

    def request_ended(self, record: RequestRecord) -> None:
        log = _log.debug if record.path.startswith(MONITORED) else _log.info
        known: dict[str, Any] = {
            "method": record.method,
            "path": record.path,
            "status": record.status,
            "client": record.client_name,
            "ms": _ms(record.seconds),
        }
        if record.model is not None:
            _add_answer(known, record)
        if record.error is not None:
            known["error"] = record.error_name
        if self._shows_traces or parent_of(record) is not None:
            known["trace_id"] = trace_id_of(record)
        log("request", **known)

    def engine_started(self, instance: Instance) -> None:
        spec = instance.spec
        _log.info(
            "engine starting", model=str(spec.key), context=spec.context_size, slots=spec.slots
        )

    def engine_ready(self, instance: Instance) -> None:
        seconds = round(instance.load_seconds, 3)
        _log.info("engine ready", model=str(instance.spec.key), seconds=seconds)

    def engine_exited(self, instance: Instance) -> None:
        model, error = str(instance.spec.key), instance.error
        if error is None:
            _log.info("engine stopped", model=model, reason=instance.stop_reason)
        else:
            reason = "failed to start" if instance.ready_at is None else "crashed"
            _log.error("engine stopped", model=model, reason=reason, cause=error.detail)


def _add_answer(known: dict[str, Any], record: RequestRecord) -> None:
    """Add what the gateway did for the request; what did not happen is left out."""
    known["model"] = str(record.model)
    if record.granted_at is not None:
        known["queued_ms"] = _ms(record.queued_s)
    if record.load_s:
        known["load_ms"] = _ms(record.load_s)
    if (first_token_s := record.first_token_s) is not None:
        known["first_token_ms"] = _ms(first_token_s)
    if record.prompt_tokens:
        known["prompt_tokens"] = record.prompt_tokens
    if record.cached_tokens:
        known["cached_tokens"] = record.cached_tokens
    if record.generated_tokens:
        known["generated_tokens"] = record.generated_tokens
    if (speed := record.tokens_per_s) is not None:
        known["tokens_per_s"] = round(speed, 1)
    if record.finish_reason is not None:
        known["finish"] = record.finish_reason
    if record.deaths:
        known["resumed"] = record.deaths
    if record.left_out:
        known["left_out"] = record.left_out


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 1)
