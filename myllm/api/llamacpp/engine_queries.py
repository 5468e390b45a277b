"""Queries to a model's engine: its properties, tokens and template, its counters and slots.

An engine's other routes (changing slots, adapters, properties) are not for clients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson, DeferredResponse
from myllm.api.llamacpp.schemas import DetokenizeRequest, TemplateRequest, TokenizeRequest
from myllm.api.shared.bounded import Name
from myllm.api.shared.conversation import naming, prepared
from myllm.api.shared.dependencies import AdminDep, ClientDep, Services, ServicesDep
from myllm.api.shared.model_list import all_models
from myllm.errors import InvalidRequest, NotFound
from myllm.gateway.client import Client
from myllm.gateway.conversation.messages import RawMessages
from myllm.gateway.engine_questions import query, render_chat
from myllm.gateway.model_lookup import chatting_model, named
from myllm.gateway.scheduling.tickets import RequestInfo

router = APIRouter(tags=["llama.cpp"], route_class=CheckedRoute)
_METRICS = "text/plain; version=0.0.4"
# A list of what is shown: other properties reveal paths, and new engines may add such properties.
_PROPERTIES = (
    *("default_generation_settings", "total_slots", "model_alias", "model_ftype", "modalities"),
    *("media_marker", "endpoint_slots", "endpoint_props", "endpoint_metrics", "chat_template"),
    *("chat_template_caps", "chat_template_tool_use", "bos_token", "eos_token", "build_info"),
    *("is_sleeping",),
)
# No client sees the texts of a slot. Only its owner sees the parameters of the request: counts of
# tokens, some of them cached, and the seed.
_PRIVATE = ("prompt", "generated")
_PUBLIC = ("id", "n_ctx", "is_processing", "speculative")
_ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@router.get("/models")
async def models(services: ServicesDep) -> dict[str, Any]:
    """All models that can be used, and their aliases."""
    return await all_models(services)


@router.get("/props")
@router.get("/upstream/{model:path}/props")
async def properties(services: ServicesDep, client: ClientDep, model: Name = "") -> Response:
    """What llama-server reports about a model and itself."""
    name = await named(services.gateway, model)

    async def make() -> dict[str, Any]:
        reported = orjson.loads(await _get(services, client, name, "/props"))
        return {key: reported[key] for key in _PROPERTIES if key in reported}

    return DeferredJson(make)


@router.get("/slots")
@router.get("/upstream/{model:path}/slots")
async def slots(services: ServicesDep, client: ClientDep, model: Name = "") -> Response:
    """What each slot of the engine is doing."""
    name = await named(services.gateway, model)

    async def make() -> list[dict[str, Any]]:
        reply = orjson.loads(await _get(services, client, name, "/slots"))
        owners = services.gateway.slot_owners(name)
        return [_shown(slot, owners.get(slot["id"]) == client.owner) for slot in reply]

    return DeferredJson(make)


@router.get("/upstream/{model:path}/metrics")
async def metrics(model: str, services: ServicesDep, client: AdminDep) -> Response:
    """The engine's counters, in Prometheus' text format."""

    async def make() -> Response:
        reply = await _get(services, client, model, "/metrics")
        return Response(reply, media_type=_METRICS)

    return DeferredResponse(make)


@router.post("/tokenize")
@router.post("/upstream/{model:path}/tokenize")
async def tokenize(
    request: TokenizeRequest, services: ServicesDep, client: ClientDep, model: Name = ""
) -> Response:
    """The tokens of a text."""
    name = await named(services.gateway, model or request.model)
    await _check(services, name, request.content)
    fields = {"content", "add_special", "parse_special", "with_pieces"}
    body = request.model_dump(include=fields)
    return await _posted(services, request.info(client), name, "/tokenize", body)


@router.post("/detokenize")
@router.post("/upstream/{model:path}/detokenize")
async def detokenize(
    request: DetokenizeRequest, services: ServicesDep, client: ClientDep, model: Name = ""
) -> Response:
    """The text of tokens."""
    name = await named(services.gateway, model or request.model)
    await _check(services, name, request.tokens)
    body = {"tokens": request.tokens}
    return await _posted(services, request.info(client), name, "/detokenize", body)


@router.post("/apply-template")
@router.post("/upstream/{model:path}/apply-template")
async def apply_template(
    request: TemplateRequest, services: ServicesDep, client: ClientDep, model: Name = ""
) -> Response:
    """The prompt that the model's template makes of a chat."""
    name = await named(services.gateway, model or request.model, "generate")
    messages = cast(RawMessages, request.messages)
    more = {"messages", "model", "keep_alive", "priority"}
    body = request.model_dump(exclude_none=True, exclude=more)
    info = request.info(client)
    body["messages"] = await prepared(services, info, name, messages)
    gateway = services.gateway
    rendering = await chatting_model(gateway, name)

    async def make() -> dict[str, str]:
        return {"prompt": await render_chat(gateway, info, rendering, body)}

    return naming(info, DeferredJson(make))


@router.api_route("/upstream/{rest:path}", methods=_ALL_METHODS, include_in_schema=False)
async def nothing_else(rest: str) -> Response:
    """Answer 404 for an engine's other routes."""
    raise NotFound(
        f"No such route: /upstream/{rest}; a model's engine answers GET props, metrics and slots, "
        "and POST tokenize, detokenize, apply-template and infill"
    )


def _shown(slot: dict[str, Any], own: bool) -> dict[str, Any]:
    return {k: v for k, v in slot.items() if (k not in _PRIVATE if own else k in _PUBLIC)}


async def _check(services: Services, name: str, content: str | Sequence[int | str]) -> None:
    """Raise InvalidRequest for a token that the model does not have: the engine would fail."""
    if isinstance(content, str):
        return
    known = (await services.gateway.models.find(name)).header.vocabulary_size
    highest = max((token for token in content if isinstance(token, int)), default=0)
    if known and highest >= known:
        raise InvalidRequest(f"There is no token {highest}: the model knows {known} tokens")


async def _get(services: Services, client: Client, name: str, path: str) -> bytes:
    gateway = services.gateway
    return await query(gateway, RequestInfo(client), await gateway.models.find(name), path)


async def _posted(
    services: Services, info: RequestInfo, name: str, path: str, body: dict[str, Any]
) -> Response:
    gateway = services.gateway
    model = await gateway.models.find(name)

    async def make() -> Response:
        reply = await query(gateway, info, model, path, body)
        return Response(reply, media_type="application/json")

    return DeferredResponse(make)
