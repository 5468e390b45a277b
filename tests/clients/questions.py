"""Questions of the clients, and the demo model's answers, which are always the same."""

from __future__ import annotations

from typing import Any

from tests.tooled import WEATHER

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
ASKED: Any = [{"role": "user", "content": FRANCE}]
COUNTED: Any = [{"role": "user", "content": "Count to one hundred."}]
TOOL: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city.", "parameters": WEATHER},
}
TOO_LONG: Any = [{"role": "user", "content": "word " * 5000}]
UNENDING: dict[str, Any] = {
    "max_tokens": 1900,
    "extra_body": {
        "json_schema": {"type": "array", "items": {"type": "integer"}, "minItems": 1000}
    },
}
"""Options that make an answer end only at `max_tokens`."""
