"""A model outside a key's scope does not exist for it, in any dialect."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from myllm.engine.engine import Engine
from myllm.models.registry import BUILTIN_DIR
from myllm.sessions.keys import KeyRules
from tests.api.credentials import bearer
from tests.clients.conftest import add_demo
from tests.clients.questions import ASKED
from tests.keys import add_key, change_keys
from tests.serving import Serving, serving, short_home, suspend, wait_until

SCOPES = {
    "all": (),
    "everything": ("*",),
    "by-name": ("other",),
    "by-alias": ("nick-o*",),
    "by-glob": ("oth?r:latest", "nothing-*"),
    "none": ("nothing-*",),
}
WITHIN = ["by-name", "by-alias", "by-glob"]
"""Keys for which only the model `other` exists."""
HIDDEN, VISIBLE = {"demo", "nick-demo"}, {"other", "nick-other"}


def add_broken(models_dir: Path, name: str) -> None:
    folder = models_dir / name
    folder.mkdir()
    (folder / "model.gguf").write_bytes(b"GGUF but no more")


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """Its models `demo` and `other` are loaded, `broken` and `idle` are not."""
    with short_home() as home:
        models = home / "models"
        add_demo(models, "nick-demo")
        (models / "demo").rename(models / "other")
        config = models / "other" / "config.json"
        config.write_text(config.read_text().replace("nick-demo", "nick-other"))
        add_demo(models, "nick-demo")
        add_broken(models, "broken")
        (models / "loose.gguf").write_bytes(b"GGUF")
        for name, patterns in SCOPES.items():
            add_key(home, name, f"secret-{name}", KeyRules(models=patterns))
        boss = KeyRules(role="admin", models=("other",))
        add_key(home, "boss", "secret-boss", boss)
        with serving(home) as running, as_(running, "all") as everyone:
            for name in ("demo", "other"):
                asked = {"model": name, "prompt": "Hi", "stream": False}
                assert everyone.post("/api/generate", json=asked).status_code == 200
            yield running


def as_(server: Serving, name: str) -> httpx.Client:
    client = server.client()
    client.headers.update(bearer(f"secret-{name}"))
    return client


def names_in(client: httpx.Client) -> dict[str, set[str]]:
    """The names of models in each list of the API."""

    def of(path: str, key: str, name: str) -> set[str]:
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        return {each[name].removesuffix(":latest") for each in answer.json()[key]}

    return {
        "/api/models": of("/api/models", "models", "name"),
        "/api/instances": of("/api/instances", "instances", "model"),
        "/v1/models": of("/v1/models", "data", "id"),
        "/models": of("/models", "data", "id"),
        "/ollama/api/tags": of("/ollama/api/tags", "models", "name"),
        "/ollama/api/ps": of("/ollama/api/ps", "models", "name"),
    }


@pytest.mark.parametrize("name", SCOPES)
def test_lists_have_only_what_is_in_scope(server: Serving, name: str) -> None:
    with as_(server, name) as client:
        lists = names_in(client)
        problems = client.get("/api/models").json()["problems"]
    match name:
        case "all" | "everything":
            usable = HIDDEN | VISIBLE
            assert lists["/api/models"] == {"demo", "other", "broken"}
            assert lists["/v1/models"] == lists["/models"] == lists["/ollama/api/tags"] == usable
            assert lists["/api/instances"] == lists["/ollama/api/ps"] == {"demo", "other"}
        case "none":
            assert set().union(*lists.values()) == set()
        case _:
            assert set().union(*lists.values()) == VISIBLE
            assert all("other" in names for names in lists.values())
    assert [Path(each["path"]).name for each in problems] == (
        ["loose.gguf"] if name == "all" else []
    )


CHAT: dict[str, Any] = {"messages": ASKED, "stream": False, "max_tokens": 5}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("/api/generate", {"prompt": "Hi", "stream": False}),
    ("/api/chat", CHAT),
    ("/api/embeddings", {"input": "Hi"}),
    ("/v1/chat/completions", CHAT),
    ("/v1/chat/completions/input_tokens", CHAT),
    ("/v1/completions", {"prompt": "Hi", "max_tokens": 5}),
    ("/v1/embeddings", {"input": "Hi"}),
    ("/v1/rerank", {"query": "Hi", "documents": ["Hi"]}),
    ("/v1/responses", {"input": "Hi", "max_output_tokens": 5}),
    ("/v1/messages", CHAT),
    ("/v1/messages/count_tokens", CHAT),
    ("/chat/completions", CHAT),
    ("/completion", {"prompt": "Hi", "n_predict": 5}),
    ("/infill", {"input_prefix": "Hi", "input_suffix": "Hi"}),
    ("/embedding", {"content": "Hi"}),
    ("/tokenize", {"content": "Hi"}),
    ("/detokenize", {"tokens": [1]}),
    ("/apply-template", CHAT),
    ("/ollama/api/generate", {"prompt": "Hi", "stream": False}),
    ("/ollama/api/chat", CHAT),
    ("/ollama/api/embed", {"input": "Hi"}),
    ("/ollama/api/show", {}),
]


@pytest.mark.parametrize(("path", "body"), REQUESTS)
def test_a_hidden_model_is_refused_like_an_unknown_one(
    server: Serving, path: str, body: dict[str, Any]
) -> None:
    with as_(server, "by-alias") as client:
        unknown = client.post(path, json=body | {"model": "unknown"})
        assert unknown.status_code == 404
        for name in ("demo", "nick-demo", "demo:latest", "broken"):
            hidden = client.post(path, json=body | {"model": name})
            assert hidden.status_code == 404
            assert hidden.text.replace(name, "unknown") == unknown.text
        assert "Available models: other" in unknown.text
        for name in ("other", "nick-other", "other:latest"):
            shown = client.post(path, json=body | {"model": name})
            assert "not found" not in shown.text


@pytest.mark.parametrize(
    "path",
    [
        "/api/models/{}",
        "/v1/models/{}",
        "/props?model={}",
        "/slots?model={}",
        "/upstream/{}/props",
        "/upstream/{}/slots",
    ],
)
@pytest.mark.parametrize("key", [*WITHIN, "none"])
def test_hidden_models_cannot_be_shown(server: Serving, key: str, path: str) -> None:
    with as_(server, key) as client:
        unknown = client.get(path.format("unknown"))
        assert unknown.status_code == 404
        for name in ("demo", "nick-demo", "broken"):
            hidden = client.get(path.format(name))
            assert hidden.status_code == 404
            assert hidden.text.replace(name, "unknown") == unknown.text
        shown = client.get(path.format("other"))
        assert shown.status_code == (404 if key == "none" else 200)


def test_a_request_without_a_model_means_one_that_exists_for_the_key(server: Serving) -> None:
    with as_(server, "by-name") as client:
        assert client.post("/completion", json={"prompt": "Hi", "n_predict": 3}).status_code == 200
    with as_(server, "all") as client:
        unclear = client.post("/completion", json={"prompt": "Hi", "n_predict": 3})
        assert unclear.status_code == 400
    with as_(server, "none") as client:
        assert "demo" not in client.post("/completion", json={"prompt": "Hi"}).text


def test_an_admin_with_a_scope_cannot_touch_other_models(server: Serving) -> None:
    with as_(server, "boss") as boss:
        for name in ("demo", "nick-demo", "broken", "unknown"):
            for method, action in [
                ("POST", "/load"),
                ("POST", "/unload"),
                ("POST", "/reload"),
                ("DELETE", ""),
                ("DELETE", "?force=true"),
            ]:
                answer = boss.request(method, f"/api/models/{name}{action}")
                assert answer.status_code == 404, (name, action, answer.text)
                expected = f"Model '{name}' not found. Available models: other"
                assert answer.json()["detail"] == expected
            copied = boss.post("/ollama/api/copy", json={"source": name, "destination": "mine"})
            assert copied.status_code == 404
        assert boss.post("/api/models/nick-other/load").status_code == 200
    assert (server.models_dir / "demo").exists()


def test_health_is_for_everyone(server: Serving) -> None:
    with as_(server, "by-name") as client:
        assert {"demo", "other"} <= set(client.get("/health").json()["models"])


def test_a_conversation_cannot_go_on_with_a_hidden_model(server: Serving) -> None:
    with server.client() as client:
        add_key(server.home, "moving", "secret-moving", KeyRules())
        client.headers.update(bearer("secret-moving"))
        wait_until(lambda: client.get("/api/models").status_code == 200, 5, "the key is known")
        first = client.post("/api/chat", json=CHAT | {"model": "demo"}).json()["session_id"]
        asked = {"model": "nick-demo", "input": "Hi", "max_output_tokens": 5}
        response = client.post("/v1/responses", json=asked).json()["id"]

        change_keys(server.home, lambda keys: keys.update("moving", {"models": ("other",)}))
        wait_until(lambda: len(client.get("/v1/models").json()["data"]) == 2, 5, "a scope")
        going_on = CHAT | {"session_id": first}
        assert client.post("/api/chat", json=going_on | {"model": "demo"}).status_code == 404
        assert client.post("/api/chat", json=going_on | {"model": "other"}).status_code == 200
        asked |= {"previous_response_id": response}
        assert client.post("/v1/responses", json=asked).status_code == 404
        assert client.post("/v1/responses", json=asked | {"model": "other"}).status_code == 200


def test_a_model_whose_folder_disappears_reveals_no_other(engine: Engine) -> None:
    with short_home() as home:
        shutil.copytree(BUILTIN_DIR / "demo", home / "models" / "leaving")
        add_key(home, "ann", "secret-ann", KeyRules(models=("leaving",)))
        with serving(home) as server, as_(server, "ann") as ann:
            asked = {"model": "leaving", "prompt": "Hi", "options": {"max_tokens": 1500}}
            with ann.stream("POST", "/api/generate", json=asked) as stream:
                lines = stream.iter_lines()
                next(lines)
                [process] = server.engines()
                suspend(process)
                shutil.rmtree(home / "models" / "leaving")
                process.kill()
                said = "".join(lines)
            assert "Model 'leaving' was removed while the request waited for it" in said
            assert "demo" not in said


@pytest.fixture
def moving(engine: Engine) -> Iterator[Serving]:
    """A server whose model `one` runs with the alias `nick`, which `two` has got on disk."""
    with short_home() as home:
        add_model_called(home, "one", "nick")
        add_model_called(home, "two")
        for name in ("one", "two"):
            add_key(
                home, f"only-{name}", f"secret-only-{name}", KeyRules(role="admin", models=(name,))
            )
        with serving(home) as running, as_(running, "only-one") as one:
            assert one.post("/api/models/nick/load").status_code == 200
            configure(home, "one")
            configure(home, "two", "nick")
            yield running


def add_model_called(home: Path, name: str, *aliases: str) -> None:
    shutil.copytree(BUILTIN_DIR / "demo", home / "models" / name)
    configure(home, name, *aliases)


def configure(home: Path, name: str, *aliases: str) -> None:
    config = home / "models" / name / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"aliases": aliases}))


def test_an_alias_that_moved_on_disk_leads_into_the_scope_alone(moving: Serving) -> None:
    with as_(moving, "only-two") as two, as_(moving, "only-one") as one:
        unloaded = two.post("/api/models/nick/unload")
        assert unloaded.json()["detail"] == "Model 'two' is not loaded"
        assert two.get("/api/models/nick").json()["name"] == "two"
        assert one.get("/api/models/nick").json()["name"] == "one"  # which runs with this alias
        copied = one.post("/ollama/api/copy", json={"source": "nick", "destination": "mine"})
        removed = one.delete("/api/models/nick")
    assert [copied.status_code, removed.status_code] == [404, 404]
    assert "two" not in copied.text + removed.text
    assert not (moving.models_dir / "mine").exists()
    assert len(moving.engines()) == 1


def test_an_alias_that_is_the_name_of_another_model_is_in_no_scope(engine: Engine) -> None:
    with short_home() as home:
        add_model_called(home, "one", "two")
        add_model_called(home, "two")
        add_key(home, "ann", "secret-ann", KeyRules(models=("two",)))
        with serving(home) as server, as_(server, "ann") as ann:
            assert [each["name"] for each in ann.get("/api/models").json()["models"]] == ["two"]
            assert ann.get("/api/models/one").status_code == 404
            asked = CHAT | {"model": "one"}
            assert ann.post("/v1/chat/completions", json=asked).status_code == 404
