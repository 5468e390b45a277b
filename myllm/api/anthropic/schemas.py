"""The bodies of Anthropic's API: the fields that are accepted. Other fields are ignored, such as
`cache_control` (prompts are always cached) and `metadata`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from myllm.api.shared.bounded import Messages, Name, Parts, Stops, Tools
from myllm.api.shared.request_fields import KeepAlive, Priority, Queued
from myllm.api.shared.sampling_fields import (
    Temperature,
    TopK,
    TopP,
)
from myllm.limits import WHOLE


class TextBlock(BaseModel):
    """A text."""

    type: Literal["text"] = Field(description="A text.")
    text: str = Field(description="The text.")


class Base64Source(BaseModel):
    """An image that comes with the request."""

    type: Literal["base64"] = Field(description="The image comes with the request.")
    media_type: Name = Field("image/png", description="Such as image/png.")
    data: str = Field(description="The image in base64.")


class UrlSource(BaseModel):
    """An image at a URL."""

    type: Literal["url"] = Field(description="The image is at a URL.")
    url: str = Field(description="Its address, or a data: URL.")


class ImageBlock(BaseModel):
    """An image."""

    type: Literal["image"] = Field(description="An image.")
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")] = Field(
        description="Where the image is."
    )

    @property
    def url(self) -> str:
        """The image's URL; a data: URL for one that comes with the request."""
        source = self.source
        if isinstance(source, UrlSource):
            return source.url
        return f"data:{source.media_type};base64,{source.data}"


class ToolUseBlock(BaseModel):
    """A tool call by the model."""

    type: Literal["tool_use"] = Field(description="A tool call by the model.")
    id: Name = Field(description="Names the call; its result repeats it.")
    name: Name = Field(description="The tool.")
    input: dict[str, Any] = Field(description="What the tool was called with.")


class ThinkingBlock(BaseModel):
    """Thinking of the model, which it is not shown again."""

    type: Literal["thinking", "redacted_thinking"] = Field(
        description="What the model thought; the model is not shown it again."
    )


def _as_blocks(content: Any) -> Any:
    """Turn a text into one text block."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


_Shown = Annotated[TextBlock | ImageBlock, Field(discriminator="type")]


class ToolResultBlock(BaseModel):
    """The result of a tool call."""

    type: Literal["tool_result"] = Field(description="The result of a tool call.")
    tool_use_id: Name = Field(description="The id of the call.")
    content: Annotated[
        Parts[_Shown], BeforeValidator(_as_blocks, json_schema_input_type=str | Parts[_Shown])
    ] = Field([], description="The result: a text, or texts and images.")
    is_error: bool | None = Field(None, description="Whether the tool failed.")


Block = Annotated[
    TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock,
    Field(discriminator="type"),
]
Content = Annotated[
    Parts[Block], BeforeValidator(_as_blocks, json_schema_input_type=str | Parts[Block])
]
SystemContent = Annotated[
    Parts[TextBlock],
    BeforeValidator(_as_blocks, json_schema_input_type=str | Parts[TextBlock]),
]


class AnthropicMessage(BaseModel):
    """One message, or a part of it: adjacent messages of one role count as one."""

    role: Literal["user", "assistant", "system"] = Field(
        description="Who speaks; adjacent messages of one role count as one."
    )
    content: Content = Field(description="A text, or blocks.")


class AnthropicTool(BaseModel):
    """A tool that the client runs. The tools of Anthropic's own servers have other types."""

    type: Literal["custom"] | None = Field(
        None, description="Absent, or custom: a tool that the client runs."
    )
    name: Name = Field(min_length=1, description="What the model calls it by.")
    description: str | None = Field(None, description="When to call it, for the model.")
    input_schema: dict[str, Any] = Field(description="JSON schema of its input.")


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

    type: Literal["enabled", "disabled", "adaptive", "between_tools"] = Field(
        description='"disabled", or any other: think before answering, if the model can.'
    )
    budget_tokens: int | None = Field(None, ge=0, le=WHOLE, description="Most tokens to think.")


class CountTokensRequest(Queued, BaseModel):
    """A conversation whose tokens are counted."""

    model_config = ConfigDict(
        allow_inf_nan=False,
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
    system: SystemContent | None = Field(
        None, description="Instructions in front of the conversation."
    )
    thinking: ThinkingConfig | None = Field(None, description="Off, unless this says otherwise.")
    tools: Tools[AnthropicTool] | None = Field(
        None, description="The functions that the model may call."
    )
    tool_choice: ToolChoice | None = Field(None, description="Whether the model must call a tool.")
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
