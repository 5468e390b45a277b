"""Scores of how well documents answer a query, computed by a reranking model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from myllm.gateway.batches import batches, each_in_turn
from myllm.gateway.engine_io import calls
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.model_lookup import model_for
from myllm.gateway.retries import require_same_model, with_retries
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.gateway.usage import Usage
from myllm.supervisor.spec import InstanceKey


@dataclass(frozen=True)
class Scores:
    """A score per document, in order, and the tokens of all pairs of query and document."""

    scores: list[float]
    prompt_tokens: int


async def rerank(
    gateway: Gateway, request: RequestInfo, model_name: str, query: str, documents: Sequence[str]
) -> Scores:
    """Score each of `documents`; they wait their turn in batches.

    Raises ModelNotFound, and InvalidRequest when the model is not a reranker, or when a document
    and the query are together longer than the model can take, with both numbers.
    """
    model = await model_for(gateway, model_name, "rerank")
    begun_by: str | None = None

    async def batch(part: tuple[int, Sequence[str]], goes_on: bool) -> Scores:
        asked = {"query": query, "documents": part[1]}
        whole = {"query": query, "documents": documents}
        demand = Demand("/v1/rerank", asked, whole=whole)
        ticket = request.ticket(InstanceKey(model.name, "rerank"), demand)
        ticket.goes_on = goes_on

        async def work(lease: Lease) -> Scores:
            nonlocal begun_by
            require_same_model(begun_by, lease.instance)
            made = Scores(*await calls.rerank(lease.instance, query, part[1]))
            begun_by = lease.instance.spec.model.digest
            ticket.usage = Usage(made.prompt_tokens)
            return made

        return await with_retries(gateway, ticket, work)

    def size(document: str) -> int:
        return len(query) + len(document)

    made = await each_in_turn(list(batches(documents, size)), batch)
    scores = [score for each in made for score in each.scores]
    return Scores(scores, sum(each.prompt_tokens for each in made))
