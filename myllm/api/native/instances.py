"""The engines that run, and the models that wait for room: what `myllm ps` shows."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.native.response_schemas import InstanceList
from myllm.api.shared.dependencies import Services, ServicesDep
from myllm.api.shared.timestamps import iso
from myllm.gateway.planner import without_engines
from myllm.gateway.scheduling.engine_run import FOREVER, EngineRun
from myllm.gateway.scheduling.model_state import ModelState
from myllm.supervisor.devices import MemoryByDevice

router = APIRouter(prefix="/api", tags=["Models"], route_class=CheckedRoute)


@router.get("/instances", response_model=None, responses={200: {"model": InstanceList}})
async def list_instances(services: ServicesDep) -> dict[str, Any]:
    """The engines that run now, and the models that wait for memory."""
    shown: list[dict[str, Any]] = []
    for model in services.gateway.scheduler.fleet.models():
        shown += [_running(services, model, run) for run in model.runs()]
        asked_for = model.is_asked_for() or model.backoff.pause_s(time.monotonic())
        if not model.runs() and asked_for:
            shown.append(_absent(services, model))
    return {"instances": shown, "memory": _memory(services)}


def _running(services: Services, model: ModelState, run: EngineRun) -> dict[str, Any]:
    instance = services.gateway.supervisor.get(run.id)
    spec, now = run.plan.spec, time.monotonic()
    expires_at = run.expires_at() if run.state == "ready" and not run.is_busy() else FOREVER
    return _common(services, model) | {
        "state": instance.state if instance else run.state,
        "kv_restore": services.gateway.conversations.problem(spec) or True,
        "progress": round(instance.progress, 3) if instance else 0.0,
        "pid": instance.pid if instance else None,
        "context_size": spec.context_size,
        "batch_size": spec.batch,
        "slots": {"busy": len(run.tickets()), "total": spec.slots},
        "queued": len(model.queue) if run is model.run else 0,
        "memory": {
            "estimated_mb": _sum(run.plan.need),
            "measured_mb": _sum(instance.used) if instance else 0,
            "devices": without_engines(run.plan.need),
        },
        "load_seconds": round(instance.load_seconds, 3) if instance else 0.0,
        "started_at": iso(instance.started_at) if instance else None,
        "last_used_at": iso(instance.last_used_at) if instance else None,
        "expires_at": None if expires_at == FOREVER else iso(time.time() + expires_at - now),
        "pinned": run.plan.pinned,
        "warnings": list(instance.warnings) if instance else [],
    }


def _absent(services: Services, model: ModelState) -> dict[str, Any]:
    """A model that has no engine: it waits for memory, or backs off."""
    pause_s = model.backoff.pause_s(time.monotonic())
    return _common(services, model) | {
        "state": "backing off" if pause_s else "waiting",
        "pid": None,
        "slots": {"busy": 0, "total": 0},
        "queued": len(model.queue),
        "memory": {"estimated_mb": _sum(model.plan.need) if model.plan else 0, "measured_mb": 0},
        "retry_in_seconds": pause_s,
        "kv_restore": "no engine runs",
        "warnings": [],
    }


def _common(services: Services, model: ModelState) -> dict[str, Any]:
    history = services.gateway.supervisor.history(model.key)
    return {
        "model": model.key.model,
        "role": model.key.role,
        "restarts": max(0, history.starts - 1),
        "strikes": model.backoff.crashes,
        "last_error": history.last_error,
    }


def _memory(services: Services) -> dict[str, Any]:
    """The budget and what is taken of it, in MiB per device."""
    budget, free = services.gateway.scheduler.fleet.memory, services.gateway.planner.free({})
    taken = budget.taken()
    return {
        device: {
            "budget_mb": budget.limits.get(device),
            "taken_mb": int(taken.get(device, 0)),
            "free_mb": mb,
        }
        for device, mb in free.items()
    }


def _sum(need: MemoryByDevice) -> int:
    return sum(without_engines(need).values())
