"""Writes deltas back into the events of the engine's forms (see `deltas.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from myllm.gateway.engine_io.sse import LAST, event
from myllm.gateway.generation.deltas import VERBOSE, Delta, Form
from myllm.gateway.generation.events import CallPart, Finished
from myllm.gateway.usage import Usage


def with_delta(form: Form, each: dict[str, Any], delta: Delta) -> dict[str, Any]:
    """Return the event `each` with the content of `delta` in place of its own."""
    if form == "plain":
        return each | {"content": delta.text}
    if not each.get("choices"):
        return each
    choice = dict(each["choices"][0])
    if form == "text":
        choice["text"] = delta.text
    else:
        choice["delta"] = wire_delta(delta)
    return each | {"choices": [choice]}


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


def openai_usage(usage: Usage) -> dict[str, Any]:
    """Return the token counts of an answer in OpenAI's form."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


class WireEncoder:
    """Encodes an answer as the engine's events of `form`, each with the fields of `head`.

    `tells_usage` adds an event with the token counts at the end, `is_verbose` the stop string.
    """

    def __init__(
        self, form: Form, head: dict[str, Any], tells_usage: bool, is_verbose: bool
    ) -> None:
        self._form = form
        self._head = head
        self._tells_usage = tells_usage
        self._is_verbose = is_verbose

    def texts(self, texts: Sequence[str]) -> Sequence[bytes]:
        """Return an event for each text."""
        return [self._event(Delta(text=text)) for text in texts]

    def end(self, end: Finished) -> Sequence[bytes]:
        """Return the events that end the answer, as one block."""
        ending = self._event(Delta(finish_reason=end.finish_reason, stop_text=end.stop_text))
        if self._tells_usage:
            ending += event({"choices": [], **self._head, "usage": openai_usage(end.usage)})
        return (ending + LAST,)

    def _event(self, delta: Delta) -> bytes:
        choice: dict[str, Any] = {"index": 0, "finish_reason": delta.finish_reason}
        if self._form == "chat":
            choice["delta"] = wire_delta(delta)
        else:
            choice |= {"text": delta.text, "logprobs": None}
        verbose = {VERBOSE: {"stopping_word": delta.stop_text}} if self._is_verbose else {}
        return event({"choices": [choice], **self._head, **verbose})
