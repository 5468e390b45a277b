"""Which request gets which slot and when: decided without any process."""

from __future__ import annotations

from myllm.errors import (
    QueueFull,
    Unavailable,
)
from myllm.gateway.scheduling.rejections import UNREAD_S
from myllm.sessions.session import SessionRef
from tests.gateway.scheduling.world import (
    ONE_SLOT,
    QUEUE_TIMEOUT_S,
    Kind,
    World,
    client_of,
    key_of,
    world,
)


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
