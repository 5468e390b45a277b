"""A client that leaves stops its generation, in every phase, and leaks nothing.

What the engine does is read from its own `/slots`. The contract is one second, and two batches
where a prompt is being read; the bounds here are wider because test machines are busy, and the
figures come from the benchmarks.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from myllm.engine.engine import Engine
from tests.serving import Serving, serving, short_home, wait_until

SOON_S = 10.0
# A batch of 512 tokens takes a busy machine with two cores more than half a minute.
TWO_BATCHES_S = 300.0
ENDLESS = {"max_tokens": 2000, "temperature": 2, "min_p": 0, "top_k": 0, "top_p": 1}
# An array of numbers that may not end, so that the answer runs to its last token.
WITHOUT_END = {"type": "array", "items": {"type": "integer"}, "minItems": 1000}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Serving]:
    """A server whose demo model answers one request at a time."""
    with short_home() as path, serving(path, slots=1) as running:
        yield running


class Leaving:
    """A client that sends a request, and leaves on command."""

    def __init__(self, server: Serving, path: str, *, size: int = 0, **body: Any) -> None:
        """The body is filled up with spaces to `size` bytes."""
        address = urlsplit(server.url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=60)
        content = json.dumps(body).encode().ljust(size)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._socket.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)

    def read_until(self, words: bytes) -> None:
        seen = b""
        while words not in seen:
            part = self._socket.recv(4096)
            assert part, f"the answer ended: {seen!r}"
            seen += part

    def leave(self) -> None:
        self._socket.close()


def endless(server: Serving, model: str = "demo", stream: bool = True, size: int = 0) -> Leaving:
    return Leaving(
        server, "/api/generate", size=size,
        model=model, prompt="Numbers:", stream=stream, options=ENDLESS, format=WITHOUT_END,
    )  # fmt: skip


def active(api: httpx.Client) -> tuple[int, int]:
    health = api.get("/health").json()
    return health["queued"], health["active"]


def slots(server: Serving) -> list[bool]:
    """Return the busy slots of the server's only engine."""
    transport = httpx.HTTPTransport(uds=str(server.engine_socket()))
    with httpx.Client(transport=transport, base_url="http://engine", timeout=60) as engine:
        return [slot["is_processing"] for slot in engine.get("/slots").json()]


def tokens_read(server: Serving) -> int:
    """Return how many prompt tokens the server's only engine has read."""
    transport = httpx.HTTPTransport(uds=str(server.engine_socket()))
    with httpx.Client(transport=transport, base_url="http://engine", timeout=60) as engine:
        metrics = engine.get("/metrics").raise_for_status().text
    [line] = [
        each for each in metrics.splitlines() if each.startswith("llamacpp:prompt_tokens_tot")
    ]
    return int(float(line.split()[1]))


def idle_after(server: Serving, api: httpx.Client, phase: str, within_s: float = SOON_S) -> None:
    """Check that the engine and the gateway soon have nothing to do."""
    took = wait_until(lambda: not any(slots(server)), within_s, "an idle slot")
    wait_until(lambda: active(api) == (0, 0), SOON_S, "an idle gateway")
    print(f"left while {phase}: slot free after {took:.3f} s")


# While a large body comes, reading pauses now and then.
@pytest.mark.parametrize("size", [0, 2**20])
@pytest.mark.parametrize("stream", [True, False])
def test_while_answering(server: Serving, api: httpx.Client, stream: bool, size: int) -> None:
    client = endless(server, stream=stream, size=size)
    if stream:
        client.read_until(b'"token"')
    wait_until(lambda: active(api) == (0, 1) and any(slots(server)), 30, "an answer")
    client.leave()
    idle_after(server, api, "answering")


def test_while_queued(server: Serving, api: httpx.Client) -> None:
    first = endless(server)
    first.read_until(b'"token"')
    second = endless(server)
    wait_until(lambda: active(api) == (1, 1), 30, "a queued request")
    second.leave()
    wait_until(lambda: active(api) == (0, 1), SOON_S, "an empty queue")
    assert any(slots(server)), "the first one is still answered"
    first.leave()
    idle_after(server, api, "answering")


def test_thirty_times_without_a_leak(server: Serving, api: httpx.Client) -> None:
    process = psutil.Process(server.process.pid)

    def leave_once() -> None:
        client = endless(server)
        client.read_until(b'"token"')
        client.leave()
        wait_until(lambda: active(api) == (0, 0), SOON_S, "an idle gateway")

    leave_once()
    before = process.num_fds(), process.num_threads()
    for _ in range(30):
        leave_once()
    wait_until(lambda: not any(slots(server)), SOON_S, "idle slots")
    wait_until(lambda: process.num_fds() <= before[0], SOON_S, "no more open files")
    assert process.num_threads() <= before[1]


def test_while_embedding(server: Serving, api: httpx.Client) -> None:
    texts = ["word " * 400] * 64
    client = Leaving(server, "/api/embeddings", model="demo", input=texts)
    time.sleep(0.2)
    client.leave()
    wait_until(lambda: active(api) == (0, 0), SOON_S, "an idle gateway")
    assert api.post("/api/embeddings", json={"model": "demo", "input": "x"}).status_code == 200


@pytest.fixture
def big(engine: Engine, big_model: Path) -> Iterator[Serving]:
    """A server with a model of realistic size, not loaded yet."""
    with short_home() as path:
        folder = path / "models" / "big"
        folder.parent.mkdir()
        folder.symlink_to(big_model.parent)
        with serving(path) as running:
            yield running


@pytest.mark.full
def test_while_loading_and_while_reading_the_prompt(big: Serving) -> None:
    with big.client() as api:
        client = endless(big, model="big")
        wait_until(lambda: api.get("/health").json()["models"] == {"big": "loading"}, 30, "a load")
        client.leave()
        wait_until(lambda: active(api) == (0, 0), SOON_S, "an empty queue")
        # The load belongs to the server, not to the client: it continues.
        wait_until(lambda: api.get("/health").json()["models"] == {"big": "ready"}, 60, "its end")
        assert not any(slots(big))
        before = tokens_read(big)
        reading = Leaving(
            big, "/api/generate", model="big", prompt="hi " * 1900, options={"max_tokens": 5}
        )
        wait_until(lambda: any(slots(big)), 30, "the prompt being read")
        time.sleep(1)
        assert active(api) == (0, 1)
        reading.leave()
        idle_after(big, api, "reading 1,900 tokens", TWO_BATCHES_S)
        [instance] = api.get("/api/instances").json()["instances"]
        assert tokens_read(big) - before <= 2 * instance["batch_size"] < 1900
