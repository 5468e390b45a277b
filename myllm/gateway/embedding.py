"""Vectors for texts, made by an instance of the model in the role of embedder.

A generating engine could do both, but embeddings would wipe its conversations' caches and
limit an input to its batch; so the same file is loaded a second time, on demand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from myllm.errors import InvalidRequest
from myllm.gateway import upstream
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.resume import retried
from myllm.gateway.tickets import Asking
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey


@dataclass(frozen=True)
class Embeddings:
    """One vector per input, in order, and the tokens of all inputs."""

    vectors: list[list[float]]
    prompt_tokens: int


async def embed(
    gateway: Gateway, asking: Asking, model_name: str, inputs: Sequence[str]
) -> Embeddings:
    """Embed each of `inputs`.

    Raises ModelNotFound, and InvalidRequest when one is longer than the model can take, with
    both numbers.
    """
    model = gateway.registry.get(model_name)
    ticket = asking.ticket(InstanceKey(model.name, "embed"))

    async def work(lease: Lease) -> Embeddings:
        return await _embed(lease.instance, inputs)

    return await retried(gateway, ticket, work)


async def _embed(instance: Instance, inputs: Sequence[str]) -> Embeddings:
    limit = instance.spec.context_size
    tokenized: list[list[int]] = []
    for index, text in enumerate(inputs):
        tokens = await upstream.tokenize(instance, text)
        if len(tokens) > limit:
            which = "Input" if len(inputs) == 1 else f"Input {index}"
            raise InvalidRequest(
                f"{which} too long for embeddings ({limit} tokens): {len(tokens)} tokens"
            )
        tokenized.append(tokens)
    vectors = await upstream.embed(instance, tokenized)
    return Embeddings(vectors, sum(len(tokens) for tokens in tokenized))
