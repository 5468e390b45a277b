"""The answers of some routes, for the OpenAPI document, with examples."""

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
    "chat": True,
    "thinking": False,
    "kv_restore": True,
    "builtin": True,
    "memory": {"estimated_mb": 56, "slots": 4},
    "warnings": [],
}


class ListedModel(BaseModel):
    """A model in lists."""

    name: str = Field(description="The name that requests use.")
    family: str = Field(description="The architecture, or what config.json says.")
    size_mb: int = Field(description="Size of its files, in MB.")
    quantization: str = Field(description="How its weights are stored, such as Q4_K_M.")
    context_size: int = Field(description="Most tokens of one conversation.")
    template: str | None = Field(
        description='Its name in config.json, or "gguf"; null: it has none, so it cannot chat.'
    )
    parameters: dict[str, Any] = Field(description="Its own defaults for `options`.")
    loaded: bool = Field(description="Whether an engine of it runs.")
    aliases: list[str] | None = Field(None, description="Other names for it.")
    problem: str | None = Field(None, description="Why it cannot be used, if so.")


class UnusedFile(BaseModel):
    """A file or folder in the model folder that is not a usable model."""

    path: str = Field(description="Its path.")
    problem: str = Field(description="Why it is not used, and what to do about it.")


class ModelList(BaseModel):
    """The models on disk."""

    model_config = ConfigDict(json_schema_extra={"example": {"models": [_LISTED], "problems": []}})

    models: list[ListedModel] = Field(
        description="Each model in the folder, and those that come with MyLLM."
    )
    problems: list[UnusedFile] = Field(
        description="What is in the model folder but no model, such as a loose GGUF."
    )


class ModelMemory(BaseModel):
    """The memory of its engine."""

    estimated_mb: int = Field(description="Predicted or measured memory of its engine, in MiB.")
    slots: int = Field(description="Conversations that it answers in parallel.")


class ModelDetails(ListedModel):
    """Everything known about a model."""

    model_config = ConfigDict(json_schema_extra={"example": _DETAILED})

    description: str | None = Field(description="The description in config.json.")
    source: str | None = Field(None, description="Where it was pulled from.")
    path: str = Field(description="Its folder.")
    files: list[str] = Field(description="Its GGUF files, without their folder.")
    digest: str = Field(description="SHA-256 of its content.")
    architecture: str = Field(description="The architecture in the GGUF, such as llama.")
    parameter_count: int = Field(description="Number of weights.")
    trained_context_size: int = Field(
        description="Longest context that it was trained for, in tokens."
    )
    embedding_length: int = Field(description="Length of its vectors.")
    vocabulary_size: int = Field(description="Number of different tokens.")
    input: list[str] = Field(description="The inputs that it takes: text, image, audio.")
    embedding_only: bool = Field(description="Whether it only makes vectors, and no text.")
    chat: Literal[True] | str = Field(description="True, or why it cannot answer a conversation.")
    thinking: bool = Field(description="Whether it can think before it answers.")
    kv_restore: Literal[True] | str = Field(description="True, or why its KV state is not saved.")
    builtin: bool = Field(description="Whether it comes with MyLLM.")
    memory: ModelMemory = Field(description="The memory of its engine.")
    warnings: list[str] = Field(description="What has changed on disk since the model was loaded.")


class EmbeddingsUsage(BaseModel):
    """Token counts."""

    prompt_tokens: int = Field(description="Tokens of all texts.")
    total_tokens: int = Field(description="The same.")


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

    embedding: list[float] | None = Field(None, description="The vector of a single text.")
    embeddings: list[list[float]] | None = Field(
        None, description="The vectors of a list of texts, in its order."
    )
    model: str = Field(description="The model that made them.")
    usage: EmbeddingsUsage = Field(description="Token counts.")


class Slots(BaseModel):
    """The conversations that an engine answers in parallel."""

    busy: int = Field(description="Slots that are answering a request.")
    total: int = Field(description="All slots.")


class InstanceMemory(BaseModel):
    """The memory of an engine, in MiB."""

    estimated_mb: int = Field(description="Predicted, on all devices together.")
    measured_mb: int = Field(description="Measured now; 0 before the first measurement.")
    devices: dict[str, int] = Field(
        default_factory=dict, description="The prediction for each device."
    )


class InstanceShown(BaseModel):
    """A running engine, or a model without one that waits for memory or backs off."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(description="The model's name.")
    role: Literal["generate", "embed", "rerank"] = Field(description="What the engine does.")
    state: str = Field(description="loading, ready, draining; waiting or backing off.")
    pid: int | None = Field(description="The process, if there is one.")
    slots: Slots = Field(description="How many conversations it is answering.")
    queued: int = Field(description="Requests that wait for a slot.")
    memory: InstanceMemory = Field(description="Its memory.")
    restarts: int = Field(description="How often it was restarted.")
    strikes: int = Field(description="Recent failures before the first token.")
    last_error: str | None = Field(description="Why it last failed to start or last died.")
    kv_restore: Literal[True] | str = Field(description="True, or why its KV state is not saved.")
    warnings: list[str] = Field(
        description="What has changed in the model's folder since its engine started; "
        "the engine does not depend on it."
    )
    started_at: str | None = Field(None, description="When its process was started.")
    last_used_at: str | None = Field(None, description="When its last answer ended.")
    expires_at: str | None = Field(None, description="When it is unloaded if no request comes.")
    pinned: bool = Field(False, description="Whether it is never evicted.")


class InstanceList(BaseModel):
    """What runs, and the memory of each device."""

    instances: list[InstanceShown] = Field(
        description="All engines, and the models that wait for one."
    )
    memory: dict[str, dict[str, int | None]] = Field(
        description="For each device budget_mb, taken_mb and free_mb, in MiB."
    )
