"""Logs what happens to engines, and the requests that outlive one."""

from __future__ import annotations

import structlog

from myllm.errors import EngineDied
from myllm.gateway.observer import Observer
from myllm.gateway.scheduling.tickets import Ticket
from myllm.supervisor.instance import Instance

_log = structlog.get_logger(__name__)


class EventLog(Observer):
    """The server's log as an observer."""

    def resumed(self, ticket: Ticket, death: EngineDied) -> None:
        _log.warning("engine died under a request", deaths=ticket.deaths, cause=death.detail)

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
