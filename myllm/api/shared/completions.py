"""Completions in OpenAI's form, which llama.cpp's dialect answers with, too.

A stream with one choice is the engine's own, passed on byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from starlette.responses import Response

from myllm.api.errors.envelopes import envelope
from myllm.api.errors.handlers import status_of
from myllm.api.http.streaming import DeferredJson, Stream
from myllm.api.shared.completion_schemas import ChatCompletionRequest, SampledRequest
from myllm.api.shared.conversation import naming, prepared
from myllm.api.shared.dependencies import Services
from myllm.api.shared.function_calls import FunctionCalls, Source, in_old_form
from myllm.errors import MyLLMError
from myllm.gateway.client import Client
from myllm.gateway.conversation.messages import Messages, RawMessages
from myllm.gateway.engine_io.sse import event
from myllm.gateway.engine_questions import count_chat_tokens
from myllm.gateway.generation.chat_route import new_call_id, wire_calls
from myllm.gateway.generation.deltas import StreamedAnswer
from myllm.gateway.generation.multi_choice import FanOut, all_whole, sum_usage
from myllm.gateway.generation.relay import CHAT, Relay
from myllm.gateway.generation.sampling import OPENAI_DEFAULTS, resolve
from myllm.gateway.model_lookup import chatting_model, named
from myllm.gateway.prompt.prefixes import Pieces, pieces_of_wire
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import RequestInfo, Ticket
from myllm.models.registry import Model
from myllm.supervisor.spec import InstanceKey

MakeRelay = Callable[[Ticket, dict[str, Any]], Relay]
"""Returns the answer to a body for the engine."""


async def answer_chat(
    request: ChatCompletionRequest, services: Services, client: Client
) -> Response:
    """Return the answer to a conversation, a stream or a whole one, in OpenAI's form."""
    gateway, info = services.gateway, request.info(client)
    model, messages = await _conversation(request, services, info)
    prompt = {"messages": messages}, pieces_of_wire(messages)
    relays = relays_for(
        request,
        info,
        model,
        CHAT,
        [prompt],
        lambda ticket, body: Relay(gateway, ticket, CHAT, body),
    )
    return naming(info, answer(relays, request))


async def count_tokens(
    request: ChatCompletionRequest, services: Services, client: Client
) -> DeferredJson:
    """Return how many tokens the prompt of a conversation has."""
    gateway, info = services.gateway, request.info(client)
    model, messages = await _conversation(request, services, info)
    body = request.given(info.ignored) | {"messages": messages}

    async def make() -> dict[str, Any]:
        tokens = await count_chat_tokens(gateway, info, model, body)
        return {"object": "response.input_tokens", "input_tokens": tokens}

    return naming(info, DeferredJson(make))


async def _conversation(
    request: ChatCompletionRequest, services: Services, info: RequestInfo
) -> tuple[Model, Messages]:
    """Return the model of a conversation, the only one that can be meant if none is named, and the
    messages as its engine gets them."""
    gateway = services.gateway
    model = await chatting_model(gateway, request.model or await named(gateway, "", "generate"))
    raw = cast(RawMessages, request.messages)
    return model, await prepared(services, info, model.name, raw)


def relays_for(
    request: SampledRequest,
    info: RequestInfo,
    model: Model,
    path: str,
    prompts: Sequence[tuple[dict[str, Any], Pieces]],
    make: MakeRelay,
) -> list[Relay]:
    """Return one relay for each choice of each prompt; choices differ in their seeds.

    A prompt is its fields for the engine's `path`, and how it begins. Raises InvalidRequest for
    what cannot be answered.
    """
    body = resolve(request.given(info.ignored), model.config.parameters, OPENAI_DEFAULTS)
    choices, made = request.n or 1, []
    if not request.stream or request.tells_usage() or choices * len(prompts) > 1:
        body["stream_options"] = {"include_usage": True}
    if not request.stream:
        body.pop("return_progress", None)
    asked = body | {"prompts": [prompt for prompt, _ in prompts]}
    demand = Demand(path, asked, choices * len(prompts))
    for prompt, pieces in prompts:
        for number in range(choices):
            ticket = info.ticket(InstanceKey(model.name, "generate"), demand)
            ticket.pieces, ticket.shares_prompt = pieces, number > 0
            seed = (body["seed"] + number) % 2**32
            made.append(make(ticket, body | prompt | {"seed": seed}))
    return made


def answer(relays: Sequence[Relay], request: SampledRequest) -> Stream | DeferredJson:
    """Return the relays' choices, one each, as a stream or as one JSON document."""
    choices = request.n or 1
    if request.stream:
        source: Source = relays[0]
        if len(relays) > 1:
            source = FanOut(relays, choices, request.tells_usage())
        if request.calls_functions():
            source = FunctionCalls(source)
        return Stream(source.blocks, error_event, lambda: source.phase)

    async def make() -> Mapping[str, Any]:
        answers = await all_whole(relays)
        usage = sum_usage([each.usage for each in answers], choices)
        made = [_choice(index, each) for index, each in enumerate(answers)]
        if request.calls_functions():
            made = [in_old_form(choice, "message") for choice in made]
        whole = _head(answers[0]) | {"choices": made, "usage": usage}
        timings = answers[0].timings if len(answers) == 1 else None
        return whole | {"timings": timings} if timings else whole

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
