"""llama.cpp's own paths, for clients that are made for one llama-server."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from myllm.api.errors.envelopes import envelope
from myllm.api.errors.handlers import status_of
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson, Stream
from myllm.api.llamacpp.sampling_schemas import SampledRequest
from myllm.api.llamacpp.schemas import (
    InfillRequest,
    MediaPrompt,
    PlainCompletionRequest,
    PlainEmbeddingRequest,
    Prompt,
)
from myllm.api.shared.completion_schemas import ChatCompletionRequest
from myllm.api.shared.completions import answer_chat, count_tokens
from myllm.api.shared.conversation import naming
from myllm.api.shared.dependencies import ClientDep, Services, ServicesDep
from myllm.api.shared.reranking import answer_rerank
from myllm.api.shared.vector_schemas import RerankRequest
from myllm.errors import InvalidRequest, MyLLMError
from myllm.gateway.embedding import embed
from myllm.gateway.engine_io.sse import event
from myllm.gateway.generation.answers import generating_model
from myllm.gateway.generation.native_result import picked, plain_blocks, plain_list
from myllm.gateway.generation.relay import Relay
from myllm.gateway.generation.sampling import LLAMA_CPP_DEFAULTS, completion_fields, resolve
from myllm.gateway.model_lookup import named
from myllm.gateway.prompt.prefixes import pieces_of_text
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.launcher.media_marker import with_marker
from myllm.models.registry import Model
from myllm.supervisor.spec import InstanceKey

router = APIRouter(tags=["llama.cpp"], route_class=CheckedRoute)


@router.post("/chat/completions")
async def chat_completions(
    request: ChatCompletionRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Answer a conversation in OpenAI's form."""
    return await answer_chat(request, services, client)


@router.post("/chat/completions/input_tokens")
async def chat_input_tokens(
    request: ChatCompletionRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """How many tokens the prompt of a conversation has."""
    return await count_tokens(request, services, client)


@router.post("/completion")
@router.post("/completions")
async def completion(
    request: PlainCompletionRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Complete a prompt, in llama.cpp's form."""
    model = await _model(services, request.model)
    prompts = [await _prompt(services, model, each) for each in request.prompt]
    return _answer(services, request.info(client), model, "/completion", prompts, request)


@router.post("/infill")
async def infill(request: InfillRequest, services: ServicesDep, client: ClientDep) -> Response:
    """Fill in the middle, in llama.cpp's form; for models with tokens for it."""
    model = await _model(services, request.model)
    return _answer(services, request.info(client), model, "/infill", [request.texts()], request)


@router.post("/upstream/{model:path}/infill")
async def infill_with(
    model: str, request: InfillRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Fill in the middle by a certain model."""
    return await infill(request.model_copy(update={"model": model}), services, client)


@router.post("/embedding")
@router.post("/embeddings")
async def embedding(
    request: PlainEmbeddingRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """One vector for each input, in llama.cpp's form."""
    name = await named(services.gateway, request.model, "embed")
    info, inputs = request.info(client), request.content

    async def make() -> list[dict[str, Any]]:
        made = await embed(services.gateway, info, name, inputs)
        # llama.cpp has a list of vectors for each input: one, or without pooling one per token.
        return [{"index": i, "embedding": [vector]} for i, vector in enumerate(made.vectors)]

    return DeferredJson(make)


@router.post("/rerank")
@router.post("/reranking")
async def rerank(request: RerankRequest, services: ServicesDep, client: ClientDep) -> Response:
    """The documents' indexes and scores, the best first."""
    return await answer_rerank(request, services, client)


async def _model(services: Services, name: str) -> Model:
    return await generating_model(services.gateway, await named(services.gateway, name, "generate"))


async def _prompt(services: Services, model: Model, prompt: Prompt) -> dict[str, Any]:
    """Return the engine's field for a prompt; raises InvalidRequest for media it cannot have."""
    if not isinstance(prompt, MediaPrompt):
        return {"prompt": prompt}
    if not prompt.multimodal_data:
        return {"prompt": prompt.prompt_string}
    text = prompt.prompt_string
    if not isinstance(text, str):
        raise InvalidRequest("prompt_string must be a text if there is multimodal_data")
    data = await services.media.raw(model, prompt.multimodal_data)
    return {"prompt": {"prompt_string": with_marker(text), "multimodal_data": data}}


def _answer(
    services: Services,
    info: RequestInfo,
    model: Model,
    path: str,
    prompts: Sequence[dict[str, Any]],
    request: SampledRequest,
) -> Response:
    """Return the answers to all prompts; one alone is not in a list, as in llama-server."""
    sampling = resolve(request.given(), model.config.parameters, LLAMA_CPP_DEFAULTS)
    body = completion_fields(sampling)
    demand = Demand(path, body | {"prompts": prompts}, request.n_cmpl * len(prompts))
    relays = []
    for prompt in prompts:
        for number in range(request.n_cmpl):
            ticket = info.ticket(InstanceKey(model.name, "generate"), demand)
            ticket.shares_prompt = number > 0
            if isinstance(prompt["prompt"], str):
                ticket.pieces = pieces_of_text(prompt["prompt"])
            seed = (body["seed"] + number) % 2**32
            relays.append(Relay(services.gateway, ticket, path, body | prompt | {"seed": seed}))
    if request.stream:
        blocks = relays[0].blocks if len(relays) == 1 else partial(plain_blocks, relays)
        return naming(info, Stream(blocks, _error_event, lambda: relays[0].phase))

    async def make() -> Any:
        answers = await plain_list(relays, bool(request.return_tokens))
        if request.response_fields:
            answers = [picked(each, request.response_fields) for each in answers]
        return answers if len(answers) > 1 else answers[0]

    return naming(info, DeferredJson(make))


def _error_event(error: MyLLMError) -> bytes:
    return event(envelope("llamacpp", status_of(error), error.detail, error))
