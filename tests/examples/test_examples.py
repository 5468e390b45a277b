"""Every example is run as a user would, and says what it should."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.serving import Serving

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PARIS = "The capital of France is Paris."


def run(server: Serving, *command: str, cwd: Path = EXAMPLES) -> str:
    """What a command prints that talks to `server`; it must succeed."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"MYLLM_URL": server.url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


EXPECTED = {
    "python/generate.py": [", in a magical forest", " tokens)"],
    "python/stream.py": [" tokens)"],
    "python/chat_whole_history.py": ["Tobias"],
    "python/chat_new_turns.py": ["demo:", "Paris"],
    "python/embeddings.py": ["256 dimensions, similarity 0."],
    "python/semantic_search.py": ["0."],
    "python/stop_strings.py": ["1. Red\n2. Green\n3. Blue"],
    "python/system_prompt.py": [PARIS],
    "python/safe_generate.py": [" Paris.", "None"],
    "curl/generate.sh": ['"text"', '"usage"'],
    "curl/chat.sh": ['"message"', '"session_id"'],
    "curl/list_models.sh": ["demo"],
    "curl/health.sh": ["healthy"],
    "curl/load_unload.sh": ["loaded", "unloaded"],
}


def test_no_example_is_forgotten() -> None:
    there = {
        str(path.relative_to(EXAMPLES))
        for folder, ending in (("python", "py"), ("curl", "sh"))
        for path in (EXAMPLES / folder).glob(f"*.{ending}")
    }
    assert there == set(EXPECTED)


@pytest.mark.parametrize("example", sorted(EXPECTED))
def test_an_example(server: Serving, example: str) -> None:
    program = sys.executable if example.endswith(".py") else "bash"
    printed = run(server, program, example)
    for words in EXPECTED[example]:
        assert words in printed


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the JavaScript examples with their packages installed."""
    folder = tmp_path_factory.mktemp("npm") / "javascript"
    skip = shutil.ignore_patterns("node_modules")
    shutil.copytree(EXAMPLES / "javascript", folder, ignore=skip)
    command = ["npm", "ci", "--no-audit", "--no-fund"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
    return folder


@pytest.mark.needs_node
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("example", "words"), [("generate.js", " tokens)"), ("stream_chat.js", "(session ")]
)
def test_a_javascript_example(server: Serving, javascript: Path, example: str, words: str) -> None:
    assert words in run(server, "node", example, cwd=javascript)
