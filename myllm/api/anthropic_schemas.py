"""The bodies of Anthropic's API: what is accepted of them. Fields that are not here change
nothing: a cache is kept anyhow, and nobody looks at metadata."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from myllm.api.schemas import KeepAlive
from myllm.gateway.tickets import Asking


class TextBlock(BaseModel):
    """A text."""

    type: Literal["text"]
    text: str


class Base64Source(BaseModel):
    """An image that comes with the request."""

    type: Literal["base64"]
    media_type: str = "image/png"
    data: str


class UrlSource(BaseModel):
    """An image that is elsewhere."""

    type: Literal["url"]
    url: str


class ImageBlock(BaseModel):
    """An image."""

    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]

    @property
    def url(self) -> str:
        """Its address, or all of it as one."""
        source = self.source
        if isinstance(source, UrlSource):
            return source.url
        return f"data:{source.media_type};base64,{source.data}"


class ToolUseBlock(BaseModel):
    """The model has called a tool."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ThinkingBlock(BaseModel):
    """What the model has thought, which it is not told again."""

    type: Literal["thinking", "redacted_thinking"]


def _as_blocks(content: Any) -> Any:
    """A text alone is one block of text."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


_Shown = Annotated[TextBlock | ImageBlock, Field(discriminator="type")]


class ToolResultBlock(BaseModel):
    """What a tool has answered."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Annotated[
        list[_Shown], BeforeValidator(_as_blocks, json_schema_input_type=str | list[_Shown])
    ] = []
    is_error: bool | None = None


Block = Annotated[
    TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock,
    Field(discriminator="type"),
]
Content = Annotated[
    list[Block], BeforeValidator(_as_blocks, json_schema_input_type=str | list[Block])
]
SystemContent = Annotated[
    list[TextBlock], BeforeValidator(_as_blocks, json_schema_input_type=str | list[TextBlock])
]


class AnthropicMessage(BaseModel):
    """One message, or a part of it: neighbours of one role are one."""

    role: Literal["user", "assistant", "system"]
    content: Content


class AnthropicTool(BaseModel):
    """A tool that the client has. Those that Anthropic's own servers run have another type."""

    type: Literal["custom"] | None = None
    name: str = Field(min_length=1)
    description: str | None = None
    input_schema: dict[str, Any]


class ToolChoice(BaseModel):
    """Whether a tool is to be called: as the model likes, one of them, this one, or none."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = Field(None, description='For "tool".')
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(BaseModel):
    """Whether the model thinks before it answers, if it can."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = Field(None, ge=0, description="Most tokens to think.")


class CountTokensRequest(BaseModel):
    """A conversation, of which the tokens are to be counted."""

    model_config = ConfigDict(
        allow_inf_nan=False,
        json_schema_extra={
            "example": {
                "model": "demo",
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
            }
        },
    )

    model: str = Field(description="A model's name or alias, from GET /v1/models.")
    messages: list[AnthropicMessage] = Field(min_length=1)
    system: SystemContent | None = None
    thinking: ThinkingConfig | None = Field(None, description="Off, unless this says otherwise.")
    tools: list[AnthropicTool] | None = None
    tool_choice: ToolChoice | None = None
    keep_alive: KeepAlive | None = Field(None, description="How long the model stays loaded.")
    priority: int = Field(0, ge=-10, le=10, description="Higher goes first while others wait.")

    def asking(self, client: str) -> Asking:
        """Who asks, and how urgently."""
        return Asking(client, self.priority, self.keep_alive)


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

    max_tokens: int = Field(ge=1, description="Longest answer, in tokens.")
    stop_sequences: list[str] | None = Field(None, description="The answer ends before these.")
    temperature: float | None = Field(None, ge=0.0, le=2.0)
    top_p: float | None = Field(None, ge=0.0, le=1.0)
    top_k: int | None = Field(None, ge=0)
    stream: bool | None = Field(False, description="Server-sent events, or one JSON answer.")

    def options(self) -> dict[str, Any]:
        """How tokens are chosen, under our names."""
        names = {"max_tokens", "temperature", "top_p", "top_k"}
        options = self.model_dump(include=names, exclude_none=True)
        return options | ({"stop": self.stop_sequences} if self.stop_sequences else {})
