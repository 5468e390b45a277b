"""Inputs to embed, and the body of a request for scores; OpenAI's and llama.cpp's dialects share
them."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from myllm.api.shared import bounded
from myllm.api.shared.bounded import Name, at_most
from myllm.api.shared.lenient import Lenient
from myllm.api.shared.request_fields import UNNAMED, KeepAlive, Priority, Queued
from myllm.limits import INPUTS, TOKENS, WHOLE


def _each_input(value: Any) -> Any:
    """Return a list of inputs, as llama.cpp tells one input from several: a list that has a number
    in it is one. Checked here, because pydantic would report a mismatch with each type."""
    several = isinstance(value, list) and not any(type(each) is int for each in value)
    inputs = at_most(INPUTS)(value) if several else [value]
    made = [_input(each) for each in inputs]
    if not made or not all(made):
        raise ValueError("must not be empty")
    return made


def _input(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("multimodal_data"):
            raise ValueError("must be texts or tokens: pictures and sounds cannot be embedded")
        value = value.get("prompt_string")
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(map(_is_piece, value)):
        raise ValueError("must be a text, tokens, or a list of texts and tokens")
    return at_most(TOKENS)(value)


def _is_piece(value: Any) -> bool:
    return isinstance(value, str) or (type(value) is int and 0 <= value <= WHOLE)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


_Pieces = Annotated[list[bounded.Token | str], Field(max_length=TOKENS, fail_fast=True)]
Inputs = Annotated[bounded.Inputs[str | _Pieces], BeforeValidator(_each_input)]
"""One or more inputs, each a text, or a list of tokens and texts; none is empty.

Requests have one input or a list; an object with a `prompt_string` is that text.
"""


class QueuedRequest(Queued, BaseModel):
    """The fields of all requests that wait for an engine."""

    keep_alive: KeepAlive | None = Field(None, description="How long the model stays loaded.")
    priority: Priority = 0


class Document(BaseModel):
    """A text to be scored."""

    text: str = Field(description="The text.")


class RerankRequest(Lenient, QueuedRequest):
    """Sort documents by how well they answer a query."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "a-reranker",
                "query": "What is the capital of France?",
                "documents": ["Paris is the capital of France.", "Bread is made from flour."],
                "top_n": 1,
            }
        }
    )
    model: Name | None = UNNAMED
    query: Annotated[str, AfterValidator(_not_blank)] = Field(
        description="What the documents are to answer."
    )
    documents: bounded.Inputs[str | Document] = Field([], description="The texts to sort.")
    texts: bounded.Inputs[str] | None = Field(
        None,
        description="The same in the form of Text Embeddings Inference, whose answer is a list.",
    )
    top_n: int | None = Field(
        None, ge=1, le=WHOLE, description="Return only so many, the best ones."
    )
    return_documents: bool | None = Field(False, description="Whether to return their texts, too.")

    return_text: bool | None = Field(False, description="The same, for `texts`.")
    raw_scores: bool | None = Field(
        False, description="For `texts`: the model's own scores, not squeezed into 0 to 1."
    )

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.to_score():
            raise ValueError("documents must not be empty")
        return self

    def to_score(self) -> list[str]:
        """Return each document's text."""
        if self.texts is not None:
            return self.texts
        return [each if isinstance(each, str) else each.text for each in self.documents]


def prompt_usage(prompt_tokens: int) -> dict[str, int]:
    """Return the token counts of an answer that generates no tokens."""
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
