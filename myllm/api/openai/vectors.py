"""OpenAI's embeddings, and scores of documents in the form that Jina's API gave them."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from myllm.api.http.json_bodies import CheckedRoute
from myllm.api.http.streaming import DeferredJson
from myllm.api.openai.vector_schemas import EmbeddingRequest, RerankRequest, each_of
from myllm.api.shared.dependencies import ClientDep, ServicesDep
from myllm.gateway.embedding import embed
from myllm.gateway.reranking import rerank

router = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=CheckedRoute)


@router.post("/embeddings")
async def embeddings(
    request: EmbeddingRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """One vector for each input."""
    info, inputs = request.info(client), each_of(request.input)

    async def make() -> dict[str, Any]:
        made = await embed(services.gateway, info, request.model, inputs, request.dimensions)
        encode = _in_base64 if request.encoding_format == "base64" else list
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(made.vectors)
        ]
        usage = _usage(made.prompt_tokens)
        return {"object": "list", "data": data, "model": request.model, "usage": usage}

    return DeferredJson(make)


@router.post("/rerank")
@router.post("/reranking")
async def rerank_documents(
    request: RerankRequest, services: ServicesDep, client: ClientDep
) -> Response:
    """The documents' indexes and scores, the best first."""
    info, texts = request.info(client), request.texts()

    async def make() -> dict[str, Any]:
        made = await rerank(services.gateway, info, request.model, request.query, texts)
        best = sorted(range(len(texts)), key=lambda index: made.scores[index], reverse=True)
        results: list[dict[str, Any]] = [
            {"index": index, "relevance_score": made.scores[index]} for index in best
        ][: request.top_n]
        if request.return_documents:
            for result in results:
                result["document"] = {"text": texts[result["index"]]}
        usage = _usage(made.prompt_tokens)
        return {"object": "list", "model": request.model, "results": results, "usage": usage}

    return DeferredJson(make)


def _usage(prompt_tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens}


def _in_base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
