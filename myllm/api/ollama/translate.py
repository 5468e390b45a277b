"""Translates Ollama's messages to OpenAI's, which the engine understands, and answers to lines."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from myllm.api.ollama.schemas import OllamaGenerateRequest, OllamaMessage
from myllm.api.shared.timestamps import iso
from myllm.api.shared.translated_chat import content_of, input_of
from myllm.gateway.conversation.messages import RawMessages
from myllm.gateway.generation.answers import Answer
from myllm.gateway.generation.events import Call, Finished, Thinking, Token
from myllm.gateway.scheduling.tickets import Ticket

_FEW: Final = 200


def prompt_of(request: OllamaGenerateRequest) -> RawMessages:
    """Return the conversation of one message that a prompt means."""
    system = [{"role": "system", "content": request.system}] if request.system else []
    user = OllamaMessage(role="user", content=request.prompt or "", images=request.images)
    return [*system, *messages_of([user])]


def are_many(messages: Sequence[OllamaMessage]) -> bool:
    """Whether translating `messages` takes more than a millisecond, and so belongs in a thread."""
    return len(messages) + sum(len(each.tool_calls or ()) for each in messages) > _FEW


def messages_of(messages: Sequence[OllamaMessage]) -> RawMessages:
    """Return the conversation in OpenAI's form."""
    return [_raw(message) for message in messages]


def _raw(message: OllamaMessage) -> dict[str, Any]:
    text = message.content
    content = content_of([text] if text else [], message.images or [])
    raw: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        raw["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    if message.thinking:
        raw["reasoning_content"] = message.thinking
    if message.role in ("tool", "function"):
        raw |= {"tool_call_id": message.tool_call_id, "name": message.tool_name}
    return raw


@dataclass(frozen=True)
class Lines:
    """Makes the lines of an answer by `model`, with messages for a `chat` and texts otherwise."""

    model: str
    chat: bool
    started: float = field(default_factory=time.monotonic)

    def line(
        self, text: str, thinking: str = "", calls: Sequence[Call] = (), **more: Any
    ) -> dict[str, Any]:
        """Return one piece of an answer, or all of it."""
        head = {"model": self.model, "created_at": iso(time.time())}
        thought = {"thinking": thinking} if thinking else {}
        if not self.chat:
            return head | {"response": text, **thought, "done": False, **more}
        message: dict[str, Any] = {"role": "assistant", "content": text, **thought}
        if calls:
            message["tool_calls"] = [
                {"id": call.id, "function": _function(number, call)}
                for number, call in enumerate(calls)
            ]
        return head | {"message": message, "done": False, **more}

    def nothing(self, why: str) -> dict[str, Any]:
        """Return the answer to a request that only loads or unloads the model."""
        return self.line("", done=True, done_reason=why)

    async def pieces(self, answer: Answer, ticket: Ticket) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the lines of an answer; tool calls come whole, before the last line."""
        async for event, end in self._events(answer, ticket):
            match event:
                case Thinking(text):
                    yield self.line("", thinking=text)
                case Token(text):
                    yield self.line(text)
                case Finished():
                    if event.calls:
                        yield self.line("", calls=event.calls)
                    yield self.line("", **end)

    async def whole(self, answer: Answer, ticket: Ticket) -> dict[str, Any]:
        """Return an answer as one object."""
        async with aclosing(self._events(answer, ticket)) as events:
            async for event, end in events:
                if isinstance(event, Finished):
                    return self.line(event.full_text, event.thinking, event.calls, **end)
        raise AssertionError("an answer ends with Finished")

    async def _events(
        self, answer: Answer, ticket: Ticket
    ) -> AsyncGenerator[tuple[Any, dict[str, Any]], None]:
        """Yield the events of an answer; the last one comes with the measurements of the whole."""
        first = None
        async with aclosing(answer.events()) as events:
            async for event in events:
                now = time.monotonic()
                first = first or now
                end = {}
                if isinstance(event, Finished):
                    end = self._end(event, ticket.granted_at or first, first, now)
                yield event, end

    def passed_ns(self) -> int:
        """Return the time since the request arrived."""
        return _ns(time.monotonic() - self.started)

    def _end(self, end: Finished, granted: float, first: float, now: float) -> dict[str, Any]:
        """Return the measurements: nanoseconds to wait and load, to read, and to write."""
        return {
            "done": True,
            "done_reason": "length" if end.finish_reason == "length" else "stop",
            "total_duration": _ns(now - self.started),
            "load_duration": _ns(granted - self.started),
            "prompt_eval_count": end.usage.prompt_tokens,
            "prompt_eval_duration": _ns(first - granted),
            "eval_count": end.usage.completion_tokens,
            "eval_duration": _ns(now - first),
        }


def _ns(seconds: float) -> int:
    """Return whole nanoseconds, none for a negative time."""
    return max(0, round(seconds * 1e9))


def _function(number: int, call: Call) -> dict[str, Any]:
    return {"index": number, "name": call.name, "arguments": input_of(call)}
