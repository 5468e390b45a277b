"""Which request the death of an engine is blamed on, and what that means for the others."""

from __future__ import annotations

from myllm.errors import EngineDied, Poison
from myllm.gateway.scheduling.engine_run import EngineRun
from myllm.gateway.scheduling.model_state import ModelState
from myllm.gateway.scheduling.poisons import Poisons
from myllm.gateway.scheduling.suspects import DepartedRequest
from myllm.gateway.scheduling.tickets import EngineExit, Ticket


class Blame:
    """Tells the suspects of each model what happens to its requests and engines, and records in
    `poisons` what follows from it. `now` is a monotonic time in seconds."""

    def __init__(self, poisons: Poisons) -> None:
        self._poisons = poisons

    def delivered(self, model: ModelState, ticket: Ticket, now: float) -> bool:
        """An engine has given `ticket` something new. True if a trial held up the other requests
        until now."""
        was_held_up = model.suspects.holds_up(now)
        self._poisons.suspect(model.suspects.delivered(ticket), now)
        return was_held_up

    def left(self, model: ModelState, run: EngineRun | None, ticket: Ticket, now: float) -> None:
        """`ticket` is over; if its client left too soon, remember what it asked of `run`."""
        if run is None and not ticket.gave_up:
            return  # its engine died, and it will come back
        departed = None
        if ticket.gave_up and (run is None or ticket.answered_by != run.id):
            departed = DepartedRequest.of(ticket, now)
        if run is not None and departed is not None:
            run.departed.append(departed)
        self._poisons.suspect(model.suspects.left(ticket, departed), now)

    def judge(self, model: ModelState, run: EngineRun, ended: EngineExit, now: float) -> bool:
        """Find the request that killed `run`. Tickets that get no other engine have their `verdict`
        from then on. True if a request explains the death, so that it does not count against the
        model."""
        assert ended.error is not None
        by_itself = not (ended.from_outside or ended.no_memory)
        on_trial = model.suspects.on_trial
        verdict = model.suspects.died(run.id, run.tickets(), run.departed, by_itself=by_itself)
        for ticket in verdict.hopeless:
            ticket.verdict = EngineDied(ended.error.detail)
        if by_itself:
            tried = [DepartedRequest.of(each, now) for each in verdict.hopeless if each is on_trial]
            self._poisons.suspect([*verdict.alone, *filter(None, tried)], now)
        if (guilty := verdict.convicted) is not None:
            self._poisons.convict(guilty, now)
            guilty.verdict = Poison(
                f"The engine of model '{model.key}' died again while it worked on this request "
                f"and on nothing else, so the request is not tried again: {ended.error.detail}"
            )
        return verdict.is_explained
