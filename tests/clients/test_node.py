"""OpenAI's own client for Node.js, unmodified."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.clients.conftest import CHAT
from tests.clients.node_packages import project
from tests.clients.questions import PARIS
from tests.serving import Serving, wait_until

pytestmark = pytest.mark.more


@pytest.mark.needs_node
@pytest.mark.timeout(400)
def test_all_of_it(server: Serving, api: httpx.Client, tmp_path: Path) -> None:
    done = subprocess.run(
        ["node", "client.mjs"],
        cwd=project("openai", tmp_path),
        env=os.environ | {"MYLLM_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout)
    assert results["whole"] == results["streamed"] == PARIS
    assert results["tokens"] == 10
    assert results["text"]
    assert results["dimensions"] == 256
    assert CHAT in results["models"]
    assert results["parsed"] == {"city": "Paris"}
    assert results["call"]["function"]["name"] == "weather"
    assert json.loads(results["call"]["function"]["arguments"]) == {"city": "Paris"}
    assert results["aborted"] is True
    assert results["missing"] == [True, "model_not_found"]
    assert results["long"] == [True, "context_length_exceeded"]
    wait_until(lambda: api.get("/health").json()["active"] == 0, 10, "a free slot")
