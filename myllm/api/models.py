"""What models there are, loading and unloading them, removing them, and what runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from myllm.api.services import Services, With
from myllm.api.streaming import JsonAnswer
from myllm.models.describe import details, summary
from myllm.models.memory import estimate_mb
from myllm.models.registry import Model
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey, InstanceSpec, main_role

router = APIRouter(prefix="/api", tags=["Models"])


@router.get("/models")
async def list_models(services: With) -> dict[str, Any]:
    """All models on disk."""
    models = await asyncio.to_thread(services.gateway.registry.list)
    cap = services.settings.context_size
    return {
        "models": [summary(each, cap) | {"loaded": _is_loaded(services, each)} for each in models]
    }


@router.get("/models/{name}")
async def show_model(name: str, services: With) -> dict[str, Any]:
    """One model, with everything known about it."""
    model = await asyncio.to_thread(services.gateway.registry.get, name)
    spec = services.gateway.supervisor.spec(InstanceKey(name, main_role(model)), model)
    return details(model, services.settings.context_size) | {
        "memory": {"estimated_mb": _estimate(spec), "slots": spec.slots},
        "loaded": _is_loaded(services, model),
    }


@router.post("/models/{name}/load")
async def load_model(name: str, services: With) -> Response:
    """Load a model and answer when it is ready."""

    async def make() -> Mapping[str, Any]:
        fresh = await services.gateway.load(name)
        done = "loaded" if fresh else "was loaded already"
        return {"status": "success", "message": f"Model '{name}' {done}"}

    return JsonAnswer(make)


@router.post("/models/{name}/unload")
async def unload_model(
    name: str,
    services: With,
    force: Annotated[bool, Query(description="Let running answers end first.")] = False,
) -> dict[str, str]:
    """Stop a model's engines and answer when their memory is free."""
    await services.gateway.unload(name, force)
    return {"status": "success", "message": f"Model '{name}' unloaded"}


@router.delete("/models/{name}")
async def delete_model(
    name: str,
    services: With,
    force: Annotated[bool, Query(description="Even if it is answering.")] = False,
) -> dict[str, str]:
    """Delete a model from the disk, unloading it first."""
    await services.gateway.remove(name, force)
    return {"status": "success", "message": f"Model '{name}' removed"}


@router.get("/instances")
async def list_instances(services: With) -> dict[str, Any]:
    """The engines that run now."""
    return {"instances": [_instance(services, each) for each in services.gateway.supervisor]}


def _is_loaded(services: Services, model: Model) -> bool:
    return any(
        instance.spec.key.model == model.name and instance.state == "ready"
        for instance in services.gateway.supervisor
    )


def _instance(services: Services, instance: Instance) -> dict[str, Any]:
    spec, scheduler = instance.spec, services.gateway.scheduler
    history = services.gateway.supervisor.history(spec.key)
    return {
        "model": spec.key.model,
        "role": spec.key.role,
        "state": instance.state,
        "progress": round(instance.progress, 3),
        "pid": instance.pid,
        "context_size": spec.context_size,
        "batch_size": spec.batch,
        "slots": {"busy": scheduler.busy(spec.key), "total": spec.slots},
        "queued": scheduler.queued(spec.key),
        "memory": {
            "estimated_mb": _estimate(spec),
            "measured_mb": instance.rss_mb,
        },
        "load_seconds": round(instance.load_seconds, 3),
        "started_at": _iso(instance.started_at),
        "last_used_at": _iso(instance.last_used_at),
        "expires_at": None,
        "pinned": False,
        "restarts": history.starts - 1,
        "last_error": history.last_error,
        "kv_restore": "conversations are kept in memory only",
    }


def _estimate(spec: InstanceSpec) -> int:
    return estimate_mb(spec.model, spec.context_size, spec.slots, spec.physical_batch)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
