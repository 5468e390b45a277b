"""The limits of keys, through a real server."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute

from myllm.api.dialects import DIALECTS
from myllm.api.http.rate_limits import HEADERS, asks_a_model
from myllm.engine.engine import Engine
from myllm.sessions.keys import KeyRules, KeyStore, hash_of
from tests.api.credentials import bearer
from tests.api.events import detail
from tests.clients.questions import ASKED, PARIS
from tests.keys import add_key, change_keys
from tests.serving import Serving, serving, short_home, suspend, wait_until

NOT_ASKING = {
    "/api/sessions/{session_id}/fork",
    "/api/sessions/import",
    "/api/models/{name:path}/load",
    "/api/models/{name:path}/unload",
    "/api/models/{name:path}/reload",
    "/api/reload",
    "/ollama/api/show",
    "/ollama/api/copy",
    "/ollama/api/pull",
}
"""The POST routes that ask no model anything."""
CHAT: dict[str, Any] = {"model": "demo", "messages": ASKED, "stream": False}


POOL = [
    KeyRules(**rules)
    for rules in [
        *[{"requests_per_minute": 1}] * 8,
        *[{"requests_per_minute": 2}] * 2,
        *[{"tokens_per_minute": 100}] * 8,
        {"tokens_per_minute": 500},
        {"tokens_per_minute": 1000},
        {"tokens_per_minute": 3000},
        *[{"tokens_per_minute": 100_000}] * 8,
        {"concurrent_requests": 1},
        {"concurrent_requests": 1, "tokens_per_minute": 3000},
    ]
]
"""The keys of the tests, none of which is used twice. They are stored before the server starts."""


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home:

        async def store(keys: KeyStore) -> None:
            for number, rules in enumerate(POOL):
                await keys.add_hashed(f"key-{number}", hash_of(f"secret-{number}"), rules)

        change_keys(home, store)
        with serving(home, slots=2) as running:
            yield running


NewKey = Callable[..., httpx.Client]


@pytest.fixture(scope="module")
def unused() -> list[tuple[int, KeyRules]]:
    return list(enumerate(POOL))


@pytest.fixture
def new_key(server: Serving, unused: list[tuple[int, KeyRules]]) -> Iterator[NewKey]:
    """Makes a client with an unused key that has these rules."""
    with ExitStack() as clients:

        def make(**rules: Any) -> httpx.Client:
            number = next(number for number, has in unused if has == KeyRules(**rules))
            unused.remove((number, POOL[number]))
            client = clients.enter_context(server.client())
            client.headers.update(bearer(f"secret-{number}"))
            return client

        yield make


def limits_of(answer: httpx.Response) -> dict[str, str]:
    return {name: answer.headers[name] for name in HEADERS if name in answer.headers}


def test_every_route_of_a_post_is_known_to_ask_a_model_or_not() -> None:
    routes = [route for each in DIALECTS for router in each.routers() for route in router.routes]
    paths = {
        route.path for route in routes if isinstance(route, APIRoute) and "POST" in route.methods
    }
    quiet = {path for path in paths if not asks_a_model("POST", path)}
    assert {path for path in quiet if not path.startswith("/api/keys")} == NOT_ASKING
    assert not any(asks_a_model("GET", path) for path in paths)


def test_requests_per_minute(new_key: NewKey) -> None:
    ann = new_key(requests_per_minute=2)
    for left in ("1", "0"):
        answer = ann.post("/api/chat", json=CHAT)
        assert answer.json()["message"]["content"] == PARIS
        told = limits_of(answer)
        assert told["x-ratelimit-limit-requests"] == "2"
        assert told["x-ratelimit-remaining-requests"] == left
        assert told["x-ratelimit-reset-requests"] in ("1m0s", "59s", "58s")
        assert "x-ratelimit-limit-tokens" not in told
    refused = ann.post("/api/chat", json=CHAT)
    assert "requests per minute (2)" in detail(refused, 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert limits_of(refused)["x-ratelimit-remaining-requests"] == "0"
    for path in ("/api/models", "/v1/models", "/api/sessions", "/ollama/api/tags"):
        answer = ann.get(path)  # lists do not count, but tell what is left
        assert answer.status_code == 200
        assert limits_of(answer)["x-ratelimit-remaining-requests"] == "0"
    assert not limits_of(ann.get("/health"))
    other = new_key(requests_per_minute=2)
    assert other.post("/api/chat", json=CHAT).status_code == 200


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/api/chat", lambda body: body["detail"]),
        ("/v1/chat/completions", lambda body: body["error"]["message"]),
        ("/chat/completions", lambda body: body["error"]["message"]),
        ("/v1/messages", lambda body: body["error"]["message"]),
        ("/ollama/api/chat", lambda body: body["error"]),
        ("/ollama/v1/chat/completions", lambda body: body["error"]["message"]),
        ("/upstream/demo/tokenize", lambda body: body["error"]["message"]),
    ],
)
def test_each_dialect_says_it_in_its_form(
    new_key: NewKey, path: str, form: Callable[[Any], str]
) -> None:
    ann = new_key(requests_per_minute=1)
    assert ann.post("/tokenize", json={"content": "Hi"}).status_code == 200
    refused = ann.post(path, json=CHAT)
    assert refused.status_code == 429
    assert "requests per minute (1)" in form(refused.json())
    assert refused.headers["retry-after"]
    names = [name for name in refused.headers if name.startswith("anthropic-ratelimit-requests-")]
    assert len(names) == (3 if path == "/v1/messages" else 0)


def test_tokens_per_minute(new_key: NewKey) -> None:
    """What is reserved for an answer is refunded when it is shorter."""
    ann = new_key(tokens_per_minute=1000)
    answer = ann.post("/api/chat", json=CHAT | {"options": {"max_tokens": 500}})
    used = answer.json()["usage"]["total_tokens"]
    assert limits_of(answer)["x-ratelimit-remaining-tokens"] == str(1000 - used)
    with ann.stream("POST", "/api/chat", json={"model": "demo", "messages": ASKED}) as stream:
        reserved = 1000 - used - int(limits_of(stream)["x-ratelimit-remaining-tokens"])
        assert used < reserved <= used + 512
        stream.read()
    left = int(limits_of(ann.get("/api/models"))["x-ratelimit-remaining-tokens"])
    assert left == 1000 - 2 * used
    refused = ann.post("/api/chat", json=CHAT | {"options": {"max_tokens": left}})
    assert f"of which {left} are left" in detail(refused, 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert int(limits_of(refused)["x-ratelimit-remaining-tokens"]) <= left
    assert ann.post("/api/chat", json=CHAT | {"options": {"max_tokens": 20}}).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "used"),
    [
        ("/v1/chat/completions", CHAT, lambda said: said["usage"]["total_tokens"]),
        ("/v1/chat/completions", CHAT | {"n": 3}, lambda said: said["usage"]["total_tokens"]),
        (
            "/v1/completions",
            {"model": "demo", "prompt": ["One", "Two"], "max_tokens": 5, "n": 2},
            lambda said: said["usage"]["total_tokens"],
        ),
        (
            "/v1/messages",
            CHAT | {"max_tokens": 50},
            lambda said: said["usage"]["input_tokens"] + said["usage"]["output_tokens"],
        ),
        (
            "/v1/embeddings",
            {"model": "demo", "input": ["word " * 20] * 70},
            lambda said: said["usage"]["total_tokens"],
        ),
        (
            "/v1/responses",
            {"model": "demo", "input": "What is the capital of France?"},
            lambda said: said["usage"]["total_tokens"],
        ),
        (
            "/ollama/api/chat",
            CHAT,
            lambda said: said["prompt_eval_count"] + said["eval_count"],
        ),
        (
            "/completion",
            {"prompt": "Once", "n_predict": 7},
            lambda said: said["tokens_evaluated"] + said["tokens_predicted"],
        ),
    ],
)
def test_every_dialect_is_settled_by_its_usage(
    new_key: NewKey, path: str, body: dict[str, Any], used: Callable[[Any], int]
) -> None:
    ann = new_key(tokens_per_minute=100_000)
    answer = ann.post(path, json=body)
    assert answer.status_code == 200, answer.text
    told = limits_of(answer)
    assert int(told["x-ratelimit-remaining-tokens"]) == 100_000 - used(answer.json())
    assert limits_of(ann.get("/v1/models")) == told | {
        "x-ratelimit-reset-tokens": limits_of(ann.get("/v1/models"))["x-ratelimit-reset-tokens"]
    }


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", CHAT | {"options": {"max_tokens": 150}}),
        ("/v1/chat/completions", CHAT | {"max_tokens": 150}),
        ("/v1/chat/completions", CHAT | {"n": 3, "max_tokens": 50}),
        ("/v1/completions", {"model": "demo", "prompt": "x" * 600}),
        ("/v1/embeddings", {"model": "demo", "input": ["word"] * 101}),
        ("/ollama/api/chat", CHAT | {"options": {"num_predict": 150}}),
    ],
)
def test_a_request_larger_than_the_limit_is_refused_for_good(
    new_key: NewKey, path: str, body: dict[str, Any]
) -> None:
    ann = new_key(tokens_per_minute=100)
    refused = ann.post(path, json=body)
    assert refused.status_code == 400
    assert "may use 100 per minute; shorten the prompt, or lower max_tokens" in refused.text
    assert limits_of(refused)["x-ratelimit-remaining-tokens"] == "100"
    assert ann.get("/api/usage").json()["total"]["requests"] == 0  # it has reached no queue


def test_the_history_of_a_conversation_counts(new_key: NewKey) -> None:
    """It is not in the request, so the server knows its size only when it has built the prompt."""
    ann = new_key(tokens_per_minute=500)
    conversation = [
        {"role": "user", "content": "word " * 100},
        {"role": "assistant", "content": "word " * 100},
    ]
    document: dict[str, Any] = {"version": 1, "id": "long", "model": "demo", "title": ""}
    document["messages"] = conversation * 3
    imported = ann.post("/api/sessions/import", json=document)
    assert imported.status_code == 201, imported.text
    asked: dict[str, Any] = CHAT | {"session_id": "long", "options": {"max_tokens": 10}}
    refused = ann.post("/api/chat", json=asked)
    assert re.match(r"This request can take \d+ tokens", detail(refused, 400))
    assert limits_of(refused)["x-ratelimit-remaining-tokens"] == "500"
    stored = ann.get("/api/sessions/long").json()["message_count"]
    assert stored == 6


def test_requests_at_once(server: Serving, new_key: NewKey) -> None:
    ann = new_key(concurrent_requests=1)
    assert ann.post("/api/chat", json=CHAT).status_code == 200  # which loads the model
    engines = server.engines()
    for engine in engines:
        suspend(engine)
    done: list[int] = []
    asking = threading.Thread(
        target=lambda: done.append(ann.post("/api/chat", json=CHAT).status_code)
    )
    try:
        asking.start()
        wait_until(lambda: _under_way(server) == 1, 10, "the request is under way")
        refused = ann.post("/v1/chat/completions", json=CHAT)
        assert refused.status_code == 429
        assert "requests at once (1)" in refused.json()["error"]["message"]
        assert refused.headers["retry-after"] == "1"
        assert not limits_of(refused)
    finally:
        for engine in engines:
            engine.resume()
        asking.join()
    assert done == [200]
    assert ann.post("/v1/chat/completions", json=CHAT).status_code == 200


def _under_way(server: Serving) -> int:
    with server.client() as client:
        health = client.get("/health").json()
        return int(health["active"]) + int(health["queued"])


def test_a_client_that_leaves_gives_everything_back(server: Serving, new_key: NewKey) -> None:
    ann = new_key(concurrent_requests=1, tokens_per_minute=3000)
    long: dict[str, Any] = {"model": "demo", "prompt": "Once upon a time", "max_tokens": 1500}
    long |= {"stream": True, "json_schema": {"type": "array", "items": {"type": "integer"}}}
    long["json_schema"]["minItems"] = 1000
    assert ann.post("/v1/completions", json=long | {"max_tokens": 1}).status_code == 200
    engines = server.engines()
    with ann.stream("POST", "/v1/completions", json=long) as stream:
        for engine in engines:  # or it would end the answer before the client leaves
            suspend(engine)
        assert int(limits_of(stream)["x-ratelimit-remaining-tokens"]) < 1500
        assert ann.post("/v1/completions", json=long).status_code == 429
    for engine in engines:
        engine.resume()

    def left() -> int:
        return int(limits_of(ann.get("/api/models"))["x-ratelimit-remaining-tokens"])

    wait_until(lambda: left() > 1500, 10, "the rest is refunded")
    assert left() < 3000
    wait_until(
        lambda: ann.post("/v1/chat/completions", json=CHAT).status_code == 200, 10, "a free place"
    )


def test_a_death_in_the_middle_of_an_answer_counts_nothing_twice(
    server: Serving, new_key: NewKey
) -> None:
    ann = new_key(tokens_per_minute=3000)
    body = {"model": "demo", "messages": [{"role": "user", "content": "Count to one hundred."}]}
    body |= {"stream": True, "max_tokens": 400, "stream_options": {"include_usage": True}}
    with ann.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        for _ in range(9):
            next(lines)
        for engine in server.engines():
            engine.kill()
        said = [line for line in lines if '"usage":{' in line]
    total = int(said[-1].partition('"total_tokens":')[2].partition(",")[0].rstrip("}"))
    left = int(limits_of(ann.get("/api/models"))["x-ratelimit-remaining-tokens"])
    assert left == 3000 - total


def test_a_limit_that_changes_in_the_middle_of_an_answer(server: Serving) -> None:
    secret = "changing-key-0123456789"
    add_key(server.home, "changing", secret, KeyRules(tokens_per_minute=2000))
    with server.client() as ann:
        ann.headers.update(bearer(secret))
        wait_until(lambda: ann.get("/api/models").status_code == 200, 5, "the key is known")
        body = {"model": "demo", "prompt": "Once", "stream": True, "max_tokens": 500}
        with ann.stream("POST", "/v1/completions", json=body) as stream:
            changes = {"tokens_per_minute": 5, "requests_per_minute": 7}
            change_keys(server.home, lambda keys: keys.update("changing", changes))
            stream.read()
        wait_until(lambda: "x-ratelimit-limit-requests" in ann.get("/api/models").headers, 5, "")
        told = limits_of(ann.get("/api/models"))
        assert told["x-ratelimit-limit-tokens"] == "5"
        assert told["x-ratelimit-remaining-tokens"] == "0"
        assert told["x-ratelimit-remaining-requests"] in ("6", "7")
        assert "tokens per minute (5)" in detail(ann.post("/api/chat", json=CHAT), 429)


def test_a_key_goes_no_further_ahead_than_it_may(engine: Engine) -> None:
    """Of two that wait, the one that came later is first, since the other one's key is low."""
    with short_home() as home:
        add_key(home, "low", "low-key", KeyRules(max_priority=-5))
        add_key(home, "plain", "plain-key", KeyRules())
        with serving(home, slots=1) as server, server.client() as low, server.client() as plain:
            low.headers.update(bearer("low-key"))
            plain.headers.update(bearer("plain-key"))
            assert plain.post("/api/chat", json=CHAT).status_code == 200
            [engine_process] = server.engines()
            suspend(engine_process)

            def ask(client: httpx.Client, priority: int) -> None:
                client.post("/api/chat", json=CHAT | {"priority": priority})

            asking: list[threading.Thread] = []
            for each in ((plain, 0), (low, 10), (plain, 0)):
                asking.append(threading.Thread(target=ask, args=each))
                asking[-1].start()
                wait_until(lambda: _under_way(server) == len(asking), 10, "it waits")
            engine_process.resume()
            for thread in asking:
                thread.join()
            ended = [json.loads(line) for line in server.log.splitlines()]
            chats = [each["client"] for each in ended if each.get("path") == "/api/chat"]
            assert chats[1:] == ["plain", "plain", "low"]


def test_pages_may_read_what_is_left(engine: Engine) -> None:
    with short_home() as home:
        add_key(home, "ann", "ann-key", KeyRules(requests_per_minute=5))
        with serving(home, cors_origins="https://app.example") as server, server.client() as api:
            headers = {**bearer("ann-key"), "Origin": "https://app.example"}
            answer = api.get("/api/models", headers=headers)
            shown = answer.headers["access-control-expose-headers"]
            assert answer.headers["x-ratelimit-remaining-requests"] == "5"
            assert set(HEADERS) <= set(shown.split(", "))
