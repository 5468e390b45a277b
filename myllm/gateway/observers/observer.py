"""The events of tickets and engines, for logs, metrics, usage records and traces.

    ticket    queued ──> granted ──> first_token ──> finished
                │ ▲          │            │
                │ └──────────┴── resumed ─┘      its engine died: it queues for another one
                └──> rejected

    request   ... its tickets ... ──> request_ended

    engine    engine_started ──> engine_ready ──> evicted? ──> engine_exited

A request has one ticket or several: one for each choice (`n`) and each prompt of a completion, and
one for each batch of embeddings or of documents to rerank. All but the first of them have
`goes_on`. A ticket with `only_asks` is for a query to the engine, such as a count of tokens. So
`finished` counts requests if it skips the tickets that have either.

An operator's load has a ticket with `only_asks`, too, but no answer: it gets neither `first_token`
nor `finished`. Nothing is called per token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from myllm.errors import EngineDied, MyLLMError
from myllm.gateway.request_record import RequestRecord
from myllm.gateway.scheduling.tickets import Ticket
from myllm.loops import note_failure
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey


class Observer:
    """Receives events. A subclass overrides the methods that it needs; the others do nothing.

    Every method is called on the event loop, must return at once, and must change nothing that it
    is given. A ticket names the model and role (`key`), the client, and the times of its wait;
    an instance has the engine's spec, state and times.
    """

    def queued(self, ticket: Ticket) -> None:
        """`ticket` waits for its model to load or for a free slot. Called by `Gateway.lease`; not
        for a ticket that gets a slot at once, and again for one that comes back."""

    def granted(self, ticket: Ticket, instance: Instance) -> None:
        """`ticket` holds slot `ticket.slot` of `instance`. Called by the gateway for each lease, so
        again after `resumed`, and after a lease that was paused for an idle reader."""

    def first_token(self, ticket: Ticket) -> None:
        """An engine has given `ticket` its first output: a token, a vector, a score. Called by
        `Gateway.delivered`, once per ticket."""

    def finished(self, ticket: Ticket, error: BaseException | None) -> None:
        """The answer to `ticket` is over. Called where the answer's loop ends, once per ticket.
        `error` is None for a complete answer, the MyLLMError of a failed one (also of a rejected
        one), and GeneratorExit or CancelledError when its client left."""

    def rejected(self, ticket: Ticket, error: MyLLMError) -> None:
        """`ticket` gets no slot; `error` says why. Called by the gateway for the scheduler."""

    def resumed(self, ticket: Ticket, death: EngineDied) -> None:
        """The engine of `ticket` died: the answer goes on with another engine, unless
        `ticket.deaths` shows that this was one death too many. Called where the answer's loop
        counts the death."""

    def request_ended(self, record: RequestRecord) -> None:
        """An HTTP request is over, whatever it asked for: its answer is sent, or its client has
        left. Called once per request; `record` does not change any more."""

    def engine_started(self, instance: Instance) -> None:
        """A process is being started. Called by the supervisor, like the next two."""

    def engine_ready(self, instance: Instance) -> None:
        """The engine has loaded its model and takes requests."""

    def engine_exited(self, instance: Instance) -> None:
        """The process was reaped. `instance.error` is None if it was asked to stop."""

    def evicted(self, instance: Instance, beneficiary: InstanceKey) -> None:
        """`instance` takes no new requests and ends after its answers, so that `beneficiary` can be
        loaded. Called by the gateway for the scheduler; `engine_exited` follows."""


class Observers(Observer):
    """Passes each event on to several observers, in their order.

    One that raises harms neither the request nor the other observers: its failure is counted, and
    logged once.
    """

    def __init__(self, *observers: Observer) -> None:
        # By event, the methods that do something, since requests pay for each call.
        self._listening: dict[str, list[Callable[..., None]]] = {}
        for each in observers:
            self.attach(each)

    def attach(self, observer: Observer) -> None:
        """Pass every event from now on to `observer`, after those that were attached before."""
        for name in _EVENTS:
            if getattr(type(observer), name) is not getattr(Observer, name):
                self._listening.setdefault(name, []).append(getattr(observer, name))

    def queued(self, ticket: Ticket) -> None:
        self._notify("queued", ticket)

    def granted(self, ticket: Ticket, instance: Instance) -> None:
        self._notify("granted", ticket, instance)

    def first_token(self, ticket: Ticket) -> None:
        self._notify("first_token", ticket)

    def finished(self, ticket: Ticket, error: BaseException | None) -> None:
        self._notify("finished", ticket, error)

    def rejected(self, ticket: Ticket, error: MyLLMError) -> None:
        self._notify("rejected", ticket, error)

    def resumed(self, ticket: Ticket, death: EngineDied) -> None:
        self._notify("resumed", ticket, death)

    def request_ended(self, record: RequestRecord) -> None:
        self._notify("request_ended", record)

    def engine_started(self, instance: Instance) -> None:
        self._notify("engine_started", instance)

    def engine_ready(self, instance: Instance) -> None:
        self._notify("engine_ready", instance)

    def engine_exited(self, instance: Instance) -> None:
        self._notify("engine_exited", instance)

    def evicted(self, instance: Instance, beneficiary: InstanceKey) -> None:
        self._notify("evicted", instance, beneficiary)

    def _notify(self, event: str, *values: Any) -> None:
        for method in self._listening.get(event, ()):
            try:
                method(*values)
            except Exception as failure:  # noqa: BLE001 - observing must not break a request
                note_failure(f"observer {_name(method)}", failure)


_EVENTS: Final = tuple(name for name in vars(Observer) if not name.startswith("_"))


def _name(method: Callable[..., None]) -> str:
    return type(getattr(method, "__self__", None)).__name__
