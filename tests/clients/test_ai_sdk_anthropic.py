"""The AI SDK with its provider for Anthropic's API, unmodified."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import Isolated
from tests.clients.questions import PARIS

pytestmark = [pytest.mark.more, pytest.mark.needs_node, pytest.mark.needs_network_namespace]
CITY = {"city": "Paris"}


@pytest.mark.timeout(400)
def test_all_of_it(isolated_server: Isolated, tmp_path: Path) -> None:
    results = isolated_server.results_of("ai-sdk-anthropic", tmp_path)
    assert results["whole"] == results["streamed"] == PARIS
    assert results["tokens"] == results["streamedTokens"] == 10
    assert results["steps"] == [["It is sunny in Paris."], []]
    assert results["answer"]
    assert results["streamedSteps"] == [[CITY], []]
    assert results["thought"] == PARIS
    assert results["object"] == results["byFormat"] == CITY
    status, message, is_retryable = results["long"]
    assert (status, is_retryable) == (400, False)
    assert message.startswith("prompt is too long: ")
