"""Inputs to embed, and the body of a request for scores; OpenAI's and llama.cpp's dialects share
them."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from myllm.api.shared import bounded
from myllm.api.shared.bounded import Name, Tokens, at_most
from myllm.api.shared.request_fields import KeepAlive, Priority, Queued
from myllm.limits import INPUTS, WHOLE


def _checked_input(value: Any) -> Any:
    """Checked here, because pydantic would report a mismatch with each of the four types."""
    inputs = value if isinstance(value, list) and not _are_tokens(value) else [value]
    at_most(INPUTS)(inputs)
    if not inputs or not all(inputs):
        raise ValueError("must not be empty")
    if not (
        all(isinstance(each, str) for each in inputs) or all(_are_tokens(each) for each in inputs)
    ):
        raise ValueError("must be a text, tokens, or a list of texts or of tokens")
    return value


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(token) is int and 0 <= token <= WHOLE for token in value
    )


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Inputs = Annotated[
    str | Tokens | bounded.Inputs[str] | bounded.Inputs[Tokens], BeforeValidator(_checked_input)
]
"""A text or its tokens, or a list of either; none is empty."""


def each_of(inputs: str | list[int] | list[str] | list[list[int]]) -> list[str | list[int]]:
    """Return the inputs as a list of one or more."""
    if isinstance(inputs, str) or isinstance(inputs[0], int):
        return [inputs]
    return cast(list[str | list[int]], inputs)


class QueuedRequest(Queued, BaseModel):
    """The fields of all requests that wait for an engine."""

    keep_alive: KeepAlive | None = Field(None, description="How long the model stays loaded.")
    priority: Priority = 0


class Document(BaseModel):
    """A text to be scored."""

    text: str = Field(description="The text.")


class RerankRequest(QueuedRequest):
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
    model: Name = Field(description="A reranking model's name or alias.")
    query: Annotated[str, AfterValidator(_not_blank)] = Field(
        description="What the documents are to answer."
    )
    documents: bounded.Inputs[str | Document] = Field(
        min_length=1, description="The texts to sort."
    )
    top_n: int | None = Field(
        None, ge=1, le=WHOLE, description="Return only so many, the best ones."
    )
    return_documents: bool | None = Field(False, description="Whether to return their texts, too.")

    def texts(self) -> list[str]:
        """Return each document's text."""
        return [each if isinstance(each, str) else each.text for each in self.documents]


def prompt_usage(prompt_tokens: int) -> dict[str, int]:
    """Return the token counts of an answer that generates no tokens."""
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}
