"""Completions in OpenAI's form, which llama.cpp's dialect answers with, too.

A stream with one choice is the engine's own, passed on byte by byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.responses import Response

from myllm.api.errors.envelopes import envelope
from myllm.api.errors.handlers import status_of
from myllm.api.http.streaming import DeferredJson, Stream
from myllm.api.shared.completion_schemas import ChatCompletionRequest, SampledRequest
from myllm.api.shared.conversation import naming, prepared
from myllm.api.shared.dependencies import Services
from myllm.errors import MyLLMError
from myllm.gateway.engine_io.sse import event
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.answers import generating_model
from myllm.gateway.generation.chat_route import new_call_id, wire_calls
from myllm.gateway.generation.deltas import StreamedAnswer
from myllm.gateway.generation.multi_choice import FanOut, all_whole, sum_usage
from myllm.gateway.generation.relay import CHAT, Relay
from myllm.gateway.generation.sampling import OPENAI_DEFAULTS, resolve
from myllm.gateway.model_lookup import chatting_model
from myllm.gateway.prompt.prefixes import Pieces, pieces_of_wire
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import Client, RequestInfo
from myllm.supervisor.spec import InstanceKey


async def answer_chat(
    request: ChatCompletionRequest, services: Services, client: Client
) -> Response:
    """Return the answer to a conversation, a stream or a whole one, in OpenAI's form."""
    raw = [message.wire() for message in request.messages]
    info = request.info(client)
    messages = await prepared(services, info, request.model, raw)
    prompt = {"messages": messages}, pieces_of_wire(messages)
    relays = await relays_for(services.gateway, info, CHAT, [prompt], request)
    return naming(info, answer(relays, request))


async def relays_for(
    gateway: Gateway,
    info: RequestInfo,
    path: str,
    prompts: Sequence[tuple[dict[str, Any], Pieces]],
    request: SampledRequest,
) -> list[Relay]:
    """Return one relay for each choice of each prompt; choices differ in their seeds.

    Raises ModelNotFound, and InvalidRequest for what the model cannot do.
    """
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


def answer(relays: Sequence[Relay], request: SampledRequest) -> Stream | DeferredJson:
    """Return the relays' choices, one each, as a stream or as one JSON document."""
    choices = request.n or 1
    if request.stream:
        several = FanOut(relays, choices, request.tells_usage()) if len(relays) > 1 else None
        source = several or relays[0]
        return Stream(source.blocks, error_event, lambda: source.phase)

    async def make() -> Mapping[str, Any]:
        answers = await all_whole(relays)
        usage = sum_usage([each.usage for each in answers], choices)
        made = [_choice(index, each) for index, each in enumerate(answers)]
        return _head(answers[0]) | {"choices": made, "usage": usage}

    return DeferredJson(make)


def _head(answer: StreamedAnswer) -> dict[str, Any]:
    """Return the fields of a whole answer that all choices share."""
    kind = "chat.completion" if answer.form == "chat" else "text_completion"
    return answer.head | {"object": kind}


def _choice(index: int, answer: StreamedAnswer) -> dict[str, Any]:
    logprobs = {"content": answer.logprobs} if answer.logprobs else None
    choice = {"index": index, "finish_reason": answer.finish_reason, "logprobs": logprobs}
    if answer.form == "text":
        return choice | {"text": answer.text}
    return choice | {"message": _message(answer)}


def _message(answer: StreamedAnswer) -> dict[str, Any]:
    """Return a whole answer as a message."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text}
    if answer.thinking:
        message["reasoning_content"] = answer.thinking
    if answer.calls:
        message["content"] = answer.text or None
        calls = [answer.calls[index] for index in sorted(answer.calls)]
        message["tool_calls"] = wire_calls(
            replace(call, id=call.id or new_call_id()) for call in calls
        )
    return message


def error_event(error: MyLLMError) -> bytes:
    """Return the event for an error in the middle of a stream."""
    return event(envelope("openai", status_of(error), error.detail, error))
