"""One model's queue: bounded, fair between clients, with a measured drain rate.

Who goes next: a client that would not hold more than its fair share of the slots; then the highest
priority, which everybody has after half a minute of waiting so that nobody waits for ever; then the
client with the fewest requests being answered or before it; then the client whose last turn is
longest ago; then who came first. A client's own requests are ordered by all of their priority, but
among those of others it counts only as far as the client may go before them.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator

from myllm.gateway.scheduling.tickets import Client, Ticket

_PATIENCE_S = 30.0
_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 1, 300
# How much one request that ends moves the measured rate.
_WEIGHT = 0.2


class FairQueue:
    """Tickets that wait. `now` is a monotonic time in seconds."""

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []
        self._turns: dict[str, int] = {}
        self._turn = itertools.count(1)

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(list(self._tickets))

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._tickets

    def add(self, ticket: Ticket) -> None:
        self._tickets.append(ticket)

    def discard(self, ticket: Ticket) -> None:
        """Take `ticket` out, if it is in."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self._forget_clients()

    def clear(self) -> None:
        self._tickets.clear()
        self._forget_clients()

    def wait_anew(self, now: float) -> None:
        """What the tickets have waited until now does not count."""
        for ticket in self._tickets:
            ticket.waits_since = now

    def take_next(self, active: Iterable[Ticket], slots: int, now: float) -> Ticket:
        """Take out whose turn it is; `active` are the tickets being answered in `slots` slots."""
        ticket = self._order(active, slots, now)[0]
        self._turns[_fair_id(ticket)] = next(self._turn)
        self.discard(ticket)
        return ticket

    def position(self, ticket: Ticket, active: Iterable[Ticket], slots: int, now: float) -> int:
        """How many go before `ticket`, and itself: 1 is next; 0 when it does not wait."""
        order = self._order(active, slots, now)
        return order.index(ticket) + 1 if ticket in order else 0

    def newest_of_greediest(self, newcomer: Client) -> Ticket | None:
        """The last ticket of the client with the most waiting, if `newcomer` has clearly fewer;
        it gives way when the queue is full, so that one client alone cannot fill it. One whose
        answer was cut by a death stays, and so does what has been served in part."""
        newcomers = [t for t in self._tickets if not (t.deaths or t.goes_on)]
        waiting = Counter(map(_fair_id, newcomers))
        if not waiting:
            return None
        greediest, most = waiting.most_common(1)[0]
        if waiting[newcomer.fair_id] + 1 >= most:
            return None
        theirs = [ticket for ticket in reversed(newcomers) if _fair_id(ticket) == greediest]
        return max(theirs, key=lambda ticket: ticket.enqueued_at)

    def _order(self, active: Iterable[Ticket], slots: int, now: float) -> list[Ticket]:
        """Everybody in the order of their turns, as things stand."""
        if len(self._tickets) < 2:
            return list(self._tickets)
        highest = max(ticket.request.priority for ticket in self._tickets)
        highest_abroad = max(map(_priority_abroad, self._tickets))

        def rank(ticket: Ticket) -> tuple[int, int]:
            """Among the requests of others, and of the client itself."""
            if now - ticket.enqueued_at > _PATIENCE_S:
                return highest_abroad, highest
            return _priority_abroad(ticket), ticket.request.priority

        held = Counter(map(_fair_id, active))
        share = fair_share(slots, len(held.keys() | set(map(_fair_id, self._tickets))))
        nth: dict[Ticket, int] = {}
        for ticket in sorted(self._tickets, key=lambda t: (-rank(t)[1], t.enqueued_at)):
            nth[ticket] = held[_fair_id(ticket)]
            held[_fair_id(ticket)] += 1

        def turn(ticket: Ticket) -> tuple[bool, int, int, int, float]:
            last_turn = self._turns.get(_fair_id(ticket), 0)
            too_many = nth[ticket] + 1 > share
            return too_many, -rank(ticket)[0], nth[ticket], last_turn, ticket.enqueued_at

        return sorted(self._tickets, key=turn)

    def _forget_clients(self) -> None:
        """Remember turns only of those who wait, or the memory of them would grow for ever."""
        if not self._tickets:
            self._turns.clear()


def fair_share(slots: int, clients: int) -> float:
    """How many of a model's slots each of its clients may hold while others wait."""
    return max(1.0, slots / max(1, clients))


def _fair_id(ticket: Ticket) -> str:
    """Tickets that have the same one share a client's part of the slots."""
    return ticket.request.client.fair_id


def _priority_abroad(ticket: Ticket) -> int:
    """The priority of `ticket` among those of other clients."""
    return min(ticket.request.priority, ticket.request.client.max_priority)


class ServiceRate:
    """How many requests per second leave a queue, averaged over the last ones."""

    def __init__(self) -> None:
        self._interval_s: float | None = None
        self._last: float | None = None

    def queue_begins(self, now: float) -> None:
        """The queue is no longer empty; that nobody came before is not its pace."""
        self._last = now

    def request_ended(self, now: float, was_waited_for: bool) -> None:
        """A request has ended; the time between ends counts only while others waited."""
        if self._last is not None and was_waited_for:
            took = now - self._last
            before = took if self._interval_s is None else self._interval_s
            self._interval_s = before + _WEIGHT * (took - before)
        self._last = now

    def retry_after_s(self, waiting: int) -> int:
        """When a place will be free: whole seconds, 1 to 300."""
        if self._interval_s is None:
            return _SHORTEST_RETRY_S
        seconds = math.ceil(self._interval_s * max(1, waiting))
        return max(_SHORTEST_RETRY_S, min(_LONGEST_RETRY_S, seconds))
