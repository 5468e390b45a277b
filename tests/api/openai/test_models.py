"""OpenAI's list of models, with llama.cpp's figures, and requests that name no model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from myllm.engine.engine import Engine
from tests.api.events import post
from tests.serving import Serving, serving, short_home
from tests.toys import add_toy

HI = [{"role": "user", "content": "Hello"}]
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        add_toy(home / "models", aliases=["gpt-4o"])
        with serving(home) as running:
            yield running


def test_each_model_says_how_large_it_is(api: httpx.Client, server: Serving) -> None:
    listed = {each["id"]: each for each in api.get("/v1/models").json()["data"]}
    assert set(listed) == {"demo", "gpt-4o", "toy"}
    toy, shown = listed["toy"], api.get("/api/models/toy").json()
    assert toy["meta"] == {
        "n_vocab": shown["vocabulary_size"],
        "n_ctx": shown["context_size"],
        "n_ctx_train": shown["trained_context_size"],
        "n_embd": shown["embedding_length"],
        "n_params": shown["parameter_count"],
        "size": toy["meta"]["size"],
        "ftype": shown["quantization"],
    }
    assert 0 < toy["meta"]["size"] <= (server.models_dir / "toy" / "demo.gguf").stat().st_size
    assert api.get("/v1/models/gpt-4o").json() == listed["gpt-4o"]
    assert listed["gpt-4o"]["meta"] == toy["meta"]
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    assert [each.id for each in client.models.list()] == [*listed]


def test_meta_is_that_of_the_engine(api: httpx.Client, server: Serving) -> None:
    """The engine's own figures for the same file."""
    post(api, "/api/models/toy/load")
    transport = httpx.HTTPTransport(uds=str(server.engine_socket()))
    with httpx.Client(transport=transport, base_url="http://engine") as engine:
        [own] = engine.get("/v1/models").json()["data"]
    meta = api.get("/v1/models/toy").json()["meta"]
    same = ("n_vocab", "n_ctx", "n_ctx_train", "n_embd", "n_params")
    assert {name: meta[name] for name in same} == {name: own["meta"][name] for name in same}
    assert meta["size"] == pytest.approx(own["meta"]["size"], rel=0.01)
    assert own["meta"]["ftype"].startswith(meta["ftype"])


@pytest.mark.parametrize("path", ["/v1/models", "/models"])
def test_each_model_says_whether_it_is_loaded(api: httpx.Client, path: str) -> None:
    """In the form of llama.cpp's router, under each of the model's names."""

    def statuses() -> dict[str, str]:
        return {each["id"]: each["status"] for each in api.get(path).json()["data"]}

    for name in ("toy", "demo"):
        api.post(f"/api/models/{name}/unload", params={"force": "true"})
    unloaded, loaded = {"value": "unloaded"}, {"value": "loaded"}
    assert statuses() == {"demo": unloaded, "toy": unloaded, "gpt-4o": unloaded}
    post(api, "/api/models/toy/load")
    assert statuses() == {"demo": unloaded, "toy": loaded, "gpt-4o": loaded}
    assert api.get("/v1/models/gpt-4o").json()["status"] == loaded


@pytest.mark.parametrize("model", [{}, {"model": None}, {"model": ""}])
def test_a_model_without_a_name_is_the_loaded_one(api: httpx.Client, model: dict[str, Any]) -> None:
    for name in ("toy", "demo"):
        api.post(f"/api/models/{name}/unload", params={"force": "true"})
    answer = api.post(CHAT, json={"messages": HI, **model})
    assert answer.status_code == 400
    assert "it could be any of these: demo, toy" in answer.json()["error"]["message"]
    post(api, "/api/models/toy/load")
    assert post(api, CHAT, messages=HI, max_tokens=1, **model)["model"] == "toy"
    assert post(api, COMPLETIONS, prompt="Hello", max_tokens=1, **model)["model"] == "toy"


@pytest.mark.parametrize("path", ["/v1", ""])
def test_the_tokens_of_a_chat(api: httpx.Client, path: str) -> None:
    asked = {"model": "demo", "messages": [{"role": "developer", "content": "Be brief."}, *HI]}
    counted = post(api, f"{path}/chat/completions/input_tokens", **asked)
    usage = post(api, CHAT, **asked, max_tokens=1)["usage"]
    assert counted == {"object": "response.input_tokens", "input_tokens": usage["prompt_tokens"]}
