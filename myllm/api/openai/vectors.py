"""OpenAI's embeddings, and scores of documents in the form of Jina's API."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from fastapi import APIRouter
from starlette.responses import Response

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson
from myllm.api.openai.schemas import EmbeddingRequest
from myllm.api.shared.dependencies import ClientDep, ServicesDep
from myllm.api.shared.reranking import answer_rerank
from myllm.api.shared.vector_schemas import RerankRequest, prompt_usage
from myllm.gateway.embedding import embed
from myllm.gateway.model_lookup import named
from myllm.threads import in_thread_if

# Vectors of a thousand numbers that are encoded in a millisecond or two.
_FEW: Final = 32

router = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=CheckedRoute)


@router.post("/embeddings")
async def embeddings(
    request: EmbeddingRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """One vector for each input."""
    info = request.info(client)
    name = request.model or await named(services.gateway, "", "embed")

    async def make() -> dict[str, Any]:
        made = await embed(services.gateway, info, name, request.input, request.dimensions)
        encode = _in_base64 if request.encoding_format == "base64" else list
        data = await in_thread_if(len(made.vectors) > _FEW, _data, made.vectors, encode)
        usage = prompt_usage(made.prompt_tokens)
        return {"object": "list", "data": data, "model": name, "usage": usage}

    return DeferredJson(make)


@router.post("/rerank")
@router.post("/reranking")
async def rerank_documents(
    request: RerankRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """The documents' indexes and scores, the best first."""
    return await answer_rerank(request, services, client)


def _data(
    vectors: Sequence[list[float]], encode: Callable[[list[float]], Any]
) -> list[dict[str, Any]]:
    return [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(vectors)
    ]


def _in_base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
