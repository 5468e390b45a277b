"""Start a request over on a new engine when its engine dies, and end it after too many deaths."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from myllm.errors import EngineDied, ModelReplaced
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.scheduling.suspects import MAX_DEATHS
from myllm.gateway.scheduling.tickets import Ticket
from myllm.supervisor.instance import Instance

_T = TypeVar("_T")


async def with_retries(
    gateway: Gateway, ticket: Ticket, work: Callable[[Lease], Awaitable[_T]]
) -> _T:
    """Run `work` under a lease, and again on a new engine when its engine dies.

    Raises what a lease and `work` raise; EngineDied only after the third death.
    """
    with EndObserved(gateway, ticket):
        while True:
            try:
                async with gateway.lease(ticket) as lease:
                    result = await work(lease)
                    gateway.delivered(lease, ticket)
                    return result
            except EngineDied as death:
                record_death(gateway, ticket, death)


class EndObserved:
    """Tells the observers how `ticket` ended, when the context is left; before that, `count` notes
    in it what its answer has come to.

    A class, like every context that each request enters: one made of a generator takes five times
    as long.
    """

    def __init__(
        self, gateway: Gateway, ticket: Ticket, count: Callable[[], None] | None = None
    ) -> None:
        self._observers = gateway.observers
        self._ticket = ticket
        self._count = count

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._count is not None:
            self._count()
        self._observers.finished(self._ticket, error)


def record_death(gateway: Gateway, ticket: Ticket, death: EngineDied) -> None:
    """Count an engine's death under `ticket`, and tell the observers.

    Raises `death` if it is one too many, or the scheduler's verdict if there is one.
    """
    if ticket.verdict is not None:
        raise ticket.verdict from death
    ticket.deaths += 1
    gateway.observers.resumed(ticket, death)
    if ticket.deaths >= MAX_DEATHS:
        raise death


def require_same_model(digest: str | None, instance: Instance) -> None:
    """Raise ModelReplaced if `instance` does not run the model that began the answer.

    `digest` is that model's GGUF; None if the answer has not begun.
    """
    if digest not in (None, instance.spec.model.digest):
        raise ModelReplaced(instance.spec.key.model)
