"""The tools of a `/v1/responses` request, as functions that an engine can offer to its model.

Models call functions only. Free-form tools (`custom`) and `local_shell` become functions, and the
members of a namespace are offered beside all others; `Tools` knows what each function is to the
client, so that its calls can be written in the client's form.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from myllm.api.shared.bounded import Name
from myllm.api.shared.tool_schemas import ToolDefinitions, ToolSchema
from myllm.api.shared.tools import tool_fields
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import Ignored
from myllm.limits import TOOLS

Kind = Literal["function", "custom", "local_shell"]

INPUT: Final = "input"
"""The only argument of a function that stands for a free-form tool."""

_TEXT_INPUT: Final = {
    "type": "object",
    "properties": {INPUT: {"type": "string", "description": "The whole input, as a text."}},
    "required": [INPUT],
    "additionalProperties": False,
}
_COMMAND: Final = {
    "type": "object",
    "properties": {
        "command": {
            "type": "array",
            "items": {"type": "string"},
            "description": "The program and its arguments.",
        },
        "working_directory": {"type": "string"},
        "timeout_ms": {"type": "integer"},
    },
    "required": ["command"],
    "additionalProperties": False,
}


class ResponsesTool(BaseModel):
    """A tool: a function, a free-form tool, a namespace of these, or the client's shell."""

    model_config = ConfigDict(extra="allow")

    type: Name = Field(
        description="function, custom, namespace or local_shell. Others are left out."
    )
    name: Name | None = Field(None, description="What the model calls it by.")
    description: str | None = Field(None, description="When to call it, for the model.")
    parameters: ToolSchema | None = Field(
        None, description="JSON schema of a function's arguments."
    )
    format: dict[str, Any] | None = Field(
        None, description="The grammar of a free-form tool's input; the model is only told of it."
    )
    tools: ToolDefinitions | None = Field(
        None, description="The functions and free-form tools of a namespace."
    )


class ChosenTool(BaseModel):
    """The one tool that must be called, or the only ones that may be."""

    model_config = ConfigDict(extra="allow")

    type: Name = Field(description="function, custom, local_shell or allowed_tools.")
    name: Name | None = Field(None, description="The tool that must be called.")
    mode: Literal["auto", "required"] | None = Field(
        None, description="For allowed_tools: whether one of them must be called."
    )
    tools: ToolDefinitions | None = Field(
        None, description="For allowed_tools: these tools, by type and name."
    )


@dataclass(frozen=True)
class Meaning:
    """What a function is to the client."""

    kind: Kind
    name: str
    namespace: str | None = None


_PLAIN: Final[Kind] = "function"


@dataclass
class Tools:
    """The functions that stand for a request's tools, by the names that the model sees."""

    functions: dict[str, dict[str, Any]] = field(default_factory=dict)
    meanings: dict[str, Meaning] = field(default_factory=dict)

    def meaning(self, name: str) -> Meaning:
        """Return what the function `name` is to the client."""
        return self.meanings.get(name) or Meaning(_PLAIN, name)

    def seen_name(self, name: str, namespace: str | None) -> str:
        """Return the name under which the model sees a tool of the client."""
        qualified = f"{namespace}__{name}"
        return qualified if namespace and qualified in self.functions else name

    def special(self) -> dict[str, list[str | None]]:
        """Return the meanings of what is more than a function, as they are stored."""
        return {
            seen: [each.kind, each.name, each.namespace]
            for seen, each in self.meanings.items()
            if each != Meaning(_PLAIN, seen)
        }

    def add_all(self, given: Iterable[Any], where: str, ignored: Ignored) -> None:
        """Add what a request offers; `ignored` collects what no model here can have.

        Members of namespaces come last: a name that is taken gets the namespace's before it.
        """
        tools = [(f"{where}[{index}]", each) for index, each in enumerate(given)]
        read = [(each_where, _read(each, each_where)) for each_where, each in tools]
        for each_where, tool in sorted(read, key=lambda each: each[1].type == "namespace"):
            self._add(tool, each_where, ignored)

    def _add(
        self, tool: ResponsesTool, where: str, ignored: Ignored, namespace: str | None = None
    ) -> None:
        match tool.type:
            case "function" | "custom" | "local_shell":
                self._offer(tool, where, ignored, namespace)
            case "namespace" if namespace is None and tool.name:
                for index, each in enumerate(tool.tools or ()):
                    inside = f"{where}.tools[{index}]"
                    self._add(_read(each, inside), inside, ignored, tool.name)
            case _:
                ignored.add(f"{where} ({tool.type})")

    def _offer(
        self, tool: ResponsesTool, where: str, ignored: Ignored, namespace: str | None
    ) -> None:
        kind: Kind = tool.type  # type: ignore[assignment]
        name = tool.name or ("local_shell" if kind == "local_shell" else "")
        if not name:
            raise InvalidRequest(f"{where}.name is required")
        seen = f"{namespace}__{name}" if namespace and name in self.functions else name
        if seen in self.functions:
            ignored.add(f"{where} (the name of another tool)")
            return
        if len(self.functions) >= TOOLS:
            raise InvalidRequest(f"tools must have {TOOLS} entries at most")
        if kind == "custom" and (form := (tool.format or {}).get("type") or "text") != "text":
            ignored.add(f"{where}.format ({form})")
        self.functions[seen] = _function(kind, seen, tool)
        self.meanings[seen] = Meaning(kind, name, namespace)

    def fields(self, choice: str | ChosenTool | None, ignored: Ignored) -> dict[str, Any]:
        """Return the engine's fields for these tools, of which `choice` says what may be called.

        Raises InvalidRequest for a choice that cannot be honoured.
        """
        allowed, mode = self._chosen(choice, ignored)
        offered = [
            {"type": "function", "function": function}
            for name, function in self.functions.items()
            if allowed is None or name in allowed
        ]
        return tool_fields(offered, mode, ignored)

    def _chosen(
        self, choice: str | ChosenTool | None, ignored: Ignored
    ) -> tuple[set[str] | None, str | None]:
        """Return the functions that may be called (None: all), and whether one must be."""
        if choice is None or isinstance(choice, str):
            return None, choice
        if choice.type != "allowed_tools":
            name = self._named(choice.type, choice.name)
            if name is None:
                what = f"'{choice.name}'" if choice.name else f"of type '{choice.type}'"
                raise InvalidRequest(f"tool_choice: there is no tool {what}")
            return {name}, "required"
        allowed = set()
        for index, each in enumerate(choice.tools or ()):
            where = f"tool_choice.tools[{index}]"
            tool = _read(each, where)
            names = self._allowed(tool)
            if not names:
                ignored.add(f"{where} ({tool.type})")
            allowed |= names
        return allowed, choice.mode

    def _allowed(self, tool: ResponsesTool) -> set[str]:
        if tool.type == "namespace":
            return {seen for seen, each in self.meanings.items() if each.namespace == tool.name}
        name = self._named(tool.type, tool.name)
        return set() if name is None else {name}

    def _named(self, kind: str, name: str | None) -> str | None:
        """Return the function for the client's tool of this kind and name, if there is one."""
        for seen, each in self.meanings.items():
            if each.kind == kind and (each.name == name or kind == "local_shell"):
                return seen
        return None


def stored_tools(special: Mapping[str, Any]) -> Tools:
    """Return tools that know what `special` has been stored about them."""
    return Tools(meanings={seen: Meaning(*each) for seen, each in special.items()})


def _read(given: Any, where: str) -> ResponsesTool:
    if isinstance(given, ResponsesTool):
        return given
    try:
        return ResponsesTool.model_validate(given)
    except ValueError:
        raise InvalidRequest(f"{where} must be an object with a type and a name") from None


def _function(kind: Kind, name: str, tool: ResponsesTool) -> dict[str, Any]:
    match kind:
        case "custom":
            return {"name": name, "description": _described(tool), "parameters": _TEXT_INPUT}
        case "local_shell":
            return {"name": name, "description": "Runs a command.", "parameters": _COMMAND}
    return tool.model_dump(exclude={"type", "format", "tools"}) | {"name": name}


def _described(tool: ResponsesTool) -> str | None:
    """Return the description of a free-form tool, with the grammar that its input must match."""
    definition = (tool.format or {}).get("definition")
    if not isinstance(definition, str):
        return tool.description
    syntax = str((tool.format or {}).get("syntax") or "")
    grammar = f"The input must match this {syntax} grammar:\n{definition}"
    return f"{tool.description}\n\n{grammar}" if tool.description else grammar
