"""Clients that connect and then send slowly, or nothing."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from myllm.engine.engine import Engine
from tests.hostile.attacks import others_are_served
from tests.hostile.raw import connect, head, is_closed, post, to_the_end
from tests.serving import Serving, serving, short_home, wait_until

_S = 1
_SOON_S = 20 * _S
_CHAT = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}], "stream": False}
_LENGTH = ("Content-Type: application/json", "Content-Length: 1000000")


@pytest.fixture(scope="module")
def hasty(engine: Engine) -> Iterator[Serving]:
    """A server with short deadlines."""
    times = {f"{name}_timeout": _S for name in ("header", "body", "idle")}
    with short_home() as home, serving(home, **times) as running:
        yield running


@pytest.fixture(autouse=True)
def others(hasty: Serving) -> Iterator[None]:
    """Check in every test of this file that other clients get `/health` and memory is freed."""
    with others_are_served(hasty):
        yield


_WAITING = {
    "nothing": b"",
    "half a request line": b"GET /heal",
    "half a head": b"GET /health HTTP/1.1\r\nHost: localhost\r\n",
    "a head without its body": head("POST", "/api/chat", *_LENGTH),
    "half a body": head("POST", "/api/chat", *_LENGTH) + b" " * 100_000,
    "half a chunk": head("POST", "/api/chat", "Transfer-Encoding: chunked") + b"5\r\nab",
    "a whole request": head("GET", "/health"),
    "a refused request without its body": head("POST", "/nowhere", *_LENGTH),
    "a body that the route does not read": head("GET", "/health", *_LENGTH),
}


@pytest.mark.parametrize("sent", _WAITING)
def test_many_idle_connections_are_closed(hasty: Serving, sent: str) -> None:
    with ExitStack() as opened:
        clients = [opened.enter_context(connect(hasty)) for _ in range(300)]
        for client in clients:
            client.sendall(_WAITING[sent])
        wait_until(lambda: all(map(is_closed, clients)), _SOON_S, f"{sent}: closed")


@pytest.mark.parametrize("sent", ["half a head", "half a body", "half a chunk"])
def test_an_unfinished_request_gets_a_408(hasty: Serving, sent: str) -> None:
    with connect(hasty) as client:
        client.sendall(_WAITING[sent])
        received = to_the_end(client)
    assert received.startswith(b"HTTP/1.1 408 "), received
    assert b"connection: close" in received
    assert "Traceback" not in hasty.log


def test_a_head_sent_byte_by_byte_has_the_same_deadline(hasty: Serving) -> None:
    with connect(hasty) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        wait_until(lambda: not _can_send(client, b"x"), _SOON_S, "closed")


def test_a_body_that_trickles_is_cut_off(hasty: Serving) -> None:
    with connect(hasty) as client:
        client.sendall(head("POST", "/api/chat", *_LENGTH))
        wait_until(lambda: not _can_send(client, b" "), _SOON_S, "closed")


def test_a_slow_but_steady_body_arrives(hasty: Serving) -> None:
    """It takes four times the deadline of a step, but each step is in time."""
    data = json.dumps(_CHAT | {"messages": [{"role": "user", "content": "x" * 640_000}]}).encode()
    lines = ("Content-Type: application/json", f"Content-Length: {len(data)}", "Connection: close")
    with connect(hasty) as client:
        client.sendall(head("POST", "/api/chat", *lines))
        for begin in range(0, len(data), 2**15):
            client.sendall(data[begin : begin + 2**15])
            time.sleep(0.2 * _S)
        received = to_the_end(client)
    assert received.startswith(b"HTTP/1.1 400 ")  # the prompt does not fit the context
    assert b"too long" in received


def test_no_deadline_cuts_an_answer_that_takes_long(hasty: Serving) -> None:
    """No byte passes between client and server while the engine computes."""
    ask = {"model": "demo", "prompt": "Count", "stream": False, "options": {"max_tokens": 1}}
    with hasty.client() as client:
        client.post("/api/generate", json=ask).raise_for_status()
        [engine] = hasty.engines()
        engine.suspend()
        with connect(hasty) as waiting:
            waiting.sendall(post("/api/generate", ask))
            time.sleep(4 * _S)
            engine.resume()
            assert waiting.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_connection_in_use_stays_open(hasty: Serving) -> None:
    with connect(hasty) as client:
        for _ in range(8):
            client.sendall(head("GET", "/health"))
            assert client.recv(2**16).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.4 * _S)


def test_a_client_may_finish_its_body_after_an_early_answer(hasty: Serving) -> None:
    with connect(hasty) as client:
        client.sendall(head("GET", "/health", "Content-Length: 200000") + b"x" * 100_000)
        assert client.recv(2**16).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"x" * 100_000 + head("GET", "/health"))
        assert client.recv(2**16).startswith(b"HTTP/1.1 200 ")


def _can_send(client: socket.socket, data: bytes) -> bool:
    time.sleep(0.01)
    if is_closed(client):
        return False
    try:
        client.setblocking(True)
        client.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def test_a_client_that_leaves_behind_a_pipelined_request_is_noticed(hasty: Serving) -> None:
    """The running answer is cancelled as quickly as without a second request."""
    asks = {"model": "demo", "prompt": "Count", "options": {"max_tokens": 400}, "stream": False}
    with hasty.client() as others:
        others.post("/api/generate", json=asks | {"options": {"max_tokens": 1}}).raise_for_status()
        [engine] = hasty.engines()
        engine.suspend()
        try:
            with connect(hasty) as client:
                client.sendall(post("/api/generate", asks) + post("/api/generate", asks))
                wait_until(lambda: _active(others) == 1, 10, "the first request is active")
                client.sendall(b"x" * 2**18)  # more than the server reads ahead
            took = wait_until(lambda: _active(others) == 0, 10, "the answer is cancelled")
        finally:
            engine.resume()
    assert took < 1


def _active(client: httpx.Client) -> int:
    return int(client.get("/health").json()["active"])
