"""One key gets no more than its share of an engine, even if it leaves streams unread, sends many
inputs at once, or marks its requests as urgent."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from myllm.engine.engine import Engine
from tests.api.credentials import port_of
from tests.hostile.attacks import others_are_served
from tests.hostile.keyed import ANN, BOB, asking_as, keyed
from tests.serving import Serving, short_home

SLOTS = 2


@pytest.fixture(scope="module")
def keyed_server(engine: Engine) -> Iterator[Serving]:
    with short_home() as home, keyed(home, slots=SLOTS) as server:
        yield server


@contextmanager
def unread(server: Serving, key: str, path: str, body: dict[str, Any]) -> Iterator[socket.socket]:
    """Request a stream and yield its socket; only the test reads from it."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Authorization: Bearer {key}\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.settimeout(120)
        client.connect(("127.0.0.1", port_of(server)))
        client.sendall(head.encode() + content)
        yield client


def short_answer_s(server: Serving, key: str) -> float:
    """Request a short answer; return the seconds it took."""
    body = {"model": "demo", "prompt": "Once", "stream": False, "options": {"max_tokens": 2}}
    with asking_as(server, key, timeout=120) as api:
        began = time.monotonic()
        api.post("/api/generate", json=body).raise_for_status()
        return time.monotonic() - began


PAUSED = "answer paused: its client reads nothing"


@pytest.mark.more
def test_unread_streams_do_not_block_the_slots(keyed_server: Serving) -> None:
    """The server pauses them, and continues them when the client reads."""
    body = {
        "model": "demo",
        "messages": [{"role": "user", "content": "Count to one hundred."}],
        "stream": True,
        "seed": 1,
        # More than the buffers between the server and a client can hold.
        "logprobs": True,
        "top_logprobs": 20,
        "n": 10,
    }
    with others_are_served(keyed_server), ExitStack() as streams:
        clients = [
            streams.enter_context(unread(keyed_server, ANN, "/v1/chat/completions", body))
            for _ in range(SLOTS)
        ]
        ends = time.monotonic() + 60
        while PAUSED not in keyed_server.log:  # on a busy machine, slots are free at first
            assert time.monotonic() < ends
            assert short_answer_s(keyed_server, BOB) < 100, (
                "a slot was free only when the server dropped the client, after 300 s"
            )
        with ThreadPoolExecutor(len(clients)) as pool:
            for text in pool.map(read_to_the_end, clients):
                assert "data: [DONE]" in text or '"error"' in text


def read_to_the_end(client: socket.socket) -> str:
    """Read a whole answer, or its beginning and an error."""
    text = b""
    while b"\r\n0\r\n\r\n" not in text[-16:]:
        received = client.recv(2**20)
        assert received, text[-300:]
        text += received
    return text.decode()


def test_another_key_gets_its_turn_among_many_inputs_of_one(keyed_server: Serving) -> None:
    inputs = [f"{number} " + "word " * 20 for number in range(130)]
    finished = dict[str, float]()

    def embed(key: str, given: list[str], name: str) -> int:
        with asking_as(keyed_server, key, timeout=300) as api:
            body = {"model": "demo", "input": given}
            answer = api.post("/v1/embeddings", json=body).raise_for_status()
            finished[name] = time.monotonic()
            return len(answer.json()["data"])

    embed(ANN, ["loads the model"], "load")
    with others_are_served(keyed_server), ThreadPoolExecutor(8) as pool:
        many = [pool.submit(embed, ANN, inputs, "many") for _ in range(4)]
        time.sleep(0.1)
        assert not any(each.done() for each in many)
        assert pool.submit(embed, BOB, ["one", "two"], "few").result() == 2
        assert not all(each.done() for each in many), "Bob had to wait for everything"
        assert [each.result() for each in many] == [len(inputs)] * len(many)


def test_another_key_gets_its_turn_among_many_choices_of_one(keyed_server: Serving) -> None:
    body = {"model": "demo", "prompt": ["Once"] * 20, "n": 4, "max_tokens": 30}

    def complete() -> int:
        with asking_as(keyed_server, ANN, timeout=300) as api:
            answer = api.post("/v1/completions", json=body).raise_for_status()
            return len(answer.json()["choices"])

    with others_are_served(keyed_server), ThreadPoolExecutor(4) as pool:
        many = [pool.submit(complete) for _ in range(4)]
        time.sleep(0.3)
        with asking_as(keyed_server, BOB) as bob:
            instances = bob.get("/api/instances").json()["instances"]
        waiting = max(each["queued"] for each in instances)
        assert 0 < waiting <= 4 * 8, "a request must take few places in the queue at a time"
        short_answer_s(keyed_server, BOB)
        assert not all(each.done() for each in many), "Bob had to wait for everything"
        assert {each.result() for each in many} == {80}


def test_a_flood_of_urgent_requests_does_not_delay_other_keys(keyed_server: Serving) -> None:
    body = {"model": "demo", "prompt": "Once", "stream": False, "priority": 10}
    body["options"] = {"max_tokens": 100}

    def urgent() -> None:
        with asking_as(keyed_server, ANN, timeout=300) as api:
            api.post("/api/generate", json=body).raise_for_status()

    with others_are_served(keyed_server), ThreadPoolExecutor(16) as pool:
        flood = [pool.submit(urgent) for _ in range(48)]
        time.sleep(0.3)
        short_answer_s(keyed_server, BOB)
        assert not all(each.done() for each in flood), "Bob had to wait for everything"
        for each in flood:
            each.result()
