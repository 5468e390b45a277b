"""Translates Ollama's messages to OpenAI's, which the engine understands, and answers to lines."""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from myllm.api.ollama.schemas import OllamaGenerateRequest, OllamaMessage
from myllm.api.shared.timestamps import iso
from myllm.api.shared.translated_chat import content_of, input_of, wire_call
from myllm.gateway.conversation.messages import RawMessages
from myllm.gateway.generation.answers import Answer
from myllm.gateway.generation.events import Call, Finished, Thinking, Token
from myllm.gateway.scheduling.tickets import Ticket


def prompt_of(request: OllamaGenerateRequest) -> RawMessages:
    """Return the conversation of one message that a prompt means."""
    system = [{"role": "system", "content": request.system}] if request.system else []
    user = OllamaMessage(role="user", content=request.prompt, images=request.images)
    return [*system, *messages_of([user])]


def messages_of(messages: Sequence[OllamaMessage]) -> RawMessages:
    """Return the conversation; calls get ids, and results the ids of the calls that they answer."""
    wire: RawMessages = []
    unanswered = _OpenCalls()
    for number, message in enumerate(messages):
        content = content_of([message.content] if message.content else [], message.images or [])
        converted: dict[str, Any] = {"role": message.role, "content": content}
        if message.role == "tool":
            converted["tool_call_id"] = unanswered.answered(message)
        elif message.tool_calls:
            calls = [
                (call.id or f"call_{number}_{index}", call.function)
                for index, call in enumerate(message.tool_calls)
            ]
            for call_id, function in calls:
                unanswered.add(call_id, function.name)
            converted["tool_calls"] = [
                wire_call(call_id, function.name, function.arguments) for call_id, function in calls
            ]
            if message.thinking:  # which some models need until their last call
                converted["reasoning_content"] = message.thinking
        wire.append(converted)
    return wire


class _OpenCalls:
    """The calls that have no result yet, oldest first: all of them, and those of each function.

    Ordered dictionaries, since finding the first key of an ordinary one takes time for each key
    that was removed before it.
    """

    def __init__(self) -> None:
        self._names: OrderedDict[str, str] = OrderedDict()
        self._ids: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)

    def add(self, call_id: str, name: str) -> None:
        self._remove(call_id)
        self._names[call_id] = name
        self._ids[name][call_id] = None

    def answered(self, message: OllamaMessage) -> str:
        """Close the call that a tool's message answers and return its id.

        It is the call that the message names, or else the first one that fits; without any, the id
        is empty.
        """
        name = message.tool_name
        fitting = self._names if name is None else self._ids.get(name, ())
        call_id = message.tool_call_id or next(iter(fitting), "")
        self._remove(call_id)
        return call_id

    def _remove(self, call_id: str) -> None:
        name = self._names.pop(call_id, None)
        if name is not None:
            del self._ids[name][call_id]


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
