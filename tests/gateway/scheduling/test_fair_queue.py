"""The order of the queue alone, for every set of waiting requests that Hypothesis generates."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from myllm.gateway.client import Client
from myllm.gateway.scheduling.fair_queue import FairQueue, fair_share
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from tests.gateway.scheduling.world import client_of, key_of

KEY = key_of("demo")
CLIENTS = st.sampled_from("abc")
WAITING = st.lists(st.tuples(CLIENTS, st.integers(0, 10)), min_size=1, max_size=12)
SLOTS = st.integers(1, 6)


def tickets(waiting: list[tuple[str, int]], most: int) -> list[Ticket]:
    return [
        Ticket(KEY, at, RequestInfo(Client(fair_id=client, max_priority=most), priority))
        for at, (client, priority) in enumerate(waiting)
    ]


def queue_of(waiting: list[Ticket]) -> FairQueue:
    queue = FairQueue()
    for ticket in waiting:
        queue.add(ticket)
    return queue


def order(waiting: list[Ticket], slots: int) -> list[Ticket]:
    """The order in which they are served if no answer ends."""
    queue, taken = queue_of(waiting), list[Ticket]()
    while queue:
        taken.append(queue.take_next(taken, slots, now=20.0))
    return taken


@given(WAITING, SLOTS)
def test_a_key_gains_no_turn_by_calling_itself_urgent(
    waiting: list[tuple[str, int]], slots: int
) -> None:
    """At no time has it had more turns than it would have had without a priority."""
    calm = [(client, 0) for client, _ in waiting]
    urgent = [(client, priority if client == "a" else 0) for client, priority in waiting]
    before, now = (order(tickets(each, most=0), slots) for each in (calm, urgent))
    for turns in range(len(waiting)):
        had, has = (sum(client_of(t) == "a" for t in each[:turns]) for each in (before, now))
        assert has <= had


@given(WAITING, SLOTS, st.integers(-10, 10))
def test_a_clients_own_requests_are_served_by_priority(
    waiting: list[tuple[str, int]], slots: int, most: int
) -> None:
    served = order(tickets(waiting, most), slots)
    for client in "abc":
        own = [(-t.request.priority, t.enqueued_at) for t in served if client_of(t) == client]
        assert own == sorted(own)


@given(WAITING, st.lists(CLIENTS, max_size=6), SLOTS, st.integers(-10, 10))
def test_no_client_gets_more_than_a_fair_share_while_one_with_less_waits(
    waiting: list[tuple[str, int]], held: list[str], slots: int, most: int
) -> None:
    active = tickets([(client, 0) for client in held], most)
    share = fair_share(slots, len({*held, *(client for client, _ in waiting)}))
    next_one = queue_of(tickets(waiting, most)).take_next(active, slots, now=20.0)
    holds = Counter(held)
    if holds[client_of(next_one)] + 1 > share:
        assert all(holds[client] + 1 > share for client, _ in waiting)


@given(WAITING, SLOTS)
def test_positions_are_the_order_of_turns(waiting: list[tuple[str, int]], slots: int) -> None:
    all_of_them = tickets(waiting, most=10)
    queue = queue_of(all_of_them)
    positions = {t: queue.position(t, [], slots, now=20.0) for t in all_of_them}
    assert sorted(positions.values()) == list(range(1, len(all_of_them) + 1))
    first = min(positions, key=lambda ticket: positions[ticket])
    assert queue.take_next([], slots, now=20.0) is first
