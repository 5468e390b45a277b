"""What an assistant thought in earlier messages, in the form that a chat template has for it."""

from __future__ import annotations

from myllm.gateway.conversation.messages import ChatMessage, Messages
from myllm.gateway.conversation.traits import TemplateTraits


def in_form(messages: Messages, traits: TemplateTraits) -> Messages:
    """Return messages whose thoughts do not displace their texts."""
    match traits.thoughts:
        case "beside text":
            return messages
        case "instead of text":
            return [_with_text_in_thoughts(message) for message in messages]
        case "never":
            return [_without_thoughts(message) for message in messages]


def _with_text_in_thoughts(message: ChatMessage) -> ChatMessage:
    """Append the text beside calls to the thoughts."""
    thoughts, text = message.get("reasoning_content"), message["content"]
    if not (thoughts and text and isinstance(text, str) and "tool_calls" in message):
        return message
    return {**message, "content": "", "reasoning_content": f"{thoughts}\n\n{text}"}


def _without_thoughts(message: ChatMessage) -> ChatMessage:
    if "reasoning_content" not in message:
        return message
    copy = message.copy()
    del copy["reasoning_content"]
    return copy
