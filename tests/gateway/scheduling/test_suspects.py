"""Which request killed an engine, found by trying suspects one at a time; without a process."""

from __future__ import annotations

from typing import Any

import pytest

from myllm.errors import EngineDied, KeyPaused, Poison, Unavailable
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.poisons import PAUSE_S, POISONS, REMEMBERED_S
from myllm.gateway.scheduling.suspects import MAX_DEATHS, TRIAL_S
from myllm.gateway.scheduling.tickets import Ticket
from tests.gateway.scheduling.world import Kind, World


def world(slots: int = 4) -> World:
    return World({"demo": Kind(200, slots=slots)})


def request(w: World, what: str, **more: Any) -> Ticket:
    return w.ask("demo", demand=Demand("/completion", {"prompt": what, "seed": w.now}), **more)


def dies(w: World, delivered: bool = False, from_outside: bool = False) -> None:
    [run] = w.serving
    w.die(run, delivered, from_outside)
    w.settle()


def crashes(w: World) -> int:
    run = w.run_of("demo")
    assert run is not None
    return w.scheduler.fleet.model_of(run).backoff.crashes


def test_suspects_are_tried_one_at_a_time_and_the_one_that_kills_again_is_refused() -> None:
    w = world()
    one, poison, other = request(w, "one"), request(w, "poison"), request(w, "other")
    w.settle()
    assert w.active == [one, poison, other]
    dies(w)
    assert w.active == [one]
    w.deliver(one)
    assert w.active == [one, poison]  # one is cleared, and goes on
    dies(w)
    assert w.active == [poison]  # tried alone now
    dies(w)
    assert isinstance(w.rejected[poison], Poison)
    assert "died again" in w.rejected[poison].detail
    assert set(w.active) == {one, other}  # they are cleared
    assert (one.unexplained, other.unexplained, crashes(w)) == (0, 0, 0)


def test_a_request_that_is_alone_is_refused_when_it_kills_again() -> None:
    w = world()
    poison = request(w, "poison")
    w.settle()
    dies(w)
    assert w.active == [poison]
    dies(w)
    assert isinstance(w.rejected[poison], Poison)
    assert w.serving or not w.waiting


def test_waiting_requests_come_after_the_trials() -> None:
    w = world(slots=2)
    first, second = request(w, "first"), request(w, "second")
    w.settle()
    third = request(w, "third")
    dies(w)
    assert w.active == [first]
    w.deliver(first)
    assert w.active == [first, second]
    w.deliver(second)
    w.finish(first)
    assert w.active == [second, third]


def test_a_request_whose_answer_has_begun_is_no_suspect_at_first() -> None:
    w = world()
    long = request(w, "long")
    w.settle()
    w.deliver(long)
    poison = request(w, "poison")
    dies(w)
    assert w.active == [poison]
    dies(w)
    assert isinstance(w.rejected[poison], Poison)
    assert w.active == [long]


def test_a_request_that_was_there_at_two_deaths_is_suspected() -> None:
    w = world()
    later = request(w, "later")
    w.settle()
    w.deliver(later)
    bystander = request(w, "bystander")
    w.deliver(bystander)
    dies(w)  # both had something, so neither is suspected
    assert set(w.active) == {later, bystander}
    w.deliver(later)
    w.deliver(bystander)
    w.finish(bystander)
    dies(w)
    fresh = request(w, "fresh")
    assert w.active == [later]
    dies(w)
    assert isinstance(w.rejected[later], Poison)
    assert w.active == [fresh]


def test_an_equal_request_is_refused_for_a_time_whatever_its_seed() -> None:
    w = world()
    request(w, "poison")
    w.settle()
    dies(w)
    dies(w)
    w.now += 1
    again = request(w, "poison")
    assert isinstance(w.rejected[again], Poison)
    other = request(w, "another")
    w.settle()
    assert w.active == [other]
    w.now += REMEMBERED_S + 1
    late = request(w, "poison")
    assert late in w.active


def test_equal_requests_that_wait_are_refused_with_the_convicted_one() -> None:
    w = world(slots=3)
    choices = [request(w, "poison") for _ in range(5)]
    w.settle()
    dies(w)
    dies(w)
    assert all(isinstance(w.rejected[each], Poison) for each in choices)
    assert not w.active


def kill_with(w: World, what: str, **more: Any) -> Ticket:
    poison = request(w, what, **more)
    w.settle()
    dies(w)
    dies(w)
    return poison


def honest(w: World) -> None:
    ticket = request(w, "hello")
    w.settle()
    w.deliver(ticket)
    w.finish(ticket)


def test_a_key_that_sends_three_is_refused_for_ten_minutes() -> None:
    w = world()
    key = {"owner": "key:eve", "client": "eve", "key_name": "eve"}
    for number in range(POISONS):
        honest(w)
        assert kill_with(w, f"poison {number}", **key) in w.rejected
        w.now += 60
    refused = request(w, "hello", **key)
    assert isinstance(w.rejected[refused], KeyPaused)
    assert 0 < w.rejected[refused].retry_after_s <= PAUSE_S
    honest(w)  # other clients are served
    w.now += PAUSE_S
    assert request(w, "hello", **key) not in w.rejected


def test_ever_new_poison_does_not_end_the_other_requests() -> None:
    """Each conviction clears the requests that were there; then the next poison joins them."""
    w = world()
    innocents = [request(w, f"innocent {number}") for number in range(3)]
    for number in range(6):
        poison = request(w, f"poison {number}")
        w.settle()
        while poison not in w.rejected:
            if poison in w.active:
                dies(w)
            else:
                [on_trial] = w.active
                w.deliver(on_trial)
                w.finish(on_trial)
    for each in innocents:
        assert each in w.done or each in w.active


def test_without_keys_only_the_bodies_are_refused() -> None:
    w = world()
    for number in range(POISONS + 1):
        honest(w)
        assert isinstance(w.rejected[kill_with(w, f"poison {number}")], Poison)
    honest(w)


def test_a_model_that_dies_of_every_request_is_broken_itself() -> None:
    w = world()
    kinds: list[type[Exception]] = []
    for number in range(10):
        ticket = request(w, f"request {number}")
        for _ in range(MAX_DEATHS):
            w.settle()
            if w.serving:
                dies(w)
        kinds.append(type(w.rejected[ticket]))
    assert kinds[:4] == [Poison, Poison, Poison, EngineDied]
    assert kinds[-1] is Unavailable  # it backs off in the end


def test_a_model_that_has_worked_never_backs_off_because_of_requests() -> None:
    w = world()
    honest(w)
    kinds = {type(w.rejected[kill(w, request(w, f"poison {n}"))]) for n in range(20)}
    assert kinds == {Poison, EngineDied}
    honest(w)


def kill(w: World, ticket: Ticket) -> Ticket:
    while ticket not in w.rejected:
        w.settle()
        dies(w)
    return ticket


def test_a_death_that_may_come_from_outside_convicts_no_request() -> None:
    w = world()
    ticket = request(w, "hello")
    w.settle()
    for _ in range(MAX_DEATHS - 1):
        dies(w, from_outside=True)
        assert w.active == [ticket]
    dies(w, from_outside=True)
    assert isinstance(w.rejected[ticket], EngineDied)
    assert crashes_without_engine(w) == MAX_DEATHS
    assert request(w, "hello") not in w.rejected


def crashes_without_engine(w: World) -> int:
    return w.scheduler.fleet.models("demo")[0].backoff.crashes


def leaves(w: World, ticket: Ticket) -> None:
    ticket.gave_up = True
    w.finish(ticket)


def test_a_request_that_leaves_before_the_death_is_convicted_the_second_time() -> None:
    w = world()
    for _ in range(2):
        bystander, poison = request(w, "hello"), request(w, "poison")
        w.settle()
        leaves(w, poison)
        dies(w)
        assert w.active == [bystander]
        w.deliver(bystander)
        w.finish(bystander)
        w.now += 5
    assert isinstance(w.rejected[request(w, "poison")], Poison)
    honest(w)


def test_a_request_that_leaves_during_its_trial_is_refused_later() -> None:
    w = world()
    bystander, poison = request(w, "hello"), request(w, "poison")
    w.settle()
    dies(w)
    w.deliver(bystander)
    w.finish(bystander)
    assert w.active == [poison]
    other = request(w, "other")
    leaves(w, poison)
    assert w.active == [other]
    dies(w)
    w.deliver(other)
    w.finish(other)
    assert isinstance(w.rejected[request(w, "poison")], Poison)


def test_a_request_that_left_an_engine_that_went_on_is_not_blamed() -> None:
    w = world()
    for _ in range(3):
        gone = request(w, "innocent")
        w.settle()
        leaves(w, gone)
        w.now += 2
        other = request(w, "other")
        w.settle()
        w.deliver(other)
        dies(w)
        w.deliver(other)
        w.finish(other)
    assert request(w, "innocent") not in w.rejected


def test_an_endless_trial_does_not_hold_up_the_others() -> None:
    w = world()
    slow, other = request(w, "slow"), request(w, "other")
    w.settle()
    dies(w)
    assert w.active == [slow]
    for _ in range(5):
        w.tick(TRIAL_S / 4)
    assert set(w.active) == {slow, other}


@pytest.mark.parametrize("ends", ["finishes", "leaves"])
def test_a_trial_ends_with_its_request(ends: str) -> None:
    w = world()
    first, second = request(w, "first"), request(w, "second")
    w.settle()
    dies(w)
    assert w.active == [first]
    if ends == "leaves":
        leaves(w, first)
    else:
        w.finish(first)
    assert w.active == [second]


def test_an_answer_ends_after_many_engines_died_under_it() -> None:
    """It gets further each time, so that no trial convicts it."""
    w = world()
    ticket = request(w, "slow poison")
    for _ in range(10):
        w.settle()
        if ticket in w.rejected:
            break
        w.deliver(ticket)
        dies(w, delivered=True)
    assert isinstance(w.rejected[ticket], EngineDied)
