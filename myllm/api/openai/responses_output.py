"""An answer in the form of OpenAI's `/v1/responses`, and the items that it consists of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from myllm.api.openai.responses_custom import whole_input
from myllm.api.openai.responses_order import Kind, Segment, in_order
from myllm.api.openai.responses_thinking import encoded
from myllm.api.openai.responses_tools import Meaning, Tools
from myllm.gateway.generation.events import Call

Item = dict[str, Any]


@dataclass(frozen=True)
class Form:
    """What the form of an answer depends on: the request's tools, and whether the client wants
    thinking in `encrypted_content`, too."""

    tools: Tools
    encodes_thinking: bool = False

    def output(
        self,
        key: str,
        text: str,
        thinking: str,
        calls: Sequence[Call],
        status: str,
        order: Sequence[Segment] = (),
    ) -> list[Item]:
        """Return the items of an answer; their ids contain `key`, and the last one's status is
        `status`."""
        numbers: Counter[Kind] = Counter()
        items: list[Item | None] = []
        for kind, content in in_order(order, text, thinking, calls):
            items.append(None if content is None else self._item(key, numbers[kind], kind, content))
            numbers[kind] += 1
        if items[-1] is not None:
            items[-1]["status"] = status
        return [item for item in items if item is not None]

    def _item(self, key: str, number: int, kind: Kind, content: str | Call) -> Item:
        if isinstance(content, Call):
            return self.call(key, number, content, "completed")
        if kind == "reasoning":
            return self.complete(reasoning_item(key, number, content))
        return message_item(key, number, content, "completed")

    def call(self, key: str, number: int, call: Call, status: str) -> Item:
        """Return a call in the form that the tool has for the client."""
        return call_item(key, number, call, status, self.tools.meaning(call.name))

    def complete(self, item: Item) -> Item:
        """Return an item of type reasoning whose text is whole."""
        if self.encodes_thinking:
            item["encrypted_content"] = encoded(item["content"][0]["text"])
        return item


def whole(record: Mapping[str, Any], items: Sequence[Item]) -> dict[str, Any]:
    """Return a response; `record` is what is known about it besides its output."""
    ended = record.get("ended")
    status = {None: "in_progress", "length": "incomplete", "left": "incomplete"}
    reason = {"reason": "max_output_tokens"} if ended == "length" else None
    return {
        "id": record["id"],
        "object": "response",
        "created_at": record["created_at"],
        "status": status.get(ended, "completed"),
        "error": None,
        "incomplete_details": reason,
        "model": record["model"],
        "output": list(items),
        "usage": _usage(record.get("usage")),
        "background": False,
        **record["asked"],
    }


def reasoning_item(key: str, number: int, thinking: str) -> Item:
    """Return what the model thought."""
    content = [{"type": "reasoning_text", "text": thinking}]
    return {"id": f"rs_{key}{number or ''}", "type": "reasoning", "summary": [], "content": content,
            "status": "completed"}  # fmt: skip


def message_item(key: str, number: int, text: str, status: str) -> Item:
    """Return what the model says."""
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"id": f"msg_{key}{number or ''}", "type": "message", "role": "assistant",
            "status": status, "content": content}  # fmt: skip


def call_item(key: str, number: int, call: Call, status: str, meaning: Meaning) -> Item:
    """Return a call in the form that the tool has for the client."""
    named: Item = {"name": meaning.name}
    if meaning.namespace is not None:
        named["namespace"] = meaning.namespace
    match meaning.kind:
        case "custom":
            return {"id": f"ctc_{key}{number}", "type": "custom_tool_call", "status": status,
                    "call_id": call.id, "input": whole_input(call.arguments),
                    **named}  # fmt: skip
        case "local_shell":
            return {"id": f"lsh_{key}{number}", "type": "local_shell_call", "status": status,
                    "call_id": call.id, "action": action_of(call.arguments)}  # fmt: skip
    return {"id": f"fc_{key}{number}", "type": "function_call", "status": status,
            "call_id": call.id, "arguments": call.arguments, **named}  # fmt: skip


def action_of(arguments: str) -> Item:
    """Return the command of a call of `local_shell`; none, if the model has not written an object
    or the call was cut in the middle."""
    try:
        given = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        given = None
    written = given if isinstance(given, dict) else {}
    return {"command": [], "env": {}, **written, "type": "exec"}


def _usage(usage: Mapping[str, int] | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    cached = {"cached_tokens": usage["cached_tokens"], "cache_write_tokens": 0}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": cached,
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
        "total_tokens": usage["total_tokens"],
    }
