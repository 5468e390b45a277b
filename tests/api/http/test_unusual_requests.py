"""Requests in forms that some clients send: offers of HTTP/2, HTTP/1.0, slashes, HEAD."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.hostile.raw import answer_to, connect, head, post
from tests.serving import Serving, serving, short_home

PROMPT = {"model": "demo", "prompt": "The capital of France is", "options": {"max_tokens": 4}}
# As Java's client sends it by default.
H2C = (
    "Connection: Upgrade, HTTP2-Settings",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    "Upgrade: h2c",
)
WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
LAST = head("GET", "/health", "Connection: close")


def generate(*lines: str, stream: bool = False, version: str = "1.1") -> bytes:
    """A whole request with further lines in its head."""
    asked = post("/api/generate", PROMPT | {"stream": stream})
    start, end = asked.split(b"\r\n", 1)
    further = "".join(f"{line}\r\n" for line in lines).encode()
    return start.replace(b"1.1", version.encode()) + b"\r\n" + further + end


def statuses(answers: bytes) -> list[bytes]:
    return re.findall(rb"HTTP/1\.1 (\d+)", answers)


# Offers of another protocol


@pytest.mark.parametrize("offer", [H2C, WEBSOCKET, ("Connection: upgrade", "Upgrade: TLS/1.0")])
def test_an_offer_of_another_protocol_is_ignored(server: Serving, offer: tuple[str, ...]) -> None:
    got = answer_to(server, [generate(*offer), LAST])
    assert statuses(got) == [b"200", b"200"]
    assert b'"text":' in got


@pytest.mark.parametrize("size", [1, 7, 100])
def test_the_body_may_come_in_pieces(server: Serving, size: int) -> None:
    asked = generate(*H2C) + generate(*H2C, stream=True) + LAST
    got = answer_to(server, [asked[at : at + size] for at in range(0, len(asked), size)])
    assert statuses(got) == [b"200"] * 3
    assert b'"done":true,"full_text"' in got


def test_a_chunked_body_with_an_offer(server: Serving) -> None:
    body = json.dumps(PROMPT | {"stream": False}).encode()
    lines = ("Content-Type: application/json", "Transfer-Encoding: chunked", *H2C)
    asked = head("POST", "/api/generate", *lines) + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    assert statuses(answer_to(server, [asked + LAST])) == [b"200", b"200"]


def test_an_offer_on_a_get(server: Serving) -> None:
    asked = head("GET", "/api/models", *H2C) + head("GET", "/nowhere", *WEBSOCKET) + LAST
    assert statuses(answer_to(server, [asked])) == [b"200", b"404", b"200"]


def offered(method: str, version: str, lines: tuple[str, ...], chunked: bool = False) -> bytes:
    """A request that offers another protocol."""
    data = json.dumps(PROMPT | {"stream": False}).encode() if method == "POST" else b""
    more = ["Content-Type: application/json", f"Content-Length: {len(data)}"] if data else []
    if chunked:
        more[1], data = "Transfer-Encoding: chunked", b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)
    path = "/api/generate" if data else "/api/models"
    asked = head(method, path, "Upgrade: h2c", *lines, *more)
    return asked.replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1) + data


@pytest.mark.parametrize("size", [1, 2**20])
@pytest.mark.parametrize(
    ("version", "lines"),
    [
        ("1.1", ("Connection: close, Upgrade",)),
        ("1.1", ("Connection: Upgrade", "Connection: close")),
        ("1.0", ("Connection: Upgrade",)),
        ("1.0", ("Connection: keep-alive, Upgrade",)),
    ],
)
def test_the_last_request_of_a_connection_may_offer_another_protocol(
    server: Serving, version: str, lines: tuple[str, ...], size: int
) -> None:
    requests = [offered("GET", version, lines), offered("POST", version, lines)]
    if version == "1.1":
        requests.append(offered("POST", version, lines, chunked=True))
    before = offered("POST", "1.1", ("Connection: Upgrade",))
    for last in requests:
        # What follows the last request is not answered.
        for asked, count in ((last, 1), (before + last, 2), (last + LAST, 1)):
            got = answer_to(server, [asked[at : at + size] for at in range(0, len(asked), size)])
            assert statuses(got) == [b"200"] * count, asked


def test_offers_are_no_way_around_the_limits(server: Serving) -> None:
    many = answer_to(server, [head("GET", "/health", *H2C, *["a: b"] * 300)])
    assert statuses(many) == [b"431"]
    ahead = answer_to(server, [head("GET", "/api/models", *H2C) * 100])
    assert statuses(ahead)[-1:] in ([], [b"400"])  # closed, as without an offer
    tunnel = answer_to(server, [head("CONNECT", "localhost:1", "Connection: close")])
    assert statuses(tunnel) in ([b"400"], [b"404"], [b"405"])


# HTTP/1.0


def test_a_stream_to_http_1_0_has_no_chunks_and_ends_with_the_connection(server: Serving) -> None:
    start, body = answer_to(server, [generate(stream=True, version="1.0")]).split(b"\r\n\r\n", 1)
    assert b"transfer-encoding" not in start.lower()
    assert b"content-length" not in start.lower()
    assert b"connection: close" in start
    events = [event for event in body.split(b"\n\n") if event]
    assert all(event.startswith(b"data: ") for event in events)
    assert json.loads(events[-1].removeprefix(b"data: "))["done"] is True


@pytest.mark.parametrize("lines", [(), ("Connection: keep-alive",), ("Expect: 100-continue",)])
def test_a_whole_answer_to_http_1_0_has_its_length(server: Serving, lines: tuple[str, ...]) -> None:
    got = answer_to(server, [generate(*lines, version="1.0")])
    start, body = got.split(b"\r\n\r\n", 1)
    assert statuses(got) == [b"200"]
    assert f"content-length: {len(body)}".encode() in start
    assert b"connection: close" in start


def test_http_1_1_is_asked_to_go_on_and_gets_chunks(server: Serving) -> None:
    got = answer_to(server, [generate("Expect: 100-continue", stream=True), LAST])
    assert statuses(got) == [b"100", b"200", b"200"]
    assert b"transfer-encoding: chunked" in got


# Slashes


@pytest.mark.parametrize("path", ["//api/models", "/api/models/", "//api///models//"])
def test_further_slashes_make_no_difference(server: Serving, path: str) -> None:
    got = answer_to(server, [head("GET", path, "Connection: close")])
    assert statuses(got) == [b"200"]
    assert b'"name":"demo"' in got


@pytest.mark.parametrize(
    "path",
    ["//v1/chat/completions", "/v1/chat/completions/", "/ollama//v1/chat/completions/"],
)
def test_a_post_is_not_redirected(server: Serving, path: str) -> None:
    asked = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    got = answer_to(server, [post(path, asked) + LAST])
    assert statuses(got) == [b"200", b"200"]
    assert b"chat.completion" in got


def test_a_slash_in_a_name_stays(api: httpx.Client) -> None:
    for path in ("/v1/models/a/b/", "/api/models/a/b"):
        assert "'a/b'" in api.get(path).text
    assert "'a//b'" in api.get("/v1/models/a%2F%2Fb").text


def test_a_path_below_a_proxys(engine: Engine) -> None:
    with short_home() as home, serving(home, root_path="/llm") as server:
        for path in ("/llm//api/models/", "//llm/api/models", "/api/models/", "/llm", "/llm/", "/"):
            assert statuses(answer_to(server, [head("GET", path, "Connection: close")])) == [b"200"]
        assert statuses(answer_to(server, [head("GET", "/llmx", "Connection: close")])) == [b"404"]


# HEAD

# Paths whose answers differ from one moment to the next.
CHANGING = "metrics|health|instances|slots|requests|history|usage"


def test_head_is_answered_wherever_get_is(api: httpx.Client) -> None:
    described = api.get("/openapi.json").json()["paths"]
    known = {"name": "demo", "model": "demo", "session_id": "headed"}
    asked = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
    assert api.post("/api/chat", json=asked | {"session_id": "headed"}).is_success
    paths = [path for path, methods in described.items() if "get" in methods]
    assert len(paths) > 15
    for path in [*paths, "/", "/docs", "/openapi.json", "/swagger/swagger-ui.css"]:
        address = re.sub(r"{(\w+)[^}]*}", lambda found: known.get(found[1], "none"), path)
        bare = api.head(address)
        with api.stream("GET", address) as got:  # some go on forever
            assert (bare.status_code, bare.content) == (got.status_code, b""), path
        assert bare.headers["content-type"] == got.headers["content-type"], path
        if not re.search(CHANGING, path):
            lengths = [each.headers.get("content-length") for each in (bare, got)]
            assert lengths[0] == lengths[1], path


def test_head_of_an_endless_stream_ends(server: Serving) -> None:
    with connect(server) as client:
        for path in ("/api/events", "/api/logs/demo?follow=true"):
            client.sendall(head("HEAD", path))
        client.sendall(head("HEAD", "/v1/models") + LAST)
        got = client.makefile("rb").read()
    assert statuses(got) == [b"200"] * 4


def test_a_connection_goes_on_after_head(server: Serving) -> None:
    with connect(server) as client:
        client.sendall(head("HEAD", "/v1/models") + LAST)
        got = client.makefile("rb").read()
    assert statuses(got) == [b"200", b"200"]


def test_head_where_only_post_is_answered(api: httpx.Client) -> None:
    assert api.head("/v1/chat/completions").status_code == 405
    assert api.head("/nowhere").status_code == 404
