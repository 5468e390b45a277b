"""llama.cpp's own paths, for clients that are made for one llama-server."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson, Stream
from myllm.api.llamacpp.schemas import (
    InfillRequest,
    PlainCompletionRequest,
    PlainEmbeddingRequest,
    UnnamedChatRequest,
    UnnamedRerankRequest,
)
from myllm.api.shared.completions import answer_chat, error_event
from myllm.api.shared.dependencies import ClientDep, Services, ServicesDep
from myllm.api.shared.reranking import answer_rerank
from myllm.api.shared.vector_schemas import each_of
from myllm.gateway.embedding import embed
from myllm.gateway.generation.answers import generating_model
from myllm.gateway.generation.native_result import picked, plain_whole
from myllm.gateway.generation.relay import Relay
from myllm.gateway.generation.sampling import LLAMA_CPP_DEFAULTS, completion_fields, resolve
from myllm.gateway.model_lookup import named
from myllm.gateway.prompt.prefixes import pieces_of_text
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import Client
from myllm.supervisor.spec import InstanceKey

router = APIRouter(tags=["llama.cpp"], route_class=CheckedRoute)


@router.post("/chat/completions")
async def chat_completions(
    request: UnnamedChatRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Answer a conversation in OpenAI's form."""
    request.model = await named(services.gateway, request.model, "generate")
    return await answer_chat(request, services, client)


@router.post("/completion")
@router.post("/completions")
async def completion(
    request: PlainCompletionRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Complete a prompt, in llama.cpp's form."""
    name = await named(services.gateway, request.model, "generate")
    return await _answer(services, client, name, "/completion", request)


@router.post("/infill")
async def infill(request: InfillRequest, services: ServicesDep, client: ClientDep) -> Response:
    """Fill in the middle, in llama.cpp's form; for models with tokens for it."""
    name = await named(services.gateway, request.model, "generate")
    return await _answer(services, client, name, "/infill", request)


@router.post("/upstream/{model:path}/infill")
async def infill_with(
    model: str, request: InfillRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Fill in the middle by a certain model."""
    return await _answer(services, client, model, "/infill", request)


@router.post("/embedding")
@router.post("/embeddings")
async def embedding(
    request: PlainEmbeddingRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """One vector for each input, in llama.cpp's form."""
    name = await named(services.gateway, request.model, "embed")
    info, inputs = request.info(client), each_of(request.content)

    async def make() -> list[dict[str, Any]]:
        made = await embed(services.gateway, info, name, inputs)
        # llama.cpp has a list of vectors for each input: one, or without pooling one per token.
        return [{"index": i, "embedding": [vector]} for i, vector in enumerate(made.vectors)]

    return DeferredJson(make)


@router.post("/rerank")
@router.post("/reranking")
async def rerank(
    request: UnnamedRerankRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """The documents' indexes and scores, the best first."""
    request.model = await named(services.gateway, request.model, "rerank")
    return answer_rerank(request, services, client)


async def _answer(
    services: Services,
    client: Client,
    name: str,
    path: str,
    request: PlainCompletionRequest | InfillRequest,
) -> Response:
    model = await generating_model(services.gateway, name)
    sampling = resolve(request.given(), model.config.parameters, LLAMA_CPP_DEFAULTS)
    body = completion_fields(sampling) | request.engine_body()
    ticket = request.info(client).ticket(InstanceKey(model.name, "generate"), Demand(path, body))
    if isinstance(request.prompt, str):
        ticket.pieces = pieces_of_text(request.prompt)
    relay = Relay(services.gateway, ticket, path, body)
    if request.stream:
        return Stream(relay.blocks, error_event, lambda: relay.phase)

    async def make() -> dict[str, Any]:
        answer = await plain_whole(relay, bool(request.return_tokens))
        return picked(answer, request.response_fields) if request.response_fields else answer

    return DeferredJson(make)
