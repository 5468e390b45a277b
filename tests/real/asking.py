"""Questions to SmolLM2 whose answers at temperature 0 do not hang on the last bits.

At each of their tokens the likeliest one is well ahead of the next, so it makes no difference
whether a prompt was read in one batch, in two, or taken from the cache.
"""

from __future__ import annotations

from typing import Any

import httpx

from tests.api.events import post
from tests.real_models import SMOLLM2

QUESTIONS = (
    "List the first ten even numbers.",
    "Name the planets of the solar system in order from the sun.",
    "List the days of the week, in order.",
)
BEGINNING = "Monday, Tuesday, Wednesday,"
MAX_TOKENS = 28
# On a machine that does other things too, the threads of an engine wait for each other.
ONE_THREAD = {"threads": 1}
GREEDY = {"temperature": 0, "repeat_penalty": 1.0}


def asked(question: str) -> list[dict[str, str]]:
    """A conversation that begins."""
    return [{"role": "user", "content": question}]


def chat(api: httpx.Client, text: str, tokens: int = MAX_TOKENS, **fields: Any) -> dict[str, Any]:
    """The whole answer of `/api/chat` at temperature 0."""
    options = GREEDY | {"max_tokens": tokens}
    body = {"model": SMOLLM2, "messages": asked(text), "options": options, "stream": False}
    answer: dict[str, Any] = post(api, "/api/chat", **(body | fields))
    return answer
