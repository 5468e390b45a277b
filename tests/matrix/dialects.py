"""The same conversation in the form of each dialect, as its clients write it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tests.matrix.repairs import TOOLS, Message, Repair

Body = dict[str, Any]


class Inexpressible(Exception):
    """The dialect has no form for something in a conversation."""


@dataclass(frozen=True)
class Dialect:
    """`body` returns a request without its model; it raises Inexpressible."""

    name: str
    path: str
    body: Callable[[Repair, bool], Body]


def _listed(content: Any) -> list[Any]:
    """Return a content as parts."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content or [])


def _arguments(call: Message) -> Any:
    """Return a call's arguments as clients have them that keep objects."""
    given = call["function"].get("arguments")
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except json.JSONDecodeError:
        return given  # as a client has it whose model was cut off


def _given(message: Message, *names: str) -> Message:
    return {name: message[name] for name in names if name in message}


# OpenAI's chat completions, and ours


def _openai(repair: Repair, tools: bool) -> Body:
    body: Body = {"messages": repair.messages, "max_tokens": 1}
    return body | ({"tools": TOOLS} if tools else {})


def _native(repair: Repair, tools: bool) -> Body:
    body: Body = {"messages": repair.messages, "stream": False, "options": {"max_tokens": 1}}
    return body | ({"tools": TOOLS} if tools else {})


# OpenAI's Responses


def _responses(repair: Repair, tools: bool) -> Body:
    items = [item for message in repair.messages for item in _items(message)]
    body: Body = {"input": items, "max_output_tokens": 1, "store": False}
    if tools:
        body["tools"] = [{"type": "function", **tool["function"]} for tool in TOOLS]
    return body


def _items(message: Message) -> Iterator[Body]:
    role = message["role"]
    if role in ("tool", "function"):
        content = message["content"]
        output = [_part(part, role) for part in content] if isinstance(content, list) else content
        item: Body = {"type": "function_call_output", "output": output}
        if "tool_call_id" in message:
            item["call_id"] = message["tool_call_id"]
        yield item
        return
    if thought := message.get("reasoning_content"):
        summary = [{"type": "summary_text", "text": thought}]
        yield {"type": "reasoning", "id": "rs_1", "summary": summary, "content": None}
    if message.get("function_call") or message.get("reasoning") or message.get("thinking"):
        raise Inexpressible
    made = message.get("tool_calls") or []
    if not made or message.get("content"):
        content = [_part(part, role) for part in _listed(message.get("content"))]
        yield {"type": "message", "role": role, "content": content, **_given(message, "name")}
    for call in made:
        item = {"type": "function_call", **call["function"]}
        yield item | ({"call_id": call["id"]} if "id" in call else {})


def _part(part: Any, role: str) -> Body:
    kind = part["type"]
    if kind == "text":
        kind = "output_text" if role == "assistant" else "input_text"
        return {"type": kind, "text": part["text"]}
    if kind == "image_url":
        return {"type": "input_image", "image_url": part["image_url"]["url"]}
    if kind == "thinking":
        raise Inexpressible
    return dict(part)


# Anthropic's Messages


def _anthropic(repair: Repair, tools: bool) -> Body:
    messages = list(repair.messages)
    body: Body = {"max_tokens": 1}
    if messages and messages[0]["role"] == "system":
        first = messages.pop(0)
        body["system"] = [_block(part) for part in _listed(first["content"])]
    body["messages"] = [_turn(message) for message in messages]
    if not messages:
        raise Inexpressible
    if tools:
        functions = [tool["function"] for tool in TOOLS]
        body["tools"] = [
            {
                "name": function["name"],
                "description": function["description"],
                "input_schema": function["parameters"],
            }
            for function in functions
        ]
    return body


def _turn(message: Message) -> Body:
    role = message["role"]
    if role in ("developer", "function") or message.get("function_call"):
        raise Inexpressible
    content: Any = [_block(part) for part in _listed(message.get("content"))]
    if role == "tool":
        block = {"type": "tool_result", "content": content}
        if "tool_call_id" in message:
            block["tool_use_id"] = message["tool_call_id"]
        return {"role": "user", "content": [block]}
    thought = next(
        (message[name] for name in ("reasoning_content", "thinking") if message.get(name)), None
    )
    blocks = [{"type": "thinking", "thinking": thought, "signature": "x"}] if thought else []
    blocks += content
    for call in message.get("tool_calls") or []:
        block = {"type": "tool_use", "name": call["function"]["name"], "input": _arguments(call)}
        blocks.append(block | ({"id": call["id"]} if "id" in call else {}))
    return {"role": role, "content": blocks}


def _block(part: Any) -> Body:
    kind = part["type"]
    if kind == "image_url":
        data = part["image_url"]["url"].partition(",")[2]
        source = {"type": "base64", "media_type": "image/png", "data": data}
        return {"type": "image", "source": source}
    if kind == "refusal":
        raise Inexpressible
    return dict(part)


# Ollama's chat


def _ollama(repair: Repair, tools: bool) -> Body:
    body: Body = {
        "messages": [_plain(message) for message in repair.messages],
        "stream": False,
        "options": {"num_predict": 1},
    }
    return body | ({"tools": TOOLS} if tools else {})


def _plain(message: Message) -> Body:
    content = message.get("content")
    if message["role"] in ("developer", "function") or message.get("function_call"):
        raise Inexpressible
    made: Body = {"role": message["role"]}
    if isinstance(content, list):
        kinds = {part["type"] for part in content}
        if not kinds <= {"text", "image_url"}:
            raise Inexpressible
        made["content"] = "\n".join(part["text"] for part in content if part["type"] == "text")
        urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        if urls:
            made["images"] = [url.partition(",")[2] for url in urls]
    elif "content" in message:
        made["content"] = content
    made |= _given(message, "tool_call_id")
    if message.get("reasoning_content"):
        made["thinking"] = message["reasoning_content"]
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [
            _given(call, "id")
            | {"function": {"name": call["function"]["name"], "arguments": _arguments(call)}}
            for call in calls
        ]
    return made


OPENAI: Final = Dialect("openai", "/v1/chat/completions", _openai)
OTHERS: Final = (
    Dialect("responses", "/v1/responses", _responses),
    Dialect("anthropic", "/v1/messages", _anthropic),
    Dialect("ollama", "/ollama/api/chat", _ollama),
    Dialect("native", "/api/chat", _native),
    Dialect("llamacpp", "/chat/completions", _openai),
)
