"""Engines that are unloaded when idle, or by command; reloads, removals and the shutdown."""

from __future__ import annotations

import pytest

from myllm.errors import (
    Conflict,
    InvalidModel,
    InvalidRequest,
    ModelRemoved,
    NoRoom,
    Unavailable,
)
from tests.gateway.scheduling.world import (
    BUDGET_MB,
    DRAIN_GRACE_S,
    Kind,
    World,
    key_of,
    world,
)


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
