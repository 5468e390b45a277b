"""The engines that run, and the models that wait for memory: what `myllm ps` shows."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.native.response_schemas import InstanceList
from myllm.api.shared.dependencies import ServicesDep
from myllm.api.shared.timestamps import iso
from myllm.gateway.snapshot import EngineSnapshot, ModelSnapshot, Snapshot

router = APIRouter(prefix="/api", tags=["Models"], route_class=CheckedRoute)


@router.get("/instances", response_model=None, responses={200: {"model": InstanceList}})
async def list_instances(services: ServicesDep) -> dict[str, Any]:
    """The engines that run now, and the models that wait for memory."""
    memory = {
        name: {
            "budget_mb": device.budget_mb,
            "taken_mb": device.taken_mb,
            "free_mb": device.free_mb,
        }
        for name, device in services.gateway.devices().items()
    }
    return {"instances": shown_instances(services.gateway.snapshot()), "memory": memory}


def shown_instances(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The engines that run, and the models that wait for one."""
    shown: list[dict[str, Any]] = []
    for model in snapshot.models:
        shown += [_running(model, engine) for engine in model.engines]
        if not model.engines and (model.is_needed or model.backoff_s):
            shown.append(_absent(model))
    return shown


def _running(model: ModelSnapshot, engine: EngineSnapshot) -> dict[str, Any]:
    return _common(model) | {
        "state": engine.state,
        "kv_restore": engine.kv_problem or True,
        "progress": round(engine.progress, 3),
        "pid": engine.pid,
        "context_size": engine.spec.context_size,
        "batch_size": engine.spec.batch,
        "slots": {"busy": engine.busy_slots, "total": engine.spec.slots},
        "queued": model.queued if engine.takes_requests else 0,
        "memory": {
            "estimated_mb": sum(engine.need_mb.values()),
            "measured_mb": sum(engine.used_mb.values()),
            "devices": engine.need_mb,
        },
        "load_seconds": round(engine.load_s, 3),
        "started_at": _iso(engine.started_at),
        "last_used_at": _iso(engine.last_used_at),
        "expires_at": _iso(engine.expires_at),
        "pinned": engine.pinned,
        "warnings": list(engine.warnings),
    }


def _absent(model: ModelSnapshot) -> dict[str, Any]:
    """A model without an engine: it waits for memory, or backs off after crashes."""
    return _common(model) | {
        "state": "backing off" if model.backoff_s else "waiting",
        "pid": None,
        "slots": {"busy": 0, "total": 0},
        "queued": model.queued,
        "memory": {"estimated_mb": sum(model.planned_mb.values()), "measured_mb": 0},
        "retry_in_seconds": model.backoff_s,
        "kv_restore": "no engine runs",
        "warnings": [],
    }


def _common(model: ModelSnapshot) -> dict[str, Any]:
    return {
        "model": model.key.model,
        "role": model.key.role,
        "restarts": model.restarts,
        "strikes": model.crashes,
        "last_error": model.last_error,
    }


def _iso(unix_time: float | None) -> str | None:
    return None if unix_time is None else iso(unix_time)
