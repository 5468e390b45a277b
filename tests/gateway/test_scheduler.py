"""The scheduler's decisions, without any process: events in, actions out."""

from __future__ import annotations

import pytest

from myllm.errors import Conflict, EngineError, InvalidRequest, Unavailable
from myllm.gateway.scheduler import Grant, Reject, Scheduler, Start, Stop, Ticket
from myllm.supervisor.spec import InstanceKey

KEY = InstanceKey("demo", "generate")
EMBED = InstanceKey("demo", "embed")


def ticket(session: str | None = None, at: float = 0.0, key: InstanceKey = KEY) -> Ticket:
    return Ticket(key, at, session)


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler(queue_timeout_s=10)


def ready(scheduler: Scheduler, slots: int = 2) -> None:
    """An engine that runs and is idle."""
    first = ticket()
    assert scheduler.request(first) == [Start(KEY)]
    scheduler.ready(KEY, slots)
    scheduler.release(first)


def test_the_first_request_starts_the_engine_and_is_granted_when_it_is_ready(
    scheduler: Scheduler,
) -> None:
    one, two = ticket(), ticket()
    assert scheduler.request(one) == [Start(KEY)]
    assert scheduler.request(two) == []  # shares the load
    assert scheduler.ready(KEY, 2) == [Grant(one), Grant(two)]
    assert {one.slot, two.slot} == {0, 1}


def test_a_slot_is_reserved_when_it_is_granted(scheduler: Scheduler) -> None:
    ready(scheduler, slots=1)
    one, two = ticket(), ticket()
    assert scheduler.request(one) == [Grant(one)]
    assert scheduler.request(two) == []
    assert scheduler.position(two) == 1
    assert scheduler.release(one) == [Grant(two)]


def test_who_leaves_the_queue_is_not_granted(scheduler: Scheduler) -> None:
    ready(scheduler, slots=1)
    one, gone, last = ticket(), ticket(), ticket()
    for each in (one, gone, last):
        scheduler.request(each)
    assert scheduler.release(gone) == []
    assert scheduler.release(one) == [Grant(last)]


def test_a_session_gets_the_slot_that_held_it(scheduler: Scheduler) -> None:
    ready(scheduler, slots=3)
    first, other = ticket("mine"), ticket("other")
    scheduler.request(first)
    scheduler.request(other)
    slot = first.slot
    scheduler.release(first)
    scheduler.release(other)
    again = ticket("mine")
    scheduler.request(again)
    assert again.slot == slot


def test_a_request_without_a_session_spares_the_slots_of_sessions(scheduler: Scheduler) -> None:
    ready(scheduler, slots=2)
    chat = ticket("mine")
    scheduler.request(chat)
    scheduler.release(chat)
    for _ in range(3):
        stateless = ticket()
        scheduler.request(stateless)
        assert stateless.slot != chat.slot
        scheduler.release(stateless)


def test_without_another_choice_the_least_recently_used_session_gives_way(
    scheduler: Scheduler,
) -> None:
    ready(scheduler, slots=2)
    old, new = ticket("old"), ticket("new")
    for each in (old, new):
        scheduler.request(each)
    scheduler.release(old)
    scheduler.release(new)
    third = ticket("third")
    scheduler.request(third)
    assert third.slot == old.slot


def test_who_waits_for_an_engine_that_cannot_start_is_told_why(scheduler: Scheduler) -> None:
    one = ticket()
    scheduler.request(one)
    cause = EngineError("no such file")
    assert scheduler.exited(KEY, cause) == [Reject(one, cause)]
    assert scheduler.request(ticket()) == [Start(KEY)]  # the next one tries again


def test_who_waits_when_a_serving_engine_dies_gets_a_new_one(scheduler: Scheduler) -> None:
    ready(scheduler, slots=1)
    active, waiting = ticket(), ticket()
    scheduler.request(active)
    scheduler.request(waiting)
    assert scheduler.exited(KEY, EngineError("killed")) == [Start(KEY)]
    scheduler.release(active)  # it held a slot of the dead one
    assert scheduler.ready(KEY, 1) == [Grant(waiting)]


def test_unload(scheduler: Scheduler) -> None:
    with pytest.raises(InvalidRequest, match="not loaded"):
        scheduler.unload("demo")
    ready(scheduler)
    assert scheduler.unload("demo") == [Stop(KEY)]
    assert scheduler.exited(KEY, None) == []
    assert not scheduler.is_loaded("demo")


def test_unload_spares_an_answering_engine_unless_forced_to_drain_it(scheduler: Scheduler) -> None:
    ready(scheduler)
    active = ticket()
    scheduler.request(active)
    with pytest.raises(Conflict, match="1 request"):
        scheduler.unload("demo")
    assert scheduler.unload("demo", force=True) == []
    late = ticket()
    assert scheduler.request(late) == []  # not on the one that leaves
    assert scheduler.release(active) == [Stop(KEY)]
    assert scheduler.exited(KEY, None) == [Start(KEY)]
    assert scheduler.ready(KEY, 1) == [Grant(late)]


def test_unload_ends_every_role_of_a_model(scheduler: Scheduler) -> None:
    ready(scheduler)
    embedding = ticket(key=EMBED)
    assert scheduler.request(embedding) == [Start(EMBED)]
    scheduler.ready(EMBED, 1)
    scheduler.release(embedding)
    assert scheduler.unload("demo") == [Stop(KEY), Stop(EMBED)]


def test_an_engine_told_to_leave_while_loading_serves_nobody(scheduler: Scheduler) -> None:
    one = ticket()
    scheduler.request(one)
    scheduler.release(one)  # the client went, the load goes on
    assert scheduler.unload("demo") == [Stop(KEY)]
    late = ticket()
    assert scheduler.request(late) == []
    assert scheduler.ready(KEY, 1) == []
    assert scheduler.exited(KEY, None) == [Start(KEY)]


def test_the_wait_for_a_slot_is_bounded(scheduler: Scheduler) -> None:
    ready(scheduler, slots=1)
    scheduler.request(ticket(at=0))
    early, late = ticket(at=0), ticket(at=5)
    scheduler.request(early)
    scheduler.request(late)
    [rejected] = scheduler.tick(now=11)
    assert isinstance(rejected, Reject)
    assert rejected.ticket is early
    assert isinstance(rejected.error, Unavailable)
    assert scheduler.queued(KEY) == 1


def test_a_leaving_server_lets_nobody_in(scheduler: Scheduler) -> None:
    ready(scheduler, slots=1)
    scheduler.request(ticket())
    waiting = ticket()
    scheduler.request(waiting)
    [rejected] = scheduler.leave()
    assert isinstance(rejected, Reject)
    assert rejected.ticket is waiting
    [refused] = scheduler.request(ticket())
    assert isinstance(refused, Reject)
    assert isinstance(refused.error, Unavailable)
    assert scheduler.totals() == (0, 1)
