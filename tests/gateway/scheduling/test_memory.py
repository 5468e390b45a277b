"""Which engines fit into memory together, and which leave for others."""

from __future__ import annotations

from myllm.errors import (
    NoRoom,
)
from myllm.gateway.scheduling.tickets import Ticket
from tests.gateway.scheduling.world import (
    BUDGET_MB,
    Kind,
    World,
    key_of,
    world,
)


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
