"""Tools, and the choice among them, in the forms in which clients write OpenAI's fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from myllm.api.shared.bounded import Name
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import Ignored
from myllm.limits import NAME_CHARS

_MODES: Final = {"auto": "auto", "none": "none", "required": "required", "any": "required"}
# What a tool is wrapped in, and what the type of a choice of one tool is called.
_KINDS: Final = ("function", "custom", "tool")


class CalledFunction(BaseModel):
    """The function that was called, and its arguments."""

    name: Name = Field(min_length=1, description="The function's name.")
    arguments: str | dict[str, Any] = Field("{}", description="JSON, as a text or an object.")


class ToolCall(BaseModel):
    """A tool call; its result comes in a message of role tool."""

    id: Name = Field("", description="Names the call; its result repeats it.")
    type: Literal["function"] = Field("function", description="Always function.")
    function: CalledFunction = Field(description="What is called, and with what.")


def tool_fields(
    tools: Sequence[Mapping[str, Any]] | None, choice: Any, ignored: Ignored
) -> dict[str, Any]:
    """Return the engine's fields for tools.

    `ignored` collects the tools that are no functions. Raises InvalidRequest for a function without
    a name, and for a choice that cannot be followed. The engine cannot be made to choose a certain
    tool, so it is offered that tool alone.
    """
    offered = list(_functions(tools or (), ignored))
    mode, names = _chosen(choice)
    if names is not None:
        offered = _named(offered, names)
    if mode == "required" and not offered:
        raise InvalidRequest("tool_choice is required, but there are no tools")
    if not offered:
        return {}
    return {"tools": offered} if mode is None else {"tools": offered, "tool_choice": mode}


def _functions(tools: Sequence[Mapping[str, Any]], ignored: Ignored) -> Iterator[dict[str, Any]]:
    for number, tool in enumerate(tools):
        where, kind = f"tools[{number}]", tool.get("type")
        function = tool.get("function")
        if function is None and kind in (None, "function"):
            # The Responses API has the fields of the function in the tool itself.
            function = {name: value for name, value in tool.items() if name != "type"}
        if isinstance(function, Mapping) and function:
            yield {"type": "function", "function": _function(function, where)}
        elif kind in (None, "function"):
            raise InvalidRequest(f"{where}.function is required")
        else:
            ignored.add(f"{where} ({kind})")


def _function(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return a function without nulls, whose parameters every chat template can read."""
    function = {name: value for name, value in given.items() if value is not None}
    name, parameters = function.get("name"), function.get("parameters", {})
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"{where}.function.name is required")
    if len(name) > NAME_CHARS:
        raise InvalidRequest(f"{where}.function.name must have {NAME_CHARS} characters at most")
    if not isinstance(parameters, Mapping):
        raise InvalidRequest(f"{where}.function.parameters must be an object")
    schema = {name: value for name, value in parameters.items() if value is not None}
    if schema.get("type", "object") == "object":
        schema = {"type": "object", "properties": {}} | schema
    return function | {"parameters": schema}


def _chosen(choice: Any) -> tuple[str | None, list[str] | None]:
    """Return the engine's `tool_choice`, and the names of the tools to choose among if it is not
    all of them."""
    if choice is None:
        return None, None
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    if isinstance(kind, str) and kind in _MODES:
        return _MODES[kind], None
    if isinstance(choice, Mapping):
        if kind == "allowed_tools":
            return _allowed(choice.get("allowed_tools") or choice)
        name = _name_of(choice)
        if name is not None and kind in (None, *_KINDS):
            return "required", [name]
        if isinstance(kind, str) and kind not in _KINDS:
            raise InvalidRequest(f"tool_choice: there is no tool of type '{kind[:NAME_CHARS]}'")
    raise InvalidRequest('tool_choice must be "auto", "none", "required" or the name of a tool')


def _allowed(allowed: Any) -> tuple[str, list[str]]:
    tools = allowed.get("tools") if isinstance(allowed, Mapping) else None
    if not isinstance(tools, list):
        raise InvalidRequest("tool_choice.allowed_tools.tools must be a list")
    mode = _MODES.get(str(allowed.get("mode") or "auto"))
    if mode is None:
        raise InvalidRequest('tool_choice.allowed_tools.mode must be "auto" or "required"')
    return mode, [name for tool in tools if (name := _name_of(tool)) is not None]


def _name_of(tool: Any) -> str | None:
    """Return the name in a choice of one tool, which stands in it or in its function."""
    if not isinstance(tool, Mapping):
        return None
    for holder in (tool, *(tool.get(kind) for kind in _KINDS)):
        name = holder.get("name") if isinstance(holder, Mapping) else None
        if isinstance(name, str):
            return name
    return None


def _named(offered: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the tools of these names. Raises InvalidRequest if one is missing."""
    known = {tool["function"]["name"] for tool in offered}
    for name in names:
        if name not in known:
            raise InvalidRequest(f"tool_choice: there is no tool '{name[:NAME_CHARS]}'")
    wanted = frozenset(names)
    return [tool for tool in offered if tool["function"]["name"] in wanted]
