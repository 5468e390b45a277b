"""Translates Anthropic's messages to OpenAI's, which the engine understands."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any, Final

from myllm.api.anthropic.blocks import (
    Block,
    ContentSource,
    DocumentBlock,
    OtherBlock,
    SearchResultBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from myllm.api.anthropic.reading import BlockReader
from myllm.api.anthropic.schemas import (
    AnthropicMessage,
    CountTokensRequest,
    CustomTool,
    MessagesRequest,
    OtherTool,
    OutputConfig,
    ThinkingConfig,
)
from myllm.api.shared.tools import tool_fields
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.conversation.messages import Part, RawMessages
from myllm.threads import in_thread_if

# Claude Code puts this line, which changes with each request, first: with it, no prompt would ever
# match the cache.
_BILLING: Final = "x-anthropic-billing-header:"
# The levels that chat templates know; Anthropic has more.
_EFFORTS: Final = {"xhigh": "high", "max": "high"}
# They are translated within some milliseconds.
_FEW_BLOCKS: Final = 500
# No answer depends on these: accounts, prices, places and caches of Anthropic's.
_HARMLESS: Final = frozenset(
    {
        *("metadata", "service_tier", "inference_geo", "speed", "cache_control", "betas"),
        *("anthropic_version", "diagnostics", "fallbacks", "billing_policy", "user_profile_id"),
        *("workspace_id", "fallback_credit_token", *MessagesRequest.model_fields),
    }
)
# The one edit that is done here: the chat template decides which thoughts the model sees again.
_THOUGHTS_ONLY: Final = "clear_thinking_20251015"


async def translated(request: CountTokensRequest, ignored: Ignored) -> RawMessages:
    """Return what `messages_of` returns; other requests do not wait for a long conversation."""
    return await in_thread_if(_is_long(request), messages_of, request, ignored)


def _is_long(request: CountTokensRequest) -> bool:
    """Whether the conversation has more than a few blocks, at any depth."""
    contents: list[Collection[Any]] = [request.system or (), request.messages]
    left = _FEW_BLOCKS
    while contents and left >= 0:
        content = contents.pop()
        left -= len(content)
        if left >= 0:
            contents.extend(filter(None, map(_inside, content)))
    return left < 0


def _inside(block: Any) -> Collection[Any]:
    """Return what is in a message, a block or, where any JSON may be, a value."""
    match block:
        case AnthropicMessage() | ToolResultBlock() | SearchResultBlock():
            return block.content
        case DocumentBlock(source=ContentSource(content=content)):
            return content
        case OtherBlock():
            return (block.model_extra or {}).values()
        case dict():
            return block.values()
        case list():
            return block
        case _:
            return ()


def messages_of(request: CountTokensRequest, ignored: Ignored) -> RawMessages:
    """Return the conversation, with the system prompt first; `ignored` collects what is left out.

    Raises InvalidRequest for what the last message of the user has and no model here can read.
    """
    system = [block for block in request.system or () if not _is_billing(block)]
    parts = [*BlockReader(ignored, must_read=True).parts(system, "system")]
    wire: RawMessages = [{"role": "system", "content": parts}] if parts else []
    asked = max((n for n, each in enumerate(request.messages) if each.role == "user"), default=-1)
    for role, group in groupby(enumerate(request.messages), key=lambda each: each[1].role):
        turn = list(group)
        is_asked = turn[0][0] <= asked <= turn[-1][0]
        # An agent goes on when it learns that the result of its tool could not be read.
        is_result = any(isinstance(block, ToolResultBlock) for _, m in turn for block in m.content)
        wire += _turn(role, turn, BlockReader(ignored, must_read=is_asked and not is_result))
    return wire


def fields_of(request: CountTokensRequest, ignored: Ignored) -> dict[str, Any]:
    """Return the engine's other fields: tools, the form of the answer, and whether to think.

    Raises InvalidRequest if the chosen tool is missing.
    """
    _name_unused(request, ignored)
    config = request.output_config or OutputConfig()
    fields = _thinking(request.thinking, config.effort) | _tools(request, ignored)
    form = config.format or request.output_format
    if form is not None:
        fields["json_schema"] = form.schema_
    return fields


def _is_billing(block: Block) -> bool:
    return isinstance(block, TextBlock) and (block.text or "").startswith(_BILLING)


def _turn(
    role: str, messages: Sequence[tuple[int, AnthropicMessage]], reader: BlockReader
) -> RawMessages:
    """Return one turn, which may be several messages of one role: first the results of tools, then
    what was said, with its thoughts and calls."""
    results: RawMessages = []
    parts: list[Part] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for number, message in messages:
        where = f"messages[{number}].content"
        parts += reader.parts(message.content, where)
        for place, block in enumerate(message.content):
            if isinstance(block, ToolResultBlock):
                results.append(_result(block, reader, f"{where}[{place}].content"))
            elif isinstance(block, ToolUseBlock):
                function = {"name": block.name, "arguments": block.input}
                calls.append({"id": block.id, "function": function})
            elif isinstance(block, ThinkingBlock) and block.thinking:
                thoughts.append(block.thinking)
    misplaced = "tool_result" if role == "assistant" and results else ""
    if role != "assistant" and (calls or thoughts):
        misplaced = "tool_use" if calls else "thinking"
    if misplaced:
        raise InvalidRequest(
            f"messages[{messages[0][0]}].content: a message of role {role} cannot have a block of "
            f"type {misplaced}"
        )
    said: dict[str, Any] = {"role": role, "content": parts}
    if role != "assistant":
        return [*results, said] if parts or not results else results
    if not (parts or calls or thoughts):
        return []
    return [said | {"reasoning_content": "\n".join(thoughts), "tool_calls": calls}]


def _result(block: ToolResultBlock, reader: BlockReader, where: str) -> dict[str, Any]:
    parts = [*reader.parts(block.content, where)]
    if block.is_error:
        parts.insert(0, {"type": "text", "text": "Error:"})
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": parts}


def _name_unused(request: CountTokensRequest, ignored: Ignored) -> None:
    for name, value in (request.model_extra or {}).items():
        if value is not None and name not in _HARMLESS:
            ignored.add(name)
    edits = (request.context_management and request.context_management.edits) or ()
    for number, edit in enumerate(edits):
        if edit.type != _THOUGHTS_ONLY:
            ignored.add(f"context_management.edits[{number}] ({edit.type})")
    for number, server in enumerate(request.mcp_servers or ()):
        ignored.add(f"mcp_servers[{number}] ({server.get('name')})")


def _thinking(config: ThinkingConfig | None, effort: str | None) -> dict[str, Any]:
    thinks = config is not None and config.type != "disabled"
    fields: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": thinks}}
    if thinks and effort is not None:
        fields["reasoning_effort"] = _EFFORTS.get(effort, effort)
    if thinks and config is not None and config.budget_tokens is not None:
        fields["thinking_budget_tokens"] = config.budget_tokens
    return fields


def _tools(request: CountTokensRequest, ignored: Ignored) -> dict[str, Any]:
    choice = request.tool_choice
    chosen = choice and choice.model_dump(exclude_none=True)
    fields = tool_fields([_tool(tool) for tool in request.tools or ()], chosen, ignored)
    if fields and choice is not None and choice.disable_parallel_tool_use is not None:
        fields["parallel_tool_calls"] = not choice.disable_parallel_tool_use
    return fields


def _tool(tool: CustomTool | OtherTool) -> dict[str, Any]:
    """Return a tool in OpenAI's form; one of another type keeps no more than that type."""
    if isinstance(tool, OtherTool):
        return {"type": tool.type}
    described = {"description": tool.description, "parameters": tool.input_schema}
    return {"type": "function", "function": {"name": tool.name, **described}}
