"""The body of OpenAI's `/v1/responses`, and what it means in the form of chat completions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from myllm.api.openai.responses_tools import ChosenTool, ResponsesTool, Tools
from myllm.api.shared.bounded import Messages, Name, at_most
from myllm.api.shared.bounded import Tools as BoundedTools
from myllm.api.shared.request_fields import KeepAlive, Priority, Queued
from myllm.api.shared.sampling_fields import (
    MaxTokens,
    Temperature,
    TopP,
)
from myllm.errors import InvalidRequest
from myllm.gateway.conversation.ignored import Ignored
from myllm.limits import LABELS

# The fields of the request that the answer repeats.
_ECHOED = (
    "instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "previous_response_id",
    "reasoning", "store", "temperature", "text", "tool_choice", "tools", "top_p", "truncation",
)  # fmt: skip


# Accounts, caches and traces of OpenAI's, and how a stream is padded.
_HARMLESS = frozenset(
    {
        *("user", "safety_identifier", "service_tier", "stream_options", "client_metadata"),
        *("prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"),
    }
)


class TextFormat(BaseModel):
    """What the text of the answer must match."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    type: Literal["text", "json_object", "json_schema"] | None = Field(
        None, description="Any text, any JSON object, or JSON by a schema."
    )
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="The JSON schema, for json_schema."
    )


class TextOptions(BaseModel):
    """Options for the text of the answer."""

    format: TextFormat | None = Field(None, description="What the text must match.")
    verbosity: Name | None = Field(None, description="Not followed; named in X-MyLLM-Ignored.")


class Reasoning(BaseModel):
    """How much the model thinks, if it can."""

    model_config = ConfigDict(extra="allow")

    effort: Name | None = Field(None, description='"none" switches thinking off.')


class ResponsesRequest(Queued, BaseModel):
    """Answer an input, and store it for requests that continue from there."""

    model_config = ConfigDict(
        allow_inf_nan=False,
        extra="allow",
        json_schema_extra={
            "example": {"model": "demo", "input": "What is the capital of France?", "store": True}
        },
    )

    model: Name = Field(description="A model's name or alias, from GET /v1/models.")
    input: str | Messages[dict[str, Any]] = Field(
        min_length=1, description="A text, or items: messages, calls of functions, their outputs."
    )
    instructions: str | None = Field(None, description="Instructions for this answer only.")
    previous_response_id: Name | None = Field(
        None, description="The response that the input continues from."
    )
    store: bool | None = Field(
        True, description="Whether later requests can continue from the answer."
    )
    stream: bool | None = Field(False, description="Server-sent events, or one JSON answer.")
    tools: BoundedTools[ResponsesTool] | None = Field(
        None, description="The tools that the model may call."
    )
    tool_choice: Name | ChosenTool | None = Field(
        None, description='"auto" (the default), "none", "required", one tool, or a few.'
    )
    parallel_tool_calls: bool | None = Field(
        None, description="Whether one answer may call several tools."
    )
    text: TextOptions | None = Field(None, description="The format of the answer's text.")
    reasoning: Reasoning | None = Field(None, description="How much to think.")
    max_output_tokens: MaxTokens = None
    temperature: Temperature = None
    top_p: TopP = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None,
        description='"auto" leaves out the oldest turns of a conversation that is too long; '
        '"disabled" (the default) refuses it.',
    )
    include: BoundedTools[Name] | None = Field(
        None, description="reasoning.encrypted_content: thinking in a form that can be sent back."
    )
    metadata: Annotated[dict[Name, Name], BeforeValidator(at_most(LABELS))] | None = Field(
        None, description="Kept with the answer and returned with it."
    )
    background: Literal[False] | None = Field(
        None, description="Refused if true: no answers are made in the background."
    )
    keep_alive: KeepAlive | None = Field(None, description="How long the model stays loaded.")
    priority: Priority = 0

    conversation: Any = Field(
        None, description="Refused: conversations continue with previous_response_id."
    )
    prompt: Any = Field(None, description="Refused: no prompts are kept here.")

    @field_validator("conversation", "prompt")
    @classmethod
    def _absent(cls, given: Any) -> Any:
        if given is not None:
            raise ValueError("names what OpenAI keeps; this server continues previous_response_id")
        return given

    def options(self) -> dict[str, Any]:
        """Return the sampling options under the native dialect's names."""
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_tokens": self.max_output_tokens,
        }
        return {name: value for name, value in given.items() if value is not None}

    def name_unread(self, ignored: Ignored) -> None:
        """Add the names of the fields that change nothing here."""
        for name, value in (self.model_extra or {}).items():
            if value is not None and name not in _HARMLESS:
                ignored.add(name)
        if self.text is not None and self.text.verbosity is not None:
            ignored.add("text.verbosity")

    def offered(self, ignored: Ignored) -> Tools:
        """Return the tools; `ignored` names what no model here can have."""
        tools = Tools()
        tools.add_all(self.tools or (), "tools", ignored)
        return tools

    def fields(self, tools: Tools, ignored: Ignored) -> dict[str, Any]:
        """Return the engine's fields for `tools`; raises InvalidRequest for an unknown choice."""
        fields = tools.fields(self.tool_choice, ignored)
        if fields and self.parallel_tool_calls is not None:
            fields["parallel_tool_calls"] = self.parallel_tool_calls
        return fields

    def json_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema for the answer; "json_object" stands for any object."""
        wanted = self.text.format if self.text else None
        if wanted is None or wanted.type in (None, "text"):
            return None
        if wanted.type == "json_schema" and wanted.schema_ is None:
            raise InvalidRequest("text.format.schema is required")
        return wanted.schema_ or {"type": "object"}

    def effort(self) -> str | None:
        """Return how much to think; None leaves it to the model."""
        return self.reasoning.effort if self.reasoning else None

    def encodes_thinking(self) -> bool:
        """Return whether the client wants thinking in `encrypted_content`, too."""
        return "reasoning.encrypted_content" in (self.include or ())

    def echo(self) -> dict[str, Any]:
        """Return the fields that the answer repeats."""
        echoed = self.model_dump(by_alias=True, include=set(_ECHOED))
        echoed["tools"] = [tool.model_dump(exclude_unset=True) for tool in self.tools or ()]
        if isinstance(self.tool_choice, ChosenTool):
            echoed["tool_choice"] = self.tool_choice.model_dump(exclude_unset=True)
        if self.text is None or self.text.format is None or self.text.format.type is None:
            echoed["text"] = None
        defaults = {
            "metadata": {},
            "parallel_tool_calls": True,
            "reasoning": {"effort": None, "summary": None},
            "store": True,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "truncation": "disabled",
        }
        given = {name: value for name, value in echoed.items() if value is not None}
        return {**echoed, **defaults, **given}

    def items(self) -> Sequence[Mapping[str, Any]]:
        """Return the input; a text is the user's message."""
        if isinstance(self.input, str):
            return [{"role": "user", "content": self.input}]
        return self.input
