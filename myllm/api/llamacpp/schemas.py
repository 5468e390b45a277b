"""The bodies of llama.cpp's own API: the fields that reach an engine, and no others.

llama.cpp's clients know one server with one model, and name none. What would reach into the
engine's state (slots, caches, adapters) is ignored, as unknown fields are.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from myllm.api.shared.bounded import (
    Biases,
    Messages,
    Name,
    Parts,
    Stop,
    Stops,
    Token,
    Tokens,
    Tools,
)
from myllm.api.shared.completion_schemas import ChatCompletionRequest, OpenAIMessage
from myllm.api.shared.vector_schemas import Inputs, QueuedRequest, RerankRequest
from myllm.gateway.constraints.checks import MOST_BREAKERS, MOST_SAMPLERS
from myllm.limits import LABELS, TOKENS, WHOLE

# The engine keeps so many tokens in memory, whether there are as many or not.
_MOST_LAST = 2**20
_MODEL = Field("", description="Default: the only model that is loaded, or else that there is.")
_Samplers = Annotated[list[Name], Field(max_length=MOST_SAMPLERS, fail_fast=True)]
_Names = Annotated[list[Name], Field(max_length=LABELS, fail_fast=True)]
_Breakers = Annotated[list[Stop], Field(min_length=1, max_length=MOST_BREAKERS, fail_fast=True)]
_NOT_SAMPLING = frozenset(
    {
        *("model", "keep_alive", "priority", "stream", "n_predict", "response_fields"),
        *("prompt", "input_prefix", "input_suffix", "input_extra"),
    }
)


class Unnamed(QueuedRequest):
    """A request that may leave it open which model is meant."""

    model: Name = _MODEL


class _Sampled(Unnamed):
    """How tokens are chosen, and what is told of them."""

    model_config = ConfigDict(allow_inf_nan=False)

    stream: bool = Field(False, description="Server-sent events, or one JSON answer.")
    n_predict: int | None = Field(
        None,
        ge=-WHOLE,
        le=WHOLE,
        validation_alias=AliasChoices("n_predict", "max_tokens", "max_completion_tokens"),
        description="Longest answer, in tokens; negative: up to the end of the context.",
    )
    temperature: float | None = Field(
        None, ge=0.0, description="Higher is more random; 0 always takes the likeliest token."
    )
    dynatemp_range: float | None = Field(
        None, description="The temperature varies by this much, with the entropy; 0: not at all."
    )
    dynatemp_exponent: float | None = Field(
        None, description="How the entropy maps to the varying temperature."
    )
    top_k: int | None = Field(
        None, ge=0, le=WHOLE, description="Only the k likeliest tokens; 0: all."
    )
    top_p: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Only the likeliest tokens that together have this probability.",
    )
    min_p: float | None = Field(
        None, ge=0.0, le=1.0, description="Least probability, relative to the likeliest token."
    )
    top_n_sigma: float | None = Field(
        None, description="Only tokens within this many standard deviations of the best score."
    )
    typical_p: float | None = Field(
        None, description="Only tokens whose probability is typical of the context; 1: off."
    )
    xtc_probability: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Chance that all likely tokens but the least likely one are left out.",
    )
    xtc_threshold: float | None = Field(
        None,
        ge=0.0,
        le=1.0,
        description="Probability from which a token counts as likely for that.",
    )
    repeat_last_n: int | None = Field(
        None,
        ge=0,
        le=_MOST_LAST,
        description="How many of the last tokens the penalties look at; 0: none.",
    )
    repeat_penalty: float | None = Field(None, ge=0.0, description="Over 1: fewer repetitions.")
    presence_penalty: float | None = Field(
        None, description="Lowers the score of tokens that have occurred."
    )
    frequency_penalty: float | None = Field(
        None, description="Lowers the score of tokens by how often they have occurred."
    )
    dry_multiplier: float | None = Field(
        None, description="Strength of the DRY penalty on repeated sequences; 0: off."
    )
    dry_base: float | None = Field(
        None, description="Base of the DRY penalty, which grows with the length of the repetition."
    )
    dry_allowed_length: int | None = Field(
        None, ge=0, le=WHOLE, description="Longest repetition without a DRY penalty, in tokens."
    )
    dry_penalty_last_n: int | None = Field(
        None,
        ge=0,
        le=_MOST_LAST,
        description="How many of the last tokens the DRY penalty looks at.",
    )
    dry_sequence_breakers: _Breakers | None = Field(
        None,
        description="Texts at which a repeated sequence ends for the DRY penalty.",
    )
    mirostat: Literal[0, 1, 2] | None = Field(
        None, description="Mirostat sampling: 0 off, 1 its first version, 2 its second."
    )
    mirostat_tau: float | None = Field(None, description="Mirostat's target entropy.")
    mirostat_eta: float | None = Field(None, description="Mirostat's learning rate.")
    samplers: _Samplers | None = Field(None, description="Their names, in the order of use.")
    logit_bias: Biases | None = Field(
        None,
        description="Added to the score of a token, named by its id or its text; false bans it.",
    )
    ignore_eos: bool | None = Field(None, description="Go on when the model would end its answer.")
    min_keep: int | None = Field(
        None, ge=0, le=WHOLE, description="Tokens that every sampler leaves at least."
    )
    seed: int | None = Field(None, ge=-1, lt=2**32, description="-1: another one each time.")
    stop: Stop | Stops | None = Field(None, description="The answer ends before any of these.")
    grammar: str | None = Field(None, description="GBNF that the answer must match.")
    json_schema: dict[str, Any] | None = Field(
        None, description="A JSON schema that the answer must match."
    )
    n_indent: int | None = Field(
        None, ge=0, le=WHOLE, description="Least indentation of new lines, in spaces."
    )
    t_max_predict_ms: int | None = Field(
        None,
        ge=-1,
        le=WHOLE,
        description="Time to generate, after which the answer ends at a line break.",
    )
    n_probs: int | None = Field(
        None,
        ge=0,
        le=100,
        description="For each token, the probabilities of so many of the likeliest ones.",
    )
    post_sampling_probs: bool | None = Field(
        None, description="Report the probabilities after the samplers."
    )
    return_tokens: bool | None = Field(None, description="Report the ids of the tokens too.")
    return_progress: bool | None = Field(
        None, description="Report progress while the prompt is read, in a stream."
    )
    timings_per_token: bool | None = Field(None, description="Report speeds with each token.")
    response_fields: _Names | None = Field(
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
        isinstance(each, str) or (type(each) is int and 0 <= each <= WHOLE) for each in value
    )


_Mixed = Annotated[list[Token | str], Field(max_length=TOKENS, fail_fast=True)]
Prompt = Annotated[str | _Mixed, BeforeValidator(_checked_prompt)]


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

    text: str = Field(description="Its content.")
    filename: Name | None = Field(None, description="Its name.")


class InfillRequest(_Sampled):
    """Fill in what is between two texts."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"input_prefix": "def ", "input_suffix": "\n", "stop": ["("]}}
    )
    input_prefix: str = Field(description="The text before the gap.")
    input_suffix: str = Field(description="The text after the gap.")
    input_extra: Parts[Extra] = Field(default_factory=list, description="Other files, as context.")
    prompt: str = Field("", description="What stands behind the prefix already.")

    def engine_body(self) -> dict[str, Any]:
        """What the engine is asked, besides how tokens are chosen."""
        extra = [each.model_dump(exclude_none=True) for each in self.input_extra]
        texts = {"input_prefix": self.input_prefix, "input_suffix": self.input_suffix}
        return texts | {"input_extra": extra, "prompt": self.prompt}


class UnnamedChatRequest(ChatCompletionRequest):
    """As POST /v1/chat/completions has it."""

    model: Name = _MODEL


class UnnamedRerankRequest(RerankRequest):
    """As POST /v1/rerank has it."""

    model: Name = _MODEL


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

    tokens: Tokens = Field(description="Ids of tokens.")


class TemplateRequest(Unnamed):
    """The prompt that a chat becomes."""

    messages: Messages[OpenAIMessage] = Field(
        min_length=1, description="The conversation, oldest message first."
    )
    tools: Tools[dict[str, Any]] | None = Field(
        None, description="The functions that the model may call."
    )
    tool_choice: Any = Field(
        None, description='"auto" (the default), "none", "required", or one tool.'
    )
    parallel_tool_calls: bool | None = Field(
        None, description="Whether one answer may call several tools."
    )
    response_format: dict[str, Any] | None = Field(
        None,
        description="The format of the answer: text, json_object, or json_schema with a schema.",
    )
    json_schema: dict[str, Any] | None = Field(
        None, description="A JSON schema that the answer must match."
    )
    reasoning_effort: Name | None = Field(None, description='"none" switches thinking off.')
    chat_template_kwargs: dict[str, Any] | None = Field(
        None, description="Values for the model's chat template."
    )
    add_generation_prompt: bool | None = Field(
        None, description="Whether the prompt ends where the assistant's answer begins."
    )
