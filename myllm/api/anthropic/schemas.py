"""The bodies of Anthropic's API: the fields that are read. Others are named in `X-MyLLM-Ignored`,
unless no answer depends on them, such as `cache_control` (prompts are always cached)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from myllm.api.anthropic.blocks import Content
from myllm.api.shared.bounded import Messages, Name, Parts, Stops, Tools
from myllm.api.shared.request_fields import KeepAlive, Priority, Queued
from myllm.api.shared.sampling_fields import (
    Temperature,
    TopK,
    TopP,
)
from myllm.api.shared.tool_schemas import ToolSchema
from myllm.limits import WHOLE


def _refused(value: Any) -> Any:
    if value is not None:
        raise ValueError("is not supported by this server")
    return value


Refused = Annotated[Any, AfterValidator(_refused)]
"""A field without which the answer would be another one than the client expects."""


class AnthropicMessage(BaseModel):
    """One message, or a part of it: adjacent messages of one role count as one."""

    role: Literal["user", "assistant", "system"] = Field(
        description="Who speaks; adjacent messages of one role count as one."
    )
    content: Content = Field(description="A text, or blocks.")


class CustomTool(BaseModel):
    """A tool that the client describes and runs."""

    type: Literal["custom"] | None = Field(None, description="Absent, or custom.")
    name: Name = Field(min_length=1, description="What the model calls it by.")
    description: str | None = Field(None, description="When to call it, for the model.")
    input_schema: ToolSchema = Field(description="JSON schema of its input.")


class OtherTool(BaseModel):
    """A tool that Anthropic describes or runs, such as web_search_20250305: it is left out."""

    type: Name = Field(description="Any other type.")
    name: Name | None = Field(None, description="What the model would call it by.")


def _kind_of_tool(tool: Any) -> str:
    kind = tool.get("type") if isinstance(tool, dict) else getattr(tool, "type", None)
    return "[custom]" if kind in (None, "custom") else "[other]"


AnthropicTool = Annotated[
    Annotated[CustomTool, Tag("[custom]")] | Annotated[OtherTool, Tag("[other]")],
    Discriminator(_kind_of_tool),
]


class ToolChoice(BaseModel):
    """Whether the model must call a tool: its own choice, any, a certain one, or none."""

    type: Literal["auto", "any", "tool", "none"] = Field(
        description='"auto": the model chooses, "any": some tool, "tool": the one named, "none".'
    )
    name: Name | None = Field(None, description='For "tool".')
    disable_parallel_tool_use: bool | None = Field(
        None, description="Whether one answer may call one tool at most."
    )


class ThinkingConfig(BaseModel):
    """Whether the model thinks before it answers, if it can."""

    type: Name = Field(
        description='"disabled", or any other: think before answering, if the model can.'
    )
    budget_tokens: int | None = Field(None, ge=0, le=WHOLE, description="Most tokens to think.")


class OutputFormat(BaseModel):
    """What the answer's text must match."""

    type: Literal["json_schema"] = Field(description="JSON by a schema.")
    schema_: dict[str, Any] = Field(alias="schema", description="The JSON schema.")


class OutputConfig(BaseModel):
    """The form of the answer."""

    format: OutputFormat | None = Field(None, description="What the answer's text must match.")
    effort: Name | None = Field(
        None, description="How much to think, for models whose chat template has levels."
    )


class ContextEdit(BaseModel):
    """A change of the conversation that Anthropic's servers would make."""

    type: Name | None = Field(None, description="Which change.")


class ContextManagement(BaseModel):
    """Changes of the conversation that Anthropic's servers would make: none is made here."""

    edits: Parts[ContextEdit] | None = Field(None, description="The changes.")


class CountTokensRequest(Queued, BaseModel):
    """A conversation whose tokens are counted."""

    model_config = ConfigDict(
        allow_inf_nan=False,
        extra="allow",  # to be named
        json_schema_extra={
            "example": {
                "model": "demo",
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
            }
        },
    )

    model: Name = Field(description="A model's name or alias, from GET /v1/models.")
    messages: Messages[AnthropicMessage] = Field(
        min_length=1, description="The conversation, oldest message first."
    )
    system: Content | None = Field(None, description="Instructions in front of the conversation.")
    thinking: ThinkingConfig | None = Field(None, description="Off, unless this says otherwise.")
    tools: Tools[AnthropicTool] | None = Field(
        None, description="The functions that the model may call."
    )
    tool_choice: ToolChoice | None = Field(None, description="Whether the model must call a tool.")
    output_config: OutputConfig | None = Field(None, description="The form of the answer.")
    output_format: OutputFormat | None = Field(
        None, description="The older place of `output_config.format`."
    )
    context_management: ContextManagement | None = Field(
        None, description="Not done here, and named in X-MyLLM-Ignored."
    )
    mcp_servers: Parts[dict[str, Any]] | None = Field(
        None, description="Not used here, and named in X-MyLLM-Ignored."
    )
    thread: Refused = Field(None, description="Refused: no conversation is kept for later.")
    compaction: Refused = Field(None, description="Refused: no answer is a summary in a block.")
    keep_alive: KeepAlive | None = Field(None, description="How long the model stays loaded.")
    priority: Priority = 0


class MessagesRequest(CountTokensRequest):
    """Answer a conversation. A last message of role assistant is continued."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "demo",
                "max_tokens": 64,
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
            }
        }
    )

    max_tokens: int = Field(ge=1, le=WHOLE, description="Longest answer, in tokens.")
    stop_sequences: Stops | None = Field(None, description="The answer ends before these.")
    temperature: Temperature = None
    top_p: TopP = None
    top_k: TopK = None
    stream: bool | None = Field(False, description="Server-sent events, or one JSON answer.")

    def options(self) -> dict[str, Any]:
        """Return the sampling options under the native dialect's names."""
        names = {"max_tokens", "temperature", "top_p", "top_k"}
        options = self.model_dump(include=names, exclude_none=True)
        return options | ({"stop": self.stop_sequences} if self.stop_sequences else {})
