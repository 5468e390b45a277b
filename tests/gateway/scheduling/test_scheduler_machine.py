"""The scheduler under every order of events that Hypothesis generates.

`World` checks with each action that the engines never exceed the budget or the free memory, that no
busy engine is stopped, that no slot is granted twice, and that no client gets more than its fair
share of slots while one with less waits. After each event it checks the invariants of every model.
In the end, every request has been served or rejected with an error.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from myllm.errors import Conflict, InvalidRequest
from tests.gateway.scheduling.world import QUEUE_TIMEOUT_S, Kind, World, key_of

KINDS = {
    "small": Kind(200, slots=4),
    "large": Kind(700, slots=1),
    "middle": Kind(500, keep_alive_s=0.0),
    "pinned": Kind(250, pinned=True),
    "huge": Kind(1200),
}
MODELS = st.sampled_from(sorted(KINDS))
MAX_PRIORITY = {"a": 0, "b": 1, "c": 10}
CLIENTS = st.sampled_from(sorted(MAX_PRIORITY))
INDEX = st.integers(0, 10)


class FleetMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(KINDS, queue_size=4)

    @rule(model=MODELS, client=CLIENTS, priority=st.integers(-1, 1))
    def arrives(self, model: str, client: str, priority: int) -> None:
        self.world.ask(model, client, priority=priority, max_priority=MAX_PRIORITY[client])

    @precondition(lambda self: self.world.active or self.world.waiting)
    @rule(index=INDEX)
    def leaves(self, index: int) -> None:
        tickets = self.world.active + self.world.waiting
        self.world.finish(tickets[index % len(tickets)])

    @precondition(lambda self: self.world.active)
    @rule(index=INDEX)
    def is_not_read(self, index: int) -> None:
        self.world.stops_reading(self.world.active[index % len(self.world.active)])

    @precondition(lambda self: self.world.unread)
    @rule(index=INDEX)
    def is_read_again(self, index: int) -> None:
        unread = list(self.world.unread)
        self.world.reads_again(unread[index % len(unread)])

    @precondition(lambda self: self.world.plans)
    @rule(index=INDEX)
    def is_planned(self, index: int) -> None:
        self.world.plan(index % len(self.world.plans))

    @precondition(lambda self: self.world.loading)
    @rule(index=INDEX)
    def loads(self, index: int) -> None:
        self.world.load(_nth(self.world.loading, index))

    @precondition(lambda self: self.world.loading)
    @rule(index=INDEX, crashed=st.booleans(), no_memory=st.booleans())
    def fails_to_load(self, index: int, crashed: bool, no_memory: bool) -> None:
        self.world.fail(_nth(self.world.loading, index), crashed, no_memory)

    @precondition(lambda self: self.world.serving)
    @rule(index=INDEX, delivered=st.booleans())
    def dies(self, index: int, delivered: bool) -> None:
        self.world.die(_nth(self.world.serving, index), delivered)

    @precondition(lambda self: self.world.stopping)
    @rule(index=INDEX)
    def has_stopped(self, index: int) -> None:
        self.world.stop(_nth(self.world.stopping, index))

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 11.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.tick(seconds)

    @rule(model=MODELS, force=st.booleans())
    def is_unloaded(self, model: str, force: bool) -> None:
        scheduler = self.world.scheduler
        try:
            self.world.unload(model, force)
        except InvalidRequest:
            assert not scheduler.is_loaded(model)
        except Conflict:
            state = scheduler.fleet.model(key_of(model))
            assert state.active() or state.queue

    @rule(model=MODELS)
    def is_reloaded(self, model: str) -> None:
        self.world.may_end_pinned = self.world.may_end_pinned or KINDS[model].pinned
        self.world.do(self.world.scheduler.commands.reload(model))

    @rule(model=MODELS)
    def is_removed(self, model: str) -> None:
        """Its files are removed by force; it may be pulled again later."""
        self.world.may_end_pinned = self.world.may_end_pinned or KINDS[model].pinned
        self.world.remove(model)
        state = self.world.scheduler.fleet.model(key_of(model))
        assert (len(state.queue), state.run, state.successor) == (0, None, None)

    @rule(model=MODELS)
    def is_wanted(self, model: str) -> None:
        self.world.do(self.world.scheduler.commands.load(key_of(model), self.world.now))

    @precondition(lambda self: self.world.plans)
    @rule(index=INDEX)
    def cannot_be_planned(self, index: int) -> None:
        """Its folder is gone, or its configuration is broken."""
        self.world.fail_plan(index % len(self.world.plans))

    @rule(others=st.sampled_from([0, 100, 600]))
    def others_use_memory(self, others: int) -> None:
        self.world.others_mb = others

    @invariant()
    def the_totals_are_right(self) -> None:
        world = self.world
        assert world.scheduler.totals() == (len(world.waiting), len(world.active))
        runs = {**world.loading, **world.serving, **world.stopping}
        assert world.scheduler.fleet.memory.taken().get("host", 0) == sum(
            plan.need["host"] for plan in runs.values()
        )
        assert all(ticket.run in runs for ticket in world.active)

    def teardown(self) -> None:
        """No request starves: when the world works again, each one ends in bounded time, and none
        is rejected for having waited too long. Then the server shuts down."""
        world = self.world
        world.others_mb = 0
        for ticket in list(world.unread):
            world.reads_again(ticket)
        began = world.now
        for ticket in world.waiting:
            ticket.waits_since = began
        turned_away = set(world.rejected)
        while world.waiting or world.active:
            world.settle()
            for ticket in list(world.active):
                world.finish(ticket)
            world.tick(1.0)
            assert world.now - began <= QUEUE_TIMEOUT_S + 10, "a request waits for ever"
        late = [
            error.detail
            for ticket, error in world.rejected.items()
            if ticket not in turned_away and error.detail.startswith("Waited")
        ]
        assert not late
        world.settle()
        self.the_totals_are_right()
        self._shut_down()
        assert len(set(world.done) & set(world.rejected)) == 0

    def _shut_down(self) -> None:
        """Requests that wait or arrive later are rejected; running answers go on."""
        world = self.world
        before = [world.ask(model) for model in sorted(KINDS)]
        active = list(world.active)
        world.do(world.scheduler.shut_down())
        after = world.ask("small")
        assert (world.waiting, world.active) == ([], active)
        assert all(ticket in world.rejected for ticket in (*before, after) if ticket not in active)
        world.settle()
        assert world.active == active, "a request was granted"


def _nth(runs: dict[int, object], index: int) -> int:
    return list(runs)[index % len(runs)]


TestFleetMachine = FleetMachine.TestCase
TestFleetMachine.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
