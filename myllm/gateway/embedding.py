"""Embeddings of texts, computed by an instance of the model in the `embed` role.

A generating engine could compute them, too, but embeddings would wipe the KV caches of its
conversations, and an input could be no longer than its batch. So the same file is loaded a second
time, on demand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from myllm.errors import InvalidRequest
from myllm.gateway.batches import MAX_BYTES, batches, each_in_turn
from myllm.gateway.engine_io import calls
from myllm.gateway.engine_io.token_list import Tokens
from myllm.gateway.gateway import Gateway, Lease
from myllm.gateway.model_lookup import model_for
from myllm.gateway.retries import require_same_model, with_retries
from myllm.gateway.scheduling.demand import Demand
from myllm.gateway.scheduling.tickets import RequestInfo
from myllm.gateway.usage import Usage
from myllm.models.registry import Model
from myllm.supervisor.instance import Instance
from myllm.supervisor.spec import InstanceKey

Input = str | Sequence[int | str]
Inputs = Sequence[Input]
"""Texts, or lists of tokens and texts."""
# Every token stands for at least one byte, except those that a tokenizer adds at both ends.
_MAX_ADDED = 8
# With fewer tokens than any model takes.
_SAMPLE_CHARS = 8


@dataclass(frozen=True)
class Embeddings:
    """One vector per input, in order, and the tokens of all inputs."""

    vectors: list[list[float]]
    prompt_tokens: int


async def embed(
    gateway: Gateway,
    request: RequestInfo,
    model_name: str,
    inputs: Inputs,
    dimensions: int | None = None,
    *,
    cut: bool = False,
) -> Embeddings:
    """Embed each of `inputs`, texts or tokens, as vectors of `dimensions` numbers.

    They wait their turn in batches. With `cut`, a text that is too long is truncated.

    Raises ModelNotFound, and InvalidRequest when the model cannot embed, or not in so many
    dimensions, or when an input is longer than the model can take, with both numbers.
    """
    model = await model_for(gateway, model_name, "embed")
    begun_by: str | None = None

    async def batch(part: tuple[int, Inputs], goes_on: bool) -> Embeddings:
        first, some = part
        demand = Demand("/v1/embeddings", {"input": some}, whole={"input": inputs})
        ticket = request.ticket(InstanceKey(model.name, "embed"), demand)
        ticket.goes_on = goes_on
        names = [f"Input {first + n}" if len(inputs) > 1 else "Input" for n in range(len(some))]

        async def work(lease: Lease) -> Embeddings:
            nonlocal begun_by
            require_same_model(begun_by, lease.instance)
            fitting = await _fitting(lease.instance, some, names, cut)
            vectors, tokens = await calls.embed(lease.instance, fitting)
            begun_by = lease.instance.spec.model.digest
            ticket.usage = Usage(tokens)
            return Embeddings([_sized(model, each, dimensions) for each in vectors], tokens)

        return await with_retries(gateway, ticket, work)

    made = await each_in_turn(list(batches(inputs, _size)), batch)
    vectors = [vector for each in made for vector in each.vectors]
    return Embeddings(vectors, sum(each.prompt_tokens for each in made))


async def _fitting(
    instance: Instance, inputs: Inputs, names: Sequence[str], cut: bool
) -> list[str | list[int]]:
    """Return `inputs`, as tokens where they could be too long; InvalidRequest if they are."""
    limit, vocabulary = instance.spec.context_size, instance.spec.model.header.vocabulary_size
    fitting: list[str | list[int]] = []
    for which, given in zip(names, inputs, strict=True):
        if isinstance(given, str) and _bytes(given) + _MAX_ADDED <= limit:
            fitting.append(given)
            continue
        given_tokens = await _tokens(instance, given)
        count, tokens = given_tokens.count, given_tokens.ids
        if count > limit and cut and isinstance(given, str):
            tokens = await _truncated(instance, given, tokens)
        elif count > limit:
            raise InvalidRequest(
                f"{which} too long for embeddings ({limit} tokens): {count} tokens"
            )
        if vocabulary and max(tokens, default=0) >= vocabulary:
            raise InvalidRequest(
                f"{which} has token {max(tokens)}, but the model knows {vocabulary} tokens; "
                "send texts, or this model's own tokens"
            )
        fitting.append(tokens)
    return fitting


async def _tokens(instance: Instance, given: Input) -> Tokens:
    """Return the tokens of one input, but at most as many as the model can take."""
    most = instance.spec.context_size
    if isinstance(given, str) or any(isinstance(piece, str) for piece in given):
        return await calls.tokenize(instance, given, most)
    return Tokens(len(given), cast(list[int], given[:most]))


def _size(given: Input) -> int:
    """Return the size in bytes; a token has about four."""
    if isinstance(given, str):
        return _bytes(given)
    return sum(_bytes(piece) if isinstance(piece, str) else 4 for piece in given)


def _bytes(text: str) -> int:
    """Return the length in UTF-8, also of half a character, which is refused later; of a text that
    fills a batch, the length in characters, since encoding it takes long."""
    if text.isascii() or len(text) > MAX_BYTES:
        return len(text)
    return len(text.encode(errors="surrogatepass"))


async def _truncated(instance: Instance, text: str, tokens: list[int]) -> list[int]:
    """Return as many of the first tokens as fit, ending with the token that the model adds to every
    text: to its beginning, too."""
    beginning, most = text[:_SAMPLE_CHARS], instance.spec.context_size
    whole = (await calls.tokenize(instance, beginning, most)).ids
    bare = (await calls.tokenize(instance, beginning, most, add_special=False)).ids
    end = whole[-1:] if whole[-1:] != bare[-1:] else []
    return tokens[: most - len(end)] + end


def _sized(model: Model, vector: list[float], dimensions: int | None) -> list[float]:
    """Return `vector` with `dimensions` numbers; only a Matryoshka model allows fewer than all."""
    size = len(vector)
    if dimensions is None or dimensions == size:
        return vector
    if dimensions > size or not model.config.matryoshka:
        at_most = "at most" if model.config.matryoshka else "exactly"
        raise InvalidRequest(
            f"dimensions must be {at_most} {size} for model '{model.name}', not {dimensions}"
        )
    cut = vector[:dimensions]
    length = math.sqrt(math.fsum(value * value for value in cut)) or 1.0
    return [value / length for value in cut]
