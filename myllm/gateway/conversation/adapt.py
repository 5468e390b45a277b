"""Makes a conversation fit a model's chat template, without losing any of it.

Templates refuse what their authors did not think of, or drop it silently. What a template accepts
stays as it is, so that the prompts of later turns begin alike and the engine's cache stays valid.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from myllm.gateway.conversation import thoughts, tool_messages
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import ChatMessage, Messages, Part
from myllm.gateway.conversation.tool_calls import matched
from myllm.gateway.conversation.traits import TemplateTraits

_EMPTY_USER: ChatMessage = {"role": "user", "content": ""}


def is_plain(messages: Messages) -> bool:
    """Whether every template accepts `messages`: at most one system message, at the front, then
    texts of user and assistant in turns, without thoughts."""
    expected = "user"
    for message in messages:
        role = message["role"]
        if role == "system" and message is messages[0]:
            continue
        if role != expected or "tool_calls" in message or "reasoning_content" in message:
            return False
        expected = "assistant" if role == "user" else "user"
    return bool(messages) and messages[-1]["role"] != "system"


def adapted(messages: Messages, traits: TemplateTraits, ignored: Ignored) -> Messages:
    """Return `messages` as a template with these traits accepts them.

    `ignored` names what has no place in them. Takes time linear in the messages.
    """
    messages = tool_messages.without_orphans(matched(messages))
    if not traits.late_systems:
        messages = _system_first(messages)
    if not traits.system_in_tool_loops and any(each["role"] == "tool" for each in messages):
        messages = _system_in_question(messages)
    if not traits.calls:
        messages = tool_messages.calls_as_text(messages)
    elif not traits.results_apart:
        messages = tool_messages.results_behind_calls(messages)
    if not traits.results:
        messages = tool_messages.results_as_text(messages)
    if traits.alternates:
        messages = _alternating(messages)
    if traits.calls:
        messages = tool_messages.in_form(messages, traits, ignored)
    messages = thoughts.in_form(messages, traits)
    if traits.needs_user and all(message["role"] != "user" for message in messages):
        first = sum(message["role"] == "system" for message in messages)
        messages = [*messages[:first], _EMPTY_USER, *messages[first:]]
    return messages


def _system_first(messages: Messages) -> Messages:
    """Merge the system messages into one at the front."""
    systems = [message for message in messages if message["role"] == "system"]
    others = [message for message in messages if message["role"] != "system"]
    return [*([_merged(systems)] if systems else []), *others]


def _system_in_question(messages: Messages) -> Messages:
    """Let the first message of the user begin with the system message at the front."""
    if messages[0]["role"] != "system":
        return messages
    if len(messages) > 1 and messages[1]["role"] == "user":
        first: ChatMessage = {**messages[1], "content": _joined_contents(messages[:2])}
        return [first, *messages[2:]]
    return [{**_EMPTY_USER, "content": messages[0]["content"]}, *messages[1:]]


def _alternating(messages: Messages) -> Messages:
    """Merge neighbours of one role, and let a user begin.

    A last message of the assistant, which is to be continued, stays one of its own.
    """
    made: Messages = []
    group: Messages = []
    for number, message in enumerate(messages):
        is_continued = number == len(messages) - 1 and message["role"] == "assistant"
        if group and group[0]["role"] == message["role"] != "tool" and not is_continued:
            group.append(message)
            continue
        if group:
            made += [_merged(group)]
        if message["role"] == "assistant" and _needs_question(made):
            made.append(_EMPTY_USER)
        group = [message]
    return [*made, _merged(group)] if group else made


def _needs_question(made: Messages) -> bool:
    """Whether a message of the assistant cannot follow `made`."""
    return not made or made[-1]["role"] in ("system", "assistant")


def _merged(messages: Messages) -> ChatMessage:
    if len(messages) == 1:
        return messages[0]
    merged: ChatMessage = {**messages[0], "content": _joined_contents(messages)}
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    if calls:
        merged["tool_calls"] = calls
    thinking = [text for message in messages if (text := message.get("reasoning_content"))]
    if thinking:
        merged["reasoning_content"] = "\n\n".join(thinking)
    return merged


def _joined_contents(messages: Iterable[ChatMessage]) -> str | list[Part]:
    """Return the contents of several messages as that of one."""
    contents: list[Any] = [message["content"] for message in messages if message["content"]]
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(contents)
    parts: list[Part] = []
    for content in contents:
        if parts and "text" in parts[-1]:
            parts.append({"type": "text", "text": "\n\n"})
        parts += [{"type": "text", "text": content}] if isinstance(content, str) else content
    return parts
