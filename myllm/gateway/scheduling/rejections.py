"""Which requests are rejected, and with which error; and which give their slot up for a while."""

from __future__ import annotations

from operator import itemgetter

from myllm.errors import MyLLMError, QueueFull, Unavailable
from myllm.gateway.scheduling.model_state import ModelState
from myllm.gateway.scheduling.tickets import Action, Pause, Reject, Ticket

# How long a client may take nothing of its answer while others wait for its slot.
UNREAD_S = 10.0


def shutting_down() -> Unavailable:
    """The error for requests while the server is shutting down."""
    return Unavailable("The server is shutting down", retry_after_s=5)


def backing_off(model: ModelState, now: float) -> Unavailable | None:
    """The error while no engine of `model` is started, because its last ones crashed."""
    pause_s = model.backoff.pause_s(now)
    if not pause_s or model.run is not None:
        return None
    return Unavailable(
        f"The engine of model '{model.key}' failed {model.backoff.crashes} times; the next try is "
        f"in {pause_s} s. The last time: {model.backoff.last_error}",
        pause_s,
    )


def give_up(model: ModelState, error: MyLLMError) -> list[Action]:
    """Reject every request that waits for `model`, and do not load it."""
    model.pending = None
    model.wanted = False
    rejected: list[Action] = [Reject(ticket, error) for ticket in model.queue]
    model.queue.clear()
    return rejected


def shed(model: ModelState, newcomer: Ticket) -> list[Action]:
    """The queue is over its bound: reject the last request of the client with the most, or the
    newcomer."""
    loser = model.queue.newest_of_greediest(newcomer.request.client) or newcomer
    model.queue.discard(loser)
    waiting = len(model.queue)
    error = QueueFull(
        f"{waiting} requests are waiting for model '{model.key}' already",
        model.rate.retry_after_s(waiting),
        waiting + 1,
    )
    return [Reject(loser, error)]


def pause_unread(model: ModelState, now: float) -> list[Action]:
    """Pause as many unread answers as there are requests that wait for their slots, or all of them
    if their engine is to end; those that have been unread for longest go first."""
    paused: list[Action] = []
    for run in model.runs():
        unread = [
            (ticket.offered_at, ticket)
            for ticket in run.tickets()
            if ticket.offered_at is not None and now - ticket.offered_at >= UNREAD_S
        ]
        wanted = len(unread) if run.state == "draining" else len(model.queue)
        for _, ticket in sorted(unread, key=itemgetter(0))[:wanted]:
            ticket.offered_at = None  # pause it once only
            paused.append(Pause(ticket))
    return paused


def reject_late(model: ModelState, now: float, timeout_s: float) -> list[Action]:
    """Reject the requests that have waited for too long; a load has a bound of its own."""
    if model.status == "loading":
        return []
    actions: list[Action] = []
    for ticket in model.queue:
        if now - ticket.waits_since > timeout_s:
            what = "a free slot" if model.pending is None else "memory to be free"
            error = Unavailable(
                f"Waited {timeout_s:g} s for {what} for model '{model.key}' (MYLLM_QUEUE_TIMEOUT)",
                model.rate.retry_after_s(len(model.queue)),
                model.position(ticket, now),
            )
            model.queue.discard(ticket)
            actions.append(Reject(ticket, error))
    if not model.is_needed():
        model.pending = None
    return actions
