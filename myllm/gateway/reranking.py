"""How well documents answer a query, scored by a model that was trained for nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from myllm.gateway import upstream
from myllm.gateway.demand import Demand
from myllm.gateway.embedding import AT_ONCE
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.resume import retried
from myllm.gateway.roles import model_for
from myllm.gateway.tickets import Asking
from myllm.supervisor.spec import InstanceKey


@dataclass(frozen=True)
class Scores:
    """A score per document, in their order; the tokens of all pairs of query and document."""

    scores: list[float]
    prompt_tokens: int


async def rerank(
    gateway: Gateway, asking: Asking, model_name: str, query: str, documents: Sequence[str]
) -> Scores:
    """Score each of `documents`.

    Raises ModelNotFound, and InvalidRequest when the model is no reranker, or when a document
    is longer, with the query, than the model can take, with both numbers.
    """
    model = model_for(gateway, model_name, "rerank")
    demand = Demand("/v1/rerank", {"query": query, "documents": documents})
    ticket = asking.ticket(InstanceKey(model.name, "rerank"), demand)

    async def work(lease: Lease) -> Scores:
        scores: list[float] = []
        tokens = 0
        for start in range(0, len(documents), AT_ONCE):
            some = documents[start : start + AT_ONCE]
            made, read = await upstream.rerank(lease.instance, query, some)
            scores += made
            tokens += read
        return Scores(scores, tokens)

    return await retried(gateway, ticket, work)
