"""Clients that connect and then take their time."""

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
    """In every test of this file: `/health` for others meanwhile, and memory afterwards."""
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
    "a refused one without its body": head("POST", "/nowhere", *_LENGTH),
    "a body nobody reads": head("GET", "/health", *_LENGTH),
}


@pytest.mark.parametrize("sent", _WAITING)
def test_many_connections_that_wait_for_nothing_are_closed(hasty: Serving, sent: str) -> None:
    with ExitStack() as opened:
        clients = [opened.enter_context(connect(hasty)) for _ in range(300)]
        for client in clients:
            client.sendall(_WAITING[sent])
        wait_until(lambda: all(map(is_closed, clients)), _SOON_S, f"{sent}: closed")


@pytest.mark.parametrize("sent", ["half a head", "half a body", "half a chunk"])
def test_whoever_has_begun_is_told_why(hasty: Serving, sent: str) -> None:
    with connect(hasty) as client:
        client.sendall(_WAITING[sent])
        said = to_the_end(client)
    assert said.startswith(b"HTTP/1.1 408 "), said
    assert b"connection: close" in said
    assert "Traceback" not in hasty.log


def test_a_head_that_comes_byte_by_byte_has_no_more_time_than_others(hasty: Serving) -> None:
    with connect(hasty) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        wait_until(lambda: not _can_send(client, b"x"), _SOON_S, "closed")


def test_a_body_that_trickles_is_too_slow(hasty: Serving) -> None:
    with connect(hasty) as client:
        client.sendall(head("POST", "/api/chat", *_LENGTH))
        wait_until(lambda: not _can_send(client, b" "), _SOON_S, "closed")


def test_a_slow_body_that_goes_on_arrives(hasty: Serving) -> None:
    """Four times the deadline for a step, but each step is in time."""
    data = json.dumps(_CHAT | {"messages": [{"role": "user", "content": "x" * 640_000}]}).encode()
    lines = ("Content-Type: application/json", f"Content-Length: {len(data)}", "Connection: close")
    with connect(hasty) as client:
        client.sendall(head("POST", "/api/chat", *lines))
        for begin in range(0, len(data), 2**15):
            client.sendall(data[begin : begin + 2**15])
            time.sleep(0.2 * _S)
        said = to_the_end(client)
    assert said.startswith(b"HTTP/1.1 400 ")  # it does not fit the context
    assert b"too long" in said


def test_an_answer_that_takes_long_is_waited_for(hasty: Serving) -> None:
    """While it is made nothing passes between client and server."""
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


def test_a_connection_in_use_is_kept(hasty: Serving) -> None:
    with connect(hasty) as client:
        for _ in range(8):
            client.sendall(head("GET", "/health"))
            assert client.recv(2**16).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.4 * _S)


def test_a_client_may_send_on_for_a_while_after_an_early_answer(hasty: Serving) -> None:
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


def test_leaving_behind_a_pipelined_request_is_noticed(hasty: Serving) -> None:
    """The answer that is being made is given up as quickly as without one."""
    asks = {"model": "demo", "prompt": "Count", "options": {"max_tokens": 400}, "stream": False}
    with hasty.client() as others:
        others.post("/api/generate", json=asks | {"options": {"max_tokens": 1}}).raise_for_status()
        [engine] = hasty.engines()
        engine.suspend()
        try:
            with connect(hasty) as client:
                client.sendall(post("/api/generate", asks) + post("/api/generate", asks))
                wait_until(lambda: _active(others) == 1, 10, "the first is being answered")
                client.sendall(b"x" * 2**18)  # so that there is more than is read ahead
            took = wait_until(lambda: _active(others) == 0, 10, "given up")
        finally:
            engine.resume()
    assert took < 1


def _active(client: httpx.Client) -> int:
    return int(client.get("/health").json()["active"])
