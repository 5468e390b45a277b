"""Answers in Anthropic's form: one message, or the events of a stream."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, Final

import orjson

from myllm.api.anthropic.schemas import MessagesRequest
from myllm.api.errors.envelopes import envelope
from myllm.api.errors.handlers import status_of
from myllm.api.shared.translated_chat import input_of
from myllm.errors import MyLLMError
from myllm.gateway.generation.events import CallPart, Event, Finished, Thinking, Token
from myllm.gateway.usage import Usage

_REASONS: Final = {"stop": "end_turn", "tool_calls": "tool_use"}
# Thoughts are not signed here, but clients send no thought back that has no signature.
_SIGNATURE: Final = "myllm"


class MessageEvents:
    """Turns an answer into the events of a stream: one block is open at a time."""

    def __init__(self, request: MessagesRequest) -> None:
        self._request = request
        self._index = -1
        self._open: object = None  # what the open block is: a type, or a call's number

    def begin(self, prompt: Usage) -> bytes:
        """Return the first event; `prompt` has what is known of the counts by now."""
        return _event("message_start", message=head(self._request) | {"usage": _usage(prompt)})

    def take(self, each: Event) -> bytes:
        """Return the events for one piece of the answer, or for its end."""
        return b"".join(self._end(each) if isinstance(each, Finished) else self._piece(each))

    def _piece(self, each: Thinking | Token | CallPart) -> Iterator[bytes]:
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

    def _end(self, end: Finished) -> Iterator[bytes]:
        yield from self._close()
        yield _event("message_delta", delta=_reason(end, self._request), usage=_usage(end.usage))
        yield _event("message_stop")

    def _begin(self, what: object, block: dict[str, Any]) -> Iterator[bytes]:
        if self._open == what:
            return
        yield from self._close()
        self._open = what
        self._index += 1
        yield _event("content_block_start", index=self._index, content_block=block)

    def _close(self) -> Iterator[bytes]:
        """Return the events that end the open block, if there is one."""
        if self._open == "thinking":
            yield self._delta(type="signature_delta", signature=_SIGNATURE)
        if self._open is not None:
            yield _event("content_block_stop", index=self._index)
            self._open = None

    def _delta(self, **delta: str) -> bytes:
        return _event("content_block_delta", index=self._index, delta=delta)


def head(request: MessagesRequest) -> dict[str, Any]:
    """Return the fields that an answer has before anything of it is there."""
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def whole(end: Finished, request: MessagesRequest) -> dict[str, Any]:
    """Return the fields of a whole answer that `head` lacks."""
    content: list[dict[str, Any]] = []
    if end.thinking:
        thought = {"thinking": end.thinking, "signature": _SIGNATURE}
        content.append({"type": "thinking", **thought})
    if end.full_text:
        content.append({"type": "text", "text": end.full_text})
    for call in end.calls:
        called = {"id": call.id, "name": call.name, "input": input_of(call)}
        content.append({"type": "tool_use", **called})
    return {"content": content, "usage": _usage(end.usage)} | _reason(end, request)


def error_event(error: MyLLMError) -> bytes:
    """Return the event for an error in the middle of a stream."""
    body = envelope("anthropic", status_of(error), error.detail, error)
    return _event("error", error=body["error"])


def _reason(end: Finished, request: MessagesRequest) -> dict[str, Any]:
    """Return why the answer ended; stop strings of the chat template are not reported."""
    reason = _REASONS.get(end.finish_reason)
    if reason is None:
        is_cut = end.usage.completion_tokens < request.max_tokens
        reason = "model_context_window_exceeded" if is_cut else "max_tokens"
    stop = None
    if end.finish_reason == "stop" and end.stop_text in (request.stop_sequences or ()):
        reason, stop = "stop_sequence", end.stop_text
    return {"stop_reason": reason, "stop_sequence": stop}


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
