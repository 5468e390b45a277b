"""Who gets a slot, which engines run, and which leave: decided here, carried out by the gateway.

Pure and synchronous: events go in as method calls with the monotonic time, actions come out as
a list, nothing waits and nothing does I/O. On one event loop code without `await` is atomic, so
there are no locks; slots and memory are reserved in the moment they are granted.

What becomes of a request, in this order:
  1. the server is leaving, or its model is backing off   -> Reject
  2. its engine is ready and a slot is free for it        -> Grant
  3. otherwise it queues; if nobody has yet, a plan is made for its engine (MakePlan)
  4. the queue is over its bound                          -> Reject, of the greediest client's last
With the plan, `placing.py` says whether the engine starts now, waits for others to leave, makes
some leave, or can never run. A load is the server's, not the request's that came first.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from myllm.errors import Conflict, EngineDied, InvalidRequest, ModelRemoved, MyLLMError, Poison
from myllm.gateway.scheduling import start_decision
from myllm.gateway.scheduling.engine_run import EngineRun
from myllm.gateway.scheduling.fleet import Fleet
from myllm.gateway.scheduling.model_state import ModelState, PendingStart
from myllm.gateway.scheduling.poisons import Poisons
from myllm.gateway.scheduling.rejections import (
    backing_off,
    give_up,
    pause_unread,
    reject_late,
    shed,
    shutting_down,
)
from myllm.gateway.scheduling.suspects import DepartedRequest, Verdict
from myllm.gateway.scheduling.tickets import (
    Action,
    EngineExit,
    Grant,
    KeepEngine,
    MakePlan,
    Plan,
    Reject,
    Ticket,
)
from myllm.supervisor.devices import MemoryByDevice
from myllm.supervisor.spec import InstanceKey


class Scheduler:
    """The policy. Times are in seconds, memory in MiB.

    `queue_timeout_s` bounds the wait for a slot or for room, `queue_size` how many wait per
    model; `budget` is what the engines may take together on each device; `drain_grace_s` is
    what running answers get when somebody forces their engine to leave.
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
        self._poisons = Poisons()
        self._queue_timeout_s = queue_timeout_s
        self._queue_size = queue_size
        self._drain_grace_s = drain_grace_s
        self._uses = itertools.count(1)
        self._shutting_down = False

    # What can be asked

    def position(self, ticket: Ticket, now: float) -> int:
        """How many requests go before `ticket`, and itself: 1 is next."""
        return self.fleet.model(ticket.key).position(ticket, now)

    def is_loaded(self, name: str) -> bool:
        """Whether any engine of `name` runs."""
        return any(model.runs() for model in self.fleet.models(name))

    def totals(self) -> tuple[int, int]:
        """Requests (queued, active) over all models."""
        models = self.fleet.models()
        return sum(len(e.queue) for e in models), sum(len(e.active()) for e in models)

    # Requests

    def request(self, ticket: Ticket, now: float) -> list[Action]:
        """A request has arrived, or has come back because its engine died or it was paused."""
        model = self.fleet.model(ticket.key)
        refused: MyLLMError | None = (
            shutting_down() if self._shutting_down else backing_off(model, now)
        )
        if refused is None and ticket.run is None:
            refused = self._poisons.refusal(ticket, now)
        if refused is not None:
            return [Reject(ticket, refused)]
        came_back = ticket.run is not None or ticket.goes_on
        ticket.run, ticket.slot, ticket.waits_since = None, None, now
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
        self._let_go(model, run, ticket, now)
        if run is None:
            if not model.is_needed():
                model.pending = None
            return self._advance(model, now)
        model.rate.request_ended(now, was_waited_for=bool(model.queue))
        run.leave(ticket, now)
        if run.state == "draining":
            return self.fleet.stop_if_idle(run)
        return self._advance(model, now) + self._expire(model, now) + self._plan_for_waiters()

    def delivered(self, ticket: Ticket, now: float) -> list[Action]:
        """The engine of `ticket` has given it something that it did not have before."""
        model, run = self.fleet.model(ticket.key), self.fleet.run(ticket.run)
        ticket.deaths = 0
        if run is None:
            return []
        run.has_given(ticket, now)
        was_held_up = model.suspects.holds_up(now)
        self._poisons.suspect(model.suspects.delivered(ticket), now)
        return self._advance(model, now) if was_held_up else []

    # Plans

    def planned(self, plan: Plan, free: MemoryByDevice, now: float) -> list[Action]:
        """A plan is made; `free` is what is free, with what loading engines took added back."""
        model = self.fleet.model(plan.spec.key)
        replace, model.planning, model.replace = model.replace, False, False
        if self._shutting_down:
            return []
        if replace and model.run is not None:
            return self._replace(model, model.run, plan, free, now)
        if model.run is not None or not model.is_needed():
            model.pending = None
            return []
        return self._place(model, model.waits_for_memory(plan, now), free, now)

    def plan_failed(self, key: InstanceKey, error: MyLLMError) -> list[Action]:
        """No plan can be made: the model is gone or broken. An engine that runs goes on."""
        model = self.fleet.model(key)
        model.planning = model.replace = False
        return [KeepEngine(key, error)] if model.run is not None else give_up(model, error)

    # What the engines tell

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
        """An engine that serves was seen to take `need`."""
        self.fleet.memory.loaded(run_id, need)

    def exited(self, run_id: int, ended: EngineExit, now: float) -> list[Action]:
        """An engine's process is gone."""
        run, model = self.fleet.ended(run_id, now)
        actions: list[Action] = []
        if ended.error is not None:
            model.backoff.last_error = ended.error.detail
            verdict = self._judged(model, run, ended, now)
            if ended.delivered:
                model.backoff.reset()
            elif not verdict.is_explained:
                model.backoff.record_crash(now, None if ended.no_memory else ended.loading_signal)
            if model.run is run and model.successor is None:
                actions = self._after_death(model, run, ended)
        model.forget(run)
        return actions + self._advance(model, now) + self._plan_for_waiters()

    # Wishes

    def want(self, key: InstanceKey, now: float) -> list[Action]:
        """Load `key` although nobody asks for it yet."""
        model = self.fleet.model(key)
        model.wanted = model.run is None
        return self._advance(model, now)

    def keep_loaded(self, key: InstanceKey, keep_alive_s: float | None, now: float) -> bool:
        """Somebody wants `key` loaded; True when it is, and stays from now on for as long as a
        request's `keep_alive_s` says."""
        run = self.fleet.model(key).run
        if self._shutting_down or run is None or run.state != "ready":
            return False
        run.idle_since = now
        if keep_alive_s is not None:
            run.keep_alive_s = keep_alive_s
        return True

    def unload(self, name: str, force: bool, now: float) -> list[Action]:
        """Somebody wants every engine of `name` gone.

        Raises InvalidRequest when none is loaded and Conflict when one is answering; `force`
        gives the running answers their grace first, instead.
        """
        if not self.is_loaded(name):
            raise InvalidRequest(f"Model '{name}' is not loaded")
        if not force:
            self.require_idle(name)
        return self._drain_all(name, "unloaded", now)

    def remove(self, name: str, now: float) -> list[Action]:
        """The files of `name` are gone: nobody who waits for it will be served, and its engines
        leave, after the grace of what they are answering."""
        actions: list[Action] = []
        for model in self.fleet.models(name):
            actions += give_up(model, ModelRemoved(name))
            model.backoff.reset()
        return actions + self._drain_all(name, "removed", now)

    def require_idle(self, name: str) -> None:
        """Raises Conflict when requests for `name` are being answered, or wait for it."""
        models = self.fleet.models(name)
        requests = sum(len(model.active()) + len(model.queue) for model in models)
        if requests:
            raise Conflict(
                f"Model '{name}' is answering {requests} request(s); "
                "try again when it is idle, or force it"
            )

    def reload(self, name: str) -> list[Action]:
        """Replace the engines of `name`: new ones up, old ones drained. No request fails."""
        actions: list[Action] = []
        for model in self.fleet.models(name):
            if model.run is not None:
                model.replace = True
                actions += self._plan_replacement(model)
        return actions

    def tick(self, now: float) -> list[Action]:
        """Time has passed: reject who waited too long, pause who is not read while others wait,
        unload who was idle for too long."""
        actions = self.fleet.stop_overdue(now)
        for model in self.fleet.models():
            if model.suspects.holds_up(now):
                model.queue.wait_anew(now)  # a trial has a bound of its own
            actions += reject_late(model, now, self._queue_timeout_s) + pause_unread(model, now)
            actions += self._expire(model, now) + self._advance(model, now)
        return actions + self._plan_for_waiters()

    def shut_down(self) -> list[Action]:
        """The server is shutting down: nobody new comes in, those who wait go."""
        self._shutting_down = True
        return [
            action for model in self.fleet.models() for action in give_up(model, shutting_down())
        ]

    # Decisions

    def _advance(self, model: ModelState, now: float) -> list[Action]:
        """Grant what can be granted; make a plan if an engine is missing."""
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
        if run is None and model.is_needed() and model.pending is None and not self._shutting_down:
            refused = backing_off(model, now)
            actions += self._make_plan(model) if refused is None else give_up(model, refused)
        return actions + self._plan_replacement(model)

    def _let_go(self, model: ModelState, run: EngineRun | None, ticket: Ticket, now: float) -> None:
        """`ticket` is over; if its client left too soon, remember what it asked of `run`."""
        if run is None and not ticket.gave_up:
            return  # its engine died, and it will come back
        departed = None
        if ticket.gave_up and (run is None or ticket.answered_by != run.id):
            departed = DepartedRequest.of(ticket, now)
        if run is not None and departed is not None:
            run.departed.append(departed)
        self._poisons.suspect(model.suspects.left(ticket, departed), now)

    def _judged(self, model: ModelState, run: EngineRun, ended: EngineExit, now: float) -> Verdict:
        """Who of those that `run` worked for is to blame for its death; they are told."""
        assert ended.error is not None
        by_itself = not (ended.from_outside or ended.no_memory)
        on_trial = model.suspects.on_trial
        verdict = model.suspects.died(run.id, run.tickets(), run.departed, by_itself=by_itself)
        for ticket in verdict.hopeless:
            ticket.verdict = EngineDied(ended.error.detail)
        if by_itself:
            tried = [
                DepartedRequest.of(ticket, now) for ticket in verdict.hopeless if ticket is on_trial
            ]
            self._poisons.suspect([*verdict.alone, *filter(None, tried)], now)
        if (guilty := verdict.convicted) is not None:
            self._poisons.convict(guilty, now)
            guilty.verdict = Poison(
                f"The engine of model '{model.key}' died again while it worked on this request "
                f"and on nothing else, so the request is not tried again: {ended.error.detail}"
            )
        return verdict

    def _make_plan(self, model: ModelState) -> list[Action]:
        if model.planning:
            return []
        model.planning = True
        return [MakePlan(model.key, smaller=model.smaller)]

    def _plan_replacement(self, model: ModelState) -> list[Action]:
        """One at a time: a configuration that changes again is for the successor's successor."""
        due = model.replace and model.run is not None and model.successor is None
        return self._make_plan(model) if due and not self._shutting_down else []

    def _plan_for_waiters(self) -> list[Action]:
        """Look again for those who wait for room: somebody may have left."""
        waiting = [model for model in self.fleet.models() if model.pending is not None]
        return [action for model in waiting for action in self._make_plan(model)]

    def _place(
        self, model: ModelState, pending: PendingStart, free: MemoryByDevice, now: float
    ) -> list[Action]:
        if self.fleet.run(model.starts_after) is not None:
            return []
        match start_decision.decide(
            model, pending, self.fleet.models(), self.fleet.memory, free, now
        ):
            case start_decision.StartNow():
                model.pending = None
                model.wanted, model.starts_after = False, None
                model.run, start = self.fleet.start(pending.plan)
                return [start]
            case start_decision.Wait(leave):
                return self._evict(leave, model)
            case start_decision.TooBig() as reason:
                return give_up(model, reason.error(model.key))

    def _replace(
        self, model: ModelState, old: EngineRun, plan: Plan, free: MemoryByDevice, now: float
    ) -> list[Action]:
        """Start a successor beside the run, or drain the run first if both do not fit."""
        match start_decision.decide_replacement(
            old, plan, self.fleet.models(), self.fleet.memory, free
        ):
            case start_decision.StartNow():
                model.successor, start = self.fleet.start(plan)
                return [start]
            case start_decision.Wait(leave):
                model.wanted = True
                actions = [a for run in leave for a in self.fleet.drain(run, "reloaded")]
                return actions + self._advance(model, now)
            case start_decision.TooBig() as reason:
                return [KeepEngine(model.key, reason.error(model.key))]

    def _after_death(self, model: ModelState, run: EngineRun, ended: EngineExit) -> list[Action]:
        """Those who wait are served by a new engine, unless this one said why it cannot start."""
        assert ended.error is not None
        if run.state == "ready":
            model.wanted = model.wanted or run.plan.pinned
            return []
        if ended.no_memory and (ended.crashed or not model.smaller):
            # What kills it may be somebody else once; it is the system when it happens again.
            model.smaller = model.smaller or not ended.crashed or model.backoff.crashes > 1
            idle = self.fleet.least_needed()
            model.starts_after = idle.id if idle is not None else None
            return self._evict([idle], model) if idle is not None else []
        if ended.crashed:
            return []
        model.smaller = False
        return give_up(model, ended.error)

    def _drain_all(self, name: str, reason: str, now: float) -> list[Action]:
        actions: list[Action] = []
        for model in self.fleet.models(name):
            model.wanted = model.replace = False
            for run in model.runs():
                actions += self.fleet.drain(run, reason, now + self._drain_grace_s)
        return actions

    def _expire(self, model: ModelState, now: float) -> list[Action]:
        run = model.run
        if run is None or run.state != "ready" or run.is_busy() or model.queue:
            return []
        return self.fleet.drain(run, "idle") if now >= run.expires_at() else []

    def _evict(self, runs: Iterable[EngineRun], model: ModelState) -> list[Action]:
        """Make `runs` leave so that `model` has room."""
        actions: list[Action] = []
        for run in runs:
            run.evicted_for = model.key
            actions += self.fleet.drain(run, f"evicted for {model.key}")
        return actions
