"""Answers in the form of OpenAI's `/v1/responses`, as a stream of events."""

from __future__ import annotations

from typing import Any, Final

import orjson

from myllm.api.openai.responses_custom import CustomInput
from myllm.api.openai.responses_order import Order
from myllm.api.openai.responses_output import (
    Form,
    Item,
    action_of,
    message_item,
    reasoning_item,
    whole,
)
from myllm.errors import InvalidRequest, KeyPaused, MyLLMError, PromptTooLong, QueueFull
from myllm.gateway.generation.events import Call, CallPart, Finished, Thinking, Token

# An error has the code of its nearest ancestor in this table; clients act on it.
_CODES: Final[dict[type[MyLLMError], str]] = {
    PromptTooLong: "context_length_exceeded",
    QueueFull: "rate_limit_exceeded",
    KeyPaused: "rate_limit_exceeded",
    InvalidRequest: "invalid_prompt",
    MyLLMError: "server_error",
}


class Events:
    """Turns an answer into events, with one item open at a time; the answer fills `record`."""

    def __init__(self, key: str, record: dict[str, Any], form: Form) -> None:
        self._key = key
        self._record = record
        self._form = form
        self._order = Order(record.setdefault("order", []))
        self._calls: set[int] = set()
        self._held: list[Token | Thinking] = []  # until the open call is complete
        self._input = CustomInput()  # of the call that is open, like its arguments
        self._arguments = ""
        self._number = 0
        self._items: list[Item] = []
        self._open: str | int | None = None

    def begin(self) -> bytes:
        """Return the events before the first piece of the answer."""
        kinds = "response.created", "response.in_progress"
        return b"".join(self._event(kind, response=whole(self._record, ())) for kind in kinds)

    def say(self, piece: Token | Thinking | CallPart) -> bytes:
        """Return the events for one piece of the answer."""
        self._order.take(piece)
        if isinstance(piece, CallPart):
            return self._call(piece)
        if not piece.text:
            return b""
        if isinstance(self._open, int) and not _is_object(self._arguments):
            self._held.append(piece)
            return b""
        return self._release() + self._say(piece)

    def _say(self, piece: Token | Thinking) -> bytes:
        begun = b""
        if isinstance(piece, Thinking):
            if self._open != "reasoning":
                begun = self._turn_to(
                    "reasoning", reasoning_item(self._key, self._count("reasoning"), "")
                )
            return begun + self._text("reasoning_text", piece.text)
        if self._open != "message":
            begun = self._begin_message()
        return begun + self._text("output_text", piece.text)

    def _begin_message(self) -> bytes:
        item = message_item(self._key, self._count("message"), "", "in_progress")
        return self._turn_to("message", item)

    def _count(self, kind: str) -> int:
        return sum(item["type"] == kind for item in self._items)

    def _call(self, part: CallPart) -> bytes:
        begun = b""
        if self._open != part.index:
            if part.index in self._calls:
                return b""  # only white space comes after a whole object
            begun = self._release()
            self._calls.add(part.index)
            item = self._form.call(self._key, part.index, Call(part.id, part.name), "in_progress")
            begun += self._turn_to(part.index, item)
            self._input, self._arguments = CustomInput(), ""
        return begun + self._called(part.arguments)

    def _release(self) -> bytes:
        """Return the events for what came before the open call was complete, after that call's."""
        held, self._held = self._held, []
        closed = self._close("completed") if held else b""
        return closed + b"".join(map(self._say, held))

    def _called(self, arguments: str) -> bytes:
        """Return the event for a piece of the arguments of the open call."""
        item = self._items[-1]
        self._arguments += arguments
        match item["type"]:
            case "custom_tool_call":
                return self._add_input(self._input.take(arguments))
            case "function_call" if arguments:
                item["arguments"] = self._arguments
                kind = "response.function_call_arguments.delta"
                return self._of_item(kind, delta=arguments)
        return b""

    def _add_input(self, text: str) -> bytes:
        if not text:
            return b""
        self._items[-1]["input"] = self._input.text
        return self._of_item("response.custom_tool_call_input.delta", delta=text)

    def end(self, finished: Finished) -> bytes:
        """Return the events after the last piece."""
        status = "incomplete" if finished.finish_reason == "length" else "completed"
        begun = self._release() if self._items else self._begin_message()
        closed = begun + self._close(status)
        response = whole(self._record, self._items) | finished.unstored()
        return closed + self._event(f"response.{response['status']}", response=response)

    def fail(self, error: MyLLMError) -> bytes:
        """Return the events that replace the rest of a failed answer.

        Codex takes a bare event of type error for a broken connection, and asks again.
        """
        begun = b"" if self._number else self.begin()
        code = next(_CODES[kind] for kind in type(error).__mro__ if kind in _CODES)
        failure = {"code": code, "message": error.detail}
        response = whole(self._record, self._items) | {"status": "failed", "error": failure}
        return begun + self._event("response.failed", response=response)

    def _turn_to(self, what: str | int, item: Item) -> bytes:
        """Make `what` the open item, and return the events for that."""
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
        return self._closed(item) + self._item_event("response.output_item.done", item)

    def _closed(self, item: Item) -> bytes:
        """Complete the item that was open, and return the events before its last one."""
        match item["type"]:
            case "function_call":
                done = {"arguments": item["arguments"], "name": item["name"]}
                return self._of_item("response.function_call_arguments.done", **done)
            case "custom_tool_call":
                rest = self._add_input(self._input.end())
                kind = "response.custom_tool_call_input.done"
                return rest + self._of_item(kind, input=item["input"])
            case "local_shell_call":
                item["action"] = action_of(self._arguments)
                return b""
            case "reasoning":
                self._form.complete(item)
        part = item["content"][0]
        kind = part["type"]
        more: Item = {"logprobs": []} if kind == "output_text" else {}
        text = self._of_item(f"response.{kind}.done", 0, text=part["text"], **more)
        return text + self._of_item("response.content_part.done", 0, part=part)

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


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(orjson.loads(arguments), dict)
    except orjson.JSONDecodeError:
        return False
