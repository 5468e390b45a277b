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
    namespace: Name | None = Field(None, description="The namespace that has this tool.")
    mode: Literal["auto", "required"] | None = Field(
        None, description="For allowed_tools: whether one of them must be called."
    )
    tools: ToolDefinitions | None = Field(
        None, description="For allowed_tools: these tools, by type, name and namespace."
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
    _seen: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def meaning(self, name: str) -> Meaning:
        """Return what the function `name` is to the client."""
        return self.meanings.get(name) or Meaning(_PLAIN, name)

    def seen_name(self, name: str, namespace: str | None) -> str:
        """Return the name under which the model sees a tool of the client."""
        return self._seen.get((name, namespace or None), name)

    def seen_names(self, given: Iterable[Any]) -> list[str]:
        """Return the names under which the model sees those of the tools `given` that it has."""
        keys: list[tuple[str, str | None]] = []
        for tool in (_read(each, "tools") for each in given):
            if tool.type == "namespace":
                members = (_read(each, "tools") for each in tool.tools or ())
                keys += [(_name_of(each), tool.name) for each in members]
            else:
                keys.append((_name_of(tool), None))
        return [self._seen[key] for key in keys if key in self._seen]

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
        name = _name_of(tool)
        if not name:
            raise InvalidRequest(f"{where}.name is required")
        seen = f"{namespace}__{name}" if namespace and name in self.functions else name
        seen = self._seen.get((name, namespace), seen)
        function = _function(kind, seen, tool)
        if seen in self.functions:
            if function != self.functions[seen]:  # a search for tools may find one again
                ignored.add(f"{where} (the name of another tool)")
            return
        if len(self.functions) >= TOOLS:
            raise InvalidRequest(f"tools must have {TOOLS} entries at most")
        if kind == "custom" and (form := (tool.format or {}).get("type") or "text") != "text":
            ignored.add(f"{where}.format ({form})")
        self.functions[seen] = function
        self.meanings[seen] = Meaning(kind, name, namespace)
        self._seen[name, namespace] = seen

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
            name = self._named(choice, "tool_choice")
            if name is None:
                inside = f" in the namespace '{choice.namespace}'" if choice.namespace else ""
                raise InvalidRequest(f"tool_choice: there is no tool {_words(choice)}{inside}")
            return {name}, "required"
        allowed = set()
        for index, each in enumerate(choice.tools or ()):
            where = f"tool_choice.tools[{index}]"
            names = self._allowed(_chosen_tool(each, where), where)
            if not names:
                ignored.add(f"{where} ({each.get('name') or each.get('type')})")
            allowed |= names
        if choice.tools and not allowed:
            raise InvalidRequest("tool_choice: none of the allowed tools is among the tools")
        return allowed, choice.mode

    def _allowed(self, choice: ChosenTool, where: str) -> set[str]:
        if choice.type == "namespace":
            return {seen for seen, each in self.meanings.items() if each.namespace == choice.name}
        name = self._named(choice, where)
        return set() if name is None else {name}

    def _named(self, choice: ChosenTool, where: str) -> str | None:
        """Return the function for the client's tool of this type, name and namespace, if there is
        one. Without a namespace, a tool outside them is meant, or else the only one of this name.

        Raises InvalidRequest if several namespaces have one.
        """
        found = {
            each.namespace: seen
            for seen, each in self.meanings.items()
            if each.kind == choice.type
            and (each.name == choice.name or each.kind == "local_shell")
            and choice.namespace in (None, each.namespace)
        }
        if None in found or not found:
            return found.get(None)
        if len(found) > 1:
            raise InvalidRequest(
                f"{where}.namespace is required: there are {len(found)} tools {_words(choice)}"
            )
        return next(iter(found.values()))


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


def _chosen_tool(given: Any, where: str) -> ChosenTool:
    try:
        return ChosenTool.model_validate(given)
    except ValueError:
        raise InvalidRequest(f"{where} must be an object with a type and a name") from None


def _words(choice: ChosenTool) -> str:
    return f"'{choice.name}'" if choice.name else f"of type '{choice.type}'"


def _name_of(tool: ResponsesTool) -> str:
    return tool.name or ("local_shell" if tool.type == "local_shell" else "")


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
