"""One model's queue: fair between clients, with a measured service rate.

The next request is chosen by, in this order:
  1. whether its client would hold no more than its fair share of the slots
  2. its priority; after half a minute every request has the highest, so that none waits forever
  3. how few requests its client has that are being answered or come before it
  4. how long ago its client had its last turn
  5. when it arrived
Among the requests of one client the priority counts in full; towards those of other clients it is
capped at the client's `max_priority`.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from myllm.gateway.client import Client
from myllm.gateway.scheduling.tickets import Ticket

_PATIENCE_S = 30.0
_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 1, 300
# The order changes with time alone, too, because of priorities: the places that are shown may be so
# old.
_PLACES_S = 0.5
# The weight of one request that ends in the moving average of the rate.
_WEIGHT = 0.2


@dataclass(frozen=True)
class _Places:
    """The place of each ticket at the time `at`, while `active` tickets were answered in `slots`
    slots."""

    of: dict[Ticket, int]
    active: list[Ticket]
    slots: int
    at: float

    def hold(self, active: list[Ticket], slots: int, now: float) -> bool:
        is_recent = now - self.at < _PLACES_S
        return is_recent and slots == self.slots and active == self.active


class FairQueue:
    """The tickets that wait. `now` is a monotonic time in seconds."""

    def __init__(self) -> None:
        self._tickets: list[Ticket] = []
        self._turns: dict[str, int] = {}
        self._turn = itertools.count(1)
        self._places: _Places | None = None

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        return iter(list(self._tickets))

    def __contains__(self, ticket: Ticket) -> bool:
        return ticket in self._tickets

    def add(self, ticket: Ticket) -> None:
        self._tickets.append(ticket)
        self._places = None

    def discard(self, ticket: Ticket) -> None:
        """Remove `ticket`, if it is in the queue."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self._places = None
            self._forget_clients()

    def clear(self) -> None:
        self._tickets.clear()
        self._places = None
        self._forget_clients()

    def wait_anew(self, now: float) -> None:
        """The bound of every wait counts from now on."""
        for ticket in self._tickets:
            ticket.waits_since = now

    def take_next(self, active: Iterable[Ticket], slots: int, now: float) -> Ticket:
        """Remove the ticket whose turn it is; `active` tickets are answered in `slots` slots."""
        ticket = self._order(active, slots, now)[0]
        self._turns[_fair_id(ticket)] = next(self._turn)
        self.discard(ticket)
        return ticket

    def position(self, ticket: Ticket, active: Iterable[Ticket], slots: int, now: float) -> int:
        """The place of `ticket` in the queue: 1 is next, 0 means that it does not wait."""
        answered = list(active)
        if self._places is None or not self._places.hold(answered, slots, now):
            # For all tickets at once: many streams tell their clients at the same time.
            order = self._order(answered, slots, now)
            places = {each: place for place, each in enumerate(order, start=1)}
            self._places = _Places(places, answered, slots, now)
        return self._places.of.get(ticket, 0)

    def newest_of_greediest(self, newcomer: Client) -> Ticket | None:
        """The last ticket of the client with the most waiting, if the client `newcomer` has clearly
        fewer; it gives way when the queue is full, so that one client alone cannot fill it. A
        ticket whose engine died or that has been served in part never gives way."""
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
        """All tickets in the order of their turns, as things stand."""
        if len(self._tickets) < 2:
            return list(self._tickets)
        highest = max(ticket.request.priority for ticket in self._tickets)
        highest_capped = max(map(_capped_priority, self._tickets))

        held = Counter(map(_fair_id, active))
        share = fair_share(slots, len(held.keys() | set(map(_fair_id, self._tickets))))
        nth: dict[Ticket, int] = {}

        def own_turn(ticket: Ticket) -> tuple[int, float]:
            """By the priority among the client's own requests."""
            is_patient = now - ticket.enqueued_at <= _PATIENCE_S
            return -ticket.request.priority if is_patient else -highest, ticket.enqueued_at

        for ticket in sorted(self._tickets, key=own_turn):
            fair_id = _fair_id(ticket)
            nth[ticket] = held[fair_id]
            held[fair_id] += 1

        def turn(ticket: Ticket) -> tuple[bool, int, int, int, float]:
            """By the priority towards other clients."""
            is_patient = now - ticket.enqueued_at <= _PATIENCE_S
            priority = _capped_priority(ticket) if is_patient else highest_capped
            before = nth[ticket]
            last_turn = self._turns.get(_fair_id(ticket), 0)
            return before + 1 > share, -priority, before, last_turn, ticket.enqueued_at

        return sorted(self._tickets, key=turn)

    def _forget_clients(self) -> None:
        """Forget the turns when the queue is empty, or they would pile up forever."""
        if not self._tickets:
            self._turns.clear()


def fair_share(slots: int, clients: int) -> float:
    """How many of a model's slots each of its clients may hold while others wait."""
    return max(1.0, slots / max(1, clients))


def _fair_id(ticket: Ticket) -> str:
    """Tickets that have the same one share a client's part of the slots."""
    return ticket.request.client.fair_id


def _capped_priority(ticket: Ticket) -> int:
    """The priority of `ticket` towards other clients."""
    return min(ticket.request.priority, ticket.request.client.max_priority)


class ServiceRate:
    """How often a request ends while others wait, averaged over the last ones."""

    def __init__(self) -> None:
        self._interval_s: float | None = None
        self._last: float | None = None

    def queue_begins(self, now: float) -> None:
        """The queue is no longer empty; the time in which no request waited does not count."""
        self._last = now

    def request_ended(self, now: float, was_waited_for: bool) -> None:
        """A request has ended; the time since the last one counts only if others waited."""
        if self._last is not None and was_waited_for:
            took = now - self._last
            before = took if self._interval_s is None else self._interval_s
            self._interval_s = before + _WEIGHT * (took - before)
        self._last = now

    def retry_after_s(self, waiting: int) -> int:
        """When the queue will have a free place: whole seconds, 1 to 300."""
        if self._interval_s is None:
            return _SHORTEST_RETRY_S
        seconds = math.ceil(self._interval_s * max(1, waiting))
        return max(_SHORTEST_RETRY_S, min(_LONGEST_RETRY_S, seconds))
