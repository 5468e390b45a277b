"""What `GET /api/requests` shows of requests that real engines have answered."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from myllm.engine.engine import Engine
from myllm.sessions.keys import new_secret
from tests.api.credentials import ANN, BOB, bearer
from tests.api.events import detail, post, stream
from tests.keys import add_keys
from tests.serving import serving, suspend, wait_until

HI = [{"role": "user", "content": "Hello"}]
COUNT = [{"role": "user", "content": "Count to one hundred."}]


def shown(api: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    answer = api.get("/api/requests", params=query)
    assert answer.status_code == 200, answer.text
    requests: list[dict[str, Any]] = answer.json()["requests"]
    return requests


def test_an_answered_request(api: httpx.Client) -> None:
    api.post("/api/models/demo/unload", params={"force": "true"})
    answer = post(api, "/api/chat", model="demo", messages=HI, stream=False)
    [one] = shown(api, limit=1)
    assert (one["model"], one["role"], one["dialect"]) == ("demo", "generate", "native")
    assert (one["method"], one["path"]) == ("POST", "/api/chat")
    assert (one["state"], one["status"], one["error"]) == ("ok", 200, None)
    assert (one["key"], one["address"]) == (None, "127.0.0.1")
    assert one["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert one["generated_tokens"] == answer["usage"]["completion_tokens"]
    assert one["finish_reason"] == "stop"
    assert one["tokens_per_second"] > 0
    assert one["wait_seconds"] >= one["load_seconds"] > 0, "it loaded the model"
    assert one["seconds"] >= one["first_token_seconds"] >= one["wait_seconds"]
    assert datetime.fromisoformat(one["began_at"]).tzinfo is not None
    assert (one["resumed"], one["truncated"], one["dropped_messages"]) == (0, False, 0)


def test_each_dialect_and_role_is_named(api: httpx.Client) -> None:
    post(api, "/v1/chat/completions", model="demo", messages=HI, max_tokens=3)
    post(api, "/v1/messages", model="demo", messages=HI, max_tokens=3)
    post(api, "/ollama/api/chat", model="demo", messages=HI, stream=False)
    post(api, "/completion", prompt="Hello", model="demo", n_predict=3)
    post(api, "/api/embeddings", model="demo", input="Hello")
    last = shown(api, limit=5)
    assert [(one["dialect"], one["role"]) for one in last] == [
        ("native", "embed"),
        ("llamacpp", "generate"),
        ("ollama", "generate"),
        ("anthropic", "generate"),
        ("openai", "generate"),
    ]
    assert all(one["prompt_tokens"] > 0 for one in last)


def test_a_refused_request_says_why(api: httpx.Client) -> None:
    api.post("/api/chat", json={"model": "no-such-model", "messages": HI})
    api.post("/api/chat", json={"model": "demo", "messages": HI, "options": {"temperature": 9}})
    second, first = shown(api, limit=2)
    assert (first["status"], first["state"], first["model"]) == (404, "failed", None)
    assert "no-such-model" in first["error"]
    assert (second["status"], second["state"]) == (400, "failed")
    assert "temperature must be between" in second["error"]


def generating(api: httpx.Client) -> psutil.Process:
    """The engine that generates."""
    instances = api.get("/api/instances").json()["instances"]
    [pid] = [one["pid"] for one in instances if one["role"] == "generate"]
    return psutil.Process(pid)


def test_a_request_under_way_comes_first_until_its_client_leaves(api: httpx.Client) -> None:
    post(api, "/api/models/demo/load")
    engine = generating(api)
    suspend(engine)  # so that the answer does not end meanwhile
    try:
        with ThreadPoolExecutor() as pool:
            asked = {"model": "demo", "messages": HI, "stream": False}
            leaving = pool.submit(api.post, "/api/chat", json=asked, timeout=2)
            wait_until(lambda: len(shown(api, status="running")) == 1, 10, "a request runs")
            [one] = shown(api, limit=1)
            assert (one["number"], one["model"], one["status"]) == (None, "demo", None)
            assert (one["state"], one["prompt_tokens"]) == ("running", 0)
            assert isinstance(leaving.exception(), httpx.ReadTimeout)
            wait_until(lambda: shown(api, status="running") == [], 10, "its client's leaving seen")
    finally:
        engine.resume()
    ended = api.get(f"/api/requests/{one['id']}").json()
    assert (ended["state"], ended["error"]) == ("cancelled", None)


def test_an_answer_across_the_death_of_its_engine(api: httpx.Client) -> None:
    post(api, "/api/models/demo/load")
    with api.stream("POST", "/api/chat", json={"model": "demo", "messages": COUNT}) as answer:
        lines = answer.iter_lines()
        next(lines)
        generating(api).kill()
        for _ in lines:
            pass
    [one] = shown(api, limit=1)
    assert (one["state"], one["resumed"]) == ("ok", 1)


def test_they_can_be_followed_and_picked(api: httpx.Client) -> None:
    last = api.get("/api/requests").json()["last"]
    post(api, "/api/chat", model="demo", messages=HI, stream=False)
    stream(api, "/api/generate", model="demo", prompt="Hello", options={"max_tokens": 3})
    assert [one["path"] for one in shown(api, after=last)] == ["/api/generate", "/api/chat"]
    assert shown(api, after=last + 2) == []
    assert {one["model"] for one in shown(api, model="demo:latest", limit=1000)} == {"demo"}
    assert {one["status"] for one in shown(api, status="404")} <= {404}


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0}, {"limit": 1001}, {"limit": "x"}, {"status": "lost"}, {"status": 99},
        {"after": -1}, {"after": 2**31}, {"model": "m" * 1025}, {"key": "k" * 1025},
    ],
)  # fmt: skip
def test_a_wrong_query_is_refused(api: httpx.Client, query: dict[str, Any]) -> None:
    assert detail(api.get("/api/requests", params=query), 400)


def test_the_refusal_of_a_wrong_status_names_the_valid_ones(api: httpx.Client) -> None:
    said = detail(api.get("/api/requests", params={"status": "weird"}), 400)
    for state in ("a whole number", "queued", "running", "ok", "failed", "cancelled"):
        assert state in said


def test_an_unknown_id_is_404(api: httpx.Client) -> None:
    assert "nowhere" in detail(api.get("/api/requests/nowhere"), 404)


def test_bodies_are_not_kept_by_default(api: httpx.Client) -> None:
    post(api, "/api/chat", model="demo", messages=HI, stream=False)
    [one] = shown(api, limit=1)
    assert "request_body" not in api.get(f"/api/requests/{one['id']}").json()
    assert api.delete("/api/requests/bodies").json()["message"] == "Bodies of 0 requests forgotten"


def test_bodies_are_kept_if_the_operator_says_so(engine: Engine, home: Path) -> None:
    secret = "Keep the purple elephant a secret."
    messages = [{"role": "user", "content": secret}]
    with serving(home, capture_bodies="true") as server, server.client() as api:
        whole = post(api, "/api/chat", model="demo", messages=messages, stream=False)
        tokens, _ = stream(api, "/api/chat", model="demo", messages=messages)
        post(api, "/v1/chat/completions", model="demo", messages=messages)
        api.post("/v1/chat/completions", content=b"{" + secret.encode())
        listed = shown(api)
        assert secret not in str(listed)
        refused, relayed, streamed, answered = (
            api.get(f"/api/requests/{one['id']}").json() for one in listed
        )
        assert secret in answered["request_body"]
        assert whole["message"]["content"] in answered["response_body"]
        assert f'"token":"{tokens[0]}"' in streamed["response_body"]
        assert streamed["response_bytes"] == len(streamed["response_body"])
        assert '"choices"' in relayed["response_body"]
        assert "request_body" not in refused, "only requests to models"
        assert api.delete("/api/requests/bodies").status_code == 200
        assert "request_body" not in api.get(f"/api/requests/{answered['id']}").json()
    assert secret not in server.log


def test_the_list_is_answered_while_requests_end(api: httpx.Client) -> None:
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            post(api, "/api/generate", model="demo", prompt="Hi", stream=False,
                 options={"max_tokens": 1})  # fmt: skip

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for each in asking:
        each.start()
    try:
        for _ in range(30):
            numbers = [one["number"] for one in shown(api, limit=1000) if one["number"]]
            assert numbers == sorted(numbers, reverse=True)
    finally:
        done.set()
        for each in asking:
            each.join()


def test_an_admin_sees_all_requests_and_a_user_its_own(door: httpx.Client) -> None:
    chat = {"model": "demo", "messages": HI, "stream": False}
    ids = {}
    for key in (ANN, BOB):
        answer = door.post("/api/chat", json=chat, headers=bearer(key))
        assert answer.status_code == 200
        ids[key] = answer.headers["x-request-id"]
    door.get("/api/models", headers=bearer("a wrong key"))
    everything = door.get("/api/requests", headers=bearer(ANN))
    assert ANN not in everything.text
    assert {one["key"] for one in everything.json()["requests"]} == {"ann", "bob", None}
    own = door.get("/api/requests", headers=bearer(BOB)).json()["requests"]
    assert {one["key"] for one in own} == {"bob"}
    assert door.get(f"/api/requests/{ids[BOB]}", headers=bearer(BOB)).status_code == 200
    assert detail(door.get(f"/api/requests/{ids[ANN]}", headers=bearer(BOB)), 404)
    assert detail(door.delete("/api/requests/bodies", headers=bearer(BOB)), 403)


def test_bodies_are_for_admins_alone(engine: Engine, home: Path) -> None:
    add_keys(home, "admin", ann=ANN)
    add_keys(home, bob=BOB)
    with serving(home, capture_bodies="true") as server, server.client() as api:
        chat = {"model": "demo", "messages": HI, "stream": False}
        answer = api.post("/api/chat", json=chat, headers=bearer(BOB))
        path = f"/api/requests/{answer.headers['x-request-id']}"
        assert "request_body" not in api.get(path, headers=bearer(BOB)).json()
        seen = api.get(path, headers=bearer(ANN))
        assert "Hello" in seen.json()["request_body"]
        assert BOB not in seen.text


def test_a_key_in_a_path_is_neither_logged_nor_shown(engine: Engine, home: Path) -> None:
    """Such as by a person who revokes a key by the key itself."""
    secret = new_secret()
    with serving(home) as server, server.client() as api:
        for path in (f"/api/keys/{secret}", f"/{secret}"):
            assert api.delete(path).status_code in (400, 404)
        listed = api.get("/api/requests").text
        wait_until(lambda: '"/sk-myllm-***"' in server.log, 20, "the line in the log")
        assert "/api/keys/sk-myllm-***" in listed
        assert secret not in server.log + listed
