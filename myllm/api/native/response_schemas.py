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
    "chat": True,
    "thinking": False,
    "kv_restore": True,
    "builtin": True,
    "memory": {"estimated_mb": 56, "slots": 4},
    "warnings": [],
}


class ListedModel(BaseModel):
    """A model as lists show it."""

    name: str = Field(description="What requests call it.")
    family: str = Field(description="The architecture, or what config.json says.")
    size_mb: int = Field(description="Size of its files, in MB.")
    quantization: str = Field(description="How its weights are stored, such as Q4_K_M.")
    context_size: int = Field(description="Tokens that one conversation gets.")
    template: str | None = Field(
        description='Its name in config.json, or "gguf"; null: it has none, so it cannot chat.'
    )
    parameters: dict[str, Any] = Field(description="Its own defaults for `options`.")
    loaded: bool = Field(description="Whether an engine of it runs.")
    aliases: list[str] | None = Field(None, description="Other names that it answers to.")
    problem: str | None = Field(None, description="Why it cannot be used, if so.")


class UnusedFile(BaseModel):
    """A file or folder in the model folder that is no usable model."""

    path: str = Field(description="Where it lies.")
    problem: str = Field(description="Why it is not used, and what to do about it.")


class ModelList(BaseModel):
    """What is on disk."""

    model_config = ConfigDict(json_schema_extra={"example": {"models": [_LISTED], "problems": []}})

    models: list[ListedModel] = Field(
        description="Each model in the folder, and those that come with MyLLM."
    )
    problems: list[UnusedFile] = Field(
        description="What lies in the model folder and is no model, such as a loose GGUF."
    )


class ModelMemory(BaseModel):
    """What its engine takes."""

    estimated_mb: int = Field(
        description="What its engine is predicted or was measured to take, in MiB."
    )
    slots: int = Field(description="Conversations that it answers at once.")


class ModelDetails(ListedModel):
    """Everything known about a model."""

    model_config = ConfigDict(json_schema_extra={"example": _DETAILED})

    description: str | None = Field(description="What config.json says it is good for.")
    source: str | None = Field(None, description="Where it was pulled from.")
    path: str = Field(description="Its folder.")
    files: list[str] = Field(description="Its GGUF files, without their folder.")
    digest: str = Field(description="SHA-256 that names its content.")
    architecture: str = Field(description="As the GGUF names it, such as llama.")
    parameter_count: int = Field(description="Number of weights.")
    trained_context_size: int = Field(
        description="Longest context that it was trained for, in tokens."
    )
    embedding_length: int = Field(description="Length of its vectors.")
    vocabulary_size: int = Field(description="Number of different tokens.")
    input: list[str] = Field(description="What it takes: text, image, audio.")
    embedding_only: bool = Field(description="Whether it makes vectors only, no text.")
    chat: Literal[True] | str = Field(description="True, or why it cannot answer a conversation.")
    thinking: bool = Field(description="Whether it can think before it answers.")
    kv_restore: Literal[True] | str = Field(description="True, or why its states are not saved.")
    builtin: bool = Field(description="Whether it comes with MyLLM.")
    memory: ModelMemory = Field(description="What its engine takes.")
    warnings: list[str] = Field(
        description="What on disk is no longer as it was when the model was loaded."
    )


class EmbeddingsUsage(BaseModel):
    """Counts of tokens."""

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
    usage: EmbeddingsUsage = Field(description="Counts of tokens.")


class Slots(BaseModel):
    """The conversations that an engine answers at once."""

    busy: int = Field(description="Slots that answer a request now.")
    total: int = Field(description="All slots.")


class InstanceMemory(BaseModel):
    """What an engine takes, in MiB."""

    estimated_mb: int = Field(description="Predicted, on all devices together.")
    measured_mb: int = Field(description="Taken now; 0 before anything was measured.")
    devices: dict[str, int] = Field(
        default_factory=dict, description="The prediction for each device."
    )


class InstanceShown(BaseModel):
    """An engine that runs, or a model that waits for room or backs off, which has no process."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(description="The model's name.")
    role: Literal["generate", "embed", "rerank"] = Field(description="What the engine is for.")
    state: str = Field(description="loading, ready, draining; waiting or backing off.")
    pid: int | None = Field(description="The process, if there is one.")
    slots: Slots = Field(description="How many conversations it answers.")
    queued: int = Field(description="Requests that wait for it.")
    memory: InstanceMemory = Field(description="What it takes.")
    restarts: int = Field(description="How often it was started again.")
    strikes: int = Field(description="How often it failed lately before it said anything.")
    last_error: str | None = Field(
        description="Why it could not start, or why one that served died, the last time."
    )
    kv_restore: Literal[True] | str = Field(description="True, or why its states are not saved.")
    warnings: list[str] = Field(
        description="What of the model's folder is no longer as it was when its engine started; "
        "the engine does not depend on it."
    )
    started_at: str | None = Field(None, description="When its process was started.")
    last_used_at: str | None = Field(None, description="When its last answer ended.")
    expires_at: str | None = Field(None, description="When it is unloaded unless a request comes.")
    pinned: bool = Field(False, description="Whether it is never unloaded to make room.")


class InstanceList(BaseModel):
    """What runs, and what memory there is."""

    instances: list[InstanceShown] = Field(description="All engines, and who waits for one.")
    memory: dict[str, dict[str, int | None]] = Field(
        description="For each device budget_mb, taken_mb and free_mb, in MiB."
    )
