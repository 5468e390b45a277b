"""OpenAI's dialect: chat completions, completions, models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from myllm.api.http.fast_path import fast_path
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.openai.schemas import CompletionRequest
from myllm.api.shared.completion_schemas import ChatCompletionRequest
from myllm.api.shared.completions import answer, answer_chat, count_tokens, relays_for
from myllm.api.shared.conversation import naming
from myllm.api.shared.dependencies import ClientDep, ServicesDep
from myllm.api.shared.model_list import all_models, shown_model
from myllm.gateway.generation.answers import generating_model
from myllm.gateway.generation.relay import Relay
from myllm.gateway.generation.text_relays import INFILL, EchoingRelay, InfillRelay
from myllm.gateway.model_lookup import named
from myllm.gateway.scheduling.tickets import Ticket

router = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=CheckedRoute)
COMPLETIONS = "/v1/completions"


@router.post("/chat/completions")
@fast_path
async def chat_completions(
    request: ChatCompletionRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Answer a conversation with the model's chat template."""
    return await answer_chat(request, services, client)


@router.post("/completions")
@fast_path
async def completions(
    request: CompletionRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Complete a prompt as it is, or several."""
    gateway, info = services.gateway, request.info(client)
    model = await generating_model(gateway, request.model or await named(gateway, "", "generate"))
    path = INFILL if request.suffix else COMPLETIONS

    def make(ticket: Ticket, body: dict[str, Any]) -> Relay:
        if request.suffix:
            return InfillRelay(gateway, ticket, body, "stream_options" in body)
        kind = EchoingRelay if request.echo else Relay
        return kind(gateway, ticket, path, body)

    relays = relays_for(request, info, model, path, request.wire_prompts(), make)
    return naming(info, answer(relays, request))


@router.post("/chat/completions/input_tokens")
async def chat_input_tokens(
    request: ChatCompletionRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """How many tokens the prompt of a conversation has."""
    return await count_tokens(request, services, client)


@router.get("/models")
async def list_models(services: ServicesDep) -> dict[str, Any]:
    """All models that can be used, and their aliases."""
    return await all_models(services)


@router.get("/models/{name:path}")
async def show_model(name: str, services: ServicesDep) -> dict[str, Any]:
    """One model, by its name or an alias."""
    return shown_model(services, name, await services.gateway.models.find(name))
