"""Bodies that stay in memory while their requests wait."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from myllm.engine.engine import Engine
from tests.hostile.attacks import others_are_served
from tests.hostile.raw import connect, head, post, to_the_end
from tests.serving import Serving, serving, short_home, wait_until

# All bodies may take 8 MiB, those of one client 4; each of these takes a little less than one.
_SIZE = 2**20 - 2**12
_OF_ONE = 4
_ASK = {"model": "demo", "prompt": "Hello", "stream": False, "options": {"max_tokens": 1}}
_OTHERS = [f"127.0.0.{number}" for number in range(2, 5)]


@pytest.fixture(scope="module")
def small(engine: Engine) -> Iterator[Serving]:
    with short_home() as home, serving(home, max_body_mb=1, max_bodies_mb=8) as running:
        with running.client() as client:
            client.post("/api/generate", json=_ASK).raise_for_status()
        yield running


@pytest.fixture(autouse=True)
def others(small: Serving) -> Iterator[None]:
    """Check in every test of this file that other clients get `/health` and memory is freed."""
    with others_are_served(small):
        yield


def _large(size: int = _SIZE, path: str = "/api/generate") -> bytes:
    """A request with a large body and a short answer."""
    body = json.dumps(_ASK).encode()
    lines = ("Content-Type: application/json", f"Content-Length: {size}", "Connection: close")
    return head("POST", path, *lines) + body + b" " * (size - len(body))


def _unfinished(server: Serving, held: ExitStack, source: str) -> socket.socket:
    """A client that has sent all of a large body but the last byte."""
    client = held.enter_context(connect(server, source))
    client.sendall(_large()[:-1])
    return client


def _asked(server: Serving, source: str, path: str = "/api/generate") -> bytes:
    with connect(server, source) as client:
        client.sendall(_large(path=path))
        return to_the_end(client)


@contextmanager
def _full_for(server: Serving, source: str) -> Iterator[list[socket.socket]]:
    """Keep as much of one client in memory as it may have while the block runs."""
    with ExitStack() as held:
        yield [_unfinished(server, held, source) for _ in range(_OF_ONE)]


# One route that reads its body itself, and some whose body FastAPI reads.
@pytest.mark.parametrize("path", ["/api/generate", "/api/sessions/import", "/v1/rerank"])
def test_a_client_at_its_share_of_memory_is_refused_more(small: Serving, path: str) -> None:
    with _full_for(small, _OTHERS[0]):
        wait_until(lambda: b" 429 " in _asked(small, _OTHERS[0], path)[:15], 10, "refused")
        response = _asked(small, _OTHERS[0], path)
        assert b"retry-after: 5" in response
        assert b"have bodies of more than 4 MiB together" in response
        assert _asked(small, _OTHERS[1]).startswith(b"HTTP/1.1 200 ")
    _all_is_free(small)


def test_the_bodies_of_all_clients_together_are_bounded(small: Serving) -> None:
    with _full_for(small, _OTHERS[0]), _full_for(small, _OTHERS[1]):
        wait_until(lambda: b" 503 " in _asked(small, _OTHERS[2])[:15], 10, "refused")
        response = _asked(small, _OTHERS[2])
        assert b"retry-after: 5" in response
        assert b"leave no memory" in response
        with connect(small, _OTHERS[2]) as client:  # a small body still fits
            client.sendall(post("/api/generate", _ASK))
            assert b" 200 " in client.recv(100)[:15]
    _all_is_free(small)


def test_a_body_counts_until_its_request_is_answered(small: Serving) -> None:
    """Also while the request waits for its turn, or for an engine."""
    [engine] = small.engines()
    engine.suspend()
    try:
        with ExitStack() as held:
            for _ in range(_OF_ONE):
                held.enter_context(connect(small, _OTHERS[0])).sendall(_large())
            wait_until(lambda: b" 429 " in _asked_briefly(small, _OTHERS[0]), 10, "refused")
        # The clients have left.
        wait_until(lambda: b" 429 " not in _asked_briefly(small, _OTHERS[0]), 10, "free")
    finally:
        engine.resume()
    _all_is_free(small)


@pytest.mark.parametrize("end", ["leaves", "finishes", "is too large", "is no JSON"])
def test_a_body_is_freed_however_its_request_ends(small: Serving, end: str) -> None:
    for _ in range(3 * _OF_ONE):
        with connect(small, _OTHERS[0]) as client:
            match end:
                case "leaves":
                    client.sendall(_large()[:-1])
                    time.sleep(0.02)
                case "finishes":
                    client.sendall(_large())
                    assert b" 200 " in to_the_end(client)[:15]
                case "is too large":
                    client.sendall(_large(2**20 + 1))
                    assert b" 413 " in to_the_end(client)[:15]
                case "is no JSON":
                    client.sendall(_large().replace(b"}", b"]"))
                    assert b" 400 " in to_the_end(client)[:15]
    _all_is_free(small)


def _asked_briefly(server: Serving, source: str) -> bytes:
    """The beginning of the answer, if it comes at once."""
    with connect(server, source) as client:
        client.sendall(_large())
        client.settimeout(0.3)
        try:
            return client.recv(100)[:15]
        except TimeoutError:
            return b""


def _all_is_free(server: Serving) -> None:
    """Check that two clients can each use their whole share of memory."""
    for source in _OTHERS[:2]:
        with ExitStack() as held:
            clients = [_unfinished(server, held, source) for _ in range(_OF_ONE)]
            for client in clients:
                client.sendall(b" ")
            assert all(b" 200 " in to_the_end(client)[:15] for client in clients)
