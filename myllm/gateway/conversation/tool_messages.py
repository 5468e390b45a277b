"""Messages with tool calls and results, in the form that a chat template has for them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import ChatMessage, Messages, Part, ToolCall
from myllm.gateway.conversation.traits import TemplateTraits

_NO_RESULT = "[no result]"


def without_orphans(messages: Messages) -> Messages:
    """Turn results whose call is not in the conversation into texts of the user.

    Templates refuse them, or drop them.
    """
    known = {call["id"] for message in messages for call in message.get("tool_calls", ())}
    return [
        _as_user(message)
        if message["role"] == "tool" and message.get("tool_call_id") not in known
        else message
        for message in messages
    ]


def calls_as_text(messages: Messages) -> Messages:
    """Write calls into the text of their message."""
    made: Messages = []
    for message in messages:
        if calls := message.get("tool_calls"):
            content, text = message["content"], "\n".join(map(_text_of, calls))
            both: str | list[Part] = f"{content}\n{text}" if content else text
            if isinstance(content, list):
                both = [*content, {"type": "text", "text": text}]
            made.append({**_without_calls(message), "content": both})
        else:
            made.append(message)
    return made


def results_as_text(messages: Messages) -> Messages:
    """Turn results into texts of the user."""
    return [_as_user(message) if message["role"] == "tool" else message for message in messages]


def results_behind_calls(messages: Messages) -> Messages:
    """Move each result behind its call, before whatever came between them."""
    groups: list[Messages] = []
    calling: dict[str, Messages] = {}
    for message in messages:
        group = calling.get(message.get("tool_call_id", "")) if message["role"] == "tool" else None
        if group is not None:
            group.append(message)
            continue
        groups.append([message])
        for call in message.get("tool_calls", ()):
            calling[call["id"]] = groups[-1]
    return [message for group in groups for message in group]


def in_form(messages: Messages, traits: TemplateTraits, ignored: Ignored) -> Messages:
    """Return messages whose calls and results a template with these traits renders."""
    if not traits.parallel_calls:
        messages = list(_one_call_each(messages))
    if traits.text_beside_calls != "together":
        messages = list(_without_text_beside(messages, traits, ignored))
    if not traits.user_after_result:
        messages = list(_with_answers(messages))
    return [_with_short_ids(message) for message in messages] if traits.short_ids else messages


def _text_of(call: ToolCall) -> str:
    function = call["function"]
    return f"[Call of {function['name']}: {function['arguments']}]"


def _as_user(message: ChatMessage) -> ChatMessage:
    name = message.get("name")
    head = f"[Result of {name}]" if name else "[Result of a tool]"
    content = message["content"]
    if isinstance(content, str):
        return {"role": "user", "content": f"{head}\n{content}"}
    before: Part = {"type": "text", "text": f"{head}\n"}
    return {"role": "user", "content": [before, *content]}


def _without_calls(message: ChatMessage) -> ChatMessage:
    copy = message.copy()
    del copy["tool_calls"]
    return copy


def _one_call_each(messages: Messages) -> Iterator[ChatMessage]:
    """Give each call a message of its own, with its result behind it."""
    number = 0
    while number < len(messages):
        message = messages[number]
        number += 1
        calls = message.get("tool_calls", [])
        if len(calls) < 2:
            yield message
            continue
        results: dict[str, Messages] = {}
        while number < len(messages) and messages[number]["role"] == "tool":
            result = messages[number]
            results.setdefault(result.get("tool_call_id", ""), []).append(result)
            number += 1
        yield {**message, "tool_calls": calls[:1]}
        yield from results.pop(calls[0]["id"], ())
        for call in calls[1:]:
            yield {"role": "assistant", "content": "", "tool_calls": [call]}
            yield from results.pop(call["id"], ())
        for late in results.values():  # of calls in earlier messages
            yield from late


def _without_text_beside(
    messages: Messages, traits: TemplateTraits, ignored: Ignored
) -> Iterator[ChatMessage]:
    stays_behind = len(messages)
    if traits.text_beside_calls == "together in the last turn":
        stays_behind = _last_turn(messages)
    for number, message in enumerate(messages):
        if number > stays_behind or not (message.get("tool_calls") and message["content"]):
            yield message
            continue
        if traits.text_beside_calls == "nowhere":
            ignored.add(f"text beside tool call {message['tool_calls'][0]['id']}")
        else:
            yield {"role": "assistant", "content": message["content"]}
        yield {**message, "content": ""}


def _last_turn(messages: Messages) -> int:
    """Return the index of the last message that neither calls tools nor is a result."""
    for number in range(len(messages) - 1, -1, -1):
        if messages[number]["role"] != "tool" and not messages[number].get("tool_calls"):
            return number
    return -1


def _with_answers(messages: Messages) -> Iterator[ChatMessage]:
    """Let an empty answer follow the results that a user's message follows, and a result each call.

    Templates that count turns do not count calls and results.
    """
    unanswered: dict[str, ToolCall] = {}
    previous = ""
    for message in messages:
        role = message["role"]
        if role == "tool":
            unanswered.pop(message.get("tool_call_id", ""), None)
        else:
            for call in unanswered.values():
                name, previous = call["function"]["name"], "tool"
                yield {
                    "role": "tool",
                    "content": _NO_RESULT,
                    "tool_call_id": call["id"],
                    "name": name,
                }
            unanswered = {call["id"]: call for call in message.get("tool_calls", ())}
            if role == "user" and previous == "tool":
                yield {"role": "assistant", "content": ""}
        yield message
        previous = role


def _with_short_ids(message: ChatMessage) -> ChatMessage:
    if calls := message.get("tool_calls"):
        return {**message, "tool_calls": [{**call, "id": _short(call["id"])} for call in calls]}
    if (call_id := message.get("tool_call_id")) is not None:
        return {**message, "tool_call_id": _short(call_id)}
    return message


def _short(call_id: str) -> str:
    """Return nine letters or digits that stand for `call_id`, the same ones in each turn."""
    if len(call_id) == 9 and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.blake2b(call_id.encode(), digest_size=8).hexdigest()[:9]
