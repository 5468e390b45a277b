"""The body of OpenAI's chat completions, which llama.cpp's dialect takes, too.

It has the fields that reach an engine, and no others. `extra_fields.py` reads the other fields that
clients send; among those that are ignored are all that would reach into the engine's state: slots,
caches, adapters.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Required

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, with_config
from typing_extensions import TypedDict

from myllm.api.shared.bounded import Messages, Name, Parts
from myllm.api.shared.extra_fields import engine_fields
from myllm.api.shared.request_fields import UNNAMED, KeepAlive, Priority, Queued
from myllm.api.shared.sampling_fields import (
    FrequencyPenalty,
    LogitBias,
    MinP,
    Mirostat,
    MirostatEta,
    MirostatTau,
    PresencePenalty,
    RepeatLastN,
    RepeatPenalty,
    StopTexts,
    Temperature,
    TopP,
    TypicalP,
)
from myllm.api.shared.tool_schemas import ToolDefinitions
from myllm.api.shared.tools import tool_fields, tools_or_format
from myllm.gateway.conversation.ignored import Ignored
from myllm.gateway.generation.sampling import UNBOUNDED
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
        "functions",
        "function_call",
        "max_completion_tokens",
        "echo",
        "suffix",
        "best_of",
    }
)
_TEMPLATE = "chat_template_kwargs"


def _unbounded(tokens: int) -> int:
    """-1 lifts the bound, also that of the model's own `max_tokens`."""
    if tokens == 0:
        raise ValueError("must be 1 or more, or -1 for an answer that may fill the context")
    return UNBOUNDED if tokens == -1 else tokens


def _all(top_k: int) -> int:
    return max(top_k, 0)


_MaxTokens = Annotated[int, Field(ge=-1, le=WHOLE), AfterValidator(_unbounded)]
_TopK = Annotated[int, Field(ge=-1, le=WHOLE), AfterValidator(_all)]


class StreamOptions(BaseModel):
    """What a stream carries besides the answer."""

    include_usage: bool | None = Field(
        False, description="One more chunk, with the counts of tokens."
    )


class SampledRequest(Queued, BaseModel):
    """Sampling fields and others of all completions; those from `top_k` on are llama.cpp's."""

    model_config = ConfigDict(allow_inf_nan=False, extra="allow")

    model: Name | None = UNNAMED
    stream: bool | None = Field(False, description="Server-sent events, or one JSON answer.")
    stream_options: StreamOptions | None = Field(
        None, description="What a stream carries besides the answer."
    )
    n: int | None = Field(None, ge=1, le=128, description="Answers to make.")
    temperature: Temperature = None
    top_p: TopP = None
    max_tokens: _MaxTokens | None = Field(
        None, description="Longest answer, in tokens; -1: no bound."
    )
    stop: StopTexts = None
    presence_penalty: PresencePenalty = None
    frequency_penalty: FrequencyPenalty = None
    logit_bias: LogitBias = None
    seed: int | None = Field(
        None, ge=-(2**63), lt=2**64, description="The same seed gives the same answer."
    )
    top_k: _TopK | None = Field(None, description="Only the k most likely tokens; 0 or -1: all.")
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
    return_progress: bool | None = Field(
        None, description="Report progress while the prompt is read, in a stream."
    )
    timings_per_token: bool | None = Field(
        None, description="Report speeds with each token of a stream, not only at its end."
    )

    @field_validator("seed")
    @classmethod
    def _seed(cls, seed: int | None) -> int | None:
        """The engine's seeds are unsigned; OpenAI's may be any integer.

        For -1 and the greatest, the engine would draw a seed, and no answer could be replayed: so
        one is drawn here, as for a request without a seed.
        """
        made = None if seed is None else seed % 2**32
        return None if made == 2**32 - 1 else made

    def given(self, ignored: Ignored) -> dict[str, Any]:
        """Return the fields for the engine that the request has set.

        `ignored` collects those that are left out. Raises InvalidRequest for a field without which
        the answer would be a different one.
        """
        given = {
            name: value
            for name, value in self.__dict__.items()
            if value is not None and name not in _NOT_SAMPLING
        }
        if isinstance(given.get("stop"), str):
            given["stop"] = [given["stop"]]
        if self.__pydantic_extra__:
            extra = engine_fields(self.__pydantic_extra__, ignored)
            for_template = {**extra.get(_TEMPLATE, {}), **given.get(_TEMPLATE, {})}
            given = extra | given | ({_TEMPLATE: for_template} if for_template else {})
        return given

    def calls_functions(self) -> bool:
        """Whether calls are to be in the form that they had before there were tools."""
        return False

    def tells_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


@with_config(ConfigDict(extra="allow"))
class OpenAIMessage(TypedDict, total=False):
    """One message. Other fields (tool calls, a name) are for the chat template."""

    role: Required[
        Annotated[
            Literal["system", "developer", "user", "assistant", "tool", "function"],
            Field(description="Who speaks; developer is the same as system."),
        ]
    ]
    content: Annotated[
        str | Parts[Any] | None, Field(description="A text, or parts: texts, images, sounds.")
    ]


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
    max_completion_tokens: _MaxTokens | None = Field(None, description="Wins over `max_tokens`.")
    logprobs: bool | None = Field(None, description="Report the log probability of each token.")
    top_logprobs: int | None = Field(
        None,
        ge=0,
        le=20,
        description="Report this many of the most likely tokens at each position.",
    )
    tools: ToolDefinitions | None = Field(
        None, description="The functions that the model may call."
    )
    tool_choice: Any = Field(
        None, description='"auto" (the default), "none", "required", one tool, or the allowed ones.'
    )
    functions: ToolDefinitions | None = Field(None, description="The older form of `tools`.")
    function_call: Any = Field(
        None, description="The older form of `tool_choice`, for `functions`."
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

    def given(self, ignored: Ignored) -> dict[str, Any]:
        """As the base has it, with tools: `tools` if there are any, otherwise `functions`.

        `functions` go with `function_call`, or with `tool_choice` where that is absent.
        """
        given = super().given(ignored)
        if self.calls_functions():
            choice = self.tool_choice if self.function_call is None else self.function_call
            tools = [{"function": function} for function in self.functions or ()]
            given |= tool_fields(tools, choice, ignored) | {"parallel_tool_calls": False}
        else:
            given |= tool_fields(self.tools, self.tool_choice, ignored)
        given = tools_or_format(given)
        if self.max_completion_tokens is not None:
            given["max_tokens"] = self.max_completion_tokens
        return given

    def calls_functions(self) -> bool:
        """Whether the request has functions and no tools, so that its answer has the old form."""
        return bool(self.functions) and not self.tools
