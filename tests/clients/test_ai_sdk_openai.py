"""Vercel's AI SDK, unmodified: loops of tools, objects and streams by its providers for OpenAI."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import Isolated

pytestmark = [
    pytest.mark.more,
    pytest.mark.needs_node,
    pytest.mark.needs_network_namespace,
    pytest.mark.timeout(400),
]
PARIS = {"city": "Paris"}


def test_loops_objects_and_streams(isolated_server: Isolated, tmp_path: Path) -> None:
    told = isolated_server.results_of("ai-sdk-openai", tmp_path)
    assert told.pop("dimensions") == 256
    assert set(told) == {"responses", "chat", "compatible"}
    for name, each in told.items():
        for loop in (each["whole"], each["asStream"]):
            assert loop["runs"] >= 1, name
            assert loop["calls"] == [["weather", PARIS]], name
            assert loop["results"] == [{"city": "Paris", "degrees": 21}], name
            assert loop["reason"] == "tool-calls", name
            first, second = loop["read"]
            assert second > first > 0, "the second step reads the call and its result"
            assert loop["written"] > 0, name
        assert each["object"] == each["streamedObject"] == PARIS, name
        assert each["parts"] >= 1, name
