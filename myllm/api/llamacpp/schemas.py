"""The bodies of llama.cpp's own API: the fields that reach an engine, and no others.

llama.cpp's clients know one server with one model, and name none. Fields that would change the
engine's state (slots, caches, adapters) are ignored, as unknown fields are.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, model_validator

from myllm.api.llamacpp.sampling_schemas import SampledRequest, UnnamedRequest
from myllm.api.shared.bounded import Messages, Name, Parts, Token, Tokens, at_most
from myllm.api.shared.completion_schemas import OpenAIMessage
from myllm.api.shared.lenient import Lenient
from myllm.api.shared.tool_schemas import ToolDefinitions
from myllm.api.shared.vector_schemas import Inputs
from myllm.limits import ANSWERS, TOKENS, WHOLE


def _checked_pieces(value: Any) -> Any:
    """Checked here, because pydantic would report a mismatch with each type."""
    if not isinstance(value, str) and not _is_mixed(value):
        raise ValueError("must be a text, or a list of tokens and texts")
    return value


def _is_mixed(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, str) or (type(each) is int and 0 <= each <= WHOLE) for each in value
    )


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _checked_prompts(value: Any) -> Any:
    """Return a list of prompts. As in llama-server, a list without numbers is one already."""
    several = isinstance(value, list) and not any(isinstance(each, int) for each in value)
    prompts = value if several else [value]
    at_most(ANSWERS)(prompts)
    if not prompts:
        raise ValueError("must not be empty")
    if not all(map(_is_prompt, prompts)):
        raise ValueError(
            "must be a text, a list of tokens and texts, an object with prompt_string, or a list "
            "of such prompts"
        )
    return prompts


def _is_prompt(value: Any) -> bool:
    return isinstance(value, str) or _is_mixed(value) or _has_prompt(value)


def _has_prompt(value: Any) -> bool:
    return isinstance(value, dict) and value.get("prompt_string") is not None


_Mixed = Annotated[list[Token | str], Field(max_length=TOKENS, fail_fast=True)]
Pieces = Annotated[str | _Mixed, BeforeValidator(_checked_pieces)]
"""A text, or tokens and texts in a list."""


class MediaPrompt(Lenient):
    """A prompt with pictures and sounds."""

    prompt_string: Pieces = Field(description="A text, or tokens and texts in a list.")
    multimodal_data: Annotated[Parts[str], BeforeValidator(_listed)] = Field(
        default_factory=list,
        description="Pictures and sounds in base64, one for each marker in the text.",
    )


Prompt = Pieces | MediaPrompt
Prompts = Annotated[
    Annotated[list[Prompt], Field(max_length=ANSWERS, fail_fast=True)],
    BeforeValidator(
        _checked_prompts,
        json_schema_input_type=str | _Mixed | MediaPrompt | list[str | _Mixed | MediaPrompt],
    ),
]


class PlainCompletionRequest(SampledRequest):
    """Complete a prompt as it is."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"prompt": "Once upon a time", "n_predict": 64}}
    )
    prompt: Prompts = Field(
        description="A text, tokens and texts in a list, or an object; or several prompts."
    )

    @model_validator(mode="after")
    def _few(self) -> Self:
        """Limit the requests to the engine: one for each answer to each prompt."""
        made = len(self.prompt) * self.n_cmpl
        if made > ANSWERS:
            raise ValueError(f"prompts times n_cmpl must be {ANSWERS} at most, not {made}")
        return self


class Extra(Lenient):
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

    def texts(self) -> dict[str, Any]:
        """Return the engine's fields besides the sampling fields."""
        extra = [each.model_dump(exclude_none=True) for each in self.input_extra]
        texts = {"input_prefix": self.input_prefix, "input_suffix": self.input_suffix}
        return texts | {"input_extra": extra, "prompt": self.prompt}


class PlainEmbeddingRequest(UnnamedRequest):
    """Turn texts into vectors of length 1."""

    content: Inputs = Field(
        validation_alias=AliasChoices("content", "input"),
        description="A text or its tokens, or several of them.",
    )


class TokenizeRequest(UnnamedRequest):
    """The tokens of a text."""

    content: Pieces = Field(description="A text, or tokens and texts in a list.")
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
    tools: ToolDefinitions | None = Field(
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
