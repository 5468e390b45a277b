"""What the scheduler keeps of one model in one role."""

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


@dataclass
class ModelState:
    """`run` takes requests, or will when it is loaded; `successor` loads to replace it;
    `draining` are runs that take no more.

    `plan` is set while it waits for room, since `waiting_since`. `wanted` says that it is to
    be loaded although nobody asks; `replace` that `run` is to be replaced. A run lacked memory:
    `shrunk` says that the next one is to be smaller, `after` names the run that leaves first.
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
    plan: Plan | None = None
    waiting_since: float | None = None
    wanted: bool = False
    replace: bool = False
    shrunk: bool = False
    after: int | None = None
    cause: str | None = None

    @property
    def status(self) -> ModelStatus:
        """What somebody who asks for this model meets."""
        if self.run is not None:
            return self.run.state
        if self.planning or self.plan is not None:
            return "waiting"
        return "draining" if self.draining else "absent"

    def runs(self) -> list[EngineRun]:
        """Every engine of it that has not ended."""
        own = [run for run in (self.run, self.successor) if run is not None]
        return own + self.draining

    def active(self) -> list[Ticket]:
        """The requests being answered."""
        return [ticket for run in self.runs() for ticket in run.tickets()]

    def slots(self) -> int:
        """How many requests it answers at a time; 1 until that is known."""
        return max(1, len(self.run.slots)) if self.run is not None else 1

    def take_next(self, now: float) -> Ticket:
        """Take out of the queue whose turn it is."""
        suspect = self.suspects.next(self.queue)
        if suspect is None:
            return self.queue.take_next(self.active(), self.slots(), now)
        self.queue.discard(suspect)
        return suspect

    def position(self, ticket: Ticket, now: float) -> int:
        """How many of those that wait go before `ticket`, and itself; 0: it does not wait."""
        return self.queue.position(ticket, self.active(), self.slots(), now)

    def is_asked_for(self) -> bool:
        """Whether it is to be loaded, if it is not."""
        return bool(self.queue) or self.wanted

    def can_be_evicted(self) -> bool:
        """Idle, and nobody's: not pinned, not queued for, not about to be replaced."""
        return (
            self.run is not None
            and self.run.state == "ready"
            and not self.run.is_busy()
            and not self.run.plan.pinned
            and not self.queue
            and self.successor is None
        )

    def can_be_asked_to_yield(self, now: float, turn_s: float) -> bool:
        """In use, but it has had its turn."""
        return (
            self.run is not None
            and self.run.state == "ready"
            and not self.run.plan.pinned
            and now - self.run.ready_at >= turn_s
        )

    def stop_waiting(self) -> None:
        """It no longer waits for room."""
        self.plan, self.waiting_since = None, None

    def retire(self, run: EngineRun) -> None:
        """`run` takes no more requests."""
        self.forget(run)
        self.draining.append(run)

    def forget(self, run: EngineRun) -> None:
        """`run` has ended, or is no longer what it was; its successor takes its place."""
        if run is self.run:
            self.run, self.successor = self.successor, None
            self.replace = self.replace and self.run is not None
        elif run is self.successor:
            self.successor = None
        if run in self.draining:
            self.draining.remove(run)
