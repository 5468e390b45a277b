"""From Anthropic's messages to OpenAI's, which the engine knows."""

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
from myllm.gateway.prompt.fit import Wire

# A line of Claude Code's that changes with each request: a prompt that began with it would never
# be found in a cache.
_BILLING: Final = "x-anthropic-billing-header:"
_CHOICES: Final = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}


def messages_of(request: CountTokensRequest) -> Wire:
    """The conversation, its system prompt first."""
    texts = [block.text for block in request.system or ()]
    told = [text for text in texts if not text.startswith(_BILLING)]
    wire: Wire = [{"role": "system", "content": "\n".join(told)}] if told else []
    for role, messages in groupby(request.messages, key=lambda message: message.role):
        blocks = [block for message in messages for block in message.content]
        wire += _answers(blocks) if role == "assistant" else _questions(role, blocks)
    return wire


def fields_of(request: CountTokensRequest) -> dict[str, Any]:
    """What else is for the engine: tools, and whether to think."""
    fields = _thinking(request.thinking)
    choice, tools = request.tool_choice, request.tools or []
    if choice is not None and choice.type == "tool":
        tools = [tool for tool in tools if tool.name == choice.name]
        if not tools:
            raise InvalidRequest(f"tool_choice.name '{choice.name}' is none of the tools")
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


def _answers(blocks: Iterable[Block]) -> Wire:
    """What the model has said and called; its thoughts are left out."""
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


def _questions(role: str, blocks: Iterable[Block]) -> Wire:
    """What tools have answered, then what the user says."""
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
    """The texts and the images among `blocks`."""
    blocks = list(blocks)
    texts = [block.text for block in blocks if isinstance(block, TextBlock)]
    return texts, [block.url for block in blocks if isinstance(block, ImageBlock)]
