"""Logs every request, and what happens to engines."""

from __future__ import annotations

import structlog

from myllm.errors import EngineDied
from myllm.gateway.observers.observer import Observer
from myllm.gateway.request_record import RequestRecord
from myllm.gateway.scheduling.tickets import Ticket
from myllm.supervisor.instance import Instance

_log = structlog.get_logger(__name__)


class EventLog(Observer):
    """The server's log as an observer."""

    def resumed(self, ticket: Ticket, death: EngineDied) -> None:
        _log.warning("engine died under a request", deaths=ticket.deaths, cause=death.detail)

    def request_ended(self, record: RequestRecord) -> None:
        # A monitor asks for the health every few seconds.
        log = _log.debug if record.path.startswith("/health") else _log.info
        log(
            "request",
            method=record.method,
            path=record.path,
            status=record.status,
            client=record.client_name,
            ms=round(1000 * record.seconds, 1),
        )

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
