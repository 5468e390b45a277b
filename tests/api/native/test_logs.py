"""`GET /api/logs/{name}`: what engines have printed. How the files are read is tested in
`tests/launcher/local/test_log_files.py`."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from myllm.api.shared.engine_logs import MAX_READERS
from myllm.engine.engine import Engine
from myllm.sessions.keys import KeyRules
from tests.api.credentials import ANN, bearer
from tests.api.events import detail, post
from tests.hostile.raw import connect, head
from tests.keys import add_key, change_keys
from tests.serving import Serving, serving, wait_until
from tests.toys import add_toy

LOADED = "llama_server: model loaded"
SSE = {"Accept": "text/event-stream"}


def load(api: httpx.Client, name: str = "demo") -> None:
    """Load a model, and wait until what its engine has printed was read from the pipe."""
    post(api, f"/api/models/{name}/load")
    wait_until(lambda: LOADED in api.get(f"/api/logs/{name}").text, 10, "the engine's output")


def test_what_an_engine_has_printed(api: httpx.Client) -> None:
    load(api)
    answer = api.get("/api/logs/demo")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert LOADED in answer.text
    assert answer.text.endswith("\n")
    assert len(api.get("/api/logs/demo", params={"lines": 3}).text.splitlines()) == 3
    assert api.get("/api/logs/demo", params={"lines": 0}).text == ""


def test_the_same_as_events(api: httpx.Client) -> None:
    load(api)
    answer = api.get("/api/logs/demo", headers=SSE)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n") if line]
    assert lines == api.get("/api/logs/demo").text.splitlines()


@pytest.mark.parametrize("lines", ["-1", "10001", "all", "1e3"])
def test_the_number_of_lines_is_bounded(api: httpx.Client, lines: str) -> None:
    assert api.get("/api/logs/demo", params={"lines": lines}).status_code == 400


@pytest.mark.parametrize("name", ["nowhere", "..%2F..%2Fstderr", "%2Fetc%2Fhosts", ".*", "demo%00"])
@pytest.mark.parametrize("follow", ["false", "true"])
def test_a_model_that_does_not_exist(api: httpx.Client, name: str, follow: str) -> None:
    answer = api.get(f"/api/logs/{name}?follow={follow}")
    assert "not found" in detail(answer, 404)


def test_all_roles_of_a_model_by_its_alias(engine: Engine, home: Path) -> None:
    add_toy(home / "models", "toy", aliases=["org/plaything"])
    with serving(home) as server, server.client() as api:
        assert api.get("/api/logs/toy").text == ""  # exists, but has not run
        load(api, "toy")
        post(api, "/api/embeddings", model="toy", input="Hello")
        where = "/api/logs/org/plaything:latest"
        wait_until(lambda: api.get(where).text.count(LOADED) == 2, 10, "the output of both")
        logs = re.findall(r"^==> (\S+) <==$", api.get(where).text, re.MULTILINE)
        assert sorted(logs) == ["toy.embed", "toy.generate"]


def test_a_model_that_was_removed_still_has_its_logs(engine: Engine, home: Path) -> None:
    folder = add_toy(home / "models")
    with serving(home) as server, server.client() as api:
        load(api, "toy")
        post(api, "/api/models/toy/unload")
        shutil.rmtree(folder)
        assert api.get("/api/models/toy").status_code == 404
        assert LOADED in api.get("/api/logs/toy").text


@contextmanager
def following(api: httpx.Client, name: str, **query: str) -> Iterator[Iterator[str]]:
    """The lines that a follower gets."""
    with api.stream("GET", f"/api/logs/{name}", params={"follow": "true", **query}) as answer:
        assert answer.status_code == 200
        yield answer.iter_lines()


def test_a_follower_sees_a_restart_of_the_engine(engine: Engine, home: Path) -> None:
    with (
        serving(home) as server,
        server.client() as api,
        server.client() as other,
        following(api, "demo") as lines,  # begins before any engine has run
    ):
        for _ in range(2):
            post(other, "/api/models/demo/load")
            started = next(line for line in lines if line.startswith("==== "))
            [process] = server.engines()
            assert started.endswith(f" engine started, pid {process.pid} ====")
            assert any(LOADED in line for line in lines)
            process.send_signal(signal.SIGKILL)
            wait_until(lambda: other.get("/health").json()["models"] == {}, 20, "its end")


def test_a_follower_ends_when_the_server_has_stopped_the_engine(engine: Engine, home: Path) -> None:
    with serving(home) as server, server.client() as api, server.client() as other:
        load(other)
        with following(api, "demo", lines="0") as lines:
            os.kill(server.process.pid, signal.SIGTERM)
            assert "cleaning up before exit" in " ".join(lines)
        assert server.process.wait(20) == 0
        assert "Cancel" not in server.log


def test_a_follower_ends_with_its_key(engine: Engine, home: Path) -> None:
    add_key(home, "ann", ANN, KeyRules(role="admin"))
    with serving(home) as server, server.client() as api:
        api.headers.update(bearer(ANN))
        load(api)
        with following(api, "demo", lines="1") as lines:
            next(lines)
            change_keys(home, lambda keys: keys.update("ann", {"role": "user"}))
            assert LOADED not in "".join(lines)  # all of them, so the answer has ended
        assert api.get("/api/logs/demo").status_code == 403


def test_the_readers_are_bounded_and_counted_down(server: Serving, api: httpx.Client) -> None:
    with ExitStack() as open_ones:
        for _ in range(MAX_READERS):
            client = open_ones.enter_context(server.client())
            open_ones.enter_context(following(client, "demo"))
        refused = api.get("/api/logs/demo")
        assert "end one of them" in detail(refused, 503)
        assert int(refused.headers["retry-after"]) > 0
    wait_until(lambda: api.get("/api/logs/demo").status_code == 200, 10, "a free place")


def test_a_follower_that_never_reads_is_dropped(engine: Engine, home: Path) -> None:
    log = home / "state" / "logs" / "demo.generate.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"{'x' * 1000}\n" * 2000)
    with serving(home, module="tests.hostile.impatient") as server, server.client() as api:
        assert api.get("/api/logs/demo").status_code == 200
        process = psutil.Process(server.process.pid)
        before = process.memory_info().rss
        with ExitStack() as open_ones:
            for _ in range(4):
                client = open_ones.enter_context(connect(server))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.sendall(head("GET", "/api/logs/demo?lines=10000&follow=true"))
            with log.open("a") as growing:  # to more than the system's buffers hold
                growing.write(f"{'x' * 1000}\n" * 20_000)
            wait_until(lambda: server.log.count("client stopped reading") == 4, 30, "the drop")
            assert process.memory_info().rss - before < 20 * 2**20
        assert api.get("/api/logs/demo").status_code == 200
