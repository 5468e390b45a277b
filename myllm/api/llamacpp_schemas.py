"""The bodies of llama.cpp's own API: the fields that reach an engine, and no others.

llama.cpp's clients know one server with one model, and name none. What would reach into the
engine's state (slots, caches, adapters) is ignored, as unknown fields are.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from myllm.api.openai_schemas import ChatCompletionRequest, OpenAIMessage
from myllm.api.vector_schemas import Inputs, Queued, RerankRequest

_INT32 = 2**31 - 1
# The engine keeps so many tokens in memory, whether there are as many or not.
_MOST_LAST = 2**20
_MODEL = Field("", description="Default: the only model that is loaded, or else that there is.")
_NOT_SAMPLING = frozenset(
    {
        *("model", "keep_alive", "priority", "stream", "n_predict", "response_fields"),
        *("prompt", "input_prefix", "input_suffix", "input_extra"),
    }
)


class Unnamed(Queued):
    """A request that may leave it open which model is meant."""

    model: str = _MODEL


class _Sampled(Unnamed):
    """How tokens are chosen, and what is told of them."""

    model_config = ConfigDict(allow_inf_nan=False)

    stream: bool = Field(False, description="Server-sent events, or one JSON answer.")
    n_predict: int | None = Field(
        None,
        le=_INT32,
        validation_alias=AliasChoices("n_predict", "max_tokens", "max_completion_tokens"),
        description="Longest answer, in tokens; negative: up to the end of the context.",
    )
    temperature: float | None = Field(None, ge=0.0)
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    top_k: int | None = Field(None, ge=0, le=_INT32)
    top_p: float | None = Field(None, ge=0.0, le=1.0)
    min_p: float | None = Field(None, ge=0.0, le=1.0)
    top_n_sigma: float | None = None
    typical_p: float | None = None
    xtc_probability: float | None = Field(None, ge=0.0, le=1.0)
    xtc_threshold: float | None = Field(None, ge=0.0, le=1.0)
    repeat_last_n: int | None = Field(None, ge=0, le=_MOST_LAST)
    repeat_penalty: float | None = Field(None, ge=0.0)
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = Field(None, ge=0, le=_INT32)
    dry_penalty_last_n: int | None = Field(None, ge=0, le=_MOST_LAST)
    dry_sequence_breakers: list[str] | None = Field(None, min_length=1)
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    samplers: list[str] | None = Field(None, description="Their names, in the order of use.")
    logit_bias: dict[str, float] | list[tuple[int | str, float | bool]] | None = None
    ignore_eos: bool | None = None
    min_keep: int | None = Field(None, ge=0, le=_INT32)
    seed: int | None = Field(None, ge=-1, lt=2**32, description="-1: another one each time.")
    stop: str | list[str] | None = Field(None, description="The answer ends before any of these.")
    grammar: str | None = Field(None, description="GBNF that the answer must match.")
    json_schema: dict[str, Any] | None = None
    n_indent: int | None = Field(None, ge=0, le=_INT32)
    t_max_predict_ms: int | None = Field(None, ge=-1, le=_INT32)
    n_probs: int | None = Field(None, ge=0, le=100)
    post_sampling_probs: bool | None = None
    return_tokens: bool | None = None
    return_progress: bool | None = None
    timings_per_token: bool | None = None
    response_fields: list[str] | None = Field(
        None, description="Only these fields of an answer that is no stream."
    )

    def given(self) -> dict[str, Any]:
        """The fields that the request has set, of those that say how tokens are chosen."""
        given = self.model_dump(exclude_none=True, exclude=set(_NOT_SAMPLING))
        if isinstance(given.get("stop"), str):
            given["stop"] = [given["stop"]]
        if self.n_predict is not None and self.n_predict >= 0:
            given["max_tokens"] = self.n_predict
        return given


def _checked_prompt(value: Any) -> Any:
    """A list of one text is that text, as with llama.cpp; its answer to several is not ours."""
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        if len(value) > 1:
            raise ValueError("must be one prompt; POST /v1/completions takes several")
        return value[0]
    if not isinstance(value, str) and not _is_mixed(value):
        raise ValueError("must be a text, or a list of tokens and texts")
    return value


def _is_mixed(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, str) or (type(each) is int and 0 <= each <= _INT32) for each in value
    )


Prompt = Annotated[str | list[int | str], BeforeValidator(_checked_prompt)]


class PlainCompletionRequest(_Sampled):
    """Complete a prompt as it is."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"prompt": "Once upon a time", "n_predict": 64}}
    )
    prompt: Prompt = Field(description="A text, or tokens and texts in a list.")

    def engine_body(self) -> dict[str, Any]:
        """What the engine is asked, besides how tokens are chosen."""
        return {"prompt": self.prompt}


class Extra(BaseModel):
    """Another file, for what is written in the middle of this one."""

    text: str
    filename: str | None = None


class InfillRequest(_Sampled):
    """Fill in what is between two texts."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"input_prefix": "def ", "input_suffix": "\n", "stop": ["("]}}
    )
    input_prefix: str
    input_suffix: str
    input_extra: list[Extra] = Field(default_factory=list)
    prompt: str = Field("", description="What stands behind the prefix already.")

    def engine_body(self) -> dict[str, Any]:
        """What the engine is asked, besides how tokens are chosen."""
        extra = [each.model_dump(exclude_none=True) for each in self.input_extra]
        texts = {"input_prefix": self.input_prefix, "input_suffix": self.input_suffix}
        return texts | {"input_extra": extra, "prompt": self.prompt}


class UnnamedChatRequest(ChatCompletionRequest):
    """As POST /v1/chat/completions has it."""

    model: str = _MODEL


class UnnamedRerankRequest(RerankRequest):
    """As POST /v1/rerank has it."""

    model: str = _MODEL


class PlainEmbeddingRequest(Unnamed):
    """Turn texts into vectors of length 1."""

    content: Inputs = Field(
        validation_alias=AliasChoices("content", "input"),
        description="A text or its tokens, or several of them.",
    )


class TokenizeRequest(Unnamed):
    """The tokens of a text."""

    content: Prompt = Field(description="A text, or tokens and texts in a list.")
    add_special: bool = Field(False, description="With those that the model starts with.")
    parse_special: bool = Field(True, description="Whether a text may name special tokens.")
    with_pieces: bool = Field(False, description="With the text of each.")


class DetokenizeRequest(Unnamed):
    """The text of tokens."""

    tokens: list[Annotated[int, Field(ge=0, le=_INT32)]]


class TemplateRequest(Unnamed):
    """The prompt that a chat becomes."""

    messages: list[OpenAIMessage] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    json_schema: dict[str, Any] | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
