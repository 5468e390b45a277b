"""What holds for every model between two events: the numbered list at the top of model_state.py."""

from __future__ import annotations

from collections.abc import Collection

from myllm.gateway.scheduling.fleet import Fleet
from myllm.gateway.scheduling.model_state import ModelState
from myllm.supervisor.spec import InstanceKey


def check_invariants(fleet: Fleet, live: Collection[int], planned: Collection[InstanceKey]) -> None:
    """`live` are the runs that have been started and have not ended, `planned` the models for
    which a plan has been requested and not yet arrived."""
    for model in fleet.models():
        _check_status(model)
        _check_runs(model)
        _check_flags(model)
        _check_tickets(model)
        assert model.planning == (model.key in planned), f"{model.key}: its plan never arrives"
    runs = [run.id for model in fleet.models() for run in model.runs()]
    assert sorted(runs) == sorted(live), "a run belongs to no model, or to two"


def check_after_tick(fleet: Fleet) -> None:
    """The sixth; the server is not shutting down."""
    for model in fleet.models():
        if model.run is None and model.is_needed():
            assert model.planning or model.pending is not None, f"{model.key} would never load"
        assert model.pending is None or model.is_needed(), f"{model.key} waits, but is not needed"


def _check_status(model: ModelState) -> None:
    has_plan = model.planning or model.pending is not None
    match model.status:
        case "absent":
            assert (model.run, has_plan, model.draining) == (None, False, [])
        case "draining":
            assert (model.run, has_plan) == (None, False)
            assert model.draining
        case "waiting":
            assert (model.run, has_plan) == (None, True)
        case "loading" | "ready" as status:
            assert model.run is not None
            assert model.run.state == status


def _check_runs(model: ModelState) -> None:
    if model.successor is not None:
        assert model.run is not None, "a successor of none"
        assert model.successor.state == "loading"
    assert all(run.state == "draining" for run in model.draining)
    runs = model.runs()
    assert len({run.id for run in runs}) == len(runs), "a run occurs twice"
    assert all(run.plan.spec.key == model.key for run in runs)


def _check_flags(model: ModelState) -> None:
    if model.run is not None:
        assert (model.wanted, model.pending, model.starts_after) == (False, None, None)
        assert not model.planning or (model.replace and model.successor is None)
        assert not model.smaller or model.run.state == "loading"
    else:
        assert not model.replace


def _check_tickets(model: ModelState) -> None:
    assert all((ticket.run, ticket.slot) == (None, None) for ticket in model.queue)
    for run in model.runs():
        for slot in run.slots:
            if slot.ticket is not None:
                assert (slot.ticket.run, slot.ticket.slot) == (run.id, slot.number)
                assert slot.ticket not in model.queue, "a request waits and is answered"
