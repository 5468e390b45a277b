"""The policy: who gets a slot, which engines run and which leave. The gateway carries it out.

Pure and synchronous: events go in as method calls with the monotonic time, actions come out as a
list, and nothing waits or does I/O. On one event loop, code without `await` is atomic, so there are
no locks; slots and memory are reserved at the moment they are granted.

What happens to a request, in this order:
  1. the server is shutting down, or the model is backing off -> Reject
  2. its engine is ready and has a free slot                  -> Grant
  3. otherwise it queues; if there is no engine and no plan
     for one is being made, one is requested                  -> MakePlan
  4. the queue exceeds its bound                              -> Reject, of the last request of the
                                                                 client with the most
With the plan, `start_decision.py` says whether the engine starts now, waits for others to leave,
makes some leave, or can never run.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from myllm.errors import MyLLMError
from myllm.gateway.scheduling.blame import Blame
from myllm.gateway.scheduling.commands import ModelCommands
from myllm.gateway.scheduling.fleet import Fleet
from myllm.gateway.scheduling.loader import Loader
from myllm.gateway.scheduling.model_state import ModelState
from myllm.gateway.scheduling.poisons import Poisons
from myllm.gateway.scheduling.rejections import (
    backing_off,
    give_up,
    pause_unread,
    reject_late,
    shed,
    shutting_down,
)
from myllm.gateway.scheduling.tickets import Action, EngineExit, Grant, Plan, Reject, Ticket
from myllm.launcher.devices import MemoryByDevice
from myllm.supervisor.spec import InstanceKey


class Scheduler:
    """Times are in seconds, memory is in MiB.

    `budget` is what the engines may take together on each device. `queue_timeout_s` bounds the wait
    for a slot or for memory, and `queue_size` the number of requests that wait per model.
    `drain_grace_s` is how long running answers may go on when their engine is forced to leave.
    """

    def __init__(
        self,
        budget: Mapping[str, int],
        *,
        queue_timeout_s: float,
        queue_size: int,
        drain_grace_s: float,
    ) -> None:
        self.fleet = Fleet(budget)
        self._loader = Loader(self.fleet)
        self.commands = ModelCommands(self.fleet, self._loader, drain_grace_s)
        self._poisons = Poisons()
        self._blame = Blame(self._poisons)
        self._queue_timeout_s = queue_timeout_s
        self._queue_size = queue_size
        self._uses = itertools.count(1)

    # Queries

    def position(self, ticket: Ticket, now: float) -> int:
        """The place of `ticket` in its queue: 1 is next, 0 means that it does not wait."""
        return self.fleet.model(ticket.key).position(ticket, now)

    def is_loaded(self, name: str) -> bool:
        """Whether any engine of the model `name` runs."""
        return self.fleet.is_loaded(name)

    def totals(self) -> tuple[int, int]:
        """How many requests (wait, are being answered), over all models."""
        models = self.fleet.models()
        return sum(len(e.queue) for e in models), sum(len(e.active()) for e in models)

    # Requests

    def request(self, ticket: Ticket, now: float) -> list[Action]:
        """A request has arrived, or has come back because its engine died or it was paused."""
        model = self.fleet.model(ticket.key)
        ticket.waits_since = now
        refused: MyLLMError | None
        refused = shutting_down() if self.fleet.shutting_down else backing_off(model, now)
        if refused is None and ticket.run is None:
            refused = self._poisons.refusal(ticket, now)
        if refused is not None:
            return [Reject(ticket, refused)]
        came_back = ticket.run is not None or ticket.goes_on
        ticket.run, ticket.slot = None, None
        if not model.queue:
            model.rate.queue_begins(now)
        model.queue.add(ticket)
        actions = self._advance(model, now)
        if len(model.queue) > self._queue_size and not came_back:
            actions += shed(model, ticket)
        return actions

    def release(self, ticket: Ticket, now: float) -> list[Action]:
        """The request is over, or was given up while it waited; its slot is free at once."""
        model = self.fleet.model(ticket.key)
        model.queue.discard(ticket)
        run = self.fleet.run(ticket.run)
        self._blame.left(model, run, ticket, now)
        if run is None:
            if not model.is_needed():
                model.pending = None
            return self._advance(model, now)
        model.rate.request_ended(now, was_waited_for=bool(model.queue))
        run.leave(ticket, now)
        if run.state == "draining":
            return self.fleet.stop_if_idle(run)
        return self._advance(model, now) + self._expire(model, now) + self._loader.plan_again()

    def delivered(self, ticket: Ticket, now: float) -> list[Action]:
        """The engine of `ticket` has given it something that it did not have before."""
        model, run = self.fleet.model(ticket.key), self.fleet.run(ticket.run)
        ticket.deaths = 0
        if run is None:
            return []
        run.has_given(ticket, now)
        was_held_up = self._blame.delivered(model, ticket, now)
        return self._advance(model, now) if was_held_up else []

    # Plans

    def planned(self, plan: Plan, free: MemoryByDevice, now: float) -> list[Action]:
        """A plan has arrived; `free` has what loading engines have taken added back."""
        return self._loader.planned(self.fleet.model(plan.spec.key), plan, free, now)

    def plan_failed(self, key: InstanceKey, error: MyLLMError) -> list[Action]:
        """No plan can be made: the model is gone or broken. A running engine goes on."""
        return self._loader.plan_failed(self.fleet.model(key), error)

    # Engines

    def ready(
        self, run_id: int, slots: int, need: MemoryByDevice | None, now: float
    ) -> list[Action]:
        """An engine can serve `slots` requests at a time; `need` is what it really takes."""
        run = self.fleet.ready(run_id, slots, need, now)
        if run is None:
            return []
        model = self.fleet.model_of(run)
        model.smaller = False
        actions: list[Action] = []
        if run is model.successor:
            old, model.run, model.successor = model.run, run, None
            actions = self.fleet.drain(old, "reloaded") if old is not None else []
        model.queue.wait_anew(now)  # the load had a bound of its own
        return actions + self._advance(model, now)

    def measured(self, run_id: int, need: MemoryByDevice | None) -> None:
        """A serving engine was seen to take `need`."""
        self.fleet.memory.loaded(run_id, need)

    def exited(self, run_id: int, ended: EngineExit, now: float) -> list[Action]:
        """An engine's process is gone."""
        run, model = self.fleet.ended(run_id, now)
        actions: list[Action] = []
        if ended.error is not None:
            model.backoff.last_error = ended.error.detail
            is_explained = self._blame.judge(model, run, ended, now)
            if ended.delivered:
                model.backoff.reset()
            elif not is_explained:
                model.backoff.record_crash(now, None if ended.no_memory else ended.loading_signal)
            if model.run is run and model.successor is None:
                actions = self._loader.retry(model, run, ended)
        model.forget(run)
        return actions + self._advance(model, now) + self._loader.plan_again()

    # Time

    def tick(self, now: float) -> list[Action]:
        """Time has passed: reject requests that have waited for too long, pause answers that are
        not read while others wait, and unload engines that were idle for too long."""
        actions = self.fleet.stop_overdue(now)
        for model in self.fleet.models():
            if model.suspects.holds_up(now):
                model.queue.wait_anew(now)  # a trial has a bound of its own
            actions += reject_late(model, now, self._queue_timeout_s) + pause_unread(model, now)
            actions += self._expire(model, now) + self._advance(model, now)
        return actions + self._loader.plan_again()

    def shut_down(self) -> list[Action]:
        """Reject every request that waits, and from now on every new one; start no engine."""
        self.fleet.shutting_down = True
        models = self.fleet.models()
        return [action for model in models for action in give_up(model, shutting_down())]

    def _advance(self, model: ModelState, now: float) -> list[Action]:
        """Grant what can be granted; load an engine if one is needed."""
        actions: list[Action] = []
        run = model.run
        while run is not None and run.state == "ready" and model.queue and run.has_free_slot():
            if model.suspects.holds_up(now):
                break
            ticket = model.take_next(now)
            known = self._poisons.known(ticket, now)
            if known is not None:
                actions.append(Reject(ticket, known))
                continue
            run.seat(ticket, next(self._uses))
            model.suspects.seated(ticket, now)
            actions.append(Grant(ticket))
        return actions + self._loader.load_if_needed(model, now)

    def _expire(self, model: ModelState, now: float) -> list[Action]:
        run = model.run
        if run is None or run.state != "ready" or run.is_busy() or model.queue:
            return []
        return self.fleet.drain(run, "idle") if now >= run.expires_at() else []
