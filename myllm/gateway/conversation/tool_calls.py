"""Tool calls in a history: their arguments, their ids, and which result answers which call."""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, Final

from myllm.errors import InvalidRequest
from myllm.gateway.conversation.messages import ChatMessage, Messages, ToolCall
from myllm.json_input import parse_json

_UNREADABLE: Final = "arguments"


def called(call: Any) -> ToolCall | None:
    """Return a client's tool call in the one form, with "" for a missing id.

    OpenAI's custom tools are called with a text, which becomes the argument `input`. Returns None
    for what names no function.
    """
    if not isinstance(call, Mapping):
        return None
    function = call.get("function")
    if function is None and isinstance(custom := call.get("custom"), Mapping):
        function = {"name": custom.get("name"), "arguments": {"input": custom.get("input") or ""}}
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None
    return {
        "id": text_of(call.get("id")),
        "type": "function",
        "function": {
            "name": function["name"],
            "arguments": readable_arguments(function.get("arguments")),
        },
    }


def readable_arguments(arguments: Any) -> str:
    """Return the arguments of a call as the text of a JSON object, which templates read.

    Clients also send them as an object, as nothing, encoded twice, or cut off where the answer
    reached its length. Whatever is no object, or exceeds the bounds of a request's JSON, becomes
    one, with what was sent under "arguments", so that the model sees what it wrote.
    """
    parsed = arguments
    for _ in range(2):
        if not isinstance(parsed, str):
            break
        try:
            parsed = parse_json(parsed.encode()) if parsed.strip() else None
        except InvalidRequest:
            break
    if isinstance(arguments, str) and isinstance(parsed, dict) and _is_whole(arguments):
        return arguments  # unchanged, for the cache
    if parsed is None:
        return "{}"
    whole = parsed if isinstance(parsed, dict) else {_UNREADABLE: parsed}
    return json.dumps(whole, ensure_ascii=False)  # with spaces, as most models write


def _is_whole(arguments: str) -> bool:
    """Whether the text of an object, which may be encoded twice, is what engines can parse."""
    has_surrogates = "\\ud" in arguments or "\\uD" in arguments
    return arguments.lstrip()[:1] == "{" and not has_surrogates


def text_of(name: Any) -> str:
    """Return a client's id or name as a text; some clients count, and send numbers."""
    if isinstance(name, str):
        return name
    return str(name) if isinstance(name, int | float) else ""


def matched(messages: Messages) -> Messages:
    """Return `messages` with an id for each call, and each result with the id of its call and the
    name of its tool.

    A result answers the open call that it names by `tool_call_id`, or else the first one of the
    tool in `name`, or else the first one. A result that fits no call keeps what it has. The ids of
    calls that are open at the same time differ afterwards. Takes time linear in the messages.
    """
    if not any("tool_calls" in message or message["role"] == "tool" for message in messages):
        return messages
    return list(_matched(messages))


def _matched(messages: Messages) -> Iterator[ChatMessage]:
    unanswered = _OpenCalls()
    for number, message in enumerate(messages):
        if calls := message.get("tool_calls"):
            named: list[ToolCall] = [
                {**call, "id": unanswered.add(call, f"call_{number}_{index}")}
                for index, call in enumerate(calls)
            ]
            yield {**message, "tool_calls": named}
        elif message["role"] == "tool":
            yield _result(message, unanswered)
        else:
            yield message


def _result(message: ChatMessage, unanswered: _OpenCalls) -> ChatMessage:
    name = message.get("name")
    answered = unanswered.answered(message.get("tool_call_id") or "", name)
    if answered is None:
        return {**message, "tool_call_id": message.get("tool_call_id") or ""}
    call_id, of_call = answered
    return {**message, "tool_call_id": call_id, "name": name or of_call}


class _OpenCalls:
    """The calls that have no result yet, oldest first: all, and by the id and name they came with.

    Ordered dictionaries, since finding the first key of an ordinary one takes time for each key
    that was removed before it.
    """

    def __init__(self) -> None:
        self._all: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._by_id: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)
        self._by_name: defaultdict[str, OrderedDict[str, None]] = defaultdict(OrderedDict)

    def add(self, call: ToolCall, new_id: str) -> str:
        """Note a call and return its id, which is `new_id` if its own is missing or taken."""
        given, name = call["id"], call["function"]["name"]
        call_id = given or new_id
        if call_id in self._all:
            call_id = new_id
        while call_id in self._all:  # a client's own id looks like ours
            call_id += "x"
        self._all[call_id] = given, name
        self._by_id[given][call_id] = None
        self._by_name[name][call_id] = None
        return call_id

    def answered(self, given: str, name: str | None) -> tuple[str, str] | None:
        """Close the call that a result answers, and return its id and its tool's name."""
        fitting: Mapping[str, Any] = self._by_id.get(given, {}) if given else {}
        if not given:
            fitting = self._by_name.get(name, {}) if name is not None else self._all
        call_id = next(iter(fitting), None)
        if call_id is None:
            return None
        of_call, name = self._all.pop(call_id)
        del self._by_id[of_call][call_id]
        del self._by_name[name][call_id]
        return call_id, name
