"""Scores of documents in the form of Jina's API, which several dialects answer with."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from myllm.api.http.streaming import DeferredJson
from myllm.api.shared.dependencies import Services
from myllm.api.shared.vector_schemas import RerankRequest, prompt_usage
from myllm.gateway.reranking import rerank
from myllm.gateway.scheduling.tickets import Client


def answer_rerank(request: RerankRequest, services: Services, client: Client) -> Response:
    """Return the documents' indexes and scores, the best first."""
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
        usage = prompt_usage(made.prompt_tokens)
        return {"object": "list", "model": request.model, "results": results, "usage": usage}

    return DeferredJson(make)
