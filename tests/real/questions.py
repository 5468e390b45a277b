"""Questions to SmolLM2 whose answers at temperature 0 do not depend on rounding errors.

At each token the likeliest choice is far ahead of the next, so the answer is the same whether the
engine reads the prompt in one batch or in two, or takes it from the cache.
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
# On a busy machine, the threads of an engine wait for each other.
ONE_THREAD = {"threads": 1}
GREEDY = {"temperature": 0, "repeat_penalty": 1.0}


def conversation(question: str) -> list[dict[str, str]]:
    """The messages of a new conversation."""
    return [{"role": "user", "content": question}]


def chat(api: httpx.Client, text: str, tokens: int = MAX_TOKENS, **fields: Any) -> dict[str, Any]:
    """The whole answer of `/api/chat` at temperature 0."""
    options = GREEDY | {"max_tokens": tokens}
    body = {"model": SMOLLM2, "messages": conversation(text), "options": options, "stream": False}
    answer: dict[str, Any] = post(api, "/api/chat", **(body | fields))
    return answer
