"""The scheduler's decisions, without any process: events in, actions out."""

from __future__ import annotations

import signal

import pytest

from myllm.errors import (
    Conflict,
    EngineDied,
    InvalidModel,
    InvalidRequest,
    ModelRemoved,
    NoRoom,
    QueueFull,
    Unavailable,
)
from myllm.gateway.scheduling.crash_backoff import FIRST_PAUSE_S, MOST_CRASHES
from myllm.gateway.scheduling.rejections import UNREAD_S
from myllm.gateway.scheduling.tickets import Ticket
from myllm.sessions.session import SessionRef
from tests.gateway.scheduling.world import (
    BUDGET_MB,
    DRAIN_GRACE_S,
    QUEUE_TIMEOUT_S,
    Kind,
    World,
    client_of,
    key_of,
)

ONE_SLOT = Kind(100, slots=1)


def world(**kinds: Kind) -> World:
    return World(kinds or {"demo": ONE_SLOT})


def test_requests_for_a_loading_model_share_its_load() -> None:
    w = world(demo=Kind(100, slots=2))
    one, two = w.ask("demo"), w.ask("demo")
    w.settle()
    assert w.active == [one, two]
    assert {one.slot, two.slot} == {0, 1}
    assert len(w.serving) == 1


def test_a_load_goes_on_without_the_request_that_caused_it() -> None:
    w = world()
    first = w.ask("demo")
    w.plan()
    w.finish(first)
    w.settle()
    assert len(w.serving) == 1


def test_a_slot_is_reserved_when_it_is_granted() -> None:
    w = world()
    one, two = w.ask("demo"), w.ask("demo")
    w.settle()
    assert w.active == [one]
    assert w.scheduler.position(two, w.now) == 1
    w.finish(one)
    assert w.active == [two]


def test_a_request_that_left_the_queue_is_not_granted() -> None:
    w = world()
    one, gone, last = (w.ask("demo") for _ in range(3))
    w.settle()
    w.finish(gone)
    w.finish(one)
    assert w.active == [last]


def test_a_session_gets_the_slot_that_held_it() -> None:
    w = world(demo=Kind(100, slots=3))
    first, other = (
        w.ask("demo", session=SessionRef("", "mine")),
        w.ask("demo", session=SessionRef("", "other")),
    )
    w.settle()
    slot = first.slot
    w.finish(first)
    w.finish(other)
    assert w.ask("demo", session=SessionRef("", "mine")).slot == slot


def test_a_request_without_a_session_avoids_the_slots_of_sessions() -> None:
    w = world(demo=Kind(100, slots=2))
    chat = w.ask("demo", session=SessionRef("", "mine"))
    w.settle()
    w.finish(chat)
    for _ in range(3):
        stateless = w.ask("demo")
        assert stateless.slot != chat.slot
        w.finish(stateless)


def test_the_least_recently_used_session_gives_way_if_all_slots_hold_one() -> None:
    w = world(demo=Kind(100, slots=2))
    old, new = (
        w.ask("demo", session=SessionRef("", "old")),
        w.ask("demo", session=SessionRef("", "new")),
    )
    w.settle()
    w.finish(old)
    w.finish(new)
    assert w.ask("demo", session=SessionRef("", "third")).slot == old.slot


def test_own_and_empty_slots_come_before_another_owners() -> None:
    w = world(demo=Kind(100, slots=3))
    first, second = w.ask("demo", owner="ann"), w.ask("demo", owner="bob")
    w.settle()
    w.finish(first)
    w.finish(second)
    empty = w.ask("demo", owner="bob")
    assert empty.slot not in (first.slot, second.slot)
    own = w.ask("demo", owner="bob")
    assert own.slot == second.slot
    assert w.ask("demo", owner="bob").slot == first.slot


def test_another_owners_equal_prompt_does_not_attract_a_request() -> None:
    """It would be erased before the request starts."""
    w = world(demo=Kind(100, slots=3))
    alike = {"pieces": ("a:100",)}
    ann, bob = w.ask("demo", owner="ann", **alike), w.ask("demo", owner="bob")
    w.settle()
    w.finish(ann)
    w.finish(bob)
    assert w.ask("demo", owner="bob", **alike).slot != ann.slot


def test_of_own_sessions_and_other_owners_slots_the_least_recently_used_gives_way() -> None:
    w = world(demo=Kind(100, slots=2))
    others, own = (
        w.ask("demo", owner="ann"),
        w.ask("demo", owner="bob", session=SessionRef("bob", "1")),
    )
    w.settle()
    w.finish(others)
    w.finish(own)
    third = w.ask("demo", owner="bob", session=SessionRef("bob", "2"))
    assert third.slot == others.slot
    w.finish(third)
    assert w.ask("demo", owner="bob", session=SessionRef("bob", "3")).slot == own.slot


def test_a_client_with_many_requests_does_not_delay_another_clients_first() -> None:
    w = world()
    crowd = [w.ask("demo", client="crowd") for _ in range(100)]
    w.settle()
    single = w.ask("demo", client="single")
    assert w.scheduler.position(single, w.now) == 1
    w.finish(crowd[0])
    assert w.active == [single]


def test_clients_take_turns() -> None:
    w = world()
    for client in "aab":
        for _ in range(3):
            w.ask("demo", client=client)
    w.settle()
    order = []
    while w.active:
        order.append(client_of(w.active[0]))
        w.finish(w.active[0])
    assert order[:6] in (list("ababab"), list("abbaba"))


def test_priority_goes_first_but_not_for_ever() -> None:
    w = world()
    running = w.ask("demo")
    w.settle()
    low = w.ask("demo", priority=-1)
    w.tick(5)
    high = w.ask("demo", priority=1)
    assert w.scheduler.position(high, w.now) == 1
    w.tick(30)
    assert w.scheduler.position(low, w.now) == 1
    w.finish(running)
    assert w.active == [low]


def test_priority_towards_other_clients_is_capped() -> None:
    w = world()
    w.ask("demo", client="c")
    w.settle()
    single = w.ask("demo", client="single")
    flood = [w.ask("demo", client="flood", priority=10, max_priority=0) for _ in range(5)]
    urgent = w.ask("demo", client="trusted", priority=10, max_priority=5)
    batch = w.ask("demo", client="batch", priority=-10, max_priority=0)
    assert w.scheduler.position(urgent, w.now) == 1
    w.finish(urgent)
    assert w.scheduler.position(single, w.now) == 1
    assert w.scheduler.position(flood[0], w.now) == 2
    assert w.scheduler.position(batch, w.now) == 3, "the others would be more than a share"


def test_the_most_urgent_gets_no_more_than_its_share_while_others_wait() -> None:
    w = world(demo=Kind(100, slots=4))
    running = [w.ask("demo", client="a") for _ in range(3)] + [w.ask("demo", client="b")]
    w.settle()
    urgent = w.ask("demo", client="a", priority=10)
    other = w.ask("demo", client="b")
    w.finish(running[0])
    assert other in w.active, "two each"
    w.finish(running[1])
    assert urgent in w.active, "no other request waits any more"


def test_an_unread_answer_gives_its_slot_to_a_waiting_request() -> None:
    w = world(demo=Kind(100, slots=2))
    unread, read = w.ask("demo", client="a"), w.ask("demo", client="a")
    w.settle()
    w.stops_reading(unread)
    w.tick(60)
    assert unread in w.active, "no request waits"
    waiting, later = w.ask("demo", client="b"), w.ask("demo", client="b")
    w.tick(1)
    assert w.active == [read, waiting]
    assert w.paused == [unread]
    w.reads_again(unread)
    assert w.waiting == [later, unread]
    w.finish(read)
    w.finish(waiting)
    assert w.active == [unread, later] or w.active == [later, unread]


def test_answers_are_paused_after_some_seconds_and_one_per_waiting_request() -> None:
    w = world(demo=Kind(100, slots=3))
    unread = [w.ask("demo", client="a") for _ in range(3)]
    w.settle()
    for ticket in reversed(unread):
        w.stops_reading(ticket)
        w.tick(1)
    w.ask("demo", client="b")
    w.tick(UNREAD_S - 4)
    assert w.paused == []
    w.tick(2)
    assert w.paused == [unread[2]]
    w.tick(60)
    assert w.paused == [unread[2]]


def test_a_draining_engine_does_not_wait_for_a_client_that_does_not_read() -> None:
    w = world(demo=Kind(600), other=Kind(600))
    unread = w.ask("demo")
    w.settle()
    w.stops_reading(unread)
    other = w.ask("other")
    for _ in range(20):
        w.tick(1)
        w.settle()
    assert w.paused == [unread]
    assert w.active == [other]


def test_the_queue_is_bounded_and_the_greediest_client_gives_way() -> None:
    w = World({"demo": ONE_SLOT}, queue_size=3)
    w.ask("demo", client="crowd")
    w.settle()
    crowd = [w.ask("demo", client="crowd") for _ in range(3)]
    assert w.waiting == crowd
    more = w.ask("demo", client="crowd")
    error = w.rejected[more]
    assert isinstance(error, QueueFull)
    assert (error.retry_after_s, error.queue_position) == (1, 4)
    w.ask("demo", client="single")
    assert list(w.rejected) == [more, crowd[2]]


def test_an_answer_that_was_cut_off_never_gives_way() -> None:
    w = World({"demo": ONE_SLOT}, queue_size=1)
    cut = w.ask("demo", client="crowd")
    w.settle()
    cut.deaths = 1
    w.die(next(iter(w.serving)), delivered=True)
    waiting = w.ask("demo", client="crowd")
    w.ask("demo", client="single")
    assert cut in w.waiting
    assert waiting in w.rejected


def test_a_load_of_a_loaded_model_waits_for_nothing() -> None:
    w = World({"demo": Kind(100, slots=1, keep_alive_s=10)})
    w.ask("demo")
    w.settle()
    key = key_of("demo")
    assert w.scheduler.commands.keep_loaded(key, 100.0, w.now)
    w.finish(w.active[0])
    w.tick(50)
    w.settle()
    assert w.run_of("demo") is not None
    w.tick(100)
    w.settle()
    assert w.run_of("demo") is None
    assert not w.scheduler.commands.keep_loaded(key, None, w.now)


def test_retry_after_follows_the_measured_drain_rate() -> None:
    w = World({"demo": ONE_SLOT}, queue_size=5)
    w.ask("demo")
    w.settle()
    for _ in range(5):
        w.ask("demo")
    for _ in range(3):
        w.tick(4)
        w.finish(w.active[0])
        w.ask("demo")
    error = w.rejected[w.ask("demo")]
    assert isinstance(error, QueueFull)
    assert error.retry_after_s == 20  # five wait, four seconds each


def test_a_quiet_hour_does_not_slow_the_measured_rate() -> None:
    w = World({"demo": ONE_SLOT}, queue_size=5)
    w.ask("demo")
    w.settle()
    for _ in range(3):
        w.finish(w.active[0])
        w.tick(3600)
        w.ask("demo")
        w.settle()
        w.ask("demo")
        w.tick(2)
        w.finish(w.active[0])
    while len(w.waiting) < 5:
        w.ask("demo")
    error = w.rejected[w.ask("demo")]
    assert isinstance(error, QueueFull)
    assert error.retry_after_s == 10  # five wait, two seconds each


def test_the_wait_is_bounded() -> None:
    w = world()
    w.ask("demo")
    w.settle()
    early = w.ask("demo")
    w.tick(10)
    late = w.ask("demo")
    w.tick(QUEUE_TIMEOUT_S - 5)
    assert isinstance(w.rejected[early], Unavailable)
    assert w.waiting == [late]


def test_the_time_of_a_load_does_not_count_as_waiting() -> None:
    w = world()
    one, two = w.ask("demo"), w.ask("demo")
    w.plan()
    w.tick(2 * QUEUE_TIMEOUT_S)
    w.load(next(iter(w.loading)))
    w.tick(QUEUE_TIMEOUT_S - 1)
    assert (w.active, w.waiting, w.rejected) == ([one], [two], {})
    w.tick(2)
    assert list(w.rejected) == [two]


def test_the_wait_starts_anew_when_the_engine_of_a_long_answer_dies() -> None:
    w = world()
    ticket = w.ask("demo")
    w.settle()
    w.tick(QUEUE_TIMEOUT_S * 2)
    w.die(next(iter(w.serving)), delivered=True)
    w.tick(1)
    assert w.waiting == [ticket]


# Memory


def test_models_that_fit_together_load_side_by_side() -> None:
    w = world(a=Kind(500), b=Kind(500))
    w.ask("a")
    w.ask("b")
    while w.plans:
        w.plan()
    assert len(w.loading) == 2


def test_the_least_recently_used_idle_model_is_evicted_and_no_more_than_needed() -> None:
    w = world(a=Kind(300), b=Kind(300), c=Kind(300), d=Kind(350))
    for model in "abc":
        ticket = w.ask(model)
        w.settle()
        w.tick(1)
        w.finish(ticket)
    new = w.ask("d")
    w.settle()
    assert w.evicted == ["a"]
    assert new in w.active


def test_a_stop_says_why() -> None:
    w = world(a=Kind(600), b=Kind(600, keep_alive_s=1), c=Kind(100), d=Kind(100))
    w.finish(w.ask("a"))
    for model in "abcd":
        ticket = w.ask(model)
        w.settle()
        w.finish(ticket)
    w.tick(2)
    w.unload("c")
    w.do(w.scheduler.commands.reload("d"))
    w.settle()
    assert w.stop_reasons == ["evicted for b", "idle", "unloaded", "reloaded"]


def test_models_that_are_busy_queued_for_or_pinned_are_not_evicted() -> None:
    w = world(busy=Kind(300, slots=1), pinned=Kind(300, pinned=True), new=Kind(600))
    busy, pinned = w.ask("busy"), w.ask("pinned")
    w.settle()
    w.finish(pinned)
    new = w.ask("new")
    w.settle()
    assert (w.evicted, w.waiting) == ([], [new])
    w.finish(busy)
    w.settle()
    assert w.evicted == ["busy"]
    assert w.active == [new]


def test_a_model_in_constant_use_yields_after_its_turn() -> None:
    w = world(a=Kind(800, slots=1), b=Kind(800, slots=1))
    for _ in range(50):
        w.ask("a")
    w.settle()
    patient = w.ask("b")
    for _ in range(20):
        w.settle()
        if w.active == [patient]:
            break
        w.finish(w.active[0])
        w.tick(1)
    assert w.active == [patient]
    assert len(w.done) < 10
    w.finish(patient)
    for _ in range(10):
        w.settle()
        w.tick(1)
    assert w.active[0].key == key_of("a")


def test_a_model_that_can_never_fit_is_refused_with_the_figures() -> None:
    w = world(huge=Kind(BUDGET_MB + 200))
    ticket = w.ask("huge")
    w.settle()
    error = w.rejected[ticket]
    assert isinstance(error, NoRoom)
    assert "needs 1200 MB" in error.detail
    assert "budget is 1000 MB" in error.detail


def test_a_model_waits_only_shortly_for_memory_of_other_programs() -> None:
    w = world(a=Kind(600))
    w.others_mb = 500
    ticket = w.ask("a")
    w.settle()
    assert w.waiting == [ticket]
    w.others_mb = 0
    w.tick(1)
    w.settle()
    assert w.active == [ticket]
    w.finish(ticket)
    w.unload("a")
    w.settle()
    w.others_mb = 500
    second = w.ask("a")
    w.settle()
    w.tick(6)
    w.settle()
    assert "at most 500 MB can be had" in w.rejected[second].detail


def test_a_load_waits_until_freed_memory_is_really_free() -> None:
    w = world(a=Kind(800), b=Kind(800))
    ticket = w.ask("a")
    w.settle()
    w.finish(ticket)
    w.others_mb = 100  # memory that the system has not taken back yet
    new = w.ask("b")
    w.plan()
    w.stop(next(iter(w.stopping)))
    w.others_mb = 900
    w.plan()
    assert (w.loading, w.waiting) == ({}, [new])
    w.others_mb = 0
    w.tick(0.5)
    w.settle()
    assert w.active == [new]


def test_freed_memory_gets_its_time_to_show_however_long_the_wait_was() -> None:
    w = world(a=Kind(800, slots=1), b=Kind(800))
    busy = w.ask("a")
    w.settle()
    new = w.ask("b")
    for _ in range(10):
        w.settle()
        w.tick(1)
    w.finish(busy)
    w.stop(next(iter(w.stopping)))
    w.others_mb = 900  # the system has not taken it back yet
    w.plan()
    assert w.waiting == [new]
    w.others_mb = 0
    w.tick(1)
    w.settle()
    assert w.active == [new]


def test_a_model_waits_for_memory_that_is_kept_for_an_earlier_one() -> None:
    w = world(pinned=Kind(100, pinned=True), a=Kind(700, slots=1), b=Kind(700), c=Kind(300))
    w.ask("pinned")
    w.settle()
    busy = w.ask("a")
    w.settle()
    before = w.ask("b")
    w.settle()
    w.tick(1)
    after = w.ask("c")
    for _ in range(20):
        w.settle()
        w.tick(1)
    assert w.waiting == [before, after]
    w.finish(busy)
    w.settle()
    assert before in w.active
    w.finish(before)
    for _ in range(10):
        w.settle()
        w.tick(1)
    assert after in w.active


def idle_and_new() -> tuple[World, Ticket]:
    """A model that is loaded and idle, and one that is about to load beside it."""
    w = world(idle=Kind(100), new=Kind(400))
    ticket = w.ask("idle")
    w.settle()
    w.finish(ticket)
    new = w.ask("new")
    w.plan()
    return w, new


def test_a_load_that_lacks_memory_evicts_and_retries_once() -> None:
    w, new = idle_and_new()
    w.fail(next(iter(w.loading)), crashed=False, no_memory=True)
    assert w.evicted == ["idle"]
    [wish] = w.plans
    assert wish.smaller
    w.plan()
    assert not w.loading, "the idle engine has not ended yet"
    w.stop(next(iter(w.stopping)))
    w.plan()
    w.fail(next(iter(w.loading)), crashed=False, no_memory=True)
    assert new in w.rejected


def test_a_load_that_is_killed_for_memory_evicts_first_and_then_shrinks() -> None:
    w, new = idle_and_new()
    w.fail(next(iter(w.loading)), crashed=True, no_memory=True)
    assert w.evicted == ["idle"]
    assert [wish.smaller for wish in w.plans] == [False]
    w.stop(next(iter(w.stopping)))
    w.plan()
    w.fail(next(iter(w.loading)), crashed=True, no_memory=True)
    assert [wish.smaller for wish in w.plans] == [True]
    w.settle()
    assert w.active == [new]


# Time


def test_idle_models_are_unloaded_after_their_keep_alive() -> None:
    w = world(
        short=Kind(100, keep_alive_s=10),
        ever=Kind(100, keep_alive_s=-1),
        pinned=Kind(100, keep_alive_s=10, pinned=True),
        never=Kind(100, keep_alive_s=0),
    )
    for model in w.kinds:
        ticket = w.ask(model)
        w.settle()
        w.finish(ticket)
    w.tick(9)
    assert w.evicted == ["never"]
    w.tick(2)
    w.tick(10_000)
    assert w.evicted == ["never", "short"]


def test_the_last_request_decides_how_long_the_model_stays() -> None:
    w = world(demo=Kind(100, keep_alive_s=10))
    ticket = w.ask("demo", keep_alive_s=100.0)
    w.settle()
    w.finish(ticket)
    w.tick(50)
    assert w.evicted == []
    w.finish(w.ask("demo", keep_alive_s=0.0))
    assert w.evicted == ["demo"]


# Death


def test_a_request_is_rejected_with_the_reason_why_its_engine_cannot_start() -> None:
    w = world()
    one = w.ask("demo")
    w.plan()
    w.fail(next(iter(w.loading)), crashed=False)
    assert w.rejected[one].detail == "it cannot start"
    again = w.ask("demo")
    w.settle()
    assert w.active == [again]


def test_requests_keep_their_place_and_get_a_new_engine_when_theirs_dies() -> None:
    w = world()
    active = w.ask("demo")
    w.tick(1)
    waiting = w.ask("demo")
    w.settle()
    w.die(next(iter(w.serving)), delivered=True)
    w.settle()
    assert w.active == [active]
    w.finish(active)
    assert w.active == [waiting]


def test_an_engine_killed_while_it_loads_is_started_again() -> None:
    w = world()
    ticket = w.ask("demo")
    w.plan()
    w.fail(next(iter(w.loading)), crashed=True)
    w.settle()
    assert w.active == [ticket]


def test_the_wait_for_an_engine_that_is_always_killed_ends() -> None:
    w = world()
    ticket = w.ask("demo")
    for _ in range(MOST_CRASHES):
        assert w.waiting == [ticket]
        w.plan()
        w.fail(next(iter(w.loading)), crashed=True)
    assert isinstance(w.rejected[ticket], Unavailable)
    assert not w.plans


def test_two_deaths_by_the_same_signal_while_loading_end_the_wait() -> None:
    w = world()
    ticket = w.ask("demo")
    for _ in range(2):
        assert w.waiting == [ticket]
        w.plan()
        w.fail(next(iter(w.loading)), crashed=True, loading_signal=signal.SIGILL)
    assert isinstance(w.rejected[ticket], Unavailable)
    assert "failed 2 times" in w.rejected[ticket].detail
    assert not w.plans


def test_two_deaths_by_different_signals_or_for_lack_of_memory_do_not_end_the_wait() -> None:
    w = world()
    ticket = w.ask("demo")
    for number, no_memory in ((4, False), (6, False), (9, True), (9, True)):
        w.plan()
        w.fail(next(iter(w.loading)), True, no_memory=no_memory, loading_signal=number)
    w.settle()
    assert w.active == [ticket]


def test_repeated_crashes_back_off_one_model_and_not_the_others() -> None:
    w = world(bad=ONE_SLOT, good=ONE_SLOT)
    for _ in range(MOST_CRASHES):
        w.ask("bad")
        w.plan()
        w.fail(next(iter(w.loading)), crashed=False)
    refused = w.rejected[w.ask("bad")]
    assert isinstance(refused, Unavailable)
    assert refused.retry_after_s == FIRST_PAUSE_S
    assert "it cannot start" in refused.detail
    good = w.ask("good")
    w.settle()
    assert w.active == [good]
    w.tick(FIRST_PAUSE_S)
    patient = w.ask("bad")
    w.settle()
    assert patient in w.active


def test_crashes_of_an_engine_that_has_delivered_do_not_count() -> None:
    w = world()
    ticket = w.ask("demo")
    for _ in range(3 * MOST_CRASHES):
        w.settle()
        w.deliver(ticket)
        w.die(next(iter(w.serving)), delivered=True, from_outside=True)
    w.settle()
    assert len(w.active) == 1


# Commands


def test_unload() -> None:
    w = world()
    with pytest.raises(InvalidRequest, match="not loaded"):
        w.unload("demo")
    ticket = w.ask("demo")
    w.settle()
    with pytest.raises(Conflict, match="1 request"):
        w.unload("demo")
    w.finish(ticket)
    w.unload("demo")
    w.settle()
    assert not w.scheduler.is_loaded("demo")


def test_a_forced_unload_gives_running_answers_a_grace() -> None:
    w = world()
    ticket = w.ask("demo")
    w.settle()
    w.unload("demo", force=True)
    w.tick(1)
    assert w.evicted == []
    late = w.ask("demo")
    w.tick(10)
    assert w.evicted == ["demo"]
    w.settle()
    assert ticket in w.done
    assert w.active == [late]


def test_a_model_that_cannot_fit_evicts_no_other() -> None:
    """Neither if it exceeds the budget nor if pinned engines hold what it needs."""
    kinds = {"idle": Kind(300), "pinned": Kind(500, pinned=True), "big": Kind(600)}
    world = World(kinds | {"huge": Kind(BUDGET_MB + 1)})
    for model in ("idle", "pinned"):
        world.ask(model)
        world.settle()
        world.finish(world.active[0])
    tickets = [world.ask("huge"), world.ask("big")]
    world.settle()
    for _ in range(10):
        world.tick(1)
        world.settle()
    assert [type(world.rejected[ticket]) for ticket in tickets] == [NoRoom, NoRoom]
    assert world.evicted == []


def test_a_removal_rejects_waiting_requests_and_ends_the_engine() -> None:
    world = World({"a": Kind(500, slots=1), "b": Kind(500)})
    first, second = world.ask("a"), world.ask("a")
    other = world.ask("b")
    world.settle()
    with pytest.raises(Conflict, match=r"is answering 2 request\(s\)"):
        world.scheduler.commands.require_idle("a")
    world.remove("a")
    assert isinstance(world.rejected[second], ModelRemoved)
    assert first in world.active, "it has its grace"
    world.tick(DRAIN_GRACE_S + 1)
    world.settle()
    assert world.evicted == ["a"]
    assert other in world.active
    assert world.run_of("a") is None


@pytest.mark.parametrize("moment", ["planned", "waiting", "loading"])
def test_a_removal_ends_a_load_at_any_moment(moment: str) -> None:
    world = World({"a": Kind(600), "b": Kind(600)})
    if moment == "waiting":
        world.ask("b")
        world.settle()
    ticket = world.ask("a")
    if moment != "planned":
        world.plan()
    world.remove("a")
    assert isinstance(world.rejected[ticket], ModelRemoved)
    world.settle()
    assert world.run_of("a") is None
    assert "a" not in [plan.spec.key.model for plan in world.live()]


def test_a_reload_brings_a_new_engine_up_before_the_old_one_leaves() -> None:
    w = world(demo=Kind(100, slots=1))
    ticket = w.ask("demo")
    w.settle()
    old = w.run_of("demo")
    w.do(w.scheduler.commands.reload("demo"))
    w.plan()
    assert w.run_of("demo") is old
    w.settle()
    new = w.run_of("demo")
    assert new is not None
    assert new is not old
    assert w.active == [ticket]
    assert w.evicted == []
    w.finish(ticket)
    assert w.evicted == ["demo"]


def test_a_reload_drains_the_old_engine_first_if_both_do_not_fit() -> None:
    w = world(demo=Kind(800, slots=1))
    ticket = w.ask("demo")
    w.settle()
    w.do(w.scheduler.commands.reload("demo"))
    w.settle()
    late = w.ask("demo")
    assert w.active == [ticket]
    w.finish(ticket)
    w.settle()
    assert w.active == [late]


def test_a_reload_of_a_broken_model_keeps_the_engine_that_works() -> None:
    w = world()
    active, waiting = w.ask("demo"), w.ask("demo")
    w.settle()
    w.do(w.scheduler.commands.reload("demo"))
    w.plans.clear()
    w.do(w.scheduler.plan_failed(key_of("demo"), InvalidModel("config.json is not JSON")))
    assert [error.detail for error in w.kept] == ["config.json is not JSON"]
    assert (w.rejected, w.evicted) == ({}, [])
    w.finish(active)
    assert w.active == [waiting]


@pytest.mark.parametrize(("others", "need"), [(0, BUDGET_MB + 1), (500, 700)])
def test_a_reload_that_cannot_fit_keeps_the_engine_that_works(others: int, need: int) -> None:
    w = world(demo=Kind(100))
    ticket = w.ask("demo")
    w.settle()
    w.finish(ticket)
    w.others_mb = others
    w.kinds["demo"] = Kind(need)
    w.do(w.scheduler.commands.reload("demo"))
    w.settle()
    [error] = w.kept
    assert f"needs {need} MB" in error.detail
    assert w.evicted == []
    assert w.ask("demo") in w.active


def test_a_reload_may_evict_idle_models() -> None:
    w = world(demo=Kind(100), idle=Kind(600))
    for model in ("idle", "demo"):
        ticket = w.ask(model)
        w.settle()
        w.finish(ticket)
    w.kinds["demo"] = Kind(500)
    w.do(w.scheduler.commands.reload("demo"))
    w.settle()
    assert sorted(w.evicted) == ["demo", "idle"]
    assert w.ask("demo") in w.active


def test_a_loading_engine_is_replaced_too() -> None:
    w = world()
    ticket = w.ask("demo")
    w.plan()
    [first] = w.loading
    w.do(w.scheduler.commands.reload("demo"))
    w.plan()
    assert len(w.loading) == 2
    w.load(next(run for run in w.loading if run != first))
    w.settle()
    assert (w.evicted, w.active) == (["demo"], [ticket])


@pytest.mark.parametrize("loaded", [True, False])
def test_a_successor_takes_over_when_the_engine_dies_or_cannot_start(loaded: bool) -> None:
    w = world()
    ticket = w.ask("demo")
    w.plan()
    [first] = w.loading
    if loaded:
        w.load(first)
    w.do(w.scheduler.commands.reload("demo"))
    w.plan()
    if loaded:
        w.die(first, delivered=True)
    else:
        w.fail(first, crashed=False)
    assert not w.plans
    assert len(w.live()) == 1
    w.settle()
    assert w.active == [ticket]


def test_a_reload_during_a_reload_brings_the_latest() -> None:
    w = world()
    ticket = w.ask("demo")
    w.settle()
    w.finish(ticket)
    w.do(w.scheduler.commands.reload("demo"))
    w.plan()
    w.kinds["demo"] = Kind(150)
    w.do(w.scheduler.commands.reload("demo"))
    w.settle()
    [plan] = w.live()
    assert plan.need == {"host": 150}


def test_an_engine_that_dies_before_it_is_replaced_is_replaced_once() -> None:
    w = world()
    ticket = w.ask("demo")
    w.settle()
    w.do(w.scheduler.commands.reload("demo"))
    w.die(next(iter(w.serving)), delivered=True)
    w.settle()
    assert w.active == [ticket]
    w.finish(ticket)
    w.unload("demo")
    w.settle()
    w.ask("demo")
    w.settle()
    assert len(w.live()) == 1


def test_a_server_that_shuts_down_rejects_every_new_request() -> None:
    w = world()
    active, waiting = w.ask("demo"), w.ask("demo")
    w.settle()
    w.do(w.scheduler.shut_down())
    assert isinstance(w.rejected[waiting], Unavailable)
    assert w.active == [active]
    assert isinstance(w.rejected[w.ask("demo")], Unavailable)


def test_the_backoff_knows_the_last_error() -> None:
    w = world()
    w.ask("demo")
    w.settle()
    w.die(next(iter(w.serving)), delivered=False)
    assert (
        w.scheduler.fleet.model(key_of("demo")).backoff.last_error == EngineDied("it died").detail
    )
