"""Writes deltas back into the events of the engine's forms (see `deltas.py`)."""

from __future__ import annotations

from typing import Any

from myllm.gateway.generation.deltas import Delta, Form
from myllm.gateway.generation.events import CallPart, Finished


def with_delta(form: Form, event: dict[str, Any], delta: Delta) -> dict[str, Any]:
    """Return `event` with the content of `delta` in place of its own."""
    if form == "plain":
        return event | {"content": delta.text}
    if not event.get("choices"):
        return event
    choice = dict(event["choices"][0])
    if form == "text":
        choice["text"] = delta.text
    else:
        choice["delta"] = wire_delta(delta)
    return event | {"choices": [choice]}


def wire_delta(delta: Delta) -> dict[str, Any]:
    """Return the `delta` field of a chat's event."""
    wire: dict[str, Any] = {}
    if delta.thinking:
        wire["reasoning_content"] = delta.thinking
    if delta.text:
        wire["content"] = delta.text
    if delta.calls:
        wire["tool_calls"] = [wire_part(part) for part in delta.calls]
    return wire


def wire_part(part: CallPart) -> dict[str, Any]:
    """Return a piece of a tool call in OpenAI's form."""
    opening = {"id": part.id, "type": "function"} if part.id else {}
    function = {"name": part.name} if part.name else {}
    if part.arguments:
        function["arguments"] = part.arguments
    return {"index": part.index, **opening, "function": function}


def openai_usage(end: Finished) -> dict[str, Any]:
    """Return the token counts of an answer in OpenAI's form."""
    usage = end.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
