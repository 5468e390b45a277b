"""MyLLM's own dialect: generate, chat, embeddings."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from myllm.api.errors.handlers import status_of
from myllm.api.http.fast_path import fast_path
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson, Stream, to_the_end
from myllm.api.native.response_schemas import EmbeddingsResponse
from myllm.api.native.schemas import (
    ChatRequest,
    ChatResponse,
    EmbeddingsRequest,
    GenerateRequest,
    GenerateResponse,
)
from myllm.api.shared.conversation import naming, prepared
from myllm.api.shared.dependencies import ClientDep, ServicesDep
from myllm.api.shared.tools import tool_fields, tools_or_format
from myllm.errors import InvalidRequest, MyLLMError
from myllm.gateway.conversation.normalize import to_be_answered
from myllm.gateway.embedding import embed
from myllm.gateway.engine_io.sse import event
from myllm.gateway.generation.answers import Answer, ChatAnswer, RawAnswer, generating_model
from myllm.gateway.generation.chat_job import ChatJob, SessionTurn
from myllm.gateway.generation.chat_route import wire_calls
from myllm.gateway.generation.events import CallPart, Event, Finished, Thinking, Token
from myllm.gateway.generation.wire_deltas import wire_part
from myllm.gateway.model_lookup import chatting_model
from myllm.sessions.history import from_wire

router = APIRouter(prefix="/api", tags=["MyLLM"], route_class=CheckedRoute)

_GENERATE_EVENTS = (
    'data: {"token":"Once","done":false}\n\ndata: {"token":" upon","done":false}\n\n'
    'data: {"done":true,"full_text":"Once upon","token_count":2,"usage":{"prompt_tokens":4,'
    '"completion_tokens":2,"total_tokens":6,"cached_tokens":0},"finish_reason":"stop"}\n\n'
)
_CHAT_EVENTS = (
    'data: {"token":"The","done":false}\n\ndata: {"token":" capital","done":false}\n\n'
    'data: {"done":true,"full_text":"The capital of France is Paris.","token_count":10,"usage":'
    '{"prompt_tokens":11,"completion_tokens":10,"total_tokens":21,"cached_tokens":0},'
    '"finish_reason":"stop","session_id":"550e8400-e29b-41d4-a716-446655440000"}\n\n'
)


def _streams(example: str) -> dict[int | str, dict[str, Any]]:
    """Describe, for the OpenAPI document, the form of a streamed answer."""
    return {200: {"content": {"text/event-stream": {"example": example}}}}


@router.post("/generate", response_model=GenerateResponse, responses=_streams(_GENERATE_EVENTS))
@fast_path
async def generate(request: GenerateRequest, services: ServicesDep, client: ClientDep) -> Response:
    """Complete a prompt as it is. Streams unless `stream` is false."""
    info = request.info(client)
    answer = RawAnswer(
        services.gateway,
        info,
        await generating_model(services.gateway, request.model),
        request.prompt,
        request.options.given(),
        request.json_schema(),
    )
    if request.stream:
        return naming(info, _stream(answer, _terminal))

    async def make() -> Mapping[str, Any]:
        end = await to_the_end(answer)
        return {
            "text": end.full_text,
            "usage": end.usage.as_dict(),
            "finish_reason": end.finish_reason,
        }

    return naming(info, DeferredJson(make))


@router.post("/chat", response_model=ChatResponse, responses=_streams(_CHAT_EVENTS))
@fast_path
async def chat(request: ChatRequest, services: ServicesDep, client: ClientDep) -> Response:
    """Answer a conversation, which the server stores. Streams unless `stream` is false."""
    wire, info = request.wire(), request.info(client)
    asked = to_be_answered(wire)
    if asked >= 0 and not wire[asked].get("content"):
        raise InvalidRequest(f"messages[{asked}].content must not be empty")
    tools = tool_fields(request.tools, request.tool_choice, info.ignored)
    fields = tools_or_format({**tools, "json_schema": request.json_schema()})
    schema = fields.pop("json_schema", None)
    messages = await prepared(services, info, request.model, wire)
    turn = SessionTurn(
        [from_wire(message) for message in messages],
        request.session_id,
        request.history,
        request.store,
    )
    job = ChatJob(
        await chatting_model(services.gateway, request.model),
        turn,
        request.options.given(),
        fields,
        request.thinking,
        schema,
    )
    answer = ChatAnswer(
        services.gateway,
        services.sessions,
        info,
        job,
        streamed=request.stream,
        session_timeout_s=services.settings.queue_timeout,
    )
    if request.stream:
        return naming(info, _stream(answer, _terminal_of_chat))

    async def make() -> Mapping[str, Any]:
        end = await to_the_end(answer)
        return {
            "message": {"role": "assistant", "content": end.full_text, **_extras(end)},
            "usage": end.usage.as_dict(),
            "finish_reason": end.finish_reason,
        } | _in_session(end)

    return naming(info, DeferredJson(make))


@router.post("/embeddings", response_model=EmbeddingsResponse)
@fast_path
async def embeddings(
    request: EmbeddingsRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """One vector for a text (`embedding`), or one for each of several (`embeddings`)."""
    inputs = [request.input] if isinstance(request.input, str) else request.input
    if not inputs or not all(inputs):
        raise InvalidRequest("input must not be empty")

    async def make() -> Mapping[str, Any]:
        made = await embed(services.gateway, request.info(client), request.model, inputs)
        vectors: dict[str, Any] = (
            {"embedding": made.vectors[0]}
            if isinstance(request.input, str)
            else {"embeddings": made.vectors}
        )
        usage = {"prompt_tokens": made.prompt_tokens, "total_tokens": made.prompt_tokens}
        return vectors | {"model": request.model, "usage": usage}

    return DeferredJson(make)


def _stream(answer: Answer, terminal: Callable[[Finished], dict[str, Any]]) -> Stream:
    """Return an answer as events: its tokens as they come, then one terminal event."""

    async def frames() -> AsyncGenerator[bytes, None]:
        held: list[bytes] = []
        async with aclosing(answer.events()) as events:
            async for made in events:
                held.append(event(_fields(made, terminal)))
                if not (isinstance(made, Token) and made.more):
                    yield b"".join(held)
                    held.clear()

    return Stream(frames, _error_event, lambda: answer.phase)


def _fields(made: Event, terminal: Callable[[Finished], dict[str, Any]]) -> dict[str, Any]:
    if isinstance(made, Token):
        return {"token": made.text, "done": False}
    if isinstance(made, Thinking):
        return {"thinking": made.text, "done": False}
    if isinstance(made, CallPart):
        return {"tool_calls": [wire_part(made)], "done": False}
    return {"done": True, **terminal(made)}


def _error_event(error: MyLLMError) -> bytes:
    return event(
        {
            "done": True,
            "error": error.detail,
            "code": status_of(error),
            "retryable": error.retryable,
        }
    )


def _terminal(end: Finished) -> dict[str, Any]:
    return {
        "full_text": end.full_text,
        "token_count": end.usage.completion_tokens,
        "usage": end.usage.as_dict(),
        "finish_reason": end.finish_reason,
    }


def _terminal_of_chat(end: Finished) -> dict[str, Any]:
    return _terminal(end) | _extras(end) | _in_session(end)


def _extras(end: Finished) -> dict[str, Any]:
    """Return what a chat's answer has besides its text."""
    fields: dict[str, Any] = {}
    if end.thinking:
        fields["thinking"] = end.thinking
    if end.calls:
        fields["tool_calls"] = wire_calls(end.calls)
    return fields


def _in_session(end: Finished) -> dict[str, Any]:
    fields: dict[str, Any] = {"session_id": end.session_id}
    if end.dropped_messages:
        fields |= {"truncated": True, "dropped_messages": end.dropped_messages}
    return fields | end.unstored()
