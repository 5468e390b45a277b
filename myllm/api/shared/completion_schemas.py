"""The body of OpenAI's chat completions, which llama.cpp's dialect takes, too.

It has the fields that reach an engine, and no others. Other fields are ignored; among them are
those that would reach into the engine's state: slots, caches, adapters.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from myllm.api.shared.bounded import Messages, Name, Parts, Tools
from myllm.api.shared.request_fields import KeepAlive, Priority, Queued
from myllm.api.shared.sampling_fields import (
    FrequencyPenalty,
    LogitBias,
    MaxTokens,
    MinP,
    Mirostat,
    MirostatEta,
    MirostatTau,
    PresencePenalty,
    RepeatLastN,
    RepeatPenalty,
    StopTexts,
    Temperature,
    TopK,
    TopP,
    TypicalP,
)
from myllm.api.shared.tools import Tool, ToolChoice, tool_fields
from myllm.limits import WHOLE

_NOT_SAMPLING = frozenset(
    {
        "model",
        "keep_alive",
        "priority",
        "stream",
        "stream_options",
        "n",
        "messages",
        "prompt",
        "tools",
        "tool_choice",
    }
)


class StreamOptions(BaseModel):
    """What a stream carries besides the answer."""

    include_usage: bool = Field(False, description="One more chunk, with the counts of tokens.")


class SampledRequest(Queued, BaseModel):
    """Sampling fields and others of all completions; those from `top_k` on are llama.cpp's."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: Name = Field(description="A model's name or alias, from GET /v1/models.")
    stream: bool | None = Field(False, description="Server-sent events, or one JSON answer.")
    stream_options: StreamOptions | None = Field(
        None, description="What a stream carries besides the answer."
    )
    n: int | None = Field(None, ge=1, le=128, description="Answers to make.")
    temperature: Temperature = None
    top_p: TopP = None
    max_tokens: MaxTokens = None
    stop: StopTexts = None
    presence_penalty: PresencePenalty = None
    frequency_penalty: FrequencyPenalty = None
    logit_bias: LogitBias = None
    seed: int | None = Field(
        None, ge=-(2**63), lt=2**64, description="The same seed gives the same answer."
    )
    top_k: TopK = None
    min_p: MinP = None
    typical_p: TypicalP = None
    repeat_penalty: RepeatPenalty = None
    repeat_last_n: RepeatLastN = None
    mirostat: Mirostat = None
    mirostat_tau: MirostatTau = None
    mirostat_eta: MirostatEta = None
    grammar: str | None = Field(None, description="GBNF that the answer must match.")
    json_schema: dict[str, Any] | None = Field(None, description="As `response_format` has it.")
    keep_alive: KeepAlive | None = Field(None, description="How long the model stays loaded.")
    priority: Priority = 0

    @field_validator("seed")
    @classmethod
    def _seed(cls, seed: int | None) -> int | None:
        """The engine's seeds are unsigned; OpenAI's may be any integer."""
        return None if seed is None else seed % 2**32

    def given(self) -> dict[str, Any]:
        """Return the fields for the engine that the request has set."""
        given = self.model_dump(exclude_none=True, exclude=set(_NOT_SAMPLING))
        if isinstance(given.get("stop"), str):
            given["stop"] = [given["stop"]]
        return given

    def tells_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and self.stream_options.include_usage


class OpenAIMessage(BaseModel):
    """One message. Other fields (tool calls, a name) are for the chat template."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(
        description="Who speaks; developer is the same as system."
    )
    content: str | Parts[dict[str, Any]] | None = Field(
        None, description="A text, or parts: texts, images, sounds."
    )

    def wire(self) -> dict[str, Any]:
        """Return the message for the engine, whose templates do not know the role developer."""
        role = "system" if self.role == "developer" else self.role
        return self.model_dump(exclude_unset=True) | {"role": role}


class ChatCompletionRequest(SampledRequest):
    """Answer a conversation."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "demo",
                "messages": [{"role": "user", "content": "What is the capital of France?"}],
            }
        }
    )
    messages: Messages[OpenAIMessage] = Field(
        min_length=1, description="The conversation, oldest message first."
    )
    max_completion_tokens: int | None = Field(
        None, ge=1, le=WHOLE, description="Wins over `max_tokens`."
    )
    logprobs: bool | None = Field(None, description="Report the log probability of each token.")
    top_logprobs: int | None = Field(
        None,
        ge=0,
        le=20,
        description="Report this many of the most likely tokens at each position.",
    )
    tools: Tools[Tool] | None = Field(None, description="The functions that the model may call.")
    tool_choice: ToolChoice | None = Field(
        None, description='"auto" (the default), "none", "required", or one tool.'
    )
    parallel_tool_calls: bool | None = Field(
        None, description="Whether one answer may call several tools."
    )
    response_format: dict[str, Any] | None = Field(
        None,
        description="The format of the answer: text, json_object, or json_schema with a schema.",
    )
    reasoning_effort: Name | None = Field(None, description='"none" switches thinking off.')
    thinking_budget_tokens: int | None = Field(
        None, ge=-1, le=WHOLE, description="Most tokens to think; -1: no bound."
    )
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Values for the model's chat template."
    )

    def given(self) -> dict[str, Any]:
        given = super().given() | tool_fields(self.tools, self.tool_choice)
        longest = given.pop("max_completion_tokens", None)
        return given if longest is None else given | {"max_tokens": longest}
