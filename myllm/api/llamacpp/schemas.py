"""The bodies of llama.cpp's own API: the fields that reach an engine, and no others.

llama.cpp's clients know one server with one model, and name none. Fields that would change the
engine's state (slots, caches, adapters) are ignored, as unknown fields are.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field

from myllm.api.llamacpp.sampling_schemas import MODEL, SampledRequest, UnnamedRequest
from myllm.api.shared.bounded import (
    Messages,
    Name,
    Parts,
    Token,
    Tokens,
    Tools,
)
from myllm.api.shared.completion_schemas import ChatCompletionRequest, OpenAIMessage
from myllm.api.shared.vector_schemas import Inputs, RerankRequest
from myllm.limits import TOKENS, WHOLE


def _checked_prompt(value: Any) -> Any:
    """Take a list of one text for that text, as llama.cpp does; several prompts are refused."""
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


class PlainCompletionRequest(SampledRequest):
    """Complete a prompt as it is."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"prompt": "Once upon a time", "n_predict": 64}}
    )
    prompt: Prompt = Field(description="A text, or tokens and texts in a list.")

    def engine_body(self) -> dict[str, Any]:
        """Return the engine's fields besides the sampling fields."""
        return {"prompt": self.prompt}


class Extra(BaseModel):
    """Another file, as context for the text in the middle."""

    text: str = Field(description="Its content.")
    filename: Name | None = Field(None, description="Its name.")


class InfillRequest(SampledRequest):
    """Fill in the text between two texts."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"input_prefix": "def ", "input_suffix": "\n", "stop": ["("]}}
    )
    input_prefix: str = Field(description="The text before the gap.")
    input_suffix: str = Field(description="The text after the gap.")
    input_extra: Parts[Extra] = Field(default_factory=list, description="Other files, as context.")
    prompt: str = Field("", description="The beginning of the text in between.")

    def engine_body(self) -> dict[str, Any]:
        """Return the engine's fields besides the sampling fields."""
        extra = [each.model_dump(exclude_none=True) for each in self.input_extra]
        texts = {"input_prefix": self.input_prefix, "input_suffix": self.input_suffix}
        return texts | {"input_extra": extra, "prompt": self.prompt}


class UnnamedChatRequest(ChatCompletionRequest):
    """The same as for POST /v1/chat/completions."""

    model: Name = MODEL


class UnnamedRerankRequest(RerankRequest):
    """The same as for POST /v1/rerank."""

    model: Name = MODEL


class PlainEmbeddingRequest(UnnamedRequest):
    """Turn texts into vectors of length 1."""

    content: Inputs = Field(
        validation_alias=AliasChoices("content", "input"),
        description="A text or its tokens, or several of them.",
    )


class TokenizeRequest(UnnamedRequest):
    """The tokens of a text."""

    content: Prompt = Field(description="A text, or tokens and texts in a list.")
    add_special: bool = Field(
        False, description="Whether to add the tokens that the model starts with."
    )
    parse_special: bool = Field(True, description="Whether a text may name special tokens.")
    with_pieces: bool = Field(False, description="Whether to return the text of each token.")


class DetokenizeRequest(UnnamedRequest):
    """The text of tokens."""

    tokens: Tokens = Field(description="Ids of tokens.")


class TemplateRequest(UnnamedRequest):
    """A chat whose prompt is returned."""

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
