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

    `ignored` collects the tools that are no functions, and allowed tools that are not offered.
    Raises InvalidRequest for a function without a name, and for a choice that cannot be followed.
    The engine cannot be made to choose a certain tool, so it is offered that tool alone.
    """
    offered = list(_functions(tools or (), ignored))
    mode, offered = _chosen(choice, offered, ignored)
    if mode == "required" and not offered:
        raise InvalidRequest("tool_choice is required, but there are no tools")
    if not offered:
        return {}
    return {"tools": offered} if mode is None else {"tools": offered, "tool_choice": mode}


def tools_or_format(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the engine's `fields` without a format of the answer that would rule out tool calls.

    The engine either enforces a format or lets the model call tools; given both, it silently makes
    calls impossible. An answer that must be a call has no text to format, so the format is dropped.
    Raises InvalidRequest if the model may choose between a call and a text, and for a grammar with
    tools that may be called.
    """
    made, choice = dict(fields), fields.get("tool_choice")
    formats = _formats(fields)
    if not (formats and fields.get("tools")) or choice == "none":
        return made
    if choice != "required" or "grammar" in formats:
        raise InvalidRequest(
            "The engine cannot enforce a format of the answer and let the model call tools in one "
            'request: set tool_choice to "none", or leave out the tools or the format'
        )
    return {name: value for name, value in made.items() if name not in formats}


def _formats(fields: Mapping[str, Any]) -> list[str]:
    """Return the names of those fields that set a format of the answer."""
    form = fields.get("response_format")
    formats = {
        "grammar": bool(fields.get("grammar")),
        "json_schema": fields.get("json_schema") is not None,
        "response_format": isinstance(form, Mapping) and form.get("type") not in (None, "", "text"),
    }
    return [name for name, is_set in formats.items() if is_set]


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


def _chosen(
    choice: Any, offered: list[dict[str, Any]], ignored: Ignored
) -> tuple[str | None, list[dict[str, Any]]]:
    """Return the engine's `tool_choice`, and the tools to choose among."""
    if choice is None:
        return None, offered
    kind = choice.get("type") if isinstance(choice, Mapping) else choice
    if isinstance(kind, str) and kind in _MODES:
        return _MODES[kind], offered
    if isinstance(choice, Mapping):
        if kind == "allowed_tools":
            return _allowed(choice.get("allowed_tools") or choice, offered, ignored)
        name = _name_of(choice)
        if name is not None and kind in (None, *_KINDS):
            return "required", [_named(offered, name)]
        if isinstance(kind, str) and kind not in _KINDS:
            raise InvalidRequest(f"tool_choice: there is no tool of type '{kind[:NAME_CHARS]}'")
    raise InvalidRequest('tool_choice must be "auto", "none", "required" or the name of a tool')


def _allowed(
    allowed: Any, offered: list[dict[str, Any]], ignored: Ignored
) -> tuple[str, list[dict[str, Any]]]:
    """Tools that are not offered, such as those of other types, cannot be called anyway: they are
    named, and the choice is among the rest."""
    tools = allowed.get("tools") if isinstance(allowed, Mapping) else None
    if not isinstance(tools, list):
        raise InvalidRequest("tool_choice.allowed_tools.tools must be a list")
    mode = _MODES.get(str(allowed.get("mode") or "auto"))
    if mode is None:
        raise InvalidRequest('tool_choice.allowed_tools.mode must be "auto" or "required"')
    known, wanted = {tool["function"]["name"] for tool in offered}, set()
    for index, tool in enumerate(tools):
        if (name := _name_of(tool)) is not None and name in known:
            wanted.add(name)
        else:
            kind = tool.get("type") if isinstance(tool, Mapping) else None
            what = str(name or kind)[:NAME_CHARS]
            ignored.add(f"tool_choice.allowed_tools.tools[{index}] ({what})")
    if tools and not wanted:
        raise InvalidRequest("tool_choice: none of the allowed tools is among the tools")
    return mode, [tool for tool in offered if tool["function"]["name"] in wanted]


def _name_of(tool: Any) -> str | None:
    """Return the name in a choice of one tool, which stands in it or in its function."""
    if not isinstance(tool, Mapping):
        return None
    for holder in (tool, *(tool.get(kind) for kind in _KINDS)):
        name = holder.get("name") if isinstance(holder, Mapping) else None
        if isinstance(name, str):
            return name
    return None


def _named(offered: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    for tool in offered:
        if tool["function"]["name"] == name:
            return tool
    raise InvalidRequest(f"tool_choice: there is no tool '{name[:NAME_CHARS]}'")
