"""Scores of documents, in the form of Jina's API or of Text Embeddings Inference."""

from __future__ import annotations

import math
from typing import Any

from starlette.responses import Response

from myllm.api.http.streaming import DeferredJson
from myllm.api.shared.dependencies import Services
from myllm.api.shared.vector_schemas import RerankRequest, prompt_usage
from myllm.gateway.client import Client
from myllm.gateway.model_lookup import named
from myllm.gateway.reranking import Scores, rerank


async def answer_rerank(request: RerankRequest, services: Services, client: Client) -> Response:
    """Return the documents' indexes and scores, the best first."""
    info, texts = request.info(client), request.to_score()
    name = request.model or await named(services.gateway, "", "rerank")

    async def make() -> dict[str, Any] | list[dict[str, Any]]:
        made = await rerank(services.gateway, info, name, request.query, texts)
        best = sorted(range(len(texts)), key=lambda index: made.scores[index], reverse=True)
        if request.texts is not None:
            return _list(request, made, best)
        results: list[dict[str, Any]] = [
            {"index": index, "relevance_score": made.scores[index]} for index in best
        ][: request.top_n]
        if request.return_documents:
            for result in results:
                result["document"] = {"text": texts[result["index"]]}
        usage = prompt_usage(made.prompt_tokens)
        return {"object": "list", "model": name, "results": results, "usage": usage}

    return DeferredJson(make)


def _list(request: RerankRequest, made: Scores, best: list[int]) -> list[dict[str, Any]]:
    """Return the scores in the form of Text Embeddings Inference."""
    texts, score = request.to_score(), (lambda raw: raw) if request.raw_scores else _sigmoid
    return [
        {"index": index, "score": score(made.scores[index])}
        | ({"text": texts[index]} if request.return_text else {})
        for index in best[: request.top_n]
    ]


def _sigmoid(score: float) -> float:
    """Return a score between 0 and 1, in the same order."""
    return 0.5 * (1.0 + math.tanh(score / 2.0))
