"""A chat through the engine's own chat route, as events: tokens, thoughts, calls of tools.

Only the engine knows how a model writes its thoughts and calls, and how it reads pictures. The
dialects whose answers differ from the engine's form go this way with every chat, and so does a
turn of a stored conversation that needs more than text.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Literal, cast

from myllm.errors import EngineError
from myllm.gateway.conversation.messages import Messages
from myllm.gateway.engine_io.sse import events_in
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.deltas import BegunFilter, Delta, StreamedAnswer, delta_of
from myllm.gateway.generation.events import Call, Event, Finished, Thinking, Token
from myllm.gateway.generation.prompt_builder import PromptBuilder
from myllm.gateway.generation.relay import CHAT, Relay
from myllm.gateway.prompt.fit import Prompt
from myllm.gateway.prompt.prefixes import pieces_of_wire
from myllm.gateway.scheduling.tickets import Ticket
from myllm.gateway.usage import Usage, usage_of
from myllm.sessions.kv_states import CachedPrefix
from myllm.supervisor.instance import Instance


def chat_body(
    messages: Messages, sampling: Mapping[str, Any], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the body of a request to the engine's chat route.

    `sampling` has every sampler value under our names; `fields` are the others: `tools`,
    `tool_choice`, `response_format`, `reasoning_effort`, `chat_template_kwargs`.
    """
    body = {**sampling, **fields, "messages": messages, "stream_options": {"include_usage": True}}
    if body.get("stop"):
        body["verbose"] = True  # or the engine would not report which stop string ended the answer
    return body


class EngineChat:
    """The answer to a chat route's `body`, as events.

    A last message of role assistant is continued, and the events have only the new text. With
    `prompts`, the messages are those of the prompt that it builds, and the slot's session remembers
    that prompt; without, `body` is sent as it is.
    """

    def __init__(
        self,
        gateway: Gateway,
        ticket: Ticket,
        body: dict[str, Any],
        prompts: PromptBuilder | None = None,
    ) -> None:
        messages: Messages = body["messages"]
        ticket.pieces = ticket.pieces or pieces_of_wire(messages)
        self._slot_cache = gateway.slot_cache
        self._ticket = ticket
        self._prompts = prompts
        self._prompt: Prompt | None = None
        prepare = None if prompts is None else self._prepare
        self._relay = Relay(gateway, ticket, CHAT, body, prepare, self._note_slot, self._note_read)
        self._begun = _begun(messages)
        self._answer = StreamedAnswer("chat")
        self._prompt_usage = Usage(0, 0, 0)
        self._thoughts = 0

    @property
    def prompt_usage(self) -> Usage:
        """The counts of the prompt, once an engine has begun to read it; until then zeros.

        They are known before the first event.
        """
        return self._prompt_usage

    @property
    def phase(self) -> str:
        """What the answer is waiting for, in few words."""
        return self._relay.phase

    async def events(self) -> AsyncGenerator[Event, None]:
        """Tokens, thoughts and calls as they come, then one Finished."""
        repeated = BegunFilter(self._begun)
        try:
            async with aclosing(self._relay.blocks()) as blocks:
                async for block in blocks:
                    for each in events_in(block):
                        delta = self._named(repeated.unrepeated(delta_of("chat", each)))
                        self._answer.add(delta)
                        self._thoughts += bool(delta.thinking)
                        for event in _events(delta):
                            yield event
        finally:
            self._relay.detach()
        yield self._finished()

    async def _prepare(self, instance: Instance) -> Messages:
        assert self._prompts is not None
        self._prompt = await self._prompts.build(instance)
        self._slot_cache.invalidate(instance, self._ticket)
        return self._prompt.wire

    def _note_slot(self, instance: Instance) -> None:
        """Note that the slot holds the prompt. The engine does not report the answer's tokens,
        which follow it."""
        prompt = self._prompt
        if prompt is not None and prompt.tokens:
            prefix = CachedPrefix.of(prompt.text, tuple(prompt.tokens))
            self._slot_cache.record(instance, self._ticket, prefix, self._answer.text, 0)

    def _note_read(self, progress: Mapping[str, Any]) -> None:
        self._prompt_usage = Usage(progress["total"], 0, progress["cache"])

    def _named(self, delta: Delta) -> Delta:
        """Give an id to each call that has none: clients need it to return the tool's result."""
        calls = tuple(
            replace(part, id=new_call_id())
            if part.index not in self._answer.calls and not part.id
            else part
            for part in delta.calls
        )
        return delta._replace(calls=calls)

    def _finished(self) -> Finished:
        answer = self._answer
        if answer.finish_reason is None:
            raise EngineError("The engine ended the answer without finishing it")
        return Finished(
            answer.text,
            replace(usage_of(answer.usage or {}), reasoning_tokens=self._thoughts),
            cast(Literal["stop", "length", "tool_calls"], answer.finish_reason),
            thinking=answer.thinking,
            calls=tuple(answer.calls[index] for index in sorted(answer.calls)),
            stop_text=answer.stop_text,
        )


def new_call_id() -> str:
    """Return an id for a call to which the model gave none."""
    return f"call_{uuid.uuid4().hex[:24]}"


def wire_calls(calls: Iterable[Call]) -> list[dict[str, Any]]:
    """Convert tool calls to the form that a message has in OpenAI's API."""
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in calls
    ]


def _begun(messages: Messages) -> str:
    """Return the text that the engine is to continue: its answer begins with that text."""
    if not messages or messages[-1]["role"] != "assistant":
        return ""
    content = messages[-1]["content"]
    return content if isinstance(content, str) else ""


def _events(delta: Delta) -> list[Event]:
    events: list[Event] = []
    if delta.thinking:
        events.append(Thinking(delta.thinking))
    if delta.text:
        events.append(Token(delta.text))
    return events + list(delta.calls)
