"""Anthropic's dialect: messages, and counting their tokens."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from myllm.api.anthropic.answers import MessageEvents, error_event, head, whole
from myllm.api.anthropic.schemas import CountTokensRequest, MessagesRequest
from myllm.api.anthropic.translate import fields_of, translated
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson, Stream, described, to_the_end
from myllm.api.shared.conversation import naming, prepared
from myllm.api.shared.dependencies import ClientDep, ServicesDep
from myllm.api.shared.translated_chat import Chat, start_chat
from myllm.gateway.engine_questions import count_chat_tokens
from myllm.gateway.generation.sampling import OPENAI_DEFAULTS
from myllm.gateway.model_lookup import chatting_model

router = APIRouter(prefix="/v1/messages", tags=["Anthropic"], route_class=CheckedRoute)
_DEFAULTS = OPENAI_DEFAULTS  # which are Anthropic's, too


@router.post("", responses=described("text/event-stream"))
async def messages(request: MessagesRequest, services: ServicesDep, client: ClientDep) -> Response:
    """Answer a conversation with the model's chat template."""
    info = request.info(client)
    wire = await translated(request, info.ignored)
    fields = fields_of(request, info.ignored)
    chat = Chat(wire, request.options(), _DEFAULTS, fields)
    _, answer = await start_chat(services, info, request.model, chat)
    if not request.stream:

        async def make() -> Mapping[str, Any]:
            return head(request) | whole(await to_the_end(answer), request)

        return naming(info, DeferredJson(make))

    async def frames() -> AsyncGenerator[bytes, None]:
        made = MessageEvents(request)
        begun = False
        async with aclosing(answer.events()) as events:
            async for each in events:
                if not begun:
                    begun = True
                    yield made.begin(answer.prompt_usage)
                yield made.take(each)

    return naming(info, Stream(frames, error_event, lambda: answer.phase))


@router.post("/count_tokens")
async def count_tokens(
    request: CountTokensRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """How many tokens the prompt of a conversation has."""
    model = await chatting_model(services.gateway, request.model)
    gateway, info = services.gateway, request.info(client)
    fields = fields_of(request, info.ignored)
    raw = await translated(request, info.ignored)
    wire = await prepared(services, info, model.name, raw)

    async def make() -> Mapping[str, Any]:
        tokens = await count_chat_tokens(gateway, info, model, {"messages": wire, **fields})
        return {"input_tokens": tokens}

    return naming(info, DeferredJson(make))
