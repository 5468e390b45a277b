"""Combines several answers to one request: for more than one choice or prompt.

llama-server could generate several choices itself, but counts only the tokens of the first. So each
is a request of its own, which queues and survives its engine by itself. Only a few of them are
under way at a time, so that they do not fill the queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

from myllm.gateway.batches import each_in_turn
from myllm.gateway.engine_io.sse import LAST, event, events_in
from myllm.gateway.generation.deltas import StreamedAnswer
from myllm.gateway.generation.relay import Relay

AT_ONCE: Final = 8


async def whole(relay: Relay) -> StreamedAnswer:
    """Run one answer to its end and return it."""
    answer = StreamedAnswer(relay.form)
    async with aclosing(relay.blocks()) as blocks:
        async for block in blocks:
            answer.take(events_in(block))
    return answer


async def all_whole(relays: Sequence[Relay]) -> list[StreamedAnswer]:
    """Run several answers to their ends, at the same time if there are slots."""
    if len(relays) == 1:
        return [await whole(relays[0])]

    async def one(relay: Relay, goes_on: bool) -> StreamedAnswer:
        relay.goes_on(goes_on)
        return await whole(relay)

    return await each_in_turn(relays, one, AT_ONCE)


def sum_usage(usages: Sequence[dict[str, Any] | None], choices: int) -> dict[str, Any]:
    """Return the token counts of all answers; a prompt counts once for all its `choices`."""
    counts = [usage or {} for usage in usages]
    prompts = counts[::choices]
    prompt = sum(usage.get("prompt_tokens", 0) for usage in prompts)
    completion = sum(usage.get("completion_tokens", 0) for usage in counts)
    details = [usage.get("prompt_tokens_details") or {} for usage in prompts]
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": sum(detail.get("cached_tokens", 0) for detail in details)
        },
    }


async def interleaved(relays: Sequence[Relay]) -> AsyncGenerator[tuple[int, bytes], None]:
    """Yield the blocks of all relays as they come, each with the index of its relay.

    Raises the error of the first relay that fails.
    """
    async with AsyncExitStack() as stack:
        streams: list[AsyncGenerator[bytes, None]] = []
        coming: dict[asyncio.Task[bytes | None], int] = {}

        async def begin_next() -> None:
            index = len(streams)
            if index < len(relays):
                relays[index].goes_on(index > 0)
                streams.append(await stack.enter_async_context(aclosing(relays[index].blocks())))
                coming[asyncio.create_task(_next(streams[index]))] = index

        try:
            for _ in range(AT_ONCE):
                await begin_next()
            while coming:
                done, _ = await asyncio.wait(coming, return_when="FIRST_COMPLETED")
                for task in done:
                    index, block = coming.pop(task), task.result()
                    if block is None:
                        await begin_next()
                        continue
                    coming[asyncio.create_task(_next(streams[index]))] = index
                    yield index, block
        finally:
            await _end(coming)


class FanOut:
    """Merges the streams of several relays into one, with a choice for each.

    `choices` of them answer the same prompt. The relays must send their usage; the sum is passed on
    if `tells_usage`.
    """

    def __init__(self, relays: Sequence[Relay], choices: int, tells_usage: bool) -> None:
        self._relays = relays
        self._choices = choices
        self._tells_usage = tells_usage
        self._usages: list[dict[str, Any] | None] = [None] * len(relays)
        self._head: dict[str, Any] = {}

    @property
    def phase(self) -> str:
        """What the first relay is doing or waiting for."""
        return self._relays[0].phase

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Yield whole events; raises the error of the first relay that fails."""
        async with aclosing(interleaved(self._relays)) as blocks:
            async for index, block in blocks:
                yield b"".join(self._as_choice(index, each) for each in events_in(block))
        if self._tells_usage:
            usage = sum_usage(self._usages, self._choices)
            yield event({"choices": [], **self._head, "usage": usage})
        yield LAST

    def _as_choice(self, index: int, each: dict[str, Any]) -> bytes:
        """Encode an event as one of choice `index`; all events have the first one's id."""
        if not self._head:
            self._head = {name: each[name] for name in ("id", "object", "created", "model")}
        self._usages[index] = each.get("usage") or self._usages[index]
        if not each.get("choices"):
            return b""
        choice = each["choices"][0] | {"index": index}
        return event(each | self._head | {"choices": [choice]})


async def _next(stream: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(stream, None)


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel `tasks`, and return when their cleanup has run."""
    running = list(tasks)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
