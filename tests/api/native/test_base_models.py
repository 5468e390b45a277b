"""Models without a chat template complete prompts, and refuse chats with the reason."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.events import post
from tests.ggufs import write_model
from tests.serving import Serving, environment, serving, short_home

HI = [{"role": "user", "content": "Hello"}]
CHATS: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": HI},
    "/v1/chat/completions": {"messages": HI},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"messages": HI, "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": HI},
    "/ollama/api/chat": {"messages": HI},
    "/ollama/api/generate": {"prompt": "Hello", "system": "Be brief."},
    "/chat/completions": {"messages": HI},
    "/apply-template": {"messages": HI},
    "/upstream/base/apply-template": {"messages": HI},
}
OTHERS: dict[str, dict[str, Any]] = {
    "/api/generate": {"prompt": "Hello", "stream": False, "options": {"max_tokens": 1}},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 1},
    "/ollama/api/generate": {"prompt": "Hello", "stream": False, "options": {"num_predict": 1}},
    "/completion": {"prompt": "Hello", "n_predict": 1},
    "/api/embeddings": {"input": "Hello"},
    "/tokenize": {"content": "Hello"},
}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        for name, config in (("base", {}), ("told", {"template": "chatml"})):
            write_model(home / "models" / name / "m.gguf", template=None)
            (home / "models" / name / "config.json").write_text(json.dumps(config))
        with serving(home) as running:
            yield running


@pytest.mark.parametrize("path", CHATS)
def test_a_base_model_does_not_chat(api: httpx.Client, path: str) -> None:
    answer = api.post(path, json={"model": "base", **CHATS[path]})
    assert answer.status_code == 400, answer.text
    assert "Model 'base' has no chat template" in answer.text
    assert "config.json" in answer.text
    named = path.replace("base", "told")
    answer = api.post(named, json={"model": "told", **CHATS[path]})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("path", OTHERS)
def test_a_base_model_does_everything_else(api: httpx.Client, path: str) -> None:
    answer = api.post(path, json={"model": "base", **OTHERS[path]})
    assert answer.status_code == 200, answer.text


def test_ollama_completes_with_a_base_model_as_it_is(api: httpx.Client) -> None:
    options = {"temperature": 0, "num_predict": 8, "repeat_penalty": 1.0}
    body = {"model": "base", "prompt": "Hello", "stream": False, "options": options}
    plain = post(api, "/ollama/api/generate", **body)
    raw = post(api, "/ollama/api/generate", raw=True, **body)
    assert plain["response"] == raw["response"]
    assert plain["prompt_eval_count"] == raw["prompt_eval_count"]


def test_a_missing_template_is_shown(api: httpx.Client, server: Serving) -> None:
    listed = {model["name"]: model for model in get(api, "/api/models")["models"]}
    assert (listed["base"]["template"], listed["told"]["template"]) == (None, "chatml")
    shown = get(api, "/api/models/base")
    assert shown["template"] is None
    assert "has no chat template" in shown["chat"]
    assert get(api, "/api/models/told")["chat"] is True
    rows = [line.split() for line in myllm(server, "list").splitlines()]
    assert {row[0]: row[-1] for row in rows[1:]} == {
        "base": "none",
        "told": "chatml",
        "demo": "gguf",
    }
    assert "has no chat template" in myllm(server, "show", "base")


def get(api: httpx.Client, path: str) -> Any:
    return api.get(path).json()


def myllm(server: Serving, *arguments: str) -> str:
    port = server.url.rsplit(":", 1)[1]
    line = [sys.executable, "-m", "myllm", *arguments]
    done = subprocess.run(
        line, env=environment(server.home, port=port), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_run_refuses_before_the_first_question(server: Serving) -> None:
    port = server.url.rsplit(":", 1)[1]
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "myllm", "run", "base"],
            env=environment(server.home, port=port),
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Model 'base' has no chat template")
    assert done.stdout == ""


def test_a_template_in_the_configuration_is_taken_in_by_a_reload(
    api: httpx.Client, server: Serving, tmp_path: Path
) -> None:
    folder = server.models_dir / "later"
    write_model(folder / "m.gguf", template=None)
    post(api, "/api/models/later/load")
    (folder / "config.json").write_text('{"template": "chatml"}')
    body = {"model": "later", "messages": HI, "stream": False}
    assert api.post("/api/chat", json=body).status_code == 400, "it runs without one"
    post(api, "/api/models/later/unload")
    assert api.post("/api/chat", json=body).status_code == 200
