"""OpenAI's own client for Node.js, as it comes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.clients.conftest import CHAT
from tests.clients.questions import PARIS
from tests.serving import Serving, wait_until

pytestmark = pytest.mark.more

NODE = Path(__file__).parent / "node"


@pytest.mark.needs_node
@pytest.mark.timeout(400)
def test_all_of_it(server: Serving, api: httpx.Client, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    shutil.copytree(NODE, folder, ignore=shutil.ignore_patterns("node_modules"))
    command = ["npm", "ci", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    done = subprocess.run(
        ["node", "client.mjs"],
        cwd=folder,
        env=os.environ | {"MYLLM_URL": server.url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["whole"] == told["streamed"] == PARIS
    assert told["tokens"] == 10
    assert told["text"]
    assert told["dimensions"] == 256
    assert CHAT in told["models"]
    assert told["parsed"] == {"city": "Paris"}
    assert told["call"]["function"]["name"] == "weather"
    assert json.loads(told["call"]["function"]["arguments"]) == {"city": "Paris"}
    assert told["aborted"] is True
    assert told["missing"] == [True, "model_not_found"]
    assert told["long"] == [True, "context_length_exceeded"]
    wait_until(lambda: api.get("/health").json()["active"] == 0, 10, "a free slot")
