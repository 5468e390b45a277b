"""The bodies of MyLLM's own API: what is accepted, within which bounds, with examples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    field_validator,
)

from myllm.api.native.options import Options
from myllm.api.shared.bounded import Inputs, Messages, Name, Parts
from myllm.api.shared.request_fields import KeepAlive, Priority, Queued, Storable
from myllm.api.shared.tool_schemas import ToolDefinitions
from myllm.api.shared.tools import ToolCall
from myllm.sessions.history import Style, storable


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"example": values})


class LoadRequest(BaseModel):
    """How long a model stays loaded; the body may be left out."""

    keep_alive: KeepAlive | None = Field(None, description='Seconds or "5m"; -1: forever.')


class RenameRequest(BaseModel):
    """Another title for a session."""

    model_config = _example(title="About Paris")

    title: Storable = Field(min_length=1, max_length=200, description="What lists show.")


class ForkRequest(BaseModel):
    """Where a session branches; the body may be left out."""

    model_config = _example(message=4, session_id="another-way")

    message: int | None = Field(
        None, ge=0, lt=2**63, description="Id of the last message to copy; default: all."
    )
    session_id: Name | None = Field(None, description="Id of the new session; default: a UUID.")


class _Queued(Queued, BaseModel):
    """The fields of all requests that wait for an engine."""

    model: Name = Field(description="A model's name, from GET /api/models.")
    keep_alive: KeepAlive | None = Field(
        None, description='How long the model stays: seconds or "5m"; 0: unload it, -1: forever.'
    )
    priority: Priority = 0


class _Generating(_Queued):
    """The fields that completions and chats share."""

    stream: bool = Field(True, description="Server-sent events, or one JSON answer.")
    options: Options = Field(
        Options(),
        description="How tokens are chosen; the model's own defaults, otherwise.",
    )
    format: Literal["json"] | dict[str, Any] | None = Field(
        None, description='"json" or a JSON schema that the answer must match.'
    )

    def json_schema(self) -> dict[str, Any] | None:
        """Return the JSON schema for the engine; "json" stands for any object."""
        return {"type": "object"} if self.format == "json" else self.format


class GenerateRequest(_Generating):
    """Complete a prompt as it is, without a chat template."""

    model_config = _example(
        model="demo", prompt="Once upon a time", stream=False, options={"max_tokens": 64}
    )
    prompt: str = Field(min_length=1, description="The text to continue.")


class ContentPart(BaseModel):
    """A text, an image or audio, in the form of OpenAI's API."""

    model_config = ConfigDict(extra="allow")

    type: Name | None = Field(
        None, description="What the part is: text, image_url, input_audio or file."
    )
    text: Storable | None = Field(None, description="The text of a text part.")


class ChatMessage(BaseModel):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(
        description="Who speaks; developer is the same as system. tool, or function: the result of "
        "a call."
    )
    content: str | Parts[ContentPart] | None = Field("", description="A text, or parts.")
    tool_calls: Parts[dict[str, Any]] | None = Field(
        None, description="The tool calls of an assistant, in the form of OpenAI's API."
    )
    function_call: dict[str, Any] | None = Field(None, description="A call in OpenAI's old form.")
    tool_call_id: Name | None = Field(
        None, description="The call whose result a message of role tool is; else the oldest one."
    )
    name: Name | None = Field(None, description="The tool whose result a message is.")
    thinking: Storable | None = Field(
        None, description="The thinking of an assistant; may be left out."
    )
    reasoning_content: Storable | None = Field(None, description="The same, as others call it.")
    reasoning: Storable | None = Field(None, description="The same, as others call it.")

    @field_validator("content")
    @classmethod
    def _storable(cls, content: Any) -> Any:
        """Checked here and not in the type, so that errors name the field and not a type."""
        return storable(content) if isinstance(content, str) else content


class ChatRequest(_Generating):
    """Answer the last message. A last message of role assistant is continued."""

    model_config = _example(
        model="demo",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        session_id=None,
        stream=False,
    )
    tools: ToolDefinitions | None = Field(
        None, description="The functions that the model may call."
    )
    tool_choice: Any = Field(
        None, description='"auto" (the default), "none", "required", or one tool.'
    )
    thinking: bool | None = Field(
        None, description="Whether a model that can think does so before it answers."
    )
    messages: Messages[ChatMessage] = Field(
        min_length=1, description="The whole history, or only the new turn of a session."
    )
    session_id: Name | None = Field(
        None, description="The session to continue; null starts one. An unknown id starts one, too."
    )
    history: Style | None = Field(
        None,
        description='What `messages` are: "full", the history of the session, or "append", new '
        "turns. Without it, messages with an assistant message before the last user message, and "
        "messages that repeat the only stored question, are a full history.",
    )
    store: bool = Field(
        True,
        description="False: nothing of the request is stored. `session_id` then only names the "
        "session to continue from, and is null in the answer.",
    )

    def wire(self) -> list[dict[str, Any]]:
        """Return the messages in OpenAI's form."""
        return [message.model_dump(exclude_none=True) for message in self.messages]


class EmbeddingsRequest(_Queued):
    """Turn text into vectors."""

    model_config = _example(model="demo", input="Hello, world!")
    input: str | Inputs[str] = Field(description="One text, or several.")


class UsageBody(BaseModel):
    """Token counts, as the engine reports them."""

    prompt_tokens: int = Field(description="Tokens of the prompt, including those from the cache.")
    completion_tokens: int = Field(description="Tokens of the answer.")
    total_tokens: int = Field(description="Both together.")
    cached_tokens: int = Field(description="Prompt tokens that came from the KV cache.")


class GenerateResponse(BaseModel):
    """The whole completion."""

    text: str = Field(description="The completion, without the prompt.")
    usage: UsageBody = Field(description="Token counts.")
    finish_reason: Literal["stop", "length"] = Field(
        description='Why the answer ended: "stop", or "length" at max_tokens.'
    )


class AnswerMessage(BaseModel):
    """The model's text, tool calls and thinking."""

    role: Literal["assistant"] = Field(description="Always the assistant.")
    content: str = Field(description="The text of the answer.")
    tool_calls: list[ToolCall] | None = Field(None, description="The tools that the model calls.")
    thinking: str | None = Field(None, description="The thinking before the answer.")


class ChatResponse(BaseModel):
    """The whole answer. It has `truncated` and `dropped_messages` if old turns did not fit into the
    prompt, `stored` and `warning` if the answer could not be stored."""

    model_config = _example(
        message={"role": "assistant", "content": "The capital of France is Paris."},
        usage={
            "prompt_tokens": 11,
            "completion_tokens": 10,
            "total_tokens": 21,
            "cached_tokens": 0,
        },
        finish_reason="stop",
        session_id="550e8400-e29b-41d4-a716-446655440000",
    )
    message: AnswerMessage = Field(description="The answer.")
    session_id: Name | None = Field(description="Null when the answer was not to be stored.")
    usage: UsageBody = Field(description="Token counts.")
    finish_reason: Literal["stop", "length", "tool_calls"] = Field(
        description='Why the answer ended: "length" at max_tokens, "tool_calls" to call tools.'
    )
    truncated: bool | None = Field(
        None, description="Whether old turns were left out of the prompt."
    )
    dropped_messages: int | None = Field(
        None, description="How many messages were left out of the prompt."
    )
    stored: Literal[False] | None = Field(
        None, description="False: the store failed, so the session lacks this turn."
    )
    warning: str | None = Field(None, description="Why it is not stored.")
