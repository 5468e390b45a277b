"""Translates Anthropic's messages to OpenAI's, which the engine understands."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import Any, Final

from myllm.api.anthropic.schemas import (
    AnthropicTool,
    Block,
    CountTokensRequest,
    ImageBlock,
    TextBlock,
    ThinkingConfig,
    ToolResultBlock,
    ToolUseBlock,
)
from myllm.api.shared.translated_chat import content_of, wire_call
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.messages import RawMessages

# Claude Code puts this line, which changes with each request, first: with it, no prompt would ever
# match the cache.
_BILLING: Final = "x-anthropic-billing-header:"
_CHOICES: Final = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}


def messages_of(request: CountTokensRequest) -> RawMessages:
    """Return the conversation, with the system prompt first."""
    texts = [block.text for block in request.system or ()]
    kept = [text for text in texts if not text.startswith(_BILLING)]
    wire: RawMessages = [{"role": "system", "content": "\n".join(kept)}] if kept else []
    for role, messages in groupby(request.messages, key=lambda message: message.role):
        blocks = [block for message in messages for block in message.content]
        wire += _answers(blocks) if role == "assistant" else _questions(role, blocks)
    return wire


def fields_of(request: CountTokensRequest) -> dict[str, Any]:
    """Return the engine's other fields: tools, and whether to think.

    Raises InvalidRequest if the chosen tool is missing.
    """
    fields = _thinking(request.thinking)
    choice, tools = request.tool_choice, request.tools or []
    if choice is not None and choice.type == "tool":
        tools = [tool for tool in tools if tool.name == choice.name]
        if not tools:
            raise InvalidRequest(f"tool_choice.name '{choice.name}' is not one of the tools")
    if not tools:
        return fields
    fields["tools"] = [_tool(tool) for tool in tools]
    if choice is not None:
        fields["tool_choice"] = _CHOICES[choice.type]
        if choice.disable_parallel_tool_use is not None:
            fields["parallel_tool_calls"] = not choice.disable_parallel_tool_use
    return fields


def _thinking(config: ThinkingConfig | None) -> dict[str, Any]:
    thinks = config is not None and config.type != "disabled"
    fields: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": thinks}}
    if thinks and config is not None and config.budget_tokens is not None:
        fields["thinking_budget_tokens"] = config.budget_tokens
    return fields


def _tool(tool: AnthropicTool) -> dict[str, Any]:
    function = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _answers(blocks: Iterable[Block]) -> RawMessages:
    """Return the assistant's text and tool calls, without its thinking."""
    blocks = list(blocks)
    content = content_of(*_shown(blocks))
    calls = [
        wire_call(block.id, block.name, block.input)
        for block in blocks
        if isinstance(block, ToolUseBlock)
    ]
    message = {"role": "assistant", "content": content}
    if calls:
        return [message | {"tool_calls": calls}]
    return [message] if content else []


def _questions(role: str, blocks: Iterable[Block]) -> RawMessages:
    """Return the results of tools, then the text of the user."""
    blocks = list(blocks)
    wire = [_result(block) for block in blocks if isinstance(block, ToolResultBlock)]
    content = content_of(*_shown(blocks))
    return [*wire, {"role": role, "content": content}] if content or not wire else wire


def _result(block: ToolResultBlock) -> dict[str, Any]:
    texts, images = _shown(block.content)
    if block.is_error:
        texts = ["Error: " + "\n".join(texts)]
    content = content_of(texts, images)
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}


def _shown(blocks: Iterable[Block]) -> tuple[list[str], list[str]]:
    """Return the texts and the URLs of the images among `blocks`."""
    blocks = list(blocks)
    texts = [block.text for block in blocks if isinstance(block, TextBlock)]
    return texts, [block.url for block in blocks if isinstance(block, ImageBlock)]
