"""Answers in the form of OpenAI's `/v1/responses`: whole, and as a stream of events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from myllm.api.errors.handlers import status_of
from myllm.errors import MyLLMError
from myllm.gateway.generation.events import Call, CallPart, Finished, Thinking, Token

Item = dict[str, Any]


def output(key: str, text: str, thinking: str, calls: Sequence[Call], status: str) -> list[Item]:
    """Return the items of an answer; their ids contain `key`."""
    items: list[Item] = []
    if thinking:
        items.append(_reasoning(key, thinking))
    if text or not (thinking or calls):
        items.append(_message(key, text, status))
    return items + [_call(key, number, call, status) for number, call in enumerate(calls)]


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
        "truncation": "auto",
        **record["asked"],
    }


class Events:
    """Turns an answer into events, with one item open at a time; the answer fills `record`."""

    def __init__(self, key: str, record: dict[str, Any]) -> None:
        self._key = key
        self._record = record
        self._number = 0
        self._items: list[Item] = []
        self._open: str | int | None = None

    def begin(self) -> bytes:
        """Return the events before the first piece of the answer."""
        kinds = "response.created", "response.in_progress"
        return b"".join(self._event(kind, response=whole(self._record, ())) for kind in kinds)

    def say(self, piece: Token | Thinking | CallPart) -> bytes:
        """Return the events for one piece of the answer."""
        match piece:
            case Thinking(text):
                begun = self._turn_to("reasoning", _reasoning(self._key, ""))
                return begun + self._text("reasoning_text", text)
            case Token(text):
                begun = self._turn_to("message", _message(self._key, "", "in_progress"))
                return begun + self._text("output_text", text)
            case CallPart(index, call_id, name, arguments):
                call = _call(self._key, index, Call(call_id, name), "in_progress")
                begun = self._turn_to(index, call)
                if not arguments:
                    return begun
                self._items[-1]["arguments"] += arguments
                kind = "response.function_call_arguments.delta"
                return begun + self._of_item(kind, delta=arguments)

    def end(self, finished: Finished) -> bytes:
        """Return the events after the last piece."""
        status = "incomplete" if finished.finish_reason == "length" else "completed"
        begun = b"" if self._items else self.say(Token(""))
        closed = begun + self._close(status)
        response = whole(self._record, self._items) | finished.unstored()
        return closed + self._event(f"response.{response['status']}", response=response)

    def fail(self, error: MyLLMError) -> bytes:
        """Return the events that replace the rest of a failed answer."""
        if not self._number:
            code = str(status_of(error))
            return self._event("error", code=code, message=error.detail, param=None)
        failure = {"code": "server_error", "message": error.detail}
        response = whole(self._record, self._items) | {"status": "failed", "error": failure}
        return self._event("response.failed", response=response)

    def _turn_to(self, what: str | int, item: Item) -> bytes:
        """Make `what` the open item, and return the events for that."""
        if self._open == what:
            return b""
        closed = self._close("completed")
        self._open = what
        content, empty = item.pop("content", None), dict(item)
        if content is not None:
            empty["content"] = []
        self._items.append(item)
        begun = closed + self._item_event("response.output_item.added", empty)
        if content is None:
            return begun
        item["content"] = content
        return begun + self._of_item("response.content_part.added", 0, part=content[0])

    def _text(self, kind: str, text: str) -> bytes:
        self._items[-1]["content"][0]["text"] += text
        more: Item = {"logprobs": []} if kind == "output_text" else {}
        return self._of_item(f"response.{kind}.delta", 0, delta=text, **more) if text else b""

    def _close(self, status: str) -> bytes:
        if self._open is None:
            return b""
        item, self._open = self._items[-1], None
        item["status"] = status
        if item["type"] == "function_call":
            done = {"arguments": item["arguments"], "name": item["name"]}
            closed = self._of_item("response.function_call_arguments.done", **done)
        else:
            part = item["content"][0]
            kind = part["type"]
            more: Item = {"logprobs": []} if kind == "output_text" else {}
            closed = self._of_item(f"response.{kind}.done", 0, text=part["text"], **more)
            closed += self._of_item("response.content_part.done", 0, part=part)
        return closed + self._item_event("response.output_item.done", item)

    def _item_event(self, kind: str, item: Item) -> bytes:
        return self._event(kind, output_index=len(self._items) - 1, item=item)

    def _of_item(self, kind: str, content_index: int | None = None, **fields: Any) -> bytes:
        place = {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}
        if content_index is not None:
            place["content_index"] = content_index
        return self._event(kind, **place, **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return f"event: {kind}\n".encode() + b"data: " + orjson.dumps(data) + b"\n\n"


def _reasoning(key: str, thinking: str) -> Item:
    content = [{"type": "reasoning_text", "text": thinking}]
    return {"id": f"rs_{key}", "type": "reasoning", "summary": [], "content": content,
            "status": "completed"}  # fmt: skip


def _message(key: str, text: str, status: str) -> Item:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"id": f"msg_{key}", "type": "message", "role": "assistant", "status": status,
            "content": content}  # fmt: skip


def _call(key: str, number: int, call: Call, status: str) -> Item:
    return {"id": f"fc_{key}{number}", "type": "function_call", "call_id": call.id,
            "name": call.name, "arguments": call.arguments, "status": status}  # fmt: skip


def _usage(usage: Mapping[str, int] | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    cached = {"cached_tokens": usage["cached_tokens"], "cache_write_tokens": 0}
    return {
        "input_tokens": usage["prompt_tokens"],
        "input_tokens_details": cached,
        "output_tokens": usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage["total_tokens"],
    }
