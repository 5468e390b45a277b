"""Descriptions of a model, which the API and the command line share."""

from __future__ import annotations

from typing import Any

from myllm.models.model import Model

_MB = 1_000_000


def model_summary(model: Model, context_size: int) -> dict[str, Any]:
    """What a list shows of a model. `context_size` is that of one conversation."""
    shown: dict[str, Any] = {
        "name": model.name,
        "family": model.family,
        "size_mb": round(model.size_bytes / _MB),
        "quantization": model.quantization,
        "context_size": context_size,
        "template": model.config.template or ("gguf" if model.chat.text else None),
        "parameters": dict(model.config.parameters),
    }
    if model.config.aliases:
        shown["aliases"] = list(model.config.aliases)
    return shown | ({"problem": model.problem} if model.problem else {})


def model_details(model: Model, context_size: int) -> dict[str, Any]:
    """Everything known about a model except the memory it takes, which depends on the engine."""
    return model_summary(model, context_size) | {
        "description": model.config.description,
        "source": model.config.source,
        "path": str(model.path),
        "files": [file.name for file in model.files],
        "digest": model.digest,
        "architecture": model.architecture,
        "parameter_count": model.header.parameter_count,
        "trained_context_size": model.header.context_length,
        "embedding_length": model.header.embedding_length,
        "vocabulary_size": model.header.vocabulary_size,
        "input": list(model.input),
        "embedding_only": model.is_embedding_only,
        "chat": model.chat_problem or True,
        "thinking": model.thinks,
        "kv_restore": model.header.state_problem or True,
        "builtin": model.builtin,
    }
