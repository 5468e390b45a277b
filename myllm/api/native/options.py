"""The `options` of MyLLM's own requests: how tokens are chosen, and within which bounds."""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from myllm.api.shared.bounded import Stops, at_most
from myllm.api.shared.sampling_fields import (
    FrequencyPenalty,
    LogitBias,
    MaxTokens,
    MinP,
    PresencePenalty,
    RepeatPenalty,
    Temperature,
    TopK,
    TopP,
)
from myllm.limits import OPTIONS


class Options(BaseModel):
    """How tokens are chosen. Missing options come from the model, then from the defaults."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    temperature: Temperature = None
    top_p: TopP = None
    top_k: TopK = None
    min_p: MinP = None
    max_tokens: MaxTokens = None
    stop: Stops | None = Field(None, description="The answer ends before any of these.")
    repeat_penalty: RepeatPenalty = None
    presence_penalty: PresencePenalty = None
    frequency_penalty: FrequencyPenalty = None
    seed: int | None = Field(
        None, ge=0, le=2**32 - 1, description="The same seed gives the same answer."
    )
    logit_bias: LogitBias = None

    @model_validator(mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        """Limit their number, since each unknown option is a separate error."""
        return at_most(OPTIONS)(given)

    def given(self) -> dict[str, Any]:
        """Return the options that the request has set."""
        return self.model_dump(exclude_none=True)
