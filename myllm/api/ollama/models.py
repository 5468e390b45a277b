"""Ollama's routes for models: listing, pulling, copying and deleting them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from myllm.api.http.streaming import DeferredJson, described
from myllm.api.ollama.routes import AnyContentType, streamed
from myllm.api.ollama.schemas import CopyRequest, NamedRequest, PullRequest
from myllm.api.shared.dependencies import AdminDep, Services, ServicesDep
from myllm.api.shared.timestamps import iso
from myllm.errors import InvalidRequest, PullFailed
from myllm.gateway.pull_progress import Step
from myllm.gateway.snapshot import EngineSnapshot
from myllm.launcher.devices import HOST
from myllm.models.copying import copy_model
from myllm.models.pull_source import PullSource, parse_reference
from myllm.models.registry import Model

router = APIRouter(prefix="/ollama", tags=["Ollama"], route_class=AnyContentType)
# The version of Ollama whose API this is: clients check it for the features that they use.
OLLAMA_VERSION: Final = "0.12.0"
_MB: Final = 2**20
_NEVER: Final = "9999-12-31T23:59:59Z"
# In a chat template that handles tools.
_TOOLS: Final = re.compile(r"\btools\b")
_OPTIONS: Final = {"max_tokens": "num_predict"}


@router.api_route("", methods=["GET", "HEAD"], include_in_schema=False)
@router.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
async def root() -> Response:
    """Liveness check for Ollama's clients."""
    return PlainTextResponse("Ollama is running")


@router.get("/api/version")
async def version() -> dict[str, str]:
    """The version of Ollama whose API this is."""
    return {"version": OLLAMA_VERSION}


@router.get("/api/tags")
async def tags(services: ServicesDep) -> dict[str, Any]:
    """All usable models, under each of their names."""
    models = await services.gateway.models.all()
    usable = [model for model in models if model.problem is None]
    return {
        "models": [
            _named(name, model) | {"modified_at": _modified(model), "size": model.size_bytes}
            for model in usable
            for name in (model.name, *model.config.aliases)
        ]
    }


@router.get("/api/ps")
async def ps(services: ServicesDep) -> dict[str, Any]:
    """The models that are loaded."""
    return {"models": list(_running(services))}


@router.post("/api/show")
async def show(request: NamedRequest, services: ServicesDep) -> dict[str, Any]:
    """Everything known about a model."""
    model = await services.gateway.models.find(request.model)
    parameters = list(_parameters(model))
    return {
        "modelfile": "\n".join([f"FROM {model.gguf}", *(f"PARAMETER {p}" for p in parameters)]),
        "parameters": "\n".join(parameters),
        "template": model.chat.text or model.config.template or "",
        "details": _details(model),
        "model_info": _info(model),
        "capabilities": list(_capabilities(model, model.chat.text or "")),
        "modified_at": _modified(model),
    }


@router.post("/api/copy")
async def copy(request: CopyRequest, services: ServicesDep, _: AdminDep) -> Response:
    """Copy a model under another name; unlike Ollama, never over an existing model."""
    registry = services.gateway.registry
    await services.gateway.models.require_on_disk(request.source)
    await asyncio.to_thread(copy_model, registry, request.source, request.destination)
    return Response()


@router.delete("/api/delete")
async def delete(request: NamedRequest, services: ServicesDep, _: AdminDep) -> Response:
    """Delete a model from the disk, unloading it first."""
    await services.gateway.remove(request.model)
    return Response()


@router.post("/api/pull", responses=described("application/x-ndjson"))
async def pull(request: PullRequest, services: ServicesDep, _: AdminDep) -> Response:
    """Download a model by its name in the catalog, or a repository of the Hugging Face hub.

    Stopped when the client leaves; the next pull continues from there.
    """
    if request.stream is not False:
        return streamed(lambda: _pulled(services, request))

    async def make() -> Mapping[str, Any]:
        async with aclosing(_pulled(services, request)) as lines:
            return [line async for line in lines][-1]

    return DeferredJson(make)


async def _pulled(
    services: Services, request: PullRequest
) -> AsyncGenerator[Mapping[str, Any], None]:
    """Yield the lines of a pull. The error for an unknown name comes second, as in Ollama."""
    yield {"status": "pulling manifest"}
    wanted = _wanted(request.model)
    async with aclosing(services.activity.pulls.steps(wanted)) as steps:
        async for step in steps:
            yield _line(step)
    yield {"status": "success"}


def _wanted(name: str) -> PullSource:
    try:
        return parse_reference(name)
    except PullFailed as unknown:
        raise InvalidRequest(unknown.detail) from None


def _line(step: Step) -> dict[str, Any]:
    if step.file is None:
        return {"status": step.status}
    digest = step.file.checksum
    short = digest.partition(":")[2][:12]
    return {
        "status": f"{step.status} {short}",
        "digest": digest,
        "total": step.file.size,
        "completed": step.completed,
    }


def _named(name: str, model: Model) -> dict[str, Any]:
    """Return what all lists show of a model; Ollama's names end in a tag."""
    tagged = name if ":" in name else f"{name}:latest"
    return {"name": tagged, "model": tagged, "digest": model.digest, "details": _details(model)}


def _details(model: Model) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": model.family,
        "families": [model.family],
        "parameter_size": _count(model.header.parameter_count),
        "quantization_level": model.quantization,
    }


def _count(parameters: int) -> str:
    """Format a number of parameters: `1.1B`, `3.2M`."""
    size, unit = (1e9, "B") if parameters >= 1e9 else (1e6, "M")
    return f"{parameters / size:.1f}{unit}"


def _modified(model: Model) -> str:
    return iso(model.modified_at)


def _running(services: Services) -> Iterator[dict[str, Any]]:
    for engine in services.gateway.snapshot().engines():
        if not engine.is_ready:
            continue
        used, spec = engine.used_mb or engine.need_mb, engine.spec
        yield _named(spec.model.name, spec.model) | {
            "size": sum(used.values()) * _MB,
            "size_vram": sum(mb for device, mb in used.items() if device != HOST) * _MB,
            "expires_at": _expires(engine),
            "context_length": spec.context_size,
        }


def _expires(engine: EngineSnapshot) -> str:
    """When it will be unloaded if no other request comes."""
    if engine.keep_alive_s is None:
        return _NEVER
    return iso(engine.expires_at or time.time() + engine.keep_alive_s)


def _parameters(model: Model) -> Iterator[str]:
    """Yield a line for each option in the model's configuration, under Ollama's names."""
    for name, value in model.config.parameters.items():
        for each in value if isinstance(value, list) else [value]:
            written = f'"{each}"' if isinstance(each, str) else each
            yield f"{_OPTIONS.get(name, name)} {written}"


def _info(model: Model) -> dict[str, Any]:
    """Return the header's figures under GGUF's names; those that are missing or 0 are left out."""
    header, arch = model.header, model.architecture
    figures = {
        "context_length": header.context_length,
        "embedding_length": header.embedding_length,
        "block_count": header.layers,
        "feed_forward_length": header.feed_forward_length,
        "attention.head_count": max(header.heads, default=0),
        "attention.head_count_kv": max(header.heads_kv, default=0),
        "attention.key_length": header.key_length,
        "attention.value_length": header.value_length,
        "vocab_size": header.vocabulary_size,
    }
    general = {"general.architecture": arch, "general.parameter_count": header.parameter_count}
    details = {f"{arch}.{name}": value for name, value in figures.items() if value}
    return general | ({"general.basename": header.name} if header.name else {}) | details


def _capabilities(model: Model, template: str) -> Iterator[str]:
    """Yield what the model can do, as far as its files show."""
    yield "embedding" if model.is_embedding_only else "completion"
    if "image" in model.input:
        yield "vision"
    if _TOOLS.search(template):
        yield "tools"
    if model.thinks:
        yield "thinking"
