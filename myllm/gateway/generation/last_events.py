"""Reads the end of an engine's stream that was passed on unread: why it ended, and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from myllm.gateway.engine_io.sse import events_in
from myllm.gateway.generation.deltas import Form, delta_of
from myllm.gateway.usage import Usage, plain_usage, timed_usage, usage_of


class End(NamedTuple):
    """The end of an answer; `timings` are the engine's own."""

    usage: Usage
    finish_reason: str | None
    timings: dict[str, Any] | None


def read_end(form: Form, blocks: Sequence[bytes]) -> End:
    """Read as many of the last `blocks` of a stream as have its end; that is rarely more than two.

    Raises EngineError for what is not JSON.
    """
    last: list[dict[str, Any]] = []
    reason: str | None = None
    for block in reversed(blocks):
        events = list(events_in(block))
        last = events + last if last else events
        for each in events:
            reason = _reason(form, each) or reason
        if reason is not None:
            break
    usage = timings = None
    for each in last:
        usage, timings = each.get("usage") or usage, each.get("timings") or timings
    if form == "plain" and reason is not None:
        return End(plain_usage(last[-1]), reason, timings)
    counts = usage_of(usage) if usage else timed_usage(timings or {})
    return End(counts, reason, timings)


def _reason(form: Form, each: dict[str, Any]) -> str | None:
    if form == "plain":
        return delta_of(form, each).finish_reason
    # Most of a delta would be made for nothing.
    choices = each.get("choices")
    return choices[0].get("finish_reason") if choices else None
