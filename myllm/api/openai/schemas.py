"""The bodies of OpenAI's completions and embeddings: the fields that reach an engine, no others."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, cast

from pydantic import ConfigDict, Field, model_validator

from myllm.api.shared.bounded import Name, Tokens
from myllm.api.shared.completion_schemas import SampledRequest
from myllm.api.shared.request_fields import UNNAMED
from myllm.api.shared.vector_schemas import Inputs, QueuedRequest
from myllm.gateway.prompt.prefixes import Pieces, pieces_of_text
from myllm.limits import ANSWERS

_MAX_DIMENSIONS = 2**20
_Prompts = Annotated[list[str | Tokens], Field(max_length=ANSWERS, fail_fast=True)]


class CompletionRequest(SampledRequest):
    """Complete a prompt as it is, without a chat template."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"model": "demo", "prompt": "Once upon a time", "max_tokens": 64}
        }
    )
    prompt: str | Tokens | _Prompts = Field(description="A text or its tokens, or several of them.")
    suffix: str | None = Field(
        None, description="The text after the answer; for models with tokens for the middle."
    )
    echo: bool | None = Field(None, description="Whether the answer begins with the prompt.")
    best_of: int | None = Field(
        None, ge=1, le=ANSWERS, description="Refused unless it equals `n`: answers are not ranked."
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
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of must equal n: answers are not ranked")
        if self.echo or self.suffix:
            self._check_texts("echo" if self.echo else "suffix")
        return self

    def _check_texts(self, field: str) -> None:
        """Refuse what cannot be combined with `echo` and `suffix`."""
        if self.logprobs is not None:
            raise ValueError(f"{field} and logprobs cannot be combined")
        if self.echo and self.suffix:
            raise ValueError("echo and suffix cannot be combined")
        if not all(isinstance(prompt, str) for prompt in self.prompts()):
            raise ValueError(f"{field} needs a prompt that is a text, not tokens")

    def prompts(self) -> list[str | list[int]]:
        """Return each prompt."""
        prompt = self.prompt
        if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
            return prompt
        return [cast(str | list[int], prompt)]

    def wire_prompts(self) -> list[tuple[dict[str, Any], Pieces]]:
        """Return the engine's fields for each prompt, and how it begins."""
        if self.suffix:
            return [
                ({"input_prefix": prompt, "input_suffix": self.suffix, "prompt": ""}, ())
                for prompt in self.prompts()
            ]
        return [
            ({"prompt": prompt}, pieces_of_text(prompt) if isinstance(prompt, str) else ())
            for prompt in self.prompts()
        ]


class EmbeddingRequest(QueuedRequest):
    """Turn texts into vectors."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"model": "demo", "input": "Hello, world!"}}
    )
    model: Name | None = UNNAMED
    input: Inputs = Field(description="A text or its tokens, or several of them.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="Numbers, or little-endian 32-bit floats in base64."
    )
    dimensions: int | None = Field(
        None, ge=1, le=_MAX_DIMENSIONS, description="Length of the vectors, if the model can."
    )
