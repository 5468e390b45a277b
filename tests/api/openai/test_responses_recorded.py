"""What Codex CLI 0.171.0 sends, with other names, paths and texts: its tools, items and fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.serving import Serving, serving, short_home
from tests.tooled import TOOLS, add_model

CODEX = Path(__file__).parent / "recorded" / "codex.json"
PATCH: dict[str, Any] = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
LATER: list[dict[str, Any]] = [
    {"type": "reasoning", "id": "rs_1", "summary": [], "content": None, "encrypted_content": None},
    {
        "type": "function_call",
        "id": "fc_1",
        "name": "exec_command",
        "arguments": '{"cmd":"ls"}',
        "call_id": "call_1",
    },
    {"type": "function_call_output", "call_id": "call_1", "output": "Exit code: 0\nREADME.md\n"},
    {
        "type": "custom_tool_call",
        "status": "completed",
        "call_id": "call_2",
        "name": "apply_patch",
        "input": "*** Begin Patch\n*** End Patch\n",
    },
    {"type": "custom_tool_call_output", "call_id": "call_2", "output": "Done"},
    {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}},
    {
        "type": "function_call",
        "name": "close_agent",
        "namespace": "multi_agent_v1",
        "arguments": '{"target":"a"}',
        "call_id": "call_3",
    },
    {
        "type": "function_call_output",
        "call_id": "call_3",
        "output": [{"type": "input_text", "text": "closed"}],
    },
]
"""The items that a second step adds."""


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        add_model(home / "models", "caller", TOOLS)
        with serving(home) as running:
            yield running


def streamed(api: httpx.Client, more: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The events of the answer to Codex's request, and the header that names what was left out."""
    body = json.loads(CODEX.read_text())
    body |= {"model": "caller", "input": [*body["input"], *more], "max_output_tokens": 8}
    body["tools"].append(PATCH)
    answer = api.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line[6:]) for line in lines], answer.headers["X-MyLLM-Ignored"]


@pytest.mark.parametrize("more", [[], LATER])
def test_codex(api: httpx.Client, more: list[dict[str, Any]]) -> None:
    events, ignored = streamed(api, more)
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    assert events[-1]["response"]["usage"]["input_tokens"] > 100
    assert "tools[3] (web_search)" in ignored
    assert ("input[9] (web_search_call)" in ignored) == bool(more)
