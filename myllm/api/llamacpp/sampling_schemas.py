"""How tokens are chosen in llama.cpp's own requests: the fields that reach an engine."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, ConfigDict, Field

from myllm.api.shared.bounded import Name, Stop
from myllm.api.shared.lenient import Lenient
from myllm.api.shared.sampling_fields import (
    LogitBias,
    MinP,
    Mirostat,
    MirostatEta,
    MirostatTau,
    RepeatLastN,
    RepeatPenalty,
    StopTexts,
    TopK,
    TopP,
)
from myllm.api.shared.vector_schemas import QueuedRequest
from myllm.gateway.constraints.checks import MAX_BREAKERS, MAX_SAMPLERS
from myllm.limits import ANSWERS, LABELS, WHOLE

# The engine reserves memory for so many tokens, whether there are as many or not.
_MAX_LAST = 2**20
MODEL = Field("", description="Default: the only loaded model, or else the only model.")
_Samplers = Annotated[list[Name], Field(max_length=MAX_SAMPLERS, fail_fast=True)]
_Names = Annotated[list[Name], Field(max_length=LABELS, fail_fast=True)]
_Breakers = Annotated[list[Stop], Field(min_length=1, max_length=MAX_BREAKERS, fail_fast=True)]
_NOT_SAMPLING = frozenset(
    {
        *("model", "keep_alive", "priority", "stream", "n_predict", "n_cmpl", "response_fields"),
        *("prompt", "input_prefix", "input_suffix", "input_extra"),
    }
)


class UnnamedRequest(Lenient, QueuedRequest):
    """A request that need not name a model."""

    model: Name = MODEL


class SampledRequest(UnnamedRequest):
    """How tokens are chosen, and what is reported about them."""

    model_config = ConfigDict(allow_inf_nan=False)

    stream: bool = Field(False, description="Server-sent events, or one JSON answer.")
    n_predict: int | None = Field(
        None,
        ge=-WHOLE,
        le=WHOLE,
        validation_alias=AliasChoices("n_predict", "max_tokens", "max_completion_tokens"),
        description="Longest answer, in tokens; negative: up to the end of the context.",
    )
    n_cmpl: int = Field(
        1,
        ge=1,
        le=ANSWERS,
        validation_alias=AliasChoices("n_cmpl", "n"),
        description="Answers to make to each prompt.",
    )
    temperature: float | None = Field(
        None, ge=0.0, description="Higher is more random; 0 always takes the most likely token."
    )
    dynatemp_range: float | None = Field(
        None, description="The temperature varies by this much, with the entropy; 0: not at all."
    )
    dynatemp_exponent: float | None = Field(
        None, description="How the entropy maps to the varying temperature."
    )
    top_k: TopK = None
    top_p: TopP = None
    min_p: MinP = None
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
    repeat_last_n: RepeatLastN = None
    repeat_penalty: RepeatPenalty = None
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
        le=_MAX_LAST,
        description="How many of the last tokens the DRY penalty looks at.",
    )
    dry_sequence_breakers: _Breakers | None = Field(
        None,
        description="Texts at which a repeated sequence ends for the DRY penalty.",
    )
    mirostat: Mirostat = None
    mirostat_tau: MirostatTau = None
    mirostat_eta: MirostatEta = None
    samplers: _Samplers | None = Field(None, description="Their names, in the order of use.")
    logit_bias: LogitBias = None
    ignore_eos: bool | None = Field(None, description="Go on when the model would end its answer.")
    min_keep: int | None = Field(
        None, ge=0, le=WHOLE, description="Minimum number of tokens that each sampler keeps."
    )
    seed: int | None = Field(None, ge=-1, lt=2**32, description="-1: another one each time.")
    stop: StopTexts = None
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
        description="For each token, the probabilities of this many of the most likely ones.",
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
        None, description="Only these fields of an answer that is not streamed."
    )

    def given(self) -> dict[str, Any]:
        """Return the sampling fields that the request has set."""
        given = self.model_dump(exclude_none=True, exclude=set(_NOT_SAMPLING))
        if isinstance(given.get("stop"), str):
            given["stop"] = [given["stop"]]
        if self.n_predict is not None:
            given["max_tokens"] = max(self.n_predict, -1)
        return given
