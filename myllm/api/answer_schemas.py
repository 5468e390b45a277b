"""What some routes answer, for the API's description; with examples."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

_LISTED: dict[str, Any] = {
    "name": "demo",
    "family": "llama",
    "size_mb": 6,
    "quantization": "F16",
    "context_size": 2048,
    "template": "gguf",
    "parameters": {"temperature": 0, "repeat_penalty": 1.0},
    "loaded": True,
}
_DETAILED: dict[str, Any] = _LISTED | {
    "description": "A toy that comes with MyLLM",
    "path": "/models/demo",
    "files": ["demo.gguf"],
    "digest": "dac99d91655a7f35831c75b6689110f564df9d2936787289c82ce02c08245dca",
    "architecture": "llama",
    "parameter_count": 2885888,
    "trained_context_size": 2048,
    "embedding_length": 256,
    "vocabulary_size": 1024,
    "input": ["text"],
    "embedding_only": False,
    "thinking": False,
    "kv_restore": True,
    "builtin": True,
    "memory": {"estimated_mb": 56, "slots": 4},
}


class ListedModel(BaseModel):
    """A model as lists show it."""

    name: str
    family: str
    size_mb: int
    quantization: str
    context_size: int = Field(description="Tokens that one conversation gets.")
    template: str = Field(description='Its name in config.json, or "gguf".')
    parameters: dict[str, Any] = Field(description="Its own defaults for `options`.")
    loaded: bool
    aliases: list[str] | None = None
    problem: str | None = Field(None, description="Why it cannot be used, if so.")


class UnusedFile(BaseModel):
    """A file or folder that somebody may have meant as a model."""

    path: str
    problem: str = Field(description="Why it is not used, and what to do about it.")


class ModelList(BaseModel):
    """What is on disk."""

    model_config = ConfigDict(json_schema_extra={"example": {"models": [_LISTED], "problems": []}})

    models: list[ListedModel]
    problems: list[UnusedFile] = Field(
        description="What lies in the model folder and is no model, such as a loose GGUF."
    )


class ModelMemory(BaseModel):
    """What its engine takes."""

    estimated_mb: int
    slots: int = Field(description="Conversations that it answers at once.")


class ModelDetails(ListedModel):
    """Everything known about a model."""

    model_config = ConfigDict(json_schema_extra={"example": _DETAILED})

    description: str | None
    source: str | None = Field(None, description="Where it was pulled from.")
    path: str
    files: list[str]
    digest: str
    architecture: str
    parameter_count: int
    trained_context_size: int
    embedding_length: int
    vocabulary_size: int
    input: list[str] = Field(description="What it takes: text, image, audio.")
    embedding_only: bool
    thinking: bool = Field(description="Whether it can think before it answers.")
    kv_restore: Literal[True] | str = Field(description="True, or why its states are not saved.")
    builtin: bool
    memory: ModelMemory


class EmbeddingsUsage(BaseModel):
    """Counts of tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsResponse(BaseModel):
    """`embedding` for a text, `embeddings` for a list of them."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "embedding": [0.0123, -0.0456, 0.0789],
                "model": "demo",
                "usage": {"prompt_tokens": 6, "total_tokens": 6},
            }
        }
    )

    embedding: list[float] | None = None
    embeddings: list[list[float]] | None = None
    model: str
    usage: EmbeddingsUsage
