"""Ollama's own client for Node.js, unmodified."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import TOOLED, Isolated
from tests.clients.questions import PARIS

pytestmark = [
    pytest.mark.more,
    pytest.mark.needs_node,
    pytest.mark.needs_network_namespace,
    pytest.mark.timeout(400),
]


def test_all_of_it(isolated_server: Isolated, tmp_path: Path) -> None:
    results = isolated_server.results_of("ollama", tmp_path, "demo", TOOLED)
    assert results["whole"] == results["streamed"] == results["generated"] == PARIS
    assert results["tokens"] == 10
    for [call] in (results["calls"], results["streamedCalls"]):
        assert call["function"]["name"] == "weather"
        assert call["function"]["arguments"] == {"city": "Paris"}
    is_done, more_tokens = results["second"]
    assert is_done is True
    assert more_tokens > 10
    assert results["formatted"] == {"n": 7}
    assert results["dimensions"] == [256, 256]
    assert {"demo:latest", "tools:latest", f"{TOOLED}:latest"} <= set(results["models"])
    assert results["capabilities"] == ["completion", "tools"]
    assert {"demo:latest", "tools:latest"} <= set(results["running"])
    assert results["missing"] == ["ResponseError", 404]
    assert results["aborted"] == "AbortError"
