"""A world for the scheduler without processes. It carries out the actions when a test tells it to,
and checks with each one that nothing happens that must never happen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from myllm.errors import EngineDied, EngineError, InvalidModel, MyLLMError
from myllm.gateway.client import Client
from myllm.gateway.scheduling.engine_run import EngineRun
from myllm.gateway.scheduling.memory_budget import total
from myllm.gateway.scheduling.rejections import UNREAD_S
from myllm.gateway.scheduling.scheduler import Scheduler
from myllm.gateway.scheduling.tickets import (
    Action,
    Drain,
    EngineExit,
    Grant,
    KeepEngine,
    MakePlan,
    Pause,
    Plan,
    Reject,
    RequestInfo,
    Start,
    Stop,
    Ticket,
)
from myllm.models.registry import Registry
from myllm.sessions.keys import HIGHEST_PRIORITY
from myllm.supervisor.spec import InstanceKey, InstanceSpec
from tests.gateway.scheduling.invariants import check_after_tick, check_invariants

DEMO = Registry(Path("/nonexistent")).get("demo")
BUDGET_MB = 1000
QUEUE_TIMEOUT_S = 60.0
DRAIN_GRACE_S = 5.0


@dataclass
class Kind:
    """What the engine of a model takes and offers."""

    need_mb: int
    slots: int = 2
    keep_alive_s: float = 300.0
    pinned: bool = False


ONE_SLOT = Kind(100, slots=1)


@dataclass
class World:
    """Other programs use `others_mb` of `total_mb`."""

    kinds: dict[str, Kind]
    total_mb: int = BUDGET_MB
    others_mb: int = 0
    queue_size: int = 100
    now: float = 0.0
    plans: list[MakePlan] = field(default_factory=list)
    loading: dict[int, Plan] = field(default_factory=dict)
    serving: dict[int, Plan] = field(default_factory=dict)
    stopping: dict[int, Plan] = field(default_factory=dict)
    active: list[Ticket] = field(default_factory=list)
    waiting: list[Ticket] = field(default_factory=list)
    rejected: dict[Ticket, MyLLMError] = field(default_factory=dict)
    done: list[Ticket] = field(default_factory=list)
    paused: list[Ticket] = field(default_factory=list)
    unread: dict[Ticket, float] = field(default_factory=dict)
    evicted: list[str] = field(default_factory=list)
    stop_reasons: list[str] = field(default_factory=list)
    kept: list[MyLLMError] = field(default_factory=list)
    may_end_pinned: bool = False

    def __post_init__(self) -> None:
        self.scheduler = Scheduler(
            {"host": BUDGET_MB},
            queue_timeout_s=QUEUE_TIMEOUT_S,
            queue_size=self.queue_size,
            drain_grace_s=DRAIN_GRACE_S,
        )

    # What clients and operators do

    def ask(
        self,
        model: str,
        client: str = "",
        *,
        owner: str = "",
        key_name: str | None = None,
        max_priority: int = HIGHEST_PRIORITY,
        priority: int = 0,
        keep_alive_s: float | None = None,
        **more: object,
    ) -> Ticket:
        sender = Client(owner, key_name, client, max_priority)
        request = RequestInfo(sender, priority, keep_alive_s)
        ticket = Ticket(key_of(model), self.now, request, **more)  # type: ignore[arg-type]
        self.waiting.append(ticket)
        self.do(self.scheduler.request(ticket, self.now))
        return ticket

    def finish(self, ticket: Ticket) -> None:
        """It is answered, or its client leaves, wherever it is by then."""
        self.unread.pop(ticket, None)
        self.done.append(ticket)
        if ticket in self.paused:
            self.paused.remove(ticket)
            return
        for place in (self.active, self.waiting):
            if ticket in place:
                place.remove(ticket)
        self.do(self.scheduler.release(ticket, self.now))

    def stops_reading(self, ticket: Ticket) -> None:
        """Its client takes nothing of its answer any more."""
        ticket.offered_at = self.unread[ticket] = self.now

    def reads_again(self, ticket: Ticket) -> None:
        """Its client reads again, perhaps after it has been paused."""
        ticket.offered_at = None
        self.unread.pop(ticket, None)
        if ticket in self.paused:
            self.paused.remove(ticket)
            self.waiting.append(ticket)
            self.do(self.scheduler.request(ticket, self.now))

    def unload(self, model: str, force: bool = False) -> None:
        self.may_end_pinned = self.may_end_pinned or self.kinds[model].pinned
        self.do(self.scheduler.commands.unload(model, force, self.now))

    def remove(self, model: str) -> None:
        """Its folder has been removed."""
        self.do(self.scheduler.commands.remove(model, self.now))

    # What engines and time do

    def plan(self, at: int = 0) -> None:
        """The next plan is made."""
        wish = self.plans.pop(at)
        kind = self.kinds[wish.key.model]
        need = {"host": kind.need_mb // 2 if wish.smaller else kind.need_mb}
        spec = InstanceSpec(wish.key, DEMO, 1024, kind.slots, 32)
        plan = Plan(spec, need, kind.keep_alive_s, kind.pinned)
        self.do(self.scheduler.planned(plan, {"host": self.free_mb()}, self.now))

    def fail_plan(self, at: int = 0) -> None:
        """The next plan cannot be made."""
        wish = self.plans.pop(at)
        self.do(self.scheduler.plan_failed(wish.key, InvalidModel("it is broken")))

    def load(self, run: int) -> None:
        """A load succeeds."""
        plan = self.serving[run] = self.loading.pop(run)
        self.do(self.scheduler.ready(run, plan.spec.slots, None, self.now))

    def fail(
        self,
        run: int,
        crashed: bool,
        no_memory: bool = False,
        loading_signal: int | None = None,
    ) -> None:
        """A load fails."""
        self.loading.pop(run)
        error = EngineError("it cannot start")
        self._exited(run, EngineExit(error, crashed, False, no_memory, loading_signal))

    def deliver(self, ticket: Ticket) -> None:
        """Its engine has given it something."""
        self.do(self.scheduler.delivered(ticket, self.now))

    def die(self, run: int, delivered: bool, from_outside: bool = False) -> None:
        """An engine is killed; its requests come back with the same tickets."""
        self.serving.pop(run)
        hit = [ticket for ticket in self.active if ticket.run == run]
        self._exited(
            run, EngineExit(EngineDied("it died"), True, delivered, from_outside=from_outside)
        )
        for ticket in hit:
            self.active.remove(ticket)
            self.do(self.scheduler.release(ticket, self.now))
            if ticket.verdict is not None:
                self.rejected[ticket] = ticket.verdict
                continue
            ticket.deaths += 1
            self.waiting.append(ticket)
            self.do(self.scheduler.request(ticket, self.now))

    def stop(self, run: int) -> None:
        """An engine that was stopped has ended, and the answers that it was still giving."""
        self.stopping.pop(run)
        cut = [ticket for ticket in self.active if ticket.run == run]
        self._exited(run, EngineExit())
        for ticket in cut:
            self.finish(ticket)

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.scheduler.tick(self.now))
        check_after_tick(self.scheduler.fleet)

    def settle(self) -> None:
        """Everything happens that takes no time: plans, loads, stops."""
        while self.plans or self.loading or self.stopping:
            if self.plans:
                self.plan()
            elif self.stopping:
                self.stop(next(iter(self.stopping)))
            else:
                self.load(next(iter(self.loading)))

    def free_mb(self) -> int:
        """What is really free, with what loading engines took added back."""
        used = [plan.need for plan in (*self.serving.values(), *self.stopping.values())]
        return int(self.total_mb - self.others_mb - total(used).get("host", 0))

    def live(self) -> list[Plan]:
        return [*self.loading.values(), *self.serving.values(), *self.stopping.values()]

    def run_of(self, model: str) -> EngineRun | None:
        return self.scheduler.fleet.model(key_of(model)).run

    # What the actions ask for

    def do(self, actions: list[Action]) -> None:
        self._do_all(actions)
        live = {**self.loading, **self.serving, **self.stopping}
        check_invariants(self.scheduler.fleet, live, [plan.key for plan in self.plans])

    def _do_all(self, actions: list[Action]) -> None:
        for action in actions:
            self._do(action)
            taken = total(plan.need for plan in self.live()).get("host", 0)
            assert taken <= BUDGET_MB, f"over the budget: {taken}"

    def _do(self, action: Action) -> None:
        match action:
            case MakePlan():
                assert action.key not in [plan.key for plan in self.plans], "planned twice"
                self.plans.append(action)
            case Start(run, plan):
                assert plan.need["host"] <= self.free_mb() - self._arriving(), "over-committed"
                self.loading[run] = plan
            case Grant(ticket):
                self._check_grant(ticket)
                self.waiting.remove(ticket)
                self.active.append(ticket)
            case Reject(ticket):
                self.waiting.remove(ticket)
                assert ticket not in self.rejected
                self.rejected[ticket] = action.error
            case Pause(ticket):
                self._check_pause(ticket)
                self.active.remove(ticket)
                self.paused.append(ticket)
                self._do_all(self.scheduler.release(ticket, self.now))
            case KeepEngine():
                self.kept.append(action.error)
            case Drain():
                pass
            case Stop(run, reason):
                self._check_stop(run)
                self.stop_reasons.append(reason)

    def _check_grant(self, ticket: Ticket) -> None:
        assert ticket.run in self.serving, "granted a slot of an engine that does not serve"
        held = [(each.run, each.slot) for each in self.active]
        assert (ticket.run, ticket.slot) not in held, "a slot was granted twice"
        assert ticket.slot in range(self.serving[ticket.run].spec.slots)
        self._check_share(ticket, self.serving[ticket.run].spec.slots)

    def _check_share(self, granted: Ticket, slots: int) -> None:
        """A client that holds its fair share gets no more slots while one with less waits."""
        living = {*self.serving, *self.stopping}
        held = Counter(
            client_of(each)
            for each in self.active
            if each.key == granted.key and each.run in living
        )
        waiting = {client_of(each) for each in self.waiting if each.key == granted.key}
        share = max(1.0, slots / len(waiting | held.keys()))
        if held[client_of(granted)] + 1 > share:
            fewest = min(held[client] for client in waiting)
            assert fewest + 1 > share, "a client got more than its fair share while others waited"

    def _check_pause(self, ticket: Ticket) -> None:
        assert self.now - self.unread[ticket] >= UNREAD_S, "paused although it was read"
        run = self.scheduler.fleet.run(ticket.run)
        assert run is not None
        waited_for = any(each.key == ticket.key for each in self.waiting)
        assert waited_for or run.state == "draining", "paused though no request waits"

    def _check_stop(self, number: int) -> None:
        run = self.scheduler.fleet.run(number)
        assert run is not None
        assert number not in self.stopping, "stopped twice"
        busy = any(ticket.run == number for ticket in self.active)
        assert not busy or self.now > run.drain_until, "a busy engine was stopped"
        assert not run.plan.pinned or self.may_end_pinned, "a pinned engine was evicted"
        plan = self.loading.pop(number, None) or self.serving.pop(number)
        self.stopping[number] = plan
        self.evicted.append(plan.spec.key.model)

    def _arriving(self) -> int:
        return int(total(plan.need for plan in self.loading.values()).get("host", 0))

    def _exited(self, run: int, ended: EngineExit) -> None:
        self.do(self.scheduler.exited(run, ended, self.now))


def world(**kinds: Kind) -> World:
    """A world with these models, or with a model `demo` that has one slot."""
    return World(kinds or {"demo": ONE_SLOT})


def key_of(model: str) -> InstanceKey:
    return InstanceKey(model, "generate")


def client_of(ticket: Ticket) -> str:
    return ticket.request.client.fair_id
