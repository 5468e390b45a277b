"""A chat through the engine's own chat route, as events: with tools, thinking, pictures.

For dialects that tell an answer in another form than the engine's. What is only text could go
by `/completion` as well, but the engine alone knows how a model writes its thoughts and calls.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Literal, cast

from myllm.errors import EngineError
from myllm.gateway.engine_io.sse import events_in
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.deltas import Delta, ReplayFilter, StreamedAnswer, delta_of
from myllm.gateway.generation.events import Call, Event, Finished, Thinking, Token, Usage
from myllm.gateway.generation.relay import Relay
from myllm.gateway.generation.sampling import resolve
from myllm.gateway.prompt.prefixes import of_wire
from myllm.gateway.scheduling.tickets import Ticket
from myllm.models.registry import Model
from myllm.supervisor.instance import Instance

CHAT = "/v1/chat/completions"
Wire = list[dict[str, Any]]
"""Messages in OpenAI's form."""


class EngineChat:
    """The next message of a conversation in OpenAI's form.

    `options` are sampler values under our names and `defaults` those of the dialect; `fields`
    are others of `/v1/chat/completions`: tools, tool_choice, response_format, reasoning_effort,
    chat_template_kwargs. A last message of role assistant is continued, and only the new text
    is told. `prepare` may choose the messages once an engine is there to count their tokens;
    `ended` is told the engine and the text of the whole answer, while the slot is still held.
    """

    def __init__(
        self,
        gateway: Gateway,
        ticket: Ticket,
        model: Model,
        messages: Wire,
        options: Mapping[str, Any],
        defaults: Mapping[str, Any],
        fields: Mapping[str, Any],
        prepare: Callable[[Instance], Awaitable[Wire]] | None = None,
        ended: Callable[[Instance, str], None] | None = None,
    ) -> None:
        body = resolve(options, model.config.parameters, defaults) | dict(fields)
        body |= {"messages": messages, "stream_options": {"include_usage": True}}
        if body.get("stop"):
            body["verbose"] = True  # or nobody would know which one ended the answer
        ticket.pieces = ticket.pieces or of_wire(messages)
        self._ended = ended
        self._relay = Relay(gateway, ticket, CHAT, body, prepare, self._end)
        self._begun = _begun(messages)
        self._said = StreamedAnswer("chat")

    @property
    def phase(self) -> str:
        """What it is waiting for, in few words."""
        return self._relay.phase

    async def events(self) -> AsyncGenerator[Event, None]:
        """Tokens, thoughts and calls as they come, then one Finished."""
        due = ReplayFilter(StreamedAnswer("chat", texts=[self._begun]))
        async with aclosing(self._relay.blocks()) as blocks:
            async for block in blocks:
                for each in events_in(block):
                    delta = self._named(due.unsent(delta_of("chat", each)))
                    self._said.add(delta)
                    for event in _events(delta):
                        yield event
        yield self._finished()

    def _end(self, instance: Instance) -> None:
        if self._ended is not None:
            self._ended(instance, self._said.text)

    def _named(self, delta: Delta) -> Delta:
        """Some models' calls have no ids; clients need one to tell the tool's result."""
        calls = tuple(
            replace(part, id=new_call_id())
            if part.index not in self._said.calls and not part.id
            else part
            for part in delta.calls
        )
        return replace(delta, calls=calls)

    def _finished(self) -> Finished:
        said = self._said
        if said.finish_reason is None:
            raise EngineError("The engine ended the answer without finishing it")
        return Finished(
            said.text,
            usage_of(said.usage or {}),
            cast(Literal["stop", "length", "tool_calls"], said.finish_reason),
            thinking=said.thinking,
            calls=tuple(said.calls[index] for index in sorted(said.calls)),
            stop_text=said.stop_text,
        )


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """The engine's counts of tokens as ours."""
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        usage.get("prompt_tokens", 0),
        usage.get("completion_tokens", 0),
        details.get("cached_tokens", 0),
    )


def new_call_id() -> str:
    """A name for a call that the model has given none."""
    return f"call_{uuid.uuid4().hex[:24]}"


def wire_calls(calls: Iterable[Call]) -> list[dict[str, Any]]:
    """Calls of tools as a message in OpenAI's form has them."""
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


def _begun(messages: Wire) -> str:
    """The message that is to be continued; the engine's answer begins with it."""
    last = messages[-1] if messages else {}
    content = last.get("content")
    return content if last.get("role") == "assistant" and isinstance(content, str) else ""


def _events(delta: Delta) -> list[Event]:
    events: list[Event] = []
    if delta.thinking:
        events.append(Thinking(delta.thinking))
    if delta.text:
        events.append(Token(delta.text))
    return events + list(delta.calls)
