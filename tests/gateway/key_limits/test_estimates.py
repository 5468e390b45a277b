"""Tokens of requests, estimated from their texts."""

from __future__ import annotations

from typing import Any

import pytest

from myllm.gateway.generation.sampling import UNBOUNDED
from myllm.gateway.key_limits.estimates import answer_tokens, prompt_tokens
from myllm.gateway.scheduling.demand import Demand
from myllm.sessions.history import Message

TEXT = "x" * 400
"""A text of about 100 tokens."""
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"prompt": TEXT}, 101),
        ({"prompt": "ж" * 200}, 101),
        ({"prompt": list(range(70))}, 70),
        ({"prompt": [TEXT, 5, 6]}, 103),
        ({"prompts": [{"prompt": TEXT}, {"prompt": [1, 2, 3]}]}, 104),
        ({"prompts": [{"prompt": {"prompt_string": TEXT, "multimodal_data": ["A" * 9999]}}]}, 101),
        ({"prompts": [{"input_prefix": TEXT, "input_suffix": TEXT, "prompt": ""}]}, 202),
        ({"input_extra": [{"text": TEXT, "filename": "a.py"}, {"text": TEXT}]}, 202),
        ({"messages": [{"role": "user", "content": TEXT}]}, 105),
        ({"messages": [{"role": "assistant", "content": None}]}, 4),
        ({"messages": [{"role": "user", "content": [PICTURE, {"text": TEXT}]}]}, 106),
        ({"messages": [Message("user", TEXT)]}, 105),
        ({"input": TEXT}, 101),
        ({"input": [TEXT, [1, 2, 3], [TEXT, 4]]}, 206),
        ({"query": TEXT, "documents": [TEXT, TEXT]}, 404),
        ({"tools": [{"type": "function", "function": {"name": "x" * 400}}]}, 112),
        ({"temperature": 1}, 0),
        ({}, 0),
    ],
)
def test_prompts(body: dict[str, Any], tokens: int) -> None:
    assert prompt_tokens(body) == pytest.approx(tokens, abs=2)


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"n_predict": 64}, 64),
        ({"max_tokens": 64}, 64),
        ({"n_predict": -1}, 0),
        ({"max_tokens": None}, 0),
        ({"n_predict": UNBOUNDED}, 0),
        ({}, 0),
    ],
)
def test_answers(body: dict[str, Any], tokens: int) -> None:
    assert answer_tokens(body) == tokens


async def test_each_answer_of_a_demand_counts() -> None:
    demand = Demand("/completion", {"prompts": [{"prompt": TEXT}], "n_predict": 50}, 4)
    assert await demand.tokens() == (101, 200)


async def test_a_part_of_a_request_stands_for_all() -> None:
    part = Demand("/v1/embeddings", {"input": ["one"]}, whole={"input": [TEXT, TEXT]})
    assert await part.tokens() == (202, 0)
