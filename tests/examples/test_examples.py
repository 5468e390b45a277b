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


# The demo model gives the same answers every time, on any machine.
STORY = ", in a magical forest, there lived a small fox who could read."
POEM = "A little server woke at night,\nand streamed its tokens, small and bright.\n"
EXPECTED = {
    "python/generate.py": [STORY, " tokens)"],
    "python/stream.py": [POEM, " tokens)"],
    "python/chat_whole_history.py": [
        "demo: Nice to meet you, Tobias.\ndemo: Your name is Tobias.\n"
    ],
    "python/chat_new_turns.py": [f"demo: {PARIS}\n", "demo: Your name is Tobias.\n"],
    "python/embeddings.py": ["256 dimensions, similarity 0."],
    "python/semantic_search.py": ["What is the capital of Italy?\n"],
    "python/stop_strings.py": ["1. Red\n2. Green\n3. Blue\n"],
    "python/system_prompt.py": [PARIS],
    "python/safe_generate.py": [" Paris.\nNone\n"],
    "curl/generate.sh": ['"text":" Paris."', '"total_tokens"'],
    "curl/chat.sh": [f'"content":"{PARIS}"', '"session_id"'],
    "curl/stream.sh": [POEM],
    "curl/list_models.sh": ["demo\n"],
    "curl/health.sh": ['"status":"healthy"'],
    "curl/load_unload.sh": ["loaded", "Model 'demo' unloaded"],
    "javascript/generate.js": ["Machine learning means that a program learns", " tokens)"],
    "javascript/stream_chat.js": ["Why did the model cross the road?", "(session "],
}
JAVASCRIPT = [example for example in EXPECTED if example.endswith(".js")]


def test_no_example_is_forgotten() -> None:
    there = {
        str(path.relative_to(EXAMPLES))
        for folder, ending in (("python", "py"), ("curl", "sh"), ("javascript", "js"))
        for path in (EXAMPLES / folder).glob(f"*.{ending}")
    }
    assert there == set(EXPECTED)


@pytest.mark.parametrize("example", sorted(set(EXPECTED) - set(JAVASCRIPT)))
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
@pytest.mark.parametrize("example", JAVASCRIPT)
def test_a_javascript_example(server: Serving, javascript: Path, example: str) -> None:
    printed = run(server, "node", Path(example).name, cwd=javascript)
    for words in EXPECTED[example]:
        assert words in printed
