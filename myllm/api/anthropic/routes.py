"""Anthropic's dialect: messages, and counting their tokens."""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from myllm.api.anthropic.schemas import CountTokensRequest, MessagesRequest
from myllm.api.anthropic.translate import fields_of, messages_of
from myllm.api.errors.envelopes import envelope
from myllm.api.errors.handlers import status_of
from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson, Stream, described, to_the_end
from myllm.api.shared.conversation import naming, prepared
from myllm.api.shared.dependencies import ClientDep, ServicesDep
from myllm.api.shared.translated_chat import Chat, input_of, start_chat
from myllm.errors import MyLLMError
from myllm.gateway.engine_questions import count_chat_tokens
from myllm.gateway.generation.events import CallPart, Event, Finished, Thinking, Token, Usage
from myllm.gateway.generation.sampling import OPENAI_DEFAULTS
from myllm.gateway.model_lookup import chatting_model

router = APIRouter(prefix="/v1/messages", tags=["Anthropic"], route_class=CheckedRoute)
_DEFAULTS = OPENAI_DEFAULTS  # which are Anthropic's, too
_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


@router.post("", responses=described("text/event-stream"))
async def messages(request: MessagesRequest, services: ServicesDep, client: ClientDep) -> Response:
    """Answer a conversation with the model's chat template."""
    chat = Chat(messages_of(request), request.options(), _DEFAULTS, fields_of(request))
    info = request.info(client)
    _, answer = await start_chat(services, info, request.model, chat)
    head = _head(request.model)
    if not request.stream:

        async def make() -> Mapping[str, Any]:
            return head | _whole(await to_the_end(answer), request)

        return naming(info, DeferredJson(make))

    async def frames() -> AsyncGenerator[bytes, None]:
        blocks = _Blocks()
        begun = False
        async with aclosing(answer.events()) as events:
            async for each in events:
                if not begun:
                    begun = True
                    yield _event("message_start", message=head | {"usage": _usage(Usage(0, 0, 0))})
                if isinstance(each, Finished):
                    yield b"".join([*blocks.close(), *_end(each, request)])
                else:
                    yield b"".join(blocks.take(each))

    return naming(info, Stream(frames, _error_event, lambda: answer.phase))


@router.post("/count_tokens")
async def count_tokens(
    request: CountTokensRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """How many tokens the prompt of a conversation has."""
    model = await chatting_model(services.gateway, request.model)
    gateway, info = services.gateway, request.info(client)
    wire = await prepared(services, info, model.name, messages_of(request))
    body = {"messages": wire, **fields_of(request)}

    async def make() -> Mapping[str, Any]:
        return {"input_tokens": await count_chat_tokens(gateway, info, model, body)}

    return naming(info, DeferredJson(make))


class _Blocks:
    """Turns a streamed answer into blocks: one is open at a time, and is sent in pieces."""

    def __init__(self) -> None:
        self._index = -1
        self._open: object = None  # what the open block is: a type, or a call's number

    def take(self, each: Event) -> Iterator[bytes]:
        """Return the events for one piece of the answer."""
        match each:
            case Thinking(text):
                thought = {"type": "thinking", "thinking": "", "signature": ""}
                yield from self._begin("thinking", thought)
                yield self._delta(type="thinking_delta", thinking=text)
            case Token(text):
                yield from self._begin("text", {"type": "text", "text": ""})
                yield self._delta(type="text_delta", text=text)
            case CallPart():
                called = {"type": "tool_use", "id": each.id, "name": each.name, "input": {}}
                yield from self._begin(each.index, called)
                if each.arguments:
                    yield self._delta(type="input_json_delta", partial_json=each.arguments)

    def close(self) -> Iterator[bytes]:
        """Return the event that ends the open block, if there is one."""
        if self._open is not None:
            yield _event("content_block_stop", index=self._index)
            self._open = None

    def _begin(self, what: object, block: dict[str, Any]) -> Iterator[bytes]:
        if self._open == what:
            return
        yield from self.close()
        self._open = what
        self._index += 1
        yield _event("content_block_start", index=self._index, content_block=block)

    def _delta(self, **delta: str) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)


def _head(model: str) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _whole(end: Finished, request: MessagesRequest) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if end.thinking:
        content.append({"type": "thinking", "thinking": end.thinking, "signature": ""})
    if end.full_text:
        content.append({"type": "text", "text": end.full_text})
    for call in end.calls:
        called = {"id": call.id, "name": call.name, "input": input_of(call)}
        content.append({"type": "tool_use", **called})
    return {"content": content, "usage": _usage(end.usage)} | _reason(end, request)


def _end(end: Finished, request: MessagesRequest) -> Iterator[bytes]:
    yield _event("message_delta", delta=_reason(end, request), usage=_usage(end.usage))
    yield _event("message_stop")


def _reason(end: Finished, request: MessagesRequest) -> dict[str, Any]:
    """Return why the answer ended; stop strings of the chat template are not reported."""
    if end.finish_reason == "stop" and end.stop_text in (request.stop_sequences or ()):
        return {"stop_reason": "stop_sequence", "stop_sequence": end.stop_text}
    return {"stop_reason": _REASONS[end.finish_reason], "stop_sequence": None}


def _usage(usage: Usage) -> dict[str, int]:
    """Return the counts; tokens from the cache are counted separately."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


def _error_event(error: MyLLMError) -> bytes:
    body = envelope("anthropic", status_of(error), error.detail, error)
    return _event("error", error=body["error"])
