"""Who is turned away, and with which words; and who gives a slot up for a while."""

from __future__ import annotations

from operator import itemgetter

from myllm.errors import MyLLMError, QueueFull, Unavailable
from myllm.gateway.scheduling.model_state import Entry
from myllm.gateway.scheduling.tickets import Action, Pause, Reject, Ticket

# So long may a client take nothing of its answer while others wait for its slot.
UNREAD_S = 10.0


def leaving() -> Unavailable:
    """The server is shutting down."""
    return Unavailable("The server is shutting down", retry_after_s=5)


def backing_off(entry: Entry, now: float) -> Unavailable | None:
    """The model's engine keeps dying, so nobody may start another one for a while."""
    pause_s = entry.strikes.pause_s(now)
    if not pause_s or entry.run is not None:
        return None
    return Unavailable(
        f"The engine of model '{entry.key}' failed {entry.strikes.count} times; the next try is "
        f"in {pause_s} s. The last time: {entry.cause}",
        pause_s,
    )


def give_up(entry: Entry, error: MyLLMError) -> list[Action]:
    """Nobody who waits for this model will be served."""
    entry.stop_waiting()
    entry.wanted = False
    rejected: list[Action] = [Reject(ticket, error) for ticket in entry.queue]
    entry.queue.clear()
    return rejected


def shed(entry: Entry, newcomer: Ticket) -> list[Action]:
    """The queue is over its bound: the greediest client's last request goes, or the newcomer."""
    loser = entry.queue.newest_of_greediest(newcomer.client) or newcomer
    entry.queue.discard(loser)
    waiting = len(entry.queue)
    error = QueueFull(
        f"{waiting} requests are waiting for model '{entry.key}' already",
        entry.rate.retry_after_s(waiting),
        waiting + 1,
    )
    return [Reject(loser, error)]


def pause_unread(entry: Entry, now: float) -> list[Action]:
    """As many answers that nobody reads as there are others who need their slots, or their engine
    to end; those that have been left unread for longest first."""
    paused: list[Action] = []
    for run in entry.runs():
        unread = [
            (ticket.offered_at, ticket)
            for ticket in run.tickets()
            if ticket.offered_at is not None and now - ticket.offered_at >= UNREAD_S
        ]
        wanted = len(unread) if run.state == "draining" else len(entry.queue)
        for _, ticket in sorted(unread, key=itemgetter(0))[:wanted]:
            ticket.offered_at = None  # said once
            paused.append(Pause(ticket))
    return paused


def reject_late(entry: Entry, now: float, timeout_s: float) -> list[Action]:
    """Turn away who has waited for too long; the wait for a load has a bound of its own."""
    if entry.state == "loading":
        return []
    actions: list[Action] = []
    for ticket in entry.queue:
        if now - ticket.waits_since > timeout_s:
            what = "a free slot" if entry.plan is None else "memory to be free"
            error = Unavailable(
                f"Waited {timeout_s:g} s for {what} for model '{entry.key}' (MYLLM_QUEUE_TIMEOUT)",
                entry.rate.retry_after_s(len(entry.queue)),
                entry.position(ticket, now),
            )
            entry.queue.discard(ticket)
            actions.append(Reject(ticket, error))
    if not entry.is_asked_for():
        entry.stop_waiting()
    return actions
