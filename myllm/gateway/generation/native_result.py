"""Answers in llama.cpp's own form: whole ones, and several of them as a list or in one stream.

A whole answer is the last event, with the content of all before it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from myllm.errors import EngineError
from myllm.gateway.batches import each_in_turn
from myllm.gateway.engine_io.sse import event, events_in
from myllm.gateway.generation.multi_choice import AT_ONCE, interleaved
from myllm.gateway.generation.relay import Relay

# Lists of which each event of a stream has its own part.
_LISTS = ("tokens", "completion_probabilities")


async def plain_whole(relay: Relay, tells_tokens: bool) -> dict[str, Any]:
    """Run `relay` to its end and return the answer as one event.

    Streams always have their tokens; a whole answer has them if `tells_tokens`.
    """
    text: list[str] = []
    parts: dict[str, list[Any]] = {}
    last: dict[str, Any] = {}
    async with aclosing(relay.blocks()) as blocks:
        async for block in blocks:
            for last in events_in(block):
                text.append(last.get("content") or "")
                for name in _LISTS:
                    parts.setdefault(name, []).extend(last.get(name) or ())
    if not last.get("stop"):
        raise EngineError("The engine ended the answer without finishing it")
    whole = {name: part for name, part in parts.items() if part or name in last}
    if not tells_tokens:
        whole["tokens"] = []
    return last | {"content": "".join(text)} | whole


async def plain_list(relays: Sequence[Relay], tells_tokens: bool) -> list[dict[str, Any]]:
    """Run several answers to their ends, a few at a time, and return them with their indexes."""

    async def one(relay: Relay, goes_on: bool) -> dict[str, Any]:
        relay.goes_on(goes_on)
        return await plain_whole(relay, tells_tokens)

    if len(relays) == 1:
        return [await plain_whole(relays[0], tells_tokens)]
    answers = await each_in_turn(relays, one, AT_ONCE)
    return [answer | {"index": index} for index, answer in enumerate(answers)]


async def plain_blocks(relays: Sequence[Relay]) -> AsyncGenerator[bytes, None]:
    """Yield the events of several answers as they come, with the index of the answer in each."""
    async with aclosing(interleaved(relays)) as blocks:
        async for index, block in blocks:
            yield b"".join(event(each | {"index": index}) for each in events_in(block))


def picked(answer: dict[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """Return only these fields; one like `timings/prompt_n`, of an object, keeps that name."""
    made = {}
    for path in fields:
        value: Any = answer
        for name in path.split("/"):
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            made[path] = value
    return made
