"""Talking to one engine: requests, its event stream, and its errors in our words.

No header of a client is forwarded: one of them would keep a generation alive after its
client has left.
"""

from __future__ import annotations

import asyncio
import base64
import re
from array import array
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import httpx
import orjson

from myllm.errors import EngineError, InvalidRequest, MyLLMError, PromptTooLong, Unavailable
from myllm.gateway.engine_io.sse import Framing, events_in, split_at_error
from myllm.supervisor.engine_client import EngineAnswer
from myllm.supervisor.instance import Instance

# A hanging engine is found by the supervisor long before; this bounds the wait for one that
# works without end.
_SILENCE_S = 600.0
_DEATH_NOTICE_S = 2.0
# What a killed process may take to be gone; the kernel can hold it in a device's driver.
_KILL_S = 15.0
# The second one: this model cannot do that.
_REFUSALS = (400, 501)
# The engine's words for an input that is over its batch; only it knows how it joins two texts.
_TOO_LONG = re.compile(r"input \((\d+) tokens\) is too large")
# A state may be some gigabytes on a slow disk.
_STATE_S = 60.0


async def apply_template(instance: Instance, body: dict[str, Any]) -> str:
    """The prompt that the model's chat template makes of a chat's `body`: its `messages`, and
    `tools` and what else a template looks at.

    A last message of role assistant is left open, to be continued. Raises InvalidRequest with
    the template's own words when it refuses these messages.
    """
    answer = await _request(instance, "/apply-template", body)
    if answer.status != 200:
        raise InvalidRequest(f"The chat template refused these messages: {_message(answer)}")
    return str(orjson.loads(answer.body)["prompt"])


async def check_tools(instance: Instance) -> None:
    """Raise InvalidRequest when the model's chat template has no place for tools: the engine
    would leave them out and say nothing. Each engine is asked once."""
    if instance.takes_tools is None:
        told = orjson.loads(await ask(instance, "/props"))
        instance.takes_tools = bool(told["chat_template_caps"]["supports_tools"])
    if not instance.takes_tools:
        raise InvalidRequest(
            f"Model '{instance.spec.key.model}' cannot call tools: its chat template has no place "
            "for them"
        )


async def tokenize(instance: Instance, text: str, add_special: bool = True) -> list[int]:
    """The tokens of `text`, special ones recognised; `add_special`: with those that the model
    starts with."""
    body = {"content": text, "add_special": add_special, "parse_special": True}
    tokens: list[int] = orjson.loads(await ask(instance, "/tokenize", body))["tokens"]
    return tokens


async def count_chat(instance: Instance, body: dict[str, Any]) -> int:
    """The tokens of the prompt that a chat's `body` makes, pictures included."""
    told = await ask(instance, "/v1/chat/completions/input_tokens", body)
    return int(orjson.loads(told)["input_tokens"])


async def embed(
    instance: Instance, inputs: Sequence[str | list[int]]
) -> tuple[list[list[float]], int]:
    """One vector per input, a text or its tokens, and the tokens that were read.

    Raises InvalidRequest when an input is too long.
    """
    # A quarter of the bytes that numbers in decimals are, on both sides.
    body = {"input": inputs, "encoding_format": "base64"}
    answer = await _request(instance, "/v1/embeddings", body)
    if too_long := _TOO_LONG.search(_message(answer)) if answer.status != 200 else None:
        raise InvalidRequest(
            f"Input too long for embeddings ({instance.spec.context_size} tokens): "
            f"{too_long[1]} tokens"
        )
    _raise_for(answer)
    told = orjson.loads(answer.body)
    data = sorted(told["data"], key=lambda item: item["index"])
    return [_vector(item["embedding"]) for item in data], told["usage"]["prompt_tokens"]


def _vector(encoded: str) -> list[float]:
    """The 32-bit numbers of the engine, which runs on a machine with the same order of bytes."""
    return array("f", base64.b64decode(encoded)).tolist()


async def rerank(
    instance: Instance, query: str, documents: Sequence[str]
) -> tuple[list[float], int]:
    """A score per document, and the tokens that were read.

    Raises InvalidRequest when a document is too long, together with the query.
    """
    answer = await _request(instance, "/rerank", {"query": query, "documents": documents})
    if too_long := _TOO_LONG.search(_message(answer)) if answer.status != 200 else None:
        raise InvalidRequest(
            f"Query and document too long for reranking ({instance.spec.context_size} tokens): "
            f"{too_long[1]} tokens"
        )
    _raise_for(answer)
    body = orjson.loads(answer.body)
    scored = sorted(body["results"], key=lambda result: result["index"])
    return [result["relevance_score"] for result in scored], body["usage"]["prompt_tokens"]


async def ask(
    instance: Instance, path: str, body: dict[str, Any] | None = None, timeout_s: float = _SILENCE_S
) -> bytes:
    """The body of the engine's answer to a GET, or to a POST of `body`; its errors are raised."""
    answer = await _request(instance, path, body, timeout_s)
    _raise_for(answer)
    return answer.body


async def complete(
    instance: Instance, body: dict[str, Any]
) -> AsyncGenerator[list[dict[str, Any]], None]:
    """The events of one `/completion` stream, as many at once as have come; leaving the iteration
    closes the connection."""
    async with aclosing(pass_on(instance, "/completion", body)) as blocks:
        async for block in blocks:
            yield list(events_in(block))


async def pass_on(
    instance: Instance, path: str, body: dict[str, Any]
) -> AsyncGenerator[bytes, None]:
    """The event stream that the engine answers to `body`, in blocks of one or more whole events.

    Always a stream, also when the client wants one answer: the engine notices only on a
    stream at once that nobody listens any more. Without the engine's pings, which come also when
    it gets nowhere, so that all that comes is a sign of life. Leaving the iteration closes the
    connection. The end of the iteration is the end of the answer. An error of the engine is
    raised, also one that comes as an event, and so is EngineError for what is no stream of events.
    """
    try:
        content = _json(body | {"stream": True, "sse_ping_interval": -1})
        async with instance.client.stream(path, content, _SILENCE_S) as answer:
            if answer.status != 200:
                body_parts = [part async for part in answer.chunks]
                _raise_for(EngineAnswer(answer.status, b"".join(body_parts)))
            framing = Framing()
            async for chunk in answer.chunks:
                block = framing.whole(chunk)
                if not block:
                    continue
                instance.sign_of_life()
                block, error = split_at_error(block)
                if block:
                    yield block
                if error is not None:
                    raise _translate(500, error)
            if framing.is_open():
                raise EngineError("The engine ended its answer in the middle of an event")
    except httpx.TransportError as failure:
        raise await _lost(instance, failure) from failure


async def _request(
    instance: Instance, path: str, body: dict[str, Any] | None, timeout_s: float = _SILENCE_S
) -> EngineAnswer:
    """The answer to a POST of `body`, or to a GET when there is none."""
    try:
        if body is None:
            return await instance.client.get(path, timeout_s)
        return await instance.client.post(path, _json(body), timeout_s)
    except httpx.TransportError as failure:
        raise await _lost(instance, failure) from failure


async def spellings(
    instance: Instance, content: str | list[int], parse_special: bool = False
) -> list[tuple[int, bytes]]:
    """Each token of a text, or each of these tokens, with the bytes that it spells.

    Nothing is put before the text but what its tokenizer puts before every one.
    `parse_special`: special tokens are recognised, as in a rendered prompt.
    """
    body = {"content": content, "parse_special": parse_special, "with_pieces": True}
    tokens = orjson.loads(await ask(instance, "/tokenize", body))["tokens"]
    # A piece that is no whole character comes as a list of its bytes.
    return [
        (token["id"], piece.encode() if isinstance(piece := token["piece"], str) else bytes(piece))
        for token in tokens
    ]


async def save_slot(instance: Instance, slot: int, file_name: str) -> int:
    """Write what an idle slot remembers into a file of the engine's folder of states; returns
    how many tokens these are."""
    answer = await _slot_action(instance, slot, "save", file_name)
    return int(answer["n_saved"])


async def restore_slot(instance: Instance, slot: int, file_name: str) -> int:
    """Let an idle slot remember what is in a file; returns how many tokens these are.

    Raises InvalidRequest when the engine cannot use the file.
    """
    answer = await _slot_action(instance, slot, "restore", file_name)
    return int(answer["n_restored"])


async def erase_slot(instance: Instance, slot: int) -> None:
    """Let an idle slot forget everything."""
    await _slot_action(instance, slot, "erase")


async def _slot_action(
    instance: Instance, slot: int, action: str, file_name: str | None = None
) -> dict[str, Any]:
    body = {} if file_name is None else {"filename": file_name}
    told = await ask(instance, f"/slots/{slot}?action={action}", body, _STATE_S)
    done: dict[str, Any] = orjson.loads(told)
    return done


def _json(body: dict[str, Any]) -> bytes:
    """Raises InvalidRequest for half of a character, which a client can write but UTF-8 cannot."""
    try:
        return orjson.dumps(body)
    except TypeError as failure:
        raise InvalidRequest(f"The request cannot be passed on: {failure}") from None


def _raise_for(answer: EngineAnswer) -> None:
    """Raise what an error answer means."""
    if answer.status == 200:
        return
    try:
        error = orjson.loads(answer.body)["error"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise EngineError(f"The engine answered with status {answer.status}") from None
    raise _translate(answer.status, error)


def _translate(status: int, error: dict[str, Any]) -> MyLLMError:
    message = str(error.get("message", "no reason given"))
    if error.get("type") == "exceed_context_size_error":
        return PromptTooLong(int(error["n_prompt_tokens"]), int(error["n_ctx"]))
    if error.get("code", status) in _REFUSALS:
        return InvalidRequest(f"The engine refused the request: {message}")
    return EngineError(f"The engine failed: {message}")


def _message(answer: EngineAnswer) -> str:
    """The engine's own words in an error answer."""
    try:
        return str(orjson.loads(answer.body)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"status {answer.status}"


async def _lost(instance: Instance, failure: httpx.TransportError) -> MyLLMError:
    """Why the connection broke: usually the engine died, and will have said why in a moment.

    One that lives on and yet breaks connections serves nobody, so it is ended. Of one that is
    only silent, the supervisor finds out whether it hangs.
    """
    if isinstance(failure, httpx.ReadTimeout) and not instance.is_over():
        return EngineError(f"The engine of model '{instance.spec.key}' is silent: {failure}")
    try:
        await asyncio.wait_for(instance.ended.wait(), _DEATH_NOTICE_S)
    except TimeoutError:
        instance.declare_dead("unreachable", f"broke a connection: {failure}")
        with suppress(TimeoutError):
            await asyncio.wait_for(instance.ended.wait(), _KILL_S)
    return instance.error or Unavailable(
        f"The engine of model '{instance.spec.key}' was stopped before the answer ended: the "
        "server is shutting down, or the model was unloaded by force"
    )
