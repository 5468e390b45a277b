"""Calls in the form that they had before there were tools: a `function_call` in a message."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from myllm.gateway.engine_io.sse import LAST, event, events_in

_CALLED = b'"tool_calls"'


class Source(Protocol):
    """A streamed answer in OpenAI's form."""

    @property
    def phase(self) -> str:
        """What it is doing or waiting for, in few words."""
        ...

    def blocks(self) -> AsyncGenerator[bytes, None]:
        """Yield blocks of whole events."""
        ...


class FunctionCalls:
    """A streamed answer whose calls are in the old form."""

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def phase(self) -> str:
        """What it is doing or waiting for, in few words."""
        return self._source.phase

    async def blocks(self) -> AsyncGenerator[bytes, None]:
        """Yield blocks of whole events."""
        async with aclosing(self._source.blocks()) as blocks:
            async for block in blocks:
                yield _rewritten(block) if _CALLED in block else block


def _rewritten(block: bytes) -> bytes:
    events = []
    for each in events_in(block):
        choices = [in_old_form(choice, "delta") for choice in each.get("choices", ())]
        events.append(event(each | {"choices": choices}))
    return b"".join(events) + (LAST if block.endswith(LAST) else b"")


def in_old_form(choice: dict[str, Any], holder: str) -> dict[str, Any]:
    """Return `choice`, in whose `holder` (its message or delta) calls are in the old form.

    That has one call at most, the first.
    """
    said = dict(choice.get(holder) or {})
    calls = [call for call in said.pop("tool_calls", ()) if call.get("index", 0) == 0]
    if calls:
        said["function_call"] = calls[0]["function"]
    made = choice | {holder: said}
    if choice.get("finish_reason") == "tool_calls":
        made["finish_reason"] = "function_call"
    return made
