"""Models through the API."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import myllm
from myllm.engine.engine import Engine
from tests.api.events import detail, post
from tests.serving import Serving, serving, short_home, wait_until

DEMO = Path(myllm.__file__).parent / "models/builtin/demo/demo.gguf"
HI = [{"role": "user", "content": "Hello"}]


def folder(models: Path, name: str, config: str | None = None) -> Path:
    """A copy of the demo model under another name."""
    made = models / name
    made.mkdir(parents=True)
    shutil.copy(DEMO, made / "model.gguf")
    if config is not None:
        (made / "config.json").write_text(config)
    return made


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as path:
        models = path / "models"
        folder(
            models,
            "configured",
            json.dumps(
                {
                    "family": "mine",
                    "context_size": 512,
                    "parameters": {"temperature": 0, "max_tokens": 4},
                    "engine": {"slots": 1},
                }
            ),
        )
        folder(models, "removable")
        folder(models, "no-json", "{")
        whole = DEMO.read_bytes()
        for name, content in (
            ("empty", b""),
            ("garbage", b"this is not a model" * 100),
            ("truncated", whole[: len(whole) // 2]),
            ("corrupt", whole[:64] + bytes(400) + whole[464:]),
        ):
            (folder(models, name) / "model.gguf").write_bytes(content)
        (models / "loose.gguf").write_bytes(whole)
        with serving(path) as running:
            yield running


def test_the_list(api: httpx.Client) -> None:
    models = {model["name"]: model for model in api.get("/api/models").json()["models"]}
    assert {"demo", "configured", "removable"} <= set(models)
    demo = models["demo"]
    assert demo["family"] == "llama"
    assert demo["quantization"] == "F16"
    assert demo["context_size"] == 2048
    assert demo["template"] == "gguf"
    assert demo["parameters"]["temperature"] == 0
    assert demo["size_mb"] in range(1, 9)
    assert demo["loaded"] is False
    assert models["configured"]["family"] == "mine"
    assert models["configured"]["context_size"] == 512


def test_what_is_no_model_is_listed_beside_the_models(api: httpx.Client, server: Serving) -> None:
    answer = api.get("/api/models").json()
    [problem] = answer["problems"]
    assert problem["path"] == str(server.models_dir / "loose.gguf")
    assert "a folder of its own; try: mkdir" in problem["problem"]
    assert "loose.gguf" not in {model["name"] for model in answer["models"]}


def test_one_model(api: httpx.Client) -> None:
    model = api.get("/api/models/demo").json()
    assert model["architecture"] == "llama"
    assert model["parameter_count"] > 1_000_000
    assert Path(model["path"]).is_dir()
    assert model["digest"]
    assert model["memory"]["estimated_mb"] > model["size_mb"]
    assert detail(api.get("/api/models/nope"), 404).startswith("Model 'nope' not found")


def test_load_and_unload(api: httpx.Client, server: Serving) -> None:
    loaded = api.post("/api/models/demo/load").json()
    assert loaded == {"status": "success", "message": "Model 'demo' loaded"}
    assert "loaded already" in api.post("/api/models/demo/load").json()["message"]
    assert len(server.engines()) == 1
    assert api.get("/api/models/demo").json()["loaded"] is True
    unloaded = api.post("/api/models/demo/unload").json()
    assert unloaded == {"status": "success", "message": "Model 'demo' unloaded"}
    assert server.engines() == []
    answer = api.post("/api/models/demo/unload")
    assert detail(answer, 400) == "Model 'demo' is not loaded"
    assert detail(api.post("/api/models/nope/load"), 404).startswith("Model 'nope' not found")


def test_a_models_own_configuration_counts(api: httpx.Client) -> None:
    answer = post(api, "/api/chat", model="configured", messages=HI, stream=False)
    assert answer["usage"]["completion_tokens"] <= 4
    [one] = [i for i in api.get("/api/instances").json()["instances"] if i["model"] == "configured"]
    assert (one["slots"]["total"], one["context_size"]) == (1, 512)
    long = [{"role": "user", "content": "word " * 600}]
    answer2 = api.post("/api/chat", json={"model": "configured", "messages": long})
    assert "context window (512 tokens)" in detail(answer2, 400)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "empty"),
        ("garbage", "not a GGUF"),
        ("truncated", "truncated"),
        ("no-json", "config.json"),
    ],
)
def test_broken_models_say_what_is_wrong(api: httpx.Client, name: str, words: str) -> None:
    answer = api.post("/api/chat", json={"model": name, "messages": HI, "stream": True})
    assert words in detail(answer, 500)
    shown = {m["name"]: m for m in api.get("/api/models").json()["models"]}
    assert words in shown[name]["problem"]


def test_a_corrupt_model_is_an_error_in_words(api: httpx.Client) -> None:
    answer = api.post("/api/chat", json={"model": "corrupt", "messages": HI})
    text = detail(answer, 500)
    assert "corrupt" in text
    assert "Traceback" not in text


def test_removal(api: httpx.Client, server: Serving) -> None:
    post(api, "/api/chat", model="removable", messages=HI, stream=False)
    removed = api.delete("/api/models/removable")
    assert removed.json()["status"] == "success"
    assert not (server.models_dir / "removable").exists()
    assert detail(api.delete("/api/models/removable"), 404)
    assert "comes with MyLLM" in detail(api.delete("/api/models/demo"), 400)


def test_an_answering_model_is_spared_unless_forced(api: httpx.Client, server: Serving) -> None:
    folder(server.models_dir, "busy")
    ends: list[int] = []
    assert api.post("/api/models/busy/load").status_code == 200
    [engine] = [each for each in server.engines() if "busy" in each.cmdline()]
    engine.suspend()  # or else the answer could be complete before the test looks

    def long_answer() -> None:
        body = {"model": "busy", "prompt": "x", "stream": False}
        with server.client() as client:
            ends.append(client.post("/api/generate", json=body).status_code)

    thread = threading.Thread(target=long_answer)
    thread.start()
    wait_until(lambda: api.get("/health").json()["active"] == 1, 20, "an active answer")
    for answer in (api.post("/api/models/busy/unload"), api.delete("/api/models/busy")):
        assert "is answering 1 request" in detail(answer, 409)
    threading.Timer(1, engine.resume).start()
    assert api.delete("/api/models/busy", params={"force": "true"}).status_code == 200
    thread.join(60)
    assert ends == [200], "the running answer ended by itself"
    assert not engine.is_running()
