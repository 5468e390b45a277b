"""Lists models, shows them, and loads, unloads, reloads and removes them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson
from myllm.api.native.response_schemas import ModelDetails, ModelList
from myllm.api.native.schemas import LoadRequest
from myllm.api.shared.dependencies import AdminDep, ServicesDep
from myllm.gateway.planner import without_engines
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.gateway.snapshot import Snapshot
from myllm.models.descriptions import model_details, model_summary
from myllm.models.registry import Model
from myllm.models.unused_entries import UnusedEntry, unused_entries
from myllm.supervisor.spec import InstanceKey, main_role

router = APIRouter(prefix="/api", tags=["Models"], route_class=CheckedRoute)


@router.get("/models", response_model=None, responses={200: {"model": ModelList}})
async def list_models(services: ServicesDep) -> dict[str, Any]:
    """All models. A loaded model is shown as it was when it was loaded. `problems` lists files that
    are not usable models, unless the key may use certain models only."""
    gateway = services.gateway
    models, unused = await gateway.models.all(), list[UnusedEntry]()
    if gateway.models.are_all():
        unused = await asyncio.to_thread(unused_entries, gateway.registry.models_dir)
    snapshot = services.gateway.snapshot()
    return {
        "models": [
            model_summary(each, services.context_size(each))
            | {"loaded": _is_loaded(snapshot, each)}
            for each in models
        ],
        "problems": [asdict(each) for each in unused],
    }


@router.get("/models/{name:path}", response_model=None, responses={200: {"model": ModelDetails}})
async def show_model(name: str, services: ServicesDep) -> dict[str, Any]:
    """One model, with everything known about it: of a loaded one what answers now, and in
    `warnings` what on disk is different."""
    gateway = services.gateway
    model = await gateway.models.find(name)
    plan = gateway.models.running_plan(model.name) or await gateway.planner.plan(_main_key(model))
    snapshot = gateway.snapshot()
    return model_details(model, plan.spec.context_size) | {
        "memory": {
            "estimated_mb": sum(without_engines(plan.need).values()),
            "slots": plan.spec.slots,
        },
        "loaded": _is_loaded(snapshot, model),
        "warnings": _warnings(snapshot, model),
    }


@router.post("/models/{name:path}/load")
async def load_model(
    name: str, services: ServicesDep, client: AdminDep, wish: LoadRequest | None = None
) -> Response:
    """Load a model and answer when it is ready."""
    info = RequestInfo(client, keep_alive_s=wish.keep_alive if wish else None)

    async def make() -> Mapping[str, Any]:
        fresh = await services.gateway.load(name, info)
        done = "loaded" if fresh else "was loaded already"
        return {"status": "success", "message": f"Model '{name}' {done}"}

    return DeferredJson(make)


@router.post("/models/{name:path}/unload")
async def unload_model(
    name: str,
    services: ServicesDep,
    _: AdminDep,
    force: Annotated[
        bool,
        Query(
            description="Unload it, even while it is answering; "
            "running answers get the drain grace period."
        ),
    ] = False,
) -> dict[str, str]:
    """Stop a model's engines and answer when their memory is free."""
    await services.gateway.unload(name, force)
    return {"status": "success", "message": f"Model '{name}' unloaded"}


@router.post("/models/{name:path}/reload")
async def reload_model(name: str, services: ServicesDep, _: AdminDep) -> dict[str, str]:
    """Replace a model's engines by new ones, without failing a request."""
    own_name = await services.gateway.models.name_of(name)
    model = await asyncio.to_thread(services.gateway.registry.get, own_name)
    replaced = services.gateway.reload(model.name)
    words = "is being replaced" if replaced else "is not loaded; nothing to replace"
    return {"status": "success", "message": f"Model '{name}' {words}"}


@router.post("/reload")
async def reload_all(services: ServicesDep, _: AdminDep) -> dict[str, str]:
    """Replace the engines of every model, without failing a request, and read a changed admin key
    and certificate."""
    services.reload_access()
    replaced = services.gateway.reload()
    words = f"Being replaced: {', '.join(replaced)}" if replaced else "No model is loaded"
    return {"status": "success", "message": words}


@router.delete("/models/{name:path}")
async def delete_model(
    name: str,
    services: ServicesDep,
    _: AdminDep,
    force: Annotated[bool, Query(description="Even if it is answering.")] = False,
) -> dict[str, str]:
    """Delete a model from the disk, unloading it first."""
    await services.gateway.remove(name, force)
    return {"status": "success", "message": f"Model '{name}' removed"}


def _main_key(model: Model) -> InstanceKey:
    return InstanceKey(model.name, main_role(model))


def _warnings(snapshot: Snapshot, model: Model) -> list[str]:
    return sorted({warning for each in snapshot.engines(model.name) for warning in each.warnings})


def _is_loaded(snapshot: Snapshot, model: Model) -> bool:
    return any(each.state == "ready" for each in snapshot.engines(model.name))
