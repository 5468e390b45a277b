"""Completions of texts that the engine does not answer in OpenAI's form by itself: those that begin
with their prompt, and those between two texts.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Final

from myllm.gateway.engine_io.sse import LAST, event, events_in
from myllm.gateway.gateway import Gateway
from myllm.gateway.generation.deltas import Delta, delta_of
from myllm.gateway.generation.relay import Relay
from myllm.gateway.generation.wire_deltas import openai_usage, with_delta
from myllm.gateway.scheduling.tickets import Ticket
from myllm.gateway.usage import plain_usage

INFILL: Final = "/infill"


class EchoingRelay(Relay):
    """The completion of a text, with that text at its beginning."""

    def __init__(self, gateway: Gateway, ticket: Ticket, path: str, body: dict[str, Any]) -> None:
        super().__init__(gateway, ticket, path, body)
        self._prompt = str(body["prompt"])

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Blocks of whole events, as `Relay.blocks` yields them."""
        begun = False
        async with aclosing(super().blocks()) as blocks:
            async for block in blocks:
                if not begun:
                    begun, block = True, self._echoed(block)
                yield block

    def _echoed(self, block: bytes) -> bytes:
        first, *rest = events_in(block)
        text = self._prompt + delta_of(self.form, first).text
        events = [with_delta(self.form, first, Delta(text=text)), *rest]
        return b"".join(map(event, events)) + (LAST if block.endswith(LAST) else b"")


class InfillRelay(Relay):
    """The text between two others, which the engine fills in, as a completion in OpenAI's form.

    `tells_usage` adds an event with the token counts at the end. A model without tokens for this
    task is an InvalidRequest.
    """

    def __init__(
        self, gateway: Gateway, ticket: Ticket, body: dict[str, Any], tells_usage: bool
    ) -> None:
        super().__init__(gateway, ticket, INFILL, body)
        self.form = "text"
        self._tells_usage = tells_usage
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": ticket.key.model,
        }

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Blocks of whole events, as `Relay.blocks` yields them."""
        async with aclosing(super().blocks()) as blocks:
            async for block in blocks:
                yield b"".join(each for plain in events_in(block) for each in self._events(plain))

    def _events(self, plain: dict[str, Any]) -> Iterator[bytes]:
        delta = delta_of("plain", plain)
        choice = {"index": 0, "text": delta.text, "logprobs": None}
        timings = {"timings": delta.timings} if delta.timings else {}
        told = {"choices": [choice | {"finish_reason": delta.finish_reason}], **self._head}
        yield event(told | timings)
        if delta.finish_reason is None:
            return
        if self._tells_usage:
            yield event({"choices": [], **self._head, "usage": openai_usage(plain_usage(plain))})
        yield LAST
