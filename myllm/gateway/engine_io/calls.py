"""The calls that an engine understands, one function each."""

from __future__ import annotations

import base64
import re
from array import array
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import orjson

from myllm.errors import InvalidRequest
from myllm.gateway.engine_io import transport
from myllm.gateway.engine_io.sse import events_in
from myllm.gateway.engine_io.token_list import Tokens, read_tokens
from myllm.supervisor.instance import Instance
from myllm.threads import in_thread_if

# The engine's words for an input larger than its batch. Only the engine knows how it joins two
# texts, so the limit cannot be checked here.
_TOO_LONG = re.compile(r"input \((\d+) tokens\) is too large")
# A state may have some gigabytes, on a slow disk.
_STATE_S = 60.0
# Reading an answer of no more bytes takes a millisecond or two.
_AT_ONCE = 2**17


async def apply_template(instance: Instance, body: dict[str, Any]) -> str:
    """Return the prompt that the model's chat template makes of a chat's `body`.

    A template sees the `messages`, the `tools` and some other fields. A last message of role
    assistant is left open, to be continued. Raises InvalidRequest with the template's own words
    when it refuses these messages.
    """
    answer = await transport.request(instance, "/apply-template", body)
    if answer.status != 200:
        text = transport.error_text(answer)
        raise InvalidRequest(f"The chat template refused these messages: {text}")
    return str((await _parsed(answer.body))["prompt"])


async def _parsed(answer: bytes) -> Any:
    return await in_thread_if(len(answer) > _AT_ONCE, orjson.loads, answer)


async def check_tools(instance: Instance) -> None:
    """Raise InvalidRequest if the model's chat template has no place for tools.

    The engine would leave the tools out without an error. Each engine is queried once.
    """
    if instance.takes_tools is None:
        props = orjson.loads(await transport.fetch(instance, "/props"))
        instance.takes_tools = bool(props["chat_template_caps"]["supports_tools"])
    if not instance.takes_tools:
        raise InvalidRequest(
            f"Model '{instance.spec.key.model}' cannot call tools: its chat template has no place "
            "for them"
        )


async def tokenize(
    instance: Instance, text: str | Sequence[int | str], most: int, add_special: bool = True
) -> Tokens:
    """Return the tokens of `text`, but at most the first `most`, and how many there are.

    Special tokens are recognised in it. Some of it may be tokens already.

    `add_special` adds the tokens with which the model's prompts start.
    """
    body = {"content": text, "add_special": add_special, "parse_special": True}
    return await read_tokens(await transport.fetch(instance, "/tokenize", body), most)


async def spellings(
    instance: Instance, content: str | list[int], parse_special: bool = False
) -> list[tuple[int, bytes]]:
    """Return each token of a text, or each of these tokens, with the bytes that it spells.

    The text gets no prefix but the one that its tokenizer puts before every text. With
    `parse_special`, special tokens are recognised as in a rendered prompt.
    """
    body = {"content": content, "parse_special": parse_special, "with_pieces": True}
    answer = await transport.fetch(instance, "/tokenize", body)
    return await in_thread_if(len(answer) > _AT_ONCE, _spellings, answer)


def _spellings(answer: bytes) -> list[tuple[int, bytes]]:
    # The engine sends a piece that is not a whole character as a list of its bytes.
    return [
        (token["id"], piece.encode() if isinstance(piece := token["piece"], str) else bytes(piece))
        for token in orjson.loads(answer)["tokens"]
    ]


async def count_chat(instance: Instance, body: dict[str, Any]) -> int:
    """Return how many tokens the prompt of a chat's `body` has, pictures included."""
    answer = await transport.fetch(instance, "/v1/chat/completions/input_tokens", body)
    return int(orjson.loads(answer)["input_tokens"])


async def complete(
    instance: Instance, body: dict[str, Any]
) -> AsyncGenerator[list[dict[str, Any]], None]:
    """Yield the events of one `/completion` stream, as many at once as have arrived.

    Leaving the iteration closes the connection.
    """
    async with aclosing(transport.stream(instance, "/completion", body)) as blocks:
        async for block in blocks:
            yield list(events_in(block))


async def embed(
    instance: Instance, inputs: Sequence[str | list[int]]
) -> tuple[list[list[float]], int]:
    """Return one vector per input, which is a text or its tokens, and how many tokens were read.

    Raises InvalidRequest when an input is too long.
    """
    # Base64 is a quarter of the bytes of decimal numbers, to be written here and parsed there.
    body = {"input": inputs, "encoding_format": "base64"}
    answer = await transport.request(instance, "/v1/embeddings", body)
    if answer.status != 200 and (too_long := _TOO_LONG.search(transport.error_text(answer))):
        raise InvalidRequest(
            f"Input too long for embeddings ({instance.spec.context_size} tokens): "
            f"{too_long[1]} tokens"
        )
    transport.raise_for(instance, answer)
    return await in_thread_if(len(answer.body) > _AT_ONCE, _vectors, answer.body)


def _vectors(answer: bytes) -> tuple[list[list[float]], int]:
    content = orjson.loads(answer)
    data = sorted(content["data"], key=lambda item: item["index"])
    return [_vector(item["embedding"]) for item in data], content["usage"]["prompt_tokens"]


def _vector(encoded: str) -> list[float]:
    """Decode the engine's 32-bit numbers; it runs on a machine with the same byte order."""
    return array("f", base64.b64decode(encoded)).tolist()


async def rerank(
    instance: Instance, query: str, documents: Sequence[str]
) -> tuple[list[float], int]:
    """Return one score per document, and how many tokens were read.

    Raises InvalidRequest when the query and a document together are too long.
    """
    body = {"query": query, "documents": documents}
    answer = await transport.request(instance, "/rerank", body)
    if answer.status != 200 and (too_long := _TOO_LONG.search(transport.error_text(answer))):
        raise InvalidRequest(
            f"Query and document too long for reranking ({instance.spec.context_size} tokens): "
            f"{too_long[1]} tokens"
        )
    transport.raise_for(instance, answer)
    content = orjson.loads(answer.body)
    scored = sorted(content["results"], key=lambda result: result["index"])
    return [result["relevance_score"] for result in scored], content["usage"]["prompt_tokens"]


async def save_slot(instance: Instance, slot: int, file_name: str) -> int:
    """Save an idle slot to a file in the engine's folder of states; return its token count."""
    answer = await _slot_action(instance, slot, "save", file_name)
    return int(answer["n_saved"])


async def restore_slot(instance: Instance, slot: int, file_name: str) -> int:
    """Restore an idle slot from a file; return how many tokens it holds then.

    Raises InvalidRequest when the engine cannot use the file.
    """
    answer = await _slot_action(instance, slot, "restore", file_name)
    return int(answer["n_restored"])


async def erase_slot(instance: Instance, slot: int) -> None:
    """Erase what an idle slot holds."""
    await _slot_action(instance, slot, "erase")


async def _slot_action(
    instance: Instance, slot: int, action: str, file_name: str | None = None
) -> dict[str, Any]:
    body = {} if file_name is None else {"filename": file_name}
    path = f"/slots/{slot}?action={action}"
    result: dict[str, Any] = orjson.loads(await transport.fetch(instance, path, body, _STATE_S))
    return result
