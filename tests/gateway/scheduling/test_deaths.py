"""What happens to requests and to the model when an engine dies."""

from __future__ import annotations

import signal

from myllm.errors import EngineDied, Unavailable
from myllm.gateway.scheduling.crash_backoff import FIRST_PAUSE_S, MAX_CRASHES
from tests.gateway.scheduling.world import ONE_SLOT, key_of, world


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
    for _ in range(MAX_CRASHES):
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
    for _ in range(MAX_CRASHES):
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
    for _ in range(3 * MAX_CRASHES):
        w.settle()
        w.deliver(ticket)
        w.die(next(iter(w.serving)), delivered=True, from_outside=True)
    w.settle()
    assert len(w.active) == 1


def test_the_backoff_knows_the_last_error() -> None:
    w = world()
    w.ask("demo")
    w.settle()
    w.die(next(iter(w.serving)), delivered=False)
    model = w.scheduler.fleet.model(key_of("demo"))
    assert model.backoff.last_error == EngineDied("it died").detail
