"""The models in OpenAI's form, with llama.cpp's figures and its router's `status`."""

from __future__ import annotations

from typing import Any

from myllm.api.shared.dependencies import Services
from myllm.gateway.snapshot import Snapshot
from myllm.models.registry import Model


async def all_models(services: Services) -> dict[str, Any]:
    """Return all usable models, under each of their names."""
    models = await services.gateway.models.all()
    usable = [model for model in models if model.problem is None]
    named = [(name, model) for model in usable for name in (model.name, *model.config.aliases)]
    snapshot = services.gateway.snapshot()
    return {"object": "list", "data": [_shown(services, snapshot, *each) for each in named]}


def shown_model(services: Services, name: str, model: Model) -> dict[str, Any]:
    """Return one model under one of its names."""
    return _shown(services, services.gateway.snapshot(), name, model)


def _shown(services: Services, snapshot: Snapshot, name: str, model: Model) -> dict[str, Any]:
    created, header = int(model.modified_at), model.header
    meta = {
        "n_vocab": header.vocabulary_size,
        "n_ctx": services.context_size(model),
        "n_ctx_train": header.context_length,
        "n_embd": header.embedding_length,
        "n_params": header.parameter_count,
        "size": header.tensor_bytes,
        "ftype": model.quantization,
    }
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "myllm",
        "status": {"value": snapshot.status(model.name)},
        "meta": meta,
    }
