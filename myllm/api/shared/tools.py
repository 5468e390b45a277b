"""Tools and tool calls in OpenAI's form, which all dialects but Anthropic's use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from myllm.api.shared.bounded import Name
from myllm.errors import InvalidRequest


class Function(BaseModel):
    """What can be called."""

    model_config = ConfigDict(extra="allow")

    name: Name = Field(min_length=1, description="What the model calls it by.")
    description: str | None = Field(None, description="When to call it, for the model.")
    parameters: dict[str, Any] | None = Field(None, description="JSON schema of the arguments.")


class Tool(BaseModel):
    """A function that the model may call."""

    type: Literal["function"] = Field("function", description="Always function.")
    function: Function = Field(description="The function.")


class CalledFunction(BaseModel):
    """The function that was called, and its arguments."""

    name: Name = Field(min_length=1, description="The function's name.")
    arguments: str | dict[str, Any] = Field("{}", description="JSON, as a text or an object.")


class ToolCall(BaseModel):
    """A tool call; its result comes in a message of role tool."""

    id: Name = Field("", description="Names the call; its result repeats it.")
    type: Literal["function"] = Field("function", description="Always function.")
    function: CalledFunction = Field(description="What is called, and with what.")


class NamedFunction(BaseModel):
    """The name of one of the tools."""

    name: Name = Field(description="The function that must be called.")


class NamedTool(BaseModel):
    """The one tool that must be called."""

    type: Literal["function"] = Field("function", description="Always function.")
    function: NamedFunction = Field(description="Which function.")


ToolChoice = Literal["auto", "none", "required"] | NamedTool


def tool_fields(tools: Sequence[Tool] | None, choice: ToolChoice | None) -> dict[str, Any]:
    """Return the engine's fields for tools; raises InvalidRequest if the chosen tool is missing.

    The engine cannot be made to choose a certain tool, so it is offered that tool alone.
    """
    offered = [tool.model_dump(exclude_none=True) for tool in tools or ()]
    if isinstance(choice, NamedTool):
        name, choice = choice.function.name, "required"
        offered = [tool for tool in offered if tool["function"]["name"] == name]
        if not offered:
            raise InvalidRequest(f"tool_choice: there is no tool '{name}'")
    if choice == "required" and not offered:
        raise InvalidRequest("tool_choice is required, but there are no tools")
    if not offered:
        return {}
    return {"tools": offered} if choice is None else {"tools": offered, "tool_choice": choice}
