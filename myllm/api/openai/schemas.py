"""The bodies of OpenAI's completions and embeddings: the fields that reach an engine, no others."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeVar, cast

from pydantic import ConfigDict, Field, model_validator

from myllm.api.shared.bounded import Name, Tokens
from myllm.api.shared.completion_schemas import SampledRequest
from myllm.api.shared.vector_schemas import Inputs, QueuedRequest
from myllm.limits import ANSWERS

_MAX_DIMENSIONS = 2**20
T = TypeVar("T")
_Prompts = Annotated[list[T], Field(max_length=ANSWERS, fail_fast=True)]


class CompletionRequest(SampledRequest):
    """Complete a prompt as it is, without a chat template."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"model": "demo", "prompt": "Once upon a time", "max_tokens": 64}
        }
    )
    prompt: str | Tokens | _Prompts[str] | _Prompts[Tokens] = Field(
        description="A text or its tokens, or several of them."
    )
    logprobs: int | None = Field(
        None,
        ge=0,
        le=20,
        description="Report log probabilities, of this many of the most likely tokens.",
    )

    @model_validator(mode="after")
    def _few(self) -> Self:
        """Limit the requests to the engine: one for each answer to each prompt."""
        made = len(self.prompts()) * (self.n or 1)
        if made > ANSWERS:
            raise ValueError(f"prompts times n must be {ANSWERS} at most, not {made}")
        return self

    def prompts(self) -> list[str | list[int]]:
        """Return each prompt."""
        prompt = self.prompt
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            return cast(list[str | list[int]], prompt)
        return [cast(str | list[int], prompt)]


class EmbeddingRequest(QueuedRequest):
    """Turn texts into vectors."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"model": "demo", "input": "Hello, world!"}}
    )
    model: Name = Field(description="A model's name or alias, from GET /v1/models.")
    input: Inputs = Field(description="A text or its tokens, or several of them.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="Numbers, or little-endian 32-bit floats in base64."
    )
    dimensions: int | None = Field(
        None, ge=1, le=_MAX_DIMENSIONS, description="Length of the vectors, if the model can."
    )
