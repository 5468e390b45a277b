"""OpenAI's dialect: chat completions, completions, models.

A stream with one choice is the engine's own, passed on byte by byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from myllm.api.errors.envelopes import envelope
from myllm.api.errors.handlers import status_of
from myllm.api.http.fast_path import fast_path
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson, Stream
from myllm.api.openai.schemas import ChatCompletionRequest, CompletionRequest
from myllm.api.shared.dependencies import ClientDep, ServicesDep
from myllm.errors import MyLLMError
from myllm.gateway.engine_io.sse import event
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.answers import generating_model
from myllm.gateway.generation.chat_route import CHAT, new_call_id, wire_calls
from myllm.gateway.generation.deltas import StreamedAnswer
from myllm.gateway.generation.multi_choice import FanOut, all_whole, sum_usage
from myllm.gateway.generation.relay import Relay
from myllm.gateway.generation.sampling import OPENAI_DEFAULTS, resolve
from myllm.gateway.model_lookup import chatting_model
from myllm.gateway.prompt.prefixes import Pieces, pieces_of_text, pieces_of_wire
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.models.registry import Model
from myllm.supervisor.spec import InstanceKey

router = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=CheckedRoute)
_Request = ChatCompletionRequest | CompletionRequest
COMPLETIONS = "/v1/completions"


@router.post("/chat/completions")
@fast_path
async def chat_completions(
    request: ChatCompletionRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Answer a conversation with the model's chat template."""
    messages = [message.wire() for message in request.messages]
    messages = await services.media.checked(request.model, messages)
    prompt = {"messages": messages}, pieces_of_wire(messages)
    info = request.info(client)
    relays = await _relays(services.gateway, info, CHAT, [prompt], request)
    return _answer(relays, request)


@router.post("/completions")
@fast_path
async def completions(
    request: CompletionRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """Complete a prompt as it is, or several."""
    prompts = [
        ({"prompt": prompt}, pieces_of_text(prompt) if isinstance(prompt, str) else ())
        for prompt in request.prompts()
    ]
    info = request.info(client)
    relays = await _relays(services.gateway, info, COMPLETIONS, prompts, request)
    return _answer(relays, request)


@router.get("/models")
async def list_models(services: ServicesDep) -> dict[str, Any]:
    """All models that can be used, and their aliases."""
    models = await services.gateway.models.all()
    usable = [model for model in models if model.problem is None]
    named = [(name, model) for model in usable for name in (model.name, *model.config.aliases)]
    return {"object": "list", "data": [_shown(name, model) for name, model in named]}


@router.get("/models/{name:path}")
async def show_model(name: str, services: ServicesDep) -> dict[str, Any]:
    """One model, by its name or an alias."""
    return _shown(name, await services.gateway.models.find(name))


async def _relays(
    gateway: Gateway,
    info: RequestInfo,
    path: str,
    prompts: Sequence[tuple[dict[str, Any], Pieces]],
    request: _Request,
) -> list[Relay]:
    """One relay for each choice of each prompt; choices differ in their seeds."""
    find = chatting_model if path == CHAT else generating_model
    model = await find(gateway, request.model)
    body = resolve(request.given(), model.config.parameters, OPENAI_DEFAULTS)
    choices, made = request.n or 1, []
    if not request.stream or request.tells_usage() or choices * len(prompts) > 1:
        body["stream_options"] = {"include_usage": True}
    demand = Demand(path, body | {"prompts": [prompt for prompt, _ in prompts]})
    for prompt, pieces in prompts:
        for number in range(choices):
            ticket = info.ticket(InstanceKey(model.name, "generate"), demand)
            ticket.pieces = pieces
            seed = (body["seed"] + number) % 2**32
            made.append(Relay(gateway, ticket, path, body | prompt | {"seed": seed}))
    return made


def _answer(relays: Sequence[Relay], request: _Request) -> Response:
    choices = request.n or 1
    if request.stream:
        several = FanOut(relays, choices, request.tells_usage()) if len(relays) > 1 else None
        source = several or relays[0]
        return Stream(source.blocks, error_event, lambda: source.phase)

    async def make() -> Mapping[str, Any]:
        said = await all_whole(relays)
        usage = sum_usage([each.usage for each in said], choices)
        made = [_choice(index, each) for index, each in enumerate(said)]
        return completion_head(said[0]) | {"choices": made, "usage": usage}

    return DeferredJson(make)


def completion_head(said: StreamedAnswer) -> dict[str, Any]:
    """What a whole answer begins with."""
    kind = "chat.completion" if said.form == "chat" else "text_completion"
    return said.head | {"object": kind}


def _choice(index: int, said: StreamedAnswer) -> dict[str, Any]:
    logprobs = {"content": said.logprobs} if said.logprobs else None
    choice = {"index": index, "finish_reason": said.finish_reason, "logprobs": logprobs}
    if said.form == "text":
        return choice | {"text": said.text}
    return choice | {"message": message_of(said)}


def message_of(said: StreamedAnswer) -> dict[str, Any]:
    """A whole answer as a message."""
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    if said.thinking:
        message["reasoning_content"] = said.thinking
    if said.calls:
        message["content"] = said.text or None
        calls = [said.calls[index] for index in sorted(said.calls)]
        message["tool_calls"] = wire_calls(
            replace(call, id=call.id or new_call_id()) for call in calls
        )
    return message


def error_event(error: MyLLMError) -> bytes:
    """An error in the middle of a stream."""
    return event(envelope("openai", status_of(error), error.detail, error))


def _shown(name: str, model: Model) -> dict[str, Any]:
    created = int(model.modified_at)
    return {"id": name, "object": "model", "created": created, "owned_by": "myllm"}
