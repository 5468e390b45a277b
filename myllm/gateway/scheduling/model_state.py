"""What the scheduler knows about one model in one role.

              needed                  memory is free             engine is ready
    absent ────────────────> waiting ────────────────> loading ───────────────────> ready
     ^  ^                     │   ^                     │    │                      │   │
     │  │ not needed any more │   │ died, still needed  │    │                      │   │
     │  └─────────────────────┘   └─────────────────────┴────)──────────────────────┘   │
     │                                                       │   idle, evicted,         │
     │ engine has ended                                      v   unloaded, replaced     v
     └────────────────────────────────────────────────── draining <─────────────────────┘

A model is needed while requests wait for it, or when it is to be loaded although none does. If it
is needed again while its last engine drains, it is waiting. The status follows from the fields.
These combinations are legal between two events (tests/gateway/scheduling/invariants.py):

  1. absent, draining: no `run`, no plan in the making and none that waits for memory.
     waiting: no `run`, but `planning` or `pending`; both when a plan is made anew because memory
     has been freed.
     loading, ready: `run` is in this state.
  2. `successor` is loading, and exists only in addition to `run`. Each run in `draining` is
     draining. No run occurs twice.
  3. `pending`, `wanted` and `starts_after` are set only while there is no `run`.
  4. `replace` is set only while there is a `run`. If there is a `run`, a plan in the making is for
     its successor: then `replace` is set, and there is no `successor` yet. If `replace` is set
     while there is a `successor`, that one will be replaced in turn.
  5. `smaller` is set only until the next engine is ready.
  6. After each tick: a model without a `run` that is needed is waiting, and only a needed model
     has a `pending` plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from myllm.gateway.scheduling.crash_backoff import CrashBackoff
from myllm.gateway.scheduling.engine_run import EngineRun
from myllm.gateway.scheduling.fair_queue import FairQueue, ServiceRate
from myllm.gateway.scheduling.suspects import Suspects
from myllm.gateway.scheduling.tickets import Plan, Ticket
from myllm.supervisor.spec import InstanceKey

ModelStatus = Literal["absent", "waiting", "loading", "ready", "draining"]


@dataclass(frozen=True)
class PendingStart:
    """A plan that waits for memory, since `since`."""

    plan: Plan
    since: float


@dataclass
class ModelState:
    """`run` takes requests, or will when it has loaded; `successor` loads to replace it; the
    `draining` runs take no more.

    `planning`: a MakePlan has been issued and not yet answered. `wanted`: the model is to be loaded
    although no request waits for it. `replace`: `run` is to be replaced. The other two follow from
    a run that lacked memory: `smaller` asks for a plan that needs less, and `starts_after` is the
    id of the run that must end before the next one starts.
    """

    key: InstanceKey
    queue: FairQueue = field(default_factory=FairQueue)
    rate: ServiceRate = field(default_factory=ServiceRate)
    backoff: CrashBackoff = field(default_factory=CrashBackoff)
    suspects: Suspects = field(default_factory=Suspects)
    run: EngineRun | None = None
    successor: EngineRun | None = None
    draining: list[EngineRun] = field(default_factory=list)
    planning: bool = False
    pending: PendingStart | None = None
    wanted: bool = False
    replace: bool = False
    smaller: bool = False
    starts_after: int | None = None

    @property
    def status(self) -> ModelStatus:
        """What a request for this model finds."""
        if self.run is not None:
            return self.run.state
        if self.planning or self.pending is not None:
            return "waiting"
        return "draining" if self.draining else "absent"

    def runs(self) -> list[EngineRun]:
        """Every run of this model that has not ended."""
        own = [run for run in (self.run, self.successor) if run is not None]
        return own + self.draining

    def active(self) -> list[Ticket]:
        """The requests that are being answered."""
        return [ticket for run in self.runs() for ticket in run.tickets()]

    def slots(self) -> int:
        """How many requests are answered at a time; 1 until that is known."""
        return max(1, len(self.run.slots)) if self.run is not None else 1

    def take_next(self, now: float) -> Ticket:
        """Take the request whose turn it is out of the queue."""
        suspect = self.suspects.next(self.queue)
        if suspect is None:
            active = self.active() if len(self.queue) > 1 else ()  # it matters only to a choice
            return self.queue.take_next(active, self.slots(), now)
        self.queue.discard(suspect)
        return suspect

    def position(self, ticket: Ticket, now: float) -> int:
        """The place of `ticket` in the queue: 1 is next, 0 means that it does not wait."""
        return self.queue.position(ticket, self.active(), self.slots(), now)

    def is_needed(self) -> bool:
        """Whether the model is to be loaded, if it is not."""
        return bool(self.queue) or self.wanted

    def can_be_evicted(self) -> bool:
        """Whether its run is idle, and neither pinned, queued for, nor being replaced."""
        return (
            self.run is not None
            and self.run.state == "ready"
            and not self.run.is_busy()
            and not self.run.plan.pinned
            and not self.queue
            and self.successor is None
        )

    def can_yield(self, now: float, turn_s: float) -> bool:
        """Whether its run may be in use, but has had its turn of `turn_s` seconds."""
        return (
            self.run is not None
            and self.run.state == "ready"
            and not self.run.plan.pinned
            and now - self.run.ready_at >= turn_s
        )

    def waits_for_memory(self, plan: Plan, now: float) -> PendingStart:
        """`plan` waits from now on, or from when the plan that it replaces began to wait."""
        self.pending = PendingStart(plan, now if self.pending is None else self.pending.since)
        return self.pending

    def retire(self, run: EngineRun) -> None:
        """`run` takes no more requests."""
        self.forget(run)
        self.draining.append(run)

    def forget(self, run: EngineRun) -> None:
        """`run` has ended, or takes no more requests; its successor takes its place."""
        if run is self.run:
            self.run, self.successor = self.successor, None
            self.replace = self.replace and self.run is not None
        elif run is self.successor:
            self.successor = None
        if run in self.draining:
            self.draining.remove(run)
