"""How many tokens an answer took, and where an engine says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Usage:
    """The engine's token counts; `cached_tokens` are part of `prompt_tokens`.

    `reasoning_tokens` are those of the completion that the model thought: as many as the engine
    sent pieces of thinking. It sends one for each token, except for those that mark the thinking's
    beginning and end.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def as_dict(self) -> dict[str, int]:
        """Return the counts in our own wire form."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "cached_tokens": self.cached_tokens,
        }


def usage_of(usage: Mapping[str, Any]) -> Usage:
    """Convert the token counts in OpenAI's form."""
    details = usage.get("prompt_tokens_details") or {}
    return Usage(
        usage.get("prompt_tokens", 0),
        usage.get("completion_tokens", 0),
        details.get("cached_tokens", 0),
    )


def timed_usage(timings: Mapping[str, Any]) -> Usage:
    """Return the token counts in an engine's timings, which every answer ends with.

    They say how many tokens of the prompt were read and how many were in the slot already.
    """
    cached = max(0, timings.get("cache_n", 0))
    return Usage(cached + timings.get("prompt_n", 0), timings.get("predicted_n", 0), cached)


def plain_usage(last: Mapping[str, Any]) -> Usage:
    """Return the token counts in the last event of an answer in llama.cpp's own form."""
    cached = max(0, (last.get("timings") or {}).get("cache_n", 0))
    return Usage(last["tokens_evaluated"], last["tokens_predicted"], cached)
