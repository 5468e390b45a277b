"""The names that requests may use for a model: its own, its aliases, and both with `:latest`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.api.events import detail
from tests.serving import Serving, serving, short_home
from tests.toys import add_toy

HI = [{"role": "user", "content": "Hello"}]
NAMES = ["toy", "toy:latest", "gpt-4o", "gpt-4o:latest", "org/toy:7b"]
FORMS: dict[str, dict[str, Any]] = {
    "/api/chat": {"messages": HI, "stream": False},
    "/api/generate": {"prompt": "Hello", "stream": False, "options": {"max_tokens": 1}},
    "/api/embeddings": {"input": "Hello"},
    "/v1/chat/completions": {"messages": HI, "max_tokens": 1},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 1},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 16},
    "/v1/embeddings": {"input": "Hello"},
    "/v1/messages": {"messages": HI, "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": HI},
    "/ollama/api/chat": {"messages": HI, "stream": False},
    "/ollama/api/generate": {"prompt": "Hello", "stream": False},
    "/ollama/api/embed": {"input": "Hello"},
    "/ollama/api/show": {},
    "/chat/completions": {"messages": HI, "max_tokens": 1},
    "/completion": {"prompt": "Hello", "n_predict": 1},
    "/embedding": {"content": "Hello"},
    "/tokenize": {"content": "Hello"},
    "/apply-template": {"messages": HI},
}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:
        add_toy(home / "models", aliases=["gpt-4o", "org/toy:7b"])
        with serving(home) as running:
            yield running


@pytest.mark.parametrize("path", FORMS)
def test_every_dialect_knows_every_name(api: httpx.Client, path: str) -> None:
    for name in NAMES:
        answer = api.post(path, json={"model": name, **FORMS[path]})
        assert answer.status_code == 200, (name, answer.text)
        if path.startswith("/ollama/") and not path.endswith("/show"):
            assert answer.json()["model"] == name, "as Ollama does, the name that was asked for"


@pytest.mark.parametrize("name", NAMES)
def test_every_route_about_a_model_knows_every_name(api: httpx.Client, name: str) -> None:
    route = f"/api/models/{name}"
    assert api.get(route).json()["name"] == "toy"
    assert api.post(f"{route}/load").status_code == 200
    assert api.get(route).json()["loaded"] is True
    assert "is being replaced" in api.post(f"{route}/reload").json()["message"]
    assert api.post(f"{route}/load").status_code == 200
    assert api.post(f"{route}/unload").json()["status"] == "success"
    assert detail(api.post(f"{route}/unload"), 400) == "Model 'toy' is not loaded"
    assert api.get(f"/upstream/{name}/props").json()["model_alias"] == "toy"
    assert api.get("/props", params={"model": name}).json()["model_alias"] == "toy"
    assert api.get(f"/v1/models/{name}").json()["id"] == name


def test_sessions_are_found_by_every_name(api: httpx.Client) -> None:
    body = {"model": "gpt-4o:latest", "messages": HI, "stream": False, "session_id": "by-alias"}
    assert api.post("/api/chat", json=body).status_code == 200
    for name in NAMES:
        listed = api.get("/api/sessions", params={"model": name}).json()["sessions"]
        assert "by-alias" in {each["id"] for each in listed}
        assert {each["model"] for each in listed} == {"toy"}
    assert api.get("/api/sessions", params={"model": "gone"}).json()["sessions"] == []


@pytest.mark.parametrize("alias", ["gpt-4o", "gpt-4o:latest"])
def test_an_alias_deletes_nothing(api: httpx.Client, server: Serving, alias: str) -> None:
    assert api.post("/api/models/toy/load").status_code == 200
    said = detail(api.delete(f"/api/models/{alias}"), 409)
    assert said.startswith("'gpt-4o' is an alias of the model 'toy'")
    answer = api.request("DELETE", "/ollama/api/delete", json={"model": alias})
    assert answer.status_code == 409
    assert answer.json()["error"] == said
    assert (server.models_dir / "toy" / "demo.gguf").exists()
    assert api.get("/api/models/toy").json()["loaded"] is True, "and nothing was unloaded"


def test_a_built_in_model_is_refused_before_it_is_unloaded(api: httpx.Client) -> None:
    assert api.post("/api/models/demo/load").status_code == 200
    assert "comes with MyLLM" in detail(api.delete("/api/models/demo:latest"), 400)
    assert api.get("/api/models/demo").json()["loaded"] is True


def test_a_model_goes_by_its_name_with_a_tag(api: httpx.Client, server: Serving) -> None:
    for route in ("/api/models/{}", "/ollama/api/delete"):
        folder = add_toy(server.models_dir, "doomed")
        assert api.post("/api/models/doomed:latest/load").status_code == 200
        answer = api.request(
            "DELETE", route.format("doomed:latest"), json={"model": "doomed:latest"}
        )
        assert answer.status_code == 200
        assert not folder.exists()
        running = api.get("/api/instances").json()["instances"]
        assert "doomed" not in {each["model"] for each in running}
